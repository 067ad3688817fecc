"""Optimizers on a narrow valley: how each goes down to the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run


def main(out: Path) -> None:
    """Go down ``x**2 / 20 + y**2`` from (-7, 2) in 60 steps, without any model or data."""
    chosen = {
        "SGD": gx.optimizers.SGD(0.9),
        "momentum": gx.optimizers.SGD(0.1, momentum=0.9),
        "Nesterov": gx.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "Adagrad": gx.optimizers.Adagrad(1.5),
        "RMSprop": gx.optimizers.RMSprop(0.3),
        "Adam": gx.optimizers.Adam(0.3),
    }
    paths: dict[str, np.ndarray] = {}
    for name, optimizer in chosen.items():
        place = gx.parameter("place", f32([-7, 2]))
        height = gx.sum(gx.square(place) * gx.constant(f32([1 / 20, 1])))
        updates = optimizer.updates([place], gx.grad(height, [place]))
        step = gx.compile({"height": height}, inputs=[], updates=updates, backend="numba")
        check(step, out / f"optimizers-{name}.onnx", steps=5)
        path = [np.array(place.value)]
        for _ in range(60):
            step()
            path.append(np.array(place.value))
        paths[name] = np.array(path)
        x, y = paths[name][-1]
        print(f"{name}: from height 6.45 to {x**2 / 20 + y**2:.2g}")

    def paint(axes: Any) -> None:
        x, y = np.meshgrid(np.linspace(-8, 4, 80), np.linspace(-3, 3, 60))
        axes.contour(x, y, x**2 / 20 + y**2, 20, alpha=0.4)
        for name, path in paths.items():
            axes.plot(*path.T, ".-", label=name, lw=1, ms=3)
        axes.legend()

    draw(out / "optimizers.svg", paint, width=8)


if __name__ == "__main__":
    run(main, __doc__)
