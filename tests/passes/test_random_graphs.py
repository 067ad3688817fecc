"""Random typed graphs with NaN, infinities, zeros and symbolic sizes keep their values and come to rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import make_graph
from graphc.ir.node import Node
from graphc.passes import CANONICALIZE, SIMPLIFY_PASSES, decompose_for, run_passes
from graphc.rewrite import RewriteLog
from tests.rewrite.numeric import Leaves, values_of

Choice = Callable[[], Node]


def divisor(x: Node) -> Node:
    """Not zero: the sign of a zero is not kept, and a quotient by it would tell."""
    return gx.where(gx.equal(x, 0.0), 3.0, x)


def floats(x: Node, y: Node, c: Node, rng: np.random.Generator) -> list[Choice]:
    number = float(rng.choice([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]))
    return [
        lambda: x + y, lambda: x - y, lambda: x * y, lambda: x / divisor(y), lambda: -x, lambda: gx.abs(x), lambda: x + number,
        lambda: x * number, lambda: number - x, lambda: x / (number or 4.0), lambda: number / divisor(x), lambda: x**2.0,
        lambda: gx.maximum(x, y), lambda: gx.minimum(x, number), lambda: gx.where(c, x, y), lambda: gx.where(x < y, x, number),
        lambda: gx.where(~gx.isnan(x), x, y), lambda: gx.cast(gx.cast(x, "float64"), "float32"), lambda: x + x, lambda: x - -y,
        lambda: gx.cast(gx.equal(x, y), "float32"), lambda: gx.cast(c, "float32") * x, lambda: gx.sign(x), lambda: gx.relu(x),
        lambda: gx.broadcast_to(x, (2, *x.shape)), lambda: gx.reshape(x, (-1,)), lambda: gx.expand_dims(x, -1),
        lambda: gx.sum(x, axis=0) if x.ndim else x, lambda: gx.mean(x, axis=-1, keepdims=True) if x.ndim else x,
        lambda: gx.max(x), lambda: gx.transpose(x), lambda: gx.full((), number, "float32"), lambda: gx.ones_like(x) * number,
        lambda: gx.sum(gx.broadcast_to(x, (3, *x.shape)), axis=0), lambda: gx.squeeze(gx.expand_dims(x, 0), 0) * number,
        lambda: gx.reshape(gx.reshape(-x, (-1,)), x.shape) * y, lambda: gx.flip(gx.flip(x)),
    ]  # fmt: skip


def integers(x: Node, y: Node) -> list[Choice]:
    return [
        lambda: x + y, lambda: x - y, lambda: x * y, lambda: -x, lambda: x + 2, lambda: (x - 3) + 5, lambda: x * 0,
        lambda: x - x, lambda: x * 1, lambda: 0 - x, lambda: gx.maximum(x, 0), lambda: gx.maximum(gx.minimum(x, 3), y),
        lambda: gx.cast(gx.cast(x, "int64"), "int32"), lambda: gx.cast(gx.cast(x, "float64"), "int32"), lambda: x + x + x,
        lambda: ~~x, lambda: gx.sum(x), lambda: gx.reshape(x, (1, *x.shape)) * y, lambda: x & y,
    ]  # fmt: skip


def bools(c: Node, d: Node, x: Node, y: Node, i: Node) -> list[Choice]:
    return [
        lambda: c & d, lambda: c | d, lambda: c ^ d, lambda: ~c, lambda: ~~c, lambda: x < y, lambda: ~gx.equal(x, y),
        lambda: ~gx.not_equal(x, y), lambda: i > 0, lambda: gx.any(c), lambda: ~(x < y), lambda: gx.isfinite(x),
    ]  # fmt: skip


def random_graph(seed: int, special: bool) -> tuple[dict[str, Node], Leaves]:
    leaf = Leaves(seed, special)
    rng = leaf.rng
    shapes: list[tuple[int | str, ...]] = [("n", 3), (3,), ("n", 1), (), (1, 3)]
    pools = {dtype: [leaf(*shape, dtype=dtype) for shape in shapes] for dtype in ("float32", "int32", "bool")}

    def pick(dtype: str) -> Node:
        return pools[dtype][int(rng.integers(len(pools[dtype])))]

    while sum(map(len, pools.values())) < 45:
        x, y, i, j, c, d = (pick(dtype) for dtype in ("float32",) * 2 + ("int32",) * 2 + ("bool",) * 2)
        choices = (floats(x, y, c, rng), floats(y, x, d, rng), integers(i, j), bools(c, d, x, y, i))[
            int(rng.integers(4))
        ]
        try:
            new = choices[int(rng.integers(len(choices)))]()
        except gx.ShapeError:
            continue
        if new.ndim <= 4 and new.type.nbytes({"n": 4}) < 4000:
            pools[str(new.dtype)].append(new)
    nodes = [node for pool in pools.values() for node in pool[len(shapes) :]]
    return {f"y{k}": node for k, node in enumerate(nodes)}, leaf


@pytest.mark.parametrize("seed", range(40))
def test_canonical_form_keeps_every_value(seed: int) -> None:
    outputs, leaf = random_graph(seed, special=True)
    graph = make_graph(outputs, leaf.values)
    canonical = run_passes(graph, [CANONICALIZE])
    compare(values_of(graph.roots, leaf.values), values_of(canonical.roots, leaf.values))
    log = RewriteLog()
    assert all(a is b for a, b in zip(run_passes(canonical, [CANONICALIZE], log).roots, canonical.roots, strict=True))
    assert not log.firings


@pytest.mark.parametrize("seed", range(40))
def test_the_whole_pipeline_keeps_finite_values(seed: int) -> None:
    outputs, leaf = random_graph(seed, special=False)
    graph = make_graph(outputs, leaf.values)
    simplified = run_passes(graph, SIMPLIFY_PASSES)
    primitive = decompose_for(simplified, lambda op: False)
    before = values_of(graph.roots, leaf.values)
    compare(before, values_of(simplified.roots, leaf.values))
    compare(before, values_of(primitive.roots, leaf.values))


def compare(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    """Equal to a few roundings; a sum may cancel, so that the largest number of the graph is the scale."""
    finite = [np.abs(v[np.isfinite(v)]).max(initial=0.0) for v in before if v.dtype.kind == "f"]
    scale = max([1.0, *(value for value in finite if value < 1e6)])
    for old, new in zip(before, after, strict=True):
        if old.dtype.kind == "f":
            np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(new, old)
