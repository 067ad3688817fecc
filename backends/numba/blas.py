"""OpenBLAS from the scipy-openblas64 wheel: a copy of graphc's own, so that NumPy's keeps its threads."""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from pathlib import Path

from graphc.errors import BackendError

_lock = threading.Lock()


def library_path() -> Path | None:
    """The shared library in the wheel, or None."""
    found = importlib.util.find_spec("scipy_openblas64")
    for place in (found.submodule_search_locations or ()) if found else ():
        for path in sorted((Path(place) / "lib").glob("*scipy_openblas*")):
            if path.suffix in (".so", ".dylib", ".dll"):
                return path
    return None


def missing() -> str | None:
    """None if OpenBLAS is there, else the reason and the remedy."""
    if library_path() is None:
        return "the package scipy-openblas64 is missing: pip install scipy-openblas64"
    return None


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    if path is None:
        raise BackendError(
            "matrix products need OpenBLAS, and the package scipy-openblas64 is not installed",
            remedy="pip install scipy-openblas64",
        )
    try:
        library = ctypes.CDLL(str(path))
        library.scipy_openblas_set_num_threads64_(1)  # work is split here, one call is one thread's
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"OpenBLAS cannot be loaded from {path}",
            details=(str(error),),
            remedy="pip install --force-reinstall scipy-openblas64",
        ) from error
    return library


def load() -> None:
    """Load OpenBLAS, if that has not happened.

    Raises:
        BackendError: it is not there or broken.
    """
    with _lock:
        _library()


def address(routine: str) -> int:
    """The address of a CBLAS routine with 64-bit integers, such as ``sgemm``."""
    with _lock:
        function = getattr(_library(), f"scipy_cblas_{routine}64_")
    return ctypes.cast(function, ctypes.c_void_p).value or 0
