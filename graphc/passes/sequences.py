"""What loops over sequences and their derivatives are made of, without what is undone again.

Sequences lie batch first for the user and time first for a loop: exchanges of these axes cancel, or meet at ids, which
are small. The values of a carry at all steps are one tensor with the first value in front; its parts are slices, so
that their cotangents are paddings, of which the derivative of the loop takes slices.
"""

from __future__ import annotations

import numpy as np

from graphc.ir import location
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply, constant
from graphc.ops.arithmetic import Add, add
from graphc.ops.base import Elementwise
from graphc.ops.checked import Checked
from graphc.ops.indexing import Take
from graphc.ops.linear import MatMul, matmul
from graphc.ops.movement import Concatenate, Transpose, broadcast_to, concatenate, reshape, transpose
from graphc.ops.padding import Pad, pad
from graphc.ops.reduction import Sum
from graphc.ops.reduction import sum as sum_of
from graphc.ops.slicing import Slice
from graphc.rewrite import RuleSet, rule


@rule(
    Slice,
    example=(
        lambda leaf: pad(leaf("n", 3), (1, 0), (0, 0))[1:],
        lambda leaf: pad(leaf("n", 3), (1, 0), (0, 2))[1:, :4],
        lambda leaf: pad(leaf(4, 3), (2, 0), (0, 0), value=7.0)[:1],
    ),
)
def slice_before_padding(node: Node) -> Node | None:
    """A part of a padded tensor is a part of the tensor, padded less; or padding only."""
    (whole,) = node.args
    if not isinstance(node.op, Slice) or not isinstance(whole.op, Pad) or any(whole.op.interior):
        return None
    if any(step != 1 for step in node.op.steps):
        return None
    x, value = whole.args
    rows: list[tuple[Size, Size, Size, Size]] = []
    for axis, size in enumerate(x.shape):
        low, end = whole.op.low[axis], whole.op.low[axis] + size
        start, stop = node.op.starts[axis], node.op.stops[axis]
        if _at_least(low, stop) or _at_least(start, end):
            return broadcast_to(value, node.shape)
        if start == 0 and stop == whole.shape[axis]:
            rows.append((0, size, low, whole.op.high[axis]))
            continue
        before, within = _at_least(low, start), _at_least(start, low) and _at_least(end, start)
        behind, inside = _at_least(stop, end), _at_least(end, stop) and _at_least(stop, low)
        if not (before or within) or not (behind or inside):
            return None
        begin, lower = (0, low - start) if before else (start - low, 0)
        finish, higher = (size, stop - end) if behind else (stop - low, 0)
        rows.append((begin, finish, lower, higher))
    starts, stops, lows, highs = zip(*rows, strict=True)
    part = apply(Slice(starts, stops, (1,) * x.ndim), x)
    return apply(Pad(lows, highs, (0,) * x.ndim), part, value)


def _at_least(a: Size, b: Size) -> bool:
    """Is ``a >= b`` for all sizes, those of no elements included?"""
    excess = a - b
    return isinstance(excess, int) and excess >= 0


@rule(
    Slice,
    example=lambda leaf: add(pad(leaf(4, 3), (1, 0), (0, 0)), pad(leaf(2, 3), (1, 0), (2, 0)))[1:],
)
def slice_padded_terms(node: Node) -> Node | None:
    """A part of a sum is the sum of the parts, which are less than their paddings."""
    (whole,) = node.args
    if not isinstance(whole.op, Add) or not any(isinstance(term.op, Pad) for term in whole.args):
        return None
    if any(term.shape != whole.shape for term in whole.args):
        return None
    return add(*(apply(node.op, term) for term in whole.args))


