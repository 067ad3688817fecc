"""Indexing by integers that are known only when a program runs: take, take_along, gather_nd, one_hot.

An index outside its axis, negative ones included, is found while the program runs: no state changes, and the error
shows the user's line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, product
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType, as_dtype, as_shape, broadcast_shapes
from graphc.ops.base import (
    INTEGERS,
    Absent,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    cast_to,
    explaining,
    full,
    ints,
    normalize_axis,
    op_class,
    require_dtype,
)
from graphc.ops.checked import Checked, first_outside, in_range, require_in_range
from graphc.ops.create import iota, size_of
from graphc.ops.movement import broadcast_to, reshape

f32, i64 = DType.float32, DType.int64
INDEX_TYPES = (DType.int32, DType.int64, DType.uint32)


def check_axis(axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise AxisError(f"axis {axis} does not exist", remedy=f"the operand has {rank} axes: use 0 to {rank - 1}")


def random_rows(limit: int, *shape: int, dtype: str = "int64") -> Array:
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
        require_dtype(indices, INDEX_TYPES, "indices")
        check_axis(self.axis, x.rank)
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
        from graphc.ops.scatter import TakeAdd

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
                (0, (5, 3), random_rows(5, 8)), (1, (3, 5), random_rows(5, 2, 4)), (1, (2, 5, 3), random_rows(5, 6)),
                (0, (5,), np.array(4)), (0, (5, 2), np.zeros((0,), np.int64)), (0, (1, 2), np.zeros((3,), np.int64)),
                (0, (5, 3), random_rows(5, 8, dtype="int32")), (0, (5, 3), random_rows(5, 8, dtype="uint32")),
            )
        ]  # fmt: skip
        rows += [Case(cls(0), (TensorType(d, (5, 2)), random_rows(5, 4))) for d in DType if d is not f32]
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, indices that are floats."""
        x = TensorType(f32, (5, 3))
        return (
            BadCase(cls(2), (x, TensorType(i64, (4,))), AxisError, ("take", "axis 2", "2 axes")),
            BadCase(cls(0), (x, TensorType(f32, (4,))), DTypeError, ("take", "indices", "float32", "gx.cast")),
        )


def take(x: Operand, indices: Operand, axis: int | None = 0) -> Node:
    """Rows of x along an axis, chosen by integers; None: elements of the flattened x.

    Shapes: x with the axis replaced by the axes of indices.
    Raises: AxisError; DTypeError for indices that are no integers; at run time IndexRangeError.
    Source: NumPy ``take``.

    >>> import graphc as gx
    >>> gx.take(gx.placeholder("table", (1000, 64)), gx.placeholder("tokens", ("n", 7), "int64"))
    <take: f32[n, 7, 64]>
    """
    node, chosen = as_node(x), as_node(indices)
    with explaining("take", node, chosen):
        if axis is None:
            node, axis = reshape(node, (node.type.size,)), 0
        return apply(Take(normalize_axis(axis, node.ndim)), node, chosen)


def require_same_off_axis(shape: Shape, indices: Shape, axis: int, rank_of: str) -> None:
    if len(shape) != len(indices):
        raise ShapeError(
            f"{rank_of} has {len(shape)} axes, indices have {len(indices)}",
            remedy="give both as many axes, with gx.expand_dims if need be",
        )
    check_axis(axis, len(shape))
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
        require_dtype(indices, INDEX_TYPES, "indices")
        require_same_off_axis(x.shape, indices.shape, self.axis, "x")
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
        from graphc.ops.scatter import ScatterAlong

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
                (1, (4, 5), random_rows(5, 4, 1)), (1, (4, 5), random_rows(5, 4, 7)),
                (0, (5, 3), random_rows(5, 2, 3)),
                (1, (2, 5, 3), random_rows(5, 2, 4, 3)), (0, (5,), random_rows(5, 0)), (0, (1,), random_rows(1, 2)),
                (1, (4, 5), random_rows(5, 4, 1, dtype="int32")),
            )
        ]  # fmt: skip
        rows += [Case(cls(1), (TensorType(d, (4, 5)), random_rows(5, 4, 2))) for d in DType if d is not f32]
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
    """One element of x for each index, from the index's own row along an axis; also as ``take_along_axis``.

    Shapes: x and indices have as many axes, which broadcast but for the axis; the result has its size from indices.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: NumPy ``take_along_axis``.

    >>> import graphc as gx
    >>> gx.take_along(gx.placeholder("x", ("n", 10)), gx.placeholder("i", ("n", 1), "int64"))
    <take_along: f32[n, 1]>
    """
    node, chosen = as_node(x), as_node(indices)
    with explaining("take_along", node, chosen):
        place = normalize_axis(axis, node.ndim)
        return apply(TakeAlong(place), *aligned_rows(node, chosen, place))


