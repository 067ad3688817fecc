"""Attention with heads: masks, known results, groups, windows, dropout, messages."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from graphc.lower.memory import layout
from tests.frontend.running import evaluate, f32, run_layer

rng = np.random.default_rng(1)


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def heads_of(layer, x, y, mask=None, rotary=None):
    """Context and weights by the formula, in double precision."""
    q_kernel, q_bias, k_kernel, k_bias, v_kernel, v_bias, o_kernel, o_bias = map(np.float64, layer.get_weights())
    q = np.einsum("btd,dhk->bhtk", x, q_kernel) + q_bias[:, None]
    k = np.einsum("bsd,dhk->bhsk", y, k_kernel) + k_bias[:, None]
    v = np.einsum("bsd,dhk->bhsk", y, v_kernel) + v_bias[:, None]
    k, v = (np.repeat(one, q.shape[1] // one.shape[1], axis=1) for one in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    weights = softmax(np.where(True if mask is None else mask, scores, -1e300))
    return np.einsum("bhtk,hkd->btd", weights @ v, o_kernel) + o_bias, weights


def built(layer, *shapes):
    """The layer with weights that are all random, biases too."""
    layer(*(gx.placeholder(f"p{i}", ("batch", *shape)) for i, shape in enumerate(shapes)))
    layer.set_weights([f32(rng, *w.shape) * 0.5 for w in layer.get_weights()])
    return layer


def attend(layer, x, memory=None, **said):
    """What the layer gives for arrays."""
    feeds = [(gx.placeholder("x", x.shape), x)]
    if memory is not None:
        feeds.append((gx.placeholder("memory", memory.shape), memory))
    found = layer(feeds[0][0], feeds[-1][0], **said)
    return evaluate(list(found) if isinstance(found, tuple) else [found], feeds)


def test_the_causal_mask_of_four_tokens():
    (mask,) = evaluate([layers.causal_mask(4)], [])
    np.testing.assert_array_equal(mask, np.tril(np.ones((4, 4), bool)))
    (wide,) = evaluate([layers.causal_mask(2, 3)], [])
    np.testing.assert_array_equal(wide, [[True, False, False], [True, True, False]])


def test_scores_masked_by_minus_infinity_get_no_weight():
    """The guide's matrix: 0 where a token may look, minus infinity where it is the future."""
    scores = f32(rng, 4, 4)
    future = np.where(np.tril(np.ones((4, 4), bool)), 0, -np.inf).astype(np.float32)
    node = gx.placeholder("s", (4, 4))
    (weights,) = evaluate([gx.softmax(node, axis=-1)], [(node, scores + future)])
    assert np.all(weights[np.triu_indices(4, 1)] == 0)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    assert weights[0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_what_the_formula_says(causal):
    x = f32(rng, 3, 5, 8)
    layer = built(layers.MultiHeadAttention(4, 2, value_dim=3), (5, 8), (5, 8))
    wanted, weights = heads_of(layer, x, x, np.tril(np.ones((5, 5), bool)) if causal else None)
    (alone,) = attend(layer, x, use_causal_mask=causal)
    output, scores = attend(layer, x, use_causal_mask=causal, return_attention_scores=True)
    np.testing.assert_allclose(alone, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.sum(axis=-1), 1, rtol=1e-6)
    assert not causal or np.all(scores[..., np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]] == 0)


def test_queries_and_memory_have_lengths_and_features_of_their_own():
    x, memory = f32(rng, 2, 3, 6), f32(rng, 2, 7, 4)
    layer = built(layers.MultiHeadAttention(2, 5, output_shape=9), (3, 6), (7, 4))
    assert [w.shape for w in layer.weights] == [
        (6, 2, 5), (2, 5), (4, 2, 5), (2, 5), (4, 2, 5), (2, 5), (2, 5, 9), (9,)
    ]  # fmt: skip
    (found,) = attend(layer, x, memory)
    np.testing.assert_allclose(found, heads_of(layer, x, memory)[0], rtol=1e-4, atol=1e-5)


def test_tensors_may_be_given_by_name():
    x, memory = gx.placeholder("x", ("batch", 3, 6)), gx.placeholder("memory", ("batch", 7, 4))
    for call in ({"query": x, "value": memory}, {"value": memory, "query": x}):
        layer = layers.MultiHeadAttention(2, 5)
        assert layer(**call).shape == x.shape
        assert [w.shape[0] for w in layer.weights[::2]] == [6, 4, 4, 2]


@pytest.mark.parametrize("shape", [(3, 5, 5), (3, 1, 5, 5), (3, 4, 5, 5), (1, 5, 5)])
def test_masks_of_all_shapes(shape):
    x, mask = f32(rng, 3, 5, 8), rng.random(shape) < 0.5
    mask[..., 0] = True
    layer = built(layers.MultiHeadAttention(4, 2), (5, 8), (5, 8))
    node, given = gx.placeholder("x", (3, 5, 8)), gx.placeholder("m", shape, "bool")
    outputs = [
        layer(node, node, attention_mask=given),
        *layer(node, node, attention_mask=given, return_attention_scores=True),
    ]
    alone, output, scores = evaluate(outputs, [(node, x), (given, mask)])
    full = mask if mask.ndim == 4 else mask[:, None]
    wanted, weights = heads_of(layer, x, x, full)
    for found in (alone, output):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores, weights, rtol=1e-4, atol=1e-6)
    assert np.all(scores[~np.broadcast_to(full, scores.shape)] == 0)


