"""Pooling over windows with the channels last: the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    explaining,
    ints,
    op_class,
    require_dtype,
)
from graphc.ops.movement import broadcast_to, reshape
from graphc.ops.pooled import Pool, at_windows, bad_cases_of, cases_of, window_of
from graphc.ops.reduction import Sum
from graphc.ops.windows import FoldWindows, spread_windows

f32 = DType.float32
i32 = DType.int32


@op_class
class AveragePool(Pool):
    """The mean of each window.

    Attributes:
        sizes, strides, dilations, low, high: see :class:`Pool`.
        counts_padding: whether the zeros around x are elements like others, or none.

    Shapes: x (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__AveragePool.html
    """

    counts_padding: bool

    onnx = "AveragePool"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, FLOATS)
        return TensorType(x.dtype, self.outputs(x))

    def reference(self, x: Array) -> Array:
        total = self.windows_of(x, 0).sum(axis=-1)
        if self.counts_padding:
            return total / x.dtype.type(self.elements)
        return total / self.windows_of(np.ones((1, *x.shape[1:-1], 1), x.dtype), 0).sum(axis=-1)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        total = apply(Sum(self.window_axes, False), self.windows(x, constant(0, x.dtype)))
        return total / self._divisor(x)

    def _divisor(self, x: Node) -> Node:
        """How many elements each window has."""
        if self.counts_padding or all(count == 0 for count in (*self.low, *self.high)):
            return constant(float(self.elements), x.dtype)
        counts = self.outputs(TensorType(x.dtype, (1, *x.shape[1:-1], 1)))
        if all(isinstance(size, int) for size in (*x.shape[1:-1], *self.low, *self.high)):
            ones = np.ones((1, *ints(x.shape[1:-1]), 1), np.float64)
            return constant(self.windows_of(ones, 0).sum(axis=-1).astype(x.dtype.numpy), x.dtype)
        ones = broadcast_to(constant(1.0, x.dtype), (1, *x.shape[1:-1], 1))
        found = apply(Sum(self.window_axes, False), self.windows(ones, constant(0, x.dtype)))
        return reshape(found, counts)

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        return self.bound(bind, self.counts_padding)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        share = cotangent / self._divisor(x)
        inside = x.shape[1:-1]
        if self.sizes == self.strides and max(self.dilations) == 1 and all(low == 0 for low in self.low):
            count = len(self.sizes)
            parts = broadcast_to(at_windows(share, count), (*share.shape[:-1], *self.sizes, share.shape[-1]))
            return (apply(FoldWindows(1, inside, self.strides, self.dilations, self.low), parts),)
        given = spread_windows(share, 1, inside, self.sizes, self.strides, self.dilations, self.low)
        return (apply(Sum(self.window_axes, False), given),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Windows apart, overlapping, with holes and padding that counts and does not."""
        return [*cases_of(cls, f32, False), cases_of(cls, f32, True)[1]]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A window that does not fit, axes too few, attributes missing, integers."""
        op, whole = cls((2,), (1,), (1,), (0,), (0,), False), TensorType(DType.int64, (2, 5, 3))
        return [*bad_cases_of(cls, False), BadCase(op, (whole,), DTypeError, ("average_pool", "int64", "float32"))]


def average_pool(
    x: Operand,
    sizes: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[Any] = "valid",
    counts_padding: bool = False,
) -> Node:
    """The mean of each window, along all axes between the batch and the channels.

    Args:
        x: channels last.
        sizes: of a window.
        strides: how far the next window is; by default a window's size.
        padding: "valid" for none, "same" for as many windows as elements (divided by the stride), or numbers as in
            ``gx.conv``.
        counts_padding: whether the zeros of the padding count.

    Shapes: (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError; DTypeError for integers and bool.
    Source: Keras ``ops.average_pool``; https://onnx.ai/onnx/operators/onnx__AveragePool.html

    >>> import graphc as gx
    >>> gx.average_pool(gx.placeholder("x", ("n", 28, 28, 6)), 3, strides=2, padding="same")
    <average_pool: f32[n, 14, 14, 6]>
    """
    node = as_node(x)
    with explaining("average_pool", node):
        window, steps, apart, low, high = window_of(node, sizes, strides, padding, 1)
        return apply(AveragePool(window, steps, apart, low, high, counts_padding), node)


__all__ = ["AveragePool", "average_pool"]
