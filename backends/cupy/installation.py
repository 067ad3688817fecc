"""What there is on this machine for the GPU backend, found out without importing CuPy, which takes a second."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

DISTRIBUTIONS = {"cupy-cuda12x": 12, "cupy-cuda13x": 13}
"""Builds of CuPy, and the version of CUDA that each is for."""
OLDEST = (8, 0)
"""The compute capability that kernels are written for."""
_MAJOR, _MINOR = 75, 76
"""CUDA's numbers for the two parts of it."""
_DOWNLOAD = "https://www.nvidia.com/drivers"


def problem() -> str | None:
    """None if programs can run on a GPU here, else the reason and the remedy in one sentence."""
    if not has_cupy():
        return "CuPy is not installed: pip install 'graphc[gpu]'"
    driver = load_driver()
    if driver is None:
        return f"there is no NVIDIA driver: install it from {_DOWNLOAD}"
    if not gpu_count():
        return "the NVIDIA driver finds no GPU: see what `nvidia-smi` says"
    if capability() < OLDEST:
        shown, oldest = (".".join(map(str, each)) for each in (capability(), OLDEST))
        return (
            f"the GPU is older than Ampere: its compute capability is {shown}, {oldest} is needed: if there is a newer "
            "one, choose it with CUDA_VISIBLE_DEVICES"
        )
    supports, needs = driver_version(), cuda_of_cupy()
    if needs and supports < 1000 * needs:
        return (
            f"the NVIDIA driver is too old: it is made for CUDA {supports // 1000}.{supports % 1000 // 10}, CuPy for "
            f"CUDA {needs}: install a newer one from {_DOWNLOAD}"
        )
    for module, package in (("cuda.bindings", "cuda-bindings"), ("cuda.pathfinder", "cuda-pathfinder")):
        if not _is_there(module):
            return f"the package {package} is missing: pip install {package}"
    return None


def has_cupy() -> bool:
    """Is CuPy installed?"""
    return importlib.util.find_spec("cupy") is not None


def cuda_of_cupy() -> int:
    """The version of CUDA that the installed CuPy is built for; 0 where it does not say."""
    for name, major in DISTRIBUTIONS.items():
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return major
    return 0


@cache
def load_driver() -> Any:
    """The driver's library, which says more than an import of CuPy that fails; None if there is none."""
    try:
        return ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "WinDLL") else "libcuda.so.1")
    except OSError:
        return None


def driver_version() -> int:
    """The newest CUDA that the driver supports, such as 13000; 0 without a driver."""
    driver, found = load_driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(found)):
        return 0
    return found.value


def gpu_count() -> int:
    """How many GPUs the driver finds."""
    driver, count = load_driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def capability(number: int = 0) -> tuple[int, int]:
    """What a GPU can do, as NVIDIA counts it: (8, 0) for Ampere; (0, 0) if the driver does not say."""
    driver, device, part = load_driver(), ctypes.c_int(0), ctypes.c_int(0)
    if number >= gpu_count() or driver.cuDeviceGet(ctypes.byref(device), number):
        return 0, 0
    found: list[int] = []
    for attribute in (_MAJOR, _MINOR):
        failed = driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        found.append(0 if failed else part.value)
    return found[0], found[1]


def gpus() -> list[tuple[str, int]]:
    """The name and the bytes of memory of each GPU."""
    driver = load_driver()
    found: list[tuple[str, int]] = []
    for number in range(gpu_count()):
        name, total = ctypes.create_string_buffer(256), ctypes.c_size_t(0)
        device = ctypes.c_int(0)
        if driver.cuDeviceGet(ctypes.byref(device), number):
            continue
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        found.append((name.value.decode(errors="replace"), total.value))
    return found


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
