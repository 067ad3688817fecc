"""Kernels and native functions as addresses: from the disk cache, or compiled and put there.

What is found in the cache is loaded with llvmlite alone; Numba is imported when something is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from graphc import cache as disk
from graphc.backends.numba.machine import Loader, cpu_features, cpu_name
from graphc.backends.numba.printer import kernel_source
from graphc.loops.kernel import Kernel

OBJECT = "object"

_lock = threading.RLock()
_addresses: dict[str, int] = {}
_sources: dict[Kernel, str] = {}


@cache
def target() -> str:
    """All that object code depends on beside its source: the CPU, the compilers, this code generator."""
    state = [cpu_name(), cpu_features(), version("numba"), version("llvmlite")]
    state += [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return disk.digest(*state)


@cache
def _loader() -> Loader:
    return Loader()


def source_of(kernel: Kernel) -> str:
    """The generated source of a kernel."""
    source = _sources.get(kernel)
    if source is None:
        source = _sources[kernel] = kernel_source(kernel)
    return source


def source_path(source: str) -> str:
    """The file that holds generated source (written if need be)."""
    return disk.put_source(disk.digest(source)[:32], source)


def kernel_addresses(kernels: Iterable[Kernel]) -> dict[Kernel, int]:
    """Addresses of kernels; those of equal text are one."""
    return {kernel: _address(source_of(kernel)) for kernel in kernels}


def _address(source: str) -> int:
    with _lock:
        known = _addresses.get(source)
        if known is None:
            key = disk.digest(target(), source)
            symbol = f"graphc_kernel_{key[:16]}"
            data = disk.get(key, OBJECT)
            path = source_path(source)
            known = _load(data, symbol)
            if known is None:
                from graphc.backends.numba.compiler import compile_kernel

                data = compile_kernel(source, path, symbol)
                disk.put(key, OBJECT, data)
                known = _load(data, symbol)
                assert known is not None
            _addresses[source] = known
        return known


def native_address(name: str) -> int:
    """The address of a function of ``native.py``: the executor, its worker, or a matrix product."""
    with _lock:
        known = _addresses.get(name)
        if known is None:
            key = disk.digest(target(), "native", name)
            symbol = f"graphc_{name}"
            data = disk.get(key, OBJECT)
            known = _load(data, symbol)
            if known is None:
                from graphc.backends.numba.compiler import compile_function
                from graphc.backends.numba.native import FUNCTIONS

                function, arguments, returns = FUNCTIONS[name]
                data = compile_function(function, arguments, symbol, returns)
                disk.put(key, OBJECT, data)
                known = _load(data, symbol)
                assert known is not None
            _addresses[name] = known
        return known


def _load(data: bytes | None, symbol: str) -> int | None:
    if data is None:
        return None
    _loader().load(data)
    return _loader().address(symbol) or None
