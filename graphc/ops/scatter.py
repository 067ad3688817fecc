"""Scattering: values put, added, multiplied or compared at places that are known only when a program runs.

Two primitives, the transposes of Take and TakeAlong: :class:`TakeAdd` adds rows, :class:`ScatterAlong` combines single
elements by a function. All the rest is made of them. Values that meet are combined in the order of the indices, so that
results are the same bits every time; of values that are *set* at one place, the last one stays, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, product
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, as_shape
from graphc.loops.scalar import identity
from graphc.ops.arithmetic import maximum, minimum
from graphc.ops.base import (
    FLOATS,
    INTEGERS,
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
from graphc.ops.checked import Checked, first_outside, require_in_range
from graphc.ops.compare import where
from graphc.ops.create import arange, iota
from graphc.ops.indexing import (
    INDEX_TYPES,
    Take,
    TakeAlong,
    aligned_rows,
    flat_places,
    random_rows,
    require_same_off_axis,
    take,
)
from graphc.ops.movement import broadcast_to, concatenate, reshape
from graphc.ops.slicing import getitem

f32, i64 = DType.float32, DType.int64

MODES = ("set", "add", "mul", "min", "max")
"""What is done with values and what stands at their places already."""


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
        require_dtype(indices, INDEX_TYPES, "indices")
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
                (0, 5, (8, 3), random_rows(5, 8)), (1, 6, (3, 2, 4), random_rows(5, 2, 4)), (0, 5, (), np.array(4)),
                (1, 5, (2, 6, 3), random_rows(5, 6)), (0, 3, (0, 2), np.zeros((0,), np.int64)),
                (0, 1, (4, 2), np.zeros((4,), np.int64)), (0, 5, (8,), random_rows(5, 8, dtype="int32")),
            )
        ]  # fmt: skip
        return [*rows, Case(cls(0, 5), (TensorType(DType.int32, (8, 2)), random_rows(5, 8)))]

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


_COMBINE: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@op_class
class ScatterAlong(Checked):
    """Each value combined in its own row at its index along an axis of ``size``; with ``add`` TakeAlong's transpose.

    Places that get nothing hold what changes nothing: 0 for ``add``, 1 for ``mul``, the largest and the smallest number
    (infinities) for ``min`` and ``max``. Equal extremes share the gradient evenly; that of a product is right where
    factors are 0.

    Attributes:
        fn: ``add``, ``mul``, ``min`` or ``max``.

    Shapes: values and indices of one shape; the result has ``size`` along the axis.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: https://onnx.ai/onnx/operators/onnx__ScatterElements.html
    """

    axis: int
    size: Size
    fn: str = "add"

    operands = ("values", "indices")
    onnx = ("Expand", "ScatterElements")

    def infer(self, *types: TensorType) -> TensorType:
        values, indices = types
        require_dtype(indices, INDEX_TYPES, "indices")
        require_dtype(values, (*INTEGERS, *FLOATS))
        if self.fn not in _COMBINE:
            raise DTypeError(f"there is no function {self.fn!r}", remedy=f"use one of {', '.join(_COMBINE)}")
        require_same_off_axis(values.shape, indices.shape, self.axis, "values")
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
        neutral = identity(self.fn, DType(values.dtype.name))
        result = np.full((*before, *ints((self.size,)), *after), neutral, values.dtype)
        places: list[Any] = list(np.indices(values.shape))
        places[self.axis] = indices
        _COMBINE[self.fn].at(result, tuple(places), values)
        return result

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return ScatterAlong(self.axis, bind(self.size), self.fn)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        share = self._share(node)
        found = apply(TakeAlong(self.axis), cotangent, node.args[1])
        return found if share is None else found * share, None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dvalues, _), share = tangents, self._share(node)
        if dvalues is None:
            return None
        moved = dvalues if share is None else dvalues * share
        return apply(ScatterAlong(self.axis, self.size), moved, node.args[1])

    def _share(self, node: Node) -> Node | None:
        """The derivative of the result by each value, at the value's place; None where it is 1."""
        if self.fn == "add":
            return None
        values, indices = node.args

        def meeting(x: Node, fn: str = "add") -> Node:
            """For each value, what is made of ``x`` over all values that meet it."""
            return apply(TakeAlong(self.axis), apply(ScatterAlong(self.axis, self.size, fn), x, indices), indices)

        if self.fn in ("min", "max"):
            wins = values == apply(TakeAlong(self.axis), node, indices)
            return where(wins, 1.0 / maximum(meeting(cast_to(wins, node.dtype)), 1), 0)
        zero = values == 0
        zeros = meeting(cast_to(zero, node.dtype))
        # Sums of values that are 0: they are 0 themselves, but not their derivatives.
        sums = meeting(where(zero, values, 0))
        factors = meeting(where(zero, 1, values), "mul")
        others = factors / where(zero, 1, values)
        of_zero = where(zeros == 1, factors, where(zeros == 2, factors * (sums - values), 0))
        return where(zero, of_zero, where(zeros == 0, others, where(zeros == 1, others * sums, 0)))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis and function; places that meet and places that get nothing; NaN, and factors that are 0."""
        rows = [
            Case(cls(axis, size), (TensorType(f32, indices.shape), indices))
            for axis, size, indices in (
                (1, 5, random_rows(5, 4, 1)), (1, 6, random_rows(5, 4, 7)), (0, 5, random_rows(5, 2, 3)),
                (1, 5, random_rows(5, 2, 4, 3)), (0, 5, random_rows(5, 0)),
                (1, 5, random_rows(5, 4, 1, dtype="int32")),
            )
        ]  # fmt: skip
        rows += [Case(cls(1, 5), (TensorType(DType.int32, (4, 7)), random_rows(5, 4, 7)))]
        zeros = np.array([[2, 0, 3, 4, 0, 5, 0], [0, 1, 2, 0, 3, 4, 5]], np.float32)
        meeting = np.array([[0, 0, 0, 1, 1, 2, 3], [0, 0, 0, 0, 1, 1, 1]])
        rows += [Case(cls(1, 4, "mul"), (zeros, meeting))]
        for fn in ("mul", "min", "max"):
            rows += [Case(cls(1, 5, fn), (TensorType(f32, (4, 7)), random_rows(5, 4, 7)))]
            rows += [Case(cls(0, 6, fn), (TensorType(d, (8,)), random_rows(5, 8)), (1, 9)) for d in INTEGERS]
            rows += [Case(cls(0, 5, fn), (TensorType(DType.int32, (0,)), random_rows(5, 0)))]
        special = np.array([1, np.nan, np.inf, -np.inf, np.nan, -0.0, 0.0], np.float32)
        rows += [Case(cls(0, 6, fn), (special, random_rows(5, 7)), differentiable=False) for fn in ("min", "max")]
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Other shapes than the indices', an axis or a function that there is not, indices that are floats, bools."""
        values = TensorType(f32, (4, 5))
        return (
            BadCase(cls(1, 5), (values, TensorType(i64, (4,))), ShapeError, ("scatter_along", "2 axes")),
            BadCase(cls(1, 5), (values, TensorType(i64, (4, 1))), ShapeError, ("scatter_along", "(4, 5)", "(4, 1)")),
            BadCase(cls(2, 5), (values, TensorType(i64, (4, 5))), AxisError, ("scatter_along", "axis 2")),
            BadCase(cls(1, 5, "or"), (values, TensorType(i64, (4, 5))), DTypeError, ("scatter_along", "'or'", "max")),
            BadCase(cls(1, 5), (values, TensorType(f32, (4, 5))), DTypeError, ("indices", "float32")),
            BadCase(cls(1, 5), (TensorType(DType.bool, (4,)), TensorType(i64, (4,))), DTypeError, ("bool",)),
        )


