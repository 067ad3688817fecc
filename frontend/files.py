"""Files that are replaced at once: whoever reads finds the old content or the new one, whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from graphc.errors import FileError
from graphc.frontend.config import user_line
from graphc.ir.types import as_dtype


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file at once, or leave it as it is; afterwards the new content is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some file systems cannot flush folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of this file left that were killed; nobody may be writing it now."""
    for left in path.parent.glob(f".{path.name}.????????"):
        with contextlib.suppress(OSError):
            left.unlink()


def write_tensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by name into one safetensors file.

    Raises:
        FileError: the file cannot be written.
    """
    from safetensors.numpy import save

    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, dict(metadata or {}) or None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}",
            at=user_line(),
            remedy="choose a place that can be written and has room",
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of a safetensors file, and its metadata.

    Raises:
        FileError: there is no such file, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    _check_kind(path)
    try:
        with cast("Any", safe_open)(path, "numpy") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
        return decode_tensors(path.read_bytes()), metadata
    except FileNotFoundError:
        raise FileError(f"there is no file {path}", at=user_line(), remedy="look at the path") from None
    except (OSError, SafetensorError) as error:
        raise FileError(
            f"{path} cannot be read: {error}", at=user_line(), remedy="write it again, or take a copy that is whole"
        ) from error


_OTHERS = {b"\x89HDF": "an HDF5 file, as Keras writes", b"PK\x03\x04": "a zip file, as PyTorch and Keras write"}


def _check_kind(path: Path) -> None:
    """Say of what is no safetensors file at all what it is.

    Raises:
        FileError: it is a folder, or a file of another library.
    """
    if path.is_dir():
        raise FileError(
            f"{path} is a folder, not a file of weights",
            at=user_line(),
            remedy="a folder that model.save wrote is for gx.load_model(folder)",
        )
    if path.is_file():
        with open(path, "rb") as file:
            kind = _OTHERS.get(file.read(4))
        if kind is not None:
            raise FileError(
                f"{path} is {kind}, not a safetensors file",
                at=user_line(),
                remedy="read it with the library that wrote it, and hand its arrays over: model.set_weights(arrays)",
            )


def decode_tensors(data: bytes) -> dict[str, Any]:
    """The arrays in the bytes of a safetensors file, bfloat16 included, which its own reader for NumPy refuses.

    Raises:
        SafetensorError: the bytes are damaged.
    """
    import safetensors

    entries: list[tuple[str, dict[str, Any]]] = cast("Any", safetensors).deserialize(data)
    return {name: np.frombuffer(e["data"], _element_type(e["dtype"])).reshape(e["shape"]) for name, e in entries}


def _element_type(text: str) -> np.dtype[Any]:
    """That of "F32", "U8", "BOOL", "BF16"."""
    if text in ("BOOL", "BF16"):
        return as_dtype(text.lower()).numpy
    return np.dtype(f"{text[0].lower()}{int(text[1:]) // 8}")
