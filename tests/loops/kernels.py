"""Kernels built by hand, each with arguments and what NumPy computes from them. Shared by the tests of all targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.ir.types import DType
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Buffer,
    Const,
    Declare,
    Expr,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Stmt,
    Store,
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


def chain() -> Case:
    row, column = apply("floordiv", I, COLUMNS), apply("mod", I, COLUMNS)
    product = apply("mul", Load("x", I, F32), Load("w", var("j"), F32))
    kernel = Kernel(
        "chain",
        (read("x", F32), read("w", F32), read("b", F32), write("y", F32)),
        ("rows", "columns"),
        apply("mul", ROWS, COLUMNS),
        parallel(
            apply("mul", ROWS, COLUMNS),
            Let(var("j"), column),
            Let(var("z", F32), apply("add", product, Load("b", row, F32))),
            Store("y", I, apply("tanh", apply("neg", var("z", F32)))),
        ),
    )
    return Case(
        kernel,
        MATRICES,
        lambda rng, r, c: [f32(rng, r, c), f32(rng, c), f32(rng, r), np.empty((r, c), np.float32)],
        lambda a, r, c: {"y": np.tanh(-(a[0] * a[1] + a[2][:, None]))},
        1e-5,
    )


def softmax() -> Case:
    """The row stays in a Local; the number of columns is known."""
    columns = 300
    index, cached = at(I, const(columns), J), Load("cache", J, F32)
    kernel = Kernel(
        "softmax",
        (read("x", F32), write("y", F32)),
        ("rows",),
        ROWS,
        parallel(
            ROWS,
            Local("cache", F32, columns),
            Declare(var("top", F32), const(-np.inf, F32)),
            loop(
                LoopKind.REDUCE,
                "j",
                const(columns),
                Store("cache", J, Load("x", index, F32)),
                Accumulate(var("top", F32), "max", Load("x", index, F32)),
            ),
            Declare(var("total", F32), const(0.0, F32)),
            loop(
                LoopKind.REDUCE,
                "j",
                const(columns),
                Let(var("e", F32), apply("exp", apply("sub", cached, var("top", F32)))),
                Store("cache", J, var("e", F32)),
                Accumulate(var("total", F32), "add", var("e", F32)),
            ),
            Let(var("scale", F32), apply("div", const(1.0, F32), var("total", F32))),
            loop(LoopKind.VECTOR, "j", const(columns), Store("y", index, apply("mul", cached, var("scale", F32)))),
        ),
    )

    def expected(a: Arrays, rows: int) -> dict[str, np.ndarray]:
        e = np.exp(a[0] - a[0].max(1, keepdims=True, initial=-np.inf))
        return {"y": (e / e.sum(1, keepdims=True)).astype(np.float32)}

    def arguments(rng: np.random.Generator, rows: int) -> Arrays:
        return [3 * f32(rng, rows, columns), np.empty((rows, columns), np.float32)]

    return Case(kernel, ((0,), (1,), (5,)), arguments, expected, 1e-5)


def moments() -> Case:
    """Mean and variance of rows in two passes, in float64, and the rows shifted by the mean."""
    x, count = Load("x", at(I, COLUMNS, J), F64), apply("cast", COLUMNS, dtype=F64)
    centred = apply("sub", x, var("mean", F64))
    kernel = Kernel(
        "moments",
        (read("x", F64), write("means", F64), write("variances", F64), write("y", F64)),
        ("rows", "columns"),
        ROWS,
        parallel(
            ROWS,
            Declare(var("total", F64), const(0.0, F64)),
            loop(LoopKind.REDUCE, "j", COLUMNS, Accumulate(var("total", F64), "add", x)),
            Let(var("mean", F64), apply("div", var("total", F64), count)),
            Declare(var("squares", F64), const(0.0, F64)),
            loop(
                LoopKind.REDUCE,
                "j",
                COLUMNS,
                Accumulate(var("squares", F64), "add", apply("mul", centred, centred)),
            ),
            Store("means", I, var("mean", F64)),
            Store("variances", I, apply("div", var("squares", F64), count)),
            loop(LoopKind.VECTOR, "j", COLUMNS, Store("y", at(I, COLUMNS, J), centred)),
        ),
    )

    def arguments(rng: np.random.Generator, r: int, c: int) -> Arrays:
        return [rng.standard_normal((r, c)), np.empty(r), np.empty(r), np.empty((r, c))]

    def expected(a: Arrays, r: int, c: int) -> dict[str, np.ndarray]:
        mean = a[0].mean(1)
        return {"means": mean, "variances": a[0].var(1), "y": a[0] - mean[:, None]}

    return Case(kernel, tuple(s for s in MATRICES if s[1]), arguments, expected, 1e-12)


def column_sum() -> Case:
    """Each iteration adds up 64 neighbouring columns in a Local."""
    lanes = 64
    first = apply("mul", I, const(lanes))
    width = apply("min", const(lanes), apply("sub", COLUMNS, first))
    blocks = apply("floordiv", apply("add", COLUMNS, const(lanes - 1)), const(lanes))
    column = apply("add", var("first_column"), J)
    grown = apply("add", Load("sums", J, F32), Load("x", at(var("r"), COLUMNS, column), F32))
    kernel = Kernel(
        "column_sum",
        (read("x", F32), write("y", F32)),
        ("rows", "columns"),
        blocks,
        parallel(
            blocks,
            Let(var("first_column"), first),
            Let(var("width"), width),
            Local("sums", F32, lanes),
            loop(LoopKind.VECTOR, "j", const(lanes), Store("sums", J, const(0.0, F32))),
            loop(LoopKind.SEQ, "r", ROWS, loop(LoopKind.VECTOR, "j", var("width"), Store("sums", J, grown))),
            loop(LoopKind.VECTOR, "j", var("width"), Store("y", column, Load("sums", J, F32))),
        ),
    )
    return Case(
        kernel,
        MATRICES,
        lambda rng, r, c: [f32(rng, r, c), np.empty(c, np.float32)],
        lambda a, r, c: {"y": a[0].sum(0)},
        1e-5,
    )


def total() -> Case:
    total = var("total", F32)
    kernel = Kernel(
        "total",
        (read("x", F32), write("y", F32)),
        ("n",),
        const(1),
        parallel(
            const(1),
            Declare(total, const(0.0, F32)),
            loop(LoopKind.REDUCE, "j", N, Accumulate(total, "add", Load("x", J, F32))),
            Store("y", const(0), total),
        ),
    )
    return Case(
        kernel,
        VECTORS,
        lambda rng, n: [f32(rng, n), np.empty(1, np.float32)],
        lambda a, n: {"y": a[0].sum(dtype=np.float64).astype(np.float32).reshape(1)},
        1e-4,
    )


def argmax() -> Case:
    best, where = var("best", F32), var("where")
    better = apply("gt", var("x_j", F32), best)
    kernel = Kernel(
        "argmax",
        (read("x", F32), write("y", I64)),
        ("rows", "columns"),
        ROWS,
        parallel(
            ROWS,
            Declare(best, const(-np.inf, F32)),
            Declare(where, const(0)),
            loop(
                LoopKind.SEQ,
                "j",
                COLUMNS,
                Let(var("x_j", F32), Load("x", at(I, COLUMNS, J), F32)),
                If(better, (Assign(best, var("x_j", F32)), Assign(where, J))),
            ),
            Store("y", I, where),
        ),
    )
    return Case(
        kernel,
        tuple(s for s in MATRICES if s[1]),
        lambda rng, r, c: [rng.integers(0, 9, (r, c)).astype(np.float32), np.empty(r, np.int64)],
        lambda a, r, c: {"y": a[0].argmax(1)},
    )


def gather() -> Case:
    """``y[i] = x[index[i]]``; out of range is recorded, and read as the nearest row."""
    index, last = var("index_i"), apply("sub", ROWS, const(1))
    wrong = apply("or", apply("lt", index, const(0)), apply("ge", index, ROWS))
    row = apply("max", const(0), apply("min", index, last))
    kernel = Kernel(
        "gather",
        (read("x", F32), read("index", I32), write("y", F32)),
        ("n", "rows", "columns"),
        N,
        parallel(
            N,
            Let(index, apply("cast", Load("index", I, I32), dtype=I64)),
            Fail(wrong, const(3), index),
            Let(var("row"), row),
            loop(
                LoopKind.VECTOR,
                "j",
                COLUMNS,
                Store("y", at(I, COLUMNS, J), Load("x", at(var("row"), COLUMNS, J), F32)),
            ),
        ),
        has_checks=True,
    )

    def arguments(rng: np.random.Generator, n: int, rows: int, columns: int) -> Arrays:
        index = rng.integers(0, rows, n).astype(np.int32)
        if n > 4:
            index[3] = -2 if n % 2 else rows
        return [f32(rng, rows, columns), index, np.empty((n, columns), np.float32)]

    def status(a: Arrays, n: int, rows: int, columns: int) -> list[int]:
        return [4, int(a[1][3])] if n > 4 else [0, 0]

    return Case(
        kernel,
        ((0, 3, 4), (3, 1, 40), (5, 4, 300), (6, 7, 3)),
        arguments,
        lambda a, n, rows, columns: {"y": a[0][np.clip(a[1], 0, rows - 1)]},
        status=status,
    )


def scatter_add() -> Case:
    target = at(var("row"), COLUMNS, J)
    added = apply("add", Load("y", target, F32), Load("x", at(var("k"), COLUMNS, J), F32))
    kernel = Kernel(
        "scatter_add",
        (read("x", F32), read("index", I64), update("y", F32)),
        ("n", "columns"),
        const(1),
        parallel(
            const(1),
            loop(
                LoopKind.SEQ,
                "k",
                N,
                Let(var("row"), Load("index", var("k"), I64)),
                loop(LoopKind.VECTOR, "j", COLUMNS, Store("y", target, added)),
            ),
        ),
    )

    def expected(a: Arrays, n: int, columns: int) -> dict[str, np.ndarray]:
        y = a[2].copy()
        np.add.at(y, a[1], a[0])
        return {"y": y}

    return Case(
        kernel,
        ((0, 3), (1, 1), (20, 70), (9, 300)),
        lambda rng, n, c: [f32(rng, n, c), rng.integers(0, 4, n), f32(rng, 4, c)],
        expected,
        1e-5,
    )


def uniform() -> Case:
    """Uniform numbers from 24 of Threefry's bits."""
    word = apply("threefry", Load("key", const(0), U32), Load("key", const(1), U32), var("c", U32), const(7, U32))
    fraction = apply("cast", apply("shr", word, const(8, U32)), dtype=F32)
    kernel = Kernel(
        "uniform",
        (read("key", U32), write("y", F32)),
        ("n",),
        N,
        parallel(
            N,
            Let(var("c", U32), apply("cast", I, dtype=U32)),
            Store("y", I, apply("mul", fraction, const(2.0**-24, F32))),
        ),
    )
    return Case(
        kernel,
        VECTORS,
        lambda rng, n: [rng.integers(0, 2**32, 2, np.uint32), np.empty(n, np.float32)],
        lambda a, n: {"y": (_threefry(a[0], np.arange(n), 7) >> 8).astype(np.float32) * np.float32(2**-24)},
    )


