"""Simplification: all rules that keep the meaning of a graph, to a common fixpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.errors import DTypeError
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ops.base import user_line
from graphc.passes.algebra import ALGEBRA
from graphc.passes.choices import CHOICES
from graphc.passes.fold import FOLD
from graphc.passes.layout import LAYOUT
from graphc.passes.recognize import COMPOSITES
from graphc.passes.scans import improve_scans, merge_scans
from graphc.passes.sequences import SEQUENCES
from graphc.passes.stabilize import STABLE
from graphc.rewrite import RewriteLog, rewrite

CANONICAL = ALGEBRA + CHOICES + LAYOUT + SEQUENCES
"""Rules that only put a graph into one of its equal forms."""

SIMPLIFY = FOLD + CANONICAL + STABLE + COMPOSITES
"""Constant folding, canonical forms, stable forms, and what was written out recognized, in the order of trial."""


def simplify(node: Node, log: RewriteLog | None = None) -> Node:
    """An equal node of the same type that says the same in fewer, faster or more stable operations.

    Args:
        node: what to simplify, with everything it needs.
        log: gets every firing of a rule; its ``fuel`` limits them.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,))
    >>> print(gx.formula(gx.simplify(-gx.log(gx.sigmoid(x) * 1) + 0)))
    softplus(-x)
    """
    if not isinstance(node, Node):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DTypeError(f"{type(node).__name__} is no node", at=user_line(), remedy="give what a gx function returned")
    return rewrite((node,), SIMPLIFY, log)[0]


def simplify_primal(roots: Iterable[Node], log: RewriteLog | None = None) -> tuple[Node, ...]:
    """Several nodes simplified together, with scans improved: what differentiation does first."""
    simple = rewrite(roots, SIMPLIFY, log)
    improved = improve_scans(simple)
    return simple if improved is simple else rewrite(improved, SIMPLIFY, log)


@dataclass(frozen=True)
class ImproveScans:
    """Prune scans, take large products out of them, simplify what came of it, and make one of those that step alike."""

    name: str = "improve_scans"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        roots = graph.roots
        improved = improve_scans(roots)
        if improved is roots:
            return graph
        return graph.with_roots(merge_scans(rewrite(improved, SIMPLIFY, log)))
