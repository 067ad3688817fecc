"""Attention with heads, positions and what stands around them against Keras 3: values, and weights after training."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import graphc as gx

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype"),
    pytest.mark.filterwarnings("ignore:(?s).*does not support masking"),  # of Keras's own layers within one another
]

rng = np.random.default_rng(5)
X = rng.standard_normal((4, 5, 6)).astype(np.float32)
Y = rng.standard_normal((4, 7, 3)).astype(np.float32)
IMAGES = rng.standard_normal((4, 3, 4, 6)).astype(np.float32)
IDS = rng.integers(1, 9, (4, 5))
IDS[1, 3:] = IDS[2, 1:] = IDS[3, 4] = 0
MASK = rng.random((4, 5, 5)) < 0.6
MASK[:, :, 0] = True
HEADS = (rng.random((4, 2, 5, 5)) < 0.6) | np.eye(5, dtype=bool)
COUNTED = IDS != 0


IN_ORDER = {}
"""Weights of models put together of Keras's layers, by the model's id, in the order that ours has them."""


def attending(make, *, scores=False, memory=False, **said):
    """A model of one attention layer over its inputs: self-attention, or attention to a second input."""

    def build(module):
        x = module.Input((None, 6))
        y = module.Input((None, 3)) if memory else x
        found = make(module.layers)(x, y, return_attention_scores=scores, **said)
        return module.Model([x, y] if memory else x, list(found) if scores else found)

    return build


def with_mask(make, shape):
    def build(module):
        x, mask = module.Input((5, 6)), module.Input(shape, dtype="bool")
        return module.Model([x, mask], make(module.layers)(x, x, attention_mask=mask))

    return build


def over_ids(make, **said):
    """Masks of padding travel from the embedding."""

    def build(module):
        ids = module.Input((None,), dtype="int64")
        x = module.layers.Embedding(9, 6, mask_zero=True)(ids)
        return module.Model(ids, make(module.layers)(x, x, **said))

    return build


def over_images(**said):
    def build(module):
        x = module.Input((3, 4, 6))
        return module.Model(x, module.layers.MultiHeadAttention(2, 4, **said)(x, x))

    return build


def tied(module):
    ids = module.Input((None,), dtype="int64")
    embedding = module.layers.ReversibleEmbedding(9, 6)  # in reverse Keras drops the mask
    return module.Model(ids, embedding(embedding(ids), reverse=True))


def block(kind, first=False, **said):
    """A layer of the encoder or decoder: ours, and Keras's layers put together as the paper says."""

    def build(module):
        x, y = module.Input((None, 6)), module.Input((None, 6))
        layers, decoder = module.layers, kind == "TransformerDecoderLayer"
        if module is gx:
            made = getattr(layers, kind)(8, 2, normalize_first=first, **said)
            return module.Model([x, y], made(x, y) if decoder else made(x))
        rms = said.get("normalization") == "rms"
        norms = [(layers.RMSNormalization if rms else layers.LayerNormalization)(epsilon=1e-5) for _ in range(3)]
        h, one = x, layers.MultiHeadAttention(2, 3)
        two = layers.MultiHeadAttention(2, 3)
        network = [layers.Dense(8, activation=said.get("activation", "relu")), layers.Dense(6)]
        asked = norms[0](h) if first else h
        h = layers.Add()([h, one(asked, asked, use_causal_mask=decoder)])
        h = h if first else norms[0](h)
        if decoder:
            h = layers.Add()([h, two(norms[1](h) if first else h, y)])
            h = h if first else norms[1](h)
        h = layers.Add()([h, network[1](network[0](norms[2](h) if first else h))])
        model = module.Model([x, y], h if first else norms[2](h))
        parts = [one, norms[0], *([two, norms[1]] if decoder else []), *network, norms[2]]
        IN_ORDER[id(model)] = [weight for part in parts for weight in part.weights]
        return model

    return build


def normalizing(name, **said):
    def build(module):
        x = module.Input((5, 6))
        return module.Model(x, getattr(module.layers, name)(**said)(x))

    return build


def heads(**said):
    return lambda layers: layers.MultiHeadAttention(2, 4, **said)


def groups(shared=2, **said):
    return lambda layers: layers.GroupQueryAttention(3, 4, shared, **said)


