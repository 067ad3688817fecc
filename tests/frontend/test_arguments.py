"""Every argument of every public class is asked for what its annotation says; what Keras takes is taken."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from graphc.frontend.checked import checked

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
T = X.sum(1, keepdims=True)
GROUPS = {
    "layers": gx.layers, "losses": gx.losses, "metrics": gx.metrics, "optimizers": gx.optimizers,
    "schedules": gx.optimizers.schedules, "regularizers": gx.regularizers, "constraints": gx.constraints,
    "initializers": gx.initializers, "callbacks": gx.callbacks, "data": gx.data,
}  # fmt: skip
NEEDED = {
    "activation": "relu", "cell": layers.LSTMCell(2), "cells": [layers.LSTMCell(2)], "layer": layers.LSTM(2),
    "function": lambda x: x, "fn": gx.losses.mean_squared_error, "hooks": {}, "optimizer": gx.optimizers.SGD(),
    "groups": {}, "inner_optimizer": gx.optimizers.SGD(), "schedules": [0.1, 0.2], "schedule": lambda epoch: 0.1,
    "boundaries": [3], "values": [0.1, 0.2], "dims": (2, 1), "target_shape": (4,), "target_class_ids": [0],
    "factor": 0.2, "height_factor": 0.2, "width_factor": 0.2, "rate": 0.5, "stddev": 0.1, "scale": 2.0, "recall": 0.5,
    "backup_dir": "a", "filename": "a", "filepath": "a", "log_dir": "a", "precision": 0.5, "specificity": 0.5, "sensitivity": 0.5, "x": [[1, 2], [3]], "tokens": ["a"],
}  # fmt: skip
NUMBERS = (-1, 0, 1, 0.5, 2.5, math.nan, math.inf, True, "1")
TAKEN = {
    "int": (-1, 0, 1), "Natural": (0, 1), "Count": (1,), "float": (-1, 0, 1, 0.5, 2.5),
    "Extended": (-1, 0, 1, 0.5, 2.5, math.inf), "NonNegative": (0, 1, 0.5, 2.5), "Positive": (1, 0.5, 2.5),
    "Limit": (0, 1, 0.5, 2.5, math.inf), "Bound": (1, 0.5, 2.5, math.inf), "Part": (0, 1, 0.5),
    "LessThanAll": (0, 0.5), "bool": (0, 1, True, None), "str": ("1",), "None": (),
}  # fmt: skip


def public_classes():
    for group, module in GROUPS.items():
        for name in getattr(module, "__all__", dir(module)):
            cls = getattr(module, name)
            made_by_others = name in ("DirectoryBatches", "ImageBatches", "WordVectors")
            if inspect.isclass(cls) and not made_by_others and cls.__module__.startswith("graphc.frontend."):
                yield pytest.param(cls, id=f"{group}.{name}")


def arguments(cls):
    """The parameters that name nothing but kinds, by name, and values for those without a default."""
    parameters = [p for p in list(inspect.signature(cls.__init__).parameters.values())[1:] if p.kind in (1, 3)]
    needed = {p.name: NEEDED.get(p.name, 2) for p in parameters if p.default is p.empty}
    plain = {p.name: p.annotation.split(" | ") for p in parameters if isinstance(p.annotation, str)}
    return {name: words for name, words in plain.items() if all(word in TAKEN for word in words)}, needed


@pytest.mark.parametrize("cls", list(public_classes()))
def test_arguments_take_what_their_annotations_say(cls):
    """That nothing else is taken; and that what is taken is not refused for its type."""
    asked, needed = arguments(cls)
    for name, words in asked.items():
        taken = [value for word in words for value in TAKEN[word]]
        for value in (*NUMBERS, [1], object(), np.zeros(2)):
            if any(value is one or (type(value) is type(one) and value == one) for one in taken):
                continue
            with pytest.raises(gx.AxisError) as caught:
                cls(**{**needed, name: value})
            first, *_, last = str(caught.value).splitlines()
            assert first.startswith(f"{name} of {cls.__name__} is "), first
            assert "test_arguments.py:" in str(caught.value)
            assert last.startswith("to do: give "), last


def test_numbers_of_numpy_become_numbers_of_python():
    @checked
    def seen(a: int, b: float = 0.5, *, c: bool = False, d: int | list[float] | None = None, e: str | None = None):
        return a, b, c, d, e

    found = seen(np.int64(3), np.float32(0.25), c=np.True_, d=np.array([1.0, 2.0]), e=np.str_("x"))
    assert found == (3, 0.25, True, (1.0, 2.0), "x")
    assert [type(one) for one in found[:3]] == [int, float, bool]
    assert seen(np.array(2), 1, c=None, d=np.int8(1)) == (2, 1, False, 1, None)
    with pytest.raises(gx.AxisError, match="d of seen is 'x'") as caught:
        seen(1, d="x")
    assert caught.value.remedy == "give a whole number or a list, each a number or None"
    with pytest.raises(gx.DTypeError, match="seen does not take these arguments: missing a required argument: 'a'"):
        seen()
    with pytest.raises(gx.DTypeError, match="unexpected keyword argument 'f'"):
        seen(1, f=3)
    with pytest.raises(gx.DTypeError, match="multiple values for argument 'a'"):
        seen(1, a=2)
    with pytest.raises(gx.DTypeError, match="too many positional arguments"):
        seen(1, 2, 3)


@pytest.mark.parametrize("make", [gx.layers.Dropout, gx.layers.Masking, gx.optimizers.Adam])
def test_whole_numbers_beyond_all_floats_are_no_numbers(make):
    with pytest.raises(gx.errors.AxisError, match="1000"):
        make(10**400)


def test_annotations_of_users_are_theirs():
    class Named(layers.Dense):
        def __init__(self, units: str, **kwargs):
            super().__init__(int(units), **kwargs)

    assert Named(units=3).units == 3


def model(loss="mse", metrics=None, **compiled):
    made = Sequential([Input((4,)), layers.Dense(1)])
    made.compile("sgd", loss, metrics=metrics, backend="reference", **compiled)
    return made


def outputs(layer, x, **given):
    return gx.compile({"y": layer(gx.constant(x), **given)}, [], training=True, backend="reference")()["y"]


@pytest.mark.parametrize(("every", "when"), [([1, 3], [1, 3]), ((2,), [2]), (2, [2]), (np.int64(3), [3])])
def test_epochs_that_are_evaluated_may_be_named(every, when):
    seen = []
    hook = gx.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch + 1, "val_loss" in logs)))
    model().fit(X, T, epochs=3, validation_data=[X, T], validation_freq=every, callbacks=hook, verbose=0)
    assert [epoch for epoch, evaluated in seen if evaluated] == when


@pytest.mark.parametrize("layer", [layers.Dropout(1.0), layers.Dropout(1, (None, 1, 1)), layers.SpatialDropout1D(1.0)])
def test_all_may_be_dropped(layer):
    assert not outputs(layer, np.ones((2, 3, 4), np.float32)).any()


def test_a_cell_may_drop_all_of_its_inputs():
    x = np.ones((2, 3, 4), np.float32)
    assert not outputs(layers.SimpleRNN(2, dropout=1.0), x).any()


def test_inputs_may_be_given_with_the_batch_axis():
    assert Input(batch_shape=(None, 3)).type == Input((3,)).type
    assert Input(batch_shape=(2, None)).shape[0] == 2
    fixed = Sequential([Input(batch_shape=np.array([3, 4])), layers.Dense(1)])
    fixed.compile("sgd", "mse", backend="reference")
    assert fixed.predict(X, verbose=0).shape == (6, 1)


@pytest.mark.parametrize("number", [2.5, np.float32(2.5), np.array(2.5)])
def test_metrics_may_return_numbers(number):
    made = model(metrics=[lambda y_true, y_pred: number])
    assert made.evaluate(X, T, verbose=0)[1] == 2.5


MASK = np.array([[1, 1, 0], [1, 0, 1]])


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", [layers.LSTM, lambda *a, **k: layers.Bidirectional(layers.GRU(*a, **k))])
def test_masks_of_recurrent_layers_may_have_any_type(kind, return_sequences):
    layer = kind(2, return_sequences=return_sequences)
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    expected = outputs(layer, x, mask=MASK.astype(bool))
    assert np.abs(expected - outputs(layer, x)).max() > 1e-3
    each = MASK[..., None] * [[[1, 0]]]
    for mask in (MASK, MASK.tolist(), MASK.astype(np.float32), MASK.astype(np.uint8), MASK[..., None], each):
        np.testing.assert_array_equal(outputs(layer, x, mask=mask), expected)


def test_masks_that_are_computed_may_have_any_type():
    x, mask = Input((3, 4)), Input((3, 1), dtype="int64")
    whole = Model([x, mask], layers.LSTM(2)(layers.LSTM(2, return_sequences=True)(x, mask=mask)))
    whole.compile("sgd", "mse", backend="reference")
    given = np.ones((2, 3, 4), np.float32)
    first = whole.predict([given, MASK[..., None]], verbose=0)
    np.testing.assert_array_equal(first, whole.predict([given * MASK[..., None], MASK[..., None]], verbose=0))


def test_no_mask_may_be_said_to_any_layer():
    assert layers.Dense(3)(Input((4,)), mask=None).shape[1:] == (3,)


def test_a_subclassed_model_may_ask_for_a_mask_without_a_default():
    class Asking(Model):
        def __init__(self):
            super().__init__()
            self.scores = layers.Dense(2)

        def call(self, inputs, mask):
            assert mask is None
            return self.scores(inputs)

    asking = Asking()
    asking.compile("sgd", "mse", backend="reference")
    assert asking.predict(X, verbose=0).shape == (6, 2)
    assert Asking()(Input((4,))).shape[1:] == (2,)


def test_batches_may_be_lists_as_loaders_of_pytorch_yield_them():
    assert math.isfinite(model().fit(([X, T] for _ in range(2)), verbose=0).history["loss"][0])


def test_infinite_bounds_bound_nothing():
    parameter = gx.parameter("w", np.zeros(3, np.float32))
    for name in ("clipnorm", "clipvalue", "global_clipnorm"):
        optimizer = gx.optimizers.SGD(1.0, **{name: math.inf})
        gradient = gx.constant(np.float32([3, 4, 1e30]))
        gx.compile({}, [], updates=optimizer.updates([parameter], [gradient]), backend="reference")()
        np.testing.assert_array_equal(parameter.value, -np.float32([3, 4, 1e30]))
        parameter.value = np.zeros(3, np.float32)


def test_opsets_may_be_numbers_of_numpy(tmp_path):
    model().export(tmp_path / "m.onnx", opset=np.int64(18))
    x = gx.placeholder("x", ("n",))
    program = gx.compile({"y": x * 2.0}, [x], backend="reference")
    gx.onnx.export(program, tmp_path / "p.onnx", opset=np.int64(18))


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda: gx.data.one_hot([0], 2, "flaot"), gx.DTypeError, "dtype of one_hot is 'flaot'"),
        (lambda: gx.data.one_hot("a", 2), gx.DTypeError, "the ids of one_hot holds <U1"),
        (lambda: gx.data.pad_sequences([[1]], dtype=[1]), gx.DTypeError, r"dtype of pad_sequences is \[1\]"),
        (lambda: gx.data.BucketBatches(3), gx.ShapeError, "x is 3, y None"),
        (lambda: gx.data.BucketBatches([[1]], 3), gx.ShapeError, r"x is \[\[1\]\], y 3"),
        (lambda: gx.data.prefetch([1], depth="x"), gx.AxisError, "depth of prefetch is 'x'"),
        (lambda: gx.applications.LeNet5(input_tensor=3), gx.GraphError, "input_tensor is 3"),
        (lambda: model().set_weights(np.array(2)), gx.ShapeError, "2 weights, none were given"),
        (lambda: gx.losses.huber(Input((2,)), Input((2,)), delta=-1), gx.AxisError, "delta of huber is -1"),
        (lambda: gx.activations.elu(Input((2,)), alpha="x"), gx.AxisError, "alpha of elu is 'x'"),
        (lambda: gx.Perceptron(learning_rate=0), gx.AxisError, "learning_rate of Perceptron is 0"),
        (lambda: model().summary(layer_range=["a"]), gx.AxisError, "layer_range of summary"),
        (lambda: gx.compile({"y": gx.zeros(())}, [], backend=3), gx.BackendError, "3 is not a backend"),
    ],
)
def test_arguments_of_functions_and_data_are_asked_for(run, error, says):
    with pytest.raises(error, match=says) as caught:
        run()
    assert "test_arguments.py:" in str(caught.value), str(caught.value)
    assert "to do: " in str(caught.value)
