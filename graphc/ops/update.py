"""Values written over a part of an array at a place that is known only when a program runs: update_slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.arithmetic import maximum, minimum
from graphc.ops.base import (
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    cast_to,
    explaining,
    normalize_axis,
    op_class,
    require_dtype,
    zeros_like,
)
from graphc.ops.checked import in_range
from graphc.ops.create import arange, size_of
from graphc.ops.indexing import INDEX_TYPES, take

f32, i64 = DType.float32, DType.int64


@op_class
class UpdateSlice(Op):
    """``x`` with the elements from ``at`` on along an axis replaced by values; ``at`` is moved to where these fit.

    Where nobody needs ``x`` any more, such as the carry of a loop that is updated in each step, the values are written
    into its memory, and nothing else moves.

    Shapes: values as x, but for the axis, which is at most as long; ``at`` a scalar; the result has the shape of x.
    Raises: AxisError; ShapeError; DTypeError.
    Source: https://openxla.org/stablehlo/spec#dynamic_update_slice
    """

    axis: int

    operands = ("x", "values", "at")
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        x, values, at = types
        if not 0 <= self.axis < x.rank:
            raise AxisError(f"axis {self.axis} is none of the {x.rank} axes of x", remedy="give one that x has")
        if values.dtype is not x.dtype:
            raise DTypeError(f"x is {x.dtype}, the values are {values.dtype}", remedy="convert with gx.cast")
        require_dtype(at, INDEX_TYPES, "at")
        if at.rank:
            raise ShapeError(f"at has {at.rank} axes", remedy="give one place, a scalar")
        rest = [shape[: self.axis] + shape[self.axis + 1 :] for shape in (x.shape, values.shape)]
        if values.rank != x.rank or rest[0] != rest[1]:
            raise ShapeError(
                f"values are {values}, x is {x}", remedy=f"make them equal along all axes but axis {self.axis}"
            )
        room = x.shape[self.axis] - values.shape[self.axis]
        if isinstance(room, int) and room < 0:
            raise ShapeError(
                f"{values.shape[self.axis]} values do not fit axis {self.axis} of size {x.shape[self.axis]}",
                remedy="give fewer values",
            )
        return x

    def reference(self, x: Array, values: Array, at: Array) -> Array:
        count = values.shape[self.axis]
        first = int(np.clip(np.int64(at), 0, x.shape[self.axis] - count))
        result = x.copy()
        result[(*[slice(None)] * self.axis, slice(first, first + count))] = values
        return result

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, values, at = node.args
        gone = apply(self, cotangent, zeros_like(values), at) if x.dtype.is_float else None
        count = values.shape[self.axis]
        first = maximum(minimum(cast_to(at, i64), size_of(x.shape[self.axis] - count)), 0)
        return gone, take(cotangent, first + arange(count), self.axis), None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        dx, dvalues, _ = tangents
        if dx is None and dvalues is None:
            return None
        x, values, at = node.args
        return apply(self, zeros_like(x) if dx is None else dx, zeros_like(values) if dvalues is None else dvalues, at)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis, one value and several, none and all; places before, at and behind the ends; every element type."""

        def case(axis: int, shape: Shape, count: int, at: int, dtype: DType = f32, place: DType = i64) -> Case:
            values = (*shape[:axis], count, *shape[axis + 1 :])
            return Case(cls(axis), (TensorType(dtype, shape), TensorType(dtype, values), np.array(at, place.numpy)))

        rows = [
            case(0, (5,), 1, 2), case(1, (2, 6, 3), 1, 5), case(1, (2, 6, 3), 4, 1), case(0, (6, 3), 2, 5),
            case(0, (6, 3), 2, -3), case(2, (2, 3, 4), 4, 0), case(1, (3, 4), 0, 2), case(1, (0, 4), 2, 1),
            case(0, (4,), 1, 3, place=DType.int32), case(0, (4,), 2, 1, place=DType.uint32),
        ]  # fmt: skip
        return [*rows, *(case(1, (3, 4), 2, 1, dtype) for dtype in DType if dtype is not f32)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Values of another type, with other axes, too many; places that are several, or floats."""
        x, at = TensorType(f32, (4, 3)), TensorType(i64, ())
        one = TensorType(f32, (1, 3))
        return (
            BadCase(cls(2), (x, one, at), AxisError, ("axis 2", "2 axes")),
            BadCase(cls(0), (x, TensorType(DType.float64, (1, 3)), at), DTypeError, ("float32", "float64")),
            BadCase(cls(0), (x, TensorType(f32, (1, 4)), at), ShapeError, ("axis 0", "f32[1, 4]")),
            BadCase(cls(0), (x, TensorType(f32, (3,)), at), ShapeError, ("axis 0", "f32[3]")),
            BadCase(cls(0), (x, TensorType(f32, (5, 3)), at), ShapeError, ("5 values", "size 4")),
            BadCase(cls(0), (x, one, TensorType(i64, (1,))), ShapeError, ("at has 1 axes",)),
            BadCase(cls(0), (x, one, TensorType(f32, ())), DTypeError, ("at", "float32")),
        )


def update_slice(x: Operand, values: Operand, at: Operand, axis: int = 0) -> Node:
    """``x`` with the elements ``at, at + 1, ...`` along an axis replaced by values; ``x`` itself stays as it is.

    As the next value of a loop's carry it is written in place, which costs what the values cost, however large the
    carry is: so keep the keys and values of a text that grows by a token a step.

    Args:
        x: what is written over.
        values: what is written.
        at: the first place, an integer or a scalar node.
        axis: along which.

    Shapes: values as x, but for the axis, which is at most as long; the result has the shape of x.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError for values that reach beyond the axis.
    Source: JAX ``lax.dynamic_update_slice_in_dim``, which moves places that are outside.

    >>> import graphc as gx
    >>> cache, key = gx.placeholder("cache", ("batch", 80, 64)), gx.placeholder("key", ("batch", 1, 64))
    >>> gx.update_slice(cache, key, gx.placeholder("step", (), "int64"), axis=1)
    <update_slice: f32[batch, 80, 64]>
    """
    node = as_node(x)
    given, place = as_node(values, node.dtype), as_node(at)
    with explaining("update_slice", node, given, place):
        along = normalize_axis(axis, node.ndim)
        op = UpdateSlice(along)
        op.infer(node.type, given.type, place.type)
        room = node.shape[along] - given.shape[along]
        return apply(op, node, given, in_range(place, room + 1))


__all__ = ["UpdateSlice", "update_slice"]
