"""How gathers and scatters are written.

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
from graphc.ops.indexing import ScatterAlong, Take, TakeAdd, TakeAlong

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
    count = product(indices_type.shape)
    flat: Shape = (*before, count, *after)
    values = reshape(w, values, values_type.shape, flat)
    column: Shape = (count, *(1 for _ in after))
    indices = expand(w, reshape(w, indices, indices_type.shape, column), column, flat)
    return _scatter(w, node, values, indices, op.axis)


def _take_along(w: Writer, node: Node, x: str, indices: str) -> str:
    op = node.op
    assert isinstance(op, TakeAlong)
    return w.emit("GatherElements", x, _signed(w, node.args[1], indices), axis=op.axis)


def _scatter_along(w: Writer, node: Node, values: str, indices: str) -> str:
    op = node.op
    assert isinstance(op, ScatterAlong)
    return _scatter(w, node, values, indices, op.axis)


def _scatter(w: Writer, node: Node, values: str, indices: str, axis: int) -> str:
    indices = _signed(w, node.args[1], indices)
    zeros = expand(w, w.constant(0, node.dtype), (), node.shape)
    return w.emit("ScatterElements", zeros, indices, values, axis=axis, reduction="add")


def _signed(w: Writer, node: Node, indices: str) -> str:
    """ONNX takes int32 and int64 as indices."""
    return w.cast(indices, DType.int64) if node.dtype is DType.uint32 else indices


RULES: dict[type, Rule] = {
    Take: _take,
    TakeAdd: _take_add,
    TakeAlong: _take_along,
    ScatterAlong: _scatter_along,
}
