"""A convolutional network: convolution, pooling, flatten, dense, and the digits that it learns to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Say the shapes of a network for 28 x 28 pixels, then train one for 8 x 8."""
    large = Sequential(
        [Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    )
    for layer in large.layers:
        print(f"{type(layer).__name__}: {' x '.join(map(str, layer.output.shape[1:]))}")

    images, labels = gx.data.load_digits()
    x, y = (images[..., None] / 16).astype(np.float32), labels
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[: len(x) // 5], order[len(x) // 5 :]
    gx.set_seed(0)
    model = Sequential(
        [
            Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(),
            layers.Dense(10, name="dense"),
        ]
    )
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(gx.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    counts = {layer.name: layer.count_params() for layer in model.layers}
    filters = counts["conv_1"] + counts["conv_2"]
    print(
        f"weights: {model.count_params():,}, of which the convolutions have {filters:,} and the dense layer "
        f"{counts['dense']:,}"
    )
    history = model.fit(x[train], y[train], batch_size=32, epochs=8, validation_data=(x[test], y[test]), verbose=0)
    print(f"test accuracy: {history.history['val_accuracy'][-1]:.3f} after 8 epochs")

    seen = gx.Model(model.inputs, [model.layers[0].output, model.layers[2].output])
    maps = seen.predict(x[test[:1]], verbose=0)

    def paint(axes: Any) -> None:
        shown = {"image": x[test[0], ..., 0], "filter 1": maps[0][0, ..., 0], "filter 2": maps[0][0, ..., 1],
                 "second layer": maps[1][0, ..., 0]}  # fmt: skip
        for axis, (title, values) in zip(axes, shown.items(), strict=True):
            axis.imshow(values, cmap="gray")
            axis.set(title=title)
            axis.set_axis_off()

    draw(out / "cnn.svg", paint, columns=4, width=3)
    check(model.programs["predict"], out / "cnn.onnx")
    check(model.programs["train"], out / "cnn-train.onnx", steps=3)


if __name__ == "__main__":
    run(main, __doc__)
