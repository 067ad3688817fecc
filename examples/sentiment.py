"""Sentiment of real film reviews: a bidirectional LSTM over the words, batches by length. ``--check`` reads all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from examples.corpora import reviews
from graphc import Input, Sequential, data, layers


def batches(words: data.Tokenizer, rows: list[tuple[str, int]], length: int, batch_size: int) -> data.BucketBatches:
    """Batches of reviews; of a long one the end, where it comes to its verdict."""
    ids = [words.encode(text)[-length:] for text, _ in rows]
    return data.BucketBatches(ids, np.array([[label] for _, label in rows], np.float32), batch_size)


def classifier(words: data.Tokenizer, size: int, units: int, rate: float) -> gx.Model:
    """Words as vectors, read in both directions; what both directions end with decides."""
    model = Sequential([
        Input((None,), dtype="int64"),
        layers.Embedding(len(words), size, mask_zero=True),
        layers.Dropout(0.4),
        layers.Bidirectional(layers.LSTM(units)),
        layers.Dropout(0.4),
        layers.Dense(1, "sigmoid"),
    ])  # fmt: skip
    model.compile(gx.optimizers.Adam(rate, global_clipnorm=1.0), "binary_crossentropy", metrics=["accuracy"])
    return model


def judged(words: data.Tokenizer, model: gx.Model, text: str) -> str:
    """What the model says of a sentence."""
    share = float(model.predict(np.array([words.encode(text)]), verbose=0)[0, 0])
    return f"{text!r}: {share:.0%} praise"


def main(out: Path) -> None:
    """A few short reviews and a small model: it learns them, and something about others."""
    gx.set_seed(0)
    rows = [row for row in reviews() if len(row[0]) < 500]
    known, fresh = rows[:1000], rows[1000:1400]
    words = data.WordTokenizer(max_tokens=2000).fit(text for text, _ in known)
    model = classifier(words, 16, 16, 0.01)
    history = model.fit(batches(words, known, 80, 32), epochs=4, verbose=0).history
    right = model.evaluate(batches(words, fresh, 80, 100), verbose=0)[1]
    print(f"{len(known)} reviews: {history['accuracy'][-1]:.0%} right, {right:.0%} of {len(fresh)} others")
    print(judged(words, model, "A great film, I loved it."), judged(words, model, "Boring, the worst."), sep="\n")
    _paint(out / "sentiment.svg", {"training": history["accuracy"]})
    check(model.programs["train"], out / "sentiment.onnx", steps=2)


def train(out: Path) -> None:
    """All reviews, a fifth of them held out: at least 85 % of these."""
    gx.set_seed(0)
    rows = reviews()
    known, held_out = rows[:-5000], rows[-5000:]
    words = data.WordTokenizer(max_tokens=20_000).fit(text for text, _ in known)
    lessons, questions = batches(words, known, 200, 64), batches(words, held_out, 200, 100)
    print(
        f"{len(known)} reviews in {len(lessons)} batches, {lessons.padding_share:.1%} padding; {len(held_out)} others"
    )
    model = classifier(words, 64, 64, 0.002)
    print(f"{model.count_params():,} parameters")
    curves: dict[str, list[float]] = {"training": [], "held out": []}
    began = time.perf_counter()
    for epoch, rate in enumerate((0.002, 0.002, 0.001, 0.0005)):
        model.optimizer.learning_rate = rate
        history = model.fit(lessons, epochs=1, verbose=0).history
        curves["training"] += history["accuracy"]
        curves["held out"].append(float(model.evaluate(questions, verbose=0)[1]))
        print(f"epoch {epoch + 1}: loss {history['loss'][0]:.3f}, right {curves['training'][-1]:.2%}, held out "
              f"{curves['held out'][-1]:.2%}, {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    for text in ("A great film, I loved it.", "Boring, the worst.", "Not bad at all.", "I expected more."):
        print(judged(words, model, text))
    _paint(out / "sentiment-trained.svg", curves)
    if curves["held out"][-1] < 0.85:
        raise SystemExit("below 85 %")


def _paint(path: Path, curves: dict[str, list[float]]) -> None:
    def paint(axes: Any) -> None:
        for name, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, marker="o", label=name)
        axes.set(xlabel="epoch", ylabel="right")
        axes.legend()

    draw(path, paint)


if __name__ == "__main__":
    run(main, __doc__, train)
