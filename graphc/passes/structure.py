"""Passes that settle what a graph may leave open: phase, markers, checks, composites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir import location
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ops.checked import CheckFinite
from graphc.ops.control import CustomVjp, StopGradient, WhenTraining
from graphc.rewrite import FunctionRule, RewriteLog, RuleSet, rewrite


@dataclass(frozen=True)
class ResolvePhase:
    """Replace each ``when_training(a, b)`` by ``a`` in training, else by ``b``."""

    training: bool
    name: str = "resolve_phase"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        def choose_phase(node: Node) -> Node | None:
            return node.args[0 if self.training else 1]

        rules = RuleSet((FunctionRule((WhenTraining,), choose_phase, ()),))
        return graph.with_roots(rewrite(graph.roots, rules, log))


def drop_marker(node: Node) -> Node | None:
    """``stop_gradient(x)`` and ``custom_vjp`` are their value once everything is differentiated."""
    return node.args[0]


@dataclass(frozen=True)
class DropMarkers:
    """Remove what only tells differentiation what to do. After this no gradient may be taken."""

    name: str = "drop_markers"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        rules = RuleSet((FunctionRule((StopGradient, CustomVjp), drop_marker, ()),))
        return graph.with_roots(rewrite(graph.roots, rules, log))


@dataclass(frozen=True)
class CheckRoots:
    """Check that every floating output and update is finite when the program runs, before state changes."""

    name: str = "check_roots"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        labels = [f"output {name!r}" for name, _ in graph.outputs]
        labels += [f"the update of {target.label!r}" for target, _ in graph.updates]
        return graph.with_roots(
            _checked(node, label) if node.dtype.is_float else node
            for node, label in zip(graph.roots, labels, strict=True)
        )


def _checked(node: Node, label: str) -> Node:
    with location.at(node.loc):
        return apply(CheckFinite(label), node)


def always(node: Node) -> bool:
    """Whatever the operands are."""
    return True


@dataclass(frozen=True)
class Decompose:
    """Replace composite ops that the backend does not take by what they are made of, down to primitives.

    Attributes:
        takes: says of a composite op whether the backend executes it whole.
        fits: says of a node with such an op whether it does so with these operands, too.
    """

    takes: Callable[[Op], bool]
    fits: Callable[[Node], bool] = always
    name: str = "decompose"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        def decompose_composite(node: Node) -> Node | None:
            if not node.op.composite or self._is_whole(node):
                return None
            return node.op.decompose(*node.args)

        rules = RuleSet((FunctionRule((Op,), decompose_composite, ()),))
        return graph.with_roots(rewrite(graph.roots, rules, log))

    def _is_whole(self, node: Node) -> bool:
        return self.takes(node.op) and not node.op.in_parts(*node.args) and self.fits(node)
