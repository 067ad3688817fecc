"""Query, key and value: three projections of each word, what they are compared by, and what is handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, f32, run

WORDS = ("river", "bank", "money")
EMBEDDINGS = f32([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]])


def main(out: Path) -> None:
    """Compute Q, K and V of three words and let the query of one look at the keys of all."""
    rng = np.random.default_rng(0)
    x = gx.placeholder("x", ("words", 4))
    q, k, v = (
        x @ gx.parameter(f"W{name}", rng.standard_normal((4, 2)).astype(np.float32))
        for name in ("query", "key", "value")
    )
    scores = q @ gx.transpose(k)
    weights = gx.softmax(scores, axis=-1)
    program = gx.compile(
        {"q": q, "k": k, "v": v, "scores": scores, "weights": weights, "output": weights @ v},
        inputs=[x],
        backend="numba",
    )

    found = program(x=EMBEDDINGS)
    for name in ("q", "k", "v"):
        print(f"{name} of 'bank': {EMBEDDINGS.shape[1]} values become {found[name][1].round(2).tolist()}")
    print(f"its query against all keys: {found['scores'][1].round(2).tolist()}")
    weight = found["weights"][1]
    looks = ", ".join(f"{part:.0%} at {word!r}" for word, part in zip(WORDS, weight, strict=True))
    print(f"'bank' looks {looks}; together {weight.sum():.4f}")
    by_hand = sum(part * value for part, value in zip(weight, found["v"], strict=True))
    print(f"what it takes home is that much of each value: {np.allclose(found['output'][1], by_hand, atol=1e-6)}")
    other = program(x=EMBEDDINGS[[2, 1]])["output"][1]
    print(f"beside 'money' alone the same word becomes another vector: {not np.allclose(other, found['output'][1])}")

    def paint(axes: Any) -> None:
        axes.imshow(found["weights"], cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(3), WORDS)
        axes.set_yticks(range(3), WORDS)
        axes.set(title="who looks at whom", xlabel="key", ylabel="query")

    draw(out / "query_key_value.svg", paint)
    check(program, out / "query_key_value.onnx", x=EMBEDDINGS)


if __name__ == "__main__":
    run(main, __doc__)
