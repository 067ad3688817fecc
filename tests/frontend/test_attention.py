"""Attention layers against their formulas in NumPy, and decoder cells step by step."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers

rng = np.random.default_rng(2)
Q, V = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dot(w, q, k):
    return q @ k.swapaxes(1, 2)


def general(w, q, k):
    return q @ (k @ w[0]).swapaxes(1, 2)


def additive(w, q, k):
    """v . tanh(W_s s + W_h h), one pair after the other."""
    scores = np.zeros((len(q), q.shape[1], k.shape[1]))
    for b, i, j in np.ndindex(*scores.shape):
        scores[b, i, j] = w[2] @ np.tanh(w[0].T @ q[b, i] + w[1].T @ k[b, j])
    return scores


LAYERS = {
    "dot": (lambda: layers.Attention(dtype="float64"), dot),
    "luong dot": (lambda: layers.LuongAttention("dot", dtype="float64"), dot),
    "luong general": (lambda: layers.LuongAttention("general", dtype="float64"), general),
    "luong concat": (lambda: layers.LuongAttention("concat", units=6, dtype="float64"), additive),
    "bahdanau": (lambda: layers.BahdanauAttention(7, dtype="float64"), additive),
}


def leaves():
    return gx.placeholder("q", ("batch", "n", 4), "float64"), gx.placeholder("v", ("batch", "m", 4), "float64")


@pytest.mark.parametrize("name", LAYERS)
def test_attention_is_its_formula(name):
    """Values, with a key of its own, and gradients against differences."""
    make, score = LAYERS[name]
    layer, (q, v) = make(), leaves()
    k = gx.placeholder("k", ("batch", "m", 4), "float64")
    context, weights = layer([q, v, k], return_attention_scores=True)
    key = rng.standard_normal((2, 5, 4))
    wanted = softmax(score(layer.get_weights(), Q, key))
    loss = gx.sum(gx.square(context))
    gradients = {f"d{node.name}": g for node, g in zip((q, v, k), gx.grad(loss, [q, v, k]), strict=True)}
    program = gx.compile({"context": context, "weights": weights, "loss": loss, **gradients}, inputs=[q, v, k])
    found = program(q=Q, v=V, k=key)
    np.testing.assert_allclose(found["weights"], wanted, rtol=1e-10)
    np.testing.assert_allclose(found["context"], wanted @ V, rtol=1e-10)
    given = {"q": Q, "v": V, "k": key}
    for leaf, array in given.items():
        direction = rng.standard_normal(array.shape)
        ends = [program(**{**given, leaf: array + s * 1e-6 * direction})["loss"] for s in (1, -1)]
        np.testing.assert_allclose(np.sum(found[f"d{leaf}"] * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_masks_and_order_in_time(name):
    layer, (q, v) = LAYERS[name][0](), leaves()
    mask = gx.placeholder("mask", ("batch", "m"), "bool")
    seen = np.array([[True, True, False, True, False], [True] * 5])
    _, weights = layer([q, v], mask=[None, mask], return_attention_scores=True)
    _, causal = layer([q, v], return_attention_scores=True, use_causal_mask=True)
    program = gx.compile({"weights": weights, "causal": causal}, inputs=[q, v, mask])
    found = program(q=Q, v=V, mask=seen)
    assert (found["weights"].astype(bool) == seen[:, None]).all()
    assert (found["causal"].astype(bool) == (np.arange(3)[:, None] >= np.arange(5))).all()
    for array in found.values():
        np.testing.assert_allclose(array.sum(-1), 1, rtol=1e-12)


def test_a_query_that_does_not_count_gets_zeros():
    layer, (q, v) = layers.Attention(), leaves()
    mask = gx.placeholder("mask", ("batch", "n"), "bool")
    context = layer([q, v], mask=[mask, None])
    seen = np.array([[True, False, True], [False, True, True]])
    found = gx.compile({"y": context}, inputs=[q, v, mask])(q=Q, v=V, mask=seen)["y"]
    np.testing.assert_array_equal(found.any(-1), seen)


CELLS = {
    "bahdanau": lambda **said: layers.BahdanauCell(layers.GRUCell(4), units=5, **said),
    "luong dot": lambda **said: layers.LuongCell(layers.LSTMCell(4), **said),
    "luong general": lambda **said: layers.LuongCell(layers.GRUCell(4), "general", units=6, **said),
    "luong concat": lambda **said: layers.LuongCell(layers.SimpleRNNCell(4), "concat", **said),
    "luong fed": lambda **said: layers.LuongCell(layers.LSTMCell(4), "general", 6, input_feeding=True, **said),
}


def decode(cell, x, memory, seen):
    """The decoder by its formulas: NumPy around the cell within, whose own steps are tested elsewhere."""
    inner = cell.cell
    size = inner.units
    is_bahdanau = isinstance(cell, layers.BahdanauCell)
    score = additive if is_bahdanau or cell.attention.score == "concat" else {"dot": dot, "general": general}[
        cell.attention.score
    ]  # fmt: skip
    fed = not is_bahdanau and cell.input_feeding
    y = np.zeros((len(x), cell.readout.units)) if fed else None
    features = x.shape[-1] + (memory.shape[-1] if is_bahdanau else y.shape[-1] if fed else 0)
    node = gx.placeholder("x", (len(x), features), "float64")
    states = [gx.placeholder(f"s{i}", (len(x), size), "float64") for i in range(len(inner.state_size))]
    output, after = inner(node, states)
    step = gx.compile({"y": output, **{f"n{i}": s for i, s in enumerate(after)}}, inputs=[node, *states])
    state, outputs, maps = [np.zeros((len(x), size))] * len(states), [], []

    def look(query):
        scores = score(cell.attention.get_weights(), query[:, None], memory)
        weights = softmax(np.where(seen[:, None], scores, -1e9))
        maps.append(weights[:, 0])
        return (weights @ memory)[:, 0]

    for t in range(x.shape[1]):
        if is_bahdanau:
            y, *state = step.call([np.concatenate([x[:, t], look(state[0])], -1), *state])
        else:
            s, *state = step.call([np.concatenate([x[:, t], y], -1) if fed else np.ascontiguousarray(x[:, t]), *state])
            y = np.tanh(np.concatenate([look(s), s], -1) @ cell.readout.get_weights()[0])
        outputs.append(y)
    return np.stack(outputs, 1), np.stack(maps, 1)


@pytest.mark.parametrize("name", CELLS)
def test_decoder_cells_are_their_formulas(name):
    """With the mask that travels with the memory, and the weights of attention as a second output."""
    memory = gx.placeholder("memory", ("batch", "m", 4), "float64")
    x = gx.placeholder("x", ("batch", "time", 3), "float64")
    masked = layers.Masking()(memory)
    cell = CELLS[name](return_attention_scores=True, dtype="float64")
    outputs, maps = layers.RNN(cell, return_sequences=True)(x, constants=masked)
    cell.set_weights([w + 0.2 * rng.standard_normal(w.shape) for w in cell.get_weights()])
    value, held = rng.standard_normal((2, 6, 3)), V.copy()
    held[0, 3:] = 0
    found = gx.compile({"y": outputs, "maps": maps}, inputs=[x, memory])(x=value, memory=held)
    wanted, weights = decode(cell, value, held, held.any(-1))
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["maps"], weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_decoders_skip_masked_steps_and_end_where_they_end(name):
    memory = gx.placeholder("memory", (2, 5, 4), "float64")
    x, m = gx.placeholder("x", (2, 3, 3), "float64"), gx.placeholder("m", (2, 3), "bool")
    cell = CELLS[name](dtype="float64")
    whole, last = layers.RNN(cell, return_sequences=True), layers.RNN(cell)
    a, b, c = whole(x, mask=m, constants=memory), last(x, mask=m, constants=memory), last(x, constants=memory)
    full = whole(x, constants=memory)
    program = gx.compile({"a": a, "b": b, "c": c, "full": full}, inputs=[x, m, memory])
    mask = np.array([[True, False, True], [False, True, False]])
    found = program(x=Q[..., :3], m=mask, memory=V)
    np.testing.assert_array_equal(found["a"][:, -1], found["b"])
    np.testing.assert_allclose(found["full"][:, -1], found["c"], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found["a"][0, 1], found["a"][0, 0])
    assert not found["a"][1, 0].any()


def test_luongs_attention_leaves_the_loop():
    """No step needs the attention of the step before: all of it is products of all steps, behind the loop."""
    memory, x = gx.placeholder("memory", ("batch", "m", 4)), gx.placeholder("x", ("batch", "time", 3))
    program = gx.compile(
        {"y": layers.RNN(CELLS["luong general"](), return_sequences=True)(x, constants=memory)}, inputs=[x, memory]
    )
    loop = program.plan.loops[0]
    assert loop.end - loop.first == 2  # the cell's product and its gates
    assert "tanh" in program.plan.launches[-2].label  # of the attentional vectors of all steps
