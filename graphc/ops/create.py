"""Values made from nothing: counting numbers, sizes, constants that fill a shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType, as_dtype, as_shape
from graphc.ops import base
from graphc.ops.base import NUMBERS, Absent, Array, BadCase, Case, Operand, explaining, ints, op_class, require_dtype

ShapeLike = Iterable[int | str | Dim] | int | str | Dim


@op_class
class Iota(Op):
    """``0, 1, 2, ...`` along one axis of a shape, the same along the others.

    Shapes: the attribute's.
    Raises: AxisError; DTypeError for bool.
    Source: https://openxla.org/stablehlo/spec#iota
    """

    shape: Shape
    axis: int
    dtype: DType

    operands = ()
    onnx = ("Range", "Reshape", "Expand")
    no_vjp = Absent.LEAF
    no_jvp = Absent.LEAF

    def infer(self, *types: TensorType) -> TensorType:
        result = TensorType(self.dtype, self.shape)
        require_dtype(result, NUMBERS)
        if not 0 <= self.axis < len(self.shape):
            raise AxisError(f"axis {self.axis} does not exist", remedy=f"the shape has {len(self.shape)} axes")
        return result

    def reference(self) -> Array:
        shape = ints(self.shape)
        row = np.arange(shape[self.axis], dtype=self.dtype.numpy)
        column = row.reshape([-1 if axis == self.axis else 1 for axis in range(len(shape))])
        return np.broadcast_to(column, shape)

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Iota(tuple(map(bind, self.shape)), self.axis, self.dtype)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis, every element type, shapes with 0 and 1."""
        rows = [Case(cls((4, 3), axis, dtype), ()) for dtype in NUMBERS for axis in (0, 1)]
        return (*rows, Case(cls((0, 3), 0, DType.int64), ()), Case(cls((1,), 0, DType.int32), ()))

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, bools."""
        return (
            BadCase(cls((4,), 1, DType.int64), (), AxisError, ("iota", "axis 1", "1 axes")),
            BadCase(cls((4,), 0, DType.bool), (), DTypeError, ("iota", "bool", "int64")),
        )


def iota(shape: ShapeLike, axis: int = 0, dtype: Any = "int64") -> Node:
    """``0, 1, 2, ...`` along one axis of a shape, the same along the others.

    Shapes: ints, names and Dims.
    Raises: AxisError; ShapeError for a negative size; DTypeError for bool.
    Source: StableHLO ``iota``.

    >>> import graphc as gx
    >>> gx.iota((2, 3), axis=1)
    <iota: i64[2, 3]>
    """
    with explaining("iota"):
        sizes = as_shape(shape)
        return apply(Iota(sizes, base.normalize_axis(axis, len(sizes)), as_dtype(dtype)))


def arange(count: int | str | Dim, dtype: Any = "int64") -> Node:
    """``0, 1, ..., count - 1``.

    Shapes: one axis of size count.
    Raises: ShapeError for a negative size; DTypeError for bool.
    Source: Array API ``arange`` with one argument.

    >>> import graphc as gx
    >>> gx.arange(gx.Dim("n"))
    <iota: i64[n]>
    """
    return iota((count,), 0, dtype)


def linspace(
    start: Operand, stop: Operand, num: int | str | Dim, endpoint: bool = True, dtype: Any = "float32"
) -> Node:
    """``num`` values at equal distances from start to stop, stop itself included unless ``endpoint`` is false.

    Shapes: start and stop are scalars; the result is (num,).
    Raises: ShapeError; DTypeError for types other than floats.
    Source: Array API ``linspace``.

    >>> import graphc as gx
    >>> gx.linspace(0, 1, 5)
    <constant: f32[5]>
    >>> gx.linspace(gx.placeholder("low", ()), 1.0, "n")
    <where: f32[n]>
    """
    from graphc.ops.arithmetic import maximum
    from graphc.ops.compare import where

    with explaining("linspace"):
        (count,) = as_shape((num,))
        element = as_dtype(dtype)
        require_dtype(TensorType(element, ()), base.FLOATS)
        if isinstance(count, int) and isinstance(start, int | float) and isinstance(stop, int | float):
            return constant(np.linspace(start, stop, count, endpoint).astype(element.numpy))
        first, last = (base.cast_to(base.as_node(end, element), element) for end in (start, stop))
        if first.ndim or last.ndim:
            raise ShapeError(f"start and stop are {first.type} and {last.type}", remedy="give scalars")
        steps = maximum(size_of(count, element) - (1 if endpoint else 0), 1)
        place = iota((count,), 0, element)
        values = first + place * ((last - first) / steps)
        return where(place == steps, last, values) if endpoint else values


@op_class
class SizeOf(Op):
    """The value of a size as a scalar, known when a program runs.

    Shapes: a scalar.
    Raises: DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Shape.html
    """

    size: Size
    dtype: DType

    operands = ()
    onnx = ("Shape", "Gather", "Cast")
    no_vjp = Absent.LEAF
    no_jvp = Absent.LEAF

    def infer(self, *types: TensorType) -> TensorType:
        result = TensorType(self.dtype, ())
        require_dtype(result, NUMBERS)
        return result

    def reference(self) -> Array:
        return np.array(ints((self.size,))[0], self.dtype.numpy)

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return SizeOf(bind(self.size), self.dtype)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every element type."""
        return tuple(Case(cls(5, dtype), ()) for dtype in NUMBERS)

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Bools."""
        return (BadCase(cls(5, DType.bool), (), DTypeError, ("size_of", "bool", "int64")),)


def size_of(size: int | str | Dim, dtype: Any = "int64") -> Node:
    """The value of a size as a scalar: of a number a constant, of a Dim what it is when a program runs.

    Shapes: a scalar.
    Raises: ShapeError for a negative size; DTypeError for bool.
    Source: ONNX ``Shape``.

    >>> import graphc as gx
    >>> gx.size_of(gx.placeholder("x", ("n", 3)).shape[0], "float32")
    <size_of: f32[]>
    """
    with explaining("size_of"):
        (value,) = as_shape((size,))
        op = SizeOf(value, as_dtype(dtype))
        return apply(op) if isinstance(value, Dim) else constant(value, op.infer().dtype)


def full(shape: ShapeLike, value: bool | int | float, dtype: Any = "float32") -> Node:
    """One number in every place of a shape.

    Shapes: ints, names and Dims.
    Raises: ShapeError for a negative size; DTypeError where the number does not fit the type.
    Source: Array API ``full``.

    >>> import graphc as gx
    >>> gx.full(("n", 3), 0.5)
    <broadcast_to: f32[n, 3]>
    """
    with explaining("full"):
        element = as_dtype(dtype)
        base.as_node(value, element)  # refuses what does not fit
        return base.full(as_shape(shape), value, element)


def zeros(shape: ShapeLike, dtype: Any = "float32") -> Node:
    """Zeros in every place of a shape.

    Shapes: ints, names and Dims.
    Raises: ShapeError for a negative size.
    Source: Array API ``zeros``.

    >>> import graphc as gx
    >>> gx.zeros((2, 3))
    <broadcast_to: f32[2, 3]>
    """
    with explaining("zeros"):
        return base.full(as_shape(shape), 0, as_dtype(dtype))


def ones(shape: ShapeLike, dtype: Any = "float32") -> Node:
    """Ones in every place of a shape.

    Shapes: ints, names and Dims.
    Raises: ShapeError for a negative size.
    Source: Array API ``ones``.

    >>> import graphc as gx
    >>> gx.ones((2, 3), "int32")
    <broadcast_to: i32[2, 3]>
    """
    with explaining("ones"):
        return base.full(as_shape(shape), 1, as_dtype(dtype))


def zeros_like(x: Operand, dtype: Any = None) -> Node:
    """Zeros of the shape of x, and of its element type unless ``dtype`` says else.

    Shapes: that of x.
    Raises: DTypeError: graphc has no such element type.
    Source: Array API ``zeros_like``.

    >>> import graphc as gx
    >>> gx.zeros_like(gx.placeholder("x", ("n", 3)))
    <broadcast_to: f32[n, 3]>
    """
    return _like(x, 0, dtype)


def ones_like(x: Operand, dtype: Any = None) -> Node:
    """Ones of the shape of x, and of its element type unless ``dtype`` says else.

    Shapes: that of x.
    Raises: DTypeError: graphc has no such element type.
    Source: Array API ``ones_like``.

    >>> import graphc as gx
    >>> gx.ones_like(gx.placeholder("x", ("n", 3)), "int32")
    <broadcast_to: i32[n, 3]>
    """
    return _like(x, 1, dtype)


def _like(x: Operand, value: int, dtype: Any) -> Node:
    node = base.as_node(x)
    return base.full(node.shape, value, node.dtype if dtype is None else as_dtype(dtype))


__all__ = [
    "Iota", "SizeOf", "arange", "full", "iota", "linspace", "ones", "ones_like", "size_of", "zeros", "zeros_like",
]  # fmt: skip
