"""Layer normalization against batch normalization: over the values of one sample, or over the samples of one value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers


def main(out: Path) -> None:
    """Normalize the same batch both ways, then one sample of it alone."""
    x = gx.placeholder("x", ("batch", 6))
    by_layer, by_batch = layers.LayerNormalization(epsilon=1e-6), layers.BatchNormalization(epsilon=1e-6)
    outputs = {"layer": by_layer(x), "batch": by_batch(x)}
    train = gx.compile(outputs, inputs=[x], updates=by_batch.updates, training=True, backend="numba")
    infer = gx.compile(outputs, inputs=[x], backend="numba")

    rng = np.random.default_rng(0)
    batch = (rng.standard_normal((8, 6)) * [1, 2, 3, 4, 5, 6] + np.arange(8)[:, None]).astype(np.float32)
    found, later = train(x=batch), infer(x=batch)
    for name, axis in (("layer", 1), ("batch", 0)):
        means, spreads = found[name].mean(axis), found[name].std(axis)
        over = "each sample" if axis else "each value"
        print(
            f"{name}: {over} has mean {abs(means).max():.3f} and deviation {spreads.min():.3f} to {spreads.max():.3f}"
        )
    alone = train(x=batch[:1])
    print(f"a sample alone, layer: as before {np.allclose(alone['layer'], found['layer'][:1], atol=1e-5)}")
    print(f"a sample alone, batch: as before {np.allclose(alone['batch'], found['batch'][:1], atol=1e-5)}")
    print(f"inference, layer: as in training {np.array_equal(later['layer'], found['layer'])}")
    print(f"inference, batch: as in training {np.allclose(later['batch'], found['batch'], atol=1e-3)}")

    def paint(axes: Any) -> None:
        for axis, (title, values) in zip(axes, {"as it is": batch, **found}.items(), strict=True):
            axis.imshow(values, cmap="RdBu")
            axis.set(title=title, xlabel="value", ylabel="sample")

    draw(out / "layer_norm.svg", paint, columns=3, width=3)
    check(infer, out / "layer_norm.onnx", x=batch)


if __name__ == "__main__":
    run(main, __doc__)