def test_a_query_that_may_see_nothing_gets_nothing():
    x, mask = f32(rng, 1, 3, 4), np.array([[[True, True, False], [False] * 3, [True] * 3]])
    layer = built(layers.MultiHeadAttention(1, 4), (3, 4), (3, 4))
    node, given = gx.placeholder("x", (1, 3, 4)), gx.placeholder("m", (1, 3, 3), "bool")
    outputs = [
        layer(node, node, attention_mask=given),
        *layer(node, node, attention_mask=given, return_attention_scores=True),
    ]
    alone, output, scores = evaluate(outputs, [(node, x), (given, mask)])
    np.testing.assert_allclose(alone[0, 1], layer.get_weights()[-1], rtol=1e-6)
    np.testing.assert_allclose(alone, output, rtol=1e-4, atol=1e-5)
    assert np.all(scores[0, 0, 1] == 0)


def test_a_padded_row_gives_what_the_row_alone_gives():
    ids = np.array([[3, 1, 2, 0, 0], [1, 2, 3, 4, 1]])
    embedding, layer = layers.Embedding(5, 6, mask_zero=True), layers.MultiHeadAttention(2, 3)

    def found(rows):
        node = gx.placeholder("ids", rows.shape, "int64")
        x = embedding(node)
        y = layer(x, x)
        assert gx.frontend.tracing.mask_of(y) is not None
        return evaluate([y], [(node, rows)])[0]

    np.testing.assert_allclose(found(ids)[0, :3], found(ids[:1, :3])[0], rtol=1e-5, atol=1e-6)


def test_without_positions_the_order_of_words_does_not_matter():
    """To attention alone "dog bites man" is "man bites dog"; with positions it is not."""
    x, order = f32(rng, 1, 3, 8), [2, 1, 0]
    layer = built(layers.MultiHeadAttention(2, 4), (3, 8), (3, 8))
    (plain,), (turned,) = attend(layer, x), attend(layer, x[:, order])
    np.testing.assert_allclose(turned, plain[:, order], rtol=1e-5, atol=1e-6)
    placed = x + run_layer(layers.SinePositionEncoding(), x)
    (plain,), (turned,) = attend(layer, placed), attend(layer, x[:, order] + placed - x)
    assert not np.allclose(turned, plain[:, order], atol=1e-3)


def test_nothing_comes_from_the_future():
    x = f32(rng, 1, 6, 8)
    later = x.copy()
    later[:, 4:] += 1
    layer = built(layers.MultiHeadAttention(2, 4, rotary=1e4), (6, 8), (6, 8))
    (a,), (b,) = attend(layer, x, use_causal_mask=True), attend(layer, later, use_causal_mask=True)
    np.testing.assert_array_equal(a[:, :4], b[:, :4])
    assert not np.allclose(a[:, 4:], b[:, 4:])


def test_a_window_leaves_out_what_is_far():
    layer = built(layers.MultiHeadAttention(2, 4, sliding_window=2), (5, 8), (5, 8))
    _, scores = attend(layer, f32(rng, 1, 5, 8), return_attention_scores=True, use_causal_mask=True)
    assert np.array_equal(scores[0, 0] > 0, np.tril(np.ones((5, 5), bool)) & ~np.tril(np.ones((5, 5), bool), -2))


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_groups_are_heads_with_keys_and_values_repeated(shared):
    x = f32(rng, 2, 5, 8)
    layer = built(layers.GroupQueryAttention(3, 4, shared), (5, 8), (5, 8))
    assert layer.key.weights[0].shape == (8, shared, 3)
    wanted, weights = heads_of(layer, x, x, np.tril(np.ones((5, 5), bool)))
    (alone,) = attend(layer, x, use_causal_mask=True)
    output, scores = attend(layer, x, use_causal_mask=True, return_attention_scores=True)
    for found in (alone, output):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores, weights, rtol=1e-4, atol=1e-6)


def test_rotation_inside_makes_scores_depend_on_distances():
    token = np.repeat(f32(rng, 1, 1, 8), 6, axis=1)
    layer = built(layers.MultiHeadAttention(2, 4, rotary=1e4), (6, 8), (6, 8))
    _, scores = attend(layer, token, return_attention_scores=True)
    ratios = np.log(scores[0, 0, :, 1:] / scores[0, 0, :, :-1])
    for distance in range(-4, 4):
        np.testing.assert_allclose(np.diagonal(ratios, distance), np.diagonal(ratios, distance)[0], atol=2e-5)
    assert np.ptp(ratios) > 1e-3


