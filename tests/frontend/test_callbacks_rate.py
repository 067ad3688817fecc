"""Callbacks that act on the learning rate and on averaged weights."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, callbacks, layers
from graphc.optimizers import SGD, schedules

X = np.eye(3, dtype=np.float32)
Y = np.float32([[1], [2], [3]])


def made(optimizer):
    gx.set_seed(0)
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile(optimizer, "mse", backend="reference")
    return model


def follow(rule, epochs=3, optimizer=None):
    """The rates in the logs."""
    model = made(optimizer or SGD(0.5))
    return model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[rule]).history["learning_rate"]


def test_the_rate_is_set_at_every_epoch(capsys):
    assert follow(callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))) == [0.1, 0.05, 0.1 / 3]
    assert follow(callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)) == [0.25, 0.125, 0.0625]
    assert capsys.readouterr().out == ""
    follow(callbacks.LearningRateScheduler(lambda epoch: 0.25, verbose=1), epochs=1)
    assert capsys.readouterr().out == "Epoch 1: LearningRateScheduler setting learning rate to 0.25.\n"


def test_schedules_of_the_graph_serve_by_epochs_too():
    assert follow(callbacks.LearningRateScheduler(schedules.StepDecay(0.5, 2, 0.5)), 4) == [0.5, 0.5, 0.25, 0.25]


def test_rates_that_are_none_are_refused():
    with pytest.raises(gx.AxisError, match="returned None for epoch 0"):
        follow(callbacks.LearningRateScheduler(lambda epoch: None))
    with pytest.raises(gx.GraphError, match="schedule"):
        follow(callbacks.LearningRateScheduler(lambda epoch: 0.1), optimizer=SGD(schedules.Constant(0.1)))


def plateau(losses, **options):
    """The rates that results lead to."""
    rule = callbacks.ReduceLROnPlateau(monitor="loss", **options)
    model = made(SGD(1.0))
    rule.set_model(model)
    rule.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        logs = {"loss": loss}
        rule.on_epoch_end(epoch, logs)
        assert logs["learning_rate"] == (rates[-1] if rates else 1.0)
        rates.append(model.optimizer.learning_rate)
    return rates


@pytest.mark.parametrize(
    ("losses", "options", "rates"),
    [
        ([3, 2, 1], {"patience": 1}, [1, 1, 1]),
        ([3, 3, 3, 3], {"patience": 2, "factor": 0.5}, [1, 1, 0.5, 0.5]),
        ([3, 3, 3, 3, 3], {"patience": 2, "factor": 0.5}, [1, 1, 0.5, 0.5, 0.25]),
        ([3, 3, 3, 3, 3], {"patience": 1, "factor": 0.5, "cooldown": 2}, [1, 0.5, 0.5, 0.25, 0.25]),
        ([3, 2.9, 2.8], {"patience": 1, "factor": 0.5, "min_delta": 0.5}, [1, 0.5, 0.25]),
        ([3, 3, 3], {"patience": 1, "factor": 0.5, "min_lr": 0.4}, [1, 0.5, 0.4]),
        ([3, 4, 4], {"patience": 1, "factor": 0.5, "mode": "max"}, [1, 1, 0.5]),
        ([float("nan"), 3, 3], {"patience": 1, "factor": 0.5}, [0.5, 0.5, 0.25]),
    ],
)
def test_the_rate_is_reduced_on_a_plateau(losses, options, rates):
    assert plateau(losses, **options) == rates


def test_reduction_is_told_and_its_arguments_are_checked(capsys):
    plateau([1, 1], patience=1, factor=0.5, verbose=1)
    assert capsys.readouterr().out == "Epoch 2: ReduceLROnPlateau reducing learning rate to 0.5.\n"
    with pytest.raises(gx.AxisError, match="factor"):
        callbacks.ReduceLROnPlateau(factor=1.0)


class Seen(callbacks.Callback):
    """The weights in evaluation, in training and between epochs."""

    def __init__(self):
        self.tested, self.trained, self.ended = [], [], []

    def on_test_begin(self, logs=None):
        self.tested.append(self.model.get_weights()[0])

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self.model.get_weights()[0])

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(self.model.get_weights()[0])


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_validation_sees_averaged_weights_and_training_its_own(swap_on_epoch):
    seen = Seen()
    model = made(SGD(0.1, use_ema=True, ema_momentum=0.5))
    swap = callbacks.SwapEMAWeights(swap_on_epoch)
    model.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[swap, seen])
    plain, alone = made(SGD(0.1)), Seen()
    plain.fit(X, Y, epochs=3, verbose=0, callbacks=[alone])
    average = None
    for trained, own, tested, ended in zip(seen.trained, alone.trained, seen.tested, seen.ended, strict=True):
        np.testing.assert_array_equal(trained, own)
        average = own if average is None else 0.5 * average + 0.5 * own
        np.testing.assert_allclose(tested, average, rtol=1e-6)
        np.testing.assert_allclose(ended, average if swap_on_epoch else own, rtol=1e-6)
    np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-6)
    assert not model.optimizer.averages_in_weights


def test_swapping_needs_averages():
    with pytest.raises(gx.GraphError, match="use_ema=True"):
        made(SGD()).evaluate(X, Y, verbose=0, callbacks=[callbacks.SwapEMAWeights()])
    model = made(SGD(0.1, use_ema=True))
    model.train_on_batch(X, Y)
    model.train_on_batch(X, Y)
    with model.optimizer.averaged():
        wanted = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y, verbose=0, callbacks=[callbacks.SwapEMAWeights()]) == wanted
    assert model.evaluate(X, Y, verbose=0) != wanted
