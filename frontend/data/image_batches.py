"""Batches of images changed at random: the same for the same seed and epoch, whoever makes them and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import ShapeError
from graphc.frontend import plotting, seeds
from graphc.frontend.config import user_line
from graphc.frontend.data.dataset import PyDataset

Array = NDArray[Any]
Change = Callable[[Array, NDArray[np.int64], int, int], Array]
"""Changes some images, given their numbers among all, the seed and the epoch."""


class Pictures(Protocol):
    """Where images come from."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.intp]) -> Array:
        """Some of them, as float32."""
        ...

    def name(self, row: int) -> str:
        """What messages call one of them."""
        ...


class ImageBatches(PyDataset):
    """Batches of images, changed in another way in each epoch; made by ``ImageDataGenerator.flow``.

    What becomes of an image depends on the seed, the epoch and the image's number, and on nothing else: not on the
    size of batches, the number of threads, or how far ahead they work. ``batches[i]`` is a batch of the first epoch;
    ``fit`` takes the epochs one after the other, ``evaluate`` and ``predict`` the first.

    Attributes:
        n: how many images there are.
        batch_size: images in a batch; the last one may be smaller.
        seed: the number that is used.
    """

    def __init__(
        self,
        pictures: Pictures,
        change: Change,
        columns: Sequence[Array],
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        workers: int,
        max_queue_size: int,
    ) -> None:
        super().__init__(workers, max_queue_size=max_queue_size)
        if not len(pictures):
            raise ShapeError("there are no images", at=user_line(), remedy="give at least one")
        self.n = len(pictures)
        self.batch_size = batch_size
        self.seed = seeds.derive("images") if seed is None else int(seed)
        self._pictures, self._change, self._columns, self._shuffle = pictures, change, columns, shuffle

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        return self.of_epoch(0)(index)

    def of_epoch(self, epoch: int) -> Callable[[int], Any]:
        """The batches of one epoch, by number."""
        if self._shuffle:
            order: NDArray[np.intp] = seeds.generator("images", self.seed, epoch).permutation(self.n)
        else:
            order = np.arange(self.n)
        return partial(self._batch, epoch, order)

    def _batch(self, epoch: int, order: NDArray[np.intp], index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, none has the number {index}")
        start = index % len(self) * self.batch_size
        rows = order[start : start + self.batch_size]
        x = self._change(self._pictures.take(rows), rows.astype(np.int64), self.seed, epoch)
        return (x, *(column[rows] for column in self._columns)) if self._columns else x

    def show(
        self, index: int = 0, epoch: int = 0, count: int = 32, columns: int = 8, path: str | Path | None = None
    ) -> Any:
        """A picture of a batch, as a figure of Matplotlib.

        Args:
            index: which batch.
            epoch: of which epoch.
            count: at most so many images.
            columns: beside each other.
            path: where to write it; the suffix says the format.

        Raises:
            BackendError: Matplotlib is not installed.
        """
        batch = self.of_epoch(epoch)(index)
        parts = list(cast("tuple[Array, ...]", batch)) if isinstance(batch, tuple) else [cast("Array", batch)]
        labels = [self.label(value) for value in parts[1][:count]] if len(parts) > 1 else None
        x = parts[0][:count]
        first = x.shape[1] in (1, 3, 4) and x.shape[-1] not in (1, 3, 4)
        return show_images(np.moveaxis(x, 1, -1) if first else x, labels, columns, path)

    def label(self, value: Any) -> str:
        """What a target is called under its image."""
        array = np.asarray(value)
        return "" if array.size > 32 or array.ndim > 1 else str(array.argmax() if array.size > 1 else array.item())


def show_images(
    images: Array, labels: Sequence[Any] | None = None, columns: int = 8, path: str | Path | None = None
) -> Any:
    """Images beside each other, as a figure of Matplotlib: black is the lowest value of all of them, white the highest.

    Args:
        images: (images, height, width, channels) with 1, 3 or 4 channels, or (images, height, width).
        labels: what stands above each.
        columns: how many beside each other.
        path: where to write the figure; the suffix says the format.

    Raises:
        ShapeError: these are no images.
        BackendError: Matplotlib is not installed.
    """
    array = np.asarray(images, np.float64)
    array = array[..., np.newaxis] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise ShapeError(
            f"images have shape {np.shape(images)}",
            at=user_line(),
            remedy="give (images, height, width, channels) with 1, 3 or 4 channels",
        )
    low, high = array.min(), array.max()
    shown = (array - low) / (high - low if high > low else 1.0)
    across = min(columns, len(array))
    down = -(-len(array) // across)
    figure = plotting.new_figure(1.1 * across, (1.35 if labels is not None else 1.15) * down)
    for place, axes in enumerate(figure.subplots(down, across, squeeze=False).flat):
        axes.set_axis_off()
        if place < len(array):
            grey = shown.shape[-1] == 1
            axes.imshow(shown[place, ..., 0] if grey else shown[place], cmap="gray", vmin=0, vmax=1)
            if labels is not None:
                axes.set_title(plotting.escaped(str(labels[place])), fontsize=8)
    plotting.save(figure, path)
    return figure
