"""Callbacks: checkpoints, logs, NaN, norms of gradients, and a training that is killed and goes on."""

from __future__ import annotations

import csv
import itertools
import json
import math
import struct

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, callbacks, layers
from graphc.frontend import tensorboard
from tests import kill_resume

rng = np.random.default_rng(0)
X = rng.standard_normal((96, 4)).astype(np.float32)
Y = (X @ np.float32([[1], [2], [-1], [0.5]])).astype(np.float32)


def line(rate=0.1, **kwargs):
    gx.set_seed(1)
    model = Sequential([Input((4,)), layers.Dense(1)])
    model.compile(gx.optimizers.SGD(rate), "mse", backend="reference", **kwargs)
    return model


def fit(model, *listed, **kwargs):
    arguments = {"batch_size": 32, "epochs": 4, "verbose": 0, **kwargs}
    return model.fit(X, Y, callbacks=list(listed), **arguments)


# Checkpoints.


def test_checkpoints_are_named_by_epoch_batch_and_results(tmp_path):
    model = line()
    every = callbacks.ModelCheckpoint(tmp_path / "at-{epoch:02d}-{loss:.3f}")
    steps = callbacks.ModelCheckpoint(tmp_path / "w-{epoch}-{batch}.safetensors", save_freq=2, save_weights_only=True)
    losses = fit(model, every, steps, epochs=3).history["loss"]
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {
        *(f"at-{epoch:02d}-{loss:.3f}" for epoch, loss in enumerate(losses, 1)),
        *(f"w-{epoch}-{batch}.safetensors" for epoch, batch in ((1, 2), (2, 1), (2, 3), (3, 2))),
    }
    last = gx.load_model(tmp_path / f"at-03-{losses[2]:.3f}")
    np.testing.assert_array_equal(last.get_weights()[0], model.get_weights()[0])
    other = line()
    other.load_weights(tmp_path / "w-3-2.safetensors")
    assert not np.array_equal(other.get_weights()[0], model.get_weights()[0])


def test_only_the_best_is_kept_and_only_if_it_beats_the_threshold(tmp_path, capsys):
    """The rate is turned up after the second epoch, so that later ones are worse."""
    kept: list[np.ndarray] = []
    model = line()

    def spoil(epoch, logs):
        model.optimizer.learning_rate = 0.05 if epoch < 2 else 1.5

    best = callbacks.ModelCheckpoint(tmp_path / "best", monitor="loss", save_best_only=True, verbose=1)
    never = callbacks.ModelCheckpoint(
        tmp_path / "never", monitor="loss", save_best_only=True, initial_value_threshold=-1.0
    )
    note = callbacks.LambdaCallback(
        on_epoch_begin=spoil, on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()[0])
    )
    losses = fit(model, note, best, never, batch_size=96, epochs=6).history["loss"]
    number = int(np.argmin(losses))
    assert 0 < number < 5
    assert best.best == losses[number]
    np.testing.assert_array_equal(gx.load_model(tmp_path / "best").get_weights()[0], kept[number])
    assert not (tmp_path / "never").exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Epoch {number + 1}: saving to ")


def test_mistakes_in_checkpoints_are_told(tmp_path):
    with pytest.raises(gx.AxisError, match="save_freq"):
        callbacks.ModelCheckpoint("x", save_freq=0)
    with pytest.raises(gx.AxisError, match="save_freq"):
        callbacks.BackupAndRestore("x", save_freq="batch")
    with pytest.raises(gx.AxisError, match="val_loss") as caught:
        fit(line(), callbacks.ModelCheckpoint(str(tmp_path / "{val_loss}")))
    assert "loss, epoch" in caught.value.remedy
    with pytest.warns(UserWarning, match="the model checkpoint watches 'val_loss'"):
        fit(line(), callbacks.ModelCheckpoint(tmp_path / "x", save_best_only=True), epochs=1)


def test_weights_alone_go_into_a_file_and_come_back(tmp_path):
    model, other = line(), line()
    fit(model)
    model.save_weights(tmp_path / "w.safetensors")
    other.load_weights(tmp_path / "w.safetensors")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    wider = Sequential([Input((4,)), layers.Dense(2)])
    with pytest.raises(gx.FileError, match="lacks 'dense/kernel'"):
        wider.load_weights(tmp_path / "w.safetensors")
    with pytest.raises(gx.FileError, match="no file"):
        wider.load_weights(tmp_path / "missing")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(gx.FileError, match="cannot be read"):
        wider.load_weights(tmp_path / "broken")
    with pytest.raises(gx.GraphError, match="shapes"):
        Sequential([layers.Dense(1)]).save_weights(tmp_path / "w")


# Backups. What a process does that is really killed is tested at the end.


class Crash(Exception):
    pass


