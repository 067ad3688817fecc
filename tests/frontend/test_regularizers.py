"""Penalties on weights and on outputs."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers, regularizers
from tests.frontend.running import evaluate


def orthogonal(w, factor, mode):
    rows = w if mode == "rows" else w.T
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [abs(unit[i] @ unit[j]) for i in range(len(rows)) for j in range(i)]
    return factor * np.mean(pairs)


REGULARIZERS = {
    "l1": (regularizers.L1(0.3), lambda w: 0.3 * np.abs(w).sum()),
    "l2": (regularizers.L2(0.3), lambda w: 0.3 * (w**2).sum()),
    "l1_l2": (regularizers.L1L2(0.3, 0.2), lambda w: 0.3 * np.abs(w).sum() + 0.2 * (w**2).sum()),
    "none": (regularizers.L1L2(), lambda w: 0.0),
    "rows": (regularizers.OrthogonalRegularizer(0.3), lambda w: orthogonal(w, 0.3, "rows")),
    "columns": (regularizers.OrthogonalRegularizer(0.3, "columns"), lambda w: orthogonal(w, 0.3, "columns")),
}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_penalties_are_their_formulas_and_their_gradients_are_right(name):
    made, rule = REGULARIZERS[name]
    w = np.random.default_rng(0).standard_normal((4, 3))
    node = gx.placeholder("w", w.shape, "float64")
    value, slope = evaluate([made(node), *gx.grad(made(node) + 0.0 * gx.sum(node), [node])], [(node, w)])
    assert value == pytest.approx(rule(w), rel=1e-12)
    along = np.random.default_rng(1).standard_normal(w.shape)
    measured = (rule(w + 1e-6 * along) - rule(w - 1e-6 * along)) / 2e-6
    assert (slope * along).sum() == pytest.approx(measured, rel=1e-6, abs=1e-9)
    assert repr(type(made).from_config(made.get_config())) == repr(made)


def test_rows_of_zeros_give_no_nan():
    w = np.zeros((3, 4))
    w[0, 0] = 1
    node = gx.placeholder("w", w.shape, "float64")
    made = regularizers.OrthogonalRegularizer()
    found = evaluate([made(node), *gx.grad(made(node), [node])], [(node, w)])
    assert all(np.isfinite(array).all() for array in found)
    inf = evaluate([regularizers.L1L2(l2=1.0)(node)], [(node, np.full((3, 4), np.inf))])
    assert inf[0] == np.inf


def fourth_powers(x):
    """A regularizer of the user's."""
    return gx.sum(x * x * x * x)


def test_penalties_on_weights_are_added_to_the_loss():
    gx.set_seed(0)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    y = np.zeros((5, 2), np.float32)
    layer = layers.Dense(2, kernel_regularizer=fourth_powers, bias_regularizer="l2", bias_initializer="ones")
    model = Sequential([Input((3,)), layer])
    model.compile("sgd", "mse", backend="reference")
    kernel, bias = model.get_weights()
    plain = np.mean((x @ kernel + bias) ** 2)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(plain + (kernel**4).sum() + 0.02, rel=1e-5)


@pytest.mark.parametrize("batch", [2, 5])
def test_penalties_on_outputs_are_a_mean_over_the_samples(batch, tmp_path):
    gx.set_seed(0)
    x = np.random.default_rng(0).standard_normal((batch, 3)).astype(np.float32)
    y = np.zeros((batch, 2), np.float32)
    inner = layers.Dense(2, activity_regularizer=regularizers.L2(0.3), activation="tanh")
    model = Sequential([Input((3,)), inner, layers.Activation("linear", activity_regularizer="l1")])
    model.compile(gx.optimizers.SGD(0.5), "mse", backend="reference")
    outputs = model.predict(x, verbose=0)
    wanted = np.mean(outputs**2) + (0.3 * (outputs**2).sum() + 0.01 * np.abs(outputs).sum()) / batch
    assert model.evaluate(x, y, verbose=0) == pytest.approx(wanted, rel=1e-5)
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    assert loaded.train_on_batch(x, y) == model.train_on_batch(x, y) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_a_shared_layer_is_penalized_at_each_call_and_layers_add_losses_of_their_own():
    class Summed(layers.Layer):
        def call(self, x):
            self.add_loss(gx.sum(x) * 2.0)
            return x

    x = np.float32([[1, 2], [3, 4]])
    twice = layers.Activation("linear", activity_regularizer=regularizers.L1(1.0))
    inputs = Input((2,))
    model = Model(inputs, Summed()(twice(twice(inputs))))
    model.compile("sgd", "mse", backend="reference")
    assert model.evaluate(x, x, verbose=0) == pytest.approx(2 * 10 / 2 + 20)


def test_losses_of_a_layer_outside_of_a_model():
    layer = layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l1")
    x = np.ones((4, 3), np.float32)
    node = gx.placeholder("x", ("batch", 3))
    output = layer(node)
    found = evaluate([output, *layer.losses], [(node, x)])
    assert found[1] == pytest.approx(0.01 * (layer.get_weights()[0] ** 2).sum(), rel=1e-5)
    assert found[2] == pytest.approx(0.01 * np.abs(found[0]).sum() / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: regularizers.L1(-1), "l1"),
        (lambda: regularizers.L2(float("nan")), "l2"),
        (lambda: regularizers.L1L2(l2=float("inf")), "l2"),
        (lambda: regularizers.OrthogonalRegularizer(mode="diagonal"), "rows or columns"),
        (lambda: regularizers.OrthogonalRegularizer()(gx.placeholder("w", (3,))), "matrix"),
        (lambda: regularizers.OrthogonalRegularizer()(gx.placeholder("w", (1, 3))), "other mode"),
        (lambda: regularizers.get("l3"), "no regularizer is called 'l3'"),
        (lambda: regularizers.get(0.1), "not a regularizer"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(gx.GraphcError, match="(?s)" + words) as caught:
        make()
    assert "test_regularizers.py:" in str(caught.value)


def test_names():
    assert regularizers.get(None) is None
    assert regularizers.get("OrthogonalRegularizer").mode == "rows"
    assert regularizers.get(regularizers.L1).l1 == 0.01
    both = regularizers.get("l1_l2")
    assert (both.l1, both.l2) == (0.01, 0.01)
