"""Compiles printed CUDA C with the host compiler and runs it on the CPU; see emulate.hpp."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from graphc import cache
from graphc.backends.cupy.attention import Variant
from graphc.backends.cupy.convolution import Variant as Convolving
from graphc.backends.cupy.printer import (
    POST_RESULTS,
    SHORT_PRODUCT,
    THIN_PRODUCT,
    Entry,
    blocks_of,
    dynamic_bytes,
    function_name,
    module_source,
)
from graphc.backends.cupy.products import FINISH_PRODUCT
from graphc.loops.kernel import Barrier, Combine, Kernel, walk

HEADER = Path(__file__).parent / "emulate.hpp"
RUNTIME = Path(__file__).parent / "emulate.cpp"
# products and sums apart, as in NumPy; warnings are errors, but a #pragma unroll is nvcc's alone
OPTIONS = ["-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared", "-Wall", "-Werror"]
OPTIONS += ["-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-tautological-compare", "-Wno-unused-variable"]

ANY = "struct Any { long long address; template <class T> operator T*() const { return (T*)address; } };\n"


class Diverged(AssertionError):
    """Threads that should meet wait at different places, or are gone."""


@functools.cache
def runtime() -> Path:
    """The compiled fibers, which all libraries of kernels share."""
    library = _compiled(f'#include "{RUNTIME}"\n', ["-O2"])
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return library


def compile_kernels(
    entries: Sequence[tuple[Kernel, Entry]],
    source: str,
    folder: Path | None = None,
    small_products: bool = False,
    attention: Sequence[Variant] = (),
    convolution: Sequence[Convolving] = (),
    functions: Mapping[str, tuple[int, int, int]] = MappingProxyType({}),
) -> ctypes.CDLL:
    """A library with a function ``launch_NAME(blocks, downwards, words)`` for each kernel, kept in the cache or there.

    ``functions`` are others of the source: threads of a block, pointers and numbers that each takes.
    """
    runtime()
    launchers = [ANY, _fixed_launcher(POST_RESULTS, 128, 3, 3)]
    if small_products:
        launchers += [_fixed_launcher(name, 256, 5, 9) for name in (THIN_PRODUCT, SHORT_PRODUCT)]
        launchers.append(_fixed_launcher(FINISH_PRODUCT, 256, 3, 5))
    launchers += [_fixed_launcher(name, *given) for name, given in functions.items()]
    launchers += [_template_launcher(variant) for variant in (*attention, *convolution)]
    launchers += [_launcher(kernel, entry) for kernel, entry in entries]
    text = f'#include "{HEADER}"\n{source}\n{"".join(launchers)}'
    return ctypes.CDLL(str(_compiled(text, ["-O0"], folder)))


def launch(library: ctypes.CDLL, function: str, blocks: int, words: np.ndarray, downwards: bool = False) -> None:
    """Run a kernel.

    Raises:
        Diverged: the threads of a block did not meet at the same barriers.
    """
    run = library[f"launch_{function}"]
    run.restype = ctypes.c_char_p
    problem = run(ctypes.c_longlong(blocks), ctypes.c_int(downwards), ctypes.c_void_p(words.ctypes.data))
    if problem:
        raise Diverged(f"{function}: {problem.decode()}")


class Emulator:
    """Some mapped kernels as a library of the host; ``downwards``, the last thread runs first."""

    def __init__(self, kernels: Sequence[Kernel], folder: Path | None = None) -> None:
        self._library = compile_kernels([(kernel, Entry()) for kernel in kernels], module_source(kernels), folder)

    def run(
        self,
        kernel: Kernel,
        arrays: Sequence[np.ndarray],
        sizes: Sequence[int],
        status: np.ndarray,
        downwards: bool = False,
    ) -> None:
        """Launch a kernel with the blocks and threads that it was mapped to."""
        blocks = blocks_of(kernel, sizes)
        packed = [array if array.ctypes.data % 16 == 0 else _aligned_copy(array) for array in arrays]
        words = [array.ctypes.data for array in packed] + list(sizes)
        words += [status.ctypes.data, 0] * kernel.has_checks
        launch(self._library, function_name(kernel), blocks, np.array(words, np.int64), downwards)
        for array, copy in zip(arrays, packed, strict=True):
            if copy is not array:
                array[...] = copy


def aligned_bytes(nbytes: int, alignment: int = 256) -> np.ndarray:
    """Memory that begins where that of a GPU may."""
    raw = np.empty(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    copy = aligned_bytes(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _compiled(text: str, options: list[str], folder: Path | None = None) -> Path:
    """A library from C++, kept beside the other compiled kernels."""
    headers = HEADER.read_text() + RUNTIME.read_text()
    key = hashlib.sha256("\0".join([text, headers, *OPTIONS, *options]).encode()).hexdigest()
    if folder is None:
        root = cache.folder()
        folder = Path(tempfile.mkdtemp()) if root is None else root / "emulated"
    folder.mkdir(exist_ok=True)
    library = folder / f"{key[:32]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            source, made = Path(name) / "kernels.cpp", Path(name) / "kernels.so"
            source.write_text(text, encoding="utf-8")
            command = ["g++", *OPTIONS, *options, "-o", str(made), str(source)]
            result = subprocess.run(command, capture_output=True, text=True)
            assert not result.returncode, result.stderr[:5000]
            os.replace(made, library)
    return library


def _fixed_launcher(name: str, threads: int, pointers: int, numbers: int) -> str:
    """The same for a function of the headers."""
    given = [f"Any{{words[{i}]}}" for i in range(pointers)] + [f"words[{pointers + i}]" for i in range(numbers)]
    return f"""
static void call_{name}(const long long* words) {{ {name}({", ".join(given)}); }}
extern "C" const char* launch_{name}(long long blocks, int downwards, const long long* words) {{
    return emulate::launch(blocks, {threads}, 0, true, downwards, call_{name}, words);
}}
"""


def _template_launcher(variant: Variant | Convolving) -> str:
    """The same for an instantiation of a template, whose arguments are one structure."""
    return f"""
static void call_{variant.name}(const long long* words) {{ {variant.name}(*(const {variant.structure}*)words); }}
extern "C" const char* launch_{variant.name}(long long blocks, int downwards, const long long* words) {{
    return emulate::launch(
        blocks, {variant.threads}, {variant.shared_bytes}, true, downwards, call_{variant.name}, words);
}}
"""


def _launcher(kernel: Kernel, entry: Entry) -> str:
    """A C function that launches one kernel on words: addresses and sizes, or a table by value."""
    name = function_name(kernel, entry)
    meets = str(any(isinstance(s, Barrier | Combine) for s in walk(kernel.body))).lower()
    if entry.table:
        given = f"*(const {name}_arguments*)words"
    else:
        pointers = len(kernel.buffers)
        kinds = ["Any"] * pointers + ["long long"] * len(kernel.sizes)
        kinds += ["Any", "long long"] * kernel.has_checks + ["Any"] * entry.guarded
        given = ", ".join(f"Any{{words[{i}]}}" if kind == "Any" else f"words[{i}]" for i, kind in enumerate(kinds))
    return f"""
static void call_{name}(const long long* words) {{ {name}({given}); }}
extern "C" const char* launch_{name}(long long blocks, int downwards, const long long* words) {{
    return emulate::launch(
        blocks, {kernel.block_threads}, {dynamic_bytes(kernel)}, {meets}, downwards, call_{name}, words);
}}
"""
