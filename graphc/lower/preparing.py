"""Prepared values: what depends on parameters alone is computed once, and again when a parameter has changed.

The values are parameters that the user does not see, and a plan of its own updates them. Whoever changes a parameter
tells the values that depend on it; a call only looks whether they are up to date. Each value exists once in a process:
programs that need the same node share it, and it goes with the last of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.backend import Backend, compile_plan
from graphc.ir.graph import Graph
from graphc.ir.node import Node, Parameter
from graphc.ir.types import TensorType
from graphc.lower.fingerprint import fingerprint
from graphc.lower.lowering import lower
from graphc.lower.memory import layout
from graphc.lower.plan import Plan
from graphc.lower.prepared import with_prepared, worth_preparing

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PreparedValues:
    """Values of parameters alone, and how to compute them.

    A change of a parameter leaves a new mark in ``wanted``; ``made`` is the mark that the values were computed under.
    So a change that comes while they are being computed is not lost.

    Args:
        plan: updates the parameters that hold the values.
        parameters: these.
        backend: computes the values.
        text: says what they are, if the plan is from the disk; see :func:`graphc.lower.fingerprint.fingerprint`.

    Attributes:
        held: nodes with the parameter that holds their value; empty as long as a plan from the disk is enough.
        wanted, made: marks; the values are up to date where both are the same object.
        runs: how often they have been computed.
    """

    def __init__(self, plan: Plan, parameters: Sequence[Parameter], backend: Backend, text: str | None) -> None:
        self.plan = plan
        self.parameters = tuple(parameters)
        self.backend = backend
        self.text = text
        self.held: dict[Node, Parameter] = {}
        self.executable = compile_plan(plan, backend)
        self.wanted = self.made = object()
        self.runs = 0
        self._lock = threading.RLock()
        self._sources = sources_of(plan, parameters)
        self.expire()
        for parameter in self._sources:
            parameter.add_dependent(self)
        _living.add(self)

    def expire(self) -> None:
        """Count as old from now on: a parameter may change."""
        self.wanted = object()

    def renew(self) -> None:
        """Compute the values if they are old. Whoever comes meanwhile waits."""
        with self._lock:
            mark = self.wanted
            if self.made is mark:
                return
            held = False
            for parameter in self._sources:
                held = held or parameter.is_held
                parameter.fetch()
            self.runs += 1
            self.executable.bind({}).run((), ())
            if not held:  # else the array may be written again, without a word
                self.made = mark

    @property
    def graph(self) -> Graph:
        """What computes the values."""
        nodes = {id(parameter): node for node, parameter in self.held.items()}
        return Graph((), (), tuple((parameter, nodes[id(parameter)]) for parameter in self.parameters))

    @property
    def nbytes(self) -> int:
        """The memory of the values and of what their computation needs."""
        values = sum(parameter.type.nbytes({}) for parameter in self.parameters)
        return values + layout(self.plan, {}).peak_bytes

    def after_fork(self) -> None:
        """In a child: the thread that was at work is not there any more."""
        self._lock = threading.RLock()
        self.expire()


_living: weakref.WeakSet[PreparedValues] = weakref.WeakSet()
_by_node: weakref.WeakValueDictionary[tuple[int, int], PreparedValues] = weakref.WeakValueDictionary()
_by_text: weakref.WeakValueDictionary[tuple[object, ...], PreparedValues] = weakref.WeakValueDictionary()
"""Keys hold ids of nodes, parameters and backends, all of which the values keep alive."""
_sharing = threading.RLock()


def set_apart(graph: Graph, backend: Backend, is_kept: bool) -> tuple[Graph, tuple[PreparedValues, ...]]:
    """The graph without what is worth preparing for it, and the values that it reads instead.

    Args:
        graph: with its composites decomposed.
        backend: that will run it.
        is_kept: may the plan be kept on disk?
    """
    halves = getattr(backend, "multiplies_halves", False)
    nodes = worth_preparing(graph, halves) if backend.lowers else ()
    if not nodes:
        return graph, ()
    with _sharing:
        known = {node: _by_node.get((id(node), id(backend))) for node in nodes}
        missing = tuple(node for node, values in known.items() if values is None)
        if missing:
            made = _values_of(missing, backend, is_kept)
            for node in missing:
                known[node] = _by_node[id(node), id(backend)] = made
    groups = tuple(dict.fromkeys(values for values in known.values() if values is not None))
    table = {node: parameter for values in groups for node, parameter in values.held.items()}
    return with_prepared(graph, ((node, table[node]) for node in nodes)), groups


def shared_values(plan: Plan, parameters: Sequence[Parameter], backend: Backend, text: str | None) -> PreparedValues:
    """Values that this plan computes: those that are there already, if they are made of the same parameters."""
    key = (text, id(backend), *map(id, sources_of(plan, parameters)))
    with _sharing:
        found = _by_text.get(key) if text is not None else None
        if found is None:
            found = PreparedValues(plan, parameters, backend, text)
            if text is not None:
                _by_text[key] = found
    return found


def sources_of(plan: Plan, parameters: Sequence[Parameter]) -> list[Parameter]:
    """The parameters that a plan reads to update the others."""
    updated = set(map(id, parameters))
    return [parameter for parameter in plan.parameters if id(parameter) not in updated]


def hidden_parameter(type: TensorType) -> Parameter:
    """A parameter for a prepared value, whose memory is taken when it is first needed."""
    shape = tuple(int(str(size)) for size in type.shape)

    def zeros() -> NDArray[np.generic]:
        return np.zeros(shape, type.dtype.numpy)  # the system maps what is written, which on a GPU is nothing

    return Parameter("prepared", zeros, False, type)


def _values_of(nodes: tuple[Node, ...], backend: Backend, is_kept: bool) -> PreparedValues:
    hidden = tuple(hidden_parameter(node.type) for node in nodes)
    graph = Graph((), (), tuple(zip(hidden, nodes, strict=True)))
    values = shared_values(lower(graph), hidden, backend, fingerprint(graph) if is_kept else None)
    for node, parameter in zip(nodes, values.parameters, strict=True):
        values.held[node] = parameter
        parameter.label = f"prepared {node.op.name}"
        parameter.sites = node.sites
    if not values.plan.graph.updates:  # it is from the disk, and reports need its nodes
        values.plan = lower(values.graph)
    return values


def _after_fork() -> None:
    for values in _living:
        values.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
