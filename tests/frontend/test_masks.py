"""Masks travel beside nodes through the layers, and reach losses and metrics."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, layers
from tests.frontend.running import f32

rng = np.random.default_rng(0)


class Masked(layers.Layer):
    """Steps whose first value is zero do not count."""

    def compute_mask(self, inputs, previous_mask):
        return gx.not_equal(inputs[:, :, 0], 0.0)

    def call(self, x):
        return x * 1.0


class MaskedMean(layers.Layer):
    def call(self, x, mask=None):
        if mask is None:
            return gx.mean(x, axis=1)
        weight = gx.expand_dims(gx.cast(mask, x.dtype), -1)
        return gx.sum(x * weight, axis=1) / gx.sum(weight, axis=1)


class Blind(layers.Layer):
    def call(self, x):
        return x + 1.0


def padded():
    x = f32(rng, 5, 7, 3)
    x[:, :, 0] = np.abs(x[:, :, 0]) + 0.1
    lengths = np.array([7, 3, 1, 5, 2])
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0
    return x, np.arange(7)[None] < lengths[:, None]


def predict(build, x):
    inputs = Input(x.shape[1:])
    return Model(inputs, build(inputs)).predict(x, verbose=0)


def test_a_mask_goes_through_layers_that_support_masks():
    x, mask = padded()
    got = predict(lambda s: MaskedMean()(layers.Dropout(0.5)(layers.Activation("tanh")(Masked()(s)))), x)
    want = (np.tanh(x) * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_layer_that_does_not_know_masks_drops_them_and_says_so():
    x, _ = padded()
    with pytest.warns(UserWarning, match="'blind' got a mask"):
        got = predict(lambda s: MaskedMean()(Blind()(Masked()(s))), x)
    np.testing.assert_allclose(got, (x + 1).mean(1), rtol=1e-5, atol=1e-6)


def test_masks_go_through_layers_that_hold_layers():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.masked, self.mean = Masked(), MaskedMean()

        def call(self, x):
            return self.mean(layers.Identity(name="between")(self.masked(x)))

    x, mask = padded()
    np.testing.assert_allclose(
        predict(lambda s: Outer()(s), x), (x * mask[..., None]).sum(1) / mask.sum(1)[:, None], rtol=1e-5, atol=1e-6
    )


def test_masks_of_merged_inputs():
    """A sum counts where any of its terms does, and so does a concatenation of features; one of steps joins masks."""
    x, mask = padded()
    other = x.copy()
    other[:, 2] = 0
    both = mask.copy()
    both[:, 2] = False

    def merged(layer):
        a, b = Input(x.shape[1:]), Input(x.shape[1:])
        model = Model([a, b], MaskedMean()(layer([Masked()(a), Masked()(b)])))
        return model.predict([x, other], verbose=0)

    want = ((x + other) * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    np.testing.assert_allclose(merged(layers.Add()), want, rtol=1e-5, atol=1e-6)
    joined = np.concatenate([x, other], -1)
    want = (joined * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    np.testing.assert_allclose(merged(layers.Concatenate()), want, rtol=1e-5, atol=1e-6)
    joined = np.concatenate([x, other], 1)
    steps = np.concatenate([mask, both], 1)
    want = (joined * steps[..., None]).sum(1) / steps.sum(1)[:, None]
    np.testing.assert_allclose(merged(layers.Concatenate(axis=1)), want, rtol=1e-5, atol=1e-6)


def test_softmax_gives_masked_places_no_weight():
    x = f32(rng, 4, 5)
    mask = rng.random((4, 5)) < 0.6
    mask[:, 0] = True
    node, where = gx.placeholder("x", ("batch", 5)), gx.placeholder("m", ("batch", 5), "bool")
    program = gx.compile({"y": layers.Softmax()(node, mask=where)}, [node, where], backend="reference")
    got = program(x=x, m=mask)["y"]
    e = np.exp(x) * mask
    np.testing.assert_allclose(got, e / e.sum(-1, keepdims=True), rtol=1e-5, atol=1e-7)


def test_the_mask_of_an_output_weighs_its_loss_and_metrics():
    x, mask = padded()
    y = (x[..., 1] > 0).astype(np.int64)
    inputs = Input(x.shape[1:])
    model = Model(inputs, layers.Dense(2)(Masked()(inputs)))
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], backend="reference")
    logits = model.predict(x, verbose=0).astype(float)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows = -np.log(np.take_along_axis(p, y[..., None], -1))[..., 0]
    logs = model.test_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(rows[mask].mean(), rel=1e-5)
    assert logs["accuracy"] == pytest.approx((logits.argmax(-1) == y)[mask].mean(), rel=1e-6)
