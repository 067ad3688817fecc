"""Evaluate nodes by their references, and operands for the examples of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphc.ir.dims import Dim, evaluate
from graphc.ir.node import Constant, Node, Parameter, placeholder, topological

SIZES = {"n": 4, "batch": 5}


def values_of(roots: Iterable[Node], values: Mapping[Node, Any], sizes: Mapping[str, int] = SIZES) -> list[np.ndarray]:
    """The values of nodes, given those of the placeholders."""

    def bind(size: Any) -> Any:
        return evaluate(size, sizes) if isinstance(size, Dim) else size

    roots = tuple(roots)
    found: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node in topological(roots):
            if node in values:
                found[node] = np.asarray(values[node])
            elif isinstance(node, Parameter):
                found[node] = node.array
            elif isinstance(node.op, Constant):
                found[node] = node.op.array
            else:
                found[node] = np.asarray(node.op.with_sizes(bind).reference(*[found[arg] for arg in node.args]))
            shape = tuple(bind(size) for size in node.shape)
            assert (found[node].dtype, found[node].shape) == (node.dtype.numpy, shape), node
    return [found[root] for root in roots]


class Leaves:
    """A factory of placeholders with random values: what the examples of rules call ``leaf``."""

    def __init__(self, seed: int, special: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.special = special
        self.values: dict[Node, np.ndarray] = {}

    def __call__(self, *shape: Any, dtype: Any = "float32", low: float = -2.0, high: float = 2.0) -> Node:
        node = placeholder(f"x{len(self.values)}", shape, dtype)
        sizes = tuple(SIZES.get(size, size) for size in shape)
        kind = node.dtype.numpy.kind
        if kind == "b":
            value = self.rng.random(sizes) < 0.5
        elif kind in "iu":
            value = self.rng.integers(0 if kind == "u" else -5, 6, sizes)
        else:
            value = self.rng.uniform(low, high, sizes)
            if self.special:
                chosen = self.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], sizes)
                value = np.where(self.rng.random(sizes) < 0.4, chosen, value)
        self.values[node] = np.asarray(value).astype(node.dtype.numpy)
        return node


def assert_close(actual: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> None:
    """Equal to a few roundings of the element type; NaN and infinities in the same places."""
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected)
        return
    tolerance = 32 * scale * float(np.finfo(expected.dtype).eps)
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * max(1.0, finite.max(initial=0.0)))


def projection(fn: Callable[[np.ndarray], float], x: np.ndarray, direction: np.ndarray, step: float = 1e-5) -> float:
    """The derivative of ``fn`` at ``x`` along ``direction``, by central differences."""
    return (fn(x + step * direction) - fn(x - step * direction)) / (2 * step)
