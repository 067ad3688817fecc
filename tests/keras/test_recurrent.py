"""Recurrent layers, embeddings, masks and attention against Keras 3: values, and weights after training."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import graphc as gx

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

rng = np.random.default_rng(3)
X = rng.standard_normal((6, 5, 3)).astype(np.float32)
PADDED = X.copy()
for row, length in zip(PADDED, (5, 3, 1, 4, 2, 5), strict=True):
    row[length:] = 0
HOLES = PADDED.copy()
HOLES[0, 1:3] = HOLES[3, 0] = 0
FILM = rng.standard_normal((6, 5, 4, 3)).astype(np.float32)
IDS = rng.integers(1, 7, (6, 5))
IDS[1, 3:] = IDS[2, 1:] = IDS[4, 0] = 0


def over(layer, masked=False):
    """A model of one recurrent layer, over padded sequences or plain ones."""

    def build(module):
        inputs = module.Input((None, 3))
        x = module.layers.Masking()(inputs) if masked else inputs
        return module.Model(inputs, layer(module.layers)(x))

    return build


def stateful(kind, **said):
    def build(module):
        inputs = module.Input((5, 3), batch_size=6)
        layer = getattr(module.layers, kind.split()[0])(4, stateful=True, return_sequences=True, **said)
        return module.Model(inputs, (module.layers.Bidirectional(layer) if "both ways" in kind else layer)(inputs))

    return build


def given_states(layer, count):
    """A layer that begins with states that are made of the inputs."""

    def build(module):
        inputs = module.Input((None, 3))
        last = module.layers.GlobalAveragePooling1D()(inputs)
        states = [module.layers.Dense(4, activation="tanh")(last) for _ in range(count)]
        return module.Model(inputs, layer(module.layers)(inputs, initial_state=states if count > 1 else states[0]))

    return build


def ending(kind, **said):
    return lambda layers: getattr(layers, kind)(4, return_state=True, **said)


def frames(module):
    """A convolution of each frame of a film, and a recurrent layer over what it sees."""
    layers = module.layers
    inputs = module.Input((None, 4, 3))
    seen = layers.TimeDistributed(layers.Conv1D(5, 2, activation="relu"))(inputs)
    seen = layers.TimeDistributed(layers.Flatten())(layers.TimeDistributed(layers.MaxPooling1D(2))(seen))
    return module.Model(inputs, layers.TimeDistributed(layers.Dense(2))(layers.LSTM(4, return_sequences=True)(seen)))


def stacked(module):
    layers = module.layers
    return module.Sequential(
        [
            module.Input((None,), dtype="int32"),
            layers.Embedding(7, 4, mask_zero=True),
            layers.GRU(4, return_sequences=True),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.SimpleRNN(5),
            layers.Dense(2),
        ]
    )


def encoder_decoder(module):
    """States of one layer begin another, and attention looks back."""
    layers = module.layers
    inputs = module.Input((None, 3))
    sequence, h, c = layers.LSTM(4, return_sequences=True, return_state=True)(layers.Masking()(inputs))
    decoded = layers.LSTM(4, return_sequences=True)(layers.RepeatVector(3)(h), initial_state=[h, c])
    context = layers.Attention(use_scale=True)([decoded, sequence])
    return module.Model(inputs, layers.TimeDistributed(layers.Dense(2))(layers.Concatenate()([decoded, context])))


def attention(name, causal=False, **said):
    def build(module):
        inputs = module.Input((None, 3))
        x = module.layers.Masking()(inputs)
        query = module.layers.Dense(4)(x)
        value = module.layers.Dense(4)(x)
        layer = getattr(module.layers, name)(**said)
        context, scores = layer([query, value], return_attention_scores=True, use_causal_mask=causal)
        return module.Model(inputs, [context, scores])

    return build


KINDS = {"SimpleRNN": {}, "LSTM": {}, "GRU": {}, "GRU before": {"reset_after": False}}
MODELS = {}
for name, said in KINDS.items():
    kind = name.split()[0]
    for label, more in {
        "": {},
        " sequences": {"return_sequences": True},
        " state": {"return_state": True, "return_sequences": True},
        " backwards": {"go_backwards": True, "return_sequences": True},
        " last state": {"go_backwards": True, "return_state": True},
        " no bias": {"use_bias": False, "activation": "relu", "bias_initializer": "ones"},
    }.items():
        for masked in {"": (True,), " no bias": (False,), " last state": (True,)}.get(label, (False, True)):
            MODELS[f"{name}{label}{' masked' * masked}"] = (
                over(lambda layers, kind=kind, all=said | more: getattr(layers, kind)(4, **all), masked),
                HOLES if masked else X,
            )
    for mode in ("concat", "sum", "mul", "ave", None):
        MODELS[f"both ways {name} {mode}"] = (
            over(
                lambda layers, kind=kind, said=said, mode=mode: layers.Bidirectional(
                    getattr(layers, kind)(4, return_sequences=mode != "ave", return_state=mode == "sum", **said), mode
                ),
                masked=mode in ("concat", "mul"),
            ),
            HOLES,
        )
MODELS |= {
    "zeros where masked": (over(lambda layers: layers.RNN(layers.GRUCell(4), return_sequences=True,
                                                          zero_output_for_mask=True), True), HOLES),
    "zeros at the end": (over(lambda layers: layers.RNN(layers.GRUCell(4), zero_output_for_mask=True), True), HOLES),
    **{f"states given to {name}": (given_states(ending(name.split()[0], **said), 1 + (name == "LSTM")), X)
       for name, said in KINDS.items()},
    "states given both ways": (given_states(lambda layers: layers.Bidirectional(
        layers.LSTM(4, return_sequences=True, return_state=True)), 4), X),
    "another layer for the way back": (over(lambda layers: layers.Bidirectional(
        layers.LSTM(4, return_sequences=True), backward_layer=layers.GRU(2, return_sequences=True, go_backwards=True)),
        True), HOLES),
    "frames of a film": (frames, FILM),
    "stacked cells": (over(lambda layers: layers.RNN(layers.StackedRNNCells(
        [layers.LSTMCell(4), layers.GRUCell(2), layers.SimpleRNNCell(5)]), return_sequences=True), True), HOLES),
    "a list of cells": (over(lambda layers: layers.RNN([layers.LSTMCell(4), layers.LSTMCell(4)])), X),
    "all kinds in one": (stacked, IDS),
    "encoder and decoder": (encoder_decoder, PADDED),
    "attention": (attention("Attention"), PADDED),
    "attention, scaled": (attention("Attention", use_scale=True), PADDED),
    "attention, concat": (attention("Attention", score_mode="concat", use_scale=True), PADDED),
    "attention, causal": (attention("Attention", causal=True), PADDED),
    "additive attention": (attention("AdditiveAttention"), PADDED),
    "additive attention, no scale": (attention("AdditiveAttention", use_scale=False, causal=True), PADDED),
}  # fmt: skip


def arrays(values):
    return [np.asarray(leaf) for leaf in keras.tree.flatten(values)]


def pour(theirs, ours):
    """Weights that are no longer at their first values, the same for both."""
    values = [np.asarray(w) + 0.1 * rng.standard_normal(w.shape).astype(np.float32) for w in theirs.get_weights()]
    theirs.set_weights(values)
    ours.set_weights(values)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_outputs_and_the_same_training(name):
    build, x = MODELS[name]
    theirs, ours = build(keras), build(gx)
    assert [w.shape for w in theirs.get_weights()] == [w.shape for w in ours.get_weights()]
    pour(theirs, ours)
    a, b = arrays(theirs.predict(x, verbose=0)), arrays(ours.predict(x, verbose=0))
    for found, wanted in zip(b, a, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
    targets = [np.cos(np.arange(y.size)).reshape(y.shape).astype(np.float32) for y in a]
    for module, model in ((keras, theirs), (gx, ours)):
        model.compile(module.optimizers.SGD(0.1), ["mse"] * len(a))
        model.fit(x, targets if len(a) > 1 else targets[0], epochs=10, batch_size=3, shuffle=False, verbose=0)
    for found, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


STATEFUL = {
    "SimpleRNN": {}, "LSTM": {}, "GRU": {}, "GRU before": {"reset_after": False}, "LSTM back": {"go_backwards": True},
    "GRU both ways": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", STATEFUL)
def test_states_pass_from_batch_to_batch(kind):
    theirs, ours = (stateful(kind, **STATEFUL[kind])(module) for module in (keras, gx))
    pour(theirs, ours)
    for number in range(6):
        if number == 3:
            for model in (theirs, ours):
                model.layers[-1].reset_state()
        x = rng.standard_normal((6, 5, 3)).astype(np.float32)
        wanted = np.asarray(theirs(x))  # on JAX, Keras's predict forgets the states
        np.testing.assert_allclose(ours.predict(x, verbose=0), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_first_weights_are_of_the_same_kind(name):
    shapes = [getattr(module.layers, name)(64) for module in (keras, gx)]
    for module, layer in zip((keras, gx), shapes, strict=True):
        module.Model(inputs := module.Input((None, 32)), layer(inputs))
    for a, b in zip(shapes[0].get_weights(), shapes[1].get_weights(), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.std(), b.std(), rtol=0.05, atol=1e-6)
        np.testing.assert_allclose(a.mean(), b.mean(), atol=0.01)


@pytest.mark.parametrize(
    "name",
    ["Embedding", "Masking", "SimpleRNNCell", "LSTMCell", "GRUCell", "StackedRNNCells", "RNN", "SimpleRNN", "LSTM", "GRU",
     "Bidirectional", "TimeDistributed", "RepeatVector", "Attention", "AdditiveAttention"],
)  # fmt: skip
def test_arguments_and_their_defaults(name):
    """All of Keras's arguments but those that choose its devices and files."""
    theirs, ours = (inspect.signature(getattr(m.layers, name).__init__).parameters for m in (keras, gx))
    absent = {"use_cudnn", "lora_rank", "lora_alpha", "quantization_config", "kwargs"}
    for key, parameter in theirs.items():
        if key not in absent:
            assert key in ours, key
            assert ours[key].default == parameter.default, key
