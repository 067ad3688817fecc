"""How gathers, scatters and updates are written.

ONNX counts negative indices from the end and refuses those beyond; graphc refuses both. Sums are scattered with
ScatterElements: onnxruntime's ScatterND adds in parallel without locks, so that equal indices lose values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.movement import expand, reshape
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape
from graphc.loops.scalar import identity
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.rows import UpdateRows
from graphc.ops.scatter import ScatterAlong, TakeAdd
from graphc.ops.update import UpdateSlice

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def _take(w: Writer, node: Node, x: str, indices: str) -> str:
    op = node.op
    assert isinstance(op, Take)
    return w.emit("Gather", x, _signed(w, node.args[1], indices), axis=op.axis)


def _take_add(w: Writer, node: Node, values: str, indices: str) -> str:
    op = node.op
    assert isinstance(op, TakeAdd)
    values_type, indices_type = (arg.type for arg in node.args)
    before, after = node.shape[: op.axis], node.shape[op.axis + 1 :]
    flat: Shape = (*before, product(indices_type.shape), *after)
    values = reshape(w, values, values_type.shape, flat)
    return _scatter(w, node, values, _of_rows(w, indices, indices_type.shape, after, flat), op.axis)


def _of_rows(w: Writer, indices: str, shape: Shape, after: Shape, flat: Shape) -> str:
    """The index of a row for each of its elements."""
    column: Shape = (product(shape), *(1 for _ in after))
    return expand(w, reshape(w, indices, shape, column), column, flat)


def _take_along(w: Writer, node: Node, x: str, indices: str) -> str:
    op = node.op
    assert isinstance(op, TakeAlong)
    return w.emit("GatherElements", x, _signed(w, node.args[1], indices), axis=op.axis)


def _scatter_along(w: Writer, node: Node, values: str, indices: str) -> str:
    op = node.op
    assert isinstance(op, ScatterAlong)
    if op.fn == "add":
        return _scatter(w, node, values, indices, op.axis)
    if op.fn in ("min", "max"):
        w.require(18, node, "ScatterElements with min and max")
    result = _scatter(w, node, values, indices, op.axis, op.fn)
    if op.fn == "mul" or not node.dtype.is_float:
        return result
    # onnxruntime drops NaN in comparisons; graphc's extremes are NaN where one of them is
    nan = w.constant(float("nan"), node.dtype)
    missing = w.emit("Where", w.emit("IsNaN", values), w.constant(1, node.dtype), w.constant(0, node.dtype))
    counts = _scatter(w, node, missing, indices, op.axis)
    return w.emit("Where", w.emit("Greater", counts, w.constant(0, node.dtype)), nan, result)


def _update_slice(w: Writer, node: Node, x: str, values: str, at: str) -> str:
    """What stands before the values, these, and what stands behind them."""
    op = node.op
    assert isinstance(op, UpdateSlice)
    size, count = (arg.shape[op.axis] for arg in node.args[:2])
    at = at if node.args[2].dtype is DType.int64 else w.cast(at, DType.int64)
    low = w.emit("Max", at, w.constant(0, DType.int64))
    first = w.emit("Unsqueeze", w.emit("Min", low, w.sizes.scalar(size - count)), w.ints([0]))
    end = w.emit("Add", first, w.sizes.shape((count,)))
    axis = w.ints([op.axis])
    before = w.emit("Slice", x, w.ints([0]), first, axis)
    behind = w.emit("Slice", x, end, w.sizes.shape((size,)), axis)
    return w.emit("Concat", before, values, behind, axis=op.axis)


def _update_rows(w: Writer, node: Node, x: str, rows: str, indices: str) -> str:
    """Rows that meet are written one after another: onnxruntime goes through ScatterElements in order."""
    after, places = node.shape[1:], node.args[2]
    flat: Shape = (places.type.size, *after)
    rows = reshape(w, rows, node.args[1].shape, flat)
    indices = _of_rows(w, _signed(w, places, indices), places.shape, after, flat)
    return w.emit("ScatterElements", x, indices, rows, axis=0)


def _scatter(w: Writer, node: Node, values: str, indices: str, axis: int, fn: str = "add") -> str:
    indices = _signed(w, node.args[1], indices)
    neutral = expand(w, w.constant(identity(fn, node.dtype), node.dtype), (), node.shape)
    return w.emit("ScatterElements", neutral, indices, values, axis=axis, reduction=fn)


def _signed(w: Writer, node: Node, indices: str) -> str:
    """ONNX takes int32 and int64 as indices."""
    return w.cast(indices, DType.int64) if node.dtype is DType.uint32 else indices


RULES: dict[type, Rule] = {
    Take: _take,
    TakeAdd: _take_add,
    TakeAlong: _take_along,
    ScatterAlong: _scatter_along,
    UpdateSlice: _update_slice,
    UpdateRows: _update_rows,
}
