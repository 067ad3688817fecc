"""A training step by the number of rows of its table: ``python -m benchmarks.tables [optimizer ...]``.

1,000 indices a step into a table of vectors of 128 float32, pulled towards targets. ``dense`` is what a step costs that
walks the table; where the compiler finds out by itself that it need not (``sgd``, ``adagrad``), weight decay of 0.001
is there to keep it from that. A figure is the least of many steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import graphc as gx

INDICES, WIDTH = 1000, 128
ROWS = (10_000, 100_000, 1_000_000)
SECONDS = 1.0

OPTIMIZERS: dict[str, Callable[[], gx.optimizers.Optimizer]] = {
    "sgd": lambda: gx.optimizers.SGD(0.1),
    "momentum": lambda: gx.optimizers.SGD(0.1, momentum=0.9),
    "adagrad": lambda: gx.optimizers.Adagrad(0.1),
    "adam": lambda: gx.optimizers.Adam(1e-3),
}


def step_ms(optimizer: gx.optimizers.Optimizer, rows: int, sparse: bool) -> float:
    """The least time of a step in milliseconds."""
    draws = np.random.default_rng(0)
    ids = gx.placeholder("ids", ("batch",), "int64")
    goal = gx.placeholder("goal", ("batch", WIDTH))
    layer = gx.layers.Embedding(rows, WIDTH, sparse=sparse)
    loss = gx.mean((layer(ids) - goal) ** 2)
    tables = layer.weights
    updates = optimizer.updates(tables, gx.grad(loss, tables), sparse=layer.sparse_weights())
    step = gx.compile({"loss": loss}, inputs=[ids, goal], updates=updates, backend="numba")
    given = [draws.integers(0, rows, INDICES), draws.standard_normal((INDICES, WIDTH)).astype(np.float32)]
    step.call(given)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        step.call(given)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def dense(make: Callable[[], gx.optimizers.Optimizer]) -> gx.optimizers.Optimizer:
    """An optimizer that has a reason to walk the table."""
    optimizer = make()
    optimizer.weight_decay = 0.001
    return optimizer


def main(chosen: list[str]) -> None:
    """Print a table."""
    print(f"{'optimizer':10} {'rows':>10} {'dense ms':>10} {'by itself':>10} {'sparse ms':>10}")
    for name in chosen or list(OPTIMIZERS):
        make = OPTIMIZERS[name]
        for rows in ROWS:
            times = [
                step_ms(*said) for said in ((dense(make), rows, False), (make(), rows, False), (make(), rows, True))
            ]
            print(f"{name:10} {rows:10,} " + " ".join(f"{t:10.3f}" for t in times))


if __name__ == "__main__":
    main(sys.argv[1:])
