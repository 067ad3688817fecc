"""Dropout in its forms, noise and penalties: what they do to values, moments and losses, and where they do nothing."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, layers
from tests.frontend.running import f32, run_layer

rng = np.random.default_rng(0)

ACTING = [
    (layers.Dropout(0.3), (40, 30)),
    (layers.Dropout(0.3, noise_shape=(None, 1)), (40, 30)),
    (layers.AlphaDropout(0.2), (40, 30)),
    (layers.AlphaDropout(0.2, noise_shape=(None, 1)), (40, 30)),
    (layers.GaussianDropout(0.3), (40, 30)),
    (layers.GaussianNoise(0.5), (40, 30)),
    (layers.SpatialDropout1D(0.5), (40, 3, 4)),
    (layers.SpatialDropout2D(0.5), (40, 3, 2, 4)),
    (layers.SpatialDropout2D(0.5, data_format="channels_first"), (40, 4, 2, 3)),
    (layers.SpatialDropout3D(0.5), (40, 3, 2, 2, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), ACTING, ids=lambda v: type(v).__name__ if hasattr(v, "name") else "")
def test_they_act_in_training_alone(layer, shape):
    x = f32(rng, *shape)
    np.testing.assert_array_equal(run_layer(layer, x), x)
    trained = run_layer(layer, x, training=True)
    assert trained.shape == x.shape
    assert np.mean(trained != x) > 0.2


@pytest.mark.parametrize(
    "layer", [layers.Dropout(0), layers.GaussianDropout(0), layers.GaussianNoise(0), layers.SpatialDropout1D(0)]
)
def test_with_a_rate_of_zero_there_is_nothing_to_do(layer):
    x = gx.placeholder("x", ("batch", 2, 3))
    assert layer(x) is x


def test_the_mask_is_shared_along_axes_of_one():
    x = np.ones((40, 30), np.float32)
    rows = run_layer(layers.Dropout(0.25, noise_shape=(None, 1)), x, training=True)
    assert set(np.unique(rows)) == {0, np.float32(1 / 0.75)}
    assert np.all(rows == rows[:, :1])
    columns = run_layer(layers.Dropout(0.25, noise_shape=(1, 30)), x, training=True)
    assert np.all(columns == columns[:1])
    assert len(np.unique(columns)) == 2


@pytest.mark.parametrize(
    ("layer", "shape", "over"),
    [
        (layers.SpatialDropout1D(0.5), (50, 6, 8), (1,)),
        (layers.SpatialDropout2D(0.5), (50, 3, 2, 8), (1, 2)),
        (layers.SpatialDropout2D(0.5, data_format="channels_first"), (50, 8, 3, 2), (2, 3)),
        (layers.SpatialDropout3D(0.5), (50, 2, 3, 2, 8), (1, 2, 3)),
    ],
)
def test_channels_fall_together(layer, shape, over):
    y = run_layer(layer, np.ones(shape, np.float32), training=True)
    assert set(np.unique(y)) == {0, 2}
    np.testing.assert_array_equal(y.min(over), y.max(over))
    assert 0.35 < np.mean(y == 0) < 0.65


def test_gaussian_dropout_has_the_moments_of_dropout():
    x = np.full((400, 500), 3, np.float32)
    y = run_layer(layers.GaussianDropout(0.2), x, training=True)
    assert abs(y.mean(dtype=float) - 3) < 0.02
    assert abs(y.std(dtype=float) - 3 * np.sqrt(0.25)) < 0.02


def test_gaussian_noise_is_normal():
    y = run_layer(layers.GaussianNoise(0.5), np.zeros((400, 500), np.float32), training=True)
    assert abs(y.mean(dtype=float)) < 0.01
    assert abs(y.std(dtype=float) - 0.5) < 0.01
    assert abs(np.mean(np.abs(y) < 0.5) - 0.6827) < 0.01


def test_alpha_dropout_keeps_mean_and_variance():
    x = f32(rng, 400, 500)
    y = run_layer(layers.AlphaDropout(0.3), x, training=True)
    assert abs(y.mean(dtype=float)) < 0.02
    assert abs(y.std(dtype=float) - 1) < 0.02
    values, counts = np.unique(y, return_counts=True)
    lowest = counts.max()
    assert abs(lowest / y.size - 0.3) < 0.01
    off, rate = 1.0507009873554805 * 1.6732632423543772, 0.3
    scale = ((1 - rate) * (1 + rate * off**2)) ** -0.5
    np.testing.assert_allclose(values[counts.argmax()], scale * (-off + off * rate), rtol=1e-5)


def test_a_penalty_on_what_passes_through():
    x = f32(rng, 8, 3)
    model = Sequential([Input((3,)), layers.ActivityRegularization(l1=0.1, l2=0.2), layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    y = model.predict(x, verbose=0)
    loss = model.evaluate(x, y, batch_size=8, verbose=0)
    np.testing.assert_allclose(loss, (0.1 * np.abs(x).sum() + 0.2 * (x * x).sum()) / 8, rtol=1e-5)


def test_a_model_with_all_of_them_trains_is_saved_and_exported(tmp_path):
    gx.set_seed(3)
    model = Sequential(
        [
            Input((6, 4)), layers.GaussianNoise(0.1), layers.SpatialDropout1D(0.1), layers.Flatten(),
            layers.Dense(16, activation="selu", kernel_initializer="lecun_normal"), layers.AlphaDropout(0.05),
            layers.GaussianDropout(0.05), layers.ActivityRegularization(l2=1e-4),
            layers.Dropout(0.1, noise_shape=(None, 1)), layers.Dense(1),
        ]
    )  # fmt: skip
    x = f32(rng, 64, 6, 4)
    model.compile(optimizer=gx.optimizers.Adam(1e-2), loss="mse")
    losses = model.fit(x, x.sum((1, 2))[:, None], epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
    model.save(tmp_path / "model")
    again = gx.load_model(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    model.export(tmp_path / "train.onnx", training=True)
    assert gx.onnx.verify(tmp_path / "train.onnx", model.programs["train"]).ok


def test_mistakes_are_told():
    x = gx.placeholder("x", ("batch", 4, 3))
    with pytest.raises(gx.AxisError, match=r"rate of GaussianDropout is 1\.0"):
        layers.GaussianDropout(1.0)
    with pytest.raises(gx.AxisError, match="stddev of GaussianNoise is -1"):
        layers.GaussianNoise(-1)
    with pytest.raises(gx.ShapeError, match="does not broadcast"):
        layers.Dropout(0.5, noise_shape=(None, 2, 3))(x)
    with pytest.raises(gx.ShapeError, match="takes 4 axes, its input has 3") as caught:
        layers.SpatialDropout2D(0.5)(x)
    assert "SpatialDropout1D fits" in str(caught.value)
    with pytest.raises(gx.AxisError, match="no data_format is called 'first'"):
        layers.SpatialDropout2D(0.5, data_format="first")
