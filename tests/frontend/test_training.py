"""fit, evaluate, predict, one batch; callbacks; interruption."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, callbacks, layers
from tests.counting import calls_of

rng = np.random.default_rng(0)
X = rng.standard_normal((96, 4)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
Y = (X @ np.float32([[1], [2], [-1], [0.5]])).astype(np.float32)


def line(backend="reference", rate=0.1, **kwargs):
    gx.set_seed(1)
    model = Sequential([Input((4,)), layers.Dense(1)])
    model.compile(gx.optimizers.SGD(rate), "mse", backend=backend, **kwargs)
    return model


def classifier(backend="reference", optimizer="adam", drop=0.0):
    model = Sequential([Input((4,)), layers.Dense(8, "relu"), layers.Dropout(drop), layers.Dense(2)])
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], backend=backend)
    return model


def test_xor_is_learned_by_two_layers():
    gx.set_seed(0)
    x = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
    y = np.float32([[0], [1], [1], [0]])
    model = Sequential([Input((2,)), layers.Dense(8, activation="tanh"), layers.Dense(1, activation="sigmoid")])
    model.compile(gx.optimizers.Adam(0.05), "binary_crossentropy", metrics=["accuracy"], backend="numba")
    history = model.fit(x, y, batch_size=4, epochs=300, verbose=0)
    assert history.history["loss"][-1] < 0.05
    assert history.history["accuracy"][-1] == 1.0
    np.testing.assert_array_equal(model.predict(x, verbose=0) > 0.5, y > 0.5)


def test_results_of_an_epoch_are_those_of_all_its_samples():
    """The last batch is smaller, and the rate is zero, so that every batch sees the same weights."""
    model = line(rate=0.0, metrics=["mse"])
    logs = model.fit(X, Y, batch_size=40, verbose=0).history
    expected = np.mean((model.predict(X, verbose=0).astype(float) - Y) ** 2)
    assert logs["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert logs["mse"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(X, Y, batch_size=7, verbose=0) == pytest.approx([expected, expected], rel=1e-5)
    assert model.evaluate(X, Y, verbose=0, return_dict=True).keys() == {"loss", "mse"}
    assert model.metrics_names == ["loss", "mse"]


def test_one_batch_is_measured_alone():
    model = line(rate=0.0, metrics=["mse"])
    for rows in (slice(0, 10), slice(10, 40)):
        expected = np.mean((model.predict(X[rows], verbose=0) - Y[rows]) ** 2)
        assert model.train_on_batch(X[rows], Y[rows]) == pytest.approx([expected, expected], rel=1e-5)
        assert model.test_on_batch(X[rows], Y[rows], return_dict=True)["mse"] == pytest.approx(expected, rel=1e-5)
    alone = line(rate=0.0)
    assert isinstance(alone.train_on_batch(X, Y), float)
    np.testing.assert_array_equal(alone.predict_on_batch(X[:3]), alone.predict(X[:3], verbose=0))


def test_the_loss_holds_the_penalties():
    model = Sequential([Input((4,)), layers.Dense(1, kernel_regularizer=gx.regularizers.L2(0.5))])
    model.compile(gx.optimizers.SGD(0.1), "mse", backend="reference")
    kernel, bias = model.get_weights()
    error = X @ kernel + bias - Y
    assert model.test_on_batch(X, Y) == pytest.approx((error**2).mean() + 0.5 * (kernel**2).sum(), rel=1e-5)
    model.train_on_batch(X, Y)
    gradient = 2 * X.T @ error / len(X) + kernel
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_several_losses_are_weighted_and_reported():
    a = Input((4,))
    model = Model(a, [layers.Dense(1, name="left")(a), layers.Dense(1, name="right")(a)])
    model.compile("sgd", {"left": "mse", "right": "mse"}, [1.0, 0.25], {"right": ["mse"]}, backend="reference")
    left, right = model.predict(X, verbose=0)
    logs = model.test_on_batch(X, [Y, Y * 2], return_dict=True)
    assert list(logs) == ["loss", "left_loss", "right_loss", "right_mse"]
    first, second = ((left - Y) ** 2).mean(), ((right - 2 * Y) ** 2).mean()
    assert logs["left_loss"] == pytest.approx(first, rel=1e-5)
    assert logs["right_mse"] == pytest.approx(second, rel=1e-5)
    assert logs["loss"] == pytest.approx(first + 0.25 * second, rel=1e-5)
    history = model.fit(X, {"left": Y, "right": Y * 2}, validation_split=0.25, verbose=0).history
    assert set(history) == {*logs, *(f"val_{key}" for key in logs)}


def test_an_output_without_a_loss_needs_no_targets():
    a = Input((4,))
    model = Model(a, [layers.Dense(1, name="used")(a), layers.Dense(3, name="free")(a)])
    model.compile("sgd", {"used": "mse"}, backend="reference")
    assert model.programs["train"].input_names == ("input_layer", "target_used")
    model.fit(X, {"used": Y, "free": None}, verbose=0)
    model.fit(X, [Y, None], verbose=0)


def test_validation_takes_the_end_of_the_data_before_shuffling():
    model = line(rate=0.0)
    logs = model.fit(X, Y, validation_split=0.25, epochs=2, verbose=0).history
    cut = 72
    for key, rows in (("loss", slice(0, cut)), ("val_loss", slice(cut, None))):
        expected = ((model.predict(X[rows], verbose=0) - Y[rows]) ** 2).mean()
        assert logs[key] == pytest.approx([expected] * 2, rel=1e-5)
    other = model.fit(X, Y, validation_data=(X[:5], Y[:5]), validation_freq=2, epochs=3, verbose=0).history
    assert len(other["loss"]) == 3
    assert len(other["val_loss"]) == 1


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    def weights(seed, shuffle=True):
        gx.set_seed(seed)
        model = classifier(drop=0.3)
        model.fit(X, LABELS, batch_size=20, epochs=2, shuffle=shuffle, verbose=0)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    first = weights(3)
    np.testing.assert_array_equal(first, weights(3))
    assert not np.array_equal(first, weights(4))
    assert not np.array_equal(first, weights(3, shuffle=False))


def test_each_epoch_has_another_order_and_every_sample_once():
    seen: list[np.ndarray] = []
    model = line(rate=0.0)
    real = model.programs["train"].call
    model.programs["train"].call = lambda arrays, out=None: seen.append(arrays[0].copy()) or real(arrays, out)
    model.fit(X, Y, batch_size=40, epochs=2, verbose=0)
    one, two = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert [len(batch) for batch in seen] == [40, 40, 16] * 2
    assert not np.array_equal(one, two)
    assert {row.tobytes() for row in one} == {row.tobytes() for row in X} == {row.tobytes() for row in two}


def test_batches_from_iterables():
    def pairs():
        for start in range(0, 96, 32):
            yield X[start : start + 32], Y[start : start + 32]

    class Indexed:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index >= 3:
                raise IndexError
            return X[index * 32 : index * 32 + 32], Y[index * 32 : index * 32 + 32]

    def trained(*data, **kwargs):
        model = line()
        model.fit(*data, epochs=2, verbose=0, **kwargs)
        return model.get_weights()[0]

    def endless():
        while True:
            yield from pairs()

    expected = trained(X, Y, shuffle=False)
    np.testing.assert_array_equal(trained(Indexed()), expected)
    np.testing.assert_array_equal(trained(endless(), steps_per_epoch=3), expected)
    model = line(rate=0.0)
    assert model.evaluate(pairs(), verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)
    np.testing.assert_array_equal(model.predict((x for x, _ in pairs()), verbose=0), model.predict(X, verbose=0))
    history = model.fit(Indexed(), validation_data=Indexed(), validation_steps=2, verbose=0)
    assert "val_loss" in history.history
    with pytest.warns(UserWarning, match="ran out"):
        model.fit(pairs(), epochs=3, verbose=0)


def test_predicting_does_not_depend_on_the_batch_size_or_the_memory():
    model = classifier()
    whole = model.predict(X, batch_size=96, verbose=0)
    for size in (1, 7, 32, 1000):
        np.testing.assert_allclose(model.predict(X, batch_size=size, verbose=0), whole, rtol=1e-6, atol=1e-7)
    apart = np.asfortranarray(X)
    np.testing.assert_array_equal(model.predict(apart, batch_size=96, verbose=0), whole)
    frozen = X.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(model.predict(frozen, batch_size=96, verbose=0), whole)
    np.testing.assert_array_equal(model.predict(X[::2], verbose=0), model.predict(X[::2].copy(), verbose=0))


def test_outputs_of_unknown_length_are_predicted():
    x = Input((None, 2))
    model = Model(x, x * 2)
    data = rng.standard_normal((5, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(data, batch_size=2, verbose=0), data * 2)


class Recorder(callbacks.Callback):
    def __init__(self):
        self.events: list[str] = []
        for name in dir(callbacks.Callback):
            if name.startswith("on_"):
                setattr(self, name, lambda *args, name=name, **kwargs: self.events.append(name[3:]))


def test_hooks_are_called_in_keras_order():
    recorder = Recorder()
    model = line()
    model.fit(X[:64], Y[:64], epochs=1, validation_data=(X[:32], Y[:32]), callbacks=[recorder], verbose=0)
    assert recorder.events == [
        "train_begin", "epoch_begin",
        "train_batch_begin", "train_batch_end", "train_batch_begin", "train_batch_end",
        "test_begin", "test_batch_begin", "test_batch_end", "test_end",
        "epoch_end", "train_end",
    ]  # fmt: skip
    recorder.events.clear()
    model.predict(X[:32], callbacks=[recorder], verbose=0)
    assert recorder.events == ["predict_begin", "predict_batch_begin", "predict_batch_end", "predict_end"]
    assert recorder.model is model
    assert recorder.params["steps"] == 1


def test_logs_of_a_batch_hold_the_epoch_so_far():
    found: list[dict[str, float]] = []
    model = line(rate=0.0, metrics=["mse"])
    model.fit(
        X, Y, batch_size=40, shuffle=False, verbose=0,
        callbacks=[callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: found.append(logs))],
    )  # fmt: skip
    errors = (model.predict(X, verbose=0) - Y) ** 2
    for logs, count in zip(found, (40, 80, 96), strict=True):
        assert logs["loss"] == pytest.approx(errors[:count].mean(), rel=1e-5)
        assert logs["mse"] == pytest.approx(errors[:count].mean(), rel=1e-5)


def test_evaluating_in_a_callback_does_not_disturb_the_sums_of_the_epoch():
    def run(*listed):
        model = line(rate=0.0, metrics=["mse"])
        return model, model.fit(X, Y, batch_size=16, verbose=0, callbacks=listed).history["mse"]

    class Nosy(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.evaluate(X[:8], Y[:8] + 100, verbose=0)

    assert run()[1] == run(Nosy())[1]


def test_a_callback_can_end_training():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    model = line()
    history = model.fit(X, Y, batch_size=16, epochs=5, callbacks=[Stop()], verbose=0)
    assert history.epoch == [0]
    assert model.optimizer.iterations.value == 2


def test_early_stopping_restores_the_best_weights():
    """The rate is turned up after the second epoch, so that the third and fourth are worse."""

    def spoil(epoch, logs):
        model.optimizer.learning_rate = 0.05 if epoch < 2 else 3.0

    kept: list[np.ndarray] = []
    stopper = callbacks.EarlyStopping(monitor="loss", patience=2, restore_best_weights=True)
    model = line()
    history = model.fit(
        X, Y, batch_size=96, epochs=10, verbose=0,
        callbacks=[
            callbacks.LambdaCallback(on_epoch_begin=spoil),
            callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()[0])),
            stopper,
        ],
    )  # fmt: skip
    losses = history.history["loss"]
    best = int(np.argmin(losses))
    assert best == 2
    assert len(losses) == best + 3
    assert (stopper.best_epoch, stopper.stopped_epoch) == (best, best + 2)
    np.testing.assert_array_equal(model.get_weights()[0], kept[best])


def test_early_stopping_knows_which_way_is_better():
    stopper = callbacks.EarlyStopping(monitor="val_accuracy")
    model = classifier()
    model.fit(X, LABELS, epochs=1, validation_split=0.2, callbacks=[stopper], verbose=0)
    assert stopper.better(0.6, 0.5)
    assert not stopper.better(0.5, 0.6)
    with pytest.warns(UserWarning, match="'val_loss', which the logs do not hold: loss, accuracy"):
        model.fit(X, LABELS, callbacks=[callbacks.EarlyStopping()], verbose=0)
    with pytest.raises(gx.AxisError, match="hook"):
        callbacks.LambdaCallback(on_step=print)
    with pytest.raises(gx.GraphError, match="not a callback"):
        model.fit(X, LABELS, callbacks=[print], verbose=0)


def test_training_goes_on_where_it_ended():
    at_once, in_parts = line(), line()
    at_once.fit(X, Y, epochs=4, verbose=0)
    in_parts.fit(X, Y, epochs=2, verbose=0)
    history = in_parts.fit(X, Y, epochs=4, initial_epoch=2, verbose=0)
    assert history.epoch == [2, 3]
    np.testing.assert_array_equal(at_once.get_weights()[0], in_parts.get_weights()[0])


def test_progress_is_quiet_off_a_terminal_and_a_bar_on_one(monkeypatch, capsys):
    model = line()
    model.fit(X, Y)
    model.evaluate(X, Y)
    model.predict(X)
    assert capsys.readouterr() == ("", "")
    model.fit(X, Y, epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [text[:9] for text in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert "loss: " in lines[0]

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    model.fit(X, Y)
    text = sys.stderr.getvalue()
    assert "Epoch 1/1" in text
    assert "3/3" in text
    assert "loss: " in text
    model.evaluate(X, Y)
    assert "Evaluate" in sys.stderr.getvalue()
    with pytest.raises(gx.AxisError, match="verbose"):
        model.fit(X, Y, verbose="loud")


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_ctrl_c_ends_after_the_step_and_leaves_a_usable_model(backend):
    before = signal.getsignal(signal.SIGINT)
    steps: list[int] = []

    def interrupt(batch, logs):
        steps.append(batch)
        if len(steps) == 8:
            os.kill(os.getpid(), signal.SIGINT)

    model = line(backend)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            X, Y, batch_size=16, epochs=50, verbose=0,
            callbacks=[callbacks.LambdaCallback(on_train_batch_end=interrupt)],
        )  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is before
    assert 8 <= len(steps) <= 9
    assert model.optimizer.iterations.value == len(steps)
    assert model.history.epoch == [0]
    same = line(backend)
    same.fit(X, Y, batch_size=16, epochs=1, verbose=0)
    same.fit(X, Y, batch_size=16, epochs=1, steps_per_epoch=len(steps) - 6, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], same.get_weights()[0])
    assert model.fit(X, Y, epochs=1, verbose=0).history["loss"][0] < 2


def test_a_second_ctrl_c_does_not_wait():
    def interrupt(batch, logs):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second Ctrl-C was not raised at once")

    with pytest.raises(KeyboardInterrupt):
        line().fit(X, Y, verbose=0, callbacks=[callbacks.LambdaCallback(on_train_batch_begin=interrupt)])


def test_fit_runs_in_a_thread():
    model, found = line(), []
    thread = threading.Thread(target=lambda: found.append(model.fit(X, Y, verbose=0)))
    thread.start()
    thread.join()
    assert found[0].history["loss"]


def test_check_finite_refuses_the_step():
    model = line(check_finite=True)
    before = model.get_weights()
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(gx.NonFiniteError):
        model.train_on_batch(bad, Y)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.optimizer.iterations.value == 0


def test_functions_as_loss_and_metric_get_targets_of_the_type_of_the_data():
    model = Sequential([Input((4,)), layers.Dense(2)])

    def chosen(y_true, y_pred):
        assert y_true.dtype is gx.DType.int64
        return -gx.sum(gx.one_hot(y_true, 2) * gx.log_softmax(y_pred), axis=-1)

    model.compile("adam", chosen, metrics=[chosen], backend="reference")
    logs = model.fit(X, LABELS, epochs=2, verbose=0).history
    assert logs["chosen"] == pytest.approx(logs["loss"], rel=1e-5)


def test_programs_are_compiled_when_they_are_needed():
    model = line()
    assert repr(model.programs).endswith("compiled: none>")
    assert list(model.programs) == ["train", "evaluate", "predict"]
    model.predict(X, verbose=0)
    assert repr(model.programs).endswith("compiled: predict>")
    assert model.programs["train"].input_names == ("input_layer", "target")
    assert model.programs["train"].output_names == ("loss",)
    assert model.programs["predict"].output_names == ("dense",)
    with pytest.raises(KeyError):
        model.programs["fit"]


def test_numba_and_reference_train_alike():
    def losses(backend):
        gx.set_seed(2)
        model = classifier(backend, gx.optimizers.Adam(0.01), drop=0.25)
        return model.fit(X, LABELS, batch_size=20, epochs=3, verbose=0).history["loss"]

    assert losses("numba") == pytest.approx(losses("reference"), rel=1e-4)


def test_a_step_takes_as_many_python_calls_for_twenty_layers_as_for_two():
    def calls(depth):
        model = Sequential([Input((4,)), *(layers.Dense(4, "tanh") for _ in range(depth)), layers.Dense(2)])
        model.compile("sgd", "mse", metrics=["mse"], backend="numba")
        y = np.zeros((8, 2), np.float32)
        for _ in range(3):
            model.train_on_batch(X[:8], y)
        return calls_of(lambda: model.train_on_batch(X[:8], y))

    assert calls(2) == calls(20)


def test_two_threads_may_predict_at_once():
    model = classifier("numba")
    data = rng.standard_normal((500, 4)).astype(np.float32)
    expected = model.predict(data, batch_size=50, verbose=0)
    found: list[np.ndarray] = []

    def work():
        found.extend(model.predict(data, batch_size=50, verbose=0) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for got in found:
        np.testing.assert_array_equal(got, expected)
