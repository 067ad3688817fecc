"""Where in the user's program a node was made.

The location of a node is the innermost frame outside graphc's own folders. Passes and derivatives build nodes on
behalf of others: inside ``with at(node.loc)`` new nodes take that node's location instead.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
import time
from dataclasses import dataclass
from types import CodeType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOTS = tuple(
    folder + os.sep
    for name in ("", "backends", "frontend")
    for folder in {os.path.join(_PACKAGE, name), os.path.realpath(os.path.join(_PACKAGE, name))}
)
_is_ours: dict[CodeType, bool] = {}

LOADED_NS = time.time_ns()
"""When this process began to load the compiler."""


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's program. Prints as ``model.py:41   h = norm(x)``."""

    file: str
    line: int

    @property
    def text(self) -> str:
        """The source line, stripped; empty if the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def short(self) -> str:
        """``file:line``, the file relative to the working directory where it lies below it."""
        try:
            path = os.path.relpath(self.file)
        except ValueError:  # another drive on Windows
            path = self.file
        if path.startswith(".."):
            path = self.file
        return f"{path}:{self.line}"

    def __str__(self) -> str:
        text = self.text
        return f"{self.short}   {text}" if text else self.short


class _Override(threading.local):
    location: Location | None = None


_override = _Override()


def here() -> Location | None:
    """The user's line that is being executed, or the one set by :func:`at`."""
    if _override.location is not None:
        return _override.location
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        code = frame.f_code
        ours = _is_ours.get(code)
        if ours is None:
            ours = _is_ours[code] = code.co_filename.startswith((*_ROOTS, "<frozen"))
        if not ours:
            return Location(code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def user_line() -> str | None:
    """The user's current line as text, for errors: ``model.py:41   h = norm(x)``."""
    place = here()
    return None if place is None else str(place)


class at:
    """Nodes built inside have this location (None: the user's current line)."""

    __slots__ = ("_before", "_location")

    def __init__(self, location: Location | None) -> None:
        self._location = location

    def __enter__(self) -> None:
        self._before = _override.location
        _override.location = self._location

    def __exit__(self, *_: object) -> None:
        _override.location = self._before
