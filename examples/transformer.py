"""The whole Transformer: trained by teacher forcing to write words backwards, then writing token by token by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run

LETTERS = "abcdef"
LONGEST = 4
PAD, START, END = 0, 1, 2


def encode(words: list[str], length: int) -> np.ndarray:
    """Rows of ids, padded."""
    rows = np.full((len(words), length), PAD)
    for row, word in zip(rows, words, strict=True):
        row[: len(word)] = [LETTERS.index(letter) + 3 for letter in word]
    return rows


def lesson(words: list[str], answers: list[str], longest: int = LONGEST) -> tuple[np.ndarray, np.ndarray]:
    """Sources, and targets: START, the answer, END."""
    target = np.full((len(words), longest + 2), PAD)
    target[:, 0] = START
    for row, answer in zip(target, answers, strict=True):
        row[1 : len(answer) + 2] = [*encode([answer], len(answer))[0], END]
    return encode(words, longest), target


def random_words(rng: np.random.Generator, count: int, shortest: int = 2, longest: int = LONGEST) -> list[str]:
    """Words that mean nothing."""
    return ["".join(rng.choice(list(LETTERS), rng.integers(shortest, longest + 1))) for _ in range(count)]


def backwards(words: list[str]) -> list[str]:
    """Each word from its end."""
    return [word[::-1] for word in words]


def write(model: gx.models.Transformer, words: list[str], longest: int = LONGEST) -> list[str]:
    """What the model writes: each token that it finds likeliest is given back to it, until END."""
    source = encode(words, longest)
    written = np.full((len(words), 1), START)
    for _ in range(longest + 1):
        logits = model.predict([source, written], verbose=0)
        written = np.concatenate([written, logits[:, -1:].argmax(-1)], axis=1)
    rows = [row[1:].tolist() for row in written]
    ended = [row[: row.index(END)] if END in row else row for row in rows]
    return ["".join(LETTERS[token - 3] for token in row if token >= 3) for row in ended]


def main(out: Path) -> None:
    """Train on random words, write others, and draw what the loss did."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    words = random_words(rng, 600)
    source, target = lesson(words, backwards(words))
    model = gx.models.Transformer(
        len(LETTERS) + 3, num_layers=1, d_model=32, num_heads=2, d_ff=64, dropout=0.0, normalize_first=True
    )
    rate = gx.optimizers.schedules.InverseSquareRoot(1e-2, warmup_steps=30)
    model.compile(
        # softmax does not see the keys' bias: its gradient is rounding, which a small epsilon would make steps of
        optimizer=gx.optimizers.Adam(rate, epsilon=1e-4),
        loss=gx.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD),
        backend="numba",
    )
    print(f"source {source[0].tolist()}, given {target[0, :-1].tolist()}, to say {target[0, 1:].tolist()}")
    losses = model.fit([source, target[:, :-1]], target[:, 1:], batch_size=64, epochs=25, verbose=0).history["loss"]
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}, {model.count_params()} parameters")
    fresh = random_words(rng, 100)
    found = write(model, fresh)
    right = np.mean([a == b for a, b in zip(found, backwards(fresh), strict=True)])
    print(f"{fresh[0]} becomes {found[0]}; {right:.0%} of 100 words are right")

    def paint(axes: Any) -> None:
        axes.plot(losses)
        axes.set(title="teacher forcing", xlabel="epoch", ylabel="loss")
        axes.grid(alpha=0.3)

    draw(out / "transformer.svg", paint)
    four = {"source": source[:4], "target": target[:4, :-1]}
    check(model.programs["predict"], out / "transformer.onnx", 1, **four)
    check(model.programs["train"], out / "transformer-train.onnx", 2, **four, target_=target[:4, 1:])


def train(out: Path) -> None:
    """Copy words of 1 to 20 letters: every one of 2,000 that it has not seen, without a mistake."""
    gx.set_seed(0)
    rng, longest, epochs = np.random.default_rng(0), 20, 20
    model = gx.models.Transformer(
        len(LETTERS) + 3, num_layers=2, d_model=64, num_heads=2, d_ff=128, dropout=0.0, normalize_first=True
    )
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)
    model.compile(gx.optimizers.Adam(0.002, epsilon=1e-4, global_clipnorm=1.0), loss)
    losses: list[float] = []
    began = time.perf_counter()
    for epoch in range(epochs):
        model.optimizer.learning_rate = 0.002 * min(1, (epoch + 1) / 3) * (1 + np.cos(np.pi * epoch / epochs)) / 2
        words = random_words(rng, 6400, 1, longest)
        source, target = lesson(words, words, longest)
        losses += model.fit([source, target[:, :-1]], target[:, 1:], batch_size=64, verbose=0).history["loss"]
        if epoch % 5 == 4:
            print(f"{(epoch + 1) * 100} steps: loss {losses[-1]:.5f}, {time.perf_counter() - began:.0f} s", flush=True)
    fresh = random_words(rng, 2000, 1, longest)
    right = np.mean([a == b for a, b in zip(write(model, fresh, longest), fresh, strict=True)])
    print(f"{model.count_params():,} parameters; {right:.2%} of {len(fresh)} unseen words are copied")

    def paint(axes: Any) -> None:
        axes.plot(losses)
        axes.set(title="copying", xlabel="epoch of 100 steps", ylabel="loss", yscale="log")

    draw(out / "transformer-trained.svg", paint)
    if right < 1:
        raise SystemExit("not all of them")


if __name__ == "__main__":
    run(main, __doc__, train)
