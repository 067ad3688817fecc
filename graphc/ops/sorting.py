"""Sorting, and what is made of it: argsort, sort, top_k, searchsorted, unique.

One primitive, :class:`ArgSort`, gives the order of the elements; everything else takes elements in that order, so that
derivatives follow. NaN comes last in either direction, and equal elements keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, minimum
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, as_shape
from graphc.ops.base import (
    Absent,
    Array,
    BadCase,
    Case,
    Operand,
    as_node,
    as_operands,
    cast_to,
    explaining,
    full,
    normalize_axis,
    op_class,
)
from graphc.ops.create import arange, iota, size_of
from graphc.ops.indexing import take, take_along
from graphc.ops.movement import concatenate, reshape, transpose
from graphc.ops.padding import pad
from graphc.ops.scatter import ScatterAlong
from graphc.ops.slicing import take_range

f32, i64 = DType.float32, DType.int64


@op_class
class ArgSort(Op):
    """The positions of the elements of each row, along the last axis, in the order of their values.

    The order is stable; NaN comes last in either direction.

    Attributes:
        descending: from the largest to the smallest.

    Shapes: that of x, with at least one axis.
    Raises: ShapeError for a scalar.
    Source: Array API ``argsort`` with ``stable=True``; https://onnx.ai/onnx/operators/onnx__TopK.html
    """

    descending: bool

    name = "argsort"
    onnx = "TopK"
    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if not x.rank:
            raise ShapeError("a scalar has no order", remedy="give a value with at least one axis")
        return TensorType(i64, x.shape)

    def reference(self, x: Array) -> Array:
        if not self.descending:
            return np.argsort(x, axis=-1, kind="stable")
        # From the end to the front, ascending and stable, then reversed, is descending and stable; NaN goes last again.
        order = x.shape[-1] - 1 - np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]
        missing = np.take_along_axis(np.isnan(x) if x.dtype.kind == "f" else np.zeros_like(x, bool), order, -1)
        return np.take_along_axis(order, np.argsort(missing, axis=-1, kind="stable"), -1)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both directions, equal elements, every element type, NaN, infinities, rows of 0, 1 and odd lengths."""
        shapes = ((2, 7), (1,), (3, 1), (0, 3), (3, 0), (2, 2, 5), (17,))
        rows = [Case(cls(descending), (TensorType(f32, s),)) for s in shapes for descending in (False, True)]
        ties = np.array([[3, 1, 2, 3, 1, 2, 2], [0, 0, 0, 0, 0, 0, 0]])
        rows += [Case(cls(False), (ties.astype(dtype.numpy),)) for dtype in DType]
        rows += [Case(cls(True), (ties.astype(dtype.numpy),)) for dtype in (f32, i64)]
        special = np.array([np.nan, np.inf, 1, -np.inf, np.nan, 0.0, -0.0, np.inf, -1, np.nan], np.float32)
        return [*rows, *(Case(cls(descending), (special,), differentiable=False) for descending in (False, True))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A scalar."""
        return (BadCase(cls(False), (TensorType(f32, ()),), ShapeError, ("argsort", "scalar")),)


def argsort(x: Operand, axis: int = -1, descending: bool = False) -> Node:
    """The positions of the elements in the order of their values; equal ones keep their order, NaN comes last.

    Shapes: that of x.
    Raises: AxisError.
    Source: Array API ``argsort``.

    >>> import graphc as gx
    >>> gx.argsort(gx.placeholder("x", ("n", 5)))
    <argsort: i64[n, 5]>
    """
    node = as_node(x)
    with explaining("argsort", node):
        place = normalize_axis(axis, node.ndim)
    order = [a for a in range(node.ndim) if a != place] + [place]
    back = [order.index(a) for a in range(node.ndim)]
    return transpose(apply(ArgSort(bool(descending)), transpose(node, order)), back)


def sort(x: Operand, axis: int = -1, descending: bool = False) -> Node:
    """The elements in the order of their values; NaN comes last.

    Shapes: that of x.
    Raises: AxisError.
    Source: Array API ``sort``.

    >>> import graphc as gx
    >>> gx.sort(gx.placeholder("x", ("n", 5)), axis=0)
    <take_along: f32[n, 5]>
    """
    node = as_node(x)
    with explaining("sort", node):
        place = normalize_axis(axis, node.ndim)
    return take_along(node, argsort(node, place, descending), place)


class TopK(NamedTuple):
    """What :func:`top_k` returns: the elements, and where they stood."""

    values: Node
    indices: Node


def top_k(x: Operand, k: int | str | Dim, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest (or smallest) elements along an axis, in their order, and their positions; NaN comes last.

    Of equal elements the first come first.

    Shapes: the axis has size k.
    Raises: AxisError; ShapeError where k is larger than the axis.
    Source: https://onnx.ai/onnx/operators/onnx__TopK.html

    >>> import graphc as gx
    >>> gx.top_k(gx.placeholder("x", ("n", 10)), 3)
    TopK(values=<take_along: f32[n, 3]>, indices=<slice: i64[n, 3]>)
    """
    node = as_node(x)
    with explaining("top_k", node):
        place = normalize_axis(axis, node.ndim)
        (count,) = as_shape((k,))
        size = node.shape[place]
        if isinstance(count, int) and isinstance(size, int) and count > size:
            raise ShapeError(f"k is {count}, axis {place} has size {size}", remedy=f"give at most {size}")
        indices = take_range(argsort(node, place, descending=largest), place, 0, count)
    return TopK(take_along(node, indices, place), indices)


def searchsorted(a: Operand, v: Operand, side: str = "left") -> Node:
    """Where each of v would be put into ascending a so that it stays ascending; NaN counts as the largest.

    Shapes: a (n,); the result has the shape of v.
    Raises: ShapeError: a has not one axis; DTypeError for another side, or types that do not promote.
    Source: Array API ``searchsorted``.

    >>> import graphc as gx
    >>> gx.searchsorted(gx.placeholder("edges", (4,)), gx.placeholder("x", ("n",)))
    <where: i64[n]>
    """
    with explaining("searchsorted"):
        edges, values = as_operands(a, v)
        if edges.ndim != 1:
            raise ShapeError(f"a has {edges.ndim} axes", remedy="give values in one axis")
        if side not in ("left", "right"):
            raise DTypeError(f"side is {side!r}", remedy="give 'left' or 'right'")
    size = edges.shape[0]
    if not isinstance(size, int):
        return _rank_by_sorting(edges, values, side)
    return _rank_by_halving(edges, values, side, size)


def _rank_by_halving(edges: Node, values: Node, side: str, size: int) -> Node:
    """Binary search: ``low`` elements are known to come before; each step tests the middle of the rest."""
    from graphc.ops.compare import where

    low = full(values.shape, 0, i64)
    if not size:
        return low
    step = 1 << (size.bit_length() - 1)
    while step:
        middle = low + step
        edge = take(edges, _at_most(middle - 1, size - 1), 0)
        passed = _precedes(edge, values) if side == "left" else ~_precedes(values, edge)
        low = where(passed & (middle <= size), middle, low)
        step //= 2
    return low


def _at_most(x: Node, limit: int) -> Node:
    from graphc.ops.arithmetic import minimum as smaller

    return smaller(x, limit)


def _precedes(a: Node, b: Node) -> Node:
    """Does a stand before b in ascending order, where NaN is last?"""
    from graphc.ops.compare import isnan

    if a.dtype is DType.bool:
        return ~a & b
    return (a < b) | (~isnan(a) & isnan(b)) if a.dtype.is_float else a < b


def _rank_by_sorting(edges: Node, values: Node, side: str) -> Node:
    """The place of each value among both, less its place among the values, is how many edges come before it."""
    flat = reshape(values, (values.type.size,))
    mixed = concatenate([flat, edges] if side == "left" else [edges, flat])
    start: Size = 0 if side == "left" else edges.shape[0]
    among_both = take_range(inverse_permutation(argsort(mixed)), 0, start, start + flat.shape[0])
    return reshape(among_both - inverse_permutation(argsort(flat)), values.shape)


def inverse_permutation(order: Node) -> Node:
    """The place that each position has in an order, along the last axis."""
    axis = order.ndim - 1
    return apply(ScatterAlong(axis, order.shape[axis]), iota(order.shape, axis), order)


class Unique(NamedTuple):
    """What :func:`unique` returns; ``number`` says how many of the values there are, the rest is filled."""

    values: Node
    number: Node
    inverse: Node
    counts: Node


def unique(x: Operand, size: int | str | Dim, fill_value: Operand = 0) -> Unique:
    """The different elements in ascending order, at most ``size`` of them, and how often each occurs.

    Equal NaN are one value, as in NumPy. Behind the first ``number``, ``values`` hold ``fill_value`` and ``counts`` 0.
    Where there are more different elements than ``size``, ``number`` still says how many, and ``inverse`` is ``size``
    for those left out.

    Shapes: values and counts (size,), number (), inverse that of x.
    Raises: ShapeError; DTypeError: the fill value does not fit.
    Source: JAX ``jax.numpy.unique`` with ``size``; Array API ``unique_all``.

    >>> import graphc as gx
    >>> gx.unique(gx.placeholder("x", ("n",), "int64"), 10).values
    <where: i64[10]>
    """
    from graphc.ops.compare import where
    from graphc.ops.reduction import sum

    node = as_node(x)
    with explaining("unique", node):
        (bound,) = as_shape((size,))
        filler = as_node(fill_value, node.dtype)
    total = node.type.size
    flat = reshape(node, (total,))
    order = argsort(flat)
    ordered = take(flat, order, 0)
    first = begins_of(ordered, total)
    count = sum(cast_to(first, i64))
    begins = _places(first, count, bound + 1)
    values = where(begins[:-1] < size_of(total), _take_or_any(ordered, begins[:-1]), cast_to(filler, node.dtype))
    number = searchsorted(begins, arange(total), side="right") - 1
    inverse = reshape(apply(ScatterAlong(0, total), number, order), node.shape)
    return Unique(values, count, inverse, begins[1:] - begins[:-1])


def begins_of(ordered: Node, total: Size) -> Node:
    """Is an element other than the one before it?"""
    from graphc.ops.arithmetic import maximum as larger
    from graphc.ops.compare import isnan

    place = arange(total)
    before = take(ordered, larger(place - 1, 0), 0)
    differ = before != ordered
    if ordered.dtype.is_float:
        differ = differ & ~(isnan(before) & isnan(ordered))
    return differ | (place == 0)


def _places(flags: Node, count: Node, slots: Size) -> Node:
    """Where the flags are set, in ascending order, then the number of all flags: as many as there are slots."""
    from graphc.ops.compare import where

    total = flags.shape[0]
    some = minimum(slots, total)
    places = take_range(argsort(~flags), 0, 0, some)
    return pad(where(arange(some) < count, places, size_of(total)), (0,), (slots - some,), value=size_of(total))


def _take_or_any(x: Node, places: Node) -> Node:
    """Elements of one axis; any value for places behind its end, even of nothing."""
    padded = concatenate([x, full((1,), 0, x.dtype)])
    return take(padded, places, 0)


__all__ = ["ArgSort", "argsort", "searchsorted", "sort", "top_k", "unique"]
