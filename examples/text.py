"""From texts to numbers and into a model: tokenizers, padding, one-hot rows, batches by length, word vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, data, layers

GOOD, BAD = ("great", "lovely", "brilliant", "moving", "fun"), ("dull", "awful", "boring", "weak", "flat")
FILLERS = ("the", "film", "was", "a", "plot", "and", "then", "some", "actors", "talk", "long", "scene", "music")


def reviews(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Made-up reviews of 3 to 25 words, each with one to three words of praise, or of blame."""
    rng = np.random.default_rng(seed)
    liked = rng.integers(0, 2, count)
    texts: list[str] = []
    for label in liked:
        words = [*rng.choice(FILLERS, rng.integers(2, 23)), *rng.choice(GOOD if label else BAD, rng.integers(1, 4))]
        rng.shuffle(words)
        texts.append(" ".join(words) + ".")
    return texts, liked.astype(np.float32)[:, None]


def main(out: Path) -> None:
    """One sentence in every form; then a classifier of reviews, with and without known word vectors."""
    texts, liked = reviews(1000, seed=0)
    words = data.WordTokenizer(max_tokens=100).fit(texts)
    letters = data.CharacterTokenizer().fit(texts)
    pairs = data.BytePairTokenizer(320).fit(texts)
    sentence = "the plot was brilliant, and odd."
    for name, tokenizer in (("words", words), ("characters", letters), ("byte pairs", pairs)):
        ids = tokenizer.encode(sentence)
        print(f"{name}: {len(tokenizer)} ids, {len(ids)} for the sentence, back: {tokenizer.decode(ids)!r}")
    words.save(out / "words.json")
    print("from its file the same:", data.load_tokenizer(out / "words.json").encode(sentence) == words.encode(sentence))

    ids = words.encode_all(["a dull film", "fun"], start=True, end=True)
    print(f"ids {ids}, padded {data.pad_sequences(ids, padding='post').tolist()}")
    print("one-hot:", data.one_hot(ids[1], len(words)).shape)

    encoded = words.encode_all(texts)
    mixed = [encoded[first : first + 32] for first in range(0, len(encoded), 32)]
    filled = sum(len(batch) * max(map(len, batch)) for batch in mixed)
    batches = data.BucketBatches(encoded, liked, batch_size=32)
    print(f"padding: {1 - sum(map(len, encoded)) / filled:.0%} as they come, {batches.padding_share:.1%} in buckets")

    rng = np.random.default_rng(0)
    known = [(word, side + 0.1 * rng.standard_normal(8)) for side, group in ((1, GOOD), (-1, BAD)) for word in group]
    lines = (f"{word} {' '.join(f'{number:.4f}' for number in vector)}" for word, vector in known)
    (out / "vectors.txt").write_text("\n".join(lines) + "\n")
    vectors = data.load_word_vectors(out / "vectors.txt", words.vocabulary)
    print(vectors)

    curves: dict[str, list[float]] = {}
    for name, table in (("at random", None), ("word vectors", vectors.table)):
        gx.set_seed(0)
        model = Sequential([
            Input((None,), dtype="int64"),
            layers.Embedding(len(words), 8, mask_zero=True, weights=table),
            layers.GRU(16),
            layers.Dense(1, "sigmoid"),
        ])  # fmt: skip
        model.compile(gx.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
        curves[name] = model.fit(batches, epochs=4, verbose=0).history["loss"]
        fresh, labels = reviews(300, seed=1)
        right = model.evaluate(data.BucketBatches(words.encode_all(fresh), labels), verbose=0)[1]
        print(
            f"beginning {name}: loss {curves[name][0]:.2f} after an epoch, {right:.0%} of new reviews right in the end"
        )
        check(model.programs["train"], out / f"text-{len(curves)}.onnx", steps=2)

    def paint(axes: Any) -> None:
        for name, losses in curves.items():
            axes.plot(range(1, len(losses) + 1), losses, label=name)
        axes.set(xlabel="epoch", ylabel="loss", yscale="log")
        axes.legend()

    draw(out / "text.svg", paint)


if __name__ == "__main__":
    run(main, __doc__)
