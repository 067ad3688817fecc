"""Short ways to write kernels by hand, and what a case of a kernel is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.ir.types import DType
from graphc.loops.kernel import (
    Access,
    Apply,
    Buffer,
    Const,
    Expr,
    For,
    Kernel,
    LoopKind,
    Stmt,
    Var,
)

Arrays = list[np.ndarray]
BOOL, U32, I32, I64, F32, F64 = DType.bool, DType.uint32, DType.int32, DType.int64, DType.float32, DType.float64
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isfinite")


def const(value: Any, dtype: DType = I64) -> Const:
    return Const(value, dtype)


def var(name: str, dtype: DType = I64) -> Var:
    return Var(name, dtype)


def apply(fn: str, *args: Expr, dtype: DType | None = None) -> Apply:
    if dtype is None:
        dtype = BOOL if fn in COMPARISONS else args[-1].dtype
    return Apply(fn, args, dtype)


def at(row: Expr, columns: Expr, column: Expr) -> Expr:
    return apply("add", apply("mul", row, columns), column)


def loop(kind: LoopKind, name: str, stop: Expr, *body: Stmt) -> For:
    return For(name, const(0), stop, kind, body)


def parallel(extent: Expr, *body: Stmt) -> tuple[Stmt, ...]:
    return (loop(LoopKind.PARALLEL, "i", extent, *body),)


def read(name: str, dtype: DType) -> Buffer:
    return Buffer(name, dtype, Access.READ)


def write(name: str, dtype: DType) -> Buffer:
    return Buffer(name, dtype, Access.WRITE)


def update(name: str, dtype: DType) -> Buffer:
    return Buffer(name, dtype, Access.UPDATE)


@dataclass(frozen=True)
class Case:
    """``arguments(rng, *sizes)`` are the arrays, ``expected(arrays, *sizes)`` what the written ones hold after."""

    kernel: Kernel
    sizes: tuple[tuple[int, ...], ...]
    arguments: Callable[..., Arrays]
    expected: Callable[..., dict[str, np.ndarray]]
    rtol: float = 0.0
    status: Callable[..., list[int]] = field(default=lambda arrays, *sizes: [0, 0])

    @property
    def name(self) -> str:
        return self.kernel.name

    def after(self, arrays: Arrays) -> dict[str, np.ndarray]:
        pairs = zip(self.kernel.buffers, arrays, strict=True)
        return {buffer.name: array for buffer, array in pairs if buffer.access is not Access.READ}

    def check(self, arrays: Arrays, expected: dict[str, np.ndarray], slack: float = 1.0) -> None:
        found = self.after(arrays)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype, name
            np.testing.assert_allclose(found[name], value, rtol=self.rtol * slack, atol=self.rtol * slack, err_msg=name)


I, J, N, ROWS, COLUMNS = var("i"), var("j"), var("n"), var("rows"), var("columns")  # noqa: E741
MATRICES = ((0, 3), (1, 1), (5, 0), (3, 33), (7, 129), (2, 700))
VECTORS = ((0,), (1,), (31,), (257,), (1000,))


def f32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)
