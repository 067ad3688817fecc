"""The encoder: self-attention and a feed-forward network, each with a way past it, in a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers


def main(out: Path) -> None:
    """Count the paper's encoder, then follow four tokens through a small one."""
    gx.set_seed(0)
    paper = layers.TransformerEncoderLayer(intermediate_dim=2048, num_heads=8)
    paper(gx.placeholder("x", ("batch", "time", 512)))
    parts = {name: part.count_params() for name, part in vars(paper).items() if isinstance(part, layers.Layer)}
    print(", ".join(f"{name} {size:,}" for name, size in parts.items() if size), f"= {paper.count_params():,}")

    x = gx.placeholder("x", ("batch", "time", 16))
    stack = layers.TransformerEncoder(num_layers=3, intermediate_dim=32, num_heads=4)
    depths = [x]
    stack(x)
    for block in stack.blocks:
        depths.append(block(depths[-1]))
    network = stack.blocks[0].feed_forward(x)
    outputs = {f"depth {number}".replace(" ", "_"): value for number, value in enumerate(depths[1:], 1)}
    program = gx.compile({**outputs, "network": network}, inputs=[x], backend="numba")
    tokens = np.random.default_rng(0).standard_normal((1, 4, 16)).astype(np.float32)
    found = program(x=tokens)
    print(f"in {tokens.shape}, out {found['depth_3'].shape}: layers can be stacked as high as one likes")

    changed = tokens.copy()
    changed[0, 3] += 1
    other = program(x=changed)
    moved = [i for i in range(4) if not np.array_equal(other["depth_1"][0, i], found["depth_1"][0, i])]
    print(f"another last token moves tokens {moved} of the attention: nothing is masked")
    moved = [i for i in range(4) if not np.array_equal(other["network"][0, i], found["network"][0, i])]
    print(f"and token {moved} of the feed-forward network: it sees each token alone")
    last = found["depth_3"]
    print(f"every token leaves with mean {abs(last.mean(-1)).max():.3f} and deviation {last.std(-1).mean():.3f}")

    def paint(axes: Any) -> None:
        for number, axis in enumerate(axes):
            axis.imshow(tokens[0] if number == 0 else found[f"depth_{number}"][0], cmap="RdBu", vmin=-2.5, vmax=2.5)
            axis.set(title=f"behind layer {number}" if number else "tokens", xlabel="value", ylabel="token")

    draw(out / "encoder.svg", paint, columns=4, width=3)
    check(program, out / "encoder.onnx", x=tokens)


if __name__ == "__main__":
    run(main, __doc__)
