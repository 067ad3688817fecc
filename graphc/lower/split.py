"""Reductions that are two: to a single number, and to the place of an extreme.

``sum(x)`` over all axes of ``x`` becomes the sum of each row and then the sum of the rows' sums, which can run on
several threads. The rows are fused with whatever makes ``x``: they are all that belongs to an index of the first axis,
or those of the last axis where a softmax or a normalization makes them. What a thread adds up does not depend on how
many threads there are. The place of the largest element of a long row becomes the largest element and then the first
place where it stands: neither of the two depends on the order, so that both are computed many elements at a time.
"""

from __future__ import annotations

from graphc.ir.dims import product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.types import DType
from graphc.lower.cluster import reduces
from graphc.ops.base import Elementwise
from graphc.ops.compare import equal, not_equal, where
from graphc.ops.create import iota
from graphc.ops.logic import logical_or
from graphc.ops.reduction import ArgMax, ArgMin, Max, Min, Reduce

SMALLEST_ROW = 8
"""Rows known to be shorter than this are not worth a kernel of their own."""
LONG_ROW = 128
"""From here on the place of an extreme is searched for in a second pass."""


def split_full_reductions(graph: Graph) -> Graph:
    """The graph with each reduction over everything, and each search for an extreme in long rows, as two."""
    return graph.rebuild(_split)


def _split(node: Node, args: tuple[Node, ...]) -> Node | None:
    op = node.op
    if isinstance(op, ArgMax | ArgMin):
        return _extreme_and_place(op, args[0])
    if not isinstance(op, Reduce) or not reduces(node) or len(op.axes) != len(args[0].shape):
        return None
    long = [axis for axis in op.axes if args[0].shape[axis] != 1]
    if len(long) < 2:
        return None
    row = product(tuple(args[0].shape[axis] for axis in long[1:]))
    if isinstance(row, int) and row < SMALLEST_ROW:
        return None
    last = args[0].ndim - 1
    inner = (last,) if long[-1] == last and _is_made_by_rows(args[0]) else tuple(a for a in op.axes if a != long[0])
    rows = apply(type(op)(inner, True), args[0])
    return apply(type(op)(op.axes, op.keepdims), rows)


def _is_made_by_rows(x: Node) -> bool:
    """Is it elementwise work on what is known of each row of as many elements?"""
    stack, seen = [x], {x}
    while stack:
        node = stack.pop()
        if isinstance(node.op, Reduce):
            if node.op.axes == (x.ndim - 1,) and node.op.keepdims and node.args[0].shape == x.shape:
                return True
        elif isinstance(node.op, Elementwise):
            new = [arg for arg in node.args if arg.ndim == x.ndim and arg not in seen]
            seen.update(new)
            stack += new
    return False


def _extreme_and_place(op: ArgMax | ArgMin, x: Node) -> Node | None:
    size = x.shape[op.axis]
    if op.axis != x.ndim - 1 or not isinstance(size, int) or size < LONG_ROW:
        return None
    extreme = apply((Max if isinstance(op, ArgMax) else Min)((op.axis,), True), x)
    found = equal(x, extreme)
    if x.dtype.is_float:  # the extreme of a row with NaN is NaN, and its place that of the first one
        found = logical_or(found, not_equal(x, x))
    places = where(found, iota(x.shape, op.axis, DType.int64), size)
    return apply(Min((op.axis,), op.keepdims), places)
