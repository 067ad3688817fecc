"""Canonical movement and reductions: repeat late, reduce early, one movement where several follow each other."""

from __future__ import annotations

import numpy as np

from graphc.ir.dims import Dim, Size
from graphc.ir.node import Constant, Node, apply, constant
from graphc.ir.types import TensorType
from graphc.ops.arithmetic import Add, Divide, Multiply, Negative, multiply, negative
from graphc.ops.base import Elementwise, full, scalar_value
from graphc.ops.compare import where
from graphc.ops.create import size_of
from graphc.ops.exponential import exp
from graphc.ops.linear import MatMul, matmul
from graphc.ops.movement import (
    BroadcastTo,
    Concatenate,
    Flip,
    Reshape,
    Transpose,
    broadcast_to,
    reshape,
    transpose,
)
from graphc.ops.padding import Pad, pad
from graphc.ops.reduction import All, Any, Max, Min, Reduce, Sum, reduced_shape
from graphc.ops.reduction import sum as sum_of
from graphc.ops.slicing import Slice
from graphc.ops.statistics import Mean
from graphc.rewrite import RuleSet, rule

_IDEMPOTENT = (Max, Min, All, Any)


@rule(
    Reshape,
    Transpose,
    BroadcastTo,
    example=(
        lambda leaf: apply(Reshape((2, 3)), leaf(2, 3)),
        lambda leaf: apply(Transpose((0, 1)), leaf(2, 3)),
        lambda leaf: apply(BroadcastTo((2, 3)), leaf(2, 3)),
    ),
)
def drop_idle_movement(node: Node) -> Node | None:
    """A reshape or repetition to the shape that is there, or a transposition that moves no axis."""
    (x,) = node.args
    if isinstance(node.op, Transpose):
        return x if node.op.axes == tuple(range(x.ndim)) else None
    return x if x.shape == node.shape else None


@rule(Reshape, example=lambda leaf: apply(Reshape((3, 2)), apply(Reshape((6,)), leaf(2, 3))))
def merge_reshapes(node: Node) -> Node | None:
    """The shape between two reshapes does not matter."""
    (inner,) = node.args
    return apply(node.op, inner.args[0]) if isinstance(inner.op, Reshape) else None


@rule(Transpose, example=lambda leaf: apply(Transpose((2, 0, 1)), apply(Transpose((0, 2, 1)), leaf(2, 3, 4))))
def merge_transposes(node: Node) -> Node | None:
    """Two permutations of axes are one."""
    (inner,) = node.args
    if not isinstance(inner.op, Transpose) or not isinstance(node.op, Transpose):
        return None
    return apply(Transpose(tuple(inner.op.axes[axis] for axis in node.op.axes)), inner.args[0])


@rule(BroadcastTo, example=lambda leaf: apply(BroadcastTo((4, 2, 3)), apply(BroadcastTo((2, 3)), leaf(3))))
def merge_broadcasts(node: Node) -> Node | None:
    """Repeating what was repeated is repeating once."""
    (inner,) = node.args
    return apply(node.op, inner.args[0]) if isinstance(inner.op, BroadcastTo) else None


@rule(
    Reshape,
    example=(
        lambda leaf: reshape(full((2, 3), 0.5, leaf().dtype), (3, 2)),
        lambda leaf: reshape(broadcast_to(leaf(3, 1), (3, 4)), (1, 3, 4)),
    ),
)
def reshape_before_repeating(node: Node) -> Node | None:
    """A repeated scalar has any shape; a repeated array takes axes of size 1 before it is repeated."""
    (inner,) = node.args
    if not isinstance(inner.op, BroadcastTo):
        return None
    (x,) = inner.args
    if x.ndim == 0:
        return broadcast_to(x, node.shape)
    sizes = (1,) * (inner.ndim - x.ndim) + x.shape
    kept = [(size, repeated) for size, repeated in zip(sizes, inner.shape, strict=True) if repeated != 1]
    if [repeated for _, repeated in kept] != [size for size in node.shape if size != 1]:
        return None
    left = iter(kept)
    return broadcast_to(reshape(x, tuple(1 if size == 1 else next(left)[0] for size in node.shape)), node.shape)


