"""The GPU backend: kernels as CUDA C for NVIDIA GPUs."""

from __future__ import annotations

import ctypes
import importlib.util
from typing import NoReturn

from graphc.errors import BackendError

_NOT_YET = "the GPU backend prints and compiles kernels but does not run programs yet"


class CupyBackend:
    """Prints kernels as CUDA C and compiles them; see :class:`graphc.backend.Backend` for the attributes."""

    name = "cupy"
    priority = 100
    lowers = True

    def available(self) -> str | None:
        if importlib.util.find_spec("cupy") is None:
            return "CuPy is not installed: pip install 'graphc[gpu]'"
        return _driver_problem() or f"{_NOT_YET}: use backend='numba'"

    def takes(self, op: object) -> bool:
        return False

    def compile(self, plan: object) -> NoReturn:
        raise BackendError(self.available() or _NOT_YET, remedy="use backend='numba' or backend='auto'")


def _driver_problem() -> str | None:
    """Asks the driver's library itself, since importing CuPy takes long and says less."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "WinDLL") else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver: install it from https://www.nvidia.com/drivers"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU: see what nvidia-smi says"
    return None


backend = CupyBackend()
