"""The decoder: masked self-attention, a look at the encoder's memory, and a feed-forward network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers


def main(out: Path) -> None:
    """Show that teacher forcing computes all steps at once, and each as if the later ones were not there yet."""
    gx.set_seed(0)
    x, memory = gx.placeholder("x", ("batch", "time", 16)), gx.placeholder("memory", ("batch", "steps", 16))
    decoder = layers.TransformerDecoder(num_layers=2, intermediate_dim=32, num_heads=4)
    program = gx.compile({"y": decoder(x, memory)}, inputs=[x, memory], backend="numba")
    print("parts:", ", ".join(part.name for part in decoder.blocks[0].sublayers if part.count_params()))

    rng = np.random.default_rng(0)
    target, read = (rng.standard_normal((1, steps, 16)).astype(np.float32) for steps in (5, 7))
    whole = program(x=target, memory=read)["y"]
    stepwise = np.stack([program(x=target[:, : n + 1], memory=read)["y"][:, n] for n in range(5)], axis=1)
    print(f"all 5 steps at once are the 5 one after the other: {np.allclose(whole, stepwise, atol=1e-5)}")
    differences = np.zeros((5, 5))
    for step in range(5):
        changed = target.copy()
        changed[0, step] += 1
        differences[:, step] = np.abs(program(x=changed, memory=read)["y"] - whole)[0].max(-1)
    early = differences[np.triu_indices(5, 1)].max()
    print(f"a token changes itself and later ones; earlier ones by {early:.1f}")
    moved = np.abs(program(x=target, memory=read + 1)["y"] - whole)[0].max(-1)
    print(f"another memory changes every step: {bool(np.all(moved > 1e-3))}")

    def paint(axes: Any) -> None:
        axes.imshow(differences, cmap="Blues")
        axes.set(title="who is changed by whom", xlabel="token that changes", ylabel="token that it changes")

    draw(out / "decoder.svg", paint)
    check(program, out / "decoder.onnx", x=target, memory=read)


if __name__ == "__main__":
    run(main, __doc__)
