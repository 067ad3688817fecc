"""Residuals: the way past each part, by which gradients reach the first of many layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers

DEPTH = 8


def main(out: Path) -> None:
    """Send a gradient down eight feed-forward networks, with and without the way past them."""
    gx.set_seed(0)
    x = gx.placeholder("x", ("batch", 16))
    networks = [layers.FeedForward(32, kernel_initializer="glorot_normal") for _ in range(DEPTH)]
    norms = [layers.LayerNormalization() for _ in range(DEPTH)]
    steps = {
        "none": lambda h, network, norm: network(h),
        "past": lambda h, network, norm: h + network(h),
        "post-norm": lambda h, network, norm: norm(h + network(h)),
        "pre-norm": lambda h, network, norm: h + network(norm(h)),
    }
    outputs: dict[str, gx.Node] = {}
    for kind, step in steps.items():
        values = [x]
        for network, norm in zip(networks, norms, strict=True):
            values.append(step(values[-1], network, norm))
        gradients = gx.grad(gx.sum(gx.square(values[-1])), values[:-1])
        for number, gradient in enumerate(gradients):
            outputs[f"{kind.replace('-', '_')}_{number}"] = gx.sqrt(gx.mean(gx.square(gradient)))
    program = gx.compile(outputs, inputs=[x], backend="reference")
    batch = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    found = program(x=batch)
    sizes = {kind: [float(found[f"{kind.replace('-', '_')}_{n}"]) for n in range(DEPTH)] for kind in steps}
    for kind, values in sizes.items():
        print(f"{kind}: of the last layer's gradient {values[0] / values[-1]:.1e} reaches the first")

    h = gx.placeholder("h", ("batch", 16))
    block = layers.FeedForward(32, kernel_initializer="zeros")
    silent = gx.compile({"y": h + block(h)}, inputs=[h], backend="numba")
    print(f"a part that gives nothing leaves its input as it was: {np.array_equal(silent(h=batch)['y'], batch)}")

    def paint(axes: Any) -> None:
        for kind, values in sizes.items():
            axes.semilogy(np.array(values) / values[-1], label=kind)
        axes.set(title="gradients on their way down", xlabel="layer", ylabel="of the last layer's")
        axes.legend()

    draw(out / "residuals.svg", paint)
    check(silent, out / "residuals.onnx", h=batch)


if __name__ == "__main__":
    run(main, __doc__)
