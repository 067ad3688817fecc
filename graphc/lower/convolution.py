"""Convolutions as items of a plan, for a backend that takes them whole; for others they are taken apart before."""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.lower.plan import ConvolutionItem, Sought
from graphc.ops.base import ints
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose


def convolution(node: Node) -> ConvolutionItem:
    """The sizes of a convolution or of one of its transposes; buffers are numbered later."""
    op = node.op
    a, b = (arg.shape for arg in node.args)
    match op:
        case Conv():
            sought, x, kernel, y = Sought.RESULT, a, b, node.shape
        case ConvTranspose():
            sought, x, kernel, y = Sought.INPUT, node.shape, b, a
        case _:
            assert isinstance(op, ConvKernelGrad)
            sought, x, kernel, y = Sought.KERNEL, a, node.shape, b
    return ConvolutionItem(
        op, node.dtype, 0, 0, 0, sought, x[0], x[1:-1], y[1:-1], ints(kernel[:-2]), op.strides, op.dilations, op.low,
        op.groups, x[-1], y[-1],
    )  # fmt: skip
