"""What users of other libraries try: each mistake has one error, on the user's line, that ends with what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])
ROWS = np.eye(3, dtype=np.float32)[Y]


def classifier(loss="sparse_categorical_crossentropy", **compiled):
    model = Sequential([Input((4,)), layers.Dense(3, activation="softmax", name="scores")])
    model.compile("sgd", loss, backend="reference", **compiled)
    return model


def sequences(*shape):
    return Input(shape or (5, 8))


def attend(**arguments):
    x = sequences()
    return layers.MultiHeadAttention(2, 4)(x, x, **arguments)


class NoCall(Model):
    """A model without its one method."""


def check(run, error, says, remedy):
    with pytest.raises(error, match=says) as caught:
        run()
    text = str(caught.value)
    first, *_, last = text.splitlines()
    assert len(first) < 160, "the first line says what is wrong"
    assert "test_misuse.py:" in text, text
    assert last.startswith("to do: "), text
    assert re.search(remedy, last), text


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: layers.Conv2D(4, 3.5), gx.AxisError, "kernel_size is 3.5", "whole number"),
        (lambda: layers.MaxPooling2D((2, "2")), gx.AxisError, "pool_size", "whole number"),
        (lambda: layers.Dropout("0.5"), gx.AxisError, "rate of Dropout is the part that is dropped", "rate=0.5"),
        (lambda: layers.LSTM(4, dropout="x"), gx.AxisError, "dropout of LSTMCell is the part", "dropout=0.5"),
        (lambda: layers.LayerNormalization(epsilon=-1), gx.AxisError, "epsilon of LayerNormalization is -1", "0.001"),
        (lambda: layers.BatchNormalization(epsilon="x"), gx.AxisError, "epsilon of BatchNormalization", "0.001"),
        (lambda: layers.BatchNormalization(momentum="x"), gx.AxisError, "momentum is 'x'", "0.9"),
        (lambda: layers.RandomRotation("x"), gx.AxisError, "factor is 'x'", "give a number"),
        (lambda: layers.Reshape(4), gx.AxisError, "target_shape of Reshape is 4", r"Reshape\(\(4,\)\)"),
        (lambda: layers.Lambda("relu"), gx.GraphError, "Lambda takes a function, not 'relu'", "Activation"),
        (lambda: layers.Dense(3, activation=3), gx.GraphError, "3 is not an activation", "'relu'"),
        (lambda: layers.Dense(3, activation=layers.ReLU), gx.GraphError, "ReLU.*is not an activation", r"ReLU\(\)"),
        (
            lambda: layers.Dense(3, kernel_initializer=np.zeros((4, 3))),
            gx.GraphError,
            r"an array of float64 \(4, 3\) is not an initializer",
            r"Constant\(values\)",
        ),
        (lambda: layers.MultiHeadAttention(2, 4, rotary="yes"), gx.AxisError, "rotary of Multi.* is 'yes'", "True"),
        (
            lambda: layers.MultiHeadAttention(3, 3, rotary=True)(*[Input((5, 9))] * 2),
            gx.ShapeError,
            "even",
            "even size",
        ),
        (lambda: layers.RotaryEmbedding(max_wavelength="x"), gx.AxisError, "max_wavelength of Rotary", "above 1"),
        (lambda: gx.set_seed("abc"), gx.AxisError, "a seed is a whole number, not 'abc'", r"set_seed\(0\)"),
        (lambda: gx.set_seed(1.5), gx.AxisError, "a seed is a whole number, not 1.5", r"set_seed\(0\)"),
        (lambda: layers.Dense(3)(sequences(), sequences()), gx.DTypeError, "too many positional", r"layer\(inputs\)"),
        (lambda: layers.Dense(3)(x=sequences()), gx.DTypeError, "missing a required argument: 'inputs'", "inputs"),
        (lambda: layers.Dense(3)(sequences(), maks=1), gx.DTypeError, "unexpected keyword argument 'maks'", "inputs"),
        (
            lambda: layers.MultiHeadAttention(2, 4)(sequences()),
            gx.DTypeError,
            "'multi_head_attention.*missing a required argument: 'value'",
            r"layer\(query, value, key=...",
        ),
        (lambda: layers.Dense(3)([Input((4,)), Input((4,))]), gx.ShapeError, "takes one tensor", "Concatenate"),
        (
            lambda: attend(attention_mask=np.ones((4, 5), bool)),
            gx.ShapeError,
            r"mask bool\[1, 1, 4, 5\] does not fit scores",
            "queries, keys",
        ),
        (
            lambda: attend(attention_mask=np.where(np.tri(5) > 0, 0, -np.inf)),
            gx.DTypeError,
            "holds float64 other than 0 and 1",
            "mask == 0",
        ),
        (
            lambda: layers.LSTM(3)(sequences(), mask=Input((4,), dtype="bool")),
            gx.ShapeError,
            r"layer 'lstm.*the mask is bool\[batch, 4\], the sequences are f32\[batch, 5, 8\]",
            "where a step counts",
        ),
        (lambda: layers.GRU(3)(sequences(), mask=np.ones(5, bool)), gx.ShapeError, r"mask is bool\[5\]", "batch, time"),
        (lambda: layers.LSTM(3)(sequences(), mask=Input((5,))), gx.ShapeError, "mask is f32", "give bools"),
        (lambda: Sequential([Input((5, 3)), layers.LSTM(4), layers.LSTM(4)]), gx.ShapeError, "2 axes", "return_seq"),
        (lambda: Sequential([Input((4,)), "relu"]), gx.GraphError, "'relu' is not a layer", r"Activation\('relu'\)"),
        (lambda: Model(Input((4,)), X), gx.GraphError, r"output an array of float32 \(6, 4\)", "what layers return"),
        (lambda: Model(X, layers.Dense(2)(Input((4,)))), gx.GraphError, "an array.*is not an input", "gx.Input"),
        (
            lambda: classifier().get_layer(index="scores"),
            gx.NameClashError,
            "no layer 'scores'",
            "its layers are scores",
        ),
    ],
)
def test_what_is_wrong_with_a_layer_is_told_where_it_is_written(run, error, says, remedy):
    check(run, error, says, remedy)


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: classifier(metrics=["categorical_accuracy"]).fit(X, Y), gx.ShapeError, "no one-hot rows", "sparse_"),
        (
            lambda: classifier("categorical_crossentropy", metrics=["sparse_categorical_accuracy"]).fit(X, ROWS),
            gx.ShapeError,
            "no class numbers",
            "without 'sparse'",
        ),
        (lambda: classifier(metrics=[lambda t, p: 3]).fit(X, Y), gx.DTypeError, "metric '<lambda>' returned 3", "node"),
        (lambda: classifier(lambda t, p: None).fit(X, ROWS), gx.DTypeError, "loss '<lambda>' returned None", "node"),
        (lambda: classifier(lambda t, p: np.mean(t - p)).fit(X, ROWS), gx.DTypeError, "np.mean computes", "gx.mean"),
        (lambda: classifier(loss_weights=["a"]).fit(X, Y), gx.GraphError, "a factor of a loss is a number", "0.5"),
        (lambda: fit(NoCall()), gx.GraphError, "NoCall does not define call", "define call"),
    ],
)
def test_what_is_wrong_with_a_training_is_told(run, error, says, remedy):
    check(run, error, says, remedy)


def fit(model):
    model.compile("sgd", "mse", backend="reference")
    model.fit(X, ROWS, verbose=0)


HDF5, ZIP = b"\x89HDF\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(64)


@pytest.mark.parametrize(
    ("content", "says", "remedy"),
    [
        (HDF5, "is an HDF5 file, as Keras writes", r"set_weights\(arrays\)"),
        (ZIP, "is a zip file, as PyTorch and Keras write", r"set_weights\(arrays\)"),
        (b"", "cannot be read", "a copy that is whole"),
        (None, "is a folder, not a file of weights", "gx.load_model"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, says, remedy):
    path = tmp_path if content is None else tmp_path / "weights"
    if content is not None:
        path.write_bytes(content)
    check(lambda: classifier().load_weights(path), gx.FileError, says, remedy)


def test_a_file_is_no_saved_model(tmp_path):
    (tmp_path / "model.txt").write_text("a model")
    check(
        lambda: gx.load_model(tmp_path / "model.txt"),
        gx.FileError,
        "is a file, and a saved model is a folder",
        "folder",
    )


class Unknown(layers.Layer):
    """Known to nobody who reads a file."""

    def call(self, x):
        return x


def test_a_file_that_names_an_unknown_class_is_told_on_the_users_line(tmp_path):
    Sequential([Input((4,)), Unknown()]).save(tmp_path / "model")
    check(lambda: gx.load_model(tmp_path / "model"), gx.FileError, "names 'Unknown'", "custom_objects={'Unknown'")


def test_numbers_of_numpy_count_where_numbers_do():
    classes = Y.max() + 1
    model = Sequential([Input((np.int64(4),)), layers.Dense(classes), layers.Dropout(np.float32(0.5))])
    assert model.layers[0].units == 3
    assert type(model.layers[0].units) is int
    assert layers.Conv2D(classes, np.int64(3)).kernel_size == (3, 3)
    assert layers.Embedding(classes, classes).output_dim == 3


@pytest.mark.parametrize("mask", [np.tri(5, dtype=bool), np.tri(5), np.tri(5, dtype=np.int64)])
def test_masks_of_numpy_are_masks(mask):
    gx.set_seed(3)
    x = gx.placeholder("x", ("batch", 5, 8))
    layer = layers.MultiHeadAttention(2, 4)
    outputs = {"mask": layer(x, x, attention_mask=mask), "causal": layer(x, x, use_causal_mask=True)}
    found = gx.compile(outputs, inputs=[x], backend="reference")(
        x=np.random.default_rng(0).standard_normal((2, 5, 8), np.float32)
    )
    np.testing.assert_allclose(found["mask"], found["causal"], rtol=1e-5, atol=1e-6)


def test_a_mask_of_numpy_leaves_steps_of_a_recurrent_layer_out():
    x = gx.placeholder("x", ("batch", 5, 8))
    layer = layers.GRU(3)
    counts = np.array([[1, 1, 1, 0, 0]], bool)
    outputs = {"mask": layer(x, mask=counts), "short": layer(x[:, :3])}
    found = gx.compile(outputs, inputs=[x], backend="reference")(
        x=np.random.default_rng(0).standard_normal((2, 5, 8), np.float32)
    )
    np.testing.assert_allclose(found["mask"], found["short"], rtol=1e-5, atol=1e-6)
