"""Attention as one item of a plan: blocks of all kinds, masks, weights that fall, threads, and plans that say so."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.backends.numba import attention as record
from graphc.backends.numba import get_threads, set_threads
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.interpret import run_plan
from graphc.lower.memory import layout
from graphc.lower.plan import AttentionItem
from graphc.passes import prepare, simplify_graph

RATE = 0.25
SEED = {"seed": np.uint32(7), "step": np.uint32(3), "stream": 5}
KINDS = ("plain", "causal", "keys", "all", "bias", "dropout")


def leaves(dtype="float32"):
    """Heads inside the rows of a projection, as layers have them."""
    q, k, v, g = (
        gx.placeholder(name, ("batch", time, 2, width), dtype)
        for name, time, width in (("q", "n", 5), ("k", "m", 5), ("v", "m", 20), ("g", "n", 20))
    )
    return (q, k, v, g), [gx.transpose(x, (0, 2, 1, 3)) for x in (q, k, v, g)]


def masks(kind, dtype="float32"):
    if kind == "keys":
        seen = gx.placeholder("mask", ("batch", "m"), "bool")
        return seen, gx.reshape(seen, (seen.shape[0], 1, 1, seen.shape[1]))
    if kind == "all":
        seen = gx.placeholder("mask", ("n", "m"), "bool")
        return seen, seen
    bias = gx.placeholder("mask", (2, "n", "m"), dtype)
    return bias, bias


def by_formula(q, k, v, mask, kind):
    """All scores at once; what falls, falls in all weights."""
    scores = gx.matmul(q, gx.transpose(k, (0, 1, 3, 2))) * 0.5
    if kind == "causal":
        rows, columns = gx.arange(q.shape[2]), gx.arange(k.shape[2])
        mask = gx.expand_dims(rows, 1) >= gx.expand_dims(columns, 0)
    if mask is not None:
        scores = scores + mask if mask.dtype.is_float else gx.where(mask, scores, -np.inf)
    top = gx.max(scores, axis=-1, keepdims=True)
    weights = gx.exp(scores - gx.where(gx.isfinite(top), top, 0.0))
    total = gx.sum(weights, axis=-1, keepdims=True)
    weights = weights / gx.where(total > 0, total, 1.0)
    return gx.matmul(gx.dropout(weights, RATE, **SEED) if kind == "dropout" else weights, v)


def outputs(y, q, k, v, g):
    return {"y": y, **dict(zip("qkv", gx.vjp([y], [q, k, v], [g]), strict=True))}


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    """A program of the kind, for all sizes, and the formula in float64."""
    kind, found = request.param, []
    for dtype in ("float32", "float64"):
        given, heads = leaves(dtype)
        leaf, mask = masks(kind, dtype) if kind in ("keys", "all", "bias") else (None, None)
        if dtype == "float32":
            random = {"dropout": RATE, **SEED} if kind == "dropout" else {}
            y = gx.scaled_dot_product_attention(*heads[:3], mask, kind == "causal", 0.5, **random)
            inputs = [*given, *([] if leaf is None else [leaf])]
            found.append(gx.compile(outputs(y, *given[:3], heads[3]), inputs=inputs, backend="numba"))
        else:
            y = by_formula(*heads[:3], mask, kind)
            inputs = [*given, *([] if leaf is None else [leaf])]
            found.append(gx.compile(outputs(y, *given[:3], heads[3]), inputs=inputs, backend="reference"))
    return kind, *found


def arrays_for(kind, batch, n, m, seed=0):
    random = np.random.default_rng([seed, n, m])
    shapes = {"q": (batch, n, 2, 5), "k": (batch, m, 2, 5), "v": (batch, m, 2, 20), "g": (batch, n, 2, 20)}
    arrays = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if kind == "keys":
        arrays["mask"] = np.arange(m) < random.integers(0, m + 1, (batch, 1))
    if kind == "all":
        arrays["mask"] = random.random((n, m)) < 0.6
        arrays["mask"][:1] = False  # a query that sees nothing
    if kind == "bias":
        arrays["mask"] = random.standard_normal((2, n, m)).astype(np.float32)
    return arrays


def check(pair, arrays):
    _, program, formula = pair
    wide = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in arrays.items()}
    found, wanted = program(**arrays), formula(**wide)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-5 * max(np.abs(value).max(initial=0), 1e-3))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 40), (20, 24), (40, 17), (65, 130), (0, 3), (4, 0), (140, 140)])
def test_values_and_gradients_are_those_of_the_formula(pair, n, m):
    check(pair, arrays_for(pair[0], 2, n, m))


@pytest.mark.parametrize(("n", "m"), [(70, 50), (33, 131)])
def test_many_blocks_of_keys_give_what_one_gives(pair, n, m, monkeypatch):
    """Sums, maxima and means go from block to block; gradients compute scores twice."""
    monkeypatch.setattr(record, "SCORES_BYTES", 4096)
    monkeypatch.setattr(record, "PULLED_BYTES", 2048)
    check(pair, arrays_for(pair[0], 3, n, m, seed=1))  # sizes that no binding is kept for


@pytest.mark.parametrize(("n", "m"), [(70, 60), (5, 3)])
def test_bits_do_not_depend_on_threads(pair, n, m):
    kind, program, _ = pair
    arrays, before = arrays_for(kind, 5, n, m, seed=2), get_threads()
    try:
        found = []
        for threads in (1, 2):
            set_threads(threads)
            found.append(program(**arrays))
    finally:
        set_threads(before)
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


def test_one_item_computes_attention_and_one_its_gradients(pair):
    kind, program, _ = pair
    items = [item for launch in program.plan.launches for item in launch.items if isinstance(item, AttentionItem)]
    assert [item.cotangent is not None for item in items] == [False, True]
    assert "scaled_dot_product_attention" in program.text("plan")
    assert "MFLOP" in program.explain(batch=2, n=4, m=4)
    arrays = arrays_for(kind, 2, 4, 6)
    dims = {"batch": 2, "n": 4, "m": 6}
    interpreted = run_plan(program.plan, [arrays[name] for name in program.input_names], dims)
    for value, found in zip(interpreted, program(**arrays).values(), strict=True):
        np.testing.assert_allclose(value, found, rtol=1e-4, atol=1e-5)


def test_heads_lie_inside_rows_without_a_copy():
    """Operands are read where projections put them, results are written where the next one reads them."""
    x = gx.placeholder("x", ("batch", 6, 8))
    weights = [gx.parameter(f"w{i}", np.ones((8, 8), np.float32)) for i in range(4)]
    heads = [gx.transpose(gx.reshape(x @ w, (x.shape[0], 6, 2, 4)), (0, 2, 1, 3)) for w in weights[:3]]
    y = gx.transpose(gx.scaled_dot_product_attention(*heads), (0, 2, 1, 3))
    loss = gx.sum(gx.square(gx.reshape(y, (x.shape[0], 6, 8)) @ weights[3]))
    found = gx.grad(loss, weights)
    program = gx.compile({f"g{i}": g for i, g in enumerate(found)}, inputs=[x], backend="numba")
    labels = [label for launch in program.plan.launches for label in launch.label.split(" + ")]
    assert "attention_gradients" in labels
    assert "copy" not in labels


def test_scores_without_bound_are_those_of_the_formula():
    """An infinite score makes its query's row NaN and no other; minus infinity everywhere gives zeros."""
    q, k, v = np.ones((1, 3, 2), np.float32), np.ones((1, 40, 2), np.float32), np.ones((1, 40, 3), np.float32)
    bias = np.zeros((1, 3, 40), np.float32)
    bias[0, 0, 5], bias[0, 1] = np.inf, -np.inf
    y = gx.scaled_dot_product_attention(*map(gx.constant, (q, k, v)), mask=gx.constant(bias))
    found = gx.compile({"y": y}, inputs=[], backend="numba")()["y"][0]
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], np.zeros(3, np.float32))
    np.testing.assert_allclose(found[2], np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("way", ["op", "layer"])
def test_memory_with_dropout_grows_with_the_length(way):
    def arena(length: int) -> int:
        if way == "layer":
            layer = gx.layers.MultiHeadAttention(2, 16, dropout=0.1)
            inputs = [gx.placeholder("x", (1, length, 32))]
            y = layer(inputs[0], inputs[0], training=True)
            wanted = layer.trainable_weights
        else:
            inputs = wanted = [gx.placeholder(name, (2, length, 16)) for name in "qkv"]
            y = gx.scaled_dot_product_attention(*inputs, causal=True, dropout=0.1)
        outputs = dict(enumerate(gx.grad(gx.sum(gx.square(y)), wanted)))
        graph = prepare(make_graph({f"g{i}": g for i, g in outputs.items()}, inputs), training=True)
        return layout(make_plan(simplify_graph(graph)[0], find_backend("numba")), {}).peak_bytes

    assert arena(8192) <= 2.2 * arena(4096)
    assert arena(8192) < 8192 * 8192


def test_a_bias_gets_its_gradient_where_weights_fall():
    random = np.random.default_rng(0)
    q, k, v = (gx.constant(random.standard_normal((2, 6, 4))) for _ in range(3))
    bias = gx.parameter("bias", random.standard_normal((1, 6, 6)))
    loss = gx.sum(gx.scaled_dot_product_attention(q, k, v, mask=bias, dropout=0.3, seed=1) ** 3)
    program = gx.compile({"loss": loss, "d": gx.grad(loss, [bias])[0]}, inputs=[], backend="numba")
    gradient, first, values = program()["d"], bias.value, []
    for step in (1e-6, -1e-6):
        moved = first.copy()
        moved[0, 3, 5] += step
        bias.value = moved
        values.append(float(program()["loss"]))
    np.testing.assert_allclose(gradient[0, 3, 5], (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-8)
