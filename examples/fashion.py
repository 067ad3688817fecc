"""Fashion-MNIST: a small CNN, what dropout and shifted images change, and features that serve for new classes.

``--check`` trains on the whole set (Debian package ``dataset-fashion-mnist``, or ``--data`` says where it lies).
Without it, or without the set, a few images do.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers

LOSS = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
Set = tuple[np.ndarray, np.ndarray]


def network(size: int, classes: int, dropout: float = 0.3, widths: tuple[int, ...] = (32, 64, 64)) -> Sequential:
    """A stage of convolution, batch norm and pooling for each width, and two dense layers."""
    stack: list[Any] = [Input((size, size, 1))]
    for number, width in enumerate(widths, 1):
        stack += [
            layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv_{number}"),
            layers.BatchNormalization(momentum=0.9, name=f"norm_{number}"),
            layers.ReLU(),
        ]
        if number < len(widths):
            stack.append(layers.MaxPooling2D())
    stack += [layers.Flatten(), layers.Dropout(dropout), layers.Dense(128, activation="relu", name="features")]
    stack += [layers.Dropout(dropout), layers.Dense(classes, name="head")]
    return Sequential(stack)


def fit(
    model: Sequential, train: Set, test: Set | None, epochs: int, batch: int, rate: float = 2e-3, verbose: int = 0
) -> Any:
    """Train with Adam along half a cosine; what history holds."""
    x, y = train
    steps = -(-len(y) // batch)
    schedule = gx.optimizers.schedules.CosineDecay(
        0.0, epochs * steps, 0.01, warmup_target=rate, warmup_steps=steps // 2
    )
    model.compile(gx.optimizers.Adam(schedule), LOSS, metrics=["accuracy"])
    return model.fit(x, y, batch_size=batch, epochs=epochs, validation_data=test, verbose=verbose).history


class Moved(gx.data.PyDataset):
    """Batches of images that are shifted by up to some pixels and mirrored half of the time, anew in each epoch."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch: int, by: int, mirror: bool = True) -> None:
        super().__init__()
        self.images, self.labels, self.batch, self.by, self.mirror, self.epoch = images, labels, batch, by, mirror, 0
        self.order = np.arange(len(labels))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch)

    def on_epoch_begin(self) -> None:
        """Draw an order of the images."""
        self.epoch += 1
        self.order = np.random.default_rng(self.epoch).permutation(len(self.labels))

    def __getitem__(self, index: int) -> Set:
        rows = self.order[index * self.batch : (index + 1) * self.batch]
        rng, size, by = np.random.default_rng((self.epoch, index)), self.images.shape[1], self.by
        wide = np.pad(self.images[rows], ((0, 0), (by, by), (by, by), (0, 0)))
        top, left = rng.integers(0, 2 * by + 1, (2, len(rows)))
        span = np.arange(size)
        moved = wide[
            np.arange(len(rows))[:, None, None], (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None]
        ]
        flipped = self.mirror & (rng.random(len(rows)) < 0.5)
        moved[flipped] = moved[flipped, :, ::-1]
        return moved, self.labels[rows]


