"""Batches by number: the base of data sets that make or read each batch when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import AxisError
from graphc.frontend.checked import Count, Natural, checked
from graphc.frontend.config import user_line


class PyDataset:
    """Batches by number: subclass it and define ``__len__`` and ``__getitem__``, as with Keras.

    ``fit(shuffle=True)`` takes the batches of each epoch in another order, which the model's seed and the number of the
    epoch decide. With several workers batches are made ahead by threads; they arrive in the same order.

    Args:
        workers: threads that make batches ahead; with 1 a batch is made when it is needed.
        use_multiprocessing: only False: batches are made by threads.
        max_queue_size: at most so many batches are made ahead.

    Shapes:
        ``dataset[i]``: a batch ``(x, y)`` or ``(x, y, sample_weight)``, samples on the first axis.

    Raises:
        AxisError: ``workers`` is no whole number, or ``max_queue_size`` less than 1.

    Source:
        ``keras.utils.PyDataset``.

    >>> import numpy as np
    >>> class Squares(PyDataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, index):
    ...         x = np.arange(4, dtype=np.float32)[:, None] + 4 * index
    ...         return x, x**2
    >>> len(Squares()), Squares()[2][1].ravel().tolist()
    (3, [64.0, 81.0, 100.0, 121.0])
    """

    @checked
    def __init__(self, workers: Natural = 1, use_multiprocessing: bool = False, max_queue_size: Count = 10) -> None:
        if use_multiprocessing:
            raise AxisError(
                "batches are made by threads, not by processes", at=user_line(), remedy="give workers= alone"
            )
        self.workers = workers
        self.max_queue_size = max_queue_size

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def __getitem__(self, index: int) -> Any:
        """A batch by its number."""
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    def of_epoch(self, epoch: int) -> Callable[[int], Any]:
        """The batches of one epoch, by number; override it where they differ from epoch to epoch.

        Args:
            epoch: how many epochs of ``fit`` the model has begun before; 0 in ``evaluate`` and ``predict``. A training
                that was interrupted goes on with the same number.
        """
        return self.__getitem__

    def on_epoch_begin(self) -> None:
        """Before the first batch of an epoch is asked for."""

    def on_epoch_end(self) -> None:
        """After the last batch of an epoch."""
