"""Kernels and native functions as addresses: from the disk cache, or compiled and put there.

What is found in the cache is loaded with llvmlite alone; Numba is imported when something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from graphc import cache as disk
from graphc.backends.numba.forks import make_lock
from graphc.backends.numba.machine import Loader, cpu_features, cpu_name
from graphc.backends.numba.printer import kernel_source
from graphc.loops.kernel import Kernel

OBJECT = "object"

_lock = make_lock()
_addresses: dict[str, int] = {}
_sources: dict[Kernel, str] = {}


@cache
def target() -> str:
    """All that object code depends on beside its source: the CPU, the compilers, this code generator."""
    state: list[str | bytes] = [cpu_name(), cpu_features(), version("numba"), version("llvmlite")]
    state += [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
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
    sources = {kernel: source_of(kernel) for kernel in kernels}
    _provide([_kernel_code(source) for source in dict.fromkeys(sources.values()) if source not in _addresses])
    return {kernel: _addresses[source] for kernel, source in sources.items()}


def native_addresses(names: Iterable[str]) -> dict[str, int]:
    """Addresses of functions of ``native.py``: the executor, its worker, matrix products."""
    names = tuple(names)
    _provide([_native_code(name) for name in names if name not in _addresses])
    return {name: _addresses[name] for name in names}


@dataclass(frozen=True)
class _Code:
    """What is wanted: its name here, its key on disk, its symbol, and how it is compiled."""

    name: str
    key: str
    symbol: str
    compile: Callable[[], bytes]


def _kernel_code(source: str) -> _Code:
    key = disk.digest(target(), source)
    symbol = f"graphc_kernel_{key[:16]}"

    def compile_it() -> bytes:
        from graphc.backends.numba.compiler import compile_kernel

        return compile_kernel(source, source_path(source), symbol)

    return _Code(source, key, symbol, compile_it)


def _native_code(name: str) -> _Code:
    symbol = f"graphc_{name}"

    def compile_it() -> bytes:
        from graphc.backends.numba.compiler import compile_function
        from graphc.backends.numba.native import FUNCTIONS, WIDE_ENOUGH

        function, arguments, returns = FUNCTIONS[name]
        return compile_function(function, arguments, symbol, returns, unroll=name not in WIDE_ENOUGH)

    return _Code(name, disk.digest(target(), "native", name), symbol, compile_it)


def _provide(wanted: list[_Code]) -> None:
    """Load all that is wanted, and compile what the cache does not have."""
    with _lock:
        for code in wanted:
            if code.name in _addresses:  # by another thread, just now
                continue
            data = disk.get(code.key, OBJECT)
            if data is None or not _load(code, data):
                data = code.compile()
                disk.put(code.key, OBJECT, data)
                loaded = _load(code, data)
                assert loaded, f"the object code of {code.symbol} does not define it"


def _load(code: _Code, data: bytes) -> bool:
    _loader().load(data)
    address = _loader().address(code.symbol)
    if address:
        _addresses[code.name] = address
    return bool(address)
