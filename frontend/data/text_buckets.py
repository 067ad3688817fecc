"""Sequences of several lengths in batches of similar ones, so that little of a batch is padding."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, ShapeError
from graphc.frontend import nest
from graphc.frontend.arguments import shown
from graphc.frontend.checked import Count, Natural, checked
from graphc.frontend.config import user_line
from graphc.frontend.data.dataset import PyDataset
from graphc.frontend.data.text_vocabulary import pad_sequences

Column = Sequence[Any]
"""A sequence, or a number, for each sample."""


class BucketBatches(PyDataset):
    """Batches of sequences of similar length, each padded to its own longest.

    Which samples stand together depends on the data and the seed alone; the order of the batches is another one in each
    epoch of ``fit``, which a training that was interrupted goes on in, as with every :class:`PyDataset`.

    Args:
        x: a list with a sequence (a list or an array with time first) for each sample; for a model of several inputs a
            tuple or dict of such lists.
        y: targets: an array with a row for each sample, or, as for x, sequences; None for ``predict``.
        batch_size: samples in a batch; the last one of a bucket may be smaller.
        boundaries: ascending lengths; batches hold samples between two of them, in random order. Default: samples are
            sorted by length.
        padding: ``"post"``, behind the last element, or ``"pre"``.
        value: what is filled in.
        multiple: padded lengths are multiples of it.
        seed: decides the order of samples of one length, or of one bucket.
        workers: threads that make batches ahead.

    Shapes:
        ``batches[i]``: x (batch, longest, ...) in the form of x, and y, padded likewise where it is sequences.
    Raises: ShapeError: inputs or targets for another number of samples; AxisError: a batch size or boundary that is
        not positive.
    Source: Khomenko et al. 2016, https://arxiv.org/abs/1708.05604.

    >>> import numpy as np
    >>> batches = BucketBatches([[1, 2, 3], [4], [5, 6, 7], [8]], np.array([0, 1, 2, 3]), batch_size=2)
    >>> [batches[i][0].shape for i in range(len(batches))], batches.padding_share
    ([(2, 1), (2, 3)], 0.0)
    """

    @checked
    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: Count = 32,
        boundaries: Sequence[Count] | None = None,
        padding: str = "post",
        value: float = 0,
        multiple: Count = 1,
        seed: Natural = 0,
        workers: Natural = 1,
    ) -> None:
        super().__init__(workers)
        limits = [] if boundaries is None else list(boundaries)
        if any(b <= a for a, b in itertools.pairwise(limits)):
            raise AxisError(f"boundaries are {limits}", at=user_line(), remedy="give them in ascending order")
        self._x, self._single = _columns(x)
        self._y, self._single_y = _columns(() if y is None else y)
        self._has_y = y is not None
        self._padding, self._value, self._multiple = padding, value, multiple
        columns = [*self._x.values(), *self._y.values()]
        if not columns or not all(np.iterable(column) for column in columns):
            raise ShapeError(
                f"x is {shown(x)}, y {shown(y)}",
                at=user_line(),
                remedy="give a list of sequences, and something for each: BucketBatches([[1, 2], [3]], [0, 1])",
            )
        count = len(columns[0])
        if any(len(column) != count for column in columns) or not count:
            raise ShapeError(
                f"inputs and targets hold {', '.join(str(len(column)) for column in columns)} samples",
                at=user_line(),
                remedy="give one sequence for each sample, the same number everywhere",
            )
        sizes = np.array([[_length(item) for item in column] for column in self._x.values()])
        self.cuts = _cut(sizes.max(0), sizes.sum(0), batch_size, limits, seed)
        self._sizes = sizes

    @property
    def padding_share(self) -> float:
        """How much of all inputs is padding, from 0 to 1."""
        total = sum(len(rows) * self._padded(int(s)) for rows in self.cuts for s in self._sizes[:, rows].max(1))
        return 1 - float(self._sizes.sum()) / total if total else 0.0

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, index: int) -> Any:
        rows = self.cuts[index]
        x = self._gathered(self._x, self._single, rows)
        return (x, self._gathered(self._y, self._single_y, rows)) if self._has_y else (x,)

    def _gathered(self, columns: Mapping[Any, Column], single: Any, rows: NDArray[np.intp]) -> Any:
        made = {name: self._batch([column[row] for row in rows]) for name, column in columns.items()}
        return made if single is None else nest.pack(single, made.values())

    def _batch(self, items: list[Any]) -> NDArray[Any]:
        first = np.asarray(items[0])
        floats = any(np.asarray(item).dtype.kind == "f" for item in items)
        dtype = np.float32 if floats else np.int64
        if not first.ndim:
            return np.asarray(items, dtype)
        longest = self._padded(max(map(_length, items)))
        return pad_sequences(items, longest, dtype, self._padding, value=self._value)

    def _padded(self, length: int) -> int:
        return max(-(-length // self._multiple), 1) * self._multiple


def _columns(data: Any) -> tuple[dict[Any, Column], Any]:
    """The columns by name, and the form to give batches in: None for a dict, else a structure of places."""
    if isinstance(data, Mapping):
        return dict(cast("Mapping[str, Column]", data)), None
    if isinstance(data, tuple):
        items = cast("tuple[Column, ...]", data)
        return dict(enumerate(items)), [*range(len(items))]
    return {0: data}, 0


def _length(item: Any) -> int:
    return len(item) if hasattr(item, "__len__") else 1


def _cut(
    lengths: NDArray[np.intp], totals: NDArray[np.intp], batch_size: int, boundaries: list[int], seed: int
) -> list[NDArray[np.intp]]:
    """The samples of each batch."""
    chance = np.random.default_rng(seed).permutation(len(lengths))
    if not boundaries:
        order = np.lexsort((chance, totals, lengths))
        return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    bucket = np.searchsorted(boundaries, lengths)
    order = np.lexsort((chance, bucket))
    parts = np.split(order, np.flatnonzero(np.diff(bucket[order])) + 1)
    return [part[first : first + batch_size] for part in parts for first in range(0, len(part), batch_size)]