def test_rotary_true_is_a_base_of_ten_thousand_and_small_bases_are_refused():
    x = f32(rng, 1, 6, 8)
    layer = built(layers.MultiHeadAttention(2, 4, rotary=True), (6, 8), (6, 8))
    same = built(layers.MultiHeadAttention(2, 4, rotary=1e4), (6, 8), (6, 8))
    same.set_weights(layer.get_weights())
    np.testing.assert_array_equal(attend(layer, x)[0], attend(same, x)[0])
    assert layers.MultiHeadAttention(2, 4, rotary=False).rotary is None
    assert layers.TransformerEncoderLayer(8, 2, rotary=True).rotary == 1e4
    with pytest.raises(gx.errors.AxisError, match="give True, or a base above 1"):
        layers.TransformerDecoderLayer(8, 2, rotary=1.0)


def test_a_bias_is_added_to_the_scores_with_and_without_a_mask():
    x, bias, mask = f32(rng, 2, 5, 8), f32(rng, 2, 5, 5), np.tril(np.ones((1, 5, 5), bool))
    layer = built(layers.MultiHeadAttention(2, 4), (5, 8), (5, 8))
    node, added, given = (
        gx.placeholder("x", x.shape),
        gx.placeholder("b", bias.shape),
        gx.placeholder("m", mask.shape, "bool"),
    )
    said = {"attention_bias": added, "attention_mask": given}
    outputs = [layer(node, node, attention_bias=added, use_causal_mask=True), layer(node, node, **said),
               layer(node, node, return_attention_scores=True, **said)[0], layer(node, node)]  # fmt: skip
    causal, masked, slow, without = evaluate(outputs, [(node, x), (added, bias), (given, mask)])
    np.testing.assert_allclose(masked, causal, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(masked, slow, rtol=1e-4, atol=1e-5)
    assert not np.allclose(causal, without, atol=1e-2)


def test_dropout_takes_weights_in_training_only():
    x = np.ones((64, 40, 2), np.float32)
    layer = layers.MultiHeadAttention(1, 2, dropout=0.5, use_bias=False, seed=3)
    quiet = run_layer(layers.Lambda(lambda v: layer(v, v)), x)
    np.testing.assert_allclose(quiet, np.broadcast_to(quiet[0, 0], quiet.shape), rtol=1e-5)
    node = gx.placeholder("x", x.shape)
    (noisy,) = evaluate([layer(node, node)], [(node, x)], training=True, updates=layer.updates)
    factors = noisy[..., 0] / quiet[..., 0]
    assert abs(factors.mean() - 1) < 0.02
    np.testing.assert_allclose(factors.std(), np.sqrt(1 / 40), rtol=0.1)


def test_axes_of_images_can_be_attended_over_one_by_one():
    """Attention along rows is attention in each row by itself."""
    x = f32(rng, 2, 3, 4, 6)
    layer = built(layers.MultiHeadAttention(2, 5, attention_axes=2), (3, 4, 6), (3, 4, 6))
    plain = layers.MultiHeadAttention(2, 5)
    built(plain, (4, 6), (4, 6)).set_weights(layer.get_weights())
    (found,), (rows,) = attend(layer, x), attend(plain, x.reshape(6, 4, 6))
    np.testing.assert_allclose(found, rows.reshape(x.shape), rtol=1e-5, atol=1e-6)
    whole = layers.MultiHeadAttention(2, 5)
    built(whole, (3, 4, 6), (3, 4, 6)).set_weights(layer.get_weights())
    (found,), (flat,) = attend(whole, x), attend(plain, x.reshape(2, 12, 6))
    np.testing.assert_allclose(found, flat.reshape(x.shape), rtol=1e-5, atol=1e-6)


def test_memory_grows_with_the_length_and_not_with_its_square():
    """In training, with the causal mask and padding."""
    x, counted = gx.placeholder("x", (1, "time", 16)), gx.placeholder("counted", (1, "time"), "bool")
    layer = layers.MultiHeadAttention(2, 8)
    loss = gx.mean(gx.square(layer(x, x, value_mask=counted, use_causal_mask=True)))
    gradients = gx.grad(loss, layer.weights)
    program = gx.compile({f"g{i}": g for i, g in enumerate(gradients)}, inputs=[x, counted], backend="numba")
    short, long = (layout(program.plan, {"time": time}).peak_bytes for time in (4096, 8192))
    assert long < 2.1 * short
    assert short < 4 * 4096 * 4096


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: layers.MultiHeadAttention(0, 4), "num_heads of MultiHeadAttention is 0"),
        (lambda: layers.MultiHeadAttention(2, 4, dropout=1.5), "dropout of MultiHeadAttention is 1.5"),
        (lambda: layers.GroupQueryAttention(4, 4, 3), "4 heads of queries cannot share 3"),
        (lambda: layers.MultiHeadAttention(2, 4)(*[gx.placeholder("x", ("batch", 4))] * 2), r"takes \(batch, time, features\)"),
        (lambda: layers.MultiHeadAttention(2, 4, attention_axes=3)(*[gx.placeholder("x", ("batch", 2, 4))] * 2),
         "attention_axes of layer"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(make, says):
    with pytest.raises(gx.GraphcError, match=says) as caught:
        make()
    assert "to do: " in str(caught.value)
