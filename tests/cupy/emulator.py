"""Compiles printed CUDA C with the host compiler and runs it on the CPU; see emulate.hpp."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphc.backends.cupy.printer import function_name, module_source
from graphc.loops.interp import evaluate_size
from graphc.loops.kernel import For, Kernel

ANY = "struct Any { void* address; template <class T> operator T*() const { return (T*)address; } };\n"
HEADER = Path(__file__).parent / "emulate.hpp"


class Diverged(AssertionError):
    """Threads that should meet wait at different places, or are gone."""


class Emulator:
    """Some mapped kernels as a library of the host; ``downwards``, the last thread runs first."""

    def __init__(self, kernels: Sequence[Kernel], folder: Path) -> None:
        source, library = folder / "kernels.cpp", folder / "kernels.so"
        launchers = "".join(map(_launcher, kernels))
        text = f'#include "{HEADER}"\n#include "kernels.cu"\n{ANY}{launchers}'
        (folder / "kernels.cu").write_text(module_source(kernels), encoding="utf-8")
        source.write_text(text, encoding="utf-8")
        # products and sums apart, as in NumPy; warnings are errors, but a #pragma unroll is nvcc's alone
        options = ["-O1", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror"]
        options += ["-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-tautological-compare"]
        command = ["g++", *options, "-o", str(library), str(source)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert not result.returncode, result.stderr[:5000]
        self._library = ctypes.CDLL(str(library))

    def run(
        self,
        kernel: Kernel,
        arrays: Sequence[np.ndarray],
        sizes: Sequence[int],
        status: np.ndarray,
        downwards: bool = False,
    ) -> None:
        """Launch a kernel with the blocks and threads that it was mapped to.

        Raises:
            Diverged: the threads of a block did not meet at the same barriers.
        """
        launch = self._library[f"launch_{function_name(kernel)}"]
        launch.restype = ctypes.c_char_p
        outer = kernel.body[0]
        assert isinstance(outer, For)
        blocks = evaluate_size(outer.stop, dict(zip(kernel.sizes, sizes, strict=True)))
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        numbers = [ctypes.c_longlong(size) for size in sizes]
        cell = [ctypes.c_void_p(status.ctypes.data)] * kernel.has_checks
        problem = launch(ctypes.c_longlong(blocks), ctypes.c_int(downwards), *pointers, *numbers, *cell)
        if problem:
            raise Diverged(f"{kernel.name}: {problem.decode()}")


def _launcher(kernel: Kernel) -> str:
    """A C function that launches one kernel; pointers come as such, without their types."""
    name = function_name(kernel)
    pointers = [f"void* b{i}" for i in range(len(kernel.buffers) + kernel.has_checks)]
    sizes = [f"long long s{i}" for i in range(len(kernel.sizes))]
    count = len(kernel.buffers)
    given = [f"Any{{b{i}}}" for i in range(count)] + [f"s{i}" for i in range(len(sizes))]
    given += [f"Any{{b{count}}}"] * kernel.has_checks
    parameters = ", ".join(["long long blocks", "int downwards", *pointers[:count], *sizes, *pointers[count:]])
    return f"""
extern "C" const char* launch_{name}({parameters}) {{
    return emulate::launch(blocks, {kernel.threads}, downwards, [=] {{ {name}({", ".join(given)}); }});
}}
"""
