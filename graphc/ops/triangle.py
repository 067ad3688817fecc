"""Diagonals and triangles of matrices: eye, tri, tril, triu, diag, diagonal, trace."""

from __future__ import annotations

from typing import Any

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, maximum, minimum
from graphc.ir.node import Node
from graphc.ir.types import as_dtype, as_shape
from graphc.ops.base import Operand, as_int, as_node, cast_to, explaining, full, normalize_axis
from graphc.ops.compare import equal, less_equal, where
from graphc.ops.create import arange, iota, size_of
from graphc.ops.indexing import take
from graphc.ops.movement import reshape, transpose
from graphc.ops.padding import pad
from graphc.ops.reduction import sum
from graphc.ops.slicing import expand_dims, getitem


def _offset(k: object) -> int:
    number = as_int(k)
    if number is None:
        raise DTypeError(f"the offset is {k!r}", remedy="give an int: 0 is the main diagonal, 1 the one above it")
    return number


def _columns_past(rows: Size, columns: Size) -> Node:
    """At each place the number of its column less that of its row."""
    return iota((rows, columns), 1) - iota((rows, columns), 0)


def eye(n: int | str | Dim, m: int | str | Dim | None = None, k: int = 0, dtype: Any = "float32") -> Node:
    """A matrix of 1 on a diagonal and 0 elsewhere.

    Shapes: (n, m), by default (n, n).
    Raises: ShapeError for a negative size; DTypeError.
    Source: Array API ``eye``.

    >>> import graphc as gx
    >>> gx.eye("n")
    <cast: f32[n, n]>
    """
    with explaining("eye"):
        rows, columns = as_shape((n, n if m is None else m))
        return cast_to(equal(_columns_past(rows, columns), _offset(k)), as_dtype(dtype))


def tri(n: int | str | Dim, m: int | str | Dim | None = None, k: int = 0, dtype: Any = "float32") -> Node:
    """A matrix of 1 on and below a diagonal and 0 above it; with ``dtype="bool"`` a causal mask.

    Shapes: (n, m), by default (n, n).
    Raises: ShapeError for a negative size; DTypeError.
    Source: NumPy ``tri``.

    >>> import graphc as gx
    >>> gx.tri("n", dtype="bool")
    <less_equal: bool[n, n]>
    """
    with explaining("tri"):
        rows, columns = as_shape((n, n if m is None else m))
        return cast_to(less_equal(_columns_past(rows, columns), _offset(k)), as_dtype(dtype))


def tril(x: Operand, k: int = 0) -> Node:
    """The matrices in the last two axes with 0 above a diagonal.

    Shapes: that of x, with at least two axes.
    Raises: ShapeError; DTypeError.
    Source: Array API ``tril``.

    >>> import graphc as gx
    >>> gx.tril(gx.placeholder("x", ("batch", "n", "n")))
    <where: f32[batch, n, n]>
    """
    node = as_node(x)
    with explaining("tril", node):
        rows, columns = _matrices(node)
        below = less_equal(_columns_past(rows, columns), _offset(k))
        return where(below, node, full((), 0, node.dtype))


def triu(x: Operand, k: int = 0) -> Node:
    """The matrices in the last two axes with 0 below a diagonal.

    Shapes: that of x, with at least two axes.
    Raises: ShapeError; DTypeError.
    Source: Array API ``triu``.

    >>> import graphc as gx
    >>> gx.triu(gx.placeholder("x", (3, 4)), k=1)
    <where: f32[3, 4]>
    """
    node = as_node(x)
    with explaining("triu", node):
        rows, columns = _matrices(node)
        below = less_equal(_columns_past(rows, columns), _offset(k) - 1)
        return where(below, full((), 0, node.dtype), node)


def _matrices(x: Node) -> tuple[Size, Size]:
    if x.ndim < 2:
        raise ShapeError(f"{x.type} holds no matrices", remedy="give a value with at least two axes")
    return x.shape[-2], x.shape[-1]


def diagonal(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
    """The elements on a diagonal of two axes, in a new last axis.

    Shapes: the other axes of x, then the length of the diagonal.
    Raises: AxisError: an axis does not exist, or is given twice; DTypeError.
    Source: NumPy ``diagonal``.

    >>> import graphc as gx
    >>> gx.diagonal(gx.placeholder("x", ("n", 3, 3)), axis1=1, axis2=2)
    <slice: f32[n, 3]>
    """
    node = as_node(x)
    with explaining("diagonal", node):
        first, second, k = normalize_axis(axis1, node.ndim), normalize_axis(axis2, node.ndim), _offset(offset)
        if first == second:
            raise AxisError(f"axis {first} is given twice", remedy="name two different axes")
    rest = [axis for axis in range(node.ndim) if axis not in (first, second)]
    moved = transpose(node, [*rest, first, second])
    rows, columns = moved.shape[-2:]
    length = maximum(minimum(rows + min(k, 0), columns - max(k, 0)), 0)
    flat = reshape(moved, (*moved.shape[:-2], rows * columns))
    start: Size = k if k >= 0 else -k * columns
    if isinstance(columns, int) and isinstance(length, int):
        end = start + (length - 1) * (columns + 1) + 1
        return getitem(flat, (..., slice(start, end, columns + 1) if length else slice(0)))
    return take(flat, arange(length) * size_of(columns + 1) + size_of(start), axis=flat.ndim - 1)


def diag(v: Operand, k: int = 0) -> Node:
    """A matrix with v on a diagonal and 0 elsewhere; of a matrix, its diagonal.

    Shapes: (n,) becomes (n + abs(k), n + abs(k)); of a matrix one axis.
    Raises: ShapeError for other numbers of axes; DTypeError.
    Source: NumPy ``diag``.

    >>> import graphc as gx
    >>> gx.diag(gx.placeholder("v", ("n",)))
    <where: f32[n, n]>
    """
    node = as_node(v)
    with explaining("diag", node):
        offset = _offset(k)
        if node.ndim not in (1, 2):
            raise ShapeError(f"{node.type} is neither a vector nor a matrix", remedy="gx.diagonal takes more axes")
    if node.ndim == 2:
        return diagonal(node, offset)
    size = node.shape[0] + abs(offset)
    along = pad(node, (0,), (abs(offset),))  # by rows above the main diagonal, by columns below it
    on = equal(_columns_past(size, size), offset)
    return where(on, expand_dims(along, 1 if offset >= 0 else 0), full((), 0, node.dtype))


def trace(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Node:
    """The sum of a diagonal of two axes.

    Shapes: the other axes of x.
    Raises: AxisError; DTypeError for bool.
    Source: NumPy ``trace``.

    >>> import graphc as gx
    >>> gx.trace(gx.placeholder("x", ("n", "n")))
    <sum: f32[]>
    """
    return sum(diagonal(x, offset, axis1, axis2), axis=-1)


__all__ = ["diag", "diagonal", "eye", "trace", "tri", "tril", "triu"]
