"""Kernels called by hand, without a plan: shared by the tests of this folder."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from graphc.backends.numba import build
from graphc.ir.types import DType
from graphc.loops.interp import evaluate_size
from graphc.loops.kernel import Access, Apply, Buffer, Const, For, Kernel, Load, LoopKind, Store, Var

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
I, N = Var("i", DType.int64), Var("n", DType.int64)  # noqa: E741


def run_native(
    kernel: Kernel,
    arrays: Sequence[np.ndarray],
    sizes: Sequence[int] = (),
    status: np.ndarray | None = None,
    lo: int = 0,
    hi: int | None = None,
    first_check: int = 0,
) -> None:
    """Like :func:`graphc.loops.interp.run_kernel`, but the machine code."""
    words = [*(array.ctypes.data for array in arrays), *sizes]
    if kernel.has_checks:
        words += [status.ctypes.data, first_check]
    args = np.array(words, np.int64)
    if hi is None:
        hi = evaluate_size(kernel.extent, dict(zip(kernel.sizes, sizes, strict=True)))
    KERNEL(build.kernel_addresses([kernel])[kernel])(args.ctypes.data, lo, hi)


def elementwise(fn: str, dtype: DType, arity: int, result: DType | None = None) -> Kernel:
    """``y[i] = fn(x0[i], ...)``."""
    result = result or dtype
    buffers = (*(Buffer(f"x{k}", dtype, Access.READ) for k in range(arity)), Buffer("y", result, Access.WRITE))
    value = Apply(fn, tuple(Load(f"x{k}", I, dtype) for k in range(arity)), result)
    loop = For("i", Const(0, DType.int64), N, LoopKind.PARALLEL, (Store("y", I, value),))
    return Kernel(fn, buffers, ("n",), N, (loop,))


def native_function(fn: str, dtype: DType, arity: int = 1) -> Callable[..., np.ndarray]:
    """A scalar function of the kernel IR, over arrays."""
    kernel = elementwise(fn, dtype, arity)

    def function(*arrays: np.ndarray) -> np.ndarray:
        arrays = tuple(np.ascontiguousarray(array, dtype.numpy) for array in arrays)
        y = np.empty_like(arrays[0])
        run_native(kernel, (*arrays, y), (y.size,))
        return y

    return function
