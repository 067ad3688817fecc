"""What is drawn for each image of a batch, the one affine map that it makes, and how images are read by such maps."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import graphc as gx
from graphc.errors import BackendError
from graphc.ops.random import threefry2x32

Array = NDArray[Any]
Floats = NDArray[np.float64]
Shift = float | int | Sequence[float]
"""A part of the size below 1, else pixels; a whole number: whole pixels below it; a list: one of these numbers."""

_building = threading.Lock()
_DRAWS = 16
"""Numbers that each image has for itself in an epoch; not all are used."""


def uniforms(seed: int, epoch: int, samples: NDArray[np.int64]) -> Floats:
    """Numbers from 0 to below 1, a row for each sample, which depend on the seed, the epoch and its number alone.

    >>> import numpy as np
    >>> both, one = uniforms(7, 0, np.array([3, 4])), uniforms(7, 0, np.array([4]))
    >>> both.shape, bool((both[1] == one[0]).all())
    ((2, 16), True)
    """
    key = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF))
    place = (samples[:, np.newaxis] * _DRAWS + np.arange(_DRAWS)) & 0xFFFFFFFF
    words, _ = threefry2x32(key, (np.uint32(epoch & 0xFFFFFFFF), place.astype(np.uint32)))
    return words.astype(np.float64) * 2.0**-32


@dataclass(frozen=True)
class Ranges:
    """Between which bounds transformations are drawn; see :class:`~graphc.data.ImageDataGenerator`.

    Attributes:
        rotation: degrees, to both sides.
        height_shift, width_shift: see there.
        shear: degrees, to both sides.
        zoom: bounds of the factors for rows and for columns.
        flips: upside down, and left and right.
        channel_shift: to both sides.
        brightness: bounds of the factor, or None.
        crop: rows and columns of a part, or None.
    """

    rotation: float = 0.0
    height_shift: Shift = 0.0
    width_shift: Shift = 0.0
    shear: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    flips: tuple[bool, bool] = (False, False)
    channel_shift: float = 0.0
    brightness: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None

    def draw(self, seed: int, epoch: int, samples: NDArray[np.int64], size: tuple[int, int]) -> Transforms:
        """What is done to each of some samples in an epoch."""
        u = uniforms(seed, epoch, samples).T
        height, width = size
        both_ways = 2 * u - 1
        brightness = None if self.brightness is None else _between(u[0], *self.brightness)
        crop_rows, crop_columns = self.crop or size
        return Transforms(
            theta=both_ways[1] * self.rotation,
            tx=_shifts(self.width_shift, width, u[2], u[3]),
            ty=_shifts(self.height_shift, height, u[4], u[5]),
            shear=both_ways[6] * self.shear,
            zx=_between(u[7], *self.zoom),
            zy=_between(u[8], *self.zoom),
            flip_vertical=(u[9] < 0.5) & self.flips[0],
            flip_horizontal=(u[10] < 0.5) & self.flips[1],
            channel_shift=both_ways[11] * self.channel_shift if self.channel_shift else None,
            brightness=brightness,
            top=np.floor(u[12] * (height - crop_rows + 1)),
            left=np.floor(u[13] * (width - crop_columns + 1)),
            crop=self.crop,
        )


def _between(u: Floats, low: float, high: float) -> Floats:
    return low + u * (high - low)


def _shifts(given: Shift, size: int, u: Floats, sign: Floats) -> Floats:
    """By how many pixels images are moved, as Keras draws it."""
    if isinstance(given, float | np.floating):
        return (2 * u - 1) * given * (size if given < 1 else 1)
    choices = np.asarray(range(given) if isinstance(given, int | np.integer) else given, np.float64)
    if not choices.size:
        return np.zeros_like(u)
    chosen = choices[np.floor(u * choices.size).astype(np.intp)] * np.where(sign < 0.5, -1.0, 1.0)
    return chosen * (size if np.max(np.abs(choices)) < 1 else 1)


@dataclass(frozen=True)
class Transforms:
    """What is done to each image of a batch; angles in degrees, shifts in pixels.

    Attributes:
        theta, tx, ty, shear, zx, zy: of the affine map, in Keras's order and directions; x goes to the right, y down.
        flip_vertical, flip_horizontal: after it.
        channel_shift: added to all values, which are then held within those that the image had; None: nothing.
        brightness: a factor for all values; None: 1.
        top, left: where the part begins that is cut out at last.
        crop: its rows and columns; None: all.
    """

    theta: Floats
    tx: Floats
    ty: Floats
    shear: Floats
    zx: Floats
    zy: Floats
    flip_vertical: NDArray[np.bool_]
    flip_horizontal: NDArray[np.bool_]
    channel_shift: Floats | None
    brightness: Floats | None
    top: Floats
    left: Floats
    crop: tuple[int, int] | None

    def matrices(self, height: int, width: int) -> Floats:
        """For each image the row and the column at which each pixel of the result is read: (images, 2, 3)."""
        zero, one = np.zeros_like(self.theta), np.ones_like(self.theta)
        theta, shear = np.deg2rad(self.theta), np.deg2rad(self.shear)
        half_rows, half_columns = height / 2 - 0.5, width / 2 - 0.5
        down, right = (np.where(flip, -one, one) for flip in (self.flip_vertical, self.flip_horizontal))
        maps = (
            (one, zero, half_columns * one, zero, one, half_rows * one),
            (np.cos(theta), -np.sin(theta), zero, np.sin(theta), np.cos(theta), zero),
            (one, zero, self.tx, zero, one, self.ty),
            (one, -np.sin(shear), zero, zero, np.cos(shear), zero),
            (self.zx, zero, zero, zero, self.zy, zero),
            (right, zero, zero, zero, down, zero),
            (one, zero, self.left - half_columns, zero, one, self.top - half_rows),
        )
        composed = np.broadcast_to(np.eye(3), (len(theta), 3, 3))
        for parts in maps:
            step = np.zeros_like(composed)
            step[:, :2] = np.stack(parts, -1).reshape(-1, 2, 3)
            step[:, 2, 2] = 1
            composed = composed @ step
        return composed[:, [1, 0]][:, :, [1, 0, 2]]  # from x and y to rows and columns

    def apply(self, images: Array, how: Filling, value_range: tuple[float, float]) -> Array:
        """The images changed so: float32, channels last."""
        height, width = images.shape[1:3]
        matrices = self.matrices(height, width)
        still = np.broadcast_to(np.eye(2, 3), matrices.shape)
        if self.crop is not None or not np.array_equal(matrices, still):
            images = how.read(images, matrices, self.crop)
        if self.channel_shift is not None:
            low, high = (found(images, axis=(1, 2, 3), keepdims=True) for found in (np.min, np.max))
            images = np.clip(images + self.channel_shift.astype(np.float32).reshape(-1, 1, 1, 1), low, high)
        if self.brightness is not None:
            images = np.clip(images * self.brightness.astype(np.float32).reshape(-1, 1, 1, 1), *value_range)
        return images


@dataclass(frozen=True)
class Filling:
    """How images are read between and beyond their pixels; see ``gx.grid_sample``."""

    interpolation: str
    fill_mode: str
    fill_value: float

    def read(self, images: Array, matrices: Floats, crop: tuple[int, int] | None) -> Array:
        """The images at the places that the maps say, by one compiled program for all batches and sizes."""
        with _building:  # threads that make batches may ask for the same program at once
            program = _reader(self, images.shape[-1], crop)
        given = {"images": np.ascontiguousarray(images), "matrices": matrices.astype(np.float32)}
        return program(**given)["read"]


@lru_cache(maxsize=32)
def _reader(how: Filling, channels: int, crop: tuple[int, int] | None) -> gx.Program:
    images = gx.placeholder("images", ("images", "height", "width", channels))
    matrices = gx.placeholder("matrices", ("images", 2, 3))
    places = gx.affine_grid(matrices, crop or images.shape[1:3])
    outputs = {"read": gx.grid_sample(images, *places, how.interpolation, how.fill_mode, how.fill_value)}
    try:
        return gx.compile(outputs, inputs=[images, matrices], backend="numba")
    except BackendError:  # not on this kind of processor: slower, and the same but for rounding
        return gx.compile(outputs, inputs=[images, matrices], backend="reference")