class Crasher(callbacks.Callback):
    """Ends a training without any further hook."""

    def __init__(self, after):
        self.after = after
        self._steps = 0

    def get_state(self):
        return {}

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        if self._steps == self.after:
            raise Crash


def resumable(tmp_path, *more, save_freq=1, **kwargs):
    gx.set_seed(4)
    model = Sequential([Input((4,)), layers.Dense(6, "tanh"), layers.Dropout(0.4), layers.Dense(1)])
    model.compile(gx.optimizers.Adam(0.05), "mse", metrics=["mae"], backend="reference")
    stopping = callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    log = callbacks.CSVLogger(tmp_path / "log.csv")
    backup = callbacks.BackupAndRestore(tmp_path / "backup", save_freq, **kwargs)
    history = fit(model, backup, stopping, log, *more, validation_data=(X[:20], Y[:20]), epochs=3)
    return (
        [array.tobytes() for array in model.get_weights()],
        history.history,
        stopping.best,
        (tmp_path / "log.csv").read_bytes(),
    )


@pytest.mark.parametrize("save_freq", ["epoch", 1, 2])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_training_that_ends_badly_goes_on_bit_for_bit(tmp_path, after, save_freq):
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    expected = resumable(tmp_path / "whole", Crasher(0))
    with pytest.raises(Crash):
        resumable(tmp_path / "torn", Crasher(after), save_freq=save_freq)
    assert resumable(tmp_path / "torn", Crasher(0), save_freq=save_freq) == expected
    assert not (tmp_path / "torn" / "backup").exists()


def test_a_backup_of_a_training_that_ended_trains_no_more(tmp_path):
    first = resumable(tmp_path, delete_checkpoint=False)
    assert resumable(tmp_path, delete_checkpoint=False) == first


def test_a_backup_of_another_training_is_refused(tmp_path):
    with pytest.raises(Crash):
        resumable(tmp_path, Crasher(4))
    backup = callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(gx.FileError, match="it was written with") as caught:
        fit(line(), backup)
    assert "test_callbacks.py" in str(caught.value.at)
    listed = callbacks.EarlyStopping(), callbacks.CSVLogger(tmp_path / "other.csv"), Crasher(0)
    with pytest.raises(gx.FileError, match="an epoch had 3 batches, now it has 2"):
        fit(line(), backup, *listed, batch_size=48)
    path = tmp_path / "backup" / "training.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(gx.FileError, match="cannot be read"):
        resumable(tmp_path, Crasher(0))


def test_plain_attributes_are_the_state_of_a_callback():
    class Mine(callbacks.Callback):
        def __init__(self, rate):
            self.rate = rate
            self.count = 3
            self.kept = {"a": [np.float32([1, 2])], "b": (1, None)}
            self.function = print

    state = Mine(0.5).get_state()
    assert set(state) == {"count", "kept"}
    other = Mine(0.25)
    other.count = 0
    other.set_state(state)
    assert (other.rate, other.count) == (0.25, 3)


@pytest.mark.parametrize("seed", [0])
def test_kill_9_changes_nothing(seed):
    tally = kill_resume.kill_often(3, seed, ("arrays",), "reference")
    assert tally["kills"] == 3
    assert tally["trainings"] > 0
    assert tally["differing"] == 0


# Logs.


def test_a_csv_file_has_a_row_for_each_epoch(tmp_path):
    log = callbacks.CSVLogger(tmp_path / "a" / "log.csv", separator=";")
    history = fit(line(), log, validation_data=(X, Y), validation_freq=2).history
    with open(tmp_path / "a" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert list(rows[0]) == ["epoch", "loss", "val_loss"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == history["loss"]
    assert [row["val_loss"] for row in rows] == ["NA", repr(history["val_loss"][0]), "NA", repr(history["val_loss"][1])]
    with pytest.raises(gx.AxisError, match="separator"):
        callbacks.CSVLogger("x", separator="--")


def test_logs_are_on_their_way_to_the_disk_after_each_epoch_and_can_be_appended_to(tmp_path):
    sizes: list[tuple[int, int]] = []
    paths = tmp_path / "log.csv", tmp_path / "log.jsonl"
    watch = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: sizes.append(tuple(p.stat().st_size for p in paths))
    )
    for append in (False, True, True):
        logs = callbacks.CSVLogger(paths[0], append=append), callbacks.JSONLinesLogger(paths[1], append=append)
        fit(line(), *logs, watch, epochs=2)
    assert all(b > a for first, second in itertools.pairwise(sizes) for a, b in zip(first, second, strict=True))
    assert paths[0].read_text().count("epoch") == 1
    assert len(paths[0].read_text().splitlines()) == 7
    assert [json.loads(text)["epoch"] for text in paths[1].read_text().splitlines()] == [0, 1] * 3
    with open(paths[1], "ab") as file:
        file.write(b'{"epo')  # a process was killed here
    fit(line(), callbacks.JSONLinesLogger(paths[1], append=True), epochs=1)
    assert json.loads(paths[1].read_text().splitlines()[-1])["epoch"] == 0


def test_what_is_not_finite_is_null_in_json(tmp_path):
    log = callbacks.JSONLinesLogger(tmp_path / "log")
    spoil = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(odd=math.nan))
    fit(line(), spoil, log, epochs=1)
    assert json.loads((tmp_path / "log").read_text())["odd"] is None


