"""The threads that share a launch: how many, and the pool of workers that the executor opens jobs for.

Workers are threads of this process that run native code (``serve`` in ``native.py``) and never hold the
interpreter's lock there. A job is a launch; who comes late finds it closed, and nobody waits for a worker that the
system does not let run: on a busy machine a step costs what it costs on one thread. (OpenMP's threads all have to
meet after each launch. With one other busy process on two CPUs that made the steps of a small network three to
twenty times slower than on one thread.) Between jobs workers spin for about a tenth of a millisecond, then sleep.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
from array import array
from collections.abc import Callable

from graphc.backends.numba.objects import keep
from graphc.backends.numba.table import (
    POOL_READ,
    POOL_READ_END,
    POOL_SLEEPERS,
    POOL_SPINS,
    POOL_STOPPING,
    POOL_WORDS,
    POOL_WRITE,
    POOL_WRITE_END,
    POOL_YIELD,
)

MOST_THREADS = 64
SPINS = 5000
SERVE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


def _c_library() -> ctypes.CDLL | None:
    """The C library with the calls that workers sleep and wake by; None where there is no such one (Windows)."""
    try:
        library = ctypes.CDLL(None)
        return library if all(hasattr(library, name) for name in ("read", "write", "sched_yield")) else None
    except (OSError, TypeError):
        return None


C_LIBRARY = _c_library()


def _available() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


CORES = _available()
"""How many there are for this process, whatever part of them is used."""
# one int64 that the executor reads at the start of each step
_count = array("q", [min(CORES, MOST_THREADS) if C_LIBRARY is not None else 1])
keep(_count)
_forked = False


def count_address() -> int:
    """The address of the number of threads."""
    return _count.buffer_info()[0]


def get_threads() -> int:
    """The number of threads that kernels run on."""
    return _count[0]


def set_threads(count: int) -> None:
    """Run kernels on this many threads. Results do not depend on it, to the bit.

    One thread stays one where threads of this kind are not to be had (Windows), and in a forked child.

    Raises:
        ValueError: the count is below 1.
    """
    if count < 1:
        raise ValueError(f"at least one thread is needed, not {count}")
    _count[0] = 1 if C_LIBRARY is None or _forked else min(count, MOST_THREADS)
    _pool.fit()


class _Pool:
    """The words that executors and workers share, and the workers."""

    def __init__(self) -> None:
        # a cache line to begin at, and a byte's place for each worker after the words
        self._memory = array("q", bytes(8 * (8 + POOL_WORDS + MOST_THREADS)))
        keep(self._memory)
        start = self._memory.buffer_info()[0]
        self.address = start + -start % 64
        self._workers: list[threading.Thread] = []
        self._serve: Callable[[int, int], None] | None = None
        self._has_pipe = False
        self._lock = threading.Lock()

    def _set(self, word: int, value: int) -> None:
        ctypes.c_int64.from_address(self.address + 8 * word).value = value

    def _get(self, word: int) -> int:
        return ctypes.c_int64.from_address(self.address + 8 * word).value

    def use(self, serve: int) -> None:
        """Start workers that run the native function at this address."""
        if C_LIBRARY is None or _forked:
            return
        with self._lock:
            if not self._has_pipe:
                self._open_pipe()
            if self._serve is None:
                self._serve = SERVE(serve)
        self.fit()

    def _open_pipe(self) -> None:
        """The pipe that workers sleep at: one as long as the process lives, since workers may wait at its end."""
        for word, name in ((POOL_READ, "read"), (POOL_WRITE, "write"), (POOL_YIELD, "sched_yield")):
            self._set(word, ctypes.cast(getattr(C_LIBRARY, name), ctypes.c_void_p).value or 0)
        read_end, write_end = os.pipe()
        self._set(POOL_READ_END, read_end)
        self._set(POOL_WRITE_END, write_end)
        self._set(POOL_SPINS, SPINS)
        self._has_pipe = True
        atexit.register(self.stop)

    def fit(self) -> None:
        """As many workers as there are threads beside the caller's.

        Another thread sees to it: a KeyboardInterrupt comes to the main thread alone, and would leave things half done.
        """
        with self._lock:  # a change that is under way counts when it is done
            if len(self._workers) == self._wanted():
                return
        changer = threading.Thread(target=self._fit, name="graphc-fit", daemon=True)
        try:
            changer.start()
        except RuntimeError:  # there is no thread to be had, or the interpreter is ending
            self._fit()
        else:
            changer.join()

    def _wanted(self) -> int:
        return 0 if self._serve is None else get_threads() - 1

    def _fit(self) -> None:
        """When there are too many all end and some begin again: each job wakes all workers that sleep."""
        with self._lock:
            if len(self._workers) > self._wanted():
                self._end_workers()
            while len(self._workers) < self._wanted():
                number = len(self._workers) + 1
                worker = threading.Thread(
                    target=self._serve, args=(self.address, number), name=f"graphc-{number}", daemon=True
                )
                try:
                    worker.start()
                except RuntimeError:  # callers do without
                    return
                self._workers.append(worker)

    def stop(self) -> None:
        """End the workers; until the next program is compiled there are none."""
        self._serve = None
        self.fit()

    def _end_workers(self) -> None:
        self._set(POOL_STOPPING, 1)
        for _ in self._workers:
            os.write(self._get(POOL_WRITE_END), b"x")
        for worker in self._workers:
            worker.join()
        self._drain()
        self._workers.clear()
        self._set(POOL_STOPPING, 0)

    def _drain(self) -> None:
        """Read the bytes that no worker slept for: a full pipe would block whoever writes."""
        read_end = self._get(POOL_READ_END)
        os.set_blocking(read_end, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(read_end, 4096):
                pass
        os.set_blocking(read_end, True)
        self._set(POOL_SLEEPERS, 0)

    def forget_workers(self) -> None:
        """In a forked child, where they do not exist."""
        self._lock = threading.Lock()
        self._workers.clear()
        self._serve = None
        self._set(POOL_STOPPING, 0)


_pool = _Pool()


def pool_address() -> int:
    """The address of the pool's words."""
    return _pool.address


def use(serve: int) -> None:
    """Start the workers, which run the native function at this address."""
    _pool.use(serve)


def _after_fork() -> None:
    global _forked
    _forked = True
    _count[0] = 1
    _pool.forget_workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