take_along_axis = take_along
"""NumPy's name of :func:`take_along`."""


def aligned_rows(x: Node, indices: Node, axis: int) -> tuple[Node, Node]:
    """Both broadcast to the same sizes but for the axis.

    Raises:
        ShapeError: they have different numbers of axes, or do not broadcast.
    """
    if x.ndim != indices.ndim:
        require_same_off_axis(x.shape, indices.shape, axis, "x")
    rest = broadcast_shapes(*((*node.shape[:axis], *node.shape[axis + 1 :]) for node in (x, indices)))
    shapes = [(*rest[:axis], node.shape[axis], *rest[axis:]) for node in (x, indices)]
    return broadcast_to(x, shapes[0]), broadcast_to(indices, shapes[1])


def gather_nd(x: Operand, indices: Operand, batch_dims: int = 0) -> Node:
    """Slices of x at the places that the last axis of indices names.

    With indices of shape (..., k), each names a slice over the axes that follow the first k of x (after batch axes,
    which x and indices share).

    Shapes: the axes of indices but for the last, then those of a slice.
    Raises: ShapeError; DTypeError; at run time IndexRangeError.
    Source: https://onnx.ai/onnx/operators/onnx__GatherND.html

    >>> import graphc as gx
    >>> gx.gather_nd(gx.placeholder("x", (8, 5, 3)), gx.placeholder("i", ("n", 2), "int64"))
    <take: f32[n, 3]>
    """
    node, places = as_node(x), as_node(indices)
    with explaining("gather_nd", node, places):
        flat, depth = flat_places(node, places, batch_dims)
        rows = reshape(node, (product(node.shape[:depth]), *node.shape[depth:]))
        return reshape(take(rows, flat, 0), (*places.shape[:-1], *node.shape[depth:]))


def flat_places(x: Node, indices: Node, batch_dims: int) -> tuple[Node, int]:
    """Indices of slices as positions among all slices of x, in one axis, and how many axes of x they count through.

    Raises:
        ShapeError: the axes do not fit.
    """
    require_dtype(indices.type, INDEX_TYPES, "indices")
    if indices.ndim < 1 or not isinstance(indices.shape[-1], int):
        raise ShapeError(f"indices are {indices.type}", remedy="give them a last axis of known size, one index each")
    depth = batch_dims + indices.shape[-1]
    if not 0 <= batch_dims < indices.ndim or depth > x.ndim:
        raise ShapeError(
            f"indices {indices.type} with {batch_dims} batch axes name more axes than {x.type} has",
            remedy="the last axis of indices counts the axes of x that are indexed, after the batch axes",
        )
    from graphc.ops.slicing import getitem

    batch = indices.shape[:batch_dims]
    if x.shape[:batch_dims] != batch:
        raise ShapeError(
            f"the batch axes of x are {x.shape[:batch_dims]}, those of indices {batch}", remedy="make them equal"
        )
    shape = indices.shape[:-1]
    position = full(shape, 0, i64)
    for axis in range(depth):
        if axis < batch_dims:
            index = iota(shape, axis)
        else:
            index = cast_to(in_range(getitem(indices, (..., axis - batch_dims)), x.shape[axis]), i64)
        position = position * size_of(x.shape[axis]) + index
    return reshape(position, (product(shape),)), depth


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
        require_dtype(indices, INDEX_TYPES, "indices")
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
        rows = [Case(cls(5, dtype), (random_rows(5, 6),)) for dtype in DType]
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
    "OneHot", "Take", "TakeAlong", "gather_nd", "one_hot", "take", "take_along", "take_along_axis",
]  # fmt: skip
