"""Means, variances and counts: composites over sums.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "statistical functions"; a result keeps the element type of the operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import product
from graphc.ir.node import Node, apply, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.arithmetic import divide, maximum, multiply, square, subtract
from graphc.ops.base import (
    FLOATS,
    Array,
    Axis,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    as_operands,
    cast_to,
    explaining,
    normalize_axes,
    normalize_axis,
    op_class,
    require_dtype,
)
from graphc.ops.compare import equal, isnan, not_equal, where
from graphc.ops.create import size_of
from graphc.ops.exponential import sqrt
from graphc.ops.movement import broadcast_to, reshape
from graphc.ops.reduction import Sum, check_axes, reduced_shape, spread
from graphc.ops.slicing import squeeze, take_range
from graphc.ops.sorting import sort


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


def _divisor(x: Node, axes: tuple[int, ...], correction: float) -> Node:
    """The number of elements less the correction, at least 0."""
    count = _count(x, axes)
    return count if correction == 0 else maximum(subtract(count, correction), 0.0)


class _Spread(_Average):
    """Base of the measures of distance from the mean."""

    correction: float = 0.0

    def _variance(self, x: Array) -> Array:
        count = _size(x, self.axes)
        distance = x - np.sum(x, axis=self.axes, keepdims=True) / x.dtype.type(count)
        divisor = x.dtype.type(count - self.correction if count > self.correction else 0)
        return np.sum(distance * distance, axis=self.axes, keepdims=self.keepdims) / divisor

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the base; less one and less a half, a single element less one, equal elements."""

        def case(shape: Shape, correction: float, smooth: bool = True) -> Case:
            op = cls((1,), False, correction)  # pyright: ignore[reportCallIssue]
            return Case(op, (TensorType(DType.float32, shape),), differentiable=smooth)

        equal = Case(cls((1,), False), (np.ones((2, 3), np.float32),), differentiable=False)
        return [*super().cases(), case((4, 5), 1.0), case((4, 5), 0.5), case((4, 1), 1.0, False), equal]


