"""Attention: any length, masks of all kinds, grouped heads; memory that grows with the length."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.memory import layout
from graphc.passes import prepare, simplify_graph
from tests.ops.table import judge_by_numpy


def formula(q, k, v, mask=None, causal=False):
    """All scores at once, written out; in the type of its operands."""
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    allowed = np.tril(np.ones(scores.shape[-2:], bool)) if causal else np.ones(scores.shape[-2:], bool)
    if mask is not None and mask.dtype == bool:
        allowed = allowed & mask
    elif mask is not None:
        scores = scores + mask
    scores = np.where(allowed, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1) @ v


@pytest.fixture(scope="module")
def program():
    """One program for all lengths: values and gradients, causal, with a ragged mask of keys."""
    q = gx.placeholder("q", ("batch", 2, "n", 4))
    k = gx.placeholder("k", ("batch", 2, "m", 4))
    v = gx.placeholder("v", ("batch", 2, "m", 3))
    seen = gx.placeholder("seen", ("batch", "m"), "bool")
    mask = gx.reshape(seen, (seen.shape[0], 1, 1, seen.shape[1]))
    y = gx.scaled_dot_product_attention(q, k, v, mask=mask, causal=True)
    loss = gx.sum(y * y * gx.cos(y))
    dq, dk, dv = gx.grad(loss, [q, k, v])
    return gx.compile({"y": y, "loss": loss, "dq": dq, "dk": dk, "dv": dv}, inputs=[q, k, v, seen], backend="numba")


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (1, 7), (5, 3), (64, 64), (127, 128), (128, 128), (129, 130), (300, 257), (1025, 1025)]
)
def test_every_length_with_one_program(program, n, m):
    random = np.random.default_rng(n + m)
    arrays = {
        "q": random.standard_normal((2, 2, n, 4)), "k": random.standard_normal((2, 2, m, 4)),
        "v": random.standard_normal((2, 2, m, 3)),
    }  # fmt: skip
    seen = np.arange(m) < random.integers(1, m + 1, (2, 1))
    narrow = {name: a.astype(np.float32) for name, a in arrays.items()}
    arrays = {name: a.astype(np.float64) for name, a in narrow.items()}
    found = program(**narrow, seen=seen)

    def value(**changed):
        given = {**arrays, **changed}
        return formula(given["q"], given["k"], given["v"], seen[:, None, None, :], causal=True)

    def loss(**changed):
        y = value(**changed)
        return float(np.sum(y * y * np.cos(y)))

    judge_by_numpy(found["y"], value(**narrow), value())
    for name in ("q", "k", "v"):  # by projection, in float64
        direction = random.standard_normal(arrays[name].shape)
        step = 1e-5
        slope = (loss(**{name: arrays[name] + step * direction}) - loss(**{name: arrays[name] - step * direction})) / (
            2 * step
        )
        np.testing.assert_allclose(np.sum(found[f"d{name}"] * direction), slope, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("heads", [(4, 2), (6, 3), (4, 1), (4, 4)])
def test_grouped_heads_serve_their_neighbours(heads):
    many, few = heads
    random = np.random.default_rng(many)
    q, k, v = (random.standard_normal((2, h, 5, 4)).astype(np.float32) for h in (many, few, few))
    mask = random.random((2, many, 5, 5)) < 0.7
    y = gx.scaled_dot_product_attention(*map(gx.constant, (q, k, v)), mask=mask)
    found = gx.compile({"y": y}, inputs=[], backend="numba")()["y"]
    operands = (q, np.repeat(k, many // few, 1), np.repeat(v, many // few, 1))
    judge_by_numpy(found, formula(*operands, mask), formula(*(x.astype(np.float64) for x in operands), mask))


def test_a_learned_bias_gets_its_gradient():
    random = np.random.default_rng(0)
    q, k, v = (gx.constant(random.standard_normal((2, 6, 4))) for _ in range(3))
    bias = gx.parameter("bias", random.standard_normal((1, 6, 6)))
    loss = gx.sum(gx.scaled_dot_product_attention(q, k, v, mask=bias) ** 3)
    program = gx.compile({"loss": loss, "d": gx.grad(loss, [bias])[0]}, inputs=[], backend="numba")
    gradient, first = program()["d"], bias.value
    for at in ((0, 0, 0), (0, 3, 5)):
        values = []
        for step in (1e-6, -1e-6):
            moved = first.copy()
            moved[at] += step
            bias.value = moved
            values.append(float(program()["loss"]))
        np.testing.assert_allclose(gradient[at], (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_second_derivatives_agree_with_the_formula():
    random = np.random.default_rng(1)
    leaves = [gx.placeholder(name, (3, 2), "float64") for name in "qkv"]
    arrays = {name: random.standard_normal((3, 2)) for name in "qkv"}
    directions = [gx.constant(random.standard_normal((3, 2))) for _ in leaves]
    found = []
    for attend in (gx.scaled_dot_product_attention, lambda q, k, v: gx.softmax(q @ k.T / 2**0.5) @ v + 0 * q[:1]):
        loss = gx.sum(attend(*leaves) ** 2)
        products = gx.hessian_vector_product(loss, leaves, directions)
        program = gx.compile({f"h{i}": h for i, h in enumerate(products)}, inputs=leaves, backend="numba")
        found.append(program(**arrays))
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-9, atol=1e-11)


def arena(outputs, inputs, **dims):
    plan = make_plan(simplify_graph(prepare(make_graph(outputs, inputs)))[0], find_backend("numba"))
    return layout(plan, dims).peak_bytes


def by_hand(q, k, v):
    return gx.softmax(q @ gx.transpose(k, (0, 2, 1)) / 8.0) @ v


@pytest.mark.parametrize("attend", [gx.scaled_dot_product_attention, by_hand], ids=["op", "by hand"])
def test_memory_grows_with_the_length(attend):
    """Twice the length takes at most 2.2 times the memory, in training too, also where it is written out by hand."""
    q, k, v = (gx.placeholder(name, (2, "n", 64)) for name in "qkv")
    y = attend(q, k, v)
    loss = gx.sum(y * y)
    for outputs in ({"y": y}, {"loss": loss, **{f"g{i}": g for i, g in enumerate(gx.grad(loss, [q, k, v]))}}):
        short, long = (arena(outputs, [q, k, v], n=n) for n in (4096, 8192))
        assert long <= 2.2 * short
        assert long < 8192 * 8192  # a byte for each score


def test_every_length_shares_its_kernels(program):
    before = program.source()
    random = np.random.default_rng(0)
    for n in (2, 500):
        arrays = {
            name: random.standard_normal((1, 2, n, w)).astype(np.float32) for name, w in (("q", 4), ("k", 4), ("v", 3))
        }
        program(**arrays, seen=np.ones((1, n), bool))
    assert program.source() == before