MODELS = {
    "self": (attending(heads()), X),
    "no bias, values of another size": (attending(heads(use_bias=False, value_dim=3), scores=True), X),
    "output shape": (attending(heads(output_shape=5)), X),
    "output shape of two axes": (attending(heads(output_shape=(2, 3))), X),
    "gate": (attending(heads(use_gate=True)), X),
    "causal": (attending(heads(), use_causal_mask=True), X),
    "causal with weights": (attending(heads(), use_causal_mask=True, scores=True), X),
    "window": (attending(heads(sliding_window=2)), X),
    "causal window": (attending(heads(sliding_window=3), use_causal_mask=True, scores=True), X),
    "cross": (attending(heads(), memory=True), [X, Y]),
    "cross with weights": (attending(heads(value_dim=5), memory=True, scores=True), [X, Y]),
    "a mask": (with_mask(heads(), (5, 5)), [X, MASK]),
    "a mask for each head": (with_mask(heads(), (2, 5, 5)), [X, HEADS]),
    "padding": (over_ids(heads()), IDS),
    "padding, causal": (over_ids(heads(), use_causal_mask=True), IDS),
    "images": (over_images(), IMAGES),
    "images by rows": (over_images(attention_axes=2), IMAGES),
    "images by columns": (over_images(attention_axes=(1,), value_dim=3), IMAGES),
    "groups": (attending(groups()), X),
    "one group": (attending(groups(1), use_causal_mask=True), X),
    "groups with weights": (attending(groups(), use_causal_mask=True, scores=True), X),
    "groups, gate and window": (attending(groups(use_gate=True, sliding_window=2)), X),
    "groups, padding": (over_ids(groups(), use_causal_mask=True), IDS),
    "groups, a mask": (with_mask(groups(), (5, 5)), [X, MASK]),
    "tied embedding": (tied, IDS),
    "layer normalization": (normalizing("LayerNormalization"), X),
    "layer normalization over steps": (normalizing("LayerNormalization", axis=1, epsilon=1e-2), X),
    "layer normalization over both": (normalizing("LayerNormalization", axis=[1, 2], center=False), X),
    "layer normalization without scale": (normalizing("LayerNormalization", scale=False), X),
    "root mean square": (normalizing("RMSNormalization"), X),
    "root mean square over both": (normalizing("RMSNormalization", axis=[1, 2]), X),
    "encoder layer": (block("TransformerEncoderLayer"), [X, X]),
    "encoder layer, pre-norm": (block("TransformerEncoderLayer", True, activation="gelu"), [X, X]),
    "decoder layer": (block("TransformerDecoderLayer"), [X, X[::-1]]),
    "decoder layer, pre-norm": (block("TransformerDecoderLayer", True, normalization="rms"), [X, X[::-1]]),
}  # fmt: skip


def pour(theirs, ours):
    """Weights that are no longer at their first values, the same for both."""
    weights = of_theirs(theirs)
    assert [tuple(w.shape) for w in weights] == [w.shape for w in ours.get_weights()]
    values = [np.asarray(w) + 0.3 * rng.standard_normal(w.shape).astype(np.float32) for w in weights]
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
    ours.set_weights(values)


def of_theirs(model):
    return IN_ORDER.get(id(model), model.weights)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_outputs_and_the_same_training(name):
    build, x = MODELS[name]
    theirs, ours = build(keras), build(gx)
    pour(theirs, ours)
    a = [np.asarray(leaf) for leaf in keras.tree.flatten(theirs.predict(x, verbose=0))]
    b = [np.asarray(leaf) for leaf in keras.tree.flatten(ours.predict(x, verbose=0))]
    counted = COUNTED if x is IDS else np.ones(a[0].shape[:2], bool)
    for found, wanted in zip(b, a, strict=True):
        assert found.shape == wanted.shape
        at = counted if found.shape[:2] == counted.shape else slice(None)
        np.testing.assert_allclose(found[at], wanted[at], rtol=2e-5, atol=3e-6)
    targets = [np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float32) for y in a]
    for module, model in ((keras, theirs), (gx, ours)):
        # Keras gives scores the mask of the attention, which its loss then cannot use: only outputs are learned
        model.compile(module.optimizers.SGD(0.05), ["mse", None][: len(a)])
        said = {"epochs": 10, "batch_size": 2, "shuffle": False, "verbose": 0}
        model.fit(x, targets if len(a) > 1 else targets[0], **said)
    for found, wanted in zip(ours.get_weights(), map(np.asarray, of_theirs(theirs)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["MultiHeadAttention", "GroupQueryAttention", "ReversibleEmbedding"])
def test_arguments_and_their_defaults(name):
    theirs, ours = (inspect.signature(getattr(m.layers, name).__init__).parameters for m in (keras, gx))
    for key, parameter in theirs.items():
        if key != "kwargs":
            assert key in ours, key
            assert ours[key].default == parameter.default, key


@pytest.mark.parametrize("make", [lambda layers: layers.MultiHeadAttention(4, 16),
                                  lambda layers: layers.GroupQueryAttention(16, 4, 2)], ids=["heads", "groups"])  # fmt: skip
def test_first_weights_are_of_the_same_kind(make):
    found = []
    for module in (keras, gx):
        x = module.Input((None, 32))
        found.append(module.Model(x, make(module.layers)(x, x)).get_weights())
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.std(), b.std(), rtol=0.1, atol=1e-6)