def _threefry(key: np.ndarray, counter0: np.ndarray, counter1: int) -> np.ndarray:
    """Threefry-2x32-20 written out on Python-sized integers, after the paper."""
    mask = 2**32 - 1
    keys = [int(key[0]), int(key[1])]
    keys.append(keys[0] ^ keys[1] ^ 0x1BD11BDA)
    words = []
    for counter in counter0.tolist():
        x, y = (counter + keys[0]) & mask, (counter1 + keys[1]) & mask
        for turn in range(20):
            distance = (13, 15, 26, 6, 17, 29, 16, 24)[turn % 8]
            x = (x + y) & mask
            y = (y << distance | y >> (32 - distance)) & mask ^ x
            if turn % 4 == 3:
                s = turn // 4 + 1
                x, y = (x + keys[s % 3]) & mask, (y + keys[(s + 1) % 3] + s) & mask
        words.append(x)
    return np.array(words, np.uint32)


def adam() -> Case:
    """All state in place; the learning rate is a buffer of one element."""
    b1, b2, eps = 0.9, 0.999, 1e-8
    g, m, v = var("g_i", F32), var("m_i", F32), var("v_i", F32)
    decayed = apply("add", apply("mul", const(b1, F32), Load("m", I, F32)), apply("mul", const(1 - b1, F32), g))
    square = apply("mul", apply("mul", const(1 - b2, F32), g), g)
    step = apply("div", apply("mul", Load("rate", const(0), F32), m), apply("add", apply("sqrt", v), const(eps, F32)))
    kernel = Kernel(
        "adam",
        (read("g", F32), read("rate", F32), update("p", F32), update("m", F32), update("v", F32)),
        ("n",),
        N,
        parallel(
            N,
            Let(g, Load("g", I, F32)),
            Let(m, decayed),
            Let(v, apply("add", apply("mul", const(b2, F32), Load("v", I, F32)), square)),
            Store("m", I, m),
            Store("v", I, v),
            Store("p", I, apply("sub", Load("p", I, F32), step)),
        ),
    )

    def arguments(rng: np.random.Generator, n: int) -> Arrays:
        return [f32(rng, n), np.float32([0.01]), f32(rng, n), f32(rng, n), f32(rng, n) ** 2]

    def expected(a: Arrays, n: int) -> dict[str, np.ndarray]:
        f = np.float32
        m, v = f(b1) * a[3] + f(1 - b1) * a[0], f(b2) * a[4] + f(1 - b2) * a[0] ** 2
        return {"p": a[2] - a[1] * m / (np.sqrt(v) + f(eps)), "m": m, "v": v}

    return Case(kernel, VECTORS, arguments, expected, 1e-6)


