"""Fine-tuning: of five convolutions three are frozen; the last two learn slowly, and a new head learns fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from examples.feature_extraction import LOSS, digits, sample
from graphc import Input, Model, Sequential, layers


def network() -> Sequential:
    """Five convolutions and a head."""
    convolutions = [
        layers.Conv2D(width, 3, padding="same", strides=strides, activation="relu", name=f"conv_{number}")
        for number, (width, strides) in enumerate(((12, 1), (12, 1), (16, 2), (16, 1), (24, 2)), 1)
    ]
    return Sequential([Input((8, 8, 1)), *convolutions, layers.Flatten(), layers.Dense(5, name="head")])


def main(out: Path) -> None:
    """Train on 0 to 4; then let 4, 5 and a new head learn 5 to 9."""
    gx.set_seed(1)
    base = network()
    base.compile(gx.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"])
    base.fit(*digits(0, 4), epochs=4, batch_size=32, verbose=0)
    base.save_weights(out / "base.safetensors")

    # The same network with the weights of the old one, all but those of the head.
    body = Model(base.input, base.layers[-2].output, name="body")
    model = Sequential([Input((8, 8, 1)), body, layers.Dense(5, name="new_head")])
    report = model.load_weights(out / "base.safetensors", by_name=True)
    print(f"loaded {len(report.matched)} arrays; only here: {', '.join(report.missing)}")

    model.freeze("body/conv_[123]")
    frozen = sorted({weight.label.split("/")[-2] for weight in model.non_trainable_weights})
    trained = sorted({weight.label.split("/")[-2] for weight in model.trainable_weights})
    print(f"frozen: {', '.join(frozen)}; trained: {', '.join(trained)}")
    rates = gx.optimizers.Grouped(gx.optimizers.Adam(0.01), {"body": 0.1})
    model.compile(rates, LOSS, metrics=["accuracy"])

    x, y = digits(5, 9)
    before = base.get_weights()
    history = model.fit(
        x[:100], y[:100], epochs=15, batch_size=10, validation_data=(x[300:], y[300:]), verbose=0
    ).history
    moved = [float(np.abs(new - old).max()) for old, new in zip(before, base.get_weights(), strict=True)][0:10:2]
    print("kernels moved by at most " + ", ".join(f"conv_{n} {by:.3f}" for n, by in enumerate(moved, 1)))
    updates = [parameter.label for parameter, _ in model.programs["train"].graph.updates]
    changed = [name for name in (*frozen, *trained) if any(f"{name}/" in label for label in updates)]
    print(f"the step updates {', '.join(changed)} and their slots, and nothing else of the model")
    reached = history["val_accuracy"]
    print(f"digits 5 to 9 from 100 images: {reached[0]:.1%} right after one epoch, {reached[-1]:.1%} in the end")

    def paint(axes: Any) -> None:
        axes[0].bar(range(1, 6), moved, color=["0.7"] * 3 + ["tab:orange"] * 2)
        axes[0].set(title="how far kernels moved", xlabel="convolution", ylabel="largest change")
        axes[1].plot(range(1, 16), history["accuracy"], label="the 100 images")
        axes[1].plot(range(1, 16), reached, label="unseen images")
        axes[1].set(title="layers 4, 5 and a new head", xlabel="epoch", ylabel="accuracy")
        axes[1].legend()

    draw(out / "fine_tuning.svg", paint, columns=2)
    check(model.programs["train"], out / "fine_tuning-train.onnx", steps=3, **sample(x, y))


if __name__ == "__main__":
    run(main, __doc__)
