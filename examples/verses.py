"""English to Spanish: a Transformer on pieces of words, after two Bibles. ``--check`` takes a fixed number of steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples import corpora
from examples.common import check, draw, run
from examples.names import Pairs, Rewriter, sides
from graphc import data


def both(books: tuple[str, ...] = ()) -> Pairs:
    """The verses that both Bibles have, shuffled."""
    english, spanish = corpora.verses(books=books), corpora.verses("spaRV1909eb", books)
    pairs = [(text, spanish[place]) for place, text in english.items() if text and spanish[place]]
    return corpora.shuffled(pairs)


def pieces(pairs: Pairs, size: int) -> tuple[data.Tokenizer, data.Tokenizer]:
    """The most frequent pieces of words of each language."""
    english, spanish = sides(pairs)
    return data.BytePairTokenizer(size).fit(english), data.BytePairTokenizer(size).fit(spanish)


def short(model: Rewriter, pairs: Pairs, length: int) -> Pairs:
    """Those of at most so many pieces in both languages."""
    return [(a, b) for a, b in pairs if len(model.source.encode(a)) <= length and len(model.target.encode(b)) < length]


def main(out: Path) -> None:
    """The book of Ruth in both languages, and a small model, which learns little more than which words are frequent."""
    gx.set_seed(0)
    pairs = both(("ruth",))
    model = Rewriter(*pieces(pairs, 400), 32, 1, 8)
    lessons = model.batches(*sides(pairs), 8)
    losses = model.model.fit(lessons, epochs=4, verbose=0).history["loss"]
    print(f"{len(pairs)} verses, {model.model.count_params()} parameters, loss {losses[0]:.2f} to {losses[-1]:.2f}")
    print(f"{pairs[0][0]!r} becomes {model.write([pairs[0][0]])[0]!r}")
    _paint(out / "verses.svg", losses, [])
    given, wanted = lessons[0]
    check(model.model.programs["train"], out / "verses.onnx", 2, **given, target_=wanted)


def train(out: Path) -> None:
    """600 steps on the verses of at most 48 pieces."""
    gx.set_seed(0)
    steps, length, rate = 600, 48, 0.002
    pairs = both()
    model = Rewriter(*pieces(pairs[500:], 2000), 128, 2, 64)
    known, held_out = short(model, pairs[500:], length), short(model, pairs[:500], length)
    lessons = model.batches(*sides(known), 32)
    questions = model.batches(*sides(held_out), 32)
    size = model.model.count_params()
    print(f"{len(known)} of {len(pairs) - 500} verses, {len(held_out)} held out, {size:,} parameters")
    rng, losses, found, began = np.random.default_rng(0), [], [], time.perf_counter()
    for step in range(steps):
        model.model.optimizer.learning_rate = rate * min((step + 1) / 100, (1 + np.cos(np.pi * step / steps)) / 2)
        given, wanted = lessons[int(rng.integers(len(lessons)))]
        losses.append(float(model.model.train_on_batch(given, wanted)))
        if (step + 1) % 200 == 0:
            found.append(float(model.model.evaluate(questions, verbose=0)))
            print(f"step {step + 1}: loss {np.mean(losses[-200:]):.3f}, held out {found[-1]:.3f}, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    shown = sorted(held_out, key=lambda pair: len(pair[0]))[20:100:16]
    for (english, spanish), text in zip(shown, model.write([pair[0] for pair in shown]), strict=True):
        print(f"{english}\n  {text}\n  is: {spanish}")
    _paint(out / "verses-trained.svg", losses, found)


def _paint(path: Path, losses: list[float], found: list[float]) -> None:
    def paint(axes: Any) -> None:
        axes.plot(losses, linewidth=0.5, label="training")
        if found:
            axes.plot(np.arange(1, len(found) + 1) * len(losses) / len(found), found, marker="o", label="held out")
        axes.set(xlabel="step" if found else "epoch", ylabel="loss of a piece")
        axes.legend()

    draw(path, paint)


if __name__ == "__main__":
    run(main, __doc__, train)
