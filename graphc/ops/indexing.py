"""Indexing by integers that are known only when a program runs: take, take_along, one_hot, and their transposes.

An index outside its axis, negative ones included, is found while the program runs: no state changes, and the error
shows the user's line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType, as_dtype, as_shape
from graphc.ops.base import (
    FLOATS,
    INTEGERS,
    Absent,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    explaining,
    ints,
    normalize_axis,
    op_class,
    require_dtype,
)
from graphc.ops.checked import Checked, first_outside, require_in_range

f32, i64 = DType.float32, DType.int64
_INDEX = (DType.int32, DType.int64, DType.uint32)


def _check_axis(axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise AxisError(f"axis {axis} does not exist", remedy=f"the operand has {rank} axes: use 0 to {rank - 1}")


def _random_rows(limit: int, *shape: int, dtype: str = "int64") -> Array:
    """Indices that hit each place about once, in no order, with repetitions."""
    return (np.arange(int(np.prod(shape))) * 7 % 5 % limit).astype(dtype).reshape(shape)


@op_class
class Take(Checked):
    """Rows of ``x`` along an axis, chosen by integers: ``numpy.take``.

    Shapes: x with the axis replaced by the axes of indices.
    Raises: AxisError; DTypeError for indices that are no integers; at run time IndexRangeError.
    Source: https://onnx.ai/onnx/operators/onnx__Gather.html
    """

    axis: int

    operands = ("x", "indices")
    onnx = "Gather"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        require_dtype(indices, _INDEX, "indices")
        _check_axis(self.axis, x.rank)
        return TensorType(x.dtype, (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))

    def limit(self, *types: TensorType) -> Size:
        return types[0].shape[self.axis]

    def fault(self, *arrays: Any) -> int | None:
        x, indices = arrays
        return first_outside(indices, x.shape[self.axis])

    def reference(self, x: Array, indices: Array) -> Array:
        require_in_range(indices, x.shape[self.axis])
        return np.take(x, indices, axis=self.axis)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, indices = node.args
        return apply(TakeAdd(self.axis, x.shape[self.axis]), cotangent, indices), None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], node.args[1])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis; indices of no, one and two axes; repeated and no indices; every element type."""
        rows = [
            Case(cls(axis), (TensorType(f32, shape), indices))
            for axis, shape, indices in (
                (0, (5, 3), _random_rows(5, 8)), (1, (3, 5), _random_rows(5, 2, 4)), (1, (2, 5, 3), _random_rows(5, 6)),
                (0, (5,), np.array(4)), (0, (5, 2), np.zeros((0,), np.int64)), (0, (1, 2), np.zeros((3,), np.int64)),
                (0, (5, 3), _random_rows(5, 8, dtype="int32")), (0, (5, 3), _random_rows(5, 8, dtype="uint32")),
            )
        ]  # fmt: skip
        rows += [Case(cls(0), (TensorType(d, (5, 2)), _random_rows(5, 4))) for d in DType if d is not f32]
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, indices that are floats."""
        x = TensorType(f32, (5, 3))
        return (
            BadCase(cls(2), (x, TensorType(i64, (4,))), AxisError, ("take", "axis 2", "2 axes")),
            BadCase(cls(0), (x, TensorType(f32, (4,))), DTypeError, ("take", "indices", "float32", "gx.cast")),
        )


def take(x: Operand, indices: Operand, axis: int = 0) -> Node:
    """Rows of x along an axis, chosen by integers.

    Shapes: x with the axis replaced by the axes of indices.
    Raises: AxisError; DTypeError for indices that are no integers; at run time IndexRangeError.
    Source: NumPy ``take``.

    >>> import graphc as gx
    >>> gx.take(gx.placeholder("table", (1000, 64)), gx.placeholder("tokens", ("n", 7), "int64"))
    <take: f32[n, 7, 64]>
    """
    node, chosen = as_node(x), as_node(indices)
    with explaining("take", node, chosen):
        return apply(Take(normalize_axis(axis, node.ndim)), node, chosen)


@op_class
class TakeAdd(Checked):
    """Zeros of ``size`` along an axis, with rows of ``values`` added at indices: the transpose of :class:`Take`.

    Rows that meet are added in the order of the indices, so that the result is the same bits every time.

    Shapes: values hold the axes of indices from ``axis`` on; in the result they are one axis of ``size``.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: the transpose of https://onnx.ai/onnx/operators/onnx__Gather.html
    """

    axis: int
    size: Size

    operands = ("values", "indices")
    onnx = ("Expand", "ScatterND")

    def infer(self, *types: TensorType) -> TensorType:
        values, indices = types
        require_dtype(indices, _INDEX, "indices")
        require_dtype(values, (*INTEGERS, *FLOATS))
        end = self.axis + indices.rank
        if not 0 <= self.axis <= values.rank or end > values.rank:
            raise AxisError(
                f"axis {self.axis} with {indices.rank} axes of indices does not lie in values of {values.rank} axes",
                remedy="values have the axes of indices in place of one",
            )
        if values.shape[self.axis : end] != indices.shape:
            raise ShapeError(
                f"indices have shape {indices.shape}, values {values.shape[self.axis : end]} there",
                remedy="give one index for each row of values",
            )
        return TensorType(values.dtype, (*values.shape[: self.axis], self.size, *values.shape[end:]))

    def limit(self, *types: TensorType) -> Size:
        return self.size

    def fault(self, *arrays: Any) -> int | None:
        return first_outside(arrays[1], self.size)

    def reference(self, values: Array, indices: Array) -> Array:
        require_in_range(indices, self.size)
        before, after = values.shape[: self.axis], values.shape[self.axis + indices.ndim :]
        total = np.zeros((*before, *ints((self.size,)), *after), values.dtype)
        rows = values.reshape(*before, indices.size, *after)
        np.add.at(np.moveaxis(total, self.axis, 0), indices.ravel(), np.moveaxis(rows, self.axis, 0))
        return total

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return TakeAdd(self.axis, bind(self.size))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return apply(Take(self.axis), cotangent, node.args[1]), None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], node.args[1])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis; indices of no, one and two axes; places that meet and places that get nothing."""
        rows = [
            Case(cls(axis, size), (TensorType(f32, shape), indices))
            for axis, size, shape, indices in (
                (0, 5, (8, 3), _random_rows(5, 8)), (1, 6, (3, 2, 4), _random_rows(5, 2, 4)), (0, 5, (), np.array(4)),
                (1, 5, (2, 6, 3), _random_rows(5, 6)), (0, 3, (0, 2), np.zeros((0,), np.int64)),
                (0, 1, (4, 2), np.zeros((4,), np.int64)), (0, 5, (8,), _random_rows(5, 8, dtype="int32")),
            )
        ]  # fmt: skip
        return [*rows, Case(cls(0, 5), (TensorType(DType.int32, (8, 2)), _random_rows(5, 8)))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Values without the axes of indices, other sizes than the indices, indices that are floats, bools."""
        indices = TensorType(i64, (4,))
        return (
            BadCase(cls(1, 5), (TensorType(f32, (4,)), indices), AxisError, ("take_add", "axis 1", "1 axes")),
            BadCase(cls(0, 5), (TensorType(f32, (3, 2)), indices), ShapeError, ("take_add", "(4,)", "(3,)")),
            BadCase(cls(0, 5), (TensorType(f32, (4,)), TensorType(f32, (4,))), DTypeError, ("indices", "float32")),
            BadCase(cls(0, 5), (TensorType(DType.bool, (4,)), indices), DTypeError, ("take_add", "bool")),
        )


def _require_same_off_axis(shape: Shape, indices: Shape, axis: int, rank_of: str) -> None:
    if len(shape) != len(indices):
        raise ShapeError(
            f"{rank_of} has {len(shape)} axes, indices have {len(indices)}",
            remedy="give both as many axes, with gx.expand_dims if need be",
        )
    _check_axis(axis, len(shape))
    for place, (a, b) in enumerate(zip(shape, indices, strict=True)):
        if place != axis and a != b:
            raise ShapeError(
                f"axis {place} is {a} in {rank_of} and {b} in indices", remedy=f"sizes may differ only on axis {axis}"
            )


@op_class
class TakeAlong(Checked):
    """One element of ``x`` for each index, from the index's own row along an axis: ``numpy.take_along_axis``.

    Shapes: x and indices have as many axes, of the same sizes but for the axis; the result has those of indices.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: https://onnx.ai/onnx/operators/onnx__GatherElements.html
    """

    axis: int

    operands = ("x", "indices")
    onnx = "GatherElements"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        require_dtype(indices, _INDEX, "indices")
        _require_same_off_axis(x.shape, indices.shape, self.axis, "x")
        return TensorType(x.dtype, indices.shape)

    def limit(self, *types: TensorType) -> Size:
        return types[0].shape[self.axis]

    def fault(self, *arrays: Any) -> int | None:
        x, indices = arrays
        return first_outside(indices, x.shape[self.axis])

    def reference(self, x: Array, indices: Array) -> Array:
        require_in_range(indices, x.shape[self.axis])
        return np.take_along_axis(x, indices.astype(np.int64), self.axis)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, indices = node.args
        return apply(ScatterAlong(self.axis, x.shape[self.axis]), cotangent, indices), None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], node.args[1])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis, one and several indices a row, repeated and no indices."""
        rows = [
            Case(cls(axis), (TensorType(f32, shape), indices))
            for axis, shape, indices in (
                (1, (4, 5), _random_rows(5, 4, 1)), (1, (4, 5), _random_rows(5, 4, 7)),
                (0, (5, 3), _random_rows(5, 2, 3)),
                (1, (2, 5, 3), _random_rows(5, 2, 4, 3)), (0, (5,), _random_rows(5, 0)), (0, (1,), _random_rows(1, 2)),
                (1, (4, 5), _random_rows(5, 4, 1, dtype="int32")),
            )
        ]  # fmt: skip
        rows += [Case(cls(1), (TensorType(d, (4, 5)), _random_rows(5, 4, 2))) for d in DType if d is not f32]
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Too few axes, sizes that differ off the axis, an axis that does not exist, indices that are floats."""
        x = TensorType(f32, (4, 5))
        return (
            BadCase(cls(1), (x, TensorType(i64, (4,))), ShapeError, ("take_along", "2 axes", "expand_dims")),
            BadCase(cls(1), (x, TensorType(i64, (3, 1))), ShapeError, ("take_along", "axis 0", "4", "3")),
            BadCase(cls(2), (x, TensorType(i64, (4, 1))), AxisError, ("take_along", "axis 2", "2 axes")),
            BadCase(cls(1), (x, TensorType(f32, (4, 1))), DTypeError, ("take_along", "indices", "float32")),
        )


def take_along(x: Operand, indices: Operand, axis: int = -1) -> Node:
    """One element of x for each index, from the index's own row along an axis.

    Shapes: x and indices have as many axes, of the same sizes but for the axis; the result has those of indices.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: NumPy ``take_along_axis``.

    >>> import graphc as gx
    >>> gx.take_along(gx.placeholder("x", ("n", 10)), gx.placeholder("i", ("n", 1), "int64"))
    <take_along: f32[n, 1]>
    """
    node, chosen = as_node(x), as_node(indices)
    with explaining("take_along", node, chosen):
        return apply(TakeAlong(normalize_axis(axis, node.ndim)), node, chosen)


@op_class
class ScatterAlong(Checked):
    """Zeros of ``size`` along an axis, each value added in its own row at its index: the transpose of TakeAlong.

    Shapes: values and indices of one shape; the result has ``size`` along the axis.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: https://onnx.ai/onnx/operators/onnx__ScatterElements.html
    """

    axis: int
    size: Size

    operands = ("values", "indices")
    onnx = ("Expand", "ScatterElements")

    def infer(self, *types: TensorType) -> TensorType:
        values, indices = types
        require_dtype(indices, _INDEX, "indices")
        require_dtype(values, (*INTEGERS, *FLOATS))
        _require_same_off_axis(values.shape, indices.shape, self.axis, "values")
        if values.shape != indices.shape:
            raise ShapeError(
                f"values have shape {values.shape}, indices {indices.shape}", remedy="give one index for each value"
            )
        shape = (*values.shape[: self.axis], self.size, *values.shape[self.axis + 1 :])
        return TensorType(values.dtype, shape)

    def limit(self, *types: TensorType) -> Size:
        return self.size

    def fault(self, *arrays: Any) -> int | None:
        return first_outside(arrays[1], self.size)

    def reference(self, values: Array, indices: Array) -> Array:
        require_in_range(indices, self.size)
        before, after = values.shape[: self.axis], values.shape[self.axis + 1 :]
        total = np.zeros((*before, *ints((self.size,)), *after), values.dtype)
        places: list[Any] = list(np.indices(values.shape))
        places[self.axis] = indices
        np.add.at(total, tuple(places), values)
        return total

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return ScatterAlong(self.axis, bind(self.size))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return apply(TakeAlong(self.axis), cotangent, node.args[1]), None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], node.args[1])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis; places that meet and places that get nothing."""
        rows = [
            Case(cls(axis, size), (TensorType(f32, indices.shape), indices))
            for axis, size, indices in (
                (1, 5, _random_rows(5, 4, 1)), (1, 6, _random_rows(5, 4, 7)), (0, 5, _random_rows(5, 2, 3)),
                (1, 5, _random_rows(5, 2, 4, 3)), (0, 5, _random_rows(5, 0)),
                (1, 5, _random_rows(5, 4, 1, dtype="int32")),
            )
        ]  # fmt: skip
        return [*rows, Case(cls(1, 5), (TensorType(DType.int32, (4, 7)), _random_rows(5, 4, 7)))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Values and indices of different shapes, an axis that does not exist, indices that are floats, bools."""
        values = TensorType(f32, (4, 5))
        return (
            BadCase(cls(1, 5), (values, TensorType(i64, (4,))), ShapeError, ("scatter_along", "2 axes")),
            BadCase(cls(1, 5), (values, TensorType(i64, (4, 1))), ShapeError, ("scatter_along", "(4, 5)", "(4, 1)")),
            BadCase(cls(2, 5), (values, TensorType(i64, (4, 5))), AxisError, ("scatter_along", "axis 2")),
            BadCase(cls(1, 5), (values, TensorType(f32, (4, 5))), DTypeError, ("indices", "float32")),
            BadCase(cls(1, 5), (TensorType(DType.bool, (4,)), TensorType(i64, (4,))), DTypeError, ("bool",)),
        )


@op_class
class OneHot(Op):
    """A new last axis of size ``depth``: 1 at the index, 0 elsewhere; all 0 for an index outside.

    Shapes: the axes of indices, then depth.
    Raises: DTypeError for indices that are no integers.
    Source: https://onnx.ai/onnx/operators/onnx__OneHot.html
    """

    depth: Size
    dtype: DType

    operands = ("indices",)
    onnx = ("Equal", "Cast")
    composite = True
    no_vjp = Absent.INTEGER_OPERANDS
    no_jvp = Absent.INTEGER_OPERANDS

    def infer(self, *types: TensorType) -> TensorType:
        (indices,) = types
        require_dtype(indices, _INDEX, "indices")
        return TensorType(self.dtype, (*indices.shape, self.depth))

    def reference(self, indices: Array) -> Array:
        return (indices[..., None] == np.arange(*ints((self.depth,)))).astype(self.dtype.numpy)

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return OneHot(bind(self.depth), self.dtype)

    def decompose(self, *args: Node) -> Node:
        from graphc.ops.cast import cast
        from graphc.ops.compare import equal
        from graphc.ops.create import iota
        from graphc.ops.slicing import expand_dims

        (indices,) = args
        return cast(equal(expand_dims(indices, -1), iota((self.depth,), 0, indices.dtype)), self.dtype)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every element type of result and indices, an index outside, scalars, no indices, depths of 0 and 1."""
        rows = [Case(cls(5, dtype), (_random_rows(5, 6),)) for dtype in DType]
        rows += [Case(cls(4, f32), (np.array([[0, 3, 4, 7]], dtype.numpy),)) for dtype in INTEGERS]
        rows += [Case(cls(4, f32), (np.array(value, np.int64),)) for value in (2, -1)]
        rows += [Case(cls(4, f32), (np.zeros((0,), np.int64),))]
        return [*rows, *(Case(cls(depth, f32), (np.zeros((3,), np.int64),)) for depth in (0, 1))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Indices that are floats or bools."""
        return tuple(
            BadCase(cls(5, f32), (TensorType(dtype, (2,)),), DTypeError, ("one_hot", "indices", dtype.value))
            for dtype in (f32, DType.bool)
        )


def one_hot(indices: Operand, depth: int | str | Dim, dtype: Any = "float32") -> Node:
    """A new last axis of size ``depth``: 1 at the index, 0 elsewhere; all 0 for an index outside.

    Shapes: the axes of indices, then depth.
    Raises: DTypeError for indices that are no integers.
    Source: Keras ``one_hot``.

    >>> import graphc as gx
    >>> gx.one_hot(gx.placeholder("labels", ("n",), "int64"), 10)
    <one_hot: f32[n, 10]>
    """
    node = as_node(indices)
    with explaining("one_hot", node):
        (size,) = as_shape((depth,))
        return apply(OneHot(size, as_dtype(dtype)), node)


__all__ = [
    "OneHot", "ScatterAlong", "Take", "TakeAdd", "TakeAlong", "one_hot", "take", "take_along",
]  # fmt: skip
