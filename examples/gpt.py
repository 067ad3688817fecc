"""GPT: a Transformer that writes a text letter by letter, after the King James Bible. ``--check`` reads all of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from examples.corpora import verses
from graphc import data


def windows(ids: np.ndarray, length: int) -> np.ndarray:
    """A text in pieces that do not overlap, each with the letter behind it."""
    count = (len(ids) - 1) // length
    return np.stack([ids[i * length : (i + 1) * length + 1] for i in range(count)])


def writer(letters: data.Tokenizer, size: int, depth: int, heads: int, length: int, dropout: float) -> gx.models.Gpt:
    """The model, which sees so many letters."""
    model = gx.models.Gpt(
        len(letters), num_layers=depth, d_model=size, num_heads=heads, max_length=length, dropout=dropout
    )
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(gx.optimizers.AdamW(0.003, weight_decay=0.01, epsilon=1e-6, global_clipnorm=1.0), loss)
    return model


def bits(model: gx.models.Gpt, pieces: np.ndarray) -> float:
    """Bits per letter: how many yes-or-no questions each letter still is, when the ones before it are known."""
    return float(model.evaluate(pieces[:, :-1], pieces[:, 1:], batch_size=64, verbose=0)) / np.log(2)


def write(
    model: gx.models.Gpt, letters: data.Tokenizer, text: str, count: int, length: int, temperature: float = 0.8
) -> str:
    """Go on with a text: each letter is drawn from what the model thinks of the last ones."""
    rng = np.random.default_rng(0)
    ids = letters.encode(text)
    for _ in range(count):
        logits = model.predict(np.array([ids[-length:]]), verbose=0)[0, -1] / temperature
        chances = np.exp(logits - logits.max())
        ids.append(int(rng.choice(len(chances), p=chances / chances.sum())))
    return letters.decode(ids)


def main(out: Path) -> None:
    """The book of Ruth alone, and a small model."""
    gx.set_seed(0)
    text = "\n".join(verses(books=["ruth"]).values())
    letters = data.CharacterTokenizer().fit([text])
    pieces = windows(np.array(letters.encode(text)), 32)
    model = writer(letters, 32, 1, 2, 32, 0.0)
    losses = model.fit(pieces[:, :-1], pieces[:, 1:], batch_size=16, epochs=8, verbose=0).history["loss"]
    curve = [loss / np.log(2) for loss in losses]
    print(f"{len(text)} letters, {model.count_params()} parameters")
    print(f"bits per letter: {curve[0]:.2f} in the first epoch, {curve[-1]:.2f} in the last")
    print(repr(write(model, letters, "And Ruth said", 40, 32)))
    _paint(out / "gpt.svg", curve, "epoch")
    check(model.programs["train"], out / "gpt.onnx", 2, tokens=pieces[:2, :-1], target=pieces[:2, 1:])


def train(out: Path) -> None:
    """All of it but the last twentieth, which is to be foretold with at most 2.4 bits per letter."""
    gx.set_seed(0)
    text, length, steps, report, rate = "\n".join(verses().values()), 128, 1200, 200, 0.003
    letters = data.CharacterTokenizer().fit([text])
    ids = np.array(letters.encode(text))
    split = len(ids) * 19 // 20
    known, held_out = ids[:split], windows(ids[split:], length)[:512]
    model = writer(letters, 96, 3, 3, length, 0.0)
    print(f"{len(known):,} letters of {len(letters)} kinds, {model.count_params():,} parameters", flush=True)
    rng, curve, began = np.random.default_rng(0), [bits(model, held_out)], time.perf_counter()
    for step in range(steps):
        model.optimizer.learning_rate = rate * min((step + 1) / 100, (1 + np.cos(np.pi * step / steps)) / 2)
        starts = rng.integers(0, len(known) - length - 1, 16)
        piece = known[starts[:, None] + np.arange(length + 1)]
        model.train_on_batch(piece[:, :-1], piece[:, 1:])
        if (step + 1) % report == 0:
            curve.append(bits(model, held_out))
            print(f"step {step + 1}: {curve[-1]:.3f} bits per letter, {time.perf_counter() - began:.0f} s", flush=True)
    for start in ("In the beginning", "And Jesus said unto"):
        print(repr(write(model, letters, start, 300, length)))
    _paint(out / "gpt-trained.svg", curve, "step", report)
    if curve[-1] > 2.4:
        raise SystemExit("above 2.4 bits per letter")


def _paint(path: Path, curve: list[float], of: str, every: int = 1) -> None:
    def paint(axes: Any) -> None:
        axes.plot(np.arange(len(curve)) * every, curve, marker="o")
        axes.set(xlabel=of, ylabel="bits per letter")

    draw(path, paint)


if __name__ == "__main__":
    run(main, __doc__, train)
