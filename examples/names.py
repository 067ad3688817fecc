"""English names of countries, languages and currencies into French, letter by letter: what attention is good for.

``--check`` trains on all names, without attention and with it, then a Transformer, and compares what each writes for
names that none of them has seen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.attention import attention_map
from examples.common import check, draw, run
from examples.corpora import names
from examples.seq2seq import Translator
from graphc import data

Pairs = list[tuple[str, str]]


def letters(pairs: Pairs) -> tuple[data.Tokenizer, data.Tokenizer]:
    """The letters of both languages."""
    english, french = sides(pairs)
    return data.CharacterTokenizer().fit(english), data.CharacterTokenizer().fit(french)


def sides(pairs: Pairs) -> tuple[list[str], list[str]]:
    """What is read, and what is to be written."""
    return [source for source, _ in pairs], [target for _, target in pairs]


class Rewriter:
    """A Transformer with what :class:`Translator` has: training by teacher forcing, and writing.

    With one tokenizer for both sides it has one table of vectors: a letter that is to be copied is what was read.
    """

    def __init__(
        self,
        source: data.Tokenizer,
        target: data.Tokenizer,
        size: int,
        depth: int,
        length: int,
        label_smoothing: float = 0.0,
    ) -> None:
        self.source, self.target, self.length = source, target, length
        self.model = gx.models.Transformer(
            len(source), None if source is target else len(target), num_layers=depth, d_model=size, num_heads=4,
            d_ff=4 * size, dropout=0.1, positions=None, normalize_first=True, rotary=True,
        )  # fmt: skip
        loss = gx.losses.SparseCategoricalCrossentropy(True, ignore_class=target.pad, label_smoothing=label_smoothing)
        self.model.compile(gx.optimizers.AdamW(0.001, weight_decay=0.05, epsilon=1e-6, global_clipnorm=1.0), loss)

    def batches(self, sources: Sequence[str], targets: Sequence[str], batch_size: int = 64) -> data.BucketBatches:
        """Lessons of teacher forcing, in rows of a multiple of 8, on which attention is faster."""
        source, wanted = self.source.encode_all(sources), self.target.encode_all(targets, end=True)
        given = [[self.target.start, *row[:-1]] for row in wanted]
        return data.BucketBatches({"source": source, "target": given}, wanted, batch_size, multiple=8)

    def write(self, sources: Sequence[str]) -> list[str]:
        """What it writes for each source: the likeliest token at each step."""
        source = data.pad_sequences(self.source.encode_all(sources), dtype="int64", padding="post")
        written = self.model.generate(source, self.length, self.target.start, self.target.end).tokens
        return [self.target.decode(row) for row in written]


def score(model: Translator | Rewriter, pairs: Pairs) -> dict[str, float]:
    """How many names come out right: of all, and of those that French writes otherwise."""
    written = model.write([english for english, _ in pairs])
    right = np.array([text == french for text, (_, french) in zip(written, pairs, strict=True)])
    other = np.array([english != french for english, french in pairs])
    return {"all": float(right.mean()), "other in French": float(right[other].mean())}


def learn(model: Translator | Rewriter, pairs: Pairs, epochs: int, rate: float) -> list[float]:
    """Train with a rate that rises at first, and then falls to nothing. Returns the loss of each epoch."""

    def rates(epoch: int) -> float:
        return rate * min((epoch + 1) / 3, (1 + np.cos(np.pi * epoch / epochs)) / 2)

    lessons = model.batches(*sides(pairs))
    scheduler = gx.callbacks.LearningRateScheduler(rates)
    return model.model.fit(lessons, epochs=epochs, verbose=0, callbacks=[scheduler]).history["loss"]


def main(out: Path) -> None:
    """A few short names and a small model with attention."""
    gx.set_seed(0)
    pairs = [pair for pair in names() if max(map(len, pair)) <= 6][:1500]
    model = Translator(*letters(pairs), 32, "luong", 8, both_ways=True)
    losses = learn(model, pairs[200:], 6, 0.01)
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}; {score(model, pairs[:200])['all']:.0%} of 200 others are right")
    _draw_maps(out / "names.svg", model, [pairs[0][0]])
    check(model.model.programs["train"], out / "names.onnx", steps=2)


def transformer(pairs: Pairs) -> Rewriter:
    """A Transformer with one vocabulary."""
    both = data.CharacterTokenizer().fit([*sides(pairs)[0], *sides(pairs)[1]])
    return Rewriter(both, both, 128, 2, 42, label_smoothing=0.1)


def train(out: Path) -> None:
    """All names of up to 40 letters, a tenth held out: attention beats none, and the Transformer beats both."""
    pairs = [pair for pair in names() if max(map(len, pair)) <= 40]
    known, held_out = pairs[1300:], pairs[:1300]
    other = sum(english != french for english, french in held_out)
    print(f"{len(known)} names, {len(held_out)} held out, {other} of which are other in French")
    models = {
        "without attention": lambda: Translator(*letters(known), 192, "none", 42, both_ways=True, dropout=0.2),
        "Luong's attention": lambda: Translator(*letters(known), 192, "luong", 42, both_ways=True, dropout=0.2),
        "Transformer": lambda: transformer(known),
    }
    scores: dict[str, float] = {}
    for name, make in models.items():
        gx.set_seed(0)
        model, began = make(), time.perf_counter()
        epochs = 80 if name == "Transformer" else 20
        losses = learn(model, known, epochs, 0.003)
        seconds = time.perf_counter() - began
        found = score(model, held_out)
        scores[name] = found["other in French"]
        shares = ", ".join(f"{share:.1%} of {which}" for which, share in found.items())
        print(f"{name}: {model.model.count_params():,} parameters, loss {losses[-1]:.4f}, {epochs} epochs in "
              f"{seconds:.0f} s; {shares}", flush=True)  # fmt: skip
        shown = [pair for pair in held_out if pair[0] != pair[1] and " " in pair[0]][:6]
        for (english, french), text in zip(shown, model.write([pair[0] for pair in shown]), strict=True):
            print(f"  {english} -> {text}" + (f" (is: {french})" if text != french else ""))
        if name == "Luong's attention":
            _draw_maps(out / "names-trained.svg", model, [shown[0][0], shown[1][0]])
    without, attending, rewriting = scores.values()
    if not without < attending < rewriting:
        raise SystemExit("not in this order")


def _draw_maps(path: Path, model: Any, sources: list[str]) -> None:
    maps = {source: attention_map(model, source) for source in sources}

    def paint(axes: Any) -> None:
        for axis, (source, (written, weights)) in zip(np.atleast_1d(axes), maps.items(), strict=True):
            axis.imshow(weights, cmap="gray", vmin=0, vmax=1)
            axis.set(xlabel="read", ylabel="written")
            axis.set_xticks(range(len(source)), source)
            axis.set_yticks(range(len(weights)), [*written, "<end>"][: len(weights)])

    draw(path, paint, columns=len(sources))


if __name__ == "__main__":
    run(main, __doc__, train)
