"""How orders are written: as TopK of whole rows, which keeps equal elements in order.

What TopK does with NaN is not defined, so that rows of floats are sorted twice: by value with infinity for NaN, then,
keeping that order, by whether an element is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.writer import Writer
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.sorting import ArgSort

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def _argsort(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, ArgSort)
    dtype, length = node.args[0].dtype, node.shape[-1]
    if not dtype.is_float:
        return _order(w, node, w.cast(x, DType.int64) if dtype in (DType.bool, DType.uint32) else x, op.descending)
    missing = w.emit("IsNaN", x)
    last = w.constant(float("-inf" if op.descending else "inf"), dtype)
    by_value = _order(w, node, w.emit("Where", missing, last, x), op.descending)
    if length == 1:
        return by_value
    flags = w.emit("GatherElements", w.cast(missing, DType.int64), by_value, axis=-1)
    return w.emit("GatherElements", by_value, _order(w, node, flags, False), axis=-1)


def _order(w: Writer, node: Node, x: str, descending: bool) -> str:
    """The positions of the elements along the last axis in the order of their values."""
    count = w.sizes.shape((node.shape[-1],))
    return w.emit_second("TopK", x, count, axis=-1, largest=int(descending), sorted=1)


RULES: dict[type, Rule] = {ArgSort: _argsort}
