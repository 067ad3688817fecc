"""A Transformer that sees: handwritten digits, cut into patches as a sentence into words. ``--check`` trains longer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import data


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images from 0 to 1 and their digits: 1,500 to learn, and the last 297, by other writers."""
    images, labels = data.load_digits()
    pixels = images[..., None].astype(np.float32) / 16
    return pixels[:1500], labels[:1500], pixels[1500:], labels[1500:]


def moved() -> data.ImageDataGenerator:
    """Turns, shears, zooms and moves each image a little, in another way in each epoch; black comes in at the edge."""
    return data.ImageDataGenerator(
        rotation_range=10, shear_range=8, zoom_range=0.1, width_shift_range=0.125, height_shift_range=0.125,
        fill_mode="constant",
    )  # fmt: skip


def seer(size: int, depth: int, dropout: float) -> gx.models.ViT:
    """Patches of 2 x 2 pixels: 16 tokens of 4 numbers."""
    model = gx.models.ViT(
        (8, 8, 1), 10, patch_size=2, num_layers=depth, d_model=size, num_heads=4, d_ff=2 * size, dropout=dropout,
        pooling="mean",
    )  # fmt: skip
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = gx.optimizers.AdamW(0.002, weight_decay=0.05, epsilon=1e-5, global_clipnorm=1.0)
    model.compile(optimizer, loss, metrics=["sparse_categorical_accuracy"])
    return model


def main(out: Path) -> None:
    """A small one on 600 digits."""
    gx.set_seed(0)
    images, labels, others, answers = digits()
    model = seer(16, 1, 0.0)
    model.optimizer.learning_rate = 0.01
    losses = model.fit(images[:600], labels[:600], batch_size=50, epochs=8, verbose=0).history["loss"]
    right = np.mean(model.predict(others, verbose=0).argmax(-1) == answers)
    size = model.count_params()
    print(f"{size} parameters, loss {losses[0]:.2f} to {losses[-1]:.2f}, {right:.0%} of 297 others right")
    _draw_places(out / "vit.svg", model, others[0])
    check(model.programs["train"], out / "vit.onnx", 2, images=images[:4], target=labels[:4])


def train(out: Path) -> None:
    """A larger one on all, moved a little in each epoch: at least 96 % of the digits of other writers."""
    gx.set_seed(0)
    images, labels, others, answers = digits()
    model, epochs = seer(48, 3, 0.1), 160

    def rate(epoch: int) -> float:
        return 0.004 * min((epoch + 1) / 10, (1 + np.cos(np.pi * epoch / epochs)) / 2)

    lessons = moved().flow(images, labels, batch_size=50, seed=0)
    schedule = gx.callbacks.LearningRateScheduler(rate)
    began = time.perf_counter()
    loss = model.fit(lessons, epochs=epochs, verbose=0, callbacks=[schedule]).history["loss"][-1]
    right, seconds = model.evaluate(others, answers, verbose=0)[1], time.perf_counter() - began
    print(f"{model.count_params():,} parameters, {epochs * 30} steps, {seconds:.0f} s, loss {loss:.3f}; "
          f"{right:.1%} of 297 others right")  # fmt: skip
    _draw_places(out / "vit-trained.svg", model, others[0])
    if right < 0.96:
        raise SystemExit("below 96 %")


def _draw_places(path: Path, model: gx.models.ViT, image: np.ndarray) -> None:
    """A digit in patches, and how alike the vectors of two places have become."""
    places = np.asarray(model.embedding.position_embedding.weights[0].value)
    places = places / np.linalg.norm(places, axis=-1, keepdims=True)

    def paint(axes: Any) -> None:
        axes[0].imshow(image[..., 0], cmap="gray_r", extent=(0, 8, 8, 0))
        axes[0].set(title="16 patches", xticks=range(0, 9, 2), yticks=range(0, 9, 2))
        axes[0].grid(color="tab:red")
        axes[1].imshow(places @ places.T, cmap="RdBu", vmin=-1, vmax=1)
        axes[1].set(title="how alike their places are", xlabel="patch", ylabel="patch")

    draw(path, paint, columns=2)


if __name__ == "__main__":
    run(main, __doc__, train)
