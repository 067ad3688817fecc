"""Sequence to sequence: an encoder and a decoder, trained with teacher forcing, that writes by itself.

With attention or without; the task is to write digits in reverse, or to copy them. ``--check`` trains on 20 digits.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Model, data, layers
from graphc.generation import Decoder

DIGITS = data.CharacterTokenizer().fit(["0123456789"])


class Translator:
    """An encoder, a decoder, and the two programs that they are in: a step of training, and one that writes.

    Args:
        size: how many tokens there are.
        units: the size of states.
        attention: "bahdanau", "luong", or "none": the last state alone tells of the source.
        length: at most so many tokens are written.
    """

    def __init__(self, size: int, units: int, attention: str, length: int) -> None:
        self.embed = layers.Embedding(size, units, mask_zero=True, name="embed")
        self.encoder = layers.GRU(units, return_sequences=True, return_state=True, name="encoder")
        inner = layers.GRUCell(units)
        cells = {
            "bahdanau": lambda: layers.BahdanauCell(inner, name="decoder"),
            "luong": lambda: layers.LuongCell(inner, "general", name="decoder"),
            "none": lambda: inner,
        }
        self.attends = attention != "none"
        self.cell: Any = cells[attention]()
        self.readout = layers.Dense(size, name="readout")

        source, given = Input((None,), dtype="int64", name="source"), Input((None,), dtype="int64", name="given")
        memory, state = self.encoder(self.embed(source))
        constants = {"constants": memory} if self.attends else {}
        states = layers.RNN(self.cell, return_sequences=True)(self.embed(given), initial_state=[state], **constants)
        self.model = Model([source, given], self.readout(states))
        loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(gx.optimizers.Adam(0.005, clipnorm=1.0), loss, metrics=["sparse_categorical_accuracy"])

        ids = gx.placeholder("source", ("batch", "time"), "int64")
        start = gx.full((ids.shape[0],), DIGITS.start, "int64")
        memory, state = self.encoder(self.embed(ids))
        self.decoder = Decoder(self.step, [ids], [state], start, length, end=DIGITS.end, constants=memory)

    def step(self, tokens: Any, state: Any, memory: Any) -> tuple[Any, Any]:
        """What the decoder does with one token, which in writing is its own last one."""
        constants = {"constants": memory} if self.attends else {}
        vectors = gx.take(self.embed.embeddings, tokens, axis=0)  # no mask: what is written is no padding
        output, state = self.cell(vectors, state, **constants)
        return self.readout(output), state

    def fit(self, sources: list[str], targets: list[str], epochs: int, batch_size: int = 64) -> list[float]:
        """Teacher forcing: the decoder gets the true token before each. Returns the loss of each epoch."""
        source, wanted = DIGITS.encode_all(sources), DIGITS.encode_all(targets, end=True)
        given = [[DIGITS.start, *row[:-1]] for row in wanted]
        batches = data.BucketBatches({"source": source, "given": given}, wanted, batch_size)
        return self.model.fit(batches, epochs=epochs, verbose=0).history["loss"]

    def exact(self, sources: list[str], targets: list[str]) -> float:
        """How many targets it writes without a mistake."""
        ids = data.pad_sequences(DIGITS.encode_all(sources), dtype="int64", padding="post")
        written = self.decoder.greedy({"source": ids}).tokens
        return float(np.mean([DIGITS.decode(row) == text for row, text in zip(written, targets, strict=True)]))


def strings(count: int, longest: int, seed: int, shortest: int = 1, letters: str = "0123456789") -> list[str]:
    """Random texts of several lengths."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), rng.integers(shortest, longest + 1))) for _ in range(count)]


def main(out: Path) -> None:
    """Learn to write up to 4 of 3 digits in reverse, and write in several ways."""
    gx.set_seed(0)
    pairs = Translator(len(DIGITS), 32, "none", 6)
    texts = strings(2048, 4, seed=0, letters="123")
    losses = pairs.fit(texts, [text[::-1] for text in texts], epochs=12)
    fresh = strings(200, 4, seed=1, letters="123")
    right = pairs.exact(fresh, [text[::-1] for text in fresh])
    print(f"loss {losses[0]:.2f} in the first epoch, {losses[-1]:.3f} in the last; {right:.0%} written exactly")

    ids = {"source": data.pad_sequences(DIGITS.encode_all(["1233"]), dtype="int64")}
    print("1233 greedily:", DIGITS.decode(pairs.decoder.greedy(ids).tokens[0]))
    beams = pairs.decoder.beam_search(ids, width=3, length_penalty=0.6)
    print("by beam search:", ", ".join(DIGITS.decode(beam) for beam in beams.tokens[0]))
    print("drawn, hot:", DIGITS.decode(pairs.decoder.sample(ids, temperature=3.0, seed=1).tokens[0]))
    print("token by token:", *(DIGITS.decode(tokens) or "<end>" for tokens in pairs.decoder.stream(ids)))

    def paint(axes: Any) -> None:
        axes.plot(losses)
        axes.set(xlabel="epoch", ylabel="loss with teacher forcing", yscale="log")

    draw(out / "seq2seq.svg", paint)
    check(pairs.model.programs["train"], out / "seq2seq-train.onnx", steps=3)


def train(out: Path) -> None:
    """Copy and reverse 20 digits, by Bahdanau's and by Luong's attention: at least 99 % without a mistake.

    One set of strings says when to stop; the figure comes from another one, which nothing was chosen by.
    """
    missed: list[str] = []
    for task in ("copy", "reverse"):
        for attention in ("bahdanau", "luong"):
            gx.set_seed(0)
            began = time.perf_counter()
            pairs = Translator(len(DIGITS), 128, attention, 24)
            watched, unseen = strings(1000, 20, seed=0, shortest=20), strings(2000, 20, seed=1, shortest=20)
            epochs = 0
            while epochs < 40 and (not epochs or pairs.exact(watched, _answers(watched, task)) < 0.995):
                # Longer strings from epoch to epoch, then smaller steps: at one rate the last mistakes come and go.
                pairs.model.optimizer.learning_rate = 0.005 * 0.9 ** max(0, epochs - 12)
                texts = strings(6400, min(20, 4 + 2 * epochs), seed=2 + epochs)
                pairs.fit(texts, _answers(texts, task), epochs=1)
                epochs += 1
            right = pairs.exact(unseen, _answers(unseen, task))
            seconds = time.perf_counter() - began
            print(f"{task} by {attention}: {right:.2%} of 2000 unseen after {epochs * 100} steps, {seconds:.0f} s")
            missed += [f"{task} by {attention}"] if right < 0.99 else []
    if missed:
        raise SystemExit(f"below 99 %: {', '.join(missed)}")


def _answers(texts: list[str], task: str) -> list[str]:
    return [text if task == "copy" else text[::-1] for text in texts]


if __name__ == "__main__":
    run(main, __doc__, train)
