"""How windows are written: gathered along each axis, which ONNX has no view for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphc.backends.onnx.movement import reshape
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.windows import ShiftWindows, Windows

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def _windows(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, Windows)
    count = len(op.sizes)
    for place in reversed(range(count)):
        x = w.emit("Gather", x, _places(w, op, place, node.shape[op.axis + place]), axis=op.axis + place)
    if count > 1:  # each axis is followed by its own elements
        pairs = [op.axis + offset + 2 * place for offset in (0, 1) for place in range(count)]
        x = w.emit("Transpose", x, perm=[*range(op.axis), *pairs, *range(op.axis + 2 * count, node.ndim)])
    return x


def _places(w: Writer, op: Windows, place: int, windows: Size) -> str:
    """Which element of the axis is element k of window o."""
    inside = np.arange(op.sizes[place]) * op.dilations[place]
    if isinstance(windows, int):
        return w.constant(np.arange(windows)[:, None] * op.strides[place] + inside, DType.int64)
    zero, step = w.constant(0, DType.int64), w.constant(op.strides[place], DType.int64)
    first = w.emit("Range", zero, w.sizes.scalar(windows * op.strides[place]), step)
    return w.emit("Add", reshape(w, first, (windows,), (windows, 1)), w.constant(inside, DType.int64))


def _shift_windows(w: Writer, node: Node, x: str) -> str:
    op = node.op
    assert isinstance(op, ShiftWindows)
    for place, dilation in enumerate(op.dilations):
        rows, elements = op.axis + place, op.axis + len(op.dilations) + place
        size, count = node.shape[elements], node.shape[rows]
        assert isinstance(size, int)
        parts: list[str] = []
        for k in range(size):
            start = (size - 1 - k if op.back else k) * dilation
            bounds = (w.sizes.shape((start, k)), w.sizes.shape((start + count, k + 1)))
            parts.append(w.emit("Slice", x, *bounds, w.ints([rows, elements])))
        x = parts[0] if size == 1 else w.emit("Concat", *parts, axis=elements)
    return x


RULES: dict[type, Rule] = {Windows: _windows, ShiftWindows: _shift_windows}
