"""Feature extraction: a CNN that knows some digits, frozen and with a new head, learns others from few images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Model, Sequential, layers

LOSS = gx.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of some digits, which are numbered from 0."""
    images, labels = gx.data.load_digits()
    chosen = (labels >= first) & (labels <= last)
    return images[chosen, ..., None].astype(np.float32) / 16, labels[chosen] - first


def network() -> Sequential:
    """Two convolutions, a layer of features, and a head for five classes."""
    return Sequential([
        Input((8, 8, 1)),
        layers.Conv2D(16, 3, activation="relu", name="conv_1"),
        layers.BatchNormalization(momentum=0.9, name="norm"),
        layers.Conv2D(32, 3, activation="relu", name="conv_2"),
        layers.Flatten(),
        layers.Dense(48, activation="relu", name="features"),
        layers.Dense(5, name="head"),
    ])  # fmt: skip


def convolutions(model: Model) -> int:
    """How many convolutions, forwards and backwards, a step of training holds."""
    return sum(node.op.name.startswith("conv") for node in model.programs["train"].graph.nodes)


def main(out: Path) -> None:
    """Train on 0 to 4, keep the convolutions, and train a head on 5 to 9."""
    gx.set_seed(0)
    base = network()
    base.compile(gx.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"])
    base.fit(*digits(0, 4), epochs=6, batch_size=32, verbose=0)
    all_trained = convolutions(base)

    features = base.get_layer("features")
    model = Model(base.input, layers.Dense(5, name="new_head")(features.output))
    model.freeze(all_but_last=1)
    model.compile(gx.optimizers.Adam(0.02), LOSS, metrics=["accuracy"])
    trained = sum(weight.value.size for weight in model.trainable_weights)
    print(f"trained: {trained} = 48 x 5 + 5 of {model.count_params()} weights")
    print(f"convolutions in a step: {all_trained} when all is trained, {convolutions(model)} when the base is frozen")

    x, y = digits(5, 9)
    before = base.get_weights()[:-2]
    history = model.fit(x[:50], y[:50], epochs=20, batch_size=10, validation_data=(x[300:], y[300:]), verbose=0).history
    same = all(np.array_equal(old, new) for old, new in zip(before, base.get_weights(), strict=False))
    print(f"the base, its moving statistics included, is as it was: {same}")
    reached = history["val_accuracy"]
    print(f"digits 5 to 9 from 50 images: {reached[0]:.1%} right after one epoch, {reached[-1]:.1%} in the end")

    def paint(axes: Any) -> None:
        axes.plot(range(1, 21), history["accuracy"], label="the 50 images")
        axes.plot(range(1, 21), reached, label="unseen images")
        axes.set(title="a new head on frozen features", xlabel="epoch", ylabel="accuracy", xticks=range(0, 21, 5))
        axes.legend()

    draw(out / "feature_extraction.svg", paint)
    check(model.programs["train"], out / "feature_extraction-train.onnx", steps=3, **sample(x, y))


def sample(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """A batch for a program of a model with one input."""
    return {"input_layer": x[:16], "target": y[:16]}


if __name__ == "__main__":
    run(main, __doc__)
