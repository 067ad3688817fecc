"""Structures of tensors: a leaf, or lists, tuples and dicts of structures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def leaves(structure: Any) -> list[Any]:
    """The leaves of a structure, left to right.

    >>> leaves({"a": 1, "b": [2, (3,)]})
    [1, 2, 3]
    """
    return list(_walk(structure))


def _walk(structure: Any) -> Iterator[Any]:
    if isinstance(structure, dict):
        items: Iterable[Any] = structure.values()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    elif isinstance(structure, list | tuple):
        items = structure  # pyright: ignore[reportUnknownVariableType]
    else:
        yield structure
        return
    for item in items:  # pyright: ignore[reportUnknownVariableType]
        yield from _walk(item)


def map_leaves(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure with the function applied to each leaf.

    >>> map_leaves(lambda n: n + 1, {"a": 1, "b": [2, (3,)]})
    {'a': 2, 'b': [3, (4,)]}
    """
    if isinstance(structure, dict):
        return {key: map_leaves(function, item) for key, item in structure.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(structure, list):
        return [map_leaves(function, item) for item in structure]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(structure, tuple):
        mapped = tuple(map_leaves(function, item) for item in structure)  # pyright: ignore[reportUnknownVariableType]
        return type(structure)(*mapped) if hasattr(structure, "_fields") else mapped  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return function(structure)


def pack(structure: Any, flat: Iterable[Any]) -> Any:
    """The structure with its leaves replaced, left to right.

    >>> pack({"a": 1, "b": [2, 3]}, "xyz")
    {'a': 'x', 'b': ['y', 'z']}
    """
    items = iter(flat)
    return map_leaves(lambda _: next(items), structure)