@rule(
    Sum,
    example=(
        lambda leaf: sum_of(matmul(leaf(2, 3, 4, 1), leaf(2, 3, 1, 5)), axis=0),
        lambda leaf: sum_of(matmul(leaf("n", 3, 4, 1), leaf("n", 3, 1, 5)), axis=0),
    ),
)
def sum_outer_products(node: Node) -> Node | None:
    """The sum over steps of a column times a row, for each sample, is one product for each: a memory's gradient."""
    (product,) = node.args
    if not isinstance(node.op, Sum) or node.op.axes != (0,) or not isinstance(product.op, MatMul):
        return None
    a, b = product.args
    if a.ndim != 4 or a.shape[:2] != b.shape[:2] or a.shape[3] != 1:
        return None
    columns = transpose(reshape(a, a.shape[:3]), (1, 2, 0))
    rows = transpose(reshape(b, (*b.shape[:2], b.shape[3])), (1, 0, 2))
    return reshape(matmul(columns, rows), node.shape)


@rule(
    Transpose,
    example=(
        lambda leaf: transpose(apply(Take(0), leaf(5, 3), _rows(2, 4)), (1, 0, 2)),
        lambda leaf: transpose(apply(Take(1), leaf(3, 5), _rows(2, 4)), (0, 2, 1)),
    ),
)
def take_in_other_order(node: Node) -> Node | None:
    """What is taken by ids in another order is what ids in that order take: they are smaller."""
    (taken,) = node.args
    if not isinstance(node.op, Transpose) or not isinstance(taken.op, Take):
        return None
    x, ids = taken.args
    axis = taken.op.axis
    order = node.op.axes[axis : axis + ids.ndim]
    around = (*node.op.axes[:axis], *node.op.axes[axis + ids.ndim :])
    if ids.ndim < 2 or around != (*range(axis), *range(axis + ids.ndim, node.ndim)):
        return None
    with location.at(taken.loc):  # an id that is not there is the fault of the line that takes
        return apply(taken.op, x, transpose(ids, tuple(place - axis for place in order)))


def _rows(*shape: int) -> Node:
    return constant(np.arange(np.prod(shape)).reshape(shape) % 5)


@rule(
    Transpose,
    example=(
        lambda leaf: transpose(concatenate([transpose(leaf(3, 4)), transpose(leaf(3, 4))], 1)),
        lambda leaf: transpose(concatenate([transpose(leaf(n, 2, 4), (2, 0, 1)) for n in (3, 5)], 1), (1, 2, 0)),
        lambda leaf: transpose((transpose(leaf(3, 2)) + transpose(leaf(3, 2))) / 2.0),
    ),
)
def cancel_exchanges(node: Node) -> Node | None:
    """Axes that are exchanged before and exchanged back behind elementwise ops or a concatenation stay in place."""
    if not isinstance(node.op, Transpose):
        return None
    (inner,) = node.args
    back = tuple(int(place) for place in np.argsort(node.op.axes))
    if not isinstance(inner.op, Concatenate):
        return _without_exchange(inner, back, 4)
    if not all(isinstance(arg.op, Transpose) and arg.op.axes == back for arg in inner.args):
        return None
    return apply(Concatenate(back[inner.op.axis]), *(arg.args[0] for arg in inner.args))


def _without_exchange(node: Node, back: tuple[int, ...], depth: int) -> Node | None:
    """Elementwise ops on operands of which all are exchanged, without that; None if there are others."""
    if not isinstance(node.op, Elementwise) or isinstance(node.op, Checked) or not depth:
        return None
    args: list[Node] = []
    for arg in node.args:
        exchanged = isinstance(arg.op, Transpose) and arg.op.axes == back
        found = arg.args[0] if exchanged else arg if arg.ndim == 0 else _without_exchange(arg, back, depth - 1)
        if found is None:
            return None
        args.append(found)
    with location.at(node.loc):
        return apply(node.op, *args) if any(arg.ndim for arg in args) else None


SEQUENCES = RuleSet(
    (slice_before_padding, slice_padded_terms, sum_outer_products, take_in_other_order, cancel_exchanges)
)
