"""The causal mask: four tokens, of which none may look at what comes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc.layers import causal_mask

TOKENS = ("Je", "t'", "aime", "<end>")


def main(out: Path) -> None:
    """Print the mask as it is added to the scores, the weights behind softmax, and what another last token changes."""
    scores = gx.placeholder("scores", (4, 4))
    added = gx.where(causal_mask(4), 0.0, -np.inf)
    program = gx.compile({"added": added, "weights": gx.softmax(scores + added, axis=-1)}, [scores], backend="numba")
    given = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    found = program(scores=given)
    print("added to the scores:")
    for token, row in zip(TOKENS, found["added"], strict=True):
        print(f"  {token:6}" + "".join(f"{'0' if value == 0 else '-inf':>6}" for value in row))
    print("weights:")
    for token, row in zip(TOKENS, found["weights"], strict=True):
        print(f"  {token:6}" + "".join(f"{value:6.2f}" for value in row))
    future = found["weights"][np.triu_indices(4, 1)]
    print(f"rows sum to {found['weights'].sum(-1).round(4).tolist()}, weight on the future: {future.sum():.1f}")

    x = gx.placeholder("x", (1, 1, 4, 8))
    attend = gx.compile({"y": gx.scaled_dot_product_attention(x, x, x, causal=True)}, inputs=[x], backend="numba")
    vectors = np.random.default_rng(1).standard_normal((1, 1, 4, 8)).astype(np.float32)
    changed = vectors.copy()
    changed[..., -1, :] = 0
    a, b = attend(x=vectors)["y"][0, 0], attend(x=changed)["y"][0, 0]
    print(f"another last token changes rows {[TOKENS[i] for i in range(4) if not np.array_equal(a[i], b[i])]} alone")

    def paint(axes: Any) -> None:
        axes.imshow(found["weights"], cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(4), TOKENS)
        axes.set_yticks(range(4), TOKENS)
        axes.set(title="no weight on the future", xlabel="key", ylabel="query")

    draw(out / "causal_mask.svg", paint)
    check(attend, out / "causal_mask.onnx", x=vectors)


if __name__ == "__main__":
    run(main, __doc__)
