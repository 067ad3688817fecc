"""Large results in memory that a program has given out before, once nobody holds it any more.

Memory that comes fresh from the system is mapped page by page as a step first writes it: for 64 MiB that can take
longer than computing them does. So a program remembers the last large arrays that it has given out, and gives them out
again as soon as it is the only one who holds them. Views, memory views and other libraries' tensors hold the array that
they show, so they keep it from being given out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE_BYTES = 1 << 22
"""Smaller arrays are new each time: NumPy keeps small memory by itself."""
MOST = 4
"""Arrays that are remembered."""


class Recycled:
    """The large arrays that were given out last."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array with any contents that nobody else holds.

        >>> import numpy as np
        >>> made = Recycled()
        >>> first = made.empty((2000, 1000), np.dtype("float32"))
        >>> address, view = first.ctypes.data, first[5:]
        >>> del first
        >>> made.empty((2000, 1000), np.dtype("float32")).ctypes.data == address
        False
        >>> del view
        >>> made.empty((2000, 1000), np.dtype("float32")).ctypes.data == address
        True
        """
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        if nbytes < LARGE_BYTES:
            return np.empty(shape, dtype)
        for _ in range(len(self._arrays)):
            try:
                array = self._arrays.pop(0)  # no other thread has it now
            except IndexError:
                break
            if array.shape == shape and array.dtype == dtype and array.flags.carray and sys.getrefcount(array) == ALONE:
                self._remember(array)
                return array
            self._remember(array)
        array = np.empty(shape, dtype)
        self._remember(array)
        return array

    def _remember(self, array: NDArray[Any]) -> None:
        self._arrays.append(array)
        while len(self._arrays) > MOST:
            self._arrays.pop(0)


def _count_alone() -> int:
    """What the interpreter counts for an array that one local variable holds."""
    array = np.empty(0)
    return sys.getrefcount(array)


ALONE = _count_alone()
