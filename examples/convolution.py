"""Convolution by hand: a filter slides over an image, one small set of weights for every place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from graphc import layers

IMAGE = f32([[1, 2, 3, 0, 1], [4, 5, 6, 1, 2], [7, 8, 9, 2, 3], [1, 0, 1, 0, 1], [2, 1, 0, 1, 2]])
EDGES = f32([[1, 0, -1], [1, 0, -1], [1, 0, -1]])


def main(out: Path) -> None:
    """Slide a filter for upright edges over five by five numbers, then over a digit."""
    products = IMAGE[:3, :3] * EDGES
    terms = " ".join(f"{value:+.0f}" for value in products.ravel())
    print(f"at (0, 0): {terms} = {products.sum():.0f}")
    by_hand = [[float((IMAGE[i : i + 3, j : j + 3] * EDGES).sum()) for j in range(3)] for i in range(3)]
    print(f"by hand: {by_hand}")

    x, kernel = gx.placeholder("x", ("batch", "height", "width", 1)), gx.placeholder("kernel", (3, 3, 1, 1))
    slid = gx.compile({"y": gx.conv(x, kernel)}, inputs=[x, kernel], backend="numba")
    found = slid(x=IMAGE[None, ..., None], kernel=EDGES[..., None, None])["y"][0, ..., 0]
    print(f"compiled: {found.tolist()}, the same: {np.array_equal(found, by_hand)}")

    for size in (28, 100):
        made = slid(x=np.zeros((1, size, size, 1), np.float32), kernel=EDGES[..., None, None])["y"]
        print(f"{size} x {size} becomes {made.shape[1]} x {made.shape[2]} by the same 9 weights")
    dense = layers.Dense(26 * 26, use_bias=False)
    dense(gx.placeholder("flat", ("batch", 28 * 28)))
    print(f"a dense layer from 28 x 28 to 26 x 26: {sum(weight.value.size for weight in dense.weights):,} weights")

    digit = gx.data.load_digits()[0][0].astype(np.float32)
    filters = {"upright edges": EDGES, "level edges": EDGES.T, "blur": np.full((3, 3), 1 / 9, np.float32)}
    views = {"image": digit}
    for name, weights in filters.items():
        views[name] = slid(x=digit[None, ..., None], kernel=weights[..., None, None])["y"][0, ..., 0]

    def paint(axes: Any) -> None:
        for axis, (title, values) in zip(axes, views.items(), strict=True):
            axis.imshow(values, cmap="gray")
            axis.set(title=f"{title}, {values.shape[0]} x {values.shape[1]}")
            axis.set_axis_off()

    draw(out / "convolution.svg", paint, columns=4, width=3)
    check(slid, out / "convolution.onnx", x=IMAGE[None, ..., None], kernel=EDGES[..., None, None])


if __name__ == "__main__":
    run(main, __doc__)
