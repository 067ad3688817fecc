"""Exclusive or: no line separates it, two layers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Let a perceptron fail and a network with one hidden layer learn."""
    x = f32([[0, 0], [0, 1], [1, 0], [1, 1]])
    y = f32([0, 1, 1, 0])
    neuron = gx.Perceptron().fit(x, y, epochs=100)
    print(f"perceptron: {neuron.score(x, y):.0%} right after {len(neuron.mistakes)} epochs")

    gx.set_seed(0)
    model = Sequential([Input((2,)), layers.Dense(8, "tanh"), layers.Dense(1, "sigmoid")])
    model.compile(gx.optimizers.Adam(0.1), "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=4, epochs=200, verbose=0)
    print(f"two layers: {history.history['accuracy'][-1]:.0%} right, loss {history.history['loss'][-1]:.4f}")
    print("outputs:", np.round(model.predict(x, verbose=0).ravel().astype(float), 2).tolist())

    def paint(axes: Any) -> None:
        grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 1.5, 80)] * 2), -1).astype(np.float32)
        plane = model.predict(grid.reshape(-1, 2), batch_size=6400, verbose=0).reshape(80, 80)
        axes.contourf(grid[..., 0], grid[..., 1], plane, 20, cmap="coolwarm")
        axes.scatter(*x.T, c=y, cmap="coolwarm", edgecolors="k", s=90)

    draw(out / "xor.svg", paint)
    check(model.programs["predict"], out / "xor.onnx")
    check(model.programs["train"], out / "xor-train.onnx", steps=5, input_layer=x, target=y[:, None])


if __name__ == "__main__":
    run(main, __doc__)
