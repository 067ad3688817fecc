"""Arrays in IDX files, the format of MNIST and its likes, and Fashion-MNIST in them."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import FileError
from graphc.frontend.checked import checked
from graphc.frontend.config import user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = tuple[NDArray[np.uint8], NDArray[np.int64]]

FASHION_MNIST = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip
"""The names of the ten classes of Fashion-MNIST."""

_PACKAGE = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package puts it."""
_GZIP = b"\x1f\x8b"
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_HOW = (
    "install the Debian package (apt-get install dataset-fashion-mnist), or unpack it anywhere (apt-get download "
    "dataset-fashion-mnist; dpkg -x dataset-fashion-mnist_*.deb folder) and say where: load_fashion_mnist('folder')"
)


@checked
def load_idx(path: str | Path) -> NDArray[Any]:
    """The array of an IDX file, plain or compressed by gzip.

    Args:
        path: the file.

    Raises:
        FileError: there is no such file, it is no IDX file, or it is damaged.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, "the IDX file format".

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "numbers-idx1-ubyte")
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> load_idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data[:2] == _GZIP:
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise FileError(f"there is no file {path}", at=user_line(), remedy="look at the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"its compressed content is cut off or broken ({error})") from error
    except OSError as error:
        raise FileError(
            f"{path} cannot be read: {error.strerror or error}", at=user_line(), remedy="look at it"
        ) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES or data[3] > 32:
        raise FileError(
            f"{path} is no IDX file: it begins with {data[:4].hex(' ') or 'nothing'}",
            at=user_line(),
            remedy="give a file that begins with 00 00, the number of an element type, and the number of axes",
        )
    dtype, rank = np.dtype(_TYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise _damaged(path, f"it ends within its header, after {len(data)} of {start} bytes")
    shape = struct.unpack(f">{rank}I", data[4:start])
    wanted = dtype.itemsize
    for size in shape:
        wanted *= size
    if len(data) - start != wanted:
        raise _damaged(path, f"an array of shape {shape} takes {wanted} bytes, {len(data) - start} are there")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


@checked
def load_fashion_mnist(folder: str | Path | None = None) -> tuple[Images, Images]:
    """Fashion-MNIST: 60,000 images of clothes to train on and 10,000 to test on. It is not bundled.

    Args:
        folder: where its four IDX files lie, plain or with ``.gz``, or where the Debian package was unpacked; default
            where the package installs them.

    Shapes:
        For each of the two sets: images uint8[n, 28, 28], from 0 (background) to 255; labels int64[n] from 0 to 9,
        whose names are ``FASHION_MNIST``.

    Raises:
        FileError: the files are not there (the message says how to get them), damaged, or those of another set.

    Source: Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747. Debian package dataset-fashion-mnist, under
        the MIT licence.

    >>> import graphc as gx
    >>> gx.data.FASHION_MNIST[9]
    'Ankle boot'
    """
    place = _PACKAGE if folder is None else Path(folder)
    inside = place / _PACKAGE.relative_to("/")
    place = inside if inside.is_dir() else place
    return _read(place, "train", 60_000), _read(place, "t10k", 10_000)


def _read(folder: Path, part: str, count: int) -> Images:
    images, labels = (_find(folder, f"{part}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    pixels, numbers = load_idx(images), load_idx(labels)
    for path, array, shape in ((images, pixels, (count, 28, 28)), (labels, numbers, (count,))):
        if array.dtype != np.uint8 or array.shape != shape:
            raise FileError(
                f"{path} holds {array.dtype}{list(array.shape)}, Fashion-MNIST has uint8{list(shape)} there",
                at=user_line(),
                remedy=_HOW,
            )
    if numbers.max() > 9:
        raise _damaged(labels, f"there is a class {numbers.max()}")
    return pixels, numbers.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    raise FileError(f"Fashion-MNIST is not there: no {name} or {name}.gz in {folder}", at=user_line(), remedy=_HOW)


def _damaged(path: Path, why: str) -> FileError:
    return FileError(f"{path} is damaged: {why}", at=user_line(), remedy="take the file from a copy that is whole")
