"""Augmentation: images that are changed in another way each time they are seen, as data and as layers of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers
from graphc.data import ImageDataGenerator

CHANGES = {"rotation_range": 25, "width_shift_range": 0.15, "height_shift_range": 0.15, "zoom_range": 0.1,
           "fill_mode": "constant"}  # fmt: skip


def main(out: Path) -> None:
    """Change one digit in many ways, then learn from few digits with and without changes."""
    images, labels = gx.data.load_digits()
    x, y = (images[..., None] / 16).astype(np.float32), labels
    changed = ImageDataGenerator(**CHANGES)
    batches = changed.flow(np.repeat(x[:1], 16, 0), seed=3)
    first, again, next_epoch = (batches.of_epoch(epoch)(0) for epoch in (0, 0, 1))
    print(f"the same seed and epoch, the same images: {np.array_equal(first, again)}")
    print(f"the next epoch, others: {not np.array_equal(first, next_epoch)}")
    workers = changed.flow(np.repeat(x[:1], 16, 0), seed=3, workers=4, batch_size=5)
    as_one = np.concatenate([workers.of_epoch(0)(i) for i in range(len(workers))])
    print(f"in smaller batches, by four threads: {np.allclose(as_one, first, atol=1e-6)}")

    few, test = slice(0, 150), slice(900, 1797)
    turned = ImageDataGenerator(**CHANGES).flow(x[test], y[test], batch_size=897, shuffle=False, seed=9)[0]
    found = {}
    for name, data in {
        "as they are": ImageDataGenerator().flow(x[few], y[few], seed=1),
        "changed": ImageDataGenerator(**CHANGES).flow(x[few], y[few], seed=1),
    }.items():
        model = network()
        history = model.fit(data, epochs=60, verbose=0).history
        seen = model.evaluate(*turned, verbose=0, return_dict=True)["accuracy"]
        found[name] = history["accuracy"]
        print(f"150 digits {name}: {history['accuracy'][-1]:.0%} right in training, {seen:.0%} of new, crooked ones")

    gx.set_seed(2)
    pixels = gx.placeholder("x", ("batch", 8, 8, 1))
    within = Sequential(
        [layers.RandomRotation(0.07, fill_mode="constant"), layers.RandomTranslation(0.15, 0.15, fill_mode="constant"),
         layers.RandomZoom(0.1, fill_mode="constant")]
    )  # fmt: skip
    y_of_layers = within(pixels)
    train = gx.compile({"y": y_of_layers}, inputs=[pixels], updates=within.updates, training=True, backend="numba")
    infer = gx.compile({"y": y_of_layers}, inputs=[pixels], backend="numba")
    sixteen = np.repeat(x[:1], 16, 0)
    in_training = train(x=sixteen)["y"]
    print(f"as layers, training: each image changed, {len(np.unique(in_training, axis=0))} of 16 differ")
    print(f"as layers, inference: nothing changed: {np.array_equal(infer(x=sixteen)['y'], sixteen)}")

    def paint(axes: Any) -> None:
        for axis, (title, some) in zip(axes, {"one digit": x[:1], "as data": first, "as layers": in_training}.items(),
                                       strict=True):  # fmt: skip
            side = int(len(some) ** 0.5)
            axis.imshow(some[..., 0].reshape(side, side, 8, 8).swapaxes(1, 2).reshape(8 * side, -1), cmap="gray")
            axis.set(title=title)
            axis.set_axis_off()

    draw(out / "augmentation.svg", paint, columns=3, width=4)
    check(train, out / "augmentation-train.onnx", steps=3, x=sixteen)
    check(infer, out / "augmentation.onnx", x=sixteen)


def network() -> Sequential:
    """A small CNN, the same each time."""
    gx.set_seed(0)
    model = Sequential(
        [Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(32, 3, activation="relu"),
         layers.Flatten(), layers.Dense(10)]
    )  # fmt: skip
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(gx.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


if __name__ == "__main__":
    run(main, __doc__)
