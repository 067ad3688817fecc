"""How the time of a step grows with the batch: ``python -m benchmarks.batch_ratio [sizes ...]``.

The steps are ``mlp_train``'s (784-512-256-10, dropout, Adam) and the same network's inference, each compiled once for
a batch of any size. Sizes take turns; medians are printed, and each one's share of the last size's time. A training
step moves all parameters and moments whatever the batch: that is its floor.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx

ROUNDS, STEPS = 40, 25


def programs() -> dict[str, gx.Program]:
    """The two steps, by name."""
    sys.path.insert(0, str(Path(__file__).parent / "cpu"))
    import graphc_peer
    import spec

    data = spec.make("mlp_train")
    p, count = graphc_peer.load(data), gx.parameter("adam.count", np.float32(0))
    x = gx.placeholder("x", ("batch", 784), "float32")
    labels = gx.placeholder("labels", ("batch",), "int64")
    logits = graphc_peer.mlp(p, x, count)
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, logits))
    updates = graphc_peer.adam(loss, list(p.values()), count)
    hidden = gx.relu(graphc_peer.dense(p, "fc2", gx.relu(graphc_peer.dense(p, "fc1", x))))
    return {
        "train": gx.compile({"loss": loss}, inputs=[x, labels], updates=updates, backend="numba", training=True),
        "predict": gx.compile({"y": graphc_peer.dense(p, "fc3", hidden)}, inputs=[x], backend="numba"),
    }


def measure(step: gx.Program, sizes: list[int]) -> dict[int, float]:
    """The median time of a step for each size, in seconds.

    Each run of steps begins with the same parameters and moments. A thousand steps with one sample each would leave
    units that never fire, whose moments decay into subnormal numbers; those cost extra, at every batch size.
    """
    rng = np.random.default_rng(0)
    feeds: dict[int, list[dict[str, Any]]] = {n: [] for n in sizes}
    for n, found in feeds.items():
        xs = [rng.random((n, 784), np.float32) for _ in range(16)]
        labels = [rng.integers(0, 10, n) for _ in range(61)]
        for i in range(16 * 61):
            given = {"x": xs[i % 16], "labels": labels[i % 61]}
            found.append({name: given[name] for name in step.input_names})
    times: dict[int, list[float]] = {n: [] for n in sizes}
    start_values = [parameter.value for parameter in step.parameters]
    for turn in range(ROUNDS + 1):
        for n, found in feeds.items():
            for parameter, value in zip(step.parameters, start_values, strict=True):
                parameter.value = value
            for i in range(STEPS):
                feed = found[(turn * STEPS + i) % len(found)]
                start = time.perf_counter()
                step(**feed)
                if turn:  # the first turn warms up
                    times[n].append(time.perf_counter() - start)
    return {n: statistics.median(found) for n, found in times.items()}


def main(sizes: list[int]) -> None:
    """Measure and print."""
    for name, step in programs().items():
        medians = measure(step, sizes)
        for n, median in medians.items():
            share = median / medians[sizes[-1]]
            print(f"{name:8} batch {n:4d}: {median * 1e6:8.1f} us, {share:.3f} of batch {sizes[-1]}'s")


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [1, 16, 128])