@rule(Constant, example=lambda leaf: constant(np.full((2, 3), 0.5, np.float32)))
def repeat_one_number(node: Node) -> Node | None:
    """An array that holds one number everywhere is that number, repeated: nothing has to be stored or read."""
    if not isinstance(node.op, Constant) or not node.ndim or not node.op.data:
        return None
    size = node.dtype.itemsize
    first = node.op.data[:size]
    if node.op.data != first * (len(node.op.data) // size):
        return None
    return broadcast_to(constant(np.frombuffer(first, node.dtype.numpy)[0]), node.shape)


@rule(
    BroadcastTo,
    example=(
        lambda leaf: broadcast_to(reshape(leaf(3), (1, 3)), (2, 3)),
        lambda leaf: broadcast_to(reshape(leaf(), (1, 1)), (2, 3)),
    ),
)
def repeat_without_reshape(node: Node) -> Node | None:
    """Axes of size 1 in front come by themselves when a value is repeated."""
    x = _without_front(node.args[0])
    return None if x is node.args[0] else broadcast_to(x, node.shape)


@rule(BroadcastTo, example=lambda leaf: apply(BroadcastTo((1, 1, 3)), leaf(1, 3)))
def reshape_instead_of_repeating(node: Node) -> Node | None:
    """Repeating once is a reshape; but of a number it stays a repetition, which other rules see through."""
    (x,) = node.args
    if isinstance(x.op, Constant):
        return None
    once = node.shape == (1,) * (node.ndim - x.ndim) + x.shape
    return apply(Reshape(node.shape), x) if once else None


@rule(
    Elementwise,
    example=(
        lambda leaf: -broadcast_to(leaf(3), (2, 3)),
        lambda leaf: leaf(2, 3) + broadcast_to(leaf(3), (2, 3)),
        lambda leaf: broadcast_to(leaf(2, 1), (4, 2, 3)) * broadcast_to(leaf(3), (4, 2, 3)),
        lambda leaf: reshape(leaf(3), (1, 3)) - leaf(2, 3),
    ),
)
def repeat_last(node: Node) -> Node | None:
    """Compute each element once and repeat the result: elementwise ops broadcast their operands themselves."""
    small = tuple(arg.args[0] if isinstance(arg.op, BroadcastTo) else _without_front(arg) for arg in node.args)
    if all(new is arg for new, arg in zip(small, node.args, strict=True)):
        return None
    if node.op.composite and any(x.shape != small[0].shape for x in small):
        return None  # losses do not broadcast
    return broadcast_to(apply(node.op, *small), node.shape)


def _without_front(x: Node) -> Node:
    """What was reshaped to ``x``, if that only put axes of size 1 in front."""
    if not isinstance(x.op, Reshape):
        return x
    (inner,) = x.args
    return inner if x.shape == (1,) * (x.ndim - inner.ndim) + inner.shape else x


@rule(
    Sum,
    *_IDEMPOTENT,
    example=(
        lambda leaf: sum_of(broadcast_to(leaf(3, 1), (2, 3, 4)), axis=(0, 2)),
        lambda leaf: sum_of(broadcast_to(leaf(3), ("n", 3)), axis=0, keepdims=True),
        lambda leaf: apply(Max((0, 1), False), broadcast_to(leaf(3), (2, 3))),
    ),
)
def reduce_before_repeating(node: Node) -> Node | None:
    """The sum of n equal elements is n times one; their maximum is any one of them."""
    (inner,) = node.args
    if not isinstance(inner.op, BroadcastTo) or not isinstance(node.op, Reduce):
        return None
    (x,) = inner.args
    sizes = (1,) * (inner.ndim - x.ndim) + x.shape
    repeated = [axis for axis in node.op.axes if sizes[axis] == 1 and inner.shape[axis] not in (0, 1)]
    if not repeated:
        return None
    once = tuple(1 if axis in repeated else size for axis, size in enumerate(inner.shape))
    reduced = apply(node.op, broadcast_to(reshape(x, sizes), once))
    if not isinstance(node.op, Sum):
        return reduced
    count: int | Dim = 1
    for axis in repeated:
        count = count * inner.shape[axis]
    return multiply(reduced, size_of(count, node.dtype) if isinstance(count, Dim) else full((), count, node.dtype))


@rule(
    Reduce,
    Mean,
    example=(
        lambda leaf: sum_of(leaf(2, 3), axis=()),
        lambda leaf: sum_of(leaf(2, 1), axis=1),
        lambda leaf: sum_of(leaf(2, 1, 3), axis=(1, 2), keepdims=True),
        lambda leaf: apply(Mean((1,), True), leaf(2, 1)),
    ),
)
def drop_axes_of_one(node: Node) -> Node | None:
    """A reduction over an axis of size 1 keeps every element."""
    (x,) = node.args
    if not isinstance(node.op, Reduce | Mean):
        return None
    axes = node.op.axes
    left = tuple(axis for axis in axes if x.shape[axis] != 1)
    if not left:
        return reshape(x, node.shape)
    if left == axes:
        return None
    return reshape(apply(type(node.op)(left, True), x), node.shape)


@rule(
    Reduce,
    Mean,
    example=(
        lambda leaf: sum_of(reshape(leaf(2, 3), (3, 2))),
        lambda leaf: sum_of(reshape(leaf(2, 3), (2, 1, 3)), axis=2),
        lambda leaf: sum_of(reshape(leaf(2, 1, 3), (2, 3, 1)), axis=1, keepdims=True),
        lambda leaf: apply(Mean((0, 1), True), reshape(leaf("n"), ("n", 1))),
    ),
)
def reduce_before_reshaping(node: Node) -> Node | None:
    """A reduction over everything does not see the shape; one over some axes does not see axes of size 1."""
    (inner,) = node.args
    if not isinstance(node.op, Reduce | Mean) or not isinstance(inner.op, Reshape):
        return None
    (x,) = inner.args
    if len(node.op.axes) == inner.ndim:
        axes = tuple(range(x.ndim))
    else:
        here = [axis for axis, size in enumerate(inner.shape) if size != 1]
        there = [axis for axis, size in enumerate(x.shape) if size != 1]
        if [inner.shape[axis] for axis in here] != [x.shape[axis] for axis in there]:
            return None
        axes = tuple(b for a, b in zip(here, there, strict=True) if a in node.op.axes)
    return reshape(apply(type(node.op)(axes, False), x), node.shape)


@rule(
    Reshape,
    example=(
        lambda leaf: reshape(sum_of(leaf(2, 3), axis=1, keepdims=True), (2,)),
        lambda leaf: reshape(sum_of(leaf(2, 3), axis=0), (1, 3)),
        lambda leaf: reshape(apply(Mean((1,), True), leaf(2, 3)), (2,)),
    ),
)
def reshape_by_keepdims(node: Node) -> Node | None:
    """A reshape that only adds or drops the axes of a reduction is that reduction with keepdims or without."""
    (inner,) = node.args
    if not isinstance(inner.op, Reduce | Mean):
        return None
    keepdims = not inner.op.keepdims
    (x,) = inner.args
    if reduced_shape(x.shape, inner.op.axes, keepdims) != node.shape or inner.shape == node.shape:
        return None
    return apply(type(inner.op)(inner.op.axes, keepdims), x)


@rule(
    Reduce,
    example=(
        lambda leaf: sum_of(sum_of(leaf(2, 3, 4), axis=1), axis=1),
        lambda leaf: sum_of(sum_of(leaf(2, 3, 4), axis=0, keepdims=True), axis=2, keepdims=True),
    ),
)
def merge_reductions(node: Node) -> Node | None:
    """A sum of sums is one sum over both sets of axes; likewise for the other reductions."""
    (inner,) = node.args
    if type(inner.op) is not type(node.op) or not isinstance(inner.op, Reduce) or not isinstance(node.op, Reduce):
        return None
    (x,) = inner.args
    if inner.op.keepdims:
        outer = node.op.axes
        if not node.op.keepdims and set(inner.op.axes) - set(outer):
            return None
    else:
        left = [axis for axis in range(x.ndim) if axis not in inner.op.axes]
        outer = tuple(left[axis] for axis in node.op.axes)
        if node.op.keepdims:
            return None
    return apply(type(node.op)(tuple(sorted({*inner.op.axes, *outer})), node.op.keepdims), x)


@rule(
    Sum,
    Mean,
    MatMul,
    Multiply,
    Divide,
    example=(
        lambda leaf: sum_of(-leaf(2, 3), axis=1),
        lambda leaf: apply(Mean((1,), False), -leaf(2, 3)),
        lambda leaf: matmul(-leaf(2, 3), leaf(3, 4)),
        lambda leaf: matmul(leaf(2, 3), transpose(-leaf(4, 3))),
        lambda leaf: leaf(2, 3) * reshape(-leaf(6), (2, 3)),
        lambda leaf: leaf(2, 3) / broadcast_to(-leaf(3, low=0.5), (2, 3)),
    ),
)
def take_sign_out(node: Node) -> Node | None:
    """Linear ops pass a sign on, movements keep it: outside it meets others and vanishes."""
    for position, arg in enumerate(node.args):
        unsigned = _without_sign(arg)
        if unsigned is not None:
            return negative(apply(node.op, *node.args[:position], unsigned, *node.args[position + 1 :]))
    return None


def _without_sign(node: Node) -> Node | None:
    """``x`` of ``-x``, also behind movements."""
    moves: list[Node] = []
    while isinstance(node.op, Reshape | Transpose | BroadcastTo):
        moves.append(node)
        (node,) = node.args
    if not isinstance(node.op, Negative):
        return None
    (x,) = node.args
    for move in reversed(moves):
        x = apply(move.op, x)
    return x


@rule(
    Elementwise,
    example=(
        lambda leaf: exp(reshape(leaf(2, 3), (6,))),
        lambda leaf: exp(transpose(leaf(2, 3))),
        lambda leaf: reshape(leaf(2, 3), (6,)) * reshape(leaf(2, 3), (6,)) + 1.0,
        lambda leaf: where(transpose(leaf(2, 3)) > 0, transpose(leaf(2, 3)), 0.0),
    ),
)
def move_last(node: Node) -> Node | None:
    """Compute in the shape that is there, and reshape or transpose the result: movements meet and merge."""
    moved = [arg for arg in node.args if arg.ndim]
    if not moved or not all(isinstance(arg.op, Reshape | Transpose) and arg.op == moved[0].op for arg in moved):
        return None
    if any(arg.args[0].shape != moved[0].args[0].shape for arg in moved):
        return None
    return apply(moved[0].op, apply(node.op, *[arg.args[0] if arg.ndim else arg for arg in node.args]))


@rule(
    MatMul,
    example=(
        lambda leaf: matmul(leaf(2, 3, 4), leaf(4, 5)),
        lambda leaf: matmul(leaf("n", 3, 4), leaf(4, 5)),
    ),
)
def merge_rows_of_matmul(node: Node) -> Node | None:
    """A stack of matrices times one matrix is one tall matrix times it, and its gradient is one product as well."""
    a, b = node.args
    if a.ndim <= 2 or b.ndim != 2:
        return None
    rows = TensorType(a.dtype, a.shape[:-1]).size
    return reshape(matmul(reshape(a, (rows, a.shape[-1])), b), node.shape)


@rule(
    Sum,
    example=(
        lambda leaf: sum_of(matmul(leaf(2, 3, 4), leaf(2, 4, 5)), axis=0),
        lambda leaf: sum_of(matmul(transpose(leaf("n", 4, 3), (0, 2, 1)), leaf("n", 4, 5)), axis=0),
    ),
)
def merge_sum_into_product(node: Node) -> Node | None:
    """The sum of products of pairs of matrices is one product of the matrices side by side: a weight's gradient."""
    (product,) = node.args
    if not isinstance(product.op, MatMul) or not isinstance(node.op, Sum) or node.op.axes != (0,) or node.op.keepdims:
        return None
    a, b = product.args
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0]:
        return None
    columns = a.args[0] if isinstance(a.op, Transpose) and a.op.axes == (0, 2, 1) else transpose(a, (0, 2, 1))
    rows = TensorType(b.dtype, b.shape[:2]).size
    return matmul(transpose(reshape(columns, (rows, a.shape[1]))), reshape(b, (rows, b.shape[2])))


