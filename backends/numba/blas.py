"""OpenBLAS as graphc's own: from the scipy-openblas64 wheel, or a copy of the library that NumPy's wheel brings.

Work is split here and one call is one thread's, while NumPy's products shall keep their threads. So the library that
NumPy has loaded will not do, but the same file under another inode is another library to the loader, with threads of
its own. NumPy's has to be loaded before it: both have one name, and NumPy would take whichever came first.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from functools import cache
from pathlib import Path

import numpy as np

from graphc.cache import copy_of
from graphc.errors import BackendError

REMEDY = "pip install scipy-openblas64"
_lock = threading.Lock()


def wheel_library() -> Path | None:
    """The shared library in the wheel of scipy-openblas64, or None."""
    found = importlib.util.find_spec("scipy_openblas64")
    for place in (found.submodule_search_locations or ()) if found else ():
        for path in sorted((Path(place) / "lib").glob("*scipy_openblas*")):
            if path.suffix in (".so", ".dylib", ".dll"):
                return path
    return None


def numpy_library() -> Path | None:
    """The same library as NumPy's wheel for Linux has it, or None: another system, or NumPy from elsewhere."""
    if sys.platform != "linux":
        return None
    folder = Path(np.__file__).parent.parent / "numpy.libs"
    return next(iter(sorted(folder.glob("libscipy_openblas64_*.so"))), None)


def library_path() -> Path | None:
    """The library that is used, or copied if it is NumPy's; None if there is none."""
    return wheel_library() or numpy_library()


def missing() -> str | None:
    """None if OpenBLAS is there, else the reason and the remedy."""
    if library_path() is None:
        return f"OpenBLAS is missing, since NumPy was installed without a copy of it: {REMEDY}"
    return None


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    if path is None:
        raise BackendError("matrix products need OpenBLAS, and NumPy was installed without it", remedy=REMEDY)
    try:
        library = _copy_of_numpys(path) if path == numpy_library() else ctypes.CDLL(str(path))
        library.scipy_openblas_set_num_threads64_(1)
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"OpenBLAS cannot be loaded from {path}",
            details=(str(error),),
            remedy="pip install --force-reinstall scipy-openblas64",
        ) from error
    return library


def _copy_of_numpys(path: Path) -> ctypes.CDLL:
    copy = copy_of(path)
    if copy is None:
        raise OSError("no folder can be written where a copy of it could lie: set GRAPHC_CACHE_DIR to one that can")
    # Deep binding: where some program loads libraries for all to see, this one's calls still stay within it.
    library = ctypes.CDLL(str(copy), mode=os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
    numpys = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    if _address(library, "scipy_openblas_set_num_threads64_") == _address(numpys, "scipy_openblas_set_num_threads64_"):
        raise OSError("this system does not load a copy of a library beside the original")
    return library


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


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
        return _address(_library(), f"scipy_cblas_{routine}64_")
