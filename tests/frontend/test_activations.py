"""Activations by Keras's names, with Keras's defaults, and the layers that are activations."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, activations, layers
from tests.frontend.running import evaluate, f32, placeholder_for, run_layer

rng = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sparsemax(x):
    ordered = -np.sort(-x, axis=-1)
    thresholds = (np.cumsum(ordered, axis=-1) - 1) / np.arange(1, x.shape[-1] + 1)
    return np.maximum(x - thresholds.max(-1, keepdims=True), 0)


BY_NAME = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.05070098 * np.where(x > 0, x, 1.67326324 * (np.exp(x) - 1)),
    "celu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "log_sigmoid": lambda x: np.log(sigmoid(x)),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
    "sparsemax": sparsemax,
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "sparse_plus": lambda x: np.where(x <= -1, 0, np.where(x < 1, 0.25 * (x + 1) ** 2, x)),
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "glu": lambda x: x[..., :2] * sigmoid(x[..., 2:]),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_activations_by_name(name):
    x = 3 * f32(rng, 5, 4)
    got = run_layer(layers.Activation(name), x)
    np.testing.assert_allclose(got, BY_NAME[name](x.astype(np.float64)), rtol=2e-6, atol=2e-6)


def test_activations_take_keras_arguments():
    x = 3 * f32(rng, 5, 4)
    node = placeholder_for("x", x)
    outputs = [
        activations.leaky_relu(node, negative_slope=0.1), activations.elu(node, alpha=0.5),
        activations.celu(node, alpha=2.0), activations.gelu(node, approximate=True),
        activations.threshold(node, threshold=0.5, default_value=-1.0), activations.squareplus(node, b=1),
    ]  # fmt: skip
    wanted = [
        np.where(x > 0, x, 0.1 * x), np.where(x > 0, x, 0.5 * (np.exp(x) - 1)),
        np.where(x > 0, x, 2 * (np.exp(x / 2) - 1)), x * sigmoid(1.5957691216 * (x + 0.044715 * x**3)),
        np.where(x > 0.5, x, -1), (x + np.sqrt(x * x + 1)) / 2,
    ]  # fmt: skip
    for result, expected in zip(evaluate(outputs, [(node, x)]), wanted, strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-6)


def test_activation_layers():
    x = f32(rng, 4, 3)
    np.testing.assert_allclose(run_layer(layers.LeakyReLU(), x), np.where(x > 0, x, 0.3 * x), rtol=1e-6)
    np.testing.assert_allclose(run_layer(layers.LeakyReLU(0.01), x), np.where(x > 0, x, 0.01 * x), rtol=1e-6)
    np.testing.assert_allclose(run_layer(layers.ELU(0.5), x), np.where(x > 0, x, 0.5 * np.expm1(x)), rtol=1e-5)


@pytest.mark.parametrize(
    ("shared", "shape"), [(None, (4, 5, 3)), ((1, 2), (1, 1, 3)), (1, (1, 5, 3)), ((-1, 2), (4, 1, 1))]
)
def test_slopes_are_shared_along_axes(shared, shape):
    x = f32(rng, 2, 4, 5, 3)
    layer = layers.PReLU(alpha_initializer="glorot_uniform", shared_axes=shared)
    got = run_layer(layer, x)
    (alpha,) = layer.get_weights()
    assert alpha.shape == shape
    assert np.ptp(alpha) > 0
    np.testing.assert_allclose(got, np.where(x > 0, x, alpha * x), rtol=1e-6)


def test_slopes_are_learned_saved_and_exported(tmp_path):
    gx.set_seed(0)
    x = f32(rng, 64, 4)
    model = Sequential([Input((4,)), layers.PReLU(name="bend"), layers.Dense(8), layers.LeakyReLU(), layers.Dense(1)])
    model.compile(optimizer=gx.optimizers.Adam(3e-2), loss="mse")
    losses = model.fit(x, np.abs(x).sum(1, keepdims=True), epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]
    assert np.all(np.abs(model.get_weights()[0]) > 0.01)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(gx.load_model(tmp_path / "model").predict(x, verbose=0), model.predict(x, verbose=0))
    model.export(tmp_path / "model.onnx")
    assert gx.onnx.verify(tmp_path / "model.onnx", model.programs["predict"]).ok


def test_slopes_are_held_by_a_constraint():
    gx.set_seed(0)
    x = f32(rng, 32, 4)
    model = Sequential([Input((4,)), layers.PReLU(alpha_constraint="non_neg")])
    model.compile(optimizer=gx.optimizers.SGD(0.5), loss="mse")
    model.fit(x, np.abs(x), epochs=5, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], 0)


def test_slopes_need_known_sizes():
    with pytest.raises(gx.ShapeError, match="needs a slope for each place") as caught:
        layers.PReLU()(gx.placeholder("x", ("batch", "time", 3)))
    assert "shared_axes=(1,)" in str(caught.value)
    with pytest.raises(gx.AxisError, match="axis 0 is the batch"):
        layers.PReLU(shared_axes=0)(gx.placeholder("x", ("batch", 3)))
    with pytest.raises(gx.AxisError, match="axis 2 of 2"):
        layers.PReLU(shared_axes=2)(gx.placeholder("x", ("batch", 3)))