@rule(
    Slice,
    Flip,
    Concatenate,
    Pad,
    example=(
        lambda leaf: apply(Slice((0, 0), (2, 3), (1, 1)), leaf(2, 3)),
        lambda leaf: apply(Flip(()), leaf(2, 3)),
        lambda leaf: apply(Flip((1,)), leaf(2, 1)),
        lambda leaf: apply(Concatenate(0), leaf(2, 3)),
        lambda leaf: apply(Pad((0, 0), (0, 0), (0, 0)), leaf(2, 3), leaf()),
    ),
)
def drop_idle_selection(node: Node) -> Node | None:
    """A slice of everything, a flip of nothing, a concatenation of one, a padding by nothing."""
    x = node.args[0]
    match node.op:
        case Slice(starts=starts, steps=steps):
            idle = x.shape == node.shape and all(start == 0 for start in starts) and all(step == 1 for step in steps)
        case Flip(axes=axes):
            idle = all(x.shape[axis] == 1 for axis in axes)
        case Pad(low=low, high=high, interior=interior):
            idle = all(width == 0 for width in (*low, *high, *interior))
        case _:
            idle = len(node.args) == 1
    return x if idle else None


@rule(
    Slice,
    example=(
        lambda leaf: apply(Slice((0, 3), (2, 7), (1, 1)), apply(Concatenate(1), leaf(2, 3), leaf(2, 4))),
        lambda leaf: apply(Slice((2,), (7,), (2,)), apply(Concatenate(0), leaf(2), leaf(5), leaf(1))),
    ),
)
def take_slice_from_its_part(node: Node) -> Node | None:
    """A slice of what was joined that begins and ends with one of the parts is a slice of that part."""
    (whole,) = node.args
    if not isinstance(whole.op, Concatenate) or not isinstance(node.op, Slice):
        return None
    axis, op = whole.op.axis, node.op
    start: Size = 0
    for part in whole.args:
        stop = start + part.shape[axis]
        if op.starts[axis] == start and op.stops[axis] == stop:
            starts, stops = list(op.starts), list(op.stops)
            starts[axis], stops[axis] = 0, part.shape[axis]
            return apply(Slice(tuple(starts), tuple(stops), op.steps), part)
        start = stop
    return None


