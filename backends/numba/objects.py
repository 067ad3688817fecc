"""Where CPython and NumPy keep what the executor reads from objects: a tuple's items, an array's data pointer.

Asking an array for its address from Python costs a microsecond; reading it from the object costs nothing. The
offsets are tried out here on live objects; where they do not hold (another interpreter), ``LAYOUT`` is None and
addresses are asked for in Python. Besides: what native code reads as long as the process lives.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np


def _layout() -> tuple[int, int] | None:
    """Byte offsets of the first item in a tuple and of the data pointer in an array."""
    if sys.implementation.name != "cpython":
        return None
    items, data = tuple.__basicsize__, object.__basicsize__
    arrays = (np.zeros(3), np.zeros((2, 2), np.int32)[1:], np.zeros((), np.bool_), np.zeros(0, np.uint32))
    holder = (*arrays,)
    for slot, array in enumerate(holder):
        if ctypes.c_void_p.from_address(id(holder) + items + 8 * slot).value != id(array):
            return None
        if ctypes.c_void_p.from_address(id(array) + data).value != array.ctypes.data:
            return None
    return items, data


LAYOUT = _layout() if ctypes.sizeof(ctypes.c_void_p) == 8 else None


def keep(thing: object) -> None:
    """Never free this, not even when the interpreter ends.

    Daemon threads go on running native code then, and what it reads must still be there.
    """
    if sys.implementation.name == "cpython":  # others free nothing at the end
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
