"""Scaled dot-product attention: why scores are divided by the root of the size, and what a mask of padding does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc.layers import attention_weights

STEPS = 16


def main(out: Path) -> None:
    """Compare softmax of scores with and without the division, for small and large queries."""
    rng = np.random.default_rng(0)
    q, k = gx.placeholder("q", (1, STEPS, "size")), gx.placeholder("k", (1, STEPS, "size"))
    products = q @ gx.transpose(k, (0, 2, 1))
    scaled = products / gx.sqrt(gx.size_of(q.shape[-1], "float32"))
    outputs = {"products": products, "plain": gx.softmax(products, axis=-1), "scaled": gx.softmax(scaled, axis=-1)}
    compare = gx.compile(outputs, inputs=[q, k], backend="numba")

    sizes = (4, 64, 1024)
    largest: dict[str, list[float]] = {"plain": [], "scaled": []}
    for size in sizes:
        queries, keys = (rng.standard_normal((1, STEPS, size)).astype(np.float32) for _ in "qk")
        found = compare(q=queries, k=keys)
        for name, values in largest.items():
            values.append(float(found[name].max(-1).mean()))
        print(
            f"size {size}: products spread by {found['products'].std():.1f}, root of the size {size**0.5:.1f}; "
            f"largest weight {largest['plain'][-1]:.2f}, scaled {largest['scaled'][-1]:.2f}"
        )

    a, b, v = (gx.placeholder(name, ("batch", 1, "time", 8)) for name in ("query", "key", "value"))
    counts = gx.placeholder("counts", ("batch", 1, 1, "time"), "bool")
    attended = gx.scaled_dot_product_attention(a, b, v, mask=counts)
    weights = attention_weights(a, b, mask=counts, scale=8**-0.5)
    program = gx.compile({"y": attended, "weights": weights}, inputs=[a, b, v, counts], backend="numba")
    query, key, value = (rng.standard_normal((1, 1, 5, 8)).astype(np.float32) for _ in "qkv")
    mask = np.array([True, True, True, False, False]).reshape(1, 1, 1, 5)
    found = program(query=query, key=key, value=value, counts=mask)
    sums, padding = found["weights"].sum(-1), found["weights"][..., 3:]
    print(f"rows of weights sum to {sums.min():.4f}, padding gets {padding.max():.4f}")
    print(f"weights @ value is the result: {np.allclose(found['weights'] @ value, found['y'], atol=1e-5)}")

    def paint(axes: Any) -> None:
        for name, values in largest.items():
            axes.semilogx(sizes, values, marker="o", base=2, label=name)
        axes.axhline(1 / STEPS, color="gray", linewidth=0.8)
        axes.set(title="the largest weight of a row", xlabel="size of queries and keys", ylim=(0, 1))
        axes.legend()

    draw(out / "scaled_dot_product.svg", paint)
    check(program, out / "scaled_dot_product.onnx", query=query, key=key, value=value, counts=mask)


if __name__ == "__main__":
    run(main, __doc__)
