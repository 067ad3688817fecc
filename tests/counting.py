"""Counting what a piece of code does, however loaded the machine is and whatever ran before in the process."""

from __future__ import annotations

import gc
import re
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """No collection falls into what is counted, with the finalizers of what others left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def calls_of(run: Callable[[], object]) -> int:
    """How many functions, of Python and of C, one run calls."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    with without_collector():
        sys.setprofile(profile)
        try:
            run()
        finally:
            sys.setprofile(None)
    return count


def blocks_kept(run: Callable[[], object], times: int) -> int:
    """How many blocks of memory more are in use after so many runs: the least of some tries, since others allocate too."""
    kept: list[int] = []
    with without_collector():
        for _ in range(3):
            before = sys.getallocatedblocks()
            for _ in range(times):
                run()
            kept.append(sys.getallocatedblocks() - before)
    return min(kept)


def bytes_kept(run: Callable[[], object], times: int) -> tuple[int, int]:
    """How many bytes more Python holds after so many runs, and at the peak between: the least of some tries."""
    kept, peaks = [], []
    tracemalloc.start()
    try:
        with without_collector():
            for _ in range(3):
                before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                for _ in range(times):
                    run()
                after, peak = tracemalloc.get_traced_memory()
                kept.append(after - before)
                peaks.append(peak - before)
    finally:
        tracemalloc.stop()
    return min(kept), min(peaks)


def workers() -> list[threading.Thread]:
    """The threads that wait for kernels."""
    return [thread for thread in threading.enumerate() if re.fullmatch(r"graphc-\d+", thread.name)]


def becomes_idle(tries: int = 100) -> bool:
    """Whether the process comes to use no time of the processor; on a loaded machine that may take a while."""
    for _ in range(tries):
        before = time.process_time()
        time.sleep(0.3)
        if time.process_time() - before < 0.05:
            return True
    return False
