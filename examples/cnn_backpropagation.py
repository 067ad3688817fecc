"""Backpropagation through each layer of a CNN: dense, flatten, pooling, relu, convolution, each by its own formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from examples.convolution import IMAGE


def main(out: Path) -> None:
    """Forward: convolution, relu, pooling, flatten, dense, loss. Backward: the gradient at each, and by hand."""
    x, kernel = gx.placeholder("x", (1, 5, 5, 1)), gx.placeholder("kernel", (2, 2, 1, 1))
    weights, target = gx.placeholder("w", (4, 1)), gx.placeholder("t", (1, 1))
    convolved = gx.conv(x, kernel)
    active = gx.relu(convolved)
    pooled = gx.max_pool(active, 2)
    flat = gx.flatten(pooled, 1)
    predicted = flat @ weights
    loss = gx.sum((predicted - target) ** 2) * 0.5
    names = ("x", "kernel", "convolved", "active", "pooled", "flat", "w")
    forward = {"convolved": convolved, "active": active, "pooled": pooled, "flat": flat, "predicted": predicted}
    slopes = gx.grad(loss, [x, kernel, convolved, active, pooled, flat, weights])
    outputs = {**forward, **{f"d_{name}": slope for name, slope in zip(names, slopes, strict=True)}}
    program = gx.compile(outputs, inputs=[x, kernel, weights, target], backend="numba")

    given = {"x": IMAGE[None, ..., None] / 9, "kernel": f32([[-2, 1], [-1, 1]])[..., None, None],
             "w": f32([[1], [-2], [3], [4]]), "t": f32([[2]])}  # fmt: skip
    found = program(**given)
    error = found["predicted"] - given["t"]
    print(f"loss -> dense: {float(error.item()):.3f} = predicted - target")
    stopped = int(((found["d_active"] != 0) & (found["d_convolved"] == 0)).sum())
    print(f"of four gradients from pooling relu stops {stopped}: all of its window was below 0")

    by_hand = {
        "w": found["flat"].T @ error,
        "flat": error @ given["w"].T,
        "pooled": found["d_flat"].reshape(1, 2, 2, 1),
        "active": unpooled(found["active"][0, ..., 0], found["d_pooled"][0, ..., 0])[None, ..., None],
        "convolved": found["d_active"] * (found["convolved"] > 0),
    }
    slope = found["d_convolved"][0, ..., 0]
    by_hand["kernel"] = slid(given["x"][0, ..., 0], slope)[..., None, None]
    turned = given["kernel"][::-1, ::-1, 0, 0]
    by_hand["x"] = slid(np.pad(slope, 1), turned)[None, ..., None]
    said = {
        "w": "dense, weights: input^T @ error",
        "flat": "dense, input: error @ weights^T",
        "pooled": "flatten: the gradient in the old shape",
        "active": "pooling: to the largest of each window, 0 elsewhere",
        "convolved": "relu: where its input was above 0",
        "kernel": "convolution, kernel: the input slid over by the gradient",
        "x": "convolution, input: the padded gradient slid over by the kernel turned around",
    }
    for name, formula in said.items():
        print(f"{formula}: {np.allclose(found[f'd_{name}'], by_hand[name], atol=1e-5)}")
    (back,) = gx.grad(gx.sum(gx.flatten(pooled, 1) * gx.constant(f32([[1, 2, 3, 4]]))), [pooled])
    shaped = gx.compile({"g": back}, inputs=[x, kernel], backend="reference")(x=given["x"], kernel=given["kernel"])["g"]
    print(f"flatten, [1, 2, 3, 4] becomes {shaped[0, ..., 0].astype(int).tolist()}")

    def paint(axes: Any) -> None:
        for axis, name in zip(axes, ("pooled", "active", "convolved", "x"), strict=True):
            values = found[f"d_{name}"][0, ..., 0]
            axis.imshow(values, cmap="RdBu", vmin=-abs(values).max(), vmax=abs(values).max())
            axis.set(title=f"gradient by {name}, {values.shape[0]} x {values.shape[1]}")
            axis.set_axis_off()

    draw(out / "cnn_backpropagation.svg", paint, columns=4, width=3)
    check(program, out / "cnn_backpropagation.onnx", **given)


def slid(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A convolution written out."""
    rows, columns = (own - size + 1 for own, size in zip(image.shape, kernel.shape, strict=True))
    height, width = kernel.shape
    return f32([[(image[i : i + height, j : j + width] * kernel).sum() for j in range(columns)] for i in range(rows)])


def unpooled(values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Each gradient at the place of the largest value of its window of 2 by 2."""
    found = np.zeros_like(values)
    for (i, j), slope in np.ndenumerate(slopes):
        window = values[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        down, right = divmod(int(window.argmax()), 2)
        found[2 * i + down, 2 * j + right] = slope
    return found


if __name__ == "__main__":
    run(main, __doc__)