def put_along_axis(x: Operand, indices: Operand, values: Operand, axis: int = -1, mode: str = "set") -> Node:
    """``x`` with each value put in its own row at its index along an axis; ``x`` itself stays as it is.

    ``mode`` says what is done with what stands there: ``set``, ``add``, ``mul``, ``min`` or ``max``. Of values that
    are set at one place the last one stays, and it alone gets a gradient.

    Shapes: x and indices have as many axes, sizes equal or 1 but for the axis; values broadcast to indices.
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError.
    Source: NumPy ``put_along_axis``; https://onnx.ai/onnx/operators/onnx__ScatterElements.html

    >>> import graphc as gx
    >>> x, i = gx.placeholder("x", ("n", 5)), gx.placeholder("i", ("n", 2), "int64")
    >>> gx.put_along_axis(x, i, 1.0, mode="add")
    <add: f32[n, 5]>
    """
    node, places = as_node(x), as_node(indices)
    with explaining("put_along_axis", node, places):
        given = cast_to(as_node(values, node.dtype), node.dtype)
        place = normalize_axis(axis, node.ndim)
        node, places = aligned_rows(node, places, place)
        given = broadcast_to(given, places.shape)
        return _put(node, places, given, place, mode)


def _put(x: Node, indices: Node, values: Node, axis: int, mode: str) -> Node:
    size = x.shape[axis]
    if _check_mode(mode) != "set":
        return _combined(x, apply(ScatterAlong(axis, size, mode), values, indices), mode)
    last = apply(ScatterAlong(axis, size, "max"), iota(indices.shape, axis), indices)
    written = last >= 0
    return where(written, apply(TakeAlong(axis), _never_empty(values, axis), where(written, last, 0)), x)


def _check_mode(mode: str) -> str:
    if mode not in MODES:
        raise DTypeError(f"there is no mode {mode!r}", remedy=f"use one of {', '.join(MODES)}")
    return mode