def table(name: str, inputs: tuple[Buffer, ...], results: list[Expr]) -> Kernel:
    """Each result of each element in a row of its own; results of one dtype are in one buffer ``to_<dtype>``."""
    dtypes = sorted({result.dtype for result in results}, key=lambda dtype: dtype.value)
    stores: list[Stmt] = []
    counts = dict.fromkeys(dtypes, 0)
    for result in results:
        stores.append(Store(f"to_{result.dtype}", at(const(counts[result.dtype]), N, I), result))
        counts[result.dtype] += 1
    outputs = tuple(write(f"to_{dtype}", dtype) for dtype in dtypes)
    return Kernel(name, (*inputs, *outputs), ("n",), N, parallel(N, *stores))


def table_case(name: str, inputs: dict[str, np.ndarray], rows: dict[Apply, np.ndarray], rtol: float = 0.0) -> Case:
    """The rows of a table on fixed inputs: each application with what it must give."""
    buffers = tuple(read(key, DType(str(value.dtype))) for key, value in inputs.items())
    kernel = table(name, buffers, list(rows))
    n = len(next(iter(inputs.values())))
    outputs: dict[str, np.ndarray] = {}
    for buffer in kernel.buffers[len(inputs) :]:
        values = [value for result, value in rows.items() if result.dtype is buffer.dtype]
        outputs[buffer.name] = np.stack(values).astype(buffer.dtype.numpy)
    return Case(
        kernel,
        ((n,),),
        lambda rng, n: [*inputs.values(), *(np.empty_like(value) for value in outputs.values())],
        lambda a, n: outputs,
        rtol,
    )


