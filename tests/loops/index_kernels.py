"""Kernels that read and write elsewhere: gather, scatter, reversed axes."""

from __future__ import annotations

import numpy as np

from graphc.loops.kernel import (
    Fail,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Store,
)
from tests.loops.builders import (
    COLUMNS,
    F32,
    I32,
    I64,
    ROWS,
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
