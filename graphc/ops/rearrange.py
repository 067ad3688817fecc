"""Rearranging whole axes and parts: split, stack, tile, repeat, roll, moved axes. Compositions of movement.

Names and meaning are those of NumPy and the Array API standard.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, product, split_multiple
from graphc.ir.node import Node
from graphc.ir.types import as_shape
from graphc.ops.base import Axis, Operand, as_int, as_node, as_operands, explaining, normalize_axes, normalize_axis
from graphc.ops.create import ShapeLike, arange, size_of
from graphc.ops.indexing import take
from graphc.ops.movement import broadcast_to, concatenate, reshape, transpose
from graphc.ops.slicing import expand_dims, getitem, take_range


def split(x: Operand, sections: int | Sequence[int | Dim], axis: int = 0) -> list[Node]:
    """Parts of an axis: so many equal ones, or those between the given places.

    Places count as in slices: from the end where negative, and cut to the axis.

    Shapes: each part has the other sizes of x.
    Raises: AxisError; ShapeError where the axis does not divide into equal parts.
    Source: NumPy ``split``.

    >>> import graphc as gx
    >>> gx.split(gx.placeholder("x", ("n", 6)), 2, axis=1)
    [<slice: f32[n, 3]>, <slice: f32[n, 3]>]
    >>> gx.split(gx.placeholder("x", ("n", 6)), [1, 3], axis=1)
    [<slice: f32[n, 1]>, <slice: f32[n, 2]>, <slice: f32[n, 3]>]
    """
    node = as_node(x)
    with explaining("split", node):
        place = normalize_axis(axis, node.ndim)
        size, count = node.shape[place], as_int(sections)
        if count is not None:
            each, rest = split_multiple(size, count) if count > 0 else (0, 1)
            if rest != 0:
                raise ShapeError(
                    f"axis {place} of size {size} does not divide into {count} equal parts",
                    remedy="give the places at which to split: split(x, [2, 5])",
                )
            return [take_range(node, place, each * i, each * (i + 1)) for i in range(count)]
        if not isinstance(sections, list | tuple | np.ndarray):
            raise DTypeError(f"sections are {sections!r}", remedy="give a number of parts, or a list of places")
        cuts = [None, *cast("Sequence[Any]", sections), None]
        before = (slice(None),) * place
        return [getitem(node, (*before, slice(a, b))) for a, b in itertools.pairwise(cuts)]


def unstack(x: Operand, axis: int = 0) -> list[Node]:
    """What stands along an axis, one value each: the opposite of ``stack``.

    Shapes: each has the other sizes of x; the axis must be of known size.
    Raises: AxisError; ShapeError for an axis of symbolic size.
    Source: Array API ``unstack``.

    >>> import graphc as gx
    >>> gx.unstack(gx.placeholder("x", ("n", 2)), axis=1)
    [<reshape: f32[n]>, <reshape: f32[n]>]
    """
    node = as_node(x)
    with explaining("unstack", node):
        place = normalize_axis(axis, node.ndim)
        size = node.shape[place]
        if not isinstance(size, int):
            raise ShapeError(f"axis {place} has size {size}", remedy="unstack an axis whose size is a number")
    return [getitem(node, (*(slice(None),) * place, i)) for i in range(size)]


def stack(parts: Sequence[Operand], axis: int = 0) -> Node:
    """Values of one shape joined along a new axis.

    Shapes: all of one shape; the new axis has as many elements as there are values.
    Raises: AxisError; ShapeError; DTypeError for a mix that does not promote.
    Source: Array API ``stack``.

    >>> import graphc as gx
    >>> gx.stack([gx.placeholder("x", ("n",)), gx.placeholder("y", ("n",))], axis=1)
    <concatenate: f32[n, 2]>
    """
    with explaining("stack"):
        if not isinstance(parts, list | tuple):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DTypeError(f"{type(parts).__name__} is not a list of values", remedy="write stack([x, y])")
        nodes = as_operands(*parts)
        if not nodes:
            raise ShapeError("there is nothing to join", remedy="give at least one value")
        for node in nodes:
            if node.shape != nodes[0].shape:
                raise ShapeError(f"{nodes[0].type} and {node.type} differ", remedy="give values of one shape")
        place = normalize_axis(axis, nodes[0].ndim + 1)
    return concatenate([expand_dims(node, place) for node in nodes], axis=place)


def swapaxes(x: Operand, axis1: int, axis2: int) -> Node:
    """Two axes in each other's place.

    Shapes: the two sizes are exchanged.
    Raises: AxisError.
    Source: NumPy ``swapaxes``.

    >>> import graphc as gx
    >>> gx.swapaxes(gx.placeholder("x", ("n", 4, 3)), 0, -1)
    <transpose: f32[3, 4, n]>
    """
    node = as_node(x)
    with explaining("swapaxes", node):
        first, second = normalize_axis(axis1, node.ndim), normalize_axis(axis2, node.ndim)
    order = list(range(node.ndim))
    order[first], order[second] = second, first
    return transpose(node, order)


def moveaxis(x: Operand, source: int | Sequence[int], destination: int | Sequence[int]) -> Node:
    """Axes in other places; the others keep their order.

    Shapes: the sizes move with the axes.
    Raises: AxisError; ShapeError for a different number of sources and destinations.
    Source: Array API ``moveaxis``.

    >>> import graphc as gx
    >>> gx.moveaxis(gx.placeholder("x", ("n", 4, 3)), 0, -1)
    <transpose: f32[4, 3, n]>
    """
    node = as_node(x)
    with explaining("moveaxis", node):
        origins, targets = _axes(source, node.ndim), _axes(destination, node.ndim)
        if len(origins) != len(targets):
            raise ShapeError(f"{len(origins)} axes cannot move to {len(targets)} places", remedy="give as many of each")
    order = [axis for axis in range(node.ndim) if axis not in origins]
    for target, origin in sorted(zip(targets, origins, strict=True)):
        order.insert(target, origin)
    return transpose(node, order)


def _axes(given: int | Sequence[int], rank: int) -> list[int]:
    """Axes in the order in which they are given.

    Raises:
        AxisError: one does not exist or stands twice.
    """
    items = _as_list(given)
    normalize_axes(tuple(items), rank)
    return [normalize_axis(axis, rank) for axis in items]


def _as_list(given: Any) -> list[Any]:
    return list(cast("Sequence[Any]", given)) if isinstance(given, list | tuple) else [given]


def expand(x: Operand, shape: ShapeLike) -> Node:
    """Repeated along axes of size 1 and new leading axes, as ``broadcast_to``; -1 keeps the size that there is.

    Shapes: x broadcasts to shape.
    Raises: ShapeError where it does not.
    Source: https://onnx.ai/onnx/operators/onnx__Expand.html

    >>> import graphc as gx
    >>> gx.expand(gx.placeholder("x", ("n", 1)), (-1, 5))
    <broadcast_to: f32[n, 5]>
    """
    node = as_node(x)
    with explaining("expand", node):
        given = _as_list(shape)
        extra = len(given) - node.ndim
        for axis, size in enumerate(given):
            if as_int(size) == -1:
                if axis < extra:
                    raise ShapeError(f"axis {axis} is new and has no size to keep", remedy="give its size")
                given[axis] = node.shape[axis - extra]
        return broadcast_to(node, given)


def tile(x: Operand, repetitions: int | Dim | Sequence[int | str | Dim]) -> Node:
    """The whole of x repeated along its axes, the last count for the last axis.

    Shapes: each size times its count; missing counts are 1, missing axes are new.
    Raises: ShapeError for a negative count.
    Source: NumPy ``tile``.

    >>> import graphc as gx
    >>> gx.tile(gx.placeholder("x", ("n", 3)), (2, 1, 4))
    <reshape: f32[2, n, 12]>
    """
    node = as_node(x)
    with explaining("tile", node):
        given = as_shape(_as_list(repetitions))
    rank = max(node.ndim, len(given))
    counts = (1,) * (rank - len(given)) + given
    sizes = (1,) * (rank - node.ndim) + node.shape
    single = tuple(part for size in sizes for part in (1, size))
    repeated = tuple(part for pair in zip(counts, sizes, strict=True) for part in pair)
    whole = tuple(count * size for count, size in zip(counts, sizes, strict=True))
    return reshape(broadcast_to(reshape(node, single), repeated), whole)


def repeat(x: Operand, repeats: int | str | Dim | Sequence[int], axis: int | None = None) -> Node:
    """Each element repeated, ``repeats`` times, or as often as its own count says; None: of the flattened x.

    Shapes: the axis grows to the sum of the counts.
    Raises: AxisError; ShapeError for negative counts, or other than one for each element of an axis of known size.
    Source: NumPy ``repeat``.

    >>> import graphc as gx
    >>> gx.repeat(gx.placeholder("x", ("n", 3)), 2, axis=0)
    <reshape: f32[2*n, 3]>
    """
    node = as_node(x)
    with explaining("repeat", node):
        if axis is None:
            node, axis = reshape(node, (product(node.shape),)), 0
        place = normalize_axis(axis, node.ndim)
        if isinstance(repeats, list | tuple | np.ndarray):
            return take(node, _repeated(np.asarray(repeats), node.shape[place], place), place)
        (count,) = as_shape((repeats,))
    shape = node.shape
    wide = broadcast_to(expand_dims(node, place + 1), (*shape[: place + 1], count, *shape[place + 1 :]))
    return reshape(wide, (*shape[:place], shape[place] * count, *shape[place + 1 :]))


def _repeated(counts: np.ndarray[Any, Any], size: Size, axis: int) -> Any:
    if counts.dtype.kind not in "iu" or counts.ndim != 1 or counts.shape != (size,) or (counts < 0).any():
        raise ShapeError(
            f"the counts are {counts.tolist()}, axis {axis} has size {size}",
            remedy="give a count of 0 or more for each element; the size of the axis must be a number",
        )
    return np.repeat(np.arange(counts.size), counts)


def roll(x: Operand, shift: int | Sequence[int], axis: Axis = None) -> Node:
    """Elements moved along axes; those that leave at the end come in at the front. None: of the flattened x.

    Shapes: that of x.
    Raises: AxisError; ShapeError for other than one shift for each axis.
    Source: Array API ``roll``.

    >>> import graphc as gx
    >>> gx.roll(gx.placeholder("x", ("n", 3)), 1, axis=1)
    <concatenate: f32[n, 3]>
    """
    node = as_node(x)
    with explaining("roll", node):
        shifts = _as_list(shift)
        if any(as_int(number) is None for number in shifts):
            raise DTypeError(f"the shift is {shift!r}", remedy="give ints")
        if axis is None:
            flat = reshape(node, (product(node.shape),))
            return reshape(_roll_axis(flat, sum(map(int, shifts)), 0), node.shape)
        axes = _as_list(axis)
        if 1 not in (len(shifts), len(axes)) and len(shifts) != len(axes):
            raise ShapeError(f"{len(shifts)} shifts for {len(axes)} axes", remedy="give one for each axis")
        count = max(len(shifts), len(axes))
        places = [normalize_axis(place, node.ndim) for place in axes * (count // len(axes))]
        for place, number in zip(places, shifts * (count // len(shifts)), strict=True):
            node = _roll_axis(node, int(number), place)
        return node


def _roll_axis(x: Node, shift: int, axis: int) -> Node:
    size = x.shape[axis]
    if isinstance(size, int):
        cut = -shift % size if size else 0
        if not cut:
            return x
        return concatenate([take_range(x, axis, cut, size), take_range(x, axis, 0, cut)], axis)
    if not shift:
        return x
    from graphc.ops.division import remainder

    return take(x, remainder(arange(size) - shift, size_of(size)), axis)


def meshgrid(*axes: Operand, indexing: str = "xy") -> list[Node]:
    """Coordinates of a grid: each vector along its own axis, repeated along the others.

    Shapes: with "ij" (n1, n2, ...), with "xy" the first two are exchanged.
    Raises: ShapeError for operands that are no vectors; DTypeError for another indexing, or types that do not promote.
    Source: Array API ``meshgrid``.

    >>> import graphc as gx
    >>> gx.meshgrid(gx.placeholder("x", ("n",)), gx.placeholder("y", (3,)))
    [<broadcast_to: f32[3, n]>, <broadcast_to: f32[3, n]>]
    """
    with explaining("meshgrid"):
        nodes = as_operands(*axes) if axes else ()
        if indexing not in ("xy", "ij"):
            raise DTypeError(f"indexing is {indexing!r}", remedy="give 'xy' or 'ij'")
        for node in nodes:
            if node.ndim > 1:
                raise ShapeError(f"{node.type} is no vector", remedy="give values of one axis")
    order = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        order[:2] = 1, 0
    sizes = [product(node.shape) for node in nodes]
    shape = tuple(sizes[i] for i in order)
    columns = [tuple(size if j == i else 1 for j in order) for i, size in enumerate(sizes)]
    return [broadcast_to(reshape(node, column), shape) for node, column in zip(nodes, columns, strict=True)]


__all__ = [
    "expand", "meshgrid", "moveaxis", "repeat", "roll", "split", "stack", "swapaxes", "tile", "unstack",
]  # fmt: skip
