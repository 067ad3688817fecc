"""How images are read at any places: GridSample, whose places go from -1 at one edge of the image to 1 at the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.conv import channels_first, channels_last
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.sampling import FARTHEST, GridSample

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def is_operator(node: Node) -> bool:
    """Does GridSample fill so, in an element type that onnxruntime has a kernel for?"""
    op = node.op
    assert isinstance(op, GridSample)
    if any(arg.dtype is not DType.float32 for arg in node.args) or 0 in node.shape:
        return False
    return op.fill_mode in ("nearest", "reflect") or (op.fill_mode == "constant" and op.fill_value == 0)


def _grid_sample(w: Writer, node: Node, x: str, rows: str, columns: str) -> str:
    op = node.op
    assert isinstance(op, GridSample)
    sizes = node.args[0].shape[1:3]
    last = w.ints([-1])
    axes = [
        w.emit("Unsqueeze", _normalized(w, op, place, size), last)
        for place, size in zip((columns, rows), sizes[::-1], strict=True)
    ]
    bilinear = "linear" if w.opset >= 20 else "bilinear"
    made = w.emit(
        "GridSample",
        channels_first(w, x, 4),
        w.emit("Concat", *axes, axis=-1),
        mode=bilinear if op.interpolation == "bilinear" else "nearest",
        padding_mode="zeros" if op.fill_mode == "constant" else "border",
        align_corners=0,
    )
    return channels_last(w, made, 4)


def _normalized(w: Writer, op: GridSample, place: str, size: Size) -> str:
    """A place along an axis as a number from -1 to 1; one beyond the edges is mirrored at them, where that is asked."""
    half, one, two = (w.constant(value, DType.float32) for value in (0.5, 1.0, 2.0))
    count = w.constant(float(size), DType.float32) if isinstance(size, int) else _symbolic(w, size)
    place = w.emit("Clip", place, w.constant(-FARTHEST, DType.float32), w.constant(FARTHEST, DType.float32))
    if op.fill_mode == "reflect" and op.interpolation == "nearest":
        place = w.emit("Round", place)
    from_edge = w.emit("Add", place, half)
    if op.fill_mode == "reflect":
        period = w.emit("Mul", count, two)
        times = w.emit("Floor", w.emit("Div", from_edge, period))
        there = w.emit("Sub", from_edge, w.emit("Mul", times, period))
        from_edge = w.emit("Min", there, w.emit("Sub", period, there))
    return w.emit("Sub", w.emit("Div", w.emit("Mul", from_edge, two), count), one)


def _symbolic(w: Writer, size: Size) -> str:
    return w.cast(w.sizes.scalar(size), DType.float32)


RULES: dict[type, Rule] = {GridSample: _grid_sample}
