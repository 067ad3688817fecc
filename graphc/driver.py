"""compile(): from nodes to a program."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from graphc.backend import compile_plan, find_backend, fits_of
from graphc.errors import GraphError
from graphc.ir import location
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node, Parameter
from graphc.ir.precision import FLOAT32, Precision, find_precision
from graphc.lower.checks import find_checks
from graphc.lower.lowering import lower
from graphc.lower.plan import Plan
from graphc.lower.preparing import set_apart
from graphc.lower.sizes import find_size_rules
from graphc.lower.store import Kept, Lowered, find, keep, key_of
from graphc.ops.base import explaining
from graphc.passes import decompose_for, prepare, run_passes, simplify_graph, use_factors
from graphc.passes.remat import KeepLess
from graphc.program import Program

if TYPE_CHECKING:
    from graphc.backend import Backend
    from graphc.lower.budget import Rematerialization


def compile(
    outputs: Mapping[str, Node],
    inputs: Iterable[Node],
    updates: Mapping[Parameter, Node] | None = None,
    backend: str | Backend = "auto",
    training: bool = False,
    check_finite: bool = False,
    memory_budget: int | float | None = None,
    precision: str | None = None,
) -> Program:
    """A program that computes ``outputs`` from ``inputs`` and then updates parameters.

    Args:
        outputs: results by name.
        inputs: the placeholders that the program takes, in any order.
        updates: next values of parameters. They read old values and take effect together.
        backend: ``"numba"``, ``"cupy"``, ``"reference"``, a plug-in's name, a backend itself, or ``"auto"`` for the
            best one available.
        training: which branch of :func:`graphc.when_training` is meant.
        check_finite: refuse a step whose outputs or updates hold NaN or infinity, before any state changes.
        memory_budget: the most bytes that intermediates may take, or as a float a part of what they take otherwise.
            Values of the forward pass are then computed again in the backward pass instead of being kept; what is
            kept and what is not stands in ``Program.rematerialization``. Symbolic sizes count as 32.
        precision: what products of float32 are computed in: ``"float32"``, the default; ``"mixed_bfloat16"`` or
            ``"mixed_float16"``, their operands rounded to these types and their sums in float32; ``"tf32"``, which
            lets a GPU round operands to 10 bits of mantissa. Parameters stay float32.

    Raises:
        GraphError, NameClashError: the signature does not hold together.
        BackendError: there is no such backend, or it cannot run here or cannot run an op.
        GraphError: the memory budget cannot be reached, or the backend plans no memory.

    >>> import numpy as np
    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch",))
    >>> double = gx.compile({"y": x + x}, inputs=[x])
    >>> double(x=np.float32([1, 2]))["y"]
    array([2., 4.], dtype=float32)
    """
    with explaining("compile"):
        target = find_backend(backend)
        policy = find_precision(precision)
        graph = prepare(make_graph(outputs, inputs, updates), training, check_finite)
        key = key_of(graph, target, memory_budget, policy)
        place = location.here()

        def lower_it() -> Lowered:  # where the plan was kept from another time: once somebody asks for nodes
            with location.at(place), _uncollected():
                simplified, log = simplify_graph(graph)
                simplified = use_factors(simplified, policy.factors)
                decomposed = decompose_for(
                    simplified, target.takes, factors=policy.factors, prepares=target.lowers, fits=fits_of(target)
                )
                rest, prepared = set_apart(decomposed, target, key is not None)
                if memory_budget is None:
                    return Lowered(simplified, log, _lowered(rest, target, policy.tf32), prepared)
                plan, rematerialization = _lowered_within(rest, target, memory_budget, policy.tf32)
                return Lowered(simplified, log, plan, prepared, rematerialization)

        kept = None if key is None else find(key, graph, target)
        if kept is not None:
            return Program(graph, lower_it, kept, compile_plan(kept.plan, target), target, training, policy)
        lowered = lower_it()
        rules = find_size_rules((*graph.nodes, *lowered.plan.graph.nodes))
        kept = Kept(lowered.plan, tuple(rule.least for rule in rules), lowered.prepared)
        program = Program(graph, lambda: lowered, kept, compile_plan(lowered.plan, target), target, training, policy)
        if key is not None:
            keep(key, graph, kept)
        return program


@contextmanager
def _uncollected() -> Generator[None, None, None]:
    """Without the collector of cycles: nearly all that is made here stays, and to look through it takes a tenth."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_plan(graph: Graph, backend: Backend, policy: Precision = FLOAT32) -> Plan:
    """The plan of a simplified graph, with nothing prepared.

    What the backend does not take whole is decomposed, what came of it simplified, and if it wants kernels, lowered.
    """
    decomposed = decompose_for(graph, backend.takes, factors=policy.factors, fits=fits_of(backend))
    return _lowered(decomposed, backend, policy.tf32)


def _lowered(graph: Graph, backend: Backend, tf32: bool) -> Plan:
    if not backend.lowers:
        return Plan(graph, parameters=graph.parameters, checks=find_checks(graph))
    return replace(lower(run_passes(graph, (_keep_less(backend),))), tf32=tf32)


def _keep_less(backend: Backend) -> KeepLess:
    return KeepLess(getattr(backend, "computes_freely", False))


def _lowered_within(graph: Graph, backend: Backend, budget: int | float, tf32: bool) -> tuple[Plan, Rematerialization]:
    """The plan with an arena of at most ``budget`` bytes (a float: of a part of what it would take)."""
    from graphc.lower.budget import lower_within

    number: Any = budget
    budget = cast("int | float", number.item() if hasattr(number, "item") else number)  # one of NumPy's
    positive = isinstance(budget, int | float) and not isinstance(budget, bool) and budget > 0  # pyright: ignore[reportUnnecessaryIsInstance]
    if not positive or (isinstance(budget, float) and budget > 1):
        raise GraphError(f"memory_budget is {budget!r}", remedy="give bytes as an int, or a part up to 1.0 as a float")
    if not backend.lowers:
        raise GraphError(f"the backend {backend.name} plans no memory", remedy="leave out memory_budget")
    plan, rematerialization = lower_within(graph, run_passes(graph, (_keep_less(backend),)), budget, {})
    return replace(plan, tf32=tf32), rematerialization
