"""Batches of arrays, shuffled or in order, and batches from the user's own iterables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import GraphError, ShapeError
from graphc.frontend.config import user_line
from graphc.frontend.data.dataset import PyDataset
from graphc.frontend.data.prefetch import in_background, map_ahead

Array = NDArray[Any]
Order = Callable[[int, int], NDArray[np.intp]]
"""The permutation of an epoch, from its number and how many there are."""
AHEAD_BYTES = 1 << 20
"""From this size on a batch is gathered in the background: below it, handing it over takes longer than making it."""


class Batches(Protocol):
    """What ``fit``, ``evaluate`` and ``predict`` walk through once an epoch."""

    @property
    def count(self) -> int | None:
        """The number of batches of an epoch, None where only the end will tell."""
        ...

    @property
    def taken(self) -> int:
        """How many batches the iterator that runs through several epochs has given; 0 where there is none."""
        ...

    def seek(self, taken: int) -> None:
        """Let what begins anew now go on after so many batches, as :attr:`taken` said in an earlier process."""
        ...

    def epoch(self, number: int, start: int = 0) -> Generator[list[Array]]:
        """The batches of an epoch. A batch is valid until the next one is asked for.

        Args:
            number: decides the order.
            start: so many batches of the epoch are done.
        """
        ...


class ArrayBatches:
    """Rows of arrays, ``batch_size`` at a time; the last batch may be smaller.

    Args:
        arrays: of equal length.
        batch_size: at least 1.
        order: gives the permutation of an epoch; None: as they stand.
        limit: at most so many batches an epoch.
    """

    taken = 0

    def __init__(
        self,
        arrays: Sequence[Array],
        batch_size: int,
        order: Order | None = None,
        limit: int | None = None,
    ) -> None:
        self.arrays = list(arrays)
        self._order = order
        self.samples = len(arrays[0])
        size = min(batch_size, self.samples)
        self.cuts = [(start, min(start + size, self.samples)) for start in range(0, self.samples, size)][:limit]
        self.count = len(self.cuts)
        self._batch_bytes = sum(array[:size].nbytes for array in self.arrays)

    def seek(self, taken: int) -> None:
        """Every epoch begins anew: there is nothing to find."""

    def rows(self, number: int) -> NDArray[np.intp] | None:
        """The samples in the order of an epoch; None if they come as they stand."""
        return None if self._order is None else self._order(number, self.samples)

    def batch(self, number: int, step: int) -> list[Array]:
        """One batch of an epoch."""
        rows, (first, stop) = self.rows(number), self.cuts[step]
        chosen = slice(first, stop) if rows is None else rows[first:stop]
        return [array[chosen] for array in self.arrays]

    def epoch(self, number: int, start: int = 0) -> Generator[list[Array]]:
        cuts = self.cuts[start:]
        rows = self.rows(number)
        if rows is None:
            return ([array[first:stop] for array in self.arrays] for first, stop in cuts)
        if self._batch_bytes >= AHEAD_BYTES and len(cuts) > 1:
            picked = ([array.take(rows[first:stop], axis=0) for array in self.arrays] for first, stop in cuts)
            return in_background(picked)
        return self._gathered(rows, cuts)

    def _gathered(self, rows: NDArray[np.intp], cuts: Sequence[tuple[int, int]]) -> Generator[list[Array]]:
        """Batches in buffers that are used again for each batch."""
        longest = max((stop - first for first, stop in cuts), default=0)
        buffers = [np.empty((longest, *array.shape[1:]), array.dtype) for array in self.arrays]
        for first, stop in cuts:
            if stop - first != longest:
                buffers = [buffer[: stop - first] for buffer in buffers]
            for array, buffer in zip(self.arrays, buffers, strict=True):
                np.take(array, rows[first:stop], axis=0, out=buffer, mode="clip")
            yield buffers


class IterableBatches:
    """Batches that the user makes: an iterable of them, or an object with ``__getitem__`` and ``__len__``.

    An iterator that ends cannot start again: with ``steps`` an epoch takes that many batches of it and the next epoch
    goes on there.

    Args:
        source: the user's object.
        adapt: makes arrays of one item.
        steps: the batches of an epoch, where the source does not say it.
        order: gives the permutation of the batches of a :class:`PyDataset`; None: as they stand.
    """

    def __init__(
        self, source: Any, adapt: Callable[[Any], list[Array]], steps: int | None = None, order: Order | None = None
    ) -> None:
        self._source: Any = source
        self._iterates = isinstance(source, Iterator)
        self._dataset = source if isinstance(source, PyDataset) else None
        self._adapt = adapt
        self._steps = steps
        self._order = order
        self._running: Iterator[Any] | None = None
        self._held: Iterator[Any] | None = None
        self.taken = 0
        length = len(source) if hasattr(source, "__len__") else None
        self.count = steps if steps is not None else length

    def first(self) -> Any:
        """The first item, which the first epoch will begin with: it shows the types of the data.

        Raises:
            ShapeError: there is none.
        """
        if not hasattr(self._source, "__iter__"):
            return self._source[0]
        iterator: Iterator[Any] = iter(self._source)
        for item in iterator:
            self._held = itertools.chain((item,), iterator)
            return item
        raise ShapeError("there is no batch to begin with", at=user_line(), remedy="let x yield at least one batch")

    def seek(self, taken: int) -> None:
        self.taken = taken
        self._running = None

    def epoch(self, number: int, start: int = 0) -> Generator[list[Array]]:
        done = start
        goes_on = self._steps is not None or self._iterates
        if not goes_on:
            self.taken = start
        fresh = self._running is None
        before = (self.taken - start) // self._steps if self._steps else 0  # epochs that this run has gone through
        iterator = self._start(max(number - before, 0), self.taken) if self._running is None else self._running
        self._running = iterator if goes_on else None
        dataset = self._dataset
        if dataset is not None and not done:
            dataset.on_epoch_begin()
        while self._steps is None or done < self._steps:
            try:
                item = next(iterator)
            except StopIteration:
                self._running, self.taken = None, 0
                if done == start and goes_on and not fresh and not self._iterates:
                    fresh = True  # the last epoch used up the last one: begin again
                    self._running = iterator = self._start(number, 0)
                    continue
                break
            done += 1
            self.taken += 1
            yield self._adapt(item)
        if not goes_on:
            self.taken = 0
        if dataset is not None:
            dataset.on_epoch_end()

    def _start(self, number: int, skipped: int) -> Iterator[Any]:
        """A new run through the source, without its first items."""
        source, dataset = self._source, self._dataset
        if dataset is not None:
            count = len(dataset)
            order = range(count) if self._order is None else self._order(number, count).tolist()
            batch = dataset.of_epoch(number)
            if dataset.workers > 1:
                return map_ahead(batch, order[skipped:], dataset.workers, dataset.max_queue_size)
            return (batch(index) for index in order[skipped:])
        if isinstance(source, Iterable):
            whole, self._held = self._held or iter(cast("Iterable[Any]", source)), None
            return itertools.islice(whole, skipped, None)
        return (source[index] for index in range(skipped, len(source)))


def is_batch_source(value: Any) -> bool:
    """Does this yield batches, rather than hold the values themselves?"""
    if isinstance(value, np.ndarray | list | tuple | dict | str | bytes) or hasattr(value, "__array__"):
        return False
    return isinstance(value, Iterable) or (hasattr(value, "__getitem__") and hasattr(value, "__len__"))


def split_item(item: Any, targets: bool) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights of one batch of the user's; None for what is missing.

    Raises:
        GraphError: it is not a pair although targets are needed.
    """
    pair = isinstance(item, tuple) or (targets and isinstance(item, list))  # a list, as loaders of PyTorch yield it
    parts: tuple[Any, ...] = tuple(cast("Sequence[Any]", item)) if pair else ()
    if len(parts) in (2, 3):
        return parts[0], parts[1], parts[2] if len(parts) == 3 else None
    if len(parts) == 1:
        item = parts[0]
    if targets:
        shown = type(cast("Any", item)).__name__
        raise GraphError(
            f"a batch is {shown}, not a pair (x, y)", at=user_line(), remedy="let the iterable yield pairs (x, y)"
        )
    return cast("Any", item), None, None


def as_triple(data: Any) -> tuple[Any, Any, Any]:
    """Validation data as x, y and weights; y is None if x yields batches.

    Raises:
        GraphError: it is neither a pair or triple nor an iterable of batches.
    """
    parts: tuple[Any, ...] = tuple(cast("Sequence[Any]", data)) if isinstance(data, tuple | list) else ()
    if len(parts) in (2, 3):
        return parts[0], parts[1], parts[2] if len(parts) == 3 else None
    if is_batch_source(data):
        return cast("Any", data), None, None
    raise GraphError(
        "validation_data is a pair (x, y), a triple (x, y, sample_weight) or an iterable of such batches",
        at=user_line(),
        remedy="give (x, y)",
    )
