"""Callbacks that decide by results, against Keras 3: the same results, the same decisions.

Results are tenths and the delta is none, so that no comparison hangs on the last bit: Keras compares in float32.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from graphc import callbacks

pytestmark = pytest.mark.keras

rng = np.random.default_rng(3)


class Fake:
    """What a callback asks of a model."""

    def __init__(self):
        self.epoch = -1
        self.saved: list[int] = []
        self.stop_training = False
        self.restored = None
        self.running = None

    def get_weights(self):
        return [self.epoch]

    def set_weights(self, weights):
        (self.restored,) = weights

    def save(self, path, overwrite=True):
        self.saved.append(self.epoch)

    def direction_of(self, key):
        return "up" if key == "accuracy" else None


def run(callback, results, monitor):
    model = Fake()
    callback.set_model(model)
    callback.set_params({"epochs": len(results), "steps": 1, "verbose": 0})
    callback.on_train_begin()
    for epoch, value in enumerate(results):
        model.epoch = epoch
        callback.on_epoch_end(epoch, {monitor: float(value)})
        if model.stop_training:
            break
    callback.on_train_end()
    return model


@pytest.mark.parametrize(
    ("patience", "min_delta", "mode", "baseline", "restore", "start"),
    list(itertools.product((0, 1, 3), (0, 0.25), ("min", "max"), (None, 0.3), (False, True), (0, 3))),
)
def test_early_stopping_decides_as_keras_does(patience, min_delta, mode, baseline, restore, start):
    arguments = {"monitor": "val_loss", "patience": patience, "min_delta": min_delta, "mode": mode,
                 "baseline": baseline, "restore_best_weights": restore, "start_from_epoch": start}  # fmt: skip
    for _ in range(12):
        results = rng.normal(0.5, 0.5, 12).round(1)
        ours, theirs = callbacks.EarlyStopping(**arguments), keras.callbacks.EarlyStopping(**arguments)
        a, b = run(ours, results, "val_loss"), run(theirs, results, "val_loss")
        assert (a.epoch, a.stop_training, a.restored) == (b.epoch, b.stop_training, b.restored)
        assert (ours.stopped_epoch, ours.best) == (theirs.stopped_epoch, theirs.best)
        if restore:
            assert ours.best_epoch == theirs.best_epoch


@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "auto"), ("accuracy", "max"), ("accuracy", "min")])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_checkpoints_are_written_when_keras_writes_them(monitor, mode, threshold, tmp_path):
    arguments = {"monitor": monitor, "mode": mode, "save_best_only": True, "initial_value_threshold": threshold}
    for _ in range(12):
        results = rng.normal(0.5, 0.5, 12).round(1)
        ours = callbacks.ModelCheckpoint(str(tmp_path / "best"), **arguments)
        theirs = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), **arguments)
        assert run(ours, results, monitor).saved == run(theirs, results, monitor).saved


@pytest.mark.parametrize("name", ["EarlyStopping", "ModelCheckpoint", "BackupAndRestore", "CSVLogger"])
def test_arguments_and_defaults_are_those_of_keras(name):
    import inspect

    ours, theirs = (
        inspect.signature(getattr(module, name).__init__).parameters for module in (callbacks, keras.callbacks)
    )
    assert list(ours) == list(theirs)
    assert {key: value.default for key, value in ours.items()} == {key: value.default for key, value in theirs.items()}
