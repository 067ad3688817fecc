"""compile(): from nodes to a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backend import find_backend
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node, Parameter
from graphc.lower.checks import find_checks
from graphc.lower.lowering import lower
from graphc.lower.plan import Plan
from graphc.ops.checked import check_finite as check_node
from graphc.passes import RewritePass, run_passes
from graphc.passes.fold import FOLD
from graphc.passes.simplify import CANONICAL, SIMPLIFY
from graphc.passes.structure import Decompose, ResolvePhase, ShareCommuted
from graphc.program import Program
from graphc.rewrite import RewriteLog

if TYPE_CHECKING:
    from graphc.backend import Backend


SIMPLIFICATION = (RewritePass("simplify", SIMPLIFY), ShareCommuted())
"""What every graph goes through."""

CLEANING = (RewritePass("clean", FOLD + CANONICAL), ShareCommuted())
"""What follows decomposition: nothing that would put composites back."""


def compile(
    outputs: Mapping[str, Node],
    inputs: Iterable[Node],
    updates: Mapping[Parameter, Node] | None = None,
    backend: str = "auto",
    training: bool = False,
    check_finite: bool = False,
) -> Program:
    """A program that computes ``outputs`` from ``inputs`` and then updates parameters.

    Args:
        outputs: results by name.
        inputs: the placeholders that the program takes, in any order.
        updates: next values of parameters. They read old values and take effect together.
        backend: ``"numba"``, ``"reference"``, a plug-in's name, or ``"auto"`` for the best one available.
        training: which branch of :func:`graphc.when_training` is meant.
        check_finite: refuse a step whose outputs or updates hold NaN or infinity, before any state changes.

    Raises:
        GraphError, NameClashError: the signature does not hold together.
        BackendError: there is no such backend, or it cannot run here or cannot run an op.

    >>> import numpy as np
    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch",))
    >>> double = gx.compile({"y": x + x}, inputs=[x])
    >>> double(x=np.float32([1, 2]))["y"]
    array([2., 4.], dtype=float32)
    """
    target = find_backend(backend)
    graph = make_graph(outputs, inputs, updates)
    graph = run_passes(graph, (ResolvePhase(training), *((CheckAllFinite(),) if check_finite else ())))
    log = RewriteLog()
    simplified = run_passes(graph, SIMPLIFICATION, log)
    plan = make_plan(simplified, target)
    return Program(graph, simplified, plan, target.compile(plan), target, training, log)


def make_plan(graph: Graph, backend: Backend) -> Plan:
    """Decompose what the backend does not take whole, simplify what came of it, and lower if it wants kernels."""
    decomposed = run_passes(graph, (Decompose(backend.takes), *CLEANING))
    if not backend.lowers:
        return Plan(decomposed, parameters=decomposed.parameters, checks=find_checks(decomposed))
    return lower(decomposed)


@dataclass(frozen=True)
class CheckAllFinite:
    """Check every output and every next value of a parameter for NaN and infinity."""

    name = "check_all_finite"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        """The graph with a check on each root of a floating type."""
        names = [f"output {name!r}" for name, _ in graph.outputs]
        names += [f"the update of {target.label!r}" for target, _ in graph.updates]
        return graph.with_roots(
            check_node(node, label) if node.dtype.is_float else node
            for node, label in zip(graph.roots, names, strict=True)
        )
