"""Functions of float32 on one core, in cache: ``python -m benchmarks.vector_math [function ...]``.

Each function is a compiled program over a vector of any length. A figure is the time of 4096 elements less that of 16,
which takes the call out, over the difference; input and output, 16 KiB each, stay in the first cache. Short bursts of
the two lengths alternate and the least of each counts: on a shared machine noise only adds time. Beside it stands the
largest error found, in units of the last place (ulp) of the result, against NumPy's longer floats, and for erf and gelu
against the C library's in float64. ``docs/math.md`` has the bounds that hold everywhere.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import graphc as gx
from graphc.backends.numba.threads import set_threads

LONG, SHORT, BURSTS, CALLS = 4096, 16, 4000, 20
ROW = 256

Array = NDArray[np.float32]
Exact = NDArray[np.longdouble]


def _sigmoid(x: Exact) -> Exact:
    return np.asarray(1 / (1 + np.exp(-x)), np.longdouble)


def _erf(x: Exact) -> Exact:
    return np.array([math.erf(value) for value in x.astype(np.float64)], np.longdouble)


def _gelu(x: Exact) -> Exact:
    values = x.astype(np.float64)
    return np.array([value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in values], np.longdouble)


def _softmax(x: Exact) -> Exact:
    rows = x.reshape(-1, ROW)
    weights = np.exp(rows - rows.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).reshape(-1)


FUNCTIONS: dict[str, tuple[Callable[[gx.Node], gx.Node], Callable[[Exact], Exact]]] = {
    "exp": (gx.exp, np.exp),
    "log": (gx.log, np.log),
    "tanh": (gx.tanh, np.tanh),
    "sigmoid": (gx.sigmoid, _sigmoid),
    "gelu": (gx.gelu, _gelu),
    "erf": (gx.erf, _erf),
    "silu": (lambda x: x * gx.sigmoid(x), lambda x: x * _sigmoid(x)),
    "softmax": (lambda x: gx.softmax(x, axis=1), _softmax),
    "sin": (gx.sin, np.sin),
    "cos": (gx.cos, np.cos),
}


def measure(name: str, rng: np.random.Generator) -> tuple[float, float]:
    """Nanoseconds an element, and the largest error in ulp."""
    build, exact = FUNCTIONS[name]
    shape = ("n", ROW) if name == "softmax" else ("n",)
    x = gx.placeholder("x", shape, "float32")
    program = gx.compile({"y": build(x)}, inputs=[x], backend="numba")
    unit = ROW if name == "softmax" else 1
    best: dict[int, float] = {}
    feeds = {n: _feed(name, n, unit, rng) for n in (LONG, max(SHORT, unit))}
    for _ in range(BURSTS):
        for n, (given, out) in feeds.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                program(x=given, out={"y": out})
            best[n] = min(best.get(n, math.inf), (time.perf_counter() - start) / CALLS)
    (long, slow), (short, fast) = best.items()
    given, out = feeds[LONG]
    true = exact(given.reshape(-1).astype(np.longdouble))
    error = np.abs(out.reshape(-1) - true) / np.spacing(np.abs(true).astype(np.float32))
    return (slow - fast) / (long - short) * 1e9, float(error.max())


def _feed(name: str, n: int, unit: int, rng: np.random.Generator) -> tuple[Array, Array]:
    values = (rng.standard_normal(n) * 3).astype(np.float32)
    given = np.abs(values) if name == "log" else values
    given = given.reshape(-1, unit) if unit > 1 else given
    return given, np.empty_like(given)


def main(names: list[str]) -> None:
    """Measure and print."""
    set_threads(1)
    rng = np.random.default_rng(0)
    print(f"{'function':10} ns/element   largest error")
    for name in names or FUNCTIONS:
        time_ns, error = measure(name, rng)
        print(f"{name:10} {time_ns:10.3f}   {error:.2f} ulp")


if __name__ == "__main__":
    main(sys.argv[1:])
