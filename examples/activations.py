"""Activation functions with their derivatives, which the compiler finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run


def main(out: Path) -> None:
    """Compute values and slopes, print those that are known, draw all."""
    x = gx.placeholder("x", ("n",))
    functions = {
        "sigmoid": gx.sigmoid(x),
        "tanh": gx.tanh(x),
        "relu": gx.relu(x),
        "leaky_relu": gx.leaky_relu(x, 0.01),
    }
    slopes = {f"{name}_slope": gx.grad(gx.sum(value), [x])[0] for name, value in functions.items()}
    program = gx.compile({**functions, **slopes, "softmax": gx.softmax(x)}, inputs=[x], backend="numba")

    known = program(x=f32([0, -2, 2]))
    print(f"sigmoid(0) = {known['sigmoid'][0]:g}, slope {known['sigmoid_slope'][0]:g}")
    print(f"tanh(0) = {known['tanh'][0]:g}, slope {known['tanh_slope'][0]:g}")
    print(f"relu(-2) = {known['relu'][1]:g}, relu(2) = {known['relu'][2]:g}")
    print(f"leaky_relu(-2) = {known['leaky_relu'][1]:.2f}, slope {known['leaky_relu_slope'][1]:.2f}")
    parts = program(x=f32([1, 2, 3]))["softmax"]
    print(f"softmax(1, 2, 3) = {np.round(parts.astype(float), 4).tolist()}, sum {parts.sum():.4f}")

    def paint(axes: Any) -> None:
        at = np.linspace(-6, 6, 241, dtype=np.float32)
        found = program(x=at)
        for axis, end, title in zip(axes, ("", "_slope"), ("value", "slope"), strict=True):
            for name in functions:
                axis.plot(at, found[name + end], label=name)
            axis.set(title=title, ylim=(-1.2, 2))
            axis.legend()
            axis.grid(alpha=0.3)

    draw(out / "activations.svg", paint, columns=2)
    check(program, out / "activations.onnx")


if __name__ == "__main__":
    run(main, __doc__)
