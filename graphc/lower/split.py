"""Reductions to a single number, split in two so that they can run on several threads.

``sum(x)`` over all axes of ``x`` becomes the sum of each row and then the sum of the rows' sums. The rows are fused
with whatever makes ``x``; what a thread adds up does not depend on how many threads there are.
"""

from __future__ import annotations

from graphc.ir.dims import product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.lower.cluster import reduces
from graphc.ops.reduction import Reduce

SMALLEST_ROW = 8
"""Rows known to be shorter than this are not worth a kernel of their own."""


def split_full_reductions(graph: Graph) -> Graph:
    """The graph with each reduction over everything as two."""
    return graph.rebuild(_split)


def _split(node: Node, args: tuple[Node, ...]) -> Node | None:
    op = node.op
    if not isinstance(op, Reduce) or not reduces(node) or len(op.axes) != len(args[0].shape):
        return None
    long = [axis for axis in op.axes if args[0].shape[axis] != 1]
    if len(long) < 2:
        return None
    row = product(tuple(args[0].shape[axis] for axis in long[1:]))
    if isinstance(row, int) and row < SMALLEST_ROW:
        return None
    inner = tuple(axis for axis in op.axes if axis != long[0])
    rows = apply(type(op)(inner, True), args[0])
    return apply(type(op)(op.axes, op.keepdims), rows)
