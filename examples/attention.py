"""Bahdanau's and Luong's attention side by side: the same task, and maps of what each looks at while it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from examples.seq2seq import DIGITS, Translator, strings


def attention_map(pairs: Translator, text: str) -> tuple[str, np.ndarray]:
    """What is written for a text, and how much each written token looked at each of the text's."""
    source = gx.placeholder("source", ("batch", "time"), "int64")
    given = gx.placeholder("given", ("batch", "steps"), "int64")
    memory, state = pairs.read(pairs.source_embed(source))

    def step(state: Any, tokens: Any) -> tuple[Any, Any]:
        vectors = gx.take(pairs.target_embed.embeddings, tokens, axis=0)
        output, after = pairs.cell(vectors, state, constants=memory)
        # Bahdanau compares the state before with the memory, Luong the new one
        query = state[0] if isinstance(pairs.cell, gx.layers.BahdanauCell) else after[0]
        _, weights = pairs.cell.attention([gx.expand_dims(query, 1), memory], return_attention_scores=True)
        return after, (gx.argmax(pairs.readout(output), axis=-1), weights[:, 0])

    _, (tokens, weights) = gx.scan(step, [state], gx.transpose(given))
    outputs = {"tokens": gx.transpose(tokens), "weights": gx.transpose(weights, (1, 0, 2))}
    program = gx.compile(outputs, inputs=[source, given])
    ids = np.array([pairs.source.encode(text)])
    written = pairs.decoder.greedy({"source": ids})
    row = written.tokens[0, : written.lengths[0]]
    found = program(source=ids, given=np.array([[pairs.target.start, *row[:-1]]]))
    if not np.array_equal(found["tokens"][0], row):
        raise SystemExit("the map is not of what was written")
    return pairs.target.decode(row), found["weights"][0]


def main(out: Path) -> None:
    """Learn to write 3 to 6 digits in reverse; then look at where each attention looks."""
    texts, fresh = strings(1536, 6, seed=0, shortest=3), strings(200, 6, seed=1, shortest=3)
    maps: dict[str, tuple[str, np.ndarray]] = {}
    text = "314159"
    for name in ("bahdanau", "luong"):
        gx.set_seed(0)
        pairs = Translator(DIGITS, DIGITS, 32, name, 8)
        losses = pairs.fit(texts, [text[::-1] for text in texts], epochs=14)
        right = pairs.exact(fresh, [text[::-1] for text in fresh])
        written, weights = maps[name] = attention_map(pairs, text)
        print(f"{name}: loss {losses[-1]:.3f}, {right:.0%} written exactly, {text} becomes {written}")
        print(f"  weights of each step sum to 1: {np.allclose(weights.sum(-1), 1, atol=1e-5)}")
        check(pairs.model.programs["train"], out / f"attention-{name}.onnx", steps=2)

    def paint(axes: Any) -> None:
        for axis, (name, (written, weights)) in zip(axes, maps.items(), strict=True):
            axis.imshow(weights, cmap="gray", vmin=0, vmax=1)
            axis.set(title=name, xlabel="source", ylabel="written")
            axis.set_xticks(range(len(text)), text)
            axis.set_yticks(range(len(weights)), [*written, "<end>"][: len(weights)])

    draw(out / "attention.svg", paint, columns=2)


if __name__ == "__main__":
    run(main, __doc__)
