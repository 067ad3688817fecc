"""Batches of arrays, shuffled or in order, and batches from the user's own iterables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, GraphError
from graphc.frontend.config import user_line

Array = NDArray[Any]


class Batches(Protocol):
    """What ``fit``, ``evaluate`` and ``predict`` walk through once an epoch."""

    @property
    def count(self) -> int | None:
        """The number of batches of an epoch, None where only the end will tell."""
        ...

    def epoch(self, number: int) -> Iterator[list[Array]]:
        """The batches of an epoch. A batch is valid until the next one is asked for."""
        ...


class ArrayBatches:
    """Rows of arrays, ``batch_size`` at a time; the last batch may be smaller.

    Args:
        arrays: of equal length.
        batch_size: at least 1.
        order: gives the permutation of an epoch; None: as they stand.
        limit: at most so many batches an epoch.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        batch_size: int,
        order: Callable[[int, int], NDArray[np.intp]] | None = None,
        limit: int | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AxisError(
                f"batch_size must be a whole number of at least 1, not {batch_size!r}", at=user_line(), remedy="try 32"
            )
        self._arrays = list(arrays)
        self._order = order
        self.samples = len(arrays[0])
        size = min(int(batch_size), self.samples)
        self.cuts = [(start, min(start + size, self.samples)) for start in range(0, self.samples, size)][:limit]
        self.count = len(self.cuts)

    def epoch(self, number: int) -> Iterator[list[Array]]:
        if self._order is None:
            for start, stop in self.cuts:
                yield [array[start:stop] for array in self._arrays]
            return
        rows = self._order(number, self.samples)
        longest = self.cuts[0][1] - self.cuts[0][0]
        buffers = [np.empty((longest, *array.shape[1:]), array.dtype) for array in self._arrays]
        for start, stop in self.cuts:
            picked = rows[start:stop]
            if stop - start != longest:
                buffers = [buffer[: stop - start] for buffer in buffers]
            for array, buffer in zip(self._arrays, buffers, strict=True):
                np.take(array, picked, axis=0, out=buffer, mode="clip")
            yield buffers


class IterableBatches:
    """Batches that the user makes: an iterable of them, or an object with ``__getitem__`` and ``__len__``.

    An iterator that ends cannot start again: with ``steps`` an epoch takes that many batches of it and the next epoch
    goes on there.
    """

    def __init__(self, source: Any, adapt: Callable[[Any], list[Array]], steps: int | None = None) -> None:
        self._source = source
        self._adapt = adapt
        self._steps = steps
        self._running: Iterator[Any] | None = None
        self.exhausted = False
        length = len(source) if hasattr(source, "__len__") else None
        self.count = steps if steps is not None else length

    def epoch(self, number: int) -> Iterator[list[Array]]:
        taken = 0
        iterator = self._iterator()
        while self._steps is None or taken < self._steps:
            try:
                item = next(iterator)
            except StopIteration:
                self._running = None
                self.exhausted = self._is_iterator() or taken == 0
                return
            yield self._adapt(item)
            taken += 1

    def _is_iterator(self) -> bool:
        return isinstance(self._source, Iterator)

    def _iterator(self) -> Iterator[Any]:
        if self._is_iterator():
            return cast("Iterator[Any]", self._source)
        if self._steps is None:
            return _start(self._source)
        if self._running is None:
            self._running = _start(self._source)
        return self._running


def _start(source: Any) -> Iterator[Any]:
    if isinstance(source, Iterable):
        return iter(cast("Iterable[Any]", source))
    return (source[index] for index in range(len(source)))


def is_batch_source(value: Any) -> bool:
    """Does this yield batches, rather than hold the values themselves?"""
    if isinstance(value, np.ndarray | list | tuple | dict | str | bytes) or hasattr(value, "__array__"):
        return False
    return isinstance(value, Iterable) or (hasattr(value, "__getitem__") and hasattr(value, "__len__"))


def split_item(item: Any, targets: bool) -> tuple[Any, Any]:
    """Inputs and targets of one batch of the user's.

    Raises:
        GraphError: it is not a pair although targets are needed.
    """
    if isinstance(item, tuple) and len(cast("tuple[Any, ...]", item)) in (1, 2):
        pair = cast("tuple[Any, ...]", item)
        if len(pair) == 2:
            return pair[0], pair[1]
        item = pair[0]
    if targets:
        shown = type(cast("Any", item)).__name__
        raise GraphError(
            f"a batch is {shown}, not a pair (x, y)", at=user_line(), remedy="let the iterable yield pairs (x, y)"
        )
    return cast("Any", item), None


def as_pair(data: Any) -> tuple[Any, Any]:
    """Validation data as x and y; y is None if x yields batches.

    Raises:
        GraphError: it is neither a pair nor an iterable of batches.
    """
    if isinstance(data, tuple) and len(cast("tuple[Any, ...]", data)) == 2:
        return cast("tuple[Any, Any]", data)
    if is_batch_source(data):
        return cast("Any", data), None
    raise GraphError(
        "validation_data is a pair (x, y) or an iterable of such batches", at=user_line(), remedy="give (x, y)"
    )
