"""Batches prepared in the background while a step runs. What comes, and in which order, is the same without it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

from graphc.frontend.checked import Count, checked

_END = object()


class _Raised:
    """An exception on its way from the thread where it was raised to the one that asked."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def in_background(items: Iterator[Any], depth: int = 2) -> Generator[Any]:
    """The same items in the same order, taken ahead by a thread; exceptions arrive where the item would have.

    Args:
        items: only the thread touches it.
        depth: at most so many items wait.

    >>> list(in_background(iter(range(4))))
    [0, 1, 2, 3]
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: Any) -> bool:
        while not ended.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # whatever it is, it belongs to the thread that waits for the item
            put(_Raised(error))

    thread = threading.Thread(target=work, name="graphc-prefetch", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item
    finally:
        ended.set()
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()


def map_ahead(function: Callable[[int], Any], indices: Iterable[int], workers: int, depth: int) -> Generator[Any]:
    """``function`` of each index, in order, computed by several threads at once.

    Args:
        function: may be called by several threads at a time.
        indices: in which order results are wanted.
        workers: the number of threads.
        depth: at most so many results are begun before they are asked for.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="graphc-dataset")
    begun: deque[Future[Any]] = deque()
    try:
        for index in indices:
            begun.append(pool.submit(function, index))
            if len(begun) > depth:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Prefetched:
    """What :func:`prefetch` returns."""

    def __init__(self, source: Iterable[Any], depth: int) -> None:
        self._source = source
        self._depth = depth
        self._running: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self._source, Iterator):
            return in_background(iter(self._source), self._depth)
        if self._running is None:  # an iterator cannot start again: what was taken ahead must not get lost
            self._running = in_background(self._source, self._depth)
        return self._running


class _SizedPrefetched(_Prefetched):
    def __len__(self) -> int:
        return len(cast("Any", self._source))


@checked
def prefetch(source: Iterable[Any], depth: Count = 2) -> Iterable[Any]:
    """An iterable of batches whose items are made in a thread of their own, ahead of their use.

    The items and their order stay the same as long as the source depends on nothing that changes while training goes
    on, such as the model's weights or NumPy's global generator.

    Args:
        source: an iterable of batches.
        depth: at most so many batches wait.

    Shapes:
        source: what ``fit`` takes; the result yields the same.

    Raises:
        Exception: whatever the source raises, where the batch would have come.

    Source:
        The bounded buffer, Dijkstra 1965, Cooperating sequential processes.

    >>> list(prefetch([1, 2, 3]))
    [1, 2, 3]
    """
    return (_SizedPrefetched if hasattr(source, "__len__") else _Prefetched)(source, depth)
