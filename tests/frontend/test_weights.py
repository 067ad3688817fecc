"""Weights of samples, steps and classes in training and evaluation, against the formula by hand."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers

rng = np.random.default_rng(6)
X, Y = rng.standard_normal((12, 3)).astype(np.float32), rng.standard_normal((12, 2)).astype(np.float32)
W = rng.uniform(0, 2, 12).astype(np.float32)
RATE = 0.1


def linear(loss="mse", **kwargs):
    model = gx.Sequential([gx.Input((3,)), layers.Dense(2, use_bias=False, name="out")])
    model.compile(gx.optimizers.SGD(RATE), loss, backend="reference", **kwargs)
    return model


def descend(kernel, weight):
    """One step of gradient descent on the weighted squared error, in double precision."""
    error = (X.astype(np.float64) @ kernel - Y) * weight[:, None]
    return kernel - RATE * X.T.astype(np.float64) @ error * 2 / Y.size


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_a_step_with_weights_is_the_formula(shape):
    model = linear(weighted_metrics=["mse"], metrics=["mse"])
    (kernel,) = model.get_weights()
    rows = ((X @ kernel - Y) ** 2).mean(-1)
    logs = model.train_on_batch(X, Y, sample_weight=W.reshape(shape), return_dict=True)
    assert logs["loss"] == pytest.approx((rows * W).mean(), rel=1e-6)
    assert logs["mse"] == pytest.approx(rows.mean(), rel=1e-6)
    assert logs["weighted_mse"] == pytest.approx((rows * W).sum() / W.sum(), rel=1e-6)
    np.testing.assert_allclose(model.get_weights()[0], descend(kernel, W), rtol=2e-6)


def test_weights_follow_their_samples_through_shuffling_splitting_and_batches():
    model = linear(weighted_metrics=["mse"])
    (kernel,) = model.get_weights()
    w = np.where(np.arange(12) % 2, 0.0, 1.0)
    poisoned = np.where(w[:, None] > 0, Y, 1e6)
    model.optimizer.learning_rate = 0.0
    got = model.fit(X, poisoned, batch_size=5, epochs=1, sample_weight=w, validation_split=0.25, verbose=0).history
    rows = ((X @ kernel - Y) ** 2).mean(-1) * w
    assert got["mse"] == pytest.approx([rows[:9].sum() / w[:9].sum()], rel=1e-5)
    assert got["val_mse"] == pytest.approx([rows[9:].sum() / w[9:].sum()], rel=1e-5)
    assert got["val_loss"] == pytest.approx([rows[9:].mean()], rel=1e-5)


def test_classes_with_weights_are_samples_with_weights():
    labels = rng.integers(0, 2, 12)
    table = {0: 0.25, 1: 3.0}
    each = np.array([table[label] for label in labels])
    for y, loss in (
        (labels, "sparse_categorical_crossentropy"), (np.eye(2)[labels], "categorical_crossentropy"),
    ):  # fmt: skip
        first, second = linear(loss), linear(loss)
        second.set_weights(first.get_weights())
        with pytest.warns(UserWarning, match="logits"):
            a = first.fit(X, y, class_weight=table, verbose=0, epochs=2, shuffle=False).history["loss"]
        with pytest.warns(UserWarning, match="logits"):
            b = second.fit(X, y, sample_weight=each, verbose=0, epochs=2, shuffle=False).history["loss"]
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(first.get_weights()[0], second.get_weights()[0])


def test_batches_bring_weights_and_class_weights_apply_to_them():
    model, same = linear(), linear()
    same.set_weights(model.get_weights())
    model.fit([(X[i : i + 4], Y[i : i + 4], W[i : i + 4]) for i in (0, 4, 8)].__iter__(), verbose=0)
    for i in (0, 4, 8):
        same.train_on_batch(X[i : i + 4], Y[i : i + 4], W[i : i + 4])
    np.testing.assert_array_equal(model.get_weights()[0], same.get_weights()[0])
    triple = (X, Y, W)
    assert same.evaluate(*triple[:2], sample_weight=W, verbose=0) == pytest.approx(same.test_on_batch(*triple))


def test_steps_have_weights_of_their_own():
    x, y = rng.standard_normal((4, 5, 3)).astype(np.float32), rng.standard_normal((4, 5, 2)).astype(np.float32)
    inputs = gx.Input((None, 3))
    model = gx.Model(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", "mse", weighted_metrics=["mae"], backend="reference")
    w = rng.random((4, 5))
    p = model.predict(x, verbose=0)
    for given in (w, w[:, :1], w[:, 0]):
        full = np.broadcast_to(given.reshape(4, -1), (4, 5))
        logs = model.test_on_batch(x, y, given, return_dict=True)
        assert logs["loss"] == pytest.approx((((p - y) ** 2).mean(-1) * full).mean(), rel=1e-5)
        assert logs["mae"] == pytest.approx((np.abs(p - y).mean(-1) * full).sum() / full.sum(), rel=1e-5)


def test_weights_of_zero_change_nothing():
    model = linear(weighted_metrics=["mse", "mae"])
    (kernel,) = model.get_weights()
    assert model.train_on_batch(X, Y, sample_weight=np.zeros(12)) == [0, 0, 0]
    np.testing.assert_array_equal(model.get_weights()[0], kernel)


def test_who_gives_no_weights_pays_for_none():
    model = linear(weighted_metrics=["mae"])
    model.fit(X, Y, verbose=0)
    assert len(model.programs["train"].input_names) == 2
    assert "weighted" not in repr(model.programs)
    model.train_on_batch(X, Y, sample_weight=W)
    assert "weighted" in repr(model.programs)
    assert len(model.programs["train"].input_names) == 2


def test_outputs_with_weights_of_their_own():
    inputs = gx.Input((3,))
    model = gx.Model(inputs, [layers.Dense(2, name="a")(inputs), layers.Dense(1, name="b")(inputs)])
    model.compile("sgd", ["mse", "mae"], loss_weights={"a": 0.5, "b": 2.0}, backend="reference")
    y = [Y, Y[:, :1]]
    a, b = model.predict(X, verbose=0)
    parts = ((a - y[0]) ** 2).mean(-1), np.abs(b - y[1]).mean(-1)
    ones = np.ones(12)
    for given, first, second in ((W, W, W), ([W, None], W, ones), ({"b": W}, ones, W), ([ones, W], ones, W)):
        logs = model.test_on_batch(X, y, given, return_dict=True)
        assert logs["a_loss"] == pytest.approx((parts[0] * first).mean(), rel=1e-5)
        assert logs["b_loss"] == pytest.approx((parts[1] * second).mean(), rel=1e-5)
        assert logs["loss"] == pytest.approx(0.5 * logs["a_loss"] + 2 * logs["b_loss"], rel=1e-6)


def test_weighted_metrics_come_back_from_files(tmp_path):
    model = linear(weighted_metrics=["mae"])
    model.save(tmp_path / "m")
    back = gx.load_model(tmp_path / "m")
    assert back.test_on_batch(X, Y, W) == model.test_on_batch(X, Y, W)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sample_weight": W, "class_weight": {0: 1.0}}, "both sample_weight and class_weight"),
        ({"sample_weight": W[:5]}, "12 samples"),
        ({"sample_weight": np.ones((12, 3))}, "one weight for each sample"),
        ({"sample_weight": 2.0}, "one weight for each sample"),
        ({"sample_weight": {"c": W}}, "'c'"),
        ({"class_weight": [1.0, 2.0]}, "dict from class numbers"),
        ({"sample_weight": ["a"] * 12}, "not numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(given, words):
    with pytest.raises(gx.GraphcError) as caught:
        linear().fit(X, Y, verbose=0, **given)
    assert words in str(caught.value)
    assert "test_weights.py" in str(caught.value)
    with pytest.raises(gx.GraphcError, match="triples"):
        linear().fit(iter([(X, Y)]), sample_weight=W, verbose=0)
