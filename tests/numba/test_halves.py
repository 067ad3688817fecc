"""float16 and bfloat16 in native code: every value, what lies between two of them, and what the code is made of."""

from __future__ import annotations

import re

import numpy as np
import pytest

from graphc.backends.numba.compiler import compile_kernel
from graphc.backends.numba.printer import kernel_source
from graphc.ir.types import DType
from tests.numba.native import elementwise, run_native
from tests.ops.halves import HALVES, every_half, floats_around, same_bits


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_is_read_as_the_float32_it_is(dtype):
    x = every_half(dtype)
    y = np.empty(x.size, np.float32)
    run_native(elementwise("cast", dtype, 1, DType.float32), [x, y], (x.size,))
    same_bits(y, x.astype(np.float32))


@pytest.mark.parametrize("dtype", HALVES)
def test_float32_is_rounded_to_the_nearest_half(dtype):
    x = floats_around(dtype, random=1_000_000)
    y = np.empty(x.size, dtype.numpy)
    run_native(elementwise("cast", DType.float32, 1, dtype), [x, y], (x.size,))
    with np.errstate(all="ignore"):
        same_bits(y, x.astype(dtype.numpy))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("to_half", [False, True])
def test_conversions_call_no_library(dtype, to_half):
    source, target = (DType.float32, dtype) if to_half else (dtype, DType.float32)
    data = compile_kernel(kernel_source(elementwise("cast", source, 1, target)), "kernel.py", "conversion")
    names = set(re.findall(rb"[A-Za-z_][\w.]{3,}", data))
    assert b"conversion" in names
    assert not [name for name in names if re.search(rb"sfhf|hfsf|sfbf|gnu_[fh]2|Py_|numba_|NRT_", name)]