def scaled() -> Case:
    """All iterations share what is computed before them; one thread takes each, or one block."""
    rate, shift = var("rate", F32), var("shift", F32)
    shared = (
        Let(rate, apply("div", Load("rate_", const(0), F32), apply("cast", COLUMNS, dtype=F32))),
        Let(shift, apply("sub", const(1.0, F32), rate)),
    )
    scaled = apply("add", apply("mul", Load("x", at(I, COLUMNS, J), F32), rate), shift)
    kernel = Kernel(
        "scaled",
        (read("x", F32), read("rate_", F32), write("y", F32)),
        ("rows", "columns"),
        ROWS,
        (*shared, *parallel(ROWS, loop(LoopKind.VECTOR, "j", COLUMNS, Store("y", at(I, COLUMNS, J), scaled)))),
    )

    def expected(a: Arrays, r: int, c: int) -> dict[str, np.ndarray]:
        rate = a[1][0] / np.float32(c)
        return {"y": a[0] * rate + (1 - rate)}

    return Case(
        kernel,
        tuple(s for s in MATRICES if s[1]),
        lambda rng, r, c: [f32(rng, r, c), f32(rng, 1), np.empty((r, c), np.float32)],
        expected,
        1e-6,
    )


def scaled_flat() -> Case:
    """The same for a flat array."""
    kernel = Kernel(
        "scaled_flat",
        (read("x", F32), read("rate_", F32), write("y", F32)),
        ("n",),
        N,
        (
            Let(var("rate", F32), apply("exp", Load("rate_", const(0), F32))),
            *parallel(N, Store("y", I, apply("mul", Load("x", I, F32), var("rate", F32)))),
        ),
    )
    return Case(
        kernel,
        VECTORS,
        lambda rng, n: [f32(rng, n), f32(rng, 1), np.empty(n, np.float32)],
        lambda a, n: {"y": a[0] * np.exp(a[1])},
        1e-6,
    )


