"""Matrix products by cuBLAS, called by address: CuPy's own calls cannot be recorded in a graph."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from graphc.backends.cupy.device import Product
from graphc.errors import BackendError
from graphc.ir.types import DType

WORKSPACE_BYTES = 32 << 20
_HOST_POINTERS, _DEFAULT_ALGORITHM = 0, -1
TYPES = {DType.float32: 0, DType.float64: 1, DType.float16: 2, DType.bfloat16: 14}
"""The numbers of element types."""
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _COMPUTE_64F = 68, 77, 70
_STATUS = {1: "not initialized", 3: "out of memory", 7: "invalid value", 8: "architecture mismatch", 13: "failed"}


@cache
def library(name: str = "cublas") -> Any:
    """A library of the installed CUDA.

    Raises:
        BackendError: it cannot be loaded.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # pyright: ignore[reportMissingImports]

        return ctypes.CDLL(load_nvidia_dynamic_lib(name).abs_path)
    except (ImportError, RuntimeError, OSError):  # an installation without the package, or of the whole toolkit
        for version in (13, 12):
            try:
                return ctypes.CDLL(f"lib{name}.so.{version}")
            except OSError:
                continue
    raise BackendError("cuBLAS cannot be loaded", remedy="pip install nvidia-cublas")


class Cublas:
    """A handle with a stream and a workspace of its own, so that products on two streams never share memory."""

    def __init__(self, loaded: Any, stream: int, workspace: int) -> None:
        integer, pointer, wide = ctypes.c_int, ctypes.c_void_p, ctypes.c_longlong
        self._library = loaded
        self._gemm = loaded.cublasGemmStridedBatchedEx
        matrix = [pointer, integer, integer, wide]
        self._gemm.argtypes = [
            pointer, integer, integer, integer, integer, integer, pointer, *matrix, *matrix,
            pointer, *matrix, integer, integer, integer,
        ]  # fmt: skip
        loaded.cublasSetWorkspace_v2.argtypes = [pointer, pointer, ctypes.c_size_t]
        loaded.cublasSetStream_v2.argtypes = [pointer, pointer]
        self._handle = ctypes.c_void_p()
        check(loaded.cublasCreate_v2(ctypes.byref(self._handle)))
        check(loaded.cublasSetStream_v2(self._handle, stream))
        check(loaded.cublasSetWorkspace_v2(self._handle, workspace, WORKSPACE_BYTES))
        check(loaded.cublasSetPointerMode_v2(self._handle, _HOST_POINTERS))
        self._scalars = {
            DType.float32: (ctypes.c_float(1), ctypes.c_float(0)),
            DType.float64: (ctypes.c_double(1), ctypes.c_double(0)),
        }

    def product(self, item: Product) -> None:
        """Queue a product. cuBLAS counts by columns, for which row-major matrices are transposed: c.T = b.T @ a.T."""
        one, zero = self._scalars[DType.float64 if item.dtype is DType.float64 else DType.float32]
        stride_a, stride_b, stride_c = item.strides
        of, to = TYPES[item.dtype], TYPES[item.result]
        check(
            self._gemm(
                self._handle, int(item.transpose_b), int(item.transpose_a), item.n, item.m, item.k,
                ctypes.addressof(one), item.b, of, item.ldb, stride_b, item.a, of, item.lda, stride_a,
                ctypes.addressof(zero), item.c, to, item.ldc, stride_c, item.batch,
                compute_type(item), _DEFAULT_ALGORITHM,
            )
        )  # fmt: skip


def compute_type(item: Product) -> int:
    """What is accumulated in, and what operands may be rounded to."""
    if item.dtype is DType.float64:
        return _COMPUTE_64F
    return _COMPUTE_32F_FAST_TF32 if item.tf32 and item.dtype is DType.float32 else _COMPUTE_32F


def check(status: int) -> None:
    """Raise what a status of cuBLAS says.

    Raises:
        BackendError: the call failed.
    """
    if status:
        raise BackendError(
            f"cuBLAS failed: {_STATUS.get(status, 'error')} ({status})",
            remedy="free memory of the GPU; if there is enough, report this with the shapes of the product",
        )