def records(path):
    """The data of an event file's records, check sums compared."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert tensorboard._masked(data[:8]) == data[8:12]
        body, data = data[12 : 12 + length], data[12 + length :]
        assert tensorboard._masked(body) == data[:4]
        found.append(body)
        data = data[4:]
    return found


def test_the_check_sum_is_crc32c():
    """Known: RFC 3720, B.4, of 32 zero bytes and of 0 to 31."""
    for data, crc in ((bytes(32), 0x8A9136AA), (bytes(range(32)), 0x46DD794E)):
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert tensorboard._masked(data) == struct.pack("<I", masked)


def test_tensorboard_gets_what_the_history_holds(tmp_path):
    board = callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=2)
    history = fit(line(), board, validation_data=(X, Y), epochs=2).history
    files = {name: next((tmp_path / name).iterdir()) for name in ("train", "validation", "batches")}
    assert b"brain.Event:2" in records(files["train"])[0]
    for name, key in (("train", "loss"), ("validation", "val_loss")):
        scalars = [record for record in records(files[name]) if b"epoch_loss" in record]
        values = [struct.unpack("<f", record[-4:])[0] for record in scalars]
        assert values == pytest.approx(history[key], rel=1e-6)
    assert sum(b"dense/kernel" in record for record in records(files["train"])) == 2
    assert sum(b"batch_loss" in record for record in records(files["batches"])) == 3
    with pytest.raises(gx.AxisError, match="update_freq"):
        callbacks.TensorBoard(update_freq="often")


def test_results_with_several_values_are_kept_and_written(tmp_path):
    class Columns(gx.metrics.Metric):
        def __init__(self):
            super().__init__("columns")
            self.total = self.add_variable((4,))

        def update_state(self, y_true, y_pred, sample_weight=None):
            return {self.total: self.total + gx.cast(gx.sum(y_pred), "float64")}

        def result(self):
            return self.total

    def run(*listed):
        model = line(metrics=[Columns()])
        logs = callbacks.CSVLogger(tmp_path / "log.csv"), callbacks.JSONLinesLogger(tmp_path / "log.jsonl")
        board = callbacks.TensorBoard(tmp_path / "board")
        backup = callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1)
        return fit(model, *logs, board, backup, *listed, epochs=2).history["columns"]

    expected = run(Crasher(0))
    with pytest.raises(Crash):
        run(Crasher(5))
    np.testing.assert_array_equal(run(Crasher(0)), expected)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[1])["columns"] == expected[1].tolist()
    with open(tmp_path / "log.csv", newline="") as file:
        assert json.loads(list(csv.DictReader(file))[1]["columns"]) == expected[1].tolist()


def test_tensorboard_itself_reads_the_files(tmp_path):
    pytest.importorskip("tensorboard")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies warn
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        history = fit(line(), callbacks.TensorBoard(tmp_path, histogram_freq=2), epochs=2).history
        events = EventAccumulator(str(tmp_path / "train")).Reload()
        tags = events.Tags()
        found = [event.value for event in events.Scalars("epoch_loss")]
        weights = events.Histograms("dense/kernel")[0].histogram_value
    assert tags["histograms"] == ["dense/bias", "dense/kernel"] or set(tags["histograms"]) == {
        "dense/bias",
        "dense/kernel",
    }
    assert found == pytest.approx(history["loss"], rel=1e-6)
    assert weights.num == 4


# NaN.


class Root(layers.Layer):
    """The root of what may be negative."""

    def call(self, x):
        shifted = x + 1.0
        return gx.sqrt(shifted)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_training_ends_before_a_nan_and_names_the_line_that_makes_it(backend):
    model = Sequential([Input((4,)), layers.Dense(1), Root()])
    model.compile(gx.optimizers.SGD(0.0), "mse", backend=backend)
    model.set_weights([np.ones((4, 1), np.float32), np.float32([50])])
    x = X.copy()
    x[70] = -100.0
    before = model.get_weights()
    stop = callbacks.TerminateOnNaN()
    with pytest.warns(UserWarning, match="training ends in epoch 1, batch 2: sqrt makes nan"):
        history = model.fit(x, Y, batch_size=32, epochs=3, shuffle=False, verbose=0, callbacks=[stop])
    assert "sqrt(shifted)" in str(stop.error)
    assert "test_callbacks.py" in str(stop.error.at)
    assert history.epoch == [0]
    assert np.isfinite(history.history["loss"]).all()
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert int(model.optimizer.iterations.value) == 2


def test_nan_in_the_data_and_in_weights_is_called_so():
    stop = callbacks.TerminateOnNaN()
    x = X.copy()
    x[0, 0] = np.inf
    with pytest.warns(UserWarning, match="input 'input_layer' holds inf"):
        history = line().fit(x, Y, verbose=0, shuffle=False, callbacks=[stop])
    assert history.history == {}
    model = line()
    model.set_weights([np.full((4, 1), np.nan, np.float32), np.zeros(1, np.float32)])
    with pytest.warns(UserWarning, match="parameter 'dense/kernel' already holds nan"):
        fit(model, stop)
    assert fit(line(), stop).epoch == [0, 1, 2, 3]
    assert stop.error is None


def test_infinities_that_are_meant_are_no_fault():
    """The mask's -inf stands beside the way from the failing result back to where it begins."""
    from graphc.report.non_finite import find_non_finite

    x, y = gx.placeholder("x", (3,)), gx.placeholder("y", (3,))
    masked = gx.where(gx.greater(x, 0.0), x, -np.inf)
    total = gx.sum(gx.exp(masked)) + gx.sum(gx.log(y))
    step = gx.compile({"total": total, "whole": gx.sum(y)}, inputs=[x, y], backend="reference")
    found = find_non_finite(step, [np.float32([1, -1, 2]), np.float32([1, 0, 3])])
    assert found.message == "log makes -inf, first at flat position 1, from operands that are finite"
    assert "0 to 3" in str(found)
    assert find_non_finite(step, [np.float32([1, -1, 2]), np.float32([1, 1, 3])]) is None


