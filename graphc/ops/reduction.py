"""Reductions: sum, prod, max, min, all, any, argmax, argmin.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
sections "statistical functions" and "utility functions"; a result keeps the element type of the operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
    NUMBERS,
    Absent,
    Array,
    Axis,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    explaining,
    full,
    normalize_axes,
    normalize_axis,
    op_class,
    require_dtype,
    special_operands,
)


def check_axes(axes: tuple[int, ...], rank: int) -> None:
    """Refuse axes that are not sorted, distinct and those of the operand.

    Raises:
        AxisError: names the axis.
    """
    for axis in axes:
        if not 0 <= axis < rank:
            raise AxisError(f"axis {axis} does not exist", remedy=f"the operand has {rank} axes: use 0 to {rank - 1}")
    if list(axes) != sorted(set(axes)):
        raise AxisError(f"axes {axes} are not in order, each once", remedy="sort them and name each once")


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape after a reduction over ``axes``."""
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def restore_axes(x: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduced value with its axes of size 1 put back, so that it broadcasts against ``shape``."""
    from graphc.ops.movement import reshape

    return reshape(x, reduced_shape(shape, axes, keepdims=True))


def spread(x: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """A reduced value repeated over the axes it was reduced by: the transpose of a sum."""
    from graphc.ops.movement import broadcast_to

    return broadcast_to(restore_axes(x, shape, axes), shape)


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Op):
    """Base of reductions with an associative, commutative function.

    Attributes:
        axes: sorted, counted from the front; empty for a reduction over nothing.
        keepdims: whether the axes stay, with size 1.

    Class attributes:
        fn: the scalar function: add, mul, max, min, and, or.
        accepts: the element types of the operand.
    """

    axes: tuple[int, ...]
    keepdims: bool

    fn: ClassVar[str] = ""
    accepts: ClassVar[tuple[DType, ...]] = NUMBERS

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, self.accepts)
        check_axes(self.axes, x.rank)
        return TensorType(x.dtype, reduced_shape(x.shape, self.axes, self.keepdims))

    @staticmethod
    def identity(fn: str, dtype: DType) -> bool | int | float:
        """What a reduction over no elements gives."""
        if fn in ("add", "or"):
            return False if dtype is DType.bool else 0
        if fn in ("mul", "and"):
            return True if dtype is DType.bool else 1
        if dtype.is_float:
            return -np.inf if fn == "max" else np.inf
        info = np.iinfo(dtype.numpy)
        return int(info.min if fn == "max" else info.max)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis and several, kept and not, sizes of 0 and 1, every element type, NaN and infinities."""
        main = DType.float32 if DType.float32 in cls.accepts else DType.bool

        def case(shape: Shape, axes: tuple[int, ...], keepdims: bool = False, dtype: DType = main) -> Case:
            infinite = 0 in shape and cls.fn in ("max", "min")  # of nothing
            return Case(cls(axes, keepdims), (TensorType(dtype, shape),), differentiable=not infinite)

        rows = [
            case((4, 5), (0,)), case((4, 5), (1,)), case((4, 5), (0, 1)), case((4, 5), (1,), True), case((), ()),
            case((2, 3, 4), (0, 2)), case((2, 3, 4), (1,), True), case((2, 3, 4), ()), case((3, 0), (1,)),
            case((0, 3), (1,)), case((1, 1), (0, 1)), case((3, 70), (1,)), case((70, 3), (0,)),
        ]  # fmt: skip
        rows += [case((4, 5), (1,), dtype=dtype) for dtype in cls.accepts if dtype not in (main, DType.float16)]
        if main.is_float:
            special = special_operands(main, 2)[0].reshape(10, 10)
            rows.append(Case(cls((0,), False), (special,), differentiable=False))
            pairs = np.stack(special_operands(main, 2), axis=1)
            rows.append(Case(cls((1,), False), (pairs,), differentiable=False))
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, one that stands twice, an element type that is not taken."""
        good = TensorType(cls.accepts[-1], (2, 3))
        refused = next(dtype for dtype in DType if dtype not in cls.accepts)
        return (
            BadCase(cls((2,), False), (good,), AxisError, (cls.name, "axis 2", "2 axes")),
            BadCase(cls((1, 1), False), (good,), AxisError, (cls.name, "once")),
            BadCase(cls((0,), False), (TensorType(refused, (2,)),), DTypeError, (cls.name, refused.value, "gx.cast")),
        )


@op_class
class Sum(Reduce):
    """The sum over axes; of nothing 0.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceSum.html
    """

    fn = "add"
    onnx = "ReduceSum"

    def reference(self, x: Array) -> Array:
        return np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (spread(cotangent, node.args[0].shape, self.axes),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])


def sum(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The sum over axes (None: all). Count True with ``gx.sum(gx.cast(x, "int64"))``.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``sum``.

    >>> import graphc as gx
    >>> gx.sum(gx.placeholder("x", ("n", 3)), axis=-1)
    <sum: f32[n]>
    """
    return _reduce(Sum, x, axis, keepdims)


@op_class
class Prod(Reduce):
    """The product over axes; of nothing 1. Its derivative is right where factors are 0.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceProd.html
    """

    fn = "mul"
    onnx = "ReduceProd"

    def reference(self, x: Array) -> Array:
        return np.prod(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        return (spread(cotangent, x.shape, self.axes) * _product_of_others(x, self.axes),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        (x,) = node.args
        return None if dx is None else apply(Sum(self.axes, self.keepdims), dx * _product_of_others(x, self.axes))


def _product_of_others(x: Node, axes: tuple[int, ...]) -> Node:
    """At each place the product of all other elements of its group, without division, so that zeros are no trouble."""
    from graphc.ops.movement import reshape, transpose

    if not axes:
        return full(x.shape, 1, x.dtype)
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    order = (*kept, *axes)
    grouped = transpose(x, order)
    count: Size = 1
    for axis in axes:
        count = count * x.shape[axis]
    flat = reshape(grouped, (*(x.shape[axis] for axis in kept), count))
    others = _others_in_pairs(flat) if isinstance(count, int) else _others_by_mask(flat)
    back = tuple(order.index(axis) for axis in range(x.ndim))
    return transpose(reshape(others, grouped.shape), back)


def _others_in_pairs(x: Node) -> Node:
    """A tree over the last axis: halves are multiplied with each other, and each gets the other's factor back."""
    from graphc.ops.movement import concatenate
    from graphc.ops.slicing import take_range

    axis, count = x.ndim - 1, x.shape[-1]
    if not isinstance(count, int) or count <= 1:
        return full(x.shape, 1, x.dtype)
    half = count // 2
    left, right = take_range(x, axis, 0, half), take_range(x, axis, half, 2 * half)
    odd = [take_range(x, axis, count - 1, count)] if count % 2 else []
    above = _others_in_pairs(concatenate([left * right, *odd], axis))
    pairs = take_range(above, axis, 0, half)
    last = [take_range(above, axis, half, half + 1)] if odd else []
    return concatenate([pairs * right, pairs * left, *last], axis)


def _others_by_mask(x: Node) -> Node:
    """For an axis whose size is not known: all pairs, with ones in place of the element itself."""
    from graphc.ops.compare import equal, where
    from graphc.ops.create import iota
    from graphc.ops.slicing import expand_dims

    count = x.shape[-1]
    itself = equal(iota((count, count), 0), iota((count, count), 1))
    return prod(where(itself, 1, expand_dims(x, -2)), axis=-1)


def prod(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The product over axes (None: all).

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``prod``.

    >>> import graphc as gx
    >>> gx.prod(gx.placeholder("x", ("n", 3)), axis=1)
    <prod: f32[n]>
    """
    return _reduce(Prod, x, axis, keepdims)


def _share_of_extreme(op: Reduce, node: Node, g: Node) -> Node:
    """``g`` (of the operand's shape) at the extreme elements; equal ones share it evenly."""
    from graphc.ops.cast import cast
    from graphc.ops.compare import equal

    (x,) = node.args
    hit = cast(equal(x, restore_axes(node, x.shape, op.axes)), x.dtype)
    return g * (hit / sum(hit, axis=op.axes, keepdims=True))


class _Extreme(Reduce):
    def reference(self, x: Array) -> Array:
        dtype = DType(x.dtype.name)
        ufunc = np.maximum if self.fn == "max" else np.minimum
        initial = self.identity(self.fn, dtype)
        return ufunc.reduce(x, axis=self.axes, keepdims=self.keepdims, initial=initial)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (_share_of_extreme(self, node, spread(cotangent, node.args[0].shape, self.axes)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        return None if dx is None else apply(Sum(self.axes, self.keepdims), _share_of_extreme(self, node, dx))


@op_class
class Max(_Extreme):
    """The largest element over axes; NaN wins; of nothing -inf, or the smallest integer.

    Equal largest elements share the gradient evenly.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceMax.html
    """

    fn = "max"
    onnx = "ReduceMax"


def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The largest element over axes (None: all); NaN wins.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``max``.

    >>> import graphc as gx
    >>> gx.max(gx.placeholder("x", ("n", 3)), axis=1, keepdims=True)
    <max: f32[n, 1]>
    """
    return _reduce(Max, x, axis, keepdims)


@op_class
class Min(_Extreme):
    """The smallest element over axes; NaN wins; of nothing inf, or the largest integer.

    Equal smallest elements share the gradient evenly.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__ReduceMin.html
    """

    fn = "min"
    onnx = "ReduceMin"


def min(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """The smallest element over axes (None: all); NaN wins.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``min``.

    >>> import graphc as gx
    >>> gx.min(gx.placeholder("x", ("n", 3)))
    <min: f32[]>
    """
    return _reduce(Min, x, axis, keepdims)


class _Logical(Reduce):
    accepts = (DType.bool,)
    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT


@op_class
class All(_Logical):
    """Whether all elements over axes hold; of nothing True.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for numbers.
    Source: Array API ``all``.
    """

    fn = "and"
    onnx = ("Cast", "ReduceMin")

    def reference(self, x: Array) -> Array:
        return np.all(x, axis=self.axes, keepdims=self.keepdims)


def all(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """Whether all elements over axes (None: all) hold.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for numbers.
    Source: Array API ``all``.

    >>> import graphc as gx
    >>> gx.all(gx.placeholder("x", ("n", 3)) > 0, axis=1)
    <all: bool[n]>
    """
    return _reduce(All, x, axis, keepdims)


@op_class
class Any(_Logical):
    """Whether any element over axes holds; of nothing False.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for numbers.
    Source: Array API ``any``.
    """

    fn = "or"
    onnx = ("Cast", "ReduceMax")

    def reference(self, x: Array) -> Array:
        return np.any(x, axis=self.axes, keepdims=self.keepdims)


def any(x: Operand, axis: Axis = None, keepdims: bool = False) -> Node:
    """Whether any element over axes (None: all) holds.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for numbers.
    Source: Array API ``any``.

    >>> import graphc as gx
    >>> gx.any(gx.placeholder("x", ("n", 3)) > 0, axis=1)
    <any: bool[n]>
    """
    return _reduce(Any, x, axis, keepdims)


def _reduce(op: type[Reduce], x: Operand, axis: Axis, keepdims: bool) -> Node:
    node = as_node(x)
    with explaining(op.name, node):
        axes = normalize_axes(axis, node.ndim)
    return apply(op(axes, bool(keepdims)), node)


@dataclass(frozen=True, eq=False, repr=False)
class _Ranking(Op):
    """The place of the extreme element along one axis: the first of equal ones, or the first NaN."""

    axis: int
    keepdims: bool

    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, NUMBERS)
        check_axes((self.axis,), x.rank)
        if x.shape[self.axis] == 0:
            raise ShapeError(f"axis {self.axis} has no elements", remedy="give at least one element there")
        return TensorType(DType.int64, reduced_shape(x.shape, (self.axis,), self.keepdims))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis, kept and not, equal elements, NaN and infinities, every element type."""
        rows = [
            Case(cls(axis, keepdims), (TensorType(DType.float32, shape),))
            for shape, axis, keepdims in (((4, 5), 0, False), ((4, 5), 1, True), ((3, 1), 1, False), ((0, 3), 1, False))
        ]
        rows += [Case(cls(1, False), (TensorType(dtype, (4, 30)),), (0.0, 5.0)) for dtype in NUMBERS]
        pairs = np.stack(special_operands(DType.float32, 2), axis=1)
        rows.append(Case(cls(1, False), (pairs,)))
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist or is empty, bools."""
        f32 = DType.float32
        return (
            BadCase(cls(2, False), (TensorType(f32, (2, 3)),), AxisError, (cls.name, "axis 2", "2 axes")),
            BadCase(cls(1, False), (TensorType(f32, (2, 0)),), ShapeError, (cls.name, "axis 1", "no elements")),
            BadCase(cls(0, False), (TensorType(DType.bool, (2,)),), DTypeError, (cls.name, "bool", "gx.cast")),
        )


@op_class
class ArgMax(_Ranking):
    """The place of the largest element along an axis as int64: the first of equal ones, or the first NaN.

    Shapes: x with at least one element along the axis, which vanishes, or becomes 1 with keepdims.
    Raises: AxisError; ShapeError for an axis without elements; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__ArgMax.html
    """

    name = "argmax"
    onnx = "ArgMax"

    def reference(self, x: Array) -> Array:
        return np.argmax(x, axis=self.axis, keepdims=self.keepdims)


def argmax(x: Operand, axis: int = -1, keepdims: bool = False) -> Node:
    """The place of the largest element along an axis, as int64.

    Shapes: the axis vanishes, or becomes 1 with keepdims.
    Raises: AxisError; ShapeError for an axis without elements; DTypeError for bool.
    Source: Array API ``argmax``, but for the default axis.

    >>> import graphc as gx
    >>> gx.argmax(gx.placeholder("x", ("n", 10)))
    <argmax: i64[n]>
    """
    return _rank(ArgMax, x, axis, keepdims)


@op_class
class ArgMin(_Ranking):
    """The place of the smallest element along an axis as int64: the first of equal ones, or the first NaN.

    Shapes: x with at least one element along the axis, which vanishes, or becomes 1 with keepdims.
    Raises: AxisError; ShapeError for an axis without elements; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__ArgMin.html
    """

    name = "argmin"
    onnx = "ArgMin"

    def reference(self, x: Array) -> Array:
        return np.argmin(x, axis=self.axis, keepdims=self.keepdims)


def argmin(x: Operand, axis: int = -1, keepdims: bool = False) -> Node:
    """The place of the smallest element along an axis, as int64.

    Shapes: the axis vanishes, or becomes 1 with keepdims.
    Raises: AxisError; ShapeError for an axis without elements; DTypeError for bool.
    Source: Array API ``argmin``, but for the default axis.

    >>> import graphc as gx
    >>> gx.argmin(gx.placeholder("x", ("n", 10)), axis=0)
    <argmin: i64[10]>
    """
    return _rank(ArgMin, x, axis, keepdims)


def _rank(op: type[_Ranking], x: Operand, axis: int, keepdims: bool) -> Node:
    node = as_node(x)
    with explaining(op.name, node):
        axis = normalize_axis(axis, node.ndim)
    return apply(op(axis, bool(keepdims)), node)


operators.update({"sum": sum, "max": max, "min": min})

__all__ = [
    "All", "Any", "ArgMax", "ArgMin", "Max", "Min", "Prod", "Reduce", "Sum", "all", "any", "argmax", "argmin",
    "max", "min", "prod", "sum",
]  # fmt: skip
