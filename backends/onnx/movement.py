"""How movement is written: shapes, views, joins and pads.

Symbolic sizes are read from the inputs' shapes when the file runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import Size, maximum
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape
from graphc.ops.create import Iota, SizeOf
from graphc.ops.movement import BroadcastTo, Concatenate, Flip, Reshape, Transpose
from graphc.ops.padding import Pad
from graphc.ops.slicing import Slice

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule

_BEFORE_FIRST = -(2**63)  # where a slice with a negative step stops, to take in the first element


def reshape(w: Writer, x: str, old: Shape, new: Shape) -> str:
    """The same elements in another shape; sizes are computed at run time only where ONNX cannot infer them."""
    if old == new:
        return x
    symbolic = [axis for axis, size in enumerate(new) if not isinstance(size, int)]
    if 0 in new:
        return w.emit("Reshape", x, w.sizes.shape(new), allowzero=1)
    if len(symbolic) == 1:
        return w.emit("Reshape", x, w.ints([size if isinstance(size, int) else -1 for size in new]))
    if all(axis < len(old) and old[axis] == new[axis] for axis in symbolic):
        return w.emit("Reshape", x, w.ints([size if isinstance(size, int) else 0 for size in new]))  # 0 keeps the size
    return w.emit("Reshape", x, w.sizes.shape(new), allowzero=1)


def expand(w: Writer, x: str, old: Shape, new: Shape) -> str:
    """Repetition along axes of size 1; sizes that x has itself need not be computed."""
    if old == new:
        return x
    extra = len(new) - len(old)
    wanted = tuple(1 if axis >= extra and old[axis - extra] == size else size for axis, size in enumerate(new))
    return w.emit("Expand", x, w.sizes.shape(wanted))


def _reshape(w: Writer, node: Node, x: str) -> str:
    return reshape(w, x, node.args[0].shape, node.shape)


def _transpose(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Transpose)
    return w.emit("Transpose", x, perm=list(op.axes))


def _broadcast_to(w: Writer, node: Node, x: str) -> str:
    return expand(w, x, node.args[0].shape, node.shape)


def _slice(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Slice)
    bounds = zip(op.starts, op.stops, op.steps, node.args[0].shape, strict=True)
    cut = [axis for axis, (start, stop, step, size) in enumerate(bounds) if (start, stop, step) != (0, size, 1)]
    if not cut:
        return x
    starts, stops = (w.sizes.shape(tuple(bound[axis] for axis in cut)) for bound in (op.starts, op.stops))
    return w.emit("Slice", x, starts, stops, w.ints(cut), w.ints([op.steps[axis] for axis in cut]))


def _flip(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Flip)
    if not op.axes:
        return x
    count = len(op.axes)
    return w.emit(
        "Slice", x, w.ints([-1] * count), w.ints([_BEFORE_FIRST] * count), w.ints(op.axes), w.ints([-1] * count)
    )


def _concatenate(w: Writer, node: Node, *args: str) -> str:
    op = node.op
    assert isinstance(op, Concatenate)
    return args[0] if len(args) == 1 else w.emit("Concat", *args, axis=op.axis)


def _pad(w: Writer, node: Node, x: str, value: str) -> str:
    op = node.op
    assert isinstance(op, Pad)
    shape = list(node.args[0].shape)
    for axis, interior in enumerate(op.interior):
        if interior:
            x = _pad_between(w, x, value, shape, axis, interior)
    if any(count != 0 for count in (*op.low, *op.high)):
        return w.emit("Pad", x, w.sizes.shape((*op.low, *op.high)), value)
    return x


def _pad_between(w: Writer, x: str, value: str, shape: list[Size], axis: int, interior: int) -> str:
    """Put ``interior`` values between neighbours: each element becomes a row of its own, which is padded at its end."""
    before, size, after = tuple(shape[:axis]), shape[axis], tuple(shape[axis + 1 :])
    x = reshape(w, x, tuple(shape), (*before, size, 1, *after))
    rank = len(shape) + 1
    x = w.emit(
        "Pad", x, w.ints([0] * rank + [interior if position == axis + 1 else 0 for position in range(rank)]), value
    )
    x = reshape(w, x, (*before, size, 1 + interior, *after), (*before, size * (1 + interior), *after))
    x = w.emit("Slice", x, w.ints([0]), w.ints([-interior]), w.ints([axis]))
    shape[axis] = size + maximum(size - 1, 0) * interior
    return x


def _iota(w: Writer, node: Node) -> str:
    op = node.op
    assert isinstance(op, Iota)
    zero, one = w.constant(0, DType.int64), w.constant(1, DType.int64)
    count = op.shape[op.axis]
    row = w.emit("Range", zero, w.sizes.scalar(count), one)
    if op.dtype is not DType.int64:
        row = w.cast(row, op.dtype)
    column: Shape = (count, *(1 for _ in op.shape[op.axis + 1 :]))
    return expand(w, reshape(w, row, (count,), column), column, op.shape)


def _size_of(w: Writer, node: Node) -> str:
    op = node.op
    assert isinstance(op, SizeOf)
    value = w.sizes.scalar(op.size)
    return value if op.dtype is DType.int64 else w.cast(value, op.dtype)


RULES: dict[type, Rule] = {
    Reshape: _reshape,
    Transpose: _transpose,
    BroadcastTo: _broadcast_to,
    Slice: _slice,
    Flip: _flip,
    Concatenate: _concatenate,
    Pad: _pad,
    Iota: _iota,
    SizeOf: _size_of,
}
