"""Batch, mini-batch and stochastic gradient descent: the same model, the paths of its two weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Fit a line by steps over all, 16, and single samples."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (128, 1)).astype(np.float32)
    y = (2 * x - 1 + rng.normal(0, 0.5, x.shape)).astype(np.float32)
    best = np.linalg.lstsq(np.c_[x, np.ones_like(x)], y, rcond=None)[0].ravel()
    gx.set_seed(0)
    model = Sequential([Input((1,)), layers.Dense(1)])
    model.compile(gx.optimizers.SGD(0.1), "mse")
    print(f"least squares: w {best[0]:.3f}, b {best[1]:.3f}")

    paths: dict[str, np.ndarray] = {}
    for name, size in (("batch", len(x)), ("mini-batch", 16), ("stochastic", 1)):
        model.set_weights([f32([[-2]]), f32([2])])
        path: list[list[float]] = []
        note = gx.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, path=path: path.append(
                [float(w.item()) for w in model.get_weights()]
            )
        )
        model.fit(x, y, batch_size=size, epochs=3, callbacks=[note], verbose=0)
        paths[name] = np.array([[-2.0, 2.0], *path])
        distance = np.hypot(*(paths[name][-1] - best))
        print(f"{name}: {len(path) // 3} steps an epoch, after 3 epochs {distance:.3f} from the best")

    def paint(axes: Any) -> None:
        a, b = np.meshgrid(np.linspace(-2.5, 3, 60), np.linspace(-2.5, 2.5, 60))
        cost = ((a[..., None] * x[:, 0] + b[..., None] - y[:, 0]) ** 2).mean(-1)
        for axis, (name, path) in zip(axes, paths.items(), strict=True):
            axis.contour(a, b, cost, 15, alpha=0.5)
            axis.plot(*path.T, ".-", lw=0.8, ms=3)
            axis.plot(*best, "r*")
            axis.set(title=name, xlabel="w", ylabel="b")

    draw(out / "descent.svg", paint, columns=3, width=4)
    check(model.programs["train"], out / "descent-train.onnx", steps=5)


if __name__ == "__main__":
    run(main, __doc__)
