"""Pictures in files and folders of classes, read by Pillow, which is an optional extra."""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, BackendError, FileError, ShapeError
from graphc.frontend.checked import Count, checked
from graphc.frontend.config import user_line

Array = NDArray[Any]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".webp")
MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")
_DEEP = ("I", "I;16", "I;16L", "I;16B", "F")
"""Of more than 8 bits: Pillow would cut them off at 255."""


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise BackendError(
            "reading pictures needs Pillow, which is not installed",
            at=user_line(),
            remedy='pip install "graphc[images]"',
        ) from None


@dataclass(frozen=True)
class Reading:
    """How files become arrays.

    Attributes:
        color_mode: "grayscale", "rgb" or "rgba".
        target_size: (height, width); None: as the file says.
        interpolation: how they are made larger or smaller: "nearest", "bilinear", "bicubic", "hamming", "box" or
            "lanczos".
        keep_aspect_ratio: cut off what the target's form does not hold, instead of distorting the picture.
    """

    color_mode: str = "rgb"
    target_size: Sequence[Count] | None = None
    interpolation: str = "nearest"
    keep_aspect_ratio: bool = False

    def __post_init__(self) -> None:
        for name, given, known in (
            ("color_mode", self.color_mode, tuple(MODES)),
            ("interpolation", self.interpolation, INTERPOLATIONS),
        ):
            if given not in known:
                raise AxisError(
                    f"there is no {name} {given!r}", at=user_line(), remedy=f"use one of {', '.join(known)}"
                )

    @property
    def channels(self) -> int:
        """Of the arrays."""
        return len(MODES[self.color_mode])

    def read(self, path: str | Path) -> NDArray[np.float32]:
        """The picture of a file, values as they stand in it: (height, width, channels).

        Raises:
            FileError: there is no such file, it is no picture, or it is damaged.
            BackendError: Pillow is not installed.
        """
        pillow = _pillow()
        try:
            with pillow.open(path) as opened:
                picture = self._sized(self._coloured(opened), pillow)
                array = np.asarray(picture, np.float32)
        except FileNotFoundError:
            raise FileError(f"there is no file {path}", at=user_line(), remedy="look at the path") from None
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, pillow.DecompressionBombError) as error:
            raise FileError(
                f"{path} cannot be read as a picture: {error}",
                at=user_line(),
                remedy="look at it, and replace or remove it",
            ) from error
        return array if array.ndim == 3 else array[:, :, np.newaxis]

    def _coloured(self, picture: Any) -> Any:
        if self.color_mode == "grayscale" and picture.mode in _DEEP:
            return picture
        mode = MODES[self.color_mode]
        return picture.convert(mode) if picture.mode != mode else picture

    def _sized(self, picture: Any, pillow: Any) -> Any:
        if self.target_size is None or picture.size == self.target_size[::-1]:
            return picture
        height, width = self.target_size
        box = None
        if self.keep_aspect_ratio:
            own_width, own_height = picture.size
            rows = max(min(own_height, own_width * height // width), 1)
            columns = max(min(own_width, own_height * width // height), 1)
            left, top = (own_width - columns) // 2, (own_height - rows) // 2
            box = (left, top, left + columns, top + rows)
        return picture.resize((width, height), pillow.Resampling[self.interpolation.upper()], box)


@checked
def load_image(
    path: str | Path,
    color_mode: str = "rgb",
    target_size: Sequence[Count] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> NDArray[np.float32]:
    """The picture of a file, values as they stand in it (from 0 to 255 in most).

    Args:
        path: the file, in any format that Pillow reads.
        color_mode: "grayscale", "rgb" or "rgba".
        target_size: (height, width); None: as the file says.
        interpolation: how it is made larger or smaller: "nearest", "bilinear", "bicubic", "hamming", "box", "lanczos".
        keep_aspect_ratio: cut off what the target's form does not hold, instead of distorting the picture.

    Shapes: float32 (height, width, channels).
    Raises: FileError: there is no such file, it is no picture, or it is damaged; AxisError: an unknown name;
        BackendError: Pillow is not installed.
    Source: ``keras.utils.load_img`` and ``img_to_array``.
    """
    return Reading(color_mode, target_size, interpolation, keep_aspect_ratio).read(path)


@dataclass(frozen=True)
class ArrayPictures:
    """Pictures in memory, channels last."""

    array: Array

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: NDArray[np.intp]) -> Array:
        """Some of them, as float32."""
        return self.array[rows].astype(np.float32)

    def name(self, row: int) -> str:
        """What messages call one of them."""
        return f"image {row}"


@dataclass(frozen=True)
class FilePictures:
    """Pictures in files, which are read when they are needed."""

    paths: Sequence[Path]
    how: Reading

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: NDArray[np.intp]) -> Array:
        """Some of them, as float32."""
        size = self.how.target_size
        assert size is not None
        taken = np.empty((len(rows), *size, self.how.channels), np.float32)
        for place in range(len(rows)):
            taken[place] = self.how.read(self.paths[int(rows[place])])
        return taken

    def name(self, row: int) -> str:
        """What messages call one of them."""
        return str(self.paths[row])


@dataclass(frozen=True)
class ClassFolders:
    """The pictures in a folder that has a folder for each class.

    Attributes:
        paths: of the files, class by class, each class in alphabetical order.
        labels: the number of the class of each.
        names: of the classes, in the order of their numbers.
    """

    paths: list[Path]
    labels: NDArray[np.int64]
    names: list[str]


def list_classes(
    folder: str | Path, classes: Sequence[str] | None, follow_links: bool, part: tuple[float, float]
) -> ClassFolders:
    """Find the pictures of each class.

    Args:
        folder: it holds a folder for each class.
        classes: the classes' names in the order of their numbers; None: all, in alphabetical order.
        follow_links: whether to go into folders that are links.
        part: from which to which part of each class.

    Raises:
        FileError: there is no such folder, or none for a class.
        ShapeError: there are no pictures.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileError(f"there is no folder {root}", at=user_line(), remedy="give one with a folder for each class")
    names = list(classes) if classes is not None else sorted(path.name for path in root.iterdir() if path.is_dir())
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        if not (root / name).is_dir():
            raise FileError(f"{root} has no folder {name!r}", at=user_line(), remedy="say only classes that there are")
        found = sorted(
            Path(place, file)
            for place, _, files in os.walk(root / name, followlinks=follow_links)
            for file in files
            if file.lower().endswith(SUFFIXES)
        )
        chosen = found[int(part[0] * len(found)) : int(part[1] * len(found))]
        paths += chosen
        labels += [label] * len(chosen)
    if not paths:
        raise ShapeError(
            f"there are no pictures in the folders of {root}",
            at=user_line(),
            remedy=f"give a folder with a folder for each class; files end in {', '.join(SUFFIXES)}",
        )
    return ClassFolders(paths, np.array(labels, np.int64), names)
