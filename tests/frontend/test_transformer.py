"""Transformer layers: known results, derivatives, sizes, messages."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as gx
from graphc import layers, models
from tests.frontend.running import evaluate, f32, run_layer

rng = np.random.default_rng(2)


def normalized(x, gamma=1.0, beta=0.0, epsilon=1e-5):
    x = x.astype(np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * gamma + beta


# Normalization.


def test_layer_normalization_is_over_features_and_batch_normalization_over_samples():
    x = f32(rng, 6, 4, 8) * 3 + 1
    by_layer, by_batch = (
        run_layer(kind(epsilon=1e-9), x, training=True)
        for kind in (layers.LayerNormalization, layers.BatchNormalization)
    )
    for found, axis in ((by_layer, -1), (by_batch, (0, 1))):
        np.testing.assert_allclose(found.mean(axis=axis), 0, atol=1e-6)
        np.testing.assert_allclose(found.std(axis=axis), 1, rtol=1e-5)
    assert np.abs(by_layer.mean(axis=(0, 1))).max() > 0.1
    assert np.abs(by_batch.mean(axis=-1)).max() > 0.1
    alone = run_layer(layers.LayerNormalization(epsilon=1e-9), x[:1], training=True)
    np.testing.assert_allclose(alone, by_layer[:1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(run_layer(layers.BatchNormalization(), x[:1], training=True), by_batch[:1], atol=0.01)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (2, 1)])
def test_layer_normalization_over_any_axes(axis):
    x, layer = f32(rng, 3, 4, 5), layers.LayerNormalization(axis=axis, epsilon=1e-3)
    layer(gx.placeholder("x", ("batch", 4, 5)))
    axes = tuple(sorted(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))))
    sizes = [x.shape[a] for a in axes]
    gamma, beta = f32(rng, *sizes), f32(rng, *sizes)
    layer.set_weights([gamma, beta])
    wide = [x.shape[a] if a in axes else 1 for a in range(3)]
    wanted = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    np.testing.assert_allclose(
        run_layer(layer, x), wanted * gamma.reshape(wide) + beta.reshape(wide), rtol=1e-4, atol=1e-5
    )


def test_the_textbook_form_differs_by_the_place_of_epsilon():
    x, epsilon = f32(rng, 5, 8) * np.float32([[1e-3], [1e-2], [0.1], [1], [10]]), 1e-3
    std, centred = x.std(-1, keepdims=True, dtype=np.float64), x - x.mean(-1, keepdims=True)
    ours = run_layer(layers.LayerNormalization(epsilon=epsilon), x)
    shift = np.sqrt(std**2 + epsilon) - std  # the eps with which (x - mean) / (std + eps) is the same
    np.testing.assert_allclose(ours, centred / (std + shift), rtol=1e-4, atol=1e-6)
    textbook = centred / (std + epsilon)
    differences = np.abs(ours / textbook - 1).max(axis=-1)
    assert differences[0] > 0.9
    assert differences[-1] < 2e-4
    np.testing.assert_allclose(shift[3:], epsilon / (2 * std[3:]), rtol=0.01)


def test_a_row_of_equal_values_has_a_derivative():
    x = gx.placeholder("x", (1, 4), "float64")
    (gradient,) = gx.grad(gx.sum(layers.LayerNormalization()(x) * gx.constant(np.arange(4.0))), [x])
    (found,) = evaluate([gradient], [(x, np.full((1, 4), 2.0))])
    np.testing.assert_allclose(found, (np.arange(4.0) - 1.5)[None] / np.sqrt(1e-3))


def test_root_mean_square_normalization():
    x, layer = f32(rng, 3, 5), layers.RMSNormalization(epsilon=1e-4)
    layer(gx.placeholder("x", ("batch", 5)))
    layer.set_weights([f32(rng, 5)])
    wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * layer.get_weights()[0]
    np.testing.assert_allclose(run_layer(layer, x), wanted, rtol=1e-5)
    with pytest.raises(gx.AxisError, match="axis 3 of 2 axes"):
        layers.RMSNormalization(axis=3)(gx.placeholder("x", ("batch", 5)))


# Feed-forward networks, ways past, blocks.


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_the_feed_forward_network_is_two_layers_for_each_step(activation):
    x, layer = f32(rng, 2, 3, 4), layers.FeedForward(7, activation)
    layer(gx.placeholder("x", ("batch", "time", 4)))
    layer.set_weights([f32(rng, *w.shape) for w in layer.get_weights()])
    hidden, *gate, output = (layer.get_weights()[i : i + 2] for i in range(0, len(layer.weights), 2))
    z = x.astype(np.float64) @ hidden[0] + hidden[1]
    if activation == "relu":
        h = np.maximum(z, 0)
    elif activation == "gelu":
        h = z * 0.5 * (1 + np.vectorize(math.erf)(z / np.sqrt(2)))
    else:
        h = z / (1 + np.exp(-z)) * (x @ gate[0][0] + gate[0][1])
    found = run_layer(layer, x)
    np.testing.assert_allclose(found, h @ output[0] + output[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run_layer(layer, x[:, 1:2]), found[:, 1:2], rtol=1e-5, atol=1e-6)


def silenced(layer, x):
    """The layer with parts that give nothing: all that is left is the way past them."""
    layer(x)
    for name, weight in layer.named_weights().items():
        if "attention_output" in name or "feed_forward/output" in name:
            weight.value = np.zeros(weight.shape, np.float32)
    return layer


def test_with_parts_that_give_nothing_the_input_comes_through():
    x = f32(rng, 2, 3, 8)
    node = gx.placeholder("x", ("batch", "time", 8))
    before = silenced(layers.TransformerEncoderLayer(16, 2, normalize_first=True), node)
    np.testing.assert_array_equal(run_layer(before, x), x)
    after = silenced(layers.TransformerEncoderLayer(16, 2), node)
    np.testing.assert_allclose(run_layer(after, x), normalized(normalized(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [False, True], ids=["post-norm", "pre-norm"])
def test_a_block_is_its_parts_in_order(first):
    x, memory = f32(rng, 2, 5, 8), f32(rng, 2, 3, 8)
    layer = layers.TransformerDecoderLayer(16, 2, normalize_first=first)
    nodes = gx.placeholder("x", ("batch", "time", 8)), gx.placeholder("memory", ("batch", "steps", 8))
    whole = layer(*nodes)
    layer.set_weights([f32(rng, *w.shape) * 0.5 for w in layer.get_weights()])

    def past(y, part, norm):
        return y + part(norm(y)) if first else norm(y + part(y))

    y = past(nodes[0], lambda q: layer.self_attention(q, q, use_causal_mask=True), layer.self_attention_norm)
    y = past(y, lambda q: layer.cross_attention(q, nodes[1]), layer.cross_attention_norm)
    y = past(y, layer.feed_forward, layer.feed_forward_norm)
    a, b = evaluate([whole, y], list(zip(nodes, (x, memory), strict=True)))
    np.testing.assert_array_equal(a, b)
    changed = memory.copy()
    changed[:, -1] += 1
    (c,) = evaluate([whole], list(zip(nodes, (x, changed), strict=True)))
    assert not np.allclose(a, c, atol=1e-3)


def test_padding_of_the_memory_is_not_seen():
    layer = layers.TransformerDecoder(2, 16, 2)
    x, memory = gx.placeholder("x", (1, 3, 8)), gx.placeholder("memory", (1, 4, 8))
    mask = gx.placeholder("mask", (1, 4), "bool")
    y, whole = layer(x, memory, memory_mask=mask), layer(x, memory[:, :2])
    arrays = f32(rng, 1, 3, 8), f32(rng, 1, 4, 8), np.array([[True, True, False, False]])
    a, b = evaluate([y, whole], list(zip((x, memory, mask), arrays, strict=True)))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [
    {}, {"normalize_first": True, "activation": "swiglu", "normalization": "rms", "use_bias": False},
    {"num_key_value_heads": 1, "rotary": 1e4, "activation": "gelu"}, {"relative_bias": True, "key_dim": 3},
], ids=["paper", "llama", "grouped", "t5"])  # fmt: skip
def test_gradients_by_projection(options):
    """The derivative in a random direction of all weights and inputs, in double precision, against a difference."""
    layer = layers.TransformerDecoder(2, 6, 2, dtype="float64", **options)
    x, memory = gx.placeholder("x", (2, 3, 4), "float64"), gx.placeholder("memory", (2, 5, 4), "float64")
    y = layer(x, memory)
    weight = gx.constant(rng.standard_normal((2, 3, 4)))
    leaves = [x, memory, *layer.weights]
    gradients = gx.grad(gx.sum(y * weight), leaves)
    values = [rng.standard_normal(leaf.shape) * 0.7 for leaf in leaves]
    directions = [rng.standard_normal(leaf.shape) for leaf in leaves]
    program = gx.compile({"y": gx.sum(y * weight), **{f"g{i}": g for i, g in enumerate(gradients)}}, inputs=[x, memory],
                         backend="reference")  # fmt: skip

    def at(step):
        moved = [value + step * direction for value, direction in zip(values, directions, strict=True)]
        layer.set_weights(moved[2:])
        return program(x=moved[0], memory=moved[1])

    here, step = at(0.0), 1e-5
    slope = (at(step)["y"] - at(-step)["y"]) / (2 * step)
    projected = sum(np.sum(here[f"g{i}"] * direction) for i, direction in enumerate(directions))
    np.testing.assert_allclose(projected, slope, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: layers.TransformerEncoderLayer(8, 3)(x), "8 features cannot be dealt out to 3 heads equally"),
        (lambda x: layers.TransformerEncoderLayer(8, 2, normalization="batch"), "no normalization 'batch'"),
        (lambda x: layers.TransformerDecoderLayer(8, 2)(x), "needs a memory"),
        (lambda x: layers.TransformerDecoderLayer(8, 2, cross_attention=False)(x, x), "attends to no memory"),
        (lambda x: layers.TransformerEncoder(0, 8, 2), "num_layers of TransformerEncoder is 0"),
        (lambda x: layers.TransformerEncoder(1, 8, 2, dropuot=0.1), "no argument 'dropuot'"),
        (lambda x: layers.PatchEmbedding(3, 8)(gx.placeholder("i", (1, 8, 8, 1))), "patches of 3 x 3"),
        (lambda x: models.Gpt(9, positions="sine"), "no positions are called 'sine'"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(make, says):
    with pytest.raises(gx.GraphcError, match=says) as caught:
        make(gx.placeholder("x", ("batch", "time", 8)))
    assert "to do: " in str(caught.value)


# Embeddings.


def test_a_reversible_embedding_goes_back_by_its_table():
    layer, ids = (
        layers.ReversibleEmbedding(7, 4, logit_soft_cap=2.0, mask_zero=True),
        gx.placeholder("ids", (2, 3), "int64"),
    )
    x = layer(ids)
    logits = layer(x, reverse=True)
    rows = rng.integers(0, 7, (2, 3))
    (table,) = layer.get_weights()
    (found,) = evaluate([logits], [(ids, rows)])
    np.testing.assert_allclose(found, 2 * np.tanh(table[rows] @ table.T / 2), rtol=1e-4, atol=1e-6)
    apart = layers.ReversibleEmbedding(7, 4, tie_weights=False)
    apart(ids)
    assert [w.shape for w in apart.weights] == [(7, 4), (4, 7)]


def test_patches_are_cut_row_by_row():
    images, layer = f32(rng, 2, 4, 6, 3), layers.PatchEmbedding(2, 12, class_token=False)
    layer(gx.placeholder("x", ("batch", 4, 6, 3)))
    layer.set_weights([np.eye(12, dtype=np.float32), np.zeros(12, np.float32), np.zeros((6, 12), np.float32)])
    found = run_layer(layer, images)
    np.testing.assert_array_equal(found[:, 4], images[:, 2:4, 2:4].reshape(2, 12))
    assert found.shape == (2, 6, 12)


# The models' sizes.


def count(vocabulary, layers=6, d=512, ff=2048, heads=8, key=None, value=None):
    """Weights of the Transformer: one table, attention and networks with biases, normalizations."""
    key, value = key or d // heads, value or d // heads
    attention = 2 * (d + 1) * heads * key + (d + 1) * heads * value + (heads * value + 1) * d
    network = (d + 1) * ff + (ff + 1) * d
    return vocabulary * d + layers * (3 * attention + 2 * network + 5 * 2 * d)


@pytest.mark.parametrize("options", [{}, {"layers": 2, "heads": 4}, {"d": 24, "ff": 40, "key": 5}])
def test_the_weights_of_a_small_model_are_as_many_as_the_formula_says(options):
    said = {"layers": 1, "d": 16, "ff": 32, "heads": 2} | options
    more = {"key_dim": said["key"]} if "key" in said else {}
    model = models.Transformer(
        11, num_layers=said["layers"], d_model=said["d"], num_heads=said["heads"], d_ff=said["ff"], **more
    )
    assert model.count_params() == count(11, **said, value=said.get("key"))


def test_the_paper_s_models_have_as_many_parameters_as_its_table_says():
    """One vocabulary, of 41,050 tokens, gives every row of table 3 but the big model's, rounded to millions."""
    table = {
        (): 65, (("layers", 2),): 36, (("layers", 4),): 50, (("layers", 8),): 80, (("key", 16), ("value", 64)): 58,
        (("key", 32), ("value", 64)): 60, (("d", 256), ("key", 32), ("value", 32)): 28,
        (("d", 1024), ("key", 128), ("value", 128)): 168, (("ff", 1024),): 53, (("ff", 4096),): 90,
    }  # fmt: skip
    found = {row: round(count(41_050, **dict(row)) / 1e6) for row in table}
    assert found == table


def test_the_base_model():
    """63 million: the vocabulary that the paper names, of about 37,000 tokens, gives 2 million less than its table."""
    model = models.Transformer(37_000, kernel_initializer="zeros")
    assert model.count_params() == count(37_000) == 63_082_496
    blocks = (*model.encoder.blocks, *model.decoder.blocks)
    assert len(blocks) == 12
    assert {block.self_attention.weights[0].shape for block in blocks} == {(512, 8, 64)}
