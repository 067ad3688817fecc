"""Pooling: what is largest in each window, or the mean of it, and to which places gradients go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run
from graphc import layers

IMAGE = f32([[1, 3, 2, 1], [4, 6, 4, 2], [5, 8, 3, 5], [2, 1, 0, 3]])


def main(out: Path) -> None:
    """Pool four by four numbers, and send a gradient of ones back."""
    x = gx.placeholder("x", ("batch", 4, 4, 1))
    poolings = {
        "max": layers.MaxPooling2D(2),
        "average": layers.AveragePooling2D(2),
        "overlapping": layers.MaxPooling2D(3, strides=1),
        "everything": layers.GlobalMaxPooling2D(keepdims=True),
    }
    outputs = {name: layer(x) for name, layer in poolings.items()}
    outputs |= {f"back_{name}": gx.grad(gx.sum(outputs[name]), [x])[0] for name in ("max", "average")}
    program = gx.compile(outputs, inputs=[x], backend="numba")
    found = {name: values[0, ..., 0] for name, values in program(x=IMAGE[None, ..., None]).items()}

    print(f"max: {found['max'].tolist()}, average: {found['average'].tolist()}")
    print(f"windows of 3 that overlap: {found['overlapping'].tolist()}, all in one: {found['everything'].item():.0f}")
    by_hand = IMAGE.reshape(2, 2, 2, 2).max((1, 3))
    print(f"the largest of each window: {np.array_equal(found['max'], by_hand)}")
    print(f"gradient of max: {found['back_max'].astype(int).tolist()}")
    at_largest = np.isin(IMAGE, by_hand) & (IMAGE == by_hand.repeat(2, 0).repeat(2, 1))
    print(f"it goes only to the largest: {np.array_equal(found['back_max'] > 0, at_largest)}")
    print(f"gradient of average: a quarter everywhere: {bool((found['back_average'] == 0.25).all())}")

    def paint(axes: Any) -> None:
        shown = {"image": IMAGE, "max": found["max"], "average": found["average"], "gradient of max": found["back_max"]}
        for axis, (title, values) in zip(axes, shown.items(), strict=True):
            axis.imshow(values, cmap="Blues", vmin=0, vmax=2 * values.max())
            for (i, j), value in np.ndenumerate(values):
                axis.text(j, i, f"{value:g}", ha="center", va="center")
            axis.set(title=title)
            axis.set_axis_off()

    draw(out / "pooling.svg", paint, columns=4, width=3)
    check(program, out / "pooling.onnx", x=IMAGE[None, ..., None])


if __name__ == "__main__":
    run(main, __doc__)
