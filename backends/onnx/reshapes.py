"""How axes go through a reshape, and which transposes are reshapes, since they move axes of one element only."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Sizes = tuple[int | None, ...]
Block = tuple[tuple[int, ...], tuple[int, ...]]


def resolved(before: Sizes, after: Sequence[int]) -> Sizes | None:
    """What a reshape to these sizes makes of a shape, where a 0 keeps an axis and -1 is what is left.

    Of the sizes one at most may be unknown; None if there are more, or none of any elements.
    """
    sizes = [before[axis] if size == 0 and axis < len(before) else size for axis, size in enumerate(after)]
    known = [size for size in before if size is not None]
    if 0 in known or 0 in sizes or len(before) - len(known) > 1:
        return None
    if -1 in sizes:
        rest = prod(size for size in sizes if size not in (-1, None))
        left = prod(known) // rest if len(known) == len(before) and None not in sizes else None
        sizes[sizes.index(-1)] = left
    return tuple(sizes) if sizes.count(None) <= 1 else None


def blocks(before: Sizes, after: Sizes) -> list[Block] | None:
    """Which axes become which: runs of axes, as short as can be, that have the same elements before and after.

    An axis of one element that only one side has belongs to the axes before it, as the gradients of strides put it.
    """
    shapes = (before, after)
    found: list[Block] = []
    places = [0, 0]
    while any(place < len(shape) for place, shape in zip(places, shapes, strict=True)):
        starts = tuple(places)
        places = [place + 1 for place in places]
        while True:
            if any(place > len(shape) for place, shape in zip(places, shapes, strict=True)):
                return None
            (left, left_open), (right, right_open) = (
                _elements(shape[start:place]) for shape, start, place in zip(shapes, starts, places, strict=True)
            )
            if left == right and left_open == right_open:
                break
            places[int(right_open < left_open if left_open != right_open else right < left)] += 1
        while sum(ones := [shape[place : place + 1] == (1,) for shape, place in zip(shapes, places, strict=True)]) == 1:
            places[ones.index(True)] += 1
        found.append((tuple(range(starts[0], places[0])), tuple(range(starts[1], places[1]))))
    return found


def moves_nothing(shape: Sizes, perm: Sequence[int]) -> bool:
    """Does a transpose leave all elements in their order, so that a reshape to constant sizes does the same?"""
    long = [axis for axis in perm if shape[axis] != 1]
    return long == sorted(long) and 0 not in shape and sum(size is None for size in shape) <= 1


def _elements(sizes: Sizes) -> tuple[int, int]:
    """The product of the known sizes, and how many are unknown."""
    return prod(size for size in sizes if size is not None), sum(size is None for size in sizes)