def signed(dtype: DType) -> Case:
    """Arithmetic on Python's integers, then wrapped."""
    limits = np.iinfo(dtype.value)
    bits = limits.bits
    values = [0, 1, -1, 2, -2, 7, -7, 100, limits.max, limits.min, limits.min + 1, 12345]
    a, b = (np.array(x, dtype.value).reshape(-1) for x in np.meshgrid(values, values))
    x, y = Load("a", I, dtype), Load("b", I, dtype)
    shift = apply("and", y, const(bits - 1, dtype))

    def wrapped(function: Callable[[int, int], int]) -> np.ndarray:
        results = [function(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
        return np.array([(r + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for r in results], dtype.value)

    def power(p: int, q: int) -> int:
        if q >= 0:
            return pow(p, q, 2**bits)
        return {1: 1, -1: -1 if q % 2 else 1}.get(p, 0)

    rows = {
        apply("add", x, y): wrapped(lambda p, q: p + q),
        apply("sub", x, y): wrapped(lambda p, q: p - q),
        apply("mul", x, y): wrapped(lambda p, q: p * q),
        apply("neg", x): wrapped(lambda p, q: -p),
        apply("abs", x): wrapped(lambda p, q: abs(p)),
        apply("sign", x): wrapped(lambda p, q: (p > 0) - (p < 0)),
        apply("floordiv", x, y): wrapped(lambda p, q: p // q if q else 0),
        apply("mod", x, y): wrapped(lambda p, q: p % q if q else 0),
        apply("min", x, y): wrapped(min),
        apply("max", x, y): wrapped(max),
        apply("pow", x, y): wrapped(power),
        apply("and", x, y): wrapped(lambda p, q: p & q),
        apply("or", x, y): wrapped(lambda p, q: p | q),
        apply("xor", x, y): wrapped(lambda p, q: p ^ q),
        apply("not", x): wrapped(lambda p, q: ~p),
        apply("shl", x, shift): wrapped(lambda p, q: p << (q & (bits - 1))),
        apply("shr", x, shift): wrapped(lambda p, q: p >> (q & (bits - 1))),
        apply("select", apply("lt", x, y), x, const(limits.min, dtype)): wrapped(
            lambda p, q: p if p < q else limits.min
        ),
        apply("sub", x, apply("sub", y, x)): wrapped(lambda p, q: p - (q - p)),
        apply("neg", apply("neg", const(-5, dtype))): wrapped(lambda p, q: -5),
        apply("min", x, apply("add", const(1, dtype), const(2, dtype))): wrapped(lambda p, q: min(p, 3)),
        apply("cast", x, dtype=I32): (a.astype(object) % 2**32).astype(np.uint32).astype(np.int32),
        apply("cast", x, dtype=U32): (a.astype(object) % 2**32).astype(np.uint32),
        apply("cast", x, dtype=BOOL): a != 0,
        apply("cast", x, dtype=F64): a.astype(np.float64),
        apply("lt", x, y): a < b,
        apply("ge", x, y): a >= b,
        apply("eq", x, y): a == b,
    }
    if dtype is I32:
        rows.pop(apply("cast", x, dtype=I32))
        rows[apply("cast", x, dtype=I64)] = a.astype(np.int64)
    return table_case(f"signed_{dtype}", {"a": a, "b": b}, rows)


def unsigned() -> Case:
    values = [0, 1, 2, 3, 31, 1000, 2**31 - 1, 2**31, 2**32 - 1]
    a, b = (np.array(x, np.uint32).reshape(-1) for x in np.meshgrid(values, values))
    x, y = Load("a", I, U32), Load("b", I, U32)
    shift = apply("and", y, const(31, U32))

    def wrapped(function: Callable[[int, int], int]) -> np.ndarray:
        return np.array([function(p, q) % 2**32 for p, q in zip(a.tolist(), b.tolist(), strict=True)], np.uint32)

    rows = {
        apply("add", x, y): wrapped(lambda p, q: p + q),
        apply("sub", x, y): wrapped(lambda p, q: p - q),
        apply("mul", x, y): wrapped(lambda p, q: p * q),
        apply("neg", x): wrapped(lambda p, q: -p),
        apply("abs", x): a,
        apply("sign", x): wrapped(lambda p, q: p > 0),
        apply("floordiv", x, y): wrapped(lambda p, q: p // q if q else 0),
        apply("mod", x, y): wrapped(lambda p, q: p % q if q else 0),
        apply("min", x, y): wrapped(min),
        apply("max", x, y): wrapped(max),
        apply("pow", x, y): wrapped(lambda p, q: pow(p, q, 2**32)),
        apply("xor", x, apply("or", y, apply("not", x))): wrapped(lambda p, q: p ^ (q | ~p)),
        apply("shl", x, shift): wrapped(lambda p, q: p << (q & 31)),
        apply("shr", x, shift): wrapped(lambda p, q: p >> (q & 31)),
        apply("cast", x, dtype=I32): a.astype(np.int32),
        apply("cast", x, dtype=I64): a.astype(np.int64),
        apply("cast", x, dtype=F32): a.astype(np.float32),
        apply("gt", x, y): a > b,
    }
    return table_case("unsigned", {"a": a, "b": b}, rows)


def floats(dtype: DType) -> Case:
    """Every function of floats, on ordinary numbers and on the ends of the line."""
    kind = dtype.numpy.type
    values = [0.0, -0.0, 0.5, -0.75, 1.0, 2.0, -3.0, 7.5, -20.0, 80.0, np.inf, -np.inf, np.nan]
    a, b = (np.array(x, dtype.value).reshape(-1) for x in np.meshgrid(values, values))
    x, y = Load("a", I, dtype), Load("b", I, dtype)
    with np.errstate(all="ignore"):
        exact = a.astype(np.float64)
        rows = {
            **{
                apply(fn, x): getattr(np, fn)(a)
                for fn in ("exp", "log", "expm1", "log1p", "sqrt", "tanh", "sin", "cos")
            },
            **{
                apply(fn, x): getattr(np, fn)(a) for fn in ("floor", "ceil", "rint", "abs", "sign", "isnan", "isfinite")
            },
            apply("neg", x): -a,
            apply("rsqrt", x): (1 / np.sqrt(exact)).astype(kind),
            apply("sigmoid", x): (1 / (1 + np.exp(-exact))).astype(kind),
            apply("softplus", x): np.logaddexp(0, exact).astype(kind),
            apply("erf", x): np.array([_erf(value) for value in exact.tolist()]).astype(kind),
            apply("add", x, y): a + b,
            apply("sub", x, apply("sub", y, x)): a - (b - a),
            apply("mul", x, y): a * b,
            apply("div", x, y): a / b,
            apply("floordiv", x, y): np.floor_divide(a, b),
            apply("mod", x, y): np.mod(a, b),
            apply("pow", x, y): np.power(a, b),
            apply("min", x, y): np.minimum(a, b),
            apply("max", x, y): np.maximum(a, b),
            apply("min", x, const(np.inf, dtype)): np.minimum(a, kind(np.inf)),
            apply("max", x, const(-np.inf, dtype)): np.maximum(a, kind(-np.inf)),
            apply("add", x, const(np.nan, dtype)): a + kind(np.nan),
            apply("mul", x, const(-0.1, dtype)): a * kind(-0.1),
            apply("select", apply("le", x, y), x, y): np.where(a <= b, a, b),
            apply("select", apply("isnan", x), const(1e-30, dtype), x): np.where(np.isnan(a), kind(1e-30), a),
            apply("ne", x, y): a != b,
            apply("gt", x, y): a > b,
            apply("cast", x, dtype=BOOL): a != 0,
            apply("cast", x, dtype=F64 if dtype is F32 else F32): a.astype(np.float64 if dtype is F32 else np.float32),
            apply("cast", apply("select", apply("isfinite", x), x, const(0.0, dtype)), dtype=I32): np.where(
                np.isfinite(a), a, 0
            ).astype(np.int32),
        }
    return table_case(f"floats_{dtype}", {"a": a, "b": b}, rows, 4e-7 if dtype is F32 else 1e-15)


def _erf(value: float) -> float:
    import math

    return math.erf(value)


def bools() -> Case:
    a, b = (x.reshape(-1) for x in np.meshgrid([False, True], [False, True]))
    x, y = Load("a", I, BOOL), Load("b", I, BOOL)
    rows = {
        apply("and", x, y): a & b,
        apply("or", x, y): a | b,
        apply("xor", x, y): a ^ b,
        apply("not", x): ~a,
        apply("not", apply("and", x, apply("or", y, apply("not", x)))): ~(a & (b | ~a)),
        apply("or", apply("and", x, y), apply("eq", x, y)): (a & b) | (a == b),
        apply("eq", x, y): a == b,
        apply("select", x, y, const(True, BOOL)): np.where(a, b, True),
        apply("cast", x, dtype=F32): a.astype(np.float32),
        apply("cast", y, dtype=I64): b.astype(np.int64),
    }
    return table_case("bools", {"a": a, "b": b}, rows)


def accumulators() -> Case:
    """Every way to accumulate, in one row, some of it under a condition."""
    x, flag = Load("x", at(I, COLUMNS, J), I32), apply("gt", Load("x", at(I, COLUMNS, J), I32), const(-90, I32))
    long = apply("cast", x, dtype=I64)
    scalars = {
        "count": (I64, 0, "add", const(1)),
        "product": (I64, 1, "mul", apply("or", long, const(1))),
        "least": (I32, 2**31 - 1, "min", x),
        "most": (I32, -(2**31), "max", x),
        "common": (I32, -1, "and", x),
        "some": (I32, 0, "or", x),
        "every": (BOOL, True, "and", flag),
        "any_": (BOOL, False, "or", apply("not", flag)),
        "top": (F64, -np.inf, "max", apply("cast", x, dtype=F64)),
    }
    declared = [Declare(var(name, dtype), const(start, dtype)) for name, (dtype, start, _, _) in scalars.items()]
    grown: list[Stmt] = [Accumulate(var(name, d), fn, value) for name, (d, _, fn, value) in scalars.items()]
    grown[0] = If(flag, (grown[0],))
    kernel = Kernel(
        "accumulators",
        (read("x", I32), *(write(f"to_{name}", dtype) for name, (dtype, *_) in scalars.items())),
        ("rows", "columns"),
        ROWS,
        parallel(
            ROWS,
            *declared,
            loop(LoopKind.REDUCE, "j", COLUMNS, *grown),
            *(Store(f"to_{name}", I, var(name, dtype)) for name, (dtype, *_) in scalars.items()),
        ),
    )

    def arguments(rng: np.random.Generator, r: int, c: int) -> Arrays:
        outputs = [np.empty(r, dtype.numpy) for dtype, *_ in scalars.values()]
        return [rng.integers(-100, 100, (r, c), np.int32), *outputs]

    def expected(a: Arrays, r: int, c: int) -> dict[str, np.ndarray]:
        x = a[0]
        with np.errstate(over="ignore"):
            return {
                "to_count": (x > -90).sum(1),
                "to_product": (x.astype(np.int64) | 1).prod(1),
                "to_least": x.min(1, initial=2**31 - 1),
                "to_most": x.max(1, initial=-(2**31)),
                "to_common": np.bitwise_and.reduce(x, 1),
                "to_some": np.bitwise_or.reduce(x, 1),
                "to_every": (x > -90).all(1),
                "to_any_": ~(x > -90).all(1),
                "to_top": x.astype(np.float64).max(1, initial=-np.inf),
            }

    return Case(kernel, MATRICES, arguments, expected)


def reverse() -> Case:
    """Threads need what others stored, twice, in a loop: barriers on all sides."""
    size = 200
    opposite = apply("sub", const(size - 1), J)
    kernel = Kernel(
        "reverse",
        (read("x", F32), write("y", F32), write("last", F32)),
        ("rows", "times"),
        ROWS,
        parallel(
            ROWS,
            Local("now", F32, size),
            Local("next", F32, size),
            loop(LoopKind.VECTOR, "j", const(size), Store("now", J, Load("x", at(I, const(size), J), F32))),
            loop(
                LoopKind.SEQ,
                "t",
                var("times"),
                loop(LoopKind.VECTOR, "j", const(size), Store("next", J, Load("now", opposite, F32))),
                loop(
                    LoopKind.VECTOR,
                    "j",
                    const(size),
                    Store("now", J, apply("add", Load("next", J, F32), const(1.0, F32))),
                ),
            ),
            loop(LoopKind.VECTOR, "j", const(size), Store("y", at(I, const(size), J), Load("now", J, F32))),
            Store("last", I, Load("now", const(size - 1), F32)),
        ),
    )

    def expected(a: Arrays, rows: int, times: int) -> dict[str, np.ndarray]:
        y = (a[0][:, ::-1] if times % 2 else a[0]) + np.float32(times)
        return {"y": y, "last": y[:, -1].copy()}

    return Case(
        kernel,
        ((0, 2), (2, 0), (3, 3)),
        lambda rng, r, t: [
            rng.integers(0, 99, (r, size)).astype(np.float32),
            np.empty((r, size), np.float32),
            np.empty(r, np.float32),
        ],
        expected,
    )


def cumulative() -> Case:
    """The first thread stores what all then read: running sums as shares of the last."""
    total, index = var("total", F64), at(I, COLUMNS, J)
    kernel = Kernel(
        "cumulative",
        (read("x", F64), write("sums", F64), write("shares", F64)),
        ("rows", "columns"),
        ROWS,
        parallel(
            ROWS,
            Declare(total, const(0.0, F64)),
            loop(
                LoopKind.SEQ,
                "j",
                COLUMNS,
                Accumulate(total, "add", Load("x", index, F64)),
                Store("sums", index, total),
            ),
            loop(LoopKind.VECTOR, "j", COLUMNS, Store("shares", index, apply("div", Load("sums", index, F64), total))),
        ),
    )

    def expected(a: Arrays, r: int, c: int) -> dict[str, np.ndarray]:
        sums = a[0].cumsum(1)
        return {"sums": sums, "shares": sums / sums[:, -1:]}

    return Case(
        kernel,
        tuple(s for s in MATRICES if s[1]),
        lambda rng, r, c: [rng.uniform(1, 2, (r, c)), np.empty((r, c)), np.empty((r, c))],
        expected,
        1e-12,
    )


def small_rows() -> Case:
    """Rows of at most 8 are too short for a block: a thread takes each, with a Local and a product inside."""
    size = 8
    kernel = Kernel(
        "small_rows",
        (read("x", F32), read("w", F32), write("y", F32)),
        ("rows",),
        ROWS,
        parallel(
            ROWS,
            Local("row", F32, size),
            loop(LoopKind.VECTOR, "j", const(size), Store("row", J, Load("x", at(I, const(size), J), F32))),
            loop(
                LoopKind.VECTOR,
                "j",
                const(size),
                Declare(var("dot", F32), const(0.0, F32)),
                loop(
                    LoopKind.REDUCE,
                    "k",
                    const(size),
                    Accumulate(
                        var("dot", F32),
                        "add",
                        apply("mul", Load("row", var("k"), F32), Load("w", at(var("k"), const(size), J), F32)),
                    ),
                ),
                Store("y", at(I, const(size), J), var("dot", F32)),
            ),
        ),
    )
    return Case(
        kernel,
        VECTORS,
        lambda rng, n: [f32(rng, n, size), f32(rng, size, size), np.empty((n, size), np.float32)],
        lambda a, n: {"y": a[0] @ a[1]},
        1e-5,
    )


CASES = {
    case.name: case
    for case in (
        chain(), softmax(), moments(), column_sum(), total(), argmax(), gather(), scatter_add(), uniform(), adam(),
        signed(I32), signed(I64), unsigned(), floats(F32), floats(F64), bools(), accumulators(), reverse(),
        cumulative(), small_rows(), scaled(), scaled_flat(),
    )
}  # fmt: skip
RUNS = [(name, sizes) for name, case in CASES.items() for sizes in case.sizes]
