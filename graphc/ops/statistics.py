"""Mean and variance: composites over sums.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "statistical functions"; a result keeps the element type of the operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import AxisError, DTypeError
from graphc.ir.dims import product
from graphc.ir.node import Node, apply, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.arithmetic import divide, multiply, square, subtract
from graphc.ops.base import (
    FLOATS,
    Array,
    Axis,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    explaining,
    normalize_axes,
    op_class,
    require_dtype,
)
from graphc.ops.create import size_of
from graphc.ops.reduction import Sum, check_axes, reduced_shape, spread


@dataclass(frozen=True, eq=False, repr=False)
class _Average(Op):
    axes: tuple[int, ...]
    keepdims: bool

    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, FLOATS)
        check_axes(self.axes, x.rank)
        return TensorType(x.dtype, reduced_shape(x.shape, self.axes, self.keepdims))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis and several, kept and not, an axis of size 1, and one without elements."""

        def case(shape: Shape, axes: tuple[int, ...], keepdims: bool = False) -> Case:
            return Case(cls(axes, keepdims), (TensorType(DType.float32, shape),))

        return (
            case((4, 5), (0,)), case((4, 5), (1,)), case((4, 5), (0, 1)), case((4, 5), (1,), True), case((), ()),
            case((2, 3, 4), (0, 2)), case((2, 3, 4), (1,), True), case((3, 1), (1,)), case((0, 3), (1,)),
            Case(cls((1,), False), (TensorType(DType.float32, (3, 0)),), differentiable=False),
            case((3, 70), (1,)),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, one that stands twice, integers."""
        good = TensorType(DType.float32, (2, 3))
        return (
            BadCase(cls((2,), False), (good,), AxisError, (cls.name, "axis 2", "2 axes")),
            BadCase(cls((1, 1), False), (good,), AxisError, (cls.name, "once")),
            BadCase(cls((0,), False), (TensorType(DType.int32, (2,)),), DTypeError, (cls.name, "int32", "gx.cast")),
        )


def _sum(x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    return apply(Sum(axes, keepdims), x)


def _count(x: Node, axes: tuple[int, ...]) -> Node:
    """The number of elements that one mean is taken over."""
    return size_of(product(tuple(x.shape[axis] for axis in axes)), x.dtype)


@op_class
class Mean(_Average):
    """The mean over axes; of nothing NaN.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceMean.html
    """

    onnx = "ReduceMean"

    def reference(self, x: Array) -> Array:
        total = np.sum(x, axis=self.axes, keepdims=self.keepdims)
        return total / x.dtype.type(_size(x, self.axes))

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        return divide(_sum(x, self.axes, self.keepdims), _count(x, self.axes))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        return (spread(divide(cotangent, _count(x, self.axes)), x.shape, self.axes),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])


def _size(x: Array, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))


def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The mean over axes (None: all).

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``mean``.

    >>> import graphc as gx
    >>> gx.mean(gx.placeholder("x", ("n", 3)), axis=0)
    <mean: f32[3]>
    """
    return _average(Mean, x, axis, keepdims)


@op_class
class Var(_Average):
    """The variance over axes, the mean of squared distances from the mean (divided by n, not n - 1); of nothing NaN.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``var``.
    """

    onnx = ("ReduceMean", "Sub", "Mul", "ReduceMean")

    def reference(self, x: Array) -> Array:
        count = x.dtype.type(_size(x, self.axes))
        distance = x - np.sum(x, axis=self.axes, keepdims=True) / count
        return np.sum(distance * distance, axis=self.axes, keepdims=self.keepdims) / count

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        return apply(Mean(self.axes, self.keepdims), square(_distance(x, self.axes)))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        scaled = spread(divide(multiply(cotangent, 2.0), _count(x, self.axes)), x.shape, self.axes)
        return (multiply(scaled, _distance(x, self.axes)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (x,), (dx,) = node.args, tangents
        if dx is None:
            return None
        return multiply(apply(Mean(self.axes, self.keepdims), multiply(_distance(x, self.axes), dx)), 2.0)


def _distance(x: Node, axes: tuple[int, ...]) -> Node:
    return subtract(x, apply(Mean(axes, True), x))


def var(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The variance over axes (None: all), divided by the number of elements.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``var`` with ``correction=0``.

    >>> import graphc as gx
    >>> gx.var(gx.placeholder("x", ("n", 3)), axis=0)
    <var: f32[3]>
    """
    return _average(Var, x, axis, keepdims)


def _average(op: type[_Average], x: Operand, axis: Axis, keepdims: bool) -> Node:
    node = as_node(x)
    with explaining(op.name, node):
        axes = normalize_axes(axis, node.ndim)
    return apply(op(axes, bool(keepdims)), node)


operators["mean"] = mean

__all__ = ["Mean", "Var", "mean", "var"]