def _combined(x: Node, scattered: Node, mode: str) -> Node:
    match mode:
        case "add":
            return x + scattered
        case "mul":
            return x * scattered
        case _:
            return minimum(x, scattered) if mode == "min" else maximum(x, scattered)


def _never_empty(values: Node, axis: int) -> Node:
    """The values with something after them where there may be none, so that "nothing is written" can read it."""
    count = values.shape[axis]
    if isinstance(count, int) and count:
        return values
    shape = (*values.shape[:axis], 1, *values.shape[axis + 1 :])
    return concatenate([values, full(shape, 0, values.dtype)], axis)


def scatter_nd(x: Operand, indices: Operand, updates: Operand, mode: str = "set", batch_dims: int = 0) -> Node:
    """``x`` with slices put at places that the last axis of indices names; ``x`` itself stays as it is.

    With indices of shape (..., k), each names a slice over the axes that follow the first k of x (after batch axes,
    which x and indices share). ``mode`` is ``set``, ``add``, ``mul``, ``min`` or ``max``; of slices that are set at one
    place the last one stays.

    Shapes: updates have the axes of indices but for the last, then those of a slice, or broadcast to them.
    Raises: ShapeError; DTypeError; at run time IndexRangeError.
    Source: https://onnx.ai/onnx/operators/onnx__ScatterND.html

    >>> import graphc as gx
    >>> x, i = gx.placeholder("x", (8, 5, 3)), gx.placeholder("i", ("n", 2), "int64")
    >>> gx.scatter_nd(x, i, gx.placeholder("updates", ("n", 3)), mode="max")
    <reshape: f32[8, 5, 3]>
    """
    node, places = as_node(x), as_node(indices)
    with explaining("scatter_nd", node, places):
        given = cast_to(as_node(updates, node.dtype), node.dtype)
        flat, depth = flat_places(node, places, batch_dims)
        rest = node.shape[depth:]
        given = reshape(broadcast_to(given, (*places.shape[:-1], *rest)), (*flat.shape, *rest))
        rows = reshape(node, (product(node.shape[:depth]), *rest))
        return reshape(_put_rows(rows, flat, given, mode), node.shape)


def _put_rows(x: Node, places: Node, rows: Node, mode: str) -> Node:
    """Rows along the first axis put at places of one axis."""
    size = x.shape[0]
    if _check_mode(mode) == "add":
        return x + apply(TakeAdd(0, size), rows, places)
    if mode != "set":
        column = reshape(places, (*places.shape, *(1 for _ in rows.shape[1:])))
        return _put(x, broadcast_to(column, rows.shape), rows, 0, mode)
    last = apply(ScatterAlong(0, size, "max"), arange(places.shape[0]), places)
    written = last >= 0
    chosen = take(_never_empty(rows, 0), where(written, last, 0), 0)
    return where(reshape(written, (size, *(1 for _ in rows.shape[1:]))), chosen, x)


def index_update(x: Operand, index: Any, values: Operand, mode: str = "set") -> Node:
    """``x`` with values put where ``x[index]`` reads: ``x[index] = values``, for values that never change.

    ``mode`` is ``set``, ``add``, ``mul``, ``min`` or ``max``, and combines *every* value: ``add`` is
    ``numpy.add.at(x, index, values)``.

    Shapes: values broadcast to ``x[index]``.
    Raises: what ``x[index]`` raises; ShapeError; DTypeError.
    Source: JAX ``x.at[index].set(values)``.

    >>> import graphc as gx
    >>> gx.index_update(gx.placeholder("x", (8, 3)), (slice(2, 4), -1), 0.0)
    <reshape: f32[8, 3]>
    """
    node = as_node(x)
    with explaining("index_update", node):
        given = cast_to(as_node(values, node.dtype), node.dtype)
        total = product(node.shape)
        places = getitem(reshape(arange(total), node.shape), index)
        given = reshape(broadcast_to(given, places.shape), (product(places.shape),))
        flat = _put_rows(reshape(node, (total,)), reshape(places, given.shape), given, mode)
        return reshape(flat, node.shape)


def bincount(x: Operand, length: int | str | Dim, weights: Operand | None = None) -> Node:
    """How often each of ``0 .. length - 1`` occurs, or the sum of the weights of its occurrences.

    Shapes: x of any shape, weights of the same; the result is (length,).
    Raises: ShapeError; DTypeError for x that are no integers; at run time IndexRangeError for others.
    Source: NumPy ``bincount``, with a length that is known beforehand.

    >>> import graphc as gx
    >>> gx.bincount(gx.placeholder("labels", ("n",), "int64"), 10)
    <take_add: i64[10]>
    """
    node = as_node(x)
    with explaining("bincount", node):
        (size,) = as_shape((length,))
        given = full(node.shape, 1, i64) if weights is None else as_node(weights)
        return apply(TakeAdd(0, size), broadcast_to(given, node.shape), node)


__all__ = ["ScatterAlong", "TakeAdd", "bincount", "index_update", "put_along_axis", "scatter_nd"]
