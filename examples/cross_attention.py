"""Cross-attention: queries come from what is written, keys and values from what was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers

READ, WRITTEN = ("I", "love", "you", "<pad>"), ("Je", "t'", "aime")


def main(out: Path) -> None:
    """Let three written tokens look at three read ones, and at no padding."""
    gx.set_seed(0)
    ids = gx.placeholder("ids", ("batch", "steps"), "int64")
    x = gx.placeholder("x", ("batch", "time", 8))
    memory = layers.Embedding(10, 8, mask_zero=True, embeddings_initializer="random_normal")(ids)
    layer = layers.MultiHeadAttention(num_heads=1, key_dim=8)
    y, weights = layer(x, memory, return_attention_scores=True)
    program = gx.compile({"y": y, "weights": weights}, inputs=[x, ids], backend="numba")
    written = np.random.default_rng(0).standard_normal((1, 3, 8)).astype(np.float32) * 20
    read = np.array([[4, 7, 2, 0]])
    found = program(x=written, ids=read)
    print(
        f"{len(WRITTEN)} queries, {len(READ)} keys: weights {found['weights'].shape[2:]}, result {found['y'].shape[1:]}"
    )
    for token, row in zip(WRITTEN, found["weights"][0, 0], strict=True):
        print(f"  {token:5}" + ", ".join(f"{word} {part:.2f}" for word, part in zip(READ, row, strict=True)))
    print(f"padding gets {found['weights'][..., 3].max():.1f}, rows sum to {found['weights'].sum(-1).min():.4f}")
    shorter = program(x=written, ids=read[:, :3])["y"]
    print(f"without the padding it is the same: {np.allclose(shorter, found['y'], atol=1e-6)}")

    def paint(axes: Any) -> None:
        axes.imshow(found["weights"][0, 0], cmap="Blues", vmin=0)
        axes.set_xticks(range(4), READ)
        axes.set_yticks(range(3), WRITTEN)
        axes.set(title="what is written looks at what was read", xlabel="key", ylabel="query")

    draw(out / "cross_attention.svg", paint)
    check(program, out / "cross_attention.onnx", x=written, ids=read)


if __name__ == "__main__":
    run(main, __doc__)