class Accuracies(gx.callbacks.Callback):
    """After each epoch the accuracy on the images as they are that are trained on, and on those that are not."""

    def __init__(self, train: Set) -> None:
        super().__init__()
        self.train, self.seen, self.held = train, list[float](), list[float]()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure."""
        self.seen.append(self.model.evaluate(*self.train, batch_size=500, verbose=0)[1])
        self.held.append(logs["val_accuracy"])


def gaps(
    out: Path, train: Set, test: Set, epochs: int, batch: int, widths: tuple[int, ...], by: int, mirror: bool
) -> list[float]:
    """Train with and without dropout and moved images; the last gap between training and validation of each."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for name, dropout, moves in (("neither", 0.0, False), ("dropout and moved images", 0.3, True)):
        gx.set_seed(1)
        model = network(train[0].shape[1], 10, dropout, widths)
        record = Accuracies(train)
        batches = Moved(*train, batch, by, mirror) if moves else None
        model.compile(gx.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
        data = {"x": batches} if batches is not None else {"x": train[0], "y": train[1], "batch_size": batch}
        model.fit(**data, epochs=epochs, validation_data=test, callbacks=[record], verbose=0)
        seen, held = curves[name] = record.seen, record.held
        print(f"{name}: training {seen[-1]:.3f}, validation {held[-1]:.3f}, gap {seen[-1] - held[-1]:.3f}")

    def paint(axes: Any) -> None:
        for axis, (name, (seen, held)) in zip(axes, curves.items(), strict=True):
            axis.plot(range(1, epochs + 1), seen, label="training images")
            axis.plot(range(1, epochs + 1), held, label="validation images")
            axis.fill_between(range(1, epochs + 1), held, seen, alpha=0.2)
            axis.set(title=name, xlabel="epoch", ylabel="accuracy", ylim=(0.7, 1.01))
            axis.legend(loc="lower right")

    draw(out / "fashion-gap.svg", paint, columns=2)
    return [seen[-1] - held[-1] for seen, held in curves.values()]


def few(data: Set, classes: range, each: int) -> Set:
    """So many images of each of some classes, which are numbered from 0."""
    rows = np.concatenate([np.flatnonzero(data[1] == number)[:each] for number in classes])
    return data[0][rows], data[1][rows] - classes.start


def transfer(
    train: Set, test: Set, epochs: int, labelled: int, widths: tuple[int, ...], steps: int = 30
) -> list[float]:
    """Keep the convolutions that know classes 0 to 4, and let a new head tell 5 to 9 apart; beside it, from scratch."""
    first, second = range(5), range(5, 10)
    every = len(train[1])
    size = train[0].shape[1]
    gx.set_seed(2)
    base = network(size, 5, widths=widths)
    fit(base, few(train, first, every), None, epochs, 64)
    known = base.evaluate(*few(test, first, every), batch_size=500, verbose=0)[1]
    print(f"classes 0 to 4: {known:.3f} of the test images right")
    labels, unseen = few(train, second, labelled), few(test, second, every)
    reached: list[float] = []
    for name, kept in (("convolutions of classes 0 to 4", True), ("from scratch", False)):
        gx.set_seed(3)
        source = base if kept else network(size, 5, widths=widths)
        body = gx.Model(source.input, source.get_layer(f"norm_{len(widths)}").output, name="body")
        head = [layers.ReLU(), layers.Flatten(), layers.Dropout(0.3), layers.Dense(128, activation="relu")]
        model = Sequential([Input((size, size, 1)), body, *head, layers.Dropout(0.3), layers.Dense(5)])
        if kept:
            model.freeze("body")
        fit(model, labels, None, steps, min(25, labelled), 1e-3)
        found = model.evaluate(*unseen, batch_size=500, verbose=0)[1]
        print(f"classes 5 to 9 from {labelled} labels each, {name}: {found:.3f} right")
        reached.append(found)
    return reached


def prepared(data: tuple[Set, Set], most: float, counts: tuple[int | None, int | None] = (None, None)) -> list[Set]:
    """Images as numbers from 0 to 1 with a channel; at most so many of them."""
    return [(x[:n, ..., None].astype(np.float32) / most, y[:n]) for (x, y), n in zip(data, counts, strict=True)]


def take_folder(arguments: list[str]) -> str | None:
    """What follows ``--data``, which is taken out of the arguments."""
    if "--data" not in arguments[:-1]:
        return None
    place = arguments.index("--data")
    (_, given), arguments[place : place + 2] = arguments[place : place + 2], []
    return given


def main(out: Path, data: str | None = None) -> None:
    """Everything on a small scale: with a few images of clothes if they are there, else with digits."""
    try:
        train, test = prepared(gx.data.load_fashion_mnist(data), 255, (1300, 500))
    except gx.FileError as error:
        print(f"digits instead of clothes: {error.message}; to do: {error.remedy}")
        images, labels = gx.data.load_digits()
        train, test = prepared(((images[:1300], labels[:1300]), (images[1300:], labels[1300:])), 16)
    gx.set_seed(0)
    model = network(train[0].shape[1], 10, widths=(8, 16))
    history = fit(model, train, test, 3, 32, 5e-3)
    print(f"accuracy on {len(test[1])} test images after 3 epochs: {history['val_accuracy'][-1]:.3f}")
    few_images = (train[0][:200], train[1][:200])
    gaps(out, few_images, test, 5, 10, (8, 16), 1, mirror=False)  # too few to close it
    check(model.programs["predict"], out / "fashion.onnx")


def train_for_real(out: Path, data: str | None = None) -> None:
    """The whole set: at least 0.91 of the test images in 5 epochs, a smaller gap, and features that help."""
    train, test = prepared(gx.data.load_fashion_mnist(data), 255)
    gx.set_seed(0)
    model = network(28, 10)
    began = time.perf_counter()
    history = fit(model, train, test, 5, 64, verbose=2)
    reached = history["val_accuracy"][-1]
    print(f"{model.count_params()} weights, 5 epochs in {time.perf_counter() - began:.0f} s: {reached:.4f} right")
    check(model.programs["predict"], out / "fashion.onnx")
    wide, narrow = gaps(out, (train[0][:6000], train[1][:6000]), test, 15, 64, (32, 64, 64), 2, mirror=True)
    features, scratch = transfer(train, test, 3, 50, (32, 64, 64))
    if reached < 0.91 or narrow >= wide or features <= scratch:
        raise SystemExit("not all of it was reached")
    print("reached: 0.91 of the test images, a smaller gap, convolutions that help")


if __name__ == "__main__":
    given = take_folder(sys.argv)
    run(partial(main, data=given), __doc__, partial(train_for_real, data=given))
