"""A model predicts and evaluates by its present weights, however they came to be what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gx
from graphc import layers

rng = np.random.default_rng(0)
X = rng.standard_normal((12, 5, 5, 3)).astype(np.float32)
Y = rng.standard_normal((12, 2)).astype(np.float32)


def network(seed: int, backend: str = "numba") -> gx.Sequential:
    """With weights that are folded, packed in another order, and read as they are."""
    gx.set_seed(seed)
    model = gx.Sequential([
        gx.Input((5, 5, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Activation("relu"),
        layers.Conv2D(4, 2, groups=2), layers.BatchNormalization(scale=False), layers.Flatten(), layers.Dense(2),
    ])  # fmt: skip
    model.compile(optimizer=gx.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5), loss="mse", backend=backend)
    return model


def poured(source: gx.Sequential, target: gx.Sequential) -> None:
    for old, new in zip(source.weights, target.weights, strict=True):
        new.value = old.value


def load(model: gx.Sequential, folder: Path) -> None:
    other = network(7)
    other.save_weights(folder / "w.safetensors")
    model.load_weights(folder / "w.safetensors")


CHANGES: dict[str, Callable[[gx.Sequential, Path], object]] = {
    "load_weights": load,
    "set_weights": lambda model, _: model.set_weights([w.value * 0.5 + 0.1 for w in model.weights]),
    "a layer's own": lambda model, _: model.layers[-1].set_weights([w.value + 1 for w in model.layers[-1].weights]),
    "statistics alone": lambda model, _: setattr(model.layers[1].moving_variance, "value", np.full(4, 0.3)),
    "train_on_batch": lambda model, _: model.train_on_batch(X[:4], Y[:4]),
    "fit": lambda model, _: model.fit(X, Y, batch_size=5, epochs=2, verbose=0),
    "fit with the rest frozen": lambda model, _: (model.layers[0].freeze(), model.fit(X, Y, epochs=1, verbose=0)),
    "averages of weights": lambda model, _: model.optimizer.finalize_variable_values(model.trainable_weights),
}


@pytest.fixture(scope="module")
def models() -> tuple[gx.Sequential, gx.Sequential]:
    return network(1), network(1, "reference")


@pytest.mark.parametrize("change", CHANGES)
def test_predictions_follow(models, change, tmp_path):
    model, judge = models
    model.predict(X, verbose=0)
    CHANGES[change](model, tmp_path)
    poured(model, judge)
    assert model.programs["predict"].prepared
    np.testing.assert_allclose(model.predict(X, verbose=0), judge.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(X[:3]), judge.predict_on_batch(X[:3]), rtol=1e-4, atol=1e-5)


def test_validation_while_training_sees_each_epoch():
    histories = []
    for backend in ("numba", "reference"):
        model = network(3, backend)
        histories.append(
            model.fit(X, Y, validation_data=(X[:6], Y[:6]), batch_size=4, epochs=3, verbose=0, shuffle=False).history
        )
    for key, wanted in histories[1].items():
        np.testing.assert_allclose(histories[0][key], wanted, rtol=1e-4, err_msg=key)
