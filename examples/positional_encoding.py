"""Positional encoding, drawn: sines and cosines from fast to slow, and the turn from one position to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import layers


def main(out: Path) -> None:
    """Print known values, check that a shift is a linear function, and draw the encoding."""
    x = gx.placeholder("x", (1, "length", 64))
    program = gx.compile({"pe": layers.SinePositionEncoding()(x)}, inputs=[x], backend="numba")
    pe = program(x=np.zeros((1, 100, 64), np.float32))["pe"][0]
    print(f"position 0: {pe[0, :4].tolist()}")
    print(f"position 1: sin(1) = {pe[1, 0]:.4f}, cos(1) = {pe[1, 1]:.4f}")

    turns = np.zeros((64, 64))
    for pair in range(32):
        angle = 7 / 10_000 ** (2 * pair / 64)
        at = slice(2 * pair, 2 * pair + 2)
        turns[at, at] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    error = np.abs(pe[:-7] @ turns - pe[7:]).max()
    print(f"PE(p + 7) = PE(p) @ M with one matrix for all p: differs by at most {error:.0e}, {error < 1e-5}")
    products = pe @ pe.T
    print(f"each position has a code of its own: {np.all(products[~np.eye(100, dtype=bool)] < 32 - 0.01)}")
    likeness = ", ".join(f"{off} off {products[50, 50 + off]:.1f}" for off in (0, 1, 10))
    print(f"likeness to position 50: {likeness}")
    longer = program(x=np.zeros((1, 1000, 64), np.float32))["pe"][0]
    print(f"longer than ever seen: 1,000 positions, the first 100 as before: {np.array_equal(longer[:100], pe)}")

    def paint(axes: Any) -> None:
        axes[0].imshow(pe, cmap="RdBu", aspect="auto")
        axes[0].set(title="encoding", xlabel="value", ylabel="position")
        for value in (0, 10, 20):
            axes[1].plot(pe[:, value], label=f"value {value}")
        axes[1].set(title="fast and slow", xlabel="position")
        axes[1].legend()
        axes[2].imshow(products, cmap="viridis")
        axes[2].set(title="likeness of positions", xlabel="position")

    draw(out / "positional_encoding.svg", paint, columns=3, width=4)
    check(program, out / "positional_encoding.onnx", x=np.zeros((1, 5, 64), np.float32))


if __name__ == "__main__":
    run(main, __doc__)
