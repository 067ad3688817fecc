"""Multi-head attention: 512 values are eight heads of 64, and each head looks elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers

SENTENCE = ("the", "cat", "sat", "on", "the", "mat")


def main(out: Path) -> None:
    """Show the sizes of the paper's heads, then what four heads do with a sentence."""
    paper = layers.MultiHeadAttention(num_heads=8, key_dim=512 // 8)
    paper(*[gx.placeholder("x", ("batch", "time", 512))] * 2)
    for name, weight in paper.named_weights().items():
        if name.endswith("kernel"):
            print(f"{name}: {' x '.join(map(str, weight.shape))}")
    print(f"weights: {paper.count_params()}, 4 * (512 * 512 + 512) = {4 * (512 * 512 + 512)}")

    gx.set_seed(0)
    x = gx.placeholder("x", ("batch", "time", 16))
    layer = layers.MultiHeadAttention(num_heads=4, key_dim=4)
    y, weights = layer(x, x, return_attention_scores=True)
    program = gx.compile({"y": y, "weights": weights}, inputs=[x], backend="numba")
    words = np.random.default_rng(0).standard_normal((1, len(SENTENCE), 16)).astype(np.float32)
    words[0, 4] = words[0, 0]
    found = program(x=words)
    print(f"in {words.shape}, out {found['y'].shape}, weights {found['weights'].shape}")
    for head, row in enumerate(found["weights"][0, :, 1]):
        print(f"head {head}: 'cat' looks most at {SENTENCE[int(row.argmax())]!r} ({row.max():.2f})")
    same = np.allclose(found["y"][0, 0], found["y"][0, 4], atol=1e-6)
    print(f"both words 'the' come out alike, since nothing says where they stand: {same}")

    def paint(axes: Any) -> None:
        for head, axis in enumerate(axes):
            axis.imshow(found["weights"][0, head], cmap="Blues", vmin=0)
            axis.set_xticks(range(len(SENTENCE)), SENTENCE, rotation=60)
            axis.set_yticks(range(len(SENTENCE)), SENTENCE)
            axis.set(title=f"head {head}")

    draw(out / "multi_head.svg", paint, columns=4, width=3)
    check(program, out / "multi_head.onnx", x=words)


if __name__ == "__main__":
    run(main, __doc__)
