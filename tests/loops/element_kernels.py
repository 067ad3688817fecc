"""Kernels that compute each element on its own: a chain, random bits, an optimizer, products with a matrix."""

from __future__ import annotations

import numpy as np

from graphc.loops.kernel import (
    Kernel,
    Let,
    Load,
    LoopKind,
    Store,
)
from tests.loops.builders import (
    COLUMNS,
    F32,
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