# Norms of gradients.


def test_norms_of_gradients_are_those_of_the_mathematics():
    model = Sequential([Input((4,)), layers.Dense(3, "tanh", name="hidden"), layers.Dense(1, name="last")])
    model.compile(gx.optimizers.SGD(0.0), "mse", backend="reference")
    watch = callbacks.GradientNorms()
    fit(model, watch, batch_size=48, epochs=2, shuffle=False)
    w, b, v, c = (array.astype(np.float64) for array in model.get_weights())
    for step, rows in enumerate((slice(0, 48), slice(48, 96)) * 2):
        h = np.tanh(X[rows] @ w + b)
        error = 2 * (h @ v + c - Y[rows]) / 48
        inner = (error @ v.T) * (1 - h**2)
        last = np.sqrt(((h.T @ error) ** 2).sum() + (error.sum(0) ** 2).sum())
        hidden = np.sqrt(((X[rows].T @ inner) ** 2).sum() + (inner.sum(0) ** 2).sum())
        assert watch.norms["last"][step] == pytest.approx(last, rel=1e-5)
        assert watch.norms["hidden"][step] == pytest.approx(hidden, rel=1e-5)
    assert repr(model.programs).endswith("compiled: train norms>")


def test_watching_changes_no_results():
    def weights(*listed):
        model = line()
        fit(model, *listed)
        return model.get_weights()[0]

    np.testing.assert_array_equal(weights(), weights(callbacks.GradientNorms(), callbacks.TerminateOnNaN()))


# Pictures.


def test_the_history_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    watch = callbacks.GradientNorms()
    history = fit(line(metrics=["mae"]), watch, validation_data=(X, Y), validation_freq=2)
    figure = history.plot(tmp_path / "a" / "loss.svg")
    drawn = {drawn.get_label(): drawn.get_xydata() for drawn in figure.axes[0].lines}
    assert set(drawn) == {"loss", "val_loss"}
    np.testing.assert_array_equal(drawn["val_loss"], list(zip([1, 3], history.history["val_loss"], strict=True)))
    assert (tmp_path / "a" / "loss.svg").read_text().startswith("<?xml")
    assert history.plot(keys=["mae"], log=True).axes[0].get_yscale() == "log"
    assert len(watch.plot(tmp_path / "norms.png").axes[0].lines) == 1
    with pytest.raises(gx.AxisError, match="no result 'acc'"):
        history.plot(keys=["acc"])
    with pytest.raises(gx.AxisError, match="nothing to draw"):
        callbacks.History().plot()


def test_without_matplotlib_an_error_says_what_to_install(monkeypatch):
    history = fit(line())
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(gx.BackendError) as caught:
        history.plot()
    assert caught.value.remedy == 'pip install "graphc[plot]"'
