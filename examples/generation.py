"""Generation: a model goes on with texts token by token, and keeps the keys and values of what it has read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run

END = 10
"""The token behind a text; 0 to 9 are digits."""


def counting(rows: int, length: int) -> np.ndarray:
    """Digits that go up or down by a step of their own, from 9 on to 0; behind the first 0 there is the end."""
    rng = np.random.default_rng(0)
    texts = (rng.integers(0, 10, (rows, 1)) + rng.choice([1, 2, 9], (rows, 1)) * np.arange(length)) % 10
    ended = np.cumsum(texts == 0, axis=1) - (texts == 0) > 0
    return np.where(ended, END, texts)


def main(out: Path) -> None:
    """Learn to count, then write greedily, by chance, by a search, one token at a time, and from a file."""
    gx.set_seed(0)
    texts = counting(512, 12)
    model = gx.models.Gpt(11, num_layers=2, d_model=32, num_heads=4, max_length=16, dropout=0.0, positions="rotary")
    model.compile(gx.optimizers.Adam(0.01), gx.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(texts[:, :-1], texts[:, 1:], batch_size=64, epochs=12, verbose=0)

    prompts = [[1, 2], [9, 8, 7], [1, 3, 5]]  # of different lengths: each row is what it would be alone
    written = model.generate(prompts, length=10, end=END, pad=END)
    for prompt, tokens, count in zip(prompts, written.tokens, written.lengths, strict=True):
        print(f"{prompt} goes on with {tokens[:count].tolist()}")
    drawn = model.generate([[4]], length=8, end=END, temperature=1.0, top_k=3, seed=2)
    print(f"by chance, [4] goes on with {drawn.tokens[0, : drawn.lengths[0]].tolist()}")
    found = model.generate([[4]], length=4, end=END, beams=3)
    for tokens, log_prob in zip(found.tokens[0], found.log_probs[0], strict=True):
        print(f"a search finds {tokens.tolist()} with probability {np.exp(log_prob):.2f}")
    print("one by one:", end="")
    model.generate([[9, 8, 7]], length=10, end=END, callback=lambda tokens: print("", int(tokens[0]), end=""))
    print()

    logits = model.predict(np.array([[4]]), verbose=0)[0, -1]

    def paint(axes: Any) -> None:
        for place, temperature in enumerate((0.5, 1.0, 2.0)):
            chances = np.exp(logits / temperature)
            axes.bar(np.arange(11) + 0.25 * place, chances / chances.sum(), 0.25, label=f"temperature {temperature}")
        axes.set(title="what comes behind 4", xlabel="token", ylabel="probability")
        axes.legend()

    draw(out / "generation.svg", paint)
    program = model.writer(length=10, end=END, pad=END).program("greedy")
    check(program, out / "generation.onnx", prompt=np.array([[1, 2], [8, 7]]))


if __name__ == "__main__":
    run(main, __doc__)
