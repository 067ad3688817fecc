"""Batch normalization: by the batch in training, by what was seen there in inference, and what it lets one do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Normalize one batch, follow the running statistics, then train a deep network with and without."""
    x = gx.placeholder("x", ("batch", 3))
    layer = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    y = layer(x)
    train = gx.compile({"y": y}, inputs=[x], updates=layer.updates, training=True, backend="numba")
    infer = gx.compile({"y": y}, inputs=[x], backend="numba")
    batch = (np.random.default_rng(0).standard_normal((64, 3)) * [1, 5, 10] + [0, 10, -20]).astype(np.float32)
    found = train(x=batch)["y"]
    print(f"training: means {within(found.mean(0))}, deviations {found.std(0).round(3).tolist()}")
    by_hand = (batch - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-5)
    print(f"gamma * (x - mean) / sqrt(variance + epsilon) + beta: {np.allclose(found, by_hand, atol=1e-4)}")
    share = layer.moving_mean.value / batch.mean(0)
    print(f"after 1 step the running mean has {share.mean():.2f} of the batch's", end="")
    for _ in range(43):
        train(x=batch)
    share = layer.moving_mean.value / batch.mean(0)
    print(f", after 44 steps {share.mean():.2f} = 1 - 0.9 ** 44")
    alone = infer(x=batch[:1])["y"]
    print(f"inference: a sample alone is what it is among others: {np.array_equal(alone, infer(x=batch)['y'][:1])}")
    frozen = layers.BatchNormalization(trainable=False)
    frozen(x)
    print(f"frozen: running statistics in training, too, {len(frozen.updates)} updates")

    images, labels = gx.data.load_digits()
    pixels = (images[..., None] / 16).astype(np.float32)
    curves: dict[str, list[float]] = {}
    models: dict[str, Sequential] = {}
    for name in ("without", "with"):
        models[name] = model = deep(normalized=name == "with")
        curves[name] = model.fit(pixels, labels, batch_size=64, epochs=6, verbose=0).history["loss"]
        losses = f"loss {curves[name][0]:.2f} in the first epoch, {curves[name][-1]:.2f} in the sixth"
        print(f"eight layers {name} it: {losses}")

    def paint(axes: Any) -> None:
        for name, curve in curves.items():
            axes.plot(range(1, len(curve) + 1), curve, marker=".", label=f"{name} batch normalization")
        axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
        axes.legend()

    draw(out / "batch_norm.svg", paint)
    check(infer, out / "batch_norm.onnx", x=batch)
    check(train, out / "batch_norm-train.onnx", steps=3, x=batch)


def within(values: np.ndarray) -> str:
    """How far from zero they are at most."""
    return f"below {10.0 ** np.ceil(np.log10(abs(values).max())):.0e}"


def deep(normalized: bool) -> Sequential:
    """Seven convolutions and a dense layer, which start with small weights."""
    gx.set_seed(0)
    stack: list[Any] = [Input((8, 8, 1))]
    for _ in range(7):
        stack.append(
            layers.Conv2D(
                8, 3, padding="same", use_bias=False, kernel_initializer=gx.initializers.RandomNormal(0.0, 0.05)
            )
        )
        stack += [layers.BatchNormalization()] if normalized else []
        stack.append(layers.ReLU())
    model = Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])
    model.compile(gx.optimizers.Adam(5e-3), gx.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


if __name__ == "__main__":
    run(main, __doc__)
