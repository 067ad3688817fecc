"""Rosenblatt's perceptron: its line moves at each mistake, and jumps where there is no learning rate."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run


def main(out: Path) -> None:
    """Learn to tell two clouds of points apart by both rules, with and without a learning rate."""
    rng = np.random.default_rng(3)
    x = np.r_[rng.normal((-2, -1), 0.9, (40, 2)), rng.normal((2, 1.5), 0.9, (40, 2))].astype(np.float32)
    y = np.repeat([0, 1], 40)
    start = f32([1.0, -1.0, 0.5])  # a line that is wrong

    neurons = {
        "w += x, w -= x": gx.Perceptron("trick", initializer=start),
        "w += lr (y - y_hat) x": gx.Perceptron("delta", learning_rate=0.01, initializer=start),
    }
    for name, neuron in neurons.items():
        neuron.fit(x, y)
        moves = [np.hypot(*(b.weights - a.weights)) for a, b in itertools.pairwise(neuron.lines)]
        print(
            f"{name}: {len(neuron.mistakes)} epochs, {sum(neuron.mistakes)} mistakes, longest move {max(moves):.3f}, "
            f"right: {neuron.score(x, y):.0%}"
        )
    same = gx.Perceptron("trick", learning_rate=0.01, initializer=start).fit(x, y)
    delta = neurons["w += lr (y - y_hat) x"]
    print("both rules, one rate, the same line:", np.allclose(same.weights.value, delta.weights.value, atol=1e-6))

    def paint(axes: Any) -> None:
        across = np.array([x[:, 0].min(), x[:, 0].max()])
        for axis, (name, neuron) in zip(axes, neurons.items(), strict=True):
            axis.scatter(*x.T, c=y, cmap="coolwarm", s=14)
            for number, line in enumerate(neuron.lines, 1):
                axis.plot(across, line.at(across), color="k", alpha=0.1 + 0.9 * number / len(neuron.lines))
            axis.set(title=name, ylim=(x[:, 1].min() - 1, x[:, 1].max() + 1))

    draw(out / "perceptron.svg", paint, columns=2)
    check(delta.programs["predict"], out / "perceptron.onnx")
    check(delta.programs["train"], out / "perceptron-train.onnx", steps=5)


if __name__ == "__main__":
    run(main, __doc__)
