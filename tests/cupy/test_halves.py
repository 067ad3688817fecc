"""float16 and bfloat16 in CUDA C: every value, and what lies between two of them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import module_source
from graphc.ir.types import DType
from graphc.loops.gpu import map_to_gpu
from tests.cupy.emulator import Emulator
from tests.numba.native import elementwise
from tests.ops.halves import HALVES, every_half, floats_around, same_bits

WIDEN = {dtype: replace(elementwise("cast", dtype, 1, DType.float32), name=f"widen_{dtype}") for dtype in HALVES}
ROUND = {dtype: replace(elementwise("cast", DType.float32, 1, dtype), name=f"round_{dtype}") for dtype in HALVES}
MAPPED = {kernel: map_to_gpu(kernel) for kernel in (*WIDEN.values(), *ROUND.values())}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Emulator:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Emulator(list(MAPPED.values()), tmp_path_factory.mktemp("emulator"))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_is_read_as_the_float32_it_is(emulator, dtype):
    x = every_half(dtype)
    y = np.empty(x.size, np.float32)
    emulator.run(MAPPED[WIDEN[dtype]], [x, y], (x.size,), np.zeros(2, np.int64))
    same_bits(y, x.astype(np.float32))


@pytest.mark.parametrize("dtype", HALVES)
def test_float32_is_rounded_to_the_nearest_half(emulator, dtype):
    x = floats_around(dtype, random=20_000)
    y = np.empty(x.size, dtype.numpy)
    emulator.run(MAPPED[ROUND[dtype]], [x, y], (x.size,), np.zeros(2, np.int64))
    with np.errstate(all="ignore"):
        same_bits(y, x.astype(dtype.numpy))


@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
def test_nvrtc_compiles_the_conversions(arch):
    assert compile_cubin(module_source(list(MAPPED.values())), arch).code.startswith(b"\x7fELF")
