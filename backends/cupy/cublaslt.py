"""Products that add a bias or a matrix and apply an activation, by cuBLASLt, called by address.

Algorithms are those that the library's heuristics name first among such that add up in one order only: either no sum is
split, or its parts are kept in float32 and added in a separate step. One is found for each shape, and kept. An
activation is used where it keeps NaN, as graphc's do: the documentation does not say, so each algorithm is tried once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

from graphc.backends.cupy.cublas import TYPES, WORKSPACE_BYTES, check, compute_type
from graphc.backends.cupy.device import ALIGNMENT, Activation, Device, Product
from graphc.ir.types import DType


class Name(IntEnum):
    """Numbers by their names in cublasLt.h."""

    CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5
    CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6
    CUBLASLT_MATMUL_DESC_TRANSA = 3
    CUBLASLT_MATMUL_DESC_TRANSB = 4
    CUBLASLT_MATMUL_DESC_EPILOGUE = 7
    CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8
    CUBLASLT_EPILOGUE_DEFAULT = 1
    CUBLASLT_EPILOGUE_RELU = 2
    CUBLASLT_EPILOGUE_BIAS = 4
    CUBLASLT_EPILOGUE_GELU = 32
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8
    CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2


_ACTIVATIONS = {
    Activation.NONE: 0,
    Activation.RELU: Name.CUBLASLT_EPILOGUE_RELU,
    Activation.GELU: Name.CUBLASLT_EPILOGUE_GELU,
}
_TRANSPOSED = 1


class Algorithm(ctypes.Structure):
    """What the heuristics answer."""

    _fields_ = (
        ("data", ctypes.c_uint64 * 8),
        ("workspace_bytes", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@dataclass(frozen=True)
class _Described:
    """A product as the library is told of it; c is the transposed result, as are all matrices."""

    operation: ctypes.c_void_p
    a: ctypes.c_void_p
    b: ctypes.c_void_p
    c: ctypes.c_void_p


class CublasLt:
    """The library on one device.

    Args:
        loaded: the library.
        device: where it multiplies; it tries activations there.
        stream: of the device.
    """

    def __init__(self, loaded: Any, device: Device, stream: int) -> None:
        self._library = loaded
        self._device = device
        self._stream = stream
        pointer, count = ctypes.c_void_p, ctypes.c_size_t
        loaded.cublasLtMatmulDescCreate.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
        loaded.cublasLtMatrixLayoutCreate.argtypes = [
            pointer, ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64,
        ]  # fmt: skip
        for kind in ("MatmulDesc", "MatrixLayout", "MatmulPreference"):
            getattr(loaded, f"cublasLt{kind}SetAttribute").argtypes = [pointer, ctypes.c_int, pointer, count]
            getattr(loaded, f"cublasLt{kind}Destroy").argtypes = [pointer]
        loaded.cublasLtMatmulAlgoGetHeuristic.argtypes = [*[pointer] * 7, ctypes.c_int, pointer, pointer]
        loaded.cublasLtMatmul.argtypes = [*[pointer] * 14, count, pointer]
        self._handle = ctypes.c_void_p()
        check(loaded.cublasLtCreate(ctypes.byref(self._handle)))
        self._algorithms: dict[Product, Algorithm | None] = {}
        self._offered: dict[Product, bool] = {}

    def finishes(self, item: Product) -> bool:
        """Does it offer this product, with what is done to its sums as graphc means it?"""
        if item.dtype is DType.float64 or (item.activation is not Activation.NONE and not item.bias):
            return False
        key = _key(item)
        if key not in self._offered:
            algorithm = self._algorithm(item)
            self._offered[key] = algorithm is not None and self._keeps_nan(item, algorithm)
        return self._offered[key]

    def product(self, item: Product, stream: int, workspace: int) -> None:
        """Queue a product that :meth:`finishes` takes. The workspace has ``WORKSPACE_BYTES``."""
        algorithm = self._algorithm(item)
        assert algorithm is not None  # it was asked for
        self._multiply(item, algorithm, stream, workspace)

    def _multiply(self, item: Product, algorithm: Algorithm, stream: int, workspace: int) -> None:
        one, beta = ctypes.c_float(1), ctypes.c_float(1 if item.addend else 0)
        with self._described(item) as told:
            check(
                self._library.cublasLtMatmul(
                    self._handle, told.operation, ctypes.addressof(one), item.b, told.a, item.a, told.b,
                    ctypes.addressof(beta), item.addend or item.c, told.c, item.c, told.c,
                    ctypes.addressof(algorithm), workspace, WORKSPACE_BYTES, stream,
                )
            )  # fmt: skip

    def _algorithm(self, item: Product) -> Algorithm | None:
        """The best one by the library's heuristics; None if there is none."""
        key = _key(item)
        if key not in self._algorithms:
            self._algorithms[key] = self._find(item)
        return self._algorithms[key]

    def _find(self, item: Product) -> Algorithm | None:
        library, found, count = self._library, Algorithm(), ctypes.c_int(0)
        preference = ctypes.c_void_p()
        check(library.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)))
        try:
            wanted: dict[Name, Any] = {
                Name.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: ctypes.c_uint64(WORKSPACE_BYTES),
                Name.CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: ctypes.c_uint32(
                    Name.CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                ),
                Name.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: ctypes.c_uint32(_alignment(item.b)),
                Name.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: ctypes.c_uint32(_alignment(item.a)),
                Name.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: ctypes.c_uint32(_alignment(item.addend or item.c)),
                Name.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: ctypes.c_uint32(_alignment(item.c)),
            }
            for name, value in wanted.items():
                self._set("MatmulPreference", preference, name, value)
            with self._described(item) as told:
                status = library.cublasLtMatmulAlgoGetHeuristic(
                    self._handle, told.operation, told.a, told.b, told.c, told.c, preference,
                    1, ctypes.byref(found), ctypes.byref(count),
                )  # fmt: skip
        finally:
            check(library.cublasLtMatmulPreferenceDestroy(preference))
        return None if status or not count.value or found.state else found

    @contextmanager
    def _described(self, item: Product) -> Iterator[_Described]:
        """Columns come first there, for which row-major matrices are transposed: c.T = b.T @ a.T.

        So an element of the bias for each column of c is one for each row, as the library wants it.
        """
        library, of = self._library, TYPES[item.dtype]
        made: list[tuple[str, ctypes.c_void_p]] = []

        def layout(dtype: int, transposed: bool, rows: int, columns: int, row: int, stride: int) -> ctypes.c_void_p:
            found = ctypes.c_void_p()
            sides = (columns, rows) if transposed else (rows, columns)
            check(library.cublasLtMatrixLayoutCreate(ctypes.byref(found), dtype, *sides, row))
            made.append(("MatrixLayout", found))
            if item.batch > 1:
                name = Name.CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET
                self._set("MatrixLayout", found, Name.CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, ctypes.c_int32(item.batch))
                self._set("MatrixLayout", found, name, ctypes.c_int64(stride))
            return found

        try:
            operation = ctypes.c_void_p()
            check(library.cublasLtMatmulDescCreate(ctypes.byref(operation), compute_type(item), TYPES[DType.float32]))
            made.append(("MatmulDesc", operation))
            epilogue = _ACTIVATIONS[item.activation] | (Name.CUBLASLT_EPILOGUE_BIAS if item.bias else 0)
            wanted: dict[Name, Any] = {
                Name.CUBLASLT_MATMUL_DESC_TRANSA: ctypes.c_int32(_TRANSPOSED * item.transpose_b),
                Name.CUBLASLT_MATMUL_DESC_TRANSB: ctypes.c_int32(_TRANSPOSED * item.transpose_a),
                Name.CUBLASLT_MATMUL_DESC_EPILOGUE: ctypes.c_uint32(epilogue or Name.CUBLASLT_EPILOGUE_DEFAULT),
            }
            if item.bias:
                wanted[Name.CUBLASLT_MATMUL_DESC_BIAS_POINTER] = ctypes.c_void_p(item.bias)
            for name, value in wanted.items():
                self._set("MatmulDesc", operation, name, value)
            stride_a, stride_b, stride_c = item.strides
            yield _Described(
                operation,
                layout(of, item.transpose_b, item.n, item.k, item.ldb, stride_b),
                layout(of, item.transpose_a, item.k, item.m, item.lda, stride_a),
                layout(TYPES[item.result], False, item.n, item.m, item.ldc, stride_c),
            )
        finally:
            for kind, thing in reversed(made):
                check(getattr(library, f"cublasLt{kind}Destroy")(thing))

    def _set(self, kind: str, thing: ctypes.c_void_p, name: Name, value: Any) -> None:
        set_attribute = getattr(self._library, f"cublasLt{kind}SetAttribute")
        check(set_attribute(thing, int(name), ctypes.byref(value), ctypes.sizeof(value)))

    def _keeps_nan(self, item: Product, algorithm: Algorithm) -> bool:
        """Does the activation of NaN give NaN? The product is computed once with a bias of these, into other memory."""
        if item.activation is Activation.NONE:
            return True
        device, of = self._device, item.result.numpy
        nan, row = np.full(item.n, np.nan, of), np.zeros(item.n, of)
        last = (item.batch - 1) * item.strides[2] + (item.m - 1) * item.ldc
        bias = device.allocate(nan.nbytes, "a bias to try an activation with")
        result = device.allocate((last + item.n) * of.itemsize, "a result to try an activation with")
        workspace = device.allocate(WORKSPACE_BYTES, "a workspace of cuBLAS")
        device.upload(bias.address, nan)
        tried = replace(item, bias=bias.address, c=result.address)
        self._multiply(tried, algorithm, self._stream, workspace.address)
        for first in (0, last):
            device.download(row, result.address + first * of.itemsize)
            device.synchronize()
            if not np.isnan(row.astype(np.float32)).all():
                return False
        return True


def _key(item: Product) -> Product:
    """The product with alignments in the place of addresses."""
    a, b, c, bias, addend = (_alignment(address) for address in (item.a, item.b, item.c, item.bias, item.addend))
    return replace(item, a=a, b=b, c=c, bias=bias, addend=addend)


def _alignment(address: int) -> int:
    """The largest power of two that an address is a multiple of, as far as it matters; 0 of none."""
    return min(address & -address, ALIGNMENT)


__all__ = ["Algorithm", "CublasLt", "Name"]
