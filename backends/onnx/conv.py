"""How convolutions are written: ONNX puts channels first, so that there is a transpose at each side.

Those between two operators that agree are taken away again when the file is complete (``transposes``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.movement import reshape
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape
from graphc.ops.average_pooling import AveragePool
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from graphc.ops.pooling import MaxPool
from graphc.ops.windows import spans

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule


def is_operator(node: Node) -> bool:
    """Is this convolution or pooling one operator, in an element type that onnxruntime has a kernel for?"""
    op = node.op
    assert isinstance(op, Conv | ConvKernelGrad | ConvTranspose | MaxPool | AveragePool)
    if node.dtype is not DType.float32 or not 1 <= len(op.strides) <= 3 or 0 in node.shape[1:]:
        return False
    if isinstance(op, ConvTranspose):
        return _is_known(op.low, _ends(op, node))
    if isinstance(op, ConvKernelGrad):
        return _is_known(op.low, op.high) and isinstance(node.args[0].shape[-1], int)
    if isinstance(op, Conv):
        return _is_known(op.low, op.high)
    small = all(
        low < size and high < size
        for low, high, size in zip(op.low, op.high, op.sizes, strict=True)
        if isinstance(low, int) and isinstance(high, int)
    )
    return _is_known(op.low, op.high) and small and (isinstance(op, MaxPool) or max(op.dilations) == 1)


def _is_known(*counts: tuple[Size, ...]) -> bool:
    return all(isinstance(count, int) for group in counts for count in group)


def _ends(op: ConvTranspose, node: Node) -> tuple[Size, ...]:
    """How many elements are left out behind the result; below 0, how many are missing there."""
    g, kernel = node.args
    reach = spans([size for size in kernel.shape[:-2] if isinstance(size, int)], op.dilations)
    rows = zip(g.shape[1:-1], op.strides, reach, op.low, op.sizes, strict=True)
    return tuple((n - 1) * stride + span - low - size for n, stride, span, low, size in rows)


def channels_first(w: Writer, x: str, rank: int) -> str:
    """(batch, *sizes, channels) as (batch, channels, *sizes)."""
    return w.emit("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last(w: Writer, x: str, rank: int) -> str:
    """(batch, channels, *sizes) as (batch, *sizes, channels)."""
    return w.emit("Transpose", x, perm=[0, *range(2, rank), 1])


def _conv(w: Writer, node: Node, x: str, kernel: str) -> str:
    op, rank = node.op, node.ndim
    assert isinstance(op, Conv)
    weights = w.emit("Transpose", kernel, perm=[rank - 1, rank - 2, *range(rank - 2)])
    made = w.emit(
        "Conv", channels_first(w, x, rank), weights, strides=list(op.strides), dilations=list(op.dilations),
        group=op.groups, pads=[*op.low, *op.high],
    )  # fmt: skip
    return channels_last(w, made, rank)


def _conv_transpose(w: Writer, node: Node, g: str, kernel: str) -> str:
    op, rank = node.op, node.ndim
    assert isinstance(op, ConvTranspose)
    weights = w.emit("Transpose", kernel, perm=[rank - 1, rank - 2, *range(rank - 2)])
    ends = [end for end in _ends(op, node) if isinstance(end, int)]
    made = w.emit(
        "ConvTranspose", channels_first(w, g, rank), weights, strides=list(op.strides),
        dilations=list(op.dilations), group=op.groups, pads=[0] * (2 * (rank - 2)),
    )  # fmt: skip
    missing = [max(-end, 0) for end in ends]
    if any(missing):
        zero = w.constant(0.0, node.dtype)
        made = w.emit("Pad", made, w.ints([0] * rank + [0, 0, *missing]), zero)
    if any(op.low) or any(end > 0 for end in ends):
        starts = [low for low in op.low if isinstance(low, int)]
        stops = w.sizes.shape(tuple(low + size for low, size in zip(op.low, op.sizes, strict=True)))
        made = w.emit("Slice", made, w.ints(starts), stops, w.ints(range(2, rank)))
    return channels_last(w, made, rank)


def _conv_kernel_grad(w: Writer, node: Node, x: str, g: str) -> str:
    """The convolution of x with g over the batch: channels are its batch, and strides and dilations change places."""
    op, rank = node.op, node.ndim
    assert isinstance(op, ConvKernelGrad)
    source, given = node.args
    spatial = range(1, rank - 1)
    if op.groups == 1:
        images = w.emit("Transpose", x, perm=[rank - 1, 0, *spatial])
    else:
        channels = source.shape[-1]
        assert isinstance(channels, int)
        split: Shape = (*source.shape[:-1], op.groups, channels // op.groups)
        apart = w.emit("Transpose", reshape(w, x, source.shape, split), perm=[rank, rank - 1, 0, *spatial])
        order: Shape = (split[-1], op.groups, source.shape[0], *source.shape[1:-1])
        images = reshape(w, apart, order, (split[-1], op.groups * source.shape[0], *source.shape[1:-1]))
    weights = w.emit("Transpose", g, perm=[rank - 1, 0, *spatial])
    made = w.emit(
        "Conv", images, weights, strides=list(op.dilations), dilations=list(op.strides), group=op.groups,
        pads=[*op.low, *op.high],
    )  # fmt: skip
    reach = [(n - 1) * stride + 1 for n, stride in zip(given.shape[1:-1], op.strides, strict=True)]
    rows = zip(source.shape[1:-1], op.low, op.high, reach, op.dilations, strict=True)
    found = tuple((size + low + high - far) // step + 1 for size, low, high, far, step in rows)
    if found != op.sizes:
        made = w.emit("Slice", made, w.ints([0] * len(op.sizes)), w.ints(op.sizes), w.ints(range(2, rank)))
    return w.emit("Transpose", made, perm=[*range(2, rank), 0, 1])


def _max_pool(w: Writer, node: Node, x: str) -> str:
    """Onnxruntime passes over NaN, where graphc's largest element is NaN."""
    op, rank = node.op, node.ndim
    assert isinstance(op, MaxPool)
    made = w.emit(
        "MaxPool", channels_first(w, x, rank), kernel_shape=list(op.sizes), strides=list(op.strides),
        dilations=list(op.dilations), pads=[*op.low, *op.high],
    )  # fmt: skip
    return channels_last(w, made, rank)


def _average_pool(w: Writer, node: Node, x: str) -> str:
    op, rank = node.op, node.ndim
    assert isinstance(op, AveragePool)
    made = w.emit(
        "AveragePool", channels_first(w, x, rank), kernel_shape=list(op.sizes), strides=list(op.strides),
        pads=[*op.low, *op.high], count_include_pad=int(op.counts_padding),
    )  # fmt: skip
    return channels_last(w, made, rank)


RULES: dict[type, Rule] = {
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    ConvKernelGrad: _conv_kernel_grad,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
}
