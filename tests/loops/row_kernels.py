"""Kernels that go through rows: softmax, moments, sums along either axis and of all, the largest, running sums."""

from __future__ import annotations

import numpy as np

from graphc.loops.kernel import (
    Accumulate,
    Assign,
    Declare,
    If,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Stmt,
    Store,
)
from tests.loops.builders import (
    BOOL,
    COLUMNS,
    F32,
    F64,
    I32,
    I64,
    MATRICES,
    ROWS,
    VECTORS,
    Arrays,
    Case,
    I,
    J,
    N,
    apply,
    at,
    const,
    f32,
    loop,
    parallel,
    read,
    var,
    write,
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
