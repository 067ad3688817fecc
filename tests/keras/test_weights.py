"""Weights of samples and classes in training and evaluation, against Keras 3."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import graphc as gx

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

rng = np.random.default_rng(7)
X = rng.standard_normal((24, 5)).astype(np.float32)
Y = rng.integers(0, 3, 24)
W = rng.uniform(0, 3, 24).astype(np.float32)
SPARSE = "sparse_categorical_crossentropy"


def models():
    """The same model twice: Keras's and ours."""
    theirs = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3, activation="softmax")]
    )
    ours = gx.Sequential(
        [gx.Input((5,)), gx.layers.Dense(4, activation="tanh"), gx.layers.Dense(3, activation="softmax")]
    )
    ours.set_weights(theirs.get_weights())
    for module, model in ((keras, theirs), (gx, ours)):
        model.compile(module.optimizers.SGD(0.1), SPARSE, metrics=["accuracy"], weighted_metrics=["accuracy", SPARSE])
    return theirs, ours


def same_weights(theirs, ours):
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)


def same_logs(theirs, ours):
    assert set(theirs) == set(ours)
    for key in theirs:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    "given", [{}, {"sample_weight": W}, {"class_weight": {0: 0.5, 2: 4.0}}, {"sample_weight": W[:, None]}]
)
def test_training_with_weights(given):
    theirs, ours = models()
    said = {"epochs": 3, "batch_size": 10, "shuffle": False, "verbose": 0, "validation_data": (X[:9], Y[:9], W[3:12])}
    a, b = theirs.fit(X, Y, **said, **given).history, ours.fit(X, Y, **said, **given).history
    same_logs(a, b)
    same_weights(theirs, ours)
    weight = given.get("sample_weight")
    same_logs(
        theirs.evaluate(X, Y, batch_size=7, verbose=0, sample_weight=weight, return_dict=True),
        ours.evaluate(X, Y, batch_size=7, verbose=0, sample_weight=weight, return_dict=True),
    )


def test_single_batches_with_weights():
    theirs, ours = models()
    for _ in range(3):
        a = theirs.train_on_batch(X, Y, sample_weight=W, return_dict=True)
        same_logs(a, ours.train_on_batch(X, Y, sample_weight=W, return_dict=True))
        a = theirs.train_on_batch(X, Y, class_weight={1: 3.0}, return_dict=True)
        same_logs(a, ours.train_on_batch(X, Y, class_weight={1: 3.0}, return_dict=True))
        a = theirs.test_on_batch(X, Y, sample_weight=W, return_dict=True)
        same_logs(a, ours.test_on_batch(X, Y, sample_weight=W, return_dict=True))
    same_weights(theirs, ours)


def test_batches_that_bring_their_weights():
    theirs, ours = models()

    def batches():
        for start in range(0, 24, 8):
            yield X[start : start + 8], Y[start : start + 8], W[start : start + 8]

    same_logs(
        theirs.fit(batches(), steps_per_epoch=3, shuffle=False, verbose=0).history,
        ours.fit(batches(), verbose=0).history,
    )
    same_weights(theirs, ours)


def test_several_outputs_with_weights_of_losses_and_samples():
    made = []
    for module in (keras, gx):
        x = module.Input((5,))
        hidden = module.layers.Dense(4, activation="tanh", name="hidden")(x)
        outputs = [module.layers.Dense(2, name="a")(hidden), module.layers.Dense(1, name="b")(hidden)]
        model = module.Model(x, outputs)
        model.compile(
            module.optimizers.SGD(0.05), ["mse", "mae"], loss_weights=[0.5, 2.0],
            metrics=[["mae"], ["mse"]], weighted_metrics=[["mse"], []],
        )  # fmt: skip
        made.append(model)
    theirs, ours = made
    ours.set_weights(theirs.get_weights())
    y = [rng.standard_normal((24, 2)).astype(np.float32), rng.standard_normal((24, 1)).astype(np.float32)]
    for weight in (None, W, [W, W[::-1].copy()]):
        said = {"epochs": 2, "batch_size": 9, "shuffle": False, "verbose": 0, "sample_weight": weight}
        if isinstance(weight, list):
            said["sample_weight"] = weight
        elif weight is not None:
            said["sample_weight"] = [weight, weight]
        a, b = theirs.fit(X, y, **said).history, ours.fit(X, y, **{**said, "sample_weight": weight}).history
        assert set(a) == set(b)
        for key in a:
            np.testing.assert_allclose(b[key], a[key], rtol=1e-5, err_msg=key)
    same_weights(theirs, ours)


class Masking(gx.layers.Layer):
    supports_masking = True

    def call(self, x):
        return x * 1.0

    def compute_mask(self, inputs, previous_mask):
        return gx.any(gx.not_equal(inputs, 0.0), axis=-1)


@pytest.mark.parametrize("weight", [W, np.repeat(W[:, None], 6, 1) * rng.random((24, 6)).astype(np.float32)])
def test_weights_of_steps_and_masks(weight):
    x = rng.standard_normal((24, 6, 5)).astype(np.float32)
    x[:, -2:] = 0
    x[3:9, 2:] = 0
    labels = rng.integers(0, 3, (24, 6))
    made = []
    for module, masking in ((keras, keras.layers.Masking()), (gx, Masking())):
        inputs = module.Input((6, 5))
        model = module.Model(inputs, module.layers.Dense(3, activation="softmax")(masking(inputs)))
        model.compile(module.optimizers.SGD(0.1), SPARSE, metrics=["accuracy"], weighted_metrics=["accuracy"])
        made.append(model)
    theirs, ours = made
    ours.set_weights(theirs.get_weights())
    said = {"epochs": 2, "batch_size": 10, "shuffle": False, "verbose": 0}
    given = weight if weight.ndim == 2 else np.repeat(weight[:, None], 6, 1)  # Keras does not broadcast along time
    a = theirs.fit(x, labels, sample_weight=given, **said).history
    b = ours.fit(x, labels, sample_weight=weight, **said).history
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-5)  # in training Keras's metrics lose the mask on JAX
    same_weights(theirs, ours)
    same_logs(
        theirs.evaluate(x, labels, sample_weight=given, verbose=0, return_dict=True),
        ours.evaluate(x, labels, sample_weight=weight, verbose=0, return_dict=True),
    )
