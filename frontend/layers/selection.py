"""Layers by pattern, and which of them are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from graphc.errors import AxisError, NameClashError
from graphc.frontend.config import suggestion, user_line

if TYPE_CHECKING:
    from graphc.frontend.layers.weights import WeightHolder

Place = tuple["WeightHolder", ...]
"""A layer and those around it, outermost first."""


def matches(pattern: str, path: str) -> bool:
    """Does a pattern mean the layer at this path, or a layer around it?

    Args:
        pattern: a name, or several joined by ``/``; ``*``, ``?`` and ``[...]`` stand for any text, any character, one
            of some.
        path: names from the outermost layer down.

    >>> matches("conv*", "base/conv_1"), matches("base", "base/conv_1"), matches("base/d*", "base/conv_1")
    (True, True, False)
    """
    names = path.split("/")
    length = pattern.count("/") + 1
    ends = range(1, len(names) + 1)
    if length == 1:
        return any(fnmatchcase(name, pattern) for name in names)
    return any(fnmatchcase("/".join(names[start:end]), pattern) for end in ends for start in range(end - length + 1))


def places(holder: WeightHolder) -> Iterator[Place]:
    """Every layer below this one with those around it, outer ones first; a shared layer once for each place."""
    stack: list[Place] = [(layer,) for layer in reversed(holder.sublayers)]
    while stack:
        place = stack.pop()
        yield place
        stack.extend((*place, layer) for layer in reversed(place[-1].sublayers))


def path_of(place: Place) -> str:
    """The names of a place."""
    return "/".join(layer.name for layer in place)


def select(holder: WeightHolder, which: Sequence[Any]) -> list[Place]:
    """The places of layers below this one that are given as layers, or as patterns of names.

    Raises:
        NameClashError: a layer does not belong to this one, or a pattern means none.
    """
    known = list(places(holder))
    found: list[Place] = []
    for one in which:
        if isinstance(one, str):
            hits = [place for place in known if matches(one, path_of(place))]
            hits = [place for place in hits if not any(place[:end] in hits for end in range(1, len(place)))]
        else:
            hits = [place for place in known if place[-1] is one]
        if not hits:
            shown = one if isinstance(one, str) else getattr(one, "name", one)
            names = [path_of(place) for place in known]
            raise NameClashError(
                f"{holder.name!r} has no layer {shown!r}",
                at=user_line(),
                remedy=f"{suggestion(str(shown), names)}its layers are {', '.join(names[:20]) or 'none yet'}"
                + (", ..." if len(names) > 20 else ""),
            )
        found.extend(hits)
    return found


def split_before_last(holder: WeightHolder, count: int) -> tuple[list[WeightHolder], list[WeightHolder]]:
    """The layers with weights right below this one: all but the last so many, and these.

    Raises:
        AxisError: there are not so many.
    """
    weighty = [layer for layer in holder.sublayers if layer.weights]
    if not 0 <= count <= len(weighty):
        raise AxisError(
            f"{holder.name!r} has {len(weighty)} layers with weights, so not {count} of them are the last",
            at=user_line(),
            remedy=f"give a number from 0 to {len(weighty)}",
        )
    cut = len(weighty) - count
    return weighty[:cut], weighty[cut:]
