"""BERT: an encoder that learns by filling in hidden words, from both sides. ``--check`` reads the King James Bible."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from examples.corpora import shuffled, verses
from graphc import Model, data


def hide(ids: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hide 15 of 100 words: of these 80 become the token behind the vocabulary, 10 another word, 10 stay.

    Returns what the model sees, and what it should say: the hidden words, and 0, which does not count, elsewhere.
    """
    chosen = (rng.random(ids.shape) < 0.15) & (ids > data.Vocabulary.end)
    kind = rng.random(ids.shape)
    seen = np.where(chosen & (kind < 0.8), size, ids)
    seen = np.where(chosen & (kind >= 0.9), rng.integers(4, size, ids.shape), seen)
    return seen, np.where(chosen, ids, 0)


def reader(size: int, d_model: int, depth: int, length: int, dropout: float) -> Model:
    """BERT with one more token than there are words, and the head that says which word stands at each place.

    Attention sees distances, too (``rotary``): from places alone a small BERT takes thousands of steps to find out
    which words are neighbours, and until then it knows little more than how frequent each is.
    """
    bert = gx.models.Bert(
        size + 1, depth, d_model, d_model // 32, 4 * d_model, length, num_segments=0, dropout=dropout, masked_lm=True,
        normalize_first=True, rotary=True,
    )  # fmt: skip
    model = Model(bert.inputs, bert.output["masked_lm"])
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(gx.optimizers.AdamW(0.002, weight_decay=0.01, epsilon=1e-6, global_clipnorm=1.0), loss)
    return model


def score(model: Model, seen: np.ndarray, wanted: np.ndarray) -> float:
    """How many of the hidden words it finds."""
    said = np.concatenate([model.predict(part, verbose=0).argmax(-1) for part in np.array_split(seen, 8)])
    return float(np.mean(said[wanted > 0] == wanted[wanted > 0]))


def fill_in(model: Model, words: data.WordTokenizer, text: str) -> str:
    """The three likeliest words for each ``___``, and how likely they are."""
    parts = text.split("___")
    ids = words.encode(parts[0])
    for part in parts[1:]:
        ids += [len(words), *words.encode(part)]
    logits = model.predict(np.array([ids]), verbose=0)[0, np.array(ids) == len(words), :-1]
    logits[:, : data.Vocabulary.end + 1] = -np.inf  # padding and the like are no words
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    found = [", ".join(f"{words.decode([word])} {row[word]:.0%}" for word in row.argsort()[:-4:-1]) for row in chances]
    return f"{text!r}: {'; '.join(found)}"


def main(out: Path) -> None:
    """The book of Ruth alone, and a small model: it learns which words are frequent, and where."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    texts = list(verses(books=["ruth"]).values())
    words = data.WordTokenizer(max_tokens=300).fit(texts)
    ids = data.pad_sequences(words.encode_all(texts), 32, "int64", "post", "post")
    model = reader(len(words), 32, 1, 32, 0.0)
    model.optimizer.learning_rate = 0.01
    seen, wanted = hide(ids[:3], len(words), rng)
    print("read:", words.decode(token if token < len(words) else words.unk for token in seen[0][:12]))
    print("asked:", ", ".join(f"{words.decode([word])!r} at {place}" for place, word in enumerate(wanted[0]) if word))
    losses = [model.train_on_batch(*hide(ids[step % 3 :: 3], len(words), rng)) for step in range(50)]
    losses = [float(loss) for loss in losses]
    print(f"{model.count_params()} parameters, loss {losses[0]:.2f} to {np.mean(losses[-6:]):.2f}")
    print(fill_in(model, words, "And Ruth said ___ Naomi"))
    _paint(out / "bert.svg", losses, 1)
    check(model.programs["train"], out / "bert.onnx", 2, tokens=seen, target=wanted)


def train(out: Path) -> None:
    """All verses but 1,000: of the words hidden in these it finds three times what the most frequent one makes."""
    gx.set_seed(0)
    rng, steps, rate = np.random.default_rng(0), 3000, 0.003
    texts = shuffled(list(verses().values()))
    known, held_out = texts[1000:], texts[:1000]
    words = data.WordTokenizer(max_tokens=3000).fit(known)
    ids = data.pad_sequences(words.encode_all(known), 48, "int64", "post", "post")
    seen, wanted = hide(data.pad_sequences(words.encode_all(held_out), 48, "int64", "post", "post"), len(words), rng)
    usual = int(np.bincount(wanted[wanted > 0]).argmax())
    by_usual = float(np.mean(wanted[wanted > 0] == usual))
    print(f"{len(known)} verses, {np.mean(ids[ids > 0] == words.unk):.1%} of words unknown")
    print(f"{np.sum(wanted > 0)} hidden in {len(held_out)} others, {by_usual:.1%} of them {words.decode([usual])!r}")
    model = reader(len(words), 96, 2, 48, 0.0)
    print(f"{model.count_params():,} parameters", flush=True)
    losses, right, began = [], 0.0, time.perf_counter()
    for step in range(steps):
        model.optimizer.learning_rate = rate * min((step + 1) / 100, 0.02 + (1 + np.cos(np.pi * step / steps)) / 2)
        losses.append(float(model.train_on_batch(*hide(ids[rng.integers(0, len(ids), 32)], len(words), rng))))
        if (step + 1) % 500 == 0:
            right = score(model, seen, wanted)
            print(f"step {step + 1}: loss {np.mean(losses[-500:]):.3f}, {right:.1%} of the hidden words found, "
                  f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    for text in ("And God ___, Let there be ___.", "The LORD is my ___; I shall not want.",
                 "And Moses ___ his hand over the ___.", "the ___ of Israel"):  # fmt: skip
        print(fill_in(model, words, text))
    _paint(out / "bert-trained.svg", losses, 50)
    if right < 3 * by_usual:
        raise SystemExit("not three times as many as the most frequent word makes")


def _paint(path: Path, losses: list[float], width: int) -> None:
    def paint(axes: Any) -> None:
        axes.plot(np.convolve(losses, np.ones(width) / width, "valid"))
        axes.set(xlabel="step", ylabel="loss at hidden words")

    draw(path, paint)


if __name__ == "__main__":
    run(main, __doc__, train)
