"""Kernels built by hand, each with arguments and what NumPy computes from them. Shared by the tests of all targets."""

from __future__ import annotations

import numpy as np

from graphc.loops.kernel import (
    Accumulate,
    Assign,
    Declare,
    Fail,
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
    U32,
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
    update,
    var,
    write,
)
from tests.loops.tables import bools, floats, signed, unsigned


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
