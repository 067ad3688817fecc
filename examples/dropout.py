"""Dropout: neurons that are off in training, and none in inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers


def main(out: Path) -> None:
    """Send ones through a dropout layer in both phases."""
    gx.set_seed(0)
    x = gx.placeholder("x", ("batch", 50))
    layer = layers.Dropout(0.4)
    y = layer(x)
    train = gx.compile({"y": y}, inputs=[x], updates=layer.updates, training=True, backend="numba")
    infer = gx.compile({"y": y}, inputs=[x], backend="numba")

    ones = np.ones((200, 50), np.float32)
    first, second = train(x=ones)["y"], train(x=ones)["y"]
    print(f"training: {np.mean(first == 0):.3f} are off, the others are {first.max():.4f} = 1 / (1 - 0.4)")
    print(f"the mean stays {first.mean():.2f}; the next step has another mask: {not np.array_equal(first, second)}")
    print(f"inference: all are {np.unique(infer(x=ones)['y']).tolist()}")

    def paint(axes: Any) -> None:
        for axis, mask, name in zip(axes, (first, second, infer(x=ones)["y"]), ("a step", "the next", "inference"),
                                    strict=True):  # fmt: skip
            axis.imshow(mask[:30] > 0, cmap="gray", vmin=0, vmax=1)
            axis.set(title=name, xlabel="neuron", ylabel="sample")

    draw(out / "dropout.svg", paint, columns=3, width=4)
    check(train, out / "dropout-train.onnx", steps=3)
    check(infer, out / "dropout.onnx")


if __name__ == "__main__":
    run(main, __doc__)