@op_class
class Var(_Spread):
    """The variance over axes: the sum of squared distances from the mean over n - correction; of nothing NaN.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``var``.
    """

    correction: float = 0.0

    onnx = ("ReduceMean", "Sub", "Mul", "ReduceMean")

    def reference(self, x: Array) -> Array:
        return self._variance(x)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        squares = square(_distance(x, self.axes))
        if self.correction == 0:
            return apply(Mean(self.axes, self.keepdims), squares)
        return divide(_sum(squares, self.axes, self.keepdims), _divisor(x, self.axes, self.correction))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        scaled = divide(multiply(cotangent, 2.0), _divisor(x, self.axes, self.correction))
        return (multiply(spread(scaled, x.shape, self.axes), _distance(x, self.axes)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (x,), (dx,) = node.args, tangents
        if dx is None:
            return None
        products = multiply(_distance(x, self.axes), dx)
        total = _sum(products, self.axes, self.keepdims)
        return multiply(divide(total, _divisor(x, self.axes, self.correction)), 2.0)


def _distance(x: Node, axes: tuple[int, ...]) -> Node:
    return subtract(x, apply(Mean(axes, True), x))


def var(x: Operand, axis: Axis = None, keepdims: bool = False, correction: float = 0.0) -> Node:
    """The variance over axes (None: all), divided by the number of elements less the correction.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``var``.

    >>> import graphc as gx
    >>> gx.var(gx.placeholder("x", ("n", 3)), axis=0)
    <var: f32[3]>
    """
    return _average(Var, x, axis, keepdims, float(correction))


@op_class
class Std(_Spread):
    """The standard deviation over axes: the square root of the variance. Where that is 0, so is the derivative.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``std``.
    """

    correction: float = 0.0

    def reference(self, x: Array) -> Array:
        return np.sqrt(self._variance(x))

    def decompose(self, *args: Node) -> Node:
        return sqrt(apply(Var(self.axes, self.keepdims, self.correction), *args))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        return (multiply(spread(self._scaled(node, cotangent), x.shape, self.axes), _distance(x, self.axes)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (x,), (dx,) = node.args, tangents
        if dx is None:
            return None
        return self._scaled(node, _sum(multiply(_distance(x, self.axes), dx), self.axes, self.keepdims))

    def _scaled(self, node: Node, g: Node) -> Node:
        scale = multiply(node, _divisor(node.args[0], self.axes, self.correction))
        return where(equal(node, 0), 0.0, divide(g, scale))


def std(x: Operand, axis: Axis = None, keepdims: bool = False, correction: float = 0.0) -> Node:
    """The standard deviation over axes (None: all), with the number of elements less the correction.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``std``.

    >>> import graphc as gx
    >>> gx.std(gx.placeholder("x", ("n", 3)), axis=0, correction=1)
    <std: f32[3]>
    """
    return _average(Std, x, axis, keepdims, float(correction))


def _average(op: type[_Average], x: Operand, axis: Axis, keepdims: bool, *how: float) -> Node:
    node = as_node(x)
    with explaining(op.name, node):
        axes = normalize_axes(axis, node.ndim)
    return apply(op(axes, bool(keepdims), *how), node)


def average(x: Operand, axis: Axis = None, weights: Operand | None = None, keepdims: bool = False) -> Node:
    """The mean over axes (None: all) in which each element counts as much as its weight.

    Shapes: weights broadcast to x; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; ShapeError; DTypeError for integers and bool.
    Source: NumPy ``average``.

    >>> import graphc as gx
    >>> gx.average(gx.placeholder("x", ("n", 3)), axis=1, weights=gx.placeholder("w", (3,)))
    <divide: f32[n]>
    """
    if weights is None:
        return mean(x, axis, keepdims)
    node, factors = as_operands(x, weights)
    with explaining("average", node, factors):
        require_dtype(node.type, FLOATS)
        axes = normalize_axes(axis, node.ndim)
        repeated = broadcast_to(factors, node.shape)
    return divide(_sum(multiply(node, repeated), axes, bool(keepdims)), _sum(repeated, axes, bool(keepdims)))


def count_nonzero(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The number of elements over axes (None: all) that are not 0 (or are True), as int64. NaN counts.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError.
    Source: Array API ``count_nonzero``.

    >>> import graphc as gx
    >>> gx.count_nonzero(gx.placeholder("x", ("n", 3)), axis=1)
    <sum: i64[n]>
    """
    node = as_node(x)
    with explaining("count_nonzero", node):
        axes = normalize_axes(axis, node.ndim)
    counted = node if node.dtype is DType.bool else not_equal(node, 0)
    return _sum(cast_to(counted, DType.int64), axes, bool(keepdims))


def median(x: Operand, axis: int | None = None, keepdims: bool = False) -> Node:
    """The middle element in the order along an axis (None: of all), or the mean of the two in the middle; NaN wins.

    Shapes: the axis vanishes, or becomes 1 with keepdims.
    Raises: AxisError; ShapeError for an axis without elements; DTypeError for integers and bool.
    Source: NumPy ``median``.

    >>> import graphc as gx
    >>> gx.median(gx.placeholder("x", ("n", 5)), axis=1)
    <reshape: f32[n]>
    """
    node = as_node(x)
    with explaining("median", node):
        require_dtype(node.type, FLOATS)
        place = 0 if axis is None else normalize_axis(axis, node.ndim)
        flat = reshape(node, (node.type.size,)) if axis is None else node
        size = flat.shape[place]
        if size == 0:
            raise ShapeError(f"axis {place} has no elements", remedy="give at least one element there")
    ordered = sort(flat, place)
    low, high, last = (take_range(ordered, place, at, at + 1) for at in ((size - 1) // 2, size // 2, size - 1))
    middle = where(isnan(last), last, multiply(low + high, 0.5))
    if axis is None:
        return reshape(middle, (1,) * node.ndim if keepdims else ())
    return middle if keepdims else squeeze(middle, place)


operators["mean"] = mean

__all__ = ["Mean", "Std", "Var", "average", "count_nonzero", "mean", "median", "std", "var"]