@rule(
    Add,
    example=(
        lambda leaf: pad(leaf(2, 3), (0, 0), (0, 4)) + pad(leaf(2, 4), (0, 3), (0, 0)),
        lambda leaf: pad(leaf(1), (2,), (1,)) + (pad(leaf(1), (3,), (0,)) + pad(leaf(2), (0,), (2,))),
    ),
)
def join_padded_parts(node: Node) -> Node | None:
    """Parts that are padded with zeros to one size and do not meet are joined: the gradient of slices."""
    parts: list[tuple[int, int, Node]] = []
    axis: int | None = None
    terms = [node]
    while terms:
        term = terms.pop()
        if isinstance(term.op, Add) and term.shape == node.shape:
            terms.extend(term.args)
            continue
        place = _padded_along(term)
        if place is None or axis not in (None, place[0]):
            return None
        axis = place[0]
        parts.append((place[1], place[2], term.args[0]))
    parts.sort(key=lambda part: part[:2])
    ends = [0, *(stop for _, stop, _ in parts)]
    assert axis is not None
    if any(start != end for (start, _, _), end in zip(parts, ends[:-1], strict=True)) or ends[-1] != node.shape[axis]:
        return None
    return apply(Concatenate(axis), *(part for _, _, part in parts))


def _padded_along(node: Node) -> tuple[int, int, int] | None:
    """The axis along which a part was padded with zeros, and where the part begins and ends."""
    if not isinstance(node.op, Pad) or scalar_value(node.args[1]) != 0 or any(node.op.interior):
        return None
    padded = [a for a, widths in enumerate(zip(node.op.low, node.op.high, strict=True)) if widths != (0, 0)]
    if len(padded) != 1:
        return None
    (axis,) = padded
    low, size = node.op.low[axis], node.args[0].shape[axis]
    return (axis, low, low + size) if isinstance(low, int) and isinstance(size, int) else None


@rule(Flip, example=lambda leaf: apply(Flip((1,)), apply(Flip((0, 1)), leaf(2, 3))))
def merge_flips(node: Node) -> Node | None:
    """An axis that is reversed twice is not reversed."""
    (inner,) = node.args
    if not isinstance(inner.op, Flip) or not isinstance(node.op, Flip):
        return None
    return apply(Flip(tuple(sorted({*inner.op.axes} ^ {*node.op.axes}))), inner.args[0])


LAYOUT = RuleSet(
    (
        drop_idle_movement,
        merge_reshapes,
        merge_transposes,
        merge_broadcasts,
        repeat_one_number,
        reshape_instead_of_repeating,
        repeat_without_reshape,
        reshape_before_repeating,
        repeat_last,
        reduce_before_repeating,
        drop_axes_of_one,
        reshape_by_keepdims,
        reduce_before_reshaping,
        merge_reductions,
        take_sign_out,
        move_last,
        merge_rows_of_matmul,
        merge_sum_into_product,
        join_padded_parts,
        drop_idle_selection,
        take_slice_from_its_part,
        merge_flips,
    )
)
