"""Derivatives of random graphs against numeric ones, and of both modes against each other."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import make_graph
from graphc.ir.node import Node
from graphc.passes import prepare, simplify_graph
from tests.autodiff.graphs import Values, random_graph
from tests.rewrite.numeric import projection, values_of

SEEDS = range(40)


def settled(nodes: list[Node], leaves: list[Node]) -> tuple[Node, ...]:
    """The nodes in training, markers dropped."""
    inputs = [leaf for leaf in leaves if not isinstance(leaf, gx.Parameter)]
    return prepare(make_graph({f"y{i}": node for i, node in enumerate(nodes)}, inputs), training=True).roots


def along(loss: Node, leaf: Node, values: Values, direction: np.ndarray) -> float:
    def at(value: np.ndarray) -> float:
        return float(values_of([loss], {**values, leaf: value})[0])

    return projection(at, values[leaf], direction)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_is_the_numeric_one(seed: int) -> None:
    loss, leaves, values = random_graph(seed)
    root, *grads = settled([loss, *gx.grad(loss, leaves)], leaves)
    rng = np.random.default_rng(seed)
    for leaf, grad in zip(leaves, values_of(grads, values), strict=True):
        direction = rng.standard_normal(leaf.shape)
        numeric = along(root, leaf, values, direction)
        assert float(np.sum(grad * direction)) == pytest.approx(numeric, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_mode_is_reverse_mode(seed: int) -> None:
    loss, leaves, values = random_graph(seed)
    tangents = [gx.placeholder(f"t{i}", leaf.shape, "float64") for i, leaf in enumerate(leaves)]
    rng = np.random.default_rng(seed)
    values |= {t: rng.standard_normal(t.shape) for t in tangents}
    (moved,) = gx.jvp([loss], leaves, tangents)
    moved, *grads = values_of(settled([moved, *gx.grad(loss, leaves)], [*leaves, *tangents]), values)
    expected = sum(np.sum(g * values[t]) for g, t in zip(grads, tangents, strict=True))
    assert float(moved) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_hessian_vector_product_of_both_orders_and_numeric(seed: int) -> None:
    loss, leaves, values = random_graph(seed, steps=6)
    vectors = [gx.placeholder(f"v{i}", leaf.shape, "float64") for i, leaf in enumerate(leaves)]
    rng = np.random.default_rng(seed)
    values |= {v: rng.standard_normal(v.shape) for v in vectors}
    forward = gx.hessian_vector_product(loss, leaves, vectors)
    grads = gx.grad(loss, leaves)
    inner = sum((gx.sum(g * v) for g, v in zip(grads, vectors, strict=True)), start=gx.constant(np.float64(0)))
    reverse = gx.grad(inner, leaves)
    roots = settled([*forward, *reverse, inner], [*leaves, *vectors])
    *found, _ = values_of(roots, values)
    for a, b in zip(found[: len(leaves)], found[len(leaves) :], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)
    for leaf, product in zip(leaves, found, strict=False):
        direction = rng.standard_normal(leaf.shape)
        numeric = along(roots[-1], leaf, values, direction)
        assert float(np.sum(product * direction)) == pytest.approx(numeric, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_simplified_gradient_has_the_same_value(seed: int) -> None:
    loss, leaves, values = random_graph(seed)
    inputs = [leaf for leaf in leaves if not isinstance(leaf, gx.Parameter)]
    named = {f"g{i}": g for i, g in enumerate(gx.grad(loss, leaves))}
    graph = prepare(make_graph({"loss": loss, **named}, inputs), training=True)
    simplified, log = simplify_graph(graph)
    for before, after in zip(values_of(graph.roots, values), values_of(simplified.roots, values), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-11)
    again, log = simplify_graph(simplified)
    assert not log.firings
    assert all(a is b for a, b in zip(again.roots, simplified.roots, strict=True))
