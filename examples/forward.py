"""Forward propagation: neuron by neuron, in matrix form, and as a model, to the same number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples.common import check, draw, f32, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Three inputs, three hidden neurons, one output, with weights that are easy to follow."""
    x = f32([[1.0, 2.0, 3.0]])
    w1 = f32([[0.1, 0.4, -0.2], [0.2, -0.5, 0.3], [0.3, 0.1, 0.2]])
    b1, w2, b2 = f32([0.1, 0.2, 0.3]), f32([[0.5], [-0.6], [0.7]]), f32([0.1])

    def sigmoid(z: Any) -> Any:
        return 1 / (1 + np.exp(-z))

    hidden = []
    for j in range(3):  # step 1: input to hidden
        z = sum(x[0, i] * w1[i, j] for i in range(3)) + b1[j]
        hidden.append(max(z, 0.0))
        print(f"z{j + 1} = {z:.2f}, h{j + 1} = relu(z{j + 1}) = {hidden[-1]:.2f}")
    z_out = sum(h * w for h, w in zip(hidden, w2[:, 0], strict=True)) + b2[0]  # step 2: hidden to output
    print(f"neuron by neuron: y_hat = sigmoid({z_out:.3f}) = {sigmoid(z_out):.5f}")

    matrix = sigmoid(np.maximum(x @ w1 + b1, 0) @ w2 + b2)
    print(f"matrix form:      y_hat = {matrix.item():.5f}")

    model = Sequential([Input((3,)), layers.Dense(3, "relu"), layers.Dense(1, "sigmoid")])
    model.set_weights([w1, b1, w2, b2])
    output = model.predict(x, verbose=0).item()
    print(f"compiled:         y_hat = {output:.5f}")
    print(model.latex())

    def paint(axes: Any) -> None:
        for axis, matrix, name in zip(axes, (w1, w2), ("W1", "W2"), strict=True):
            axis.imshow(matrix, cmap="coolwarm", vmin=-1, vmax=1)
            axis.set_title(name)
            for (i, j), value in np.ndenumerate(matrix):
                axis.text(j, i, f"{value:.1f}", ha="center", va="center")

    draw(out / "forward.svg", paint, columns=2, width=3.5)
    check(model.programs["predict"], out / "forward.onnx")


if __name__ == "__main__":
    run(main, __doc__)
