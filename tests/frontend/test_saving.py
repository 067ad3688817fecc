"""Models in files: whole, bit for bit, atomic; and what is said about damage."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from tests.frontend.running import f32

rng = np.random.default_rng(0)
X = f32(rng, 96, 4)
LABELS = rng.integers(0, 3, 96)


def small(backend="reference"):
    model = Sequential([Input((4,)), layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(3)], name="small")
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(gx.optimizers.Adam(0.01, weight_decay=0.01), loss, metrics=["accuracy"], backend=backend)
    return model


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_training_goes_on_bit_for_bit_after_loading(tmp_path, backend):
    gx.set_seed(3)
    model = small(backend)
    model.fit(X, LABELS, batch_size=20, epochs=2, verbose=0)
    model.optimizer.learning_rate = 0.02
    model.save(tmp_path / "m")
    rest = model.fit(X, LABELS, batch_size=20, epochs=4, initial_epoch=2, verbose=0).history

    gx.set_seed(99)
    again = gx.load_model(tmp_path / "m")
    assert again.optimizer.learning_rate == 0.02
    assert again.fit(X, LABELS, batch_size=20, epochs=4, initial_epoch=2, verbose=0).history == rest
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_goes_on_in_the_middle_of_an_epoch(tmp_path):
    gx.set_seed(4)
    model = small()
    batches = [(X[i : i + 16], LABELS[i : i + 16]) for i in range(0, 96, 16)]
    for x, y in batches[:3]:
        model.train_on_batch(x, y)
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    for x, y in batches[3:]:
        assert model.train_on_batch(x, y) == again.train_on_batch(x, y)


def test_a_model_that_was_not_compiled(tmp_path):
    model = Sequential([Input((4,)), layers.Dense(3)])
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    assert again.compiled is None
    np.testing.assert_array_equal(model.predict(X, verbose=0), again.predict(X, verbose=0))
    assert gx.load_model(tmp_path / "m", compile=False).compiled is None


def test_the_text_can_be_read_and_the_arrays_are_safetensors(tmp_path):
    from safetensors.numpy import load_file

    model = small()
    model.save(tmp_path / "m")
    text = json.loads((tmp_path / "m" / "model.json").read_text())
    assert text["model"]["config"]["layers"][1]["config"] == {"units": 8, "activation": "relu"}
    assert text["compiled"]["optimizer"]["config"] == {"learning_rate": 0.01, "weight_decay": 0.01}
    arrays = load_file(tmp_path / "m" / text["arrays"]["file"])
    np.testing.assert_array_equal(arrays["weights/dense/kernel"], model.get_weights()[0])
    assert {"rng/step", "optimizer/iterations", "optimizer/dense/kernel/velocity"} <= set(arrays)


def test_branches_shared_layers_nested_models_and_expressions_come_back(tmp_path):
    inner = Sequential([Input((4,)), layers.Dense(3, kernel_regularizer="l2"), layers.Dropout(0.5)], name="inner")
    a, b = Input((4,), name="a"), Input((4,), name="b")
    table = f32(rng, 40)
    shared = layers.Dense(3, activation=gx.tanh)
    weight = gx.parameter("weight", np.float32(1.5))
    h = layers.Concatenate()([inner(a) * weight, inner(b), shared(a), shared(b) + a[:, :3]])
    out = {"wide": gx.pad(h, (0, 0), (0, 28)) + table, "last": layers.Dense(1, name="last")(h)}
    model = Model({"a": a, "b": b}, out, name="whole")
    model.compile("sgd", {"wide": "mse", "last": "mse"}, backend="reference")
    data = {"a": X, "b": X[::-1]}
    targets = {"wide": f32(rng, 96, 40), "last": f32(rng, 96, 1)}
    model.fit(data, targets, verbose=0)
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    assert list(again.named_weights()) == list(model.named_weights())
    first, second = model.predict(data, verbose=0), again.predict(data, verbose=0)
    for name in out:
        np.testing.assert_array_equal(first[name], second[name])
    assert model.evaluate(data, targets, verbose=0) == again.evaluate(data, targets, verbose=0)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


def test_a_layer_shared_by_two_models_within_comes_back_as_one(tmp_path):
    tied = layers.Dense(4, name="tied")
    parts = []
    for _ in range(2):
        x = Input((4,))
        parts.append(Model(x, layers.Dense(4)(tied(x))))
    x = Input((4,))
    model = Model(x, layers.Add()([parts[0](x), parts[1](x), tied(x)]))
    model.compile("adam", "mse", backend="reference")
    model.train_on_batch(X, X)
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    assert again.count_params() == model.count_params() == 3 * 20
    assert model.train_on_batch(X, X) == again.train_on_batch(X, X)
    assert model.train_on_batch(X, X) == again.train_on_batch(X, X)


def test_slots_of_layers_that_are_frozen_now_are_kept(tmp_path):
    model = small()
    model.train_on_batch(X, LABELS)
    model.layers[0].trainable = False
    model.train_on_batch(X, LABELS)
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    for one in (model, again):
        one.layers[0].trainable = True
        one.train_on_batch(X, LABELS)
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_frozen_layers_stay_frozen(tmp_path):
    model = small()
    model.layers[0].trainable = False
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    assert [w.label for w in again.trainable_weights] == ["dense_1/kernel", "dense_1/bias"]
    assert model.train_on_batch(X, LABELS) == again.train_on_batch(X, LABELS)


class Scale(layers.Layer):
    def __init__(self, by=2.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def build(self, input_shape):
        self.w = self.add_weight(name="w", shape=(input_shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.w * self.by


def test_layers_of_the_user_come_back_if_they_are_named(tmp_path):
    model = Sequential([Input((4,)), Scale(3.0)])
    model.save(tmp_path / "m")
    with pytest.raises(gx.FileError, match=r"(?s)'Scale'.*model.json.*custom_objects"):
        gx.load_model(tmp_path / "m")
    again = gx.load_model(tmp_path / "m", custom_objects={"Scale": Scale})
    np.testing.assert_array_equal(again.predict(X, verbose=0), X * 3)


@gx.saving.register(name="halved by the tests")
def halve(x):
    return x / 2


def test_registered_functions_come_back_without_being_given(tmp_path):
    model = Sequential([Input((4,)), layers.Lambda(halve), layers.Activation(halve)])
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(gx.load_model(tmp_path / "m").predict(X, verbose=0), X / 4)
    with pytest.raises(gx.GraphError, match="registered for"):
        gx.saving.register(small, name="halved by the tests")
    nameless = Sequential([Input((4,)), layers.Lambda(lambda x: x)])
    with pytest.raises(gx.GraphError, match="no name by which a file could find it"):
        nameless.save(tmp_path / "n")


@gx.saving.register
class Twice(Model):
    def __init__(self, units):
        super().__init__()
        self.hidden = [layers.Dense(units), layers.Dense(units)]

    def call(self, inputs):
        return self.hidden[1](self.hidden[0](inputs))


def test_subclassed_models_and_chains_without_input_come_back(tmp_path):
    for number, model in enumerate([Twice(3), Sequential([layers.Dense(3), layers.Dense(2)])]):
        model.compile("adam", "mse", backend="reference")
        model.fit(X, np.zeros((96, len(model.predict(X[:1], verbose=0)[0])), np.float32), verbose=0)
        model.save(tmp_path / f"m{number}")
        again = gx.load_model(tmp_path / f"m{number}")
        np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
        assert model.optimizer.iterations.value == again.optimizer.iterations.value == 3


def test_saving_again_replaces_the_old_version_and_leaves_nothing_behind(tmp_path):
    model = small()
    model.save(tmp_path / "m")
    model.train_on_batch(X, LABELS)
    model.save(tmp_path / "m")
    assert len(list((tmp_path / "m").iterdir())) == 2
    again = gx.load_model(tmp_path / "m")
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("step", range(4))
def test_a_save_that_is_cut_off_leaves_the_old_version(tmp_path, monkeypatch, step):
    """The process dies before one of the file operations of a save: after each the folder can be loaded."""
    model = small()
    model.save(tmp_path / "m")
    before = model.get_weights()
    model.train_on_batch(X, LABELS)
    real_replace, real_sync, count = os.replace, os.fsync, [0]

    class Killed(BaseException):
        pass

    def counted(real):
        def run(*args):
            if count[0] == step:
                raise Killed
            count[0] += 1
            return real(*args)

        return run

    monkeypatch.setattr(os, "replace", counted(real_replace))
    monkeypatch.setattr(os, "fsync", counted(real_sync))
    with pytest.raises(Killed):
        model.save(tmp_path / "m")
    monkeypatch.undo()
    np.testing.assert_array_equal(gx.load_model(tmp_path / "m").get_weights()[0], before[0])


def _spoil_text(folder):
    (folder / "model.json").write_text('{"format": 1, "mod')


def _no_model(folder):
    (folder / "model.json").write_text("[1, 2]")


def _newer_format(folder):
    text = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**text, "format": 99}))


def _arrays(folder):
    return next(folder.glob("arrays-*"))


def _spoil_arrays(folder):
    data = bytearray(_arrays(folder).read_bytes())
    data[-1] ^= 1
    _arrays(folder).write_bytes(data)


def _cut_arrays(folder):
    _arrays(folder).write_bytes(_arrays(folder).read_bytes()[:100])


def _wander(folder):
    text = json.loads((folder / "model.json").read_text())
    text["arrays"]["file"] = "../" + text["arrays"]["file"]
    (folder / "model.json").write_text(json.dumps(text))


def _edit(*path, value):
    def edit(folder):
        text = json.loads((folder / "model.json").read_text())
        place = text
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (folder / "model.json").write_text(json.dumps(text))

    return edit


@pytest.mark.parametrize(
    ("damage", "file", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "model.json", "no saved model"),
        (lambda folder: _arrays(folder).unlink(), "arrays-", "missing"),
        (_spoil_text, "model.json", "damaged"),
        (_no_model, "model.json", "no model file"),
        (_newer_format, "model.json", "format 99"),
        (_spoil_arrays, "arrays-", "not what was saved"),
        (_cut_arrays, "arrays-", "not what was saved"),
        (_wander, "model.json", "no file in the folder"),
        (_edit("model", "config", "layers", 1, "config", "units", value=9), "arrays-", "lacks 'weights/dense/kernel'"),
        (_edit("model", "config", "layers", 1, "config", "units", value=-1), "model.json", "positive"),
        (_edit("model", "config", "layers", 1, "config", "unts", value=1), "model.json", "unts"),
        (_edit("model", "class", value="os.system"), "model.json", "'system', which is not known"),
        (
            _edit("compiled", "optimizer", "class", value="ops.concatenate"),
            "model.json",
            "optimizer|from_config|revive",
        ),
    ],
)
def test_damage_is_named_with_the_file_and_what_to_do(tmp_path, damage, file, words):
    small().save(tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(gx.FileError, match=r"(?s)" + words) as caught:
        gx.load_model(tmp_path / "m")
    text = str(caught.value)
    assert str(tmp_path / "m") in text
    assert file in text
    assert "to do: " in text


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(gx.FileError, match=r"(?s)cannot be written.*file.*to do:"):
        small().save(tmp_path / "file" / "m")
