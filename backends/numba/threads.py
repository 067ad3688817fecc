"""How many threads share a launch, and the OpenMP run time that starts them.

The threads are those of libgomp, called by address. Where it is absent (macOS, Windows, musl) everything runs on
one thread, with the same results to the bit.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from functools import cache

MOST_THREADS = 64


@cache
def gomp() -> ctypes.CDLL | None:
    """libgomp, or None."""
    try:
        return ctypes.CDLL("libgomp.so.1")
    except OSError:
        return None


def address(symbol: str) -> int:
    """The address of a function of libgomp; 0 where it is absent."""
    library = gomp()
    return 0 if library is None else ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0


def _available() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# one int64 that the executor reads at the start of each step
_count = array("q", [min(_available(), MOST_THREADS) if gomp() is not None else 1])
_forked = False


def count_address() -> int:
    """The address of the number of threads."""
    return _count.buffer_info()[0]


def get_threads() -> int:
    """The number of threads that kernels run on."""
    return _count[0]


def set_threads(count: int) -> None:
    """Run kernels on this many threads. Results do not depend on it, to the bit.

    One thread stays one where libgomp is absent, and in a forked child, where libgomp would hang.

    Raises:
        ValueError: the count is below 1.
    """
    if count < 1:
        raise ValueError(f"at least one thread is needed, not {count}")
    _count[0] = 1 if gomp() is None or _forked else min(count, MOST_THREADS)


def _after_fork() -> None:
    global _forked
    _forked = True
    _count[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
