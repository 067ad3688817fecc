"""Indexing by arrays, ``x[i, :, j]``: NumPy's advanced indexing, made of slices, one reshape and one take.

Arrays that index several axes become positions in these axes merged into one; each is held to its own axis while the
program runs. Masks must be known beforehand, because the number of elements that they choose is a size.
"""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size, product
from graphc.ir.node import Node, constant
from graphc.ir.types import DType, Shape, broadcast_shapes
from graphc.ops.base import Array, as_int, as_node, cast_to
from graphc.ops.checked import in_range
from graphc.ops.create import size_of
from graphc.ops.indexing import take
from graphc.ops.movement import broadcast_to, reshape, transpose

i64 = DType.int64


def is_array(item: Any) -> TypeGuard[Node | Array | list[Any]]:
    """Does an item of an index choose by an array?"""
    return isinstance(item, Node | np.ndarray | list)


def without_masks(items: tuple[Any, ...], shape: Shape) -> tuple[Any, ...]:
    """The items with lists as arrays, and each mask as the positions at which it is true, one array for each axis.

    Raises:
        DTypeError: a mask is computed, an array holds no integers.
        ShapeError: a mask has another shape than the axes that it stands for.
    """
    found: list[Any] = []
    ellipsis = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    behind = sum(_axes_of(item) for item in items[ellipsis:])
    axis = 0
    for item in items:
        if item is Ellipsis:
            axis = len(shape) - behind
        elif not is_array(item):
            found_axes = _axes_of(item)
            axis += found_axes
        else:
            arrays = _positions(item, shape, axis)
            axis += len(arrays)
            found.extend(arrays)
            continue
        found.append(item)
    return tuple(found)


def _axes_of(item: Any) -> int:
    """How many axes of the operand an item takes."""
    if item is None or item is Ellipsis:
        return 0
    if is_array(item) and not isinstance(item, Node):
        array = np.asarray(item)
        return array.ndim if array.dtype == bool else 1
    return 1


def _positions(item: Node | Array | list[Any], shape: Shape, axis: int) -> list[Node | Array]:
    if isinstance(item, Node):
        if not item.dtype.is_integer:
            raise _refuse(item.dtype)
        return [item]
    array = np.asarray(item, np.int64) if isinstance(item, list) and not item else np.asarray(item)
    if array.dtype != bool:
        if array.dtype.kind not in "iu":
            raise _refuse(as_node(array).dtype)
        return [array]
    covered = shape[axis : axis + array.ndim]
    if not array.ndim or covered != array.shape:
        raise ShapeError(
            f"a mask of shape {array.shape} does not fit the axes {covered} from axis {axis} on",
            remedy="give a mask of their shape, which must be known",
        )
    return list(np.nonzero(array))


def _refuse(dtype: DType) -> DTypeError:
    if dtype is DType.bool:
        return DTypeError(
            "an array index is bool and computed: how many elements it chooses is not known beforehand",
            remedy="choose with gx.where, or give the mask as a NumPy array",
        )
    return DTypeError(f"an array index is {dtype}", remedy="cast the index: gx.cast(i, 'int64')")


def take_arrays(x: Node, chosen: dict[int, Any], together: bool) -> Node:
    """The elements at the positions that ``chosen`` gives for some axes of x, as arrays that broadcast, or ints.

    ``together``: the items stand side by side in the index, so that the axes of their positions come where they stand;
    otherwise these axes come first.

    Raises:
        AxisError: a position that is known now lies outside its axis.
    """
    axes = sorted(chosen)
    rest = [axis for axis in range(x.ndim) if axis not in chosen]
    at = axes[0] if together else 0
    x = transpose(x, (*rest[:at], *axes, *rest[at:]))
    sizes = x.shape[at : at + len(axes)]
    single = len(axes) == 1
    places = [_place(chosen[axis], size, axis, single) for axis, size in zip(axes, sizes, strict=True)]
    if single:
        return take(x, places[0], at)
    shape = broadcast_shapes(*(place.shape for place in places))
    position: Node | None = None
    for place, size in zip(places, sizes, strict=True):
        position = place if position is None else position * size_of(size) + place
    assert position is not None
    merged = reshape(x, (*x.shape[:at], product(sizes), *x.shape[at + len(axes) :]))
    return take(merged, broadcast_to(position, shape), at)


def _place(item: Any, size: Size, axis: int, single: bool) -> Node:
    """Positions along one axis, counted from the front where they are known now, else checked when the program runs."""
    if isinstance(item, Node):  # take checks a single one itself
        return item if single else cast_to(in_range(item, size), i64)
    places = np.asarray(item, np.int64)
    if isinstance(size, int):
        wrong = places[(places < -size) | (places >= size)]
        if wrong.size:
            allowed = f"{-size} to {size - 1} are" if size else "none is"
            raise AxisError(f"index {wrong.flat[0]} is outside axis {axis} of size {size}", remedy=f"{allowed} allowed")
        return constant(np.where(places < 0, places + size, places))
    if (places >= 0).all():
        counted = constant(places)
    else:
        counted = constant(places) + constant((places < 0).astype(np.int64)) * size_of(size)
    return counted if single else in_range(counted, size)


def split_index(items: list[Any]) -> tuple[list[Any], dict[int, Any]]:
    """An index without Ellipsis as one of slices and None alone, and what stood at the axes of that one's result."""
    simple: list[Any] = []
    chosen: dict[int, Any] = {}
    for item in items:
        if is_array(item) or as_int(item) is not None:
            chosen[len(simple)] = item
            simple.append(slice(None))
        else:
            simple.append(cast("object", item))
    return simple, chosen


def stand_together(items: tuple[Any, ...]) -> bool:
    """Do all arrays and ints of an index follow each other? An Ellipsis parts them even where it covers no axis."""
    places = [i for i, item in enumerate(items) if is_array(item) or as_int(item) is not None]
    return places[-1] - places[0] + 1 == len(places)


__all__: list[str] = []
