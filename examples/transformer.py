"""The whole Transformer: trained by teacher forcing to write words backwards, then writing token by token by itself."""

from __future__ import annotations

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


def lesson(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sources, and targets: START, the word backwards, END."""
    target = np.full((len(words), LONGEST + 2), PAD)
    target[:, 0] = START
    for row, word in zip(target, words, strict=True):
        row[1 : len(word) + 2] = [*encode([word[::-1]], len(word))[0], END]
    return encode(words, LONGEST), target


def write(model: gx.models.Transformer, words: list[str]) -> list[str]:
    """What the model writes: each token that it finds likeliest is given back to it, until END."""
    source = encode(words, LONGEST)
    written = np.full((len(words), 1), START)
    for _ in range(LONGEST + 1):
        logits = model.predict([source, written], verbose=0)
        written = np.concatenate([written, logits[:, -1:].argmax(-1)], axis=1)
    rows = [row[1:].tolist() for row in written]
    ended = [row[: row.index(END)] if END in row else row for row in rows]
    return ["".join(LETTERS[token - 3] for token in row if token >= 3) for row in ended]


def main(out: Path) -> None:
    """Train on random words, write others, and draw what the loss did."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(LETTERS), rng.integers(2, LONGEST + 1))) for _ in range(600)]
    source, target = lesson(words)
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
    fresh = ["".join(rng.choice(list(LETTERS), rng.integers(2, LONGEST + 1))) for _ in range(100)]
    found = write(model, fresh)
    right = np.mean([a == b[::-1] for a, b in zip(found, fresh, strict=True)])
    print(f"{fresh[0]} becomes {found[0]}; {right:.0%} of 100 words are right")

    def paint(axes: Any) -> None:
        axes.plot(losses)
        axes.set(title="teacher forcing", xlabel="epoch", ylabel="loss")
        axes.grid(alpha=0.3)

    draw(out / "transformer.svg", paint)
    four = {"source": source[:4], "target": target[:4, :-1]}
    check(model.programs["predict"], out / "transformer.onnx", 1, **four)
    check(model.programs["train"], out / "transformer-train.onnx", 2, **four, target_=target[:4, 1:])


if __name__ == "__main__":
    run(main, __doc__)
