"""Mistakes that are easily made with models: the message names them, shows the user's line and says what to do."""

from __future__ import annotations

import copy
import pickle
import re
import warnings

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from graphc.frontend.data.text_tokenizers import Tokenizer
from graphc.frontend.feeding import Feeding

X = np.ones((6, 4), np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


def classifier(loss="sparse_categorical_crossentropy", activation="softmax", **compiled):
    model = Sequential([Input((4,)), layers.Dense(3, activation=activation, name="scores")])
    model.compile("sgd", loss, backend="reference", **compiled)
    return model


class Passes(layers.Layer):
    """Takes any keyword that the base class takes."""

    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: layers.Dense(3, activaton="relu"), gx.AxisError, "Dense has no argument 'activaton'", "'activation'"),
        (lambda: Passes(nme="a"), gx.AxisError, "Passes has no argument 'nme'", "did you mean 'name'"),
        (lambda: layers.Dense(3, input_shape=(4,)), gx.AxisError, "no argument 'input_shape'", r"put Input\(\(...\)\)"),
        (lambda: layers.Dense(3, activation="rleu"), gx.GraphError, "no activation is called", "did you mean 'relu'"),
        (lambda: classifier("sparse_crossentropy"), gx.GraphError, "no loss", "or 'sparse_categorical_crossentropy'"),
        (lambda: classifier({"scores": "mes"}), gx.GraphError, "no loss is called 'mes'", "did you mean 'mse'"),
        (lambda: classifier(metrics=["acuracy"]), gx.GraphError, "no metric", "did you mean 'accuracy'"),
        (lambda: classifier(3).fit(X, Y), gx.GraphError, "3 is not a loss", "'mse'"),
        (lambda: classifier(metrics=[3]).fit(X, Y), gx.GraphError, "3 is not a metric", "'accuracy'"),
        (lambda: Sequential([layers.Dense]), gx.GraphError, "Dense is a class of layers", r"make one: Dense\(...\)"),
        (lambda: Sequential(layers.Dense(3), layers.Dense(2)), gx.AxisError, "layers of Sequential is <Dense", "layers="),
        (lambda: classifier().fit(X, np.eye(3)[Y]), gx.ShapeError, r"shape \(6, 3\)", "one-hot rows are for the loss cat"),
        (
            lambda: classifier("categorical_crossentropy").fit(X, Y),
            gx.ShapeError,
            r"shape \(6,\)",
            "class numbers are for the loss sparse_cat",
        ),
        (lambda: classifier().fit(X, Y, epochs=1.5), gx.AxisError, "epochs of fit is 1.5", "whole number"),
        (
            lambda: classifier().fit(X, Y, callbacks=[gx.callbacks.EarlyStopping]),
            gx.GraphError,
            "is not a callback",
            r"give an object: EarlyStopping\(...\)",
        ),
        (lambda: classifier().fit((X, Y)), gx.ShapeError, "ragged", r"fit\(x, y\)"),
    ],
)  # fmt: skip
def test_mistakes_are_told_on_the_line_that_makes_them(run, error, says, remedy):
    with pytest.raises(error, match=says) as caught:
        run()
    assert "test_mistakes.py:" in str(caught.value.at)
    assert re.search(remedy, caught.value.remedy)


def test_a_list_of_batches_is_told_from_an_iterable():
    model = Sequential([layers.Dense(1)])
    model.compile("sgd", "mse", backend="reference")
    with pytest.raises(gx.GraphcError) as caught:
        model.fit([(X, Y)], verbose=0)
    assert "test_mistakes.py:" in caught.value.at
    assert "or another iterable, not from a list" in caught.value.remedy


class Doubles(layers.Layer):
    """Doubles in training, as one would write it elsewhere."""

    def __init__(self):
        super().__init__()
        self.within = layers.Dropout(0.0)
        self.seen = []

    def call(self, x, training=None):
        self.seen.append(training)
        x = self.within(x, training=training)
        return x * 2.0 if training else x


def test_a_branch_on_training_is_refused_where_it_is_open():
    with pytest.raises(gx.GraphError, match="one graph serves both") as caught:
        Sequential([Input((4,)), Doubles()])
    assert "x * 2.0 if training else x" in caught.value.at
    assert "self.when_training(a, b)" in caught.value.remedy


def test_a_branch_on_training_is_refused_in_subclassed_models():
    class Net(Model):
        def call(self, x, training=None):
            return x * 2.0 if training else x

    model = Net()
    model.compile("sgd", "mse", backend="reference")
    with pytest.raises(gx.GraphError, match="one graph serves both"):
        model.fit(X, X, verbose=0)


@pytest.mark.parametrize("decided", [True, False])
def test_a_branch_on_training_follows_what_a_caller_decided(decided):
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Doubles()

        def call(self, x):
            return self.inner(x)

    x = gx.placeholder("x", ("batch", 4))
    for layer in (Doubles(), Outer()):
        program = gx.compile({"y": layer(x, training=decided)}, inputs=[x], backend="reference")
        np.testing.assert_array_equal(program(x=X)["y"], X * (2 if decided else 1))
    direct = Doubles()
    direct(x, decided)
    assert direct.seen == [decided]


def test_logits_for_a_loss_of_probabilities_are_warned_of_once():
    model = classifier(activation=None)
    with pytest.warns(UserWarning, match=r"'scores' of a linear layer is logits.*from_logits=True.*test_mistakes.py"):
        model.fit(X, Y, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.evaluate(X, Y, verbose=0)
        classifier().fit(X, Y, verbose=0)
        classifier(gx.losses.SparseCategoricalCrossentropy(from_logits=True), None).fit(X, Y, verbose=0)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_models_are_copied_by_their_files(duplicate):
    with pytest.raises(gx.GraphError, match="neither pickled nor copied") as caught:
        duplicate(classifier())
    assert "model.save" in caught.value.remedy


def test_parts_show_how_they_were_made():
    made = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert repr(made) == "SparseCategoricalCrossentropy(from_logits=True)"
    assert repr(gx.optimizers.Adam(0.1, beta_1=0.8)) == "Adam(learning_rate=0.1, beta_1=0.8)"


def test_mean_absolute_error_is_a_loss_and_a_metric():
    model = Sequential([Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mae", metrics=["mae"], backend="reference")
    y = np.float32([[1], [-2], [3], [0], [5], [9]])
    expected = np.abs(model.predict(X, verbose=0) - y).mean()
    np.testing.assert_allclose(model.evaluate(X, y, batch_size=4, verbose=0), [expected, expected], rtol=1e-6)
    kernel, bias = model.get_weights()
    assert np.abs(X @ kernel + bias - y).min() > 0.01
    model.train_on_batch(X, y)
    slope = np.sign(X @ kernel + bias - y).mean(0)
    np.testing.assert_allclose(model.get_weights()[1], bias - 0.01 * slope, rtol=1e-5)


def test_modules_can_be_imported_under_their_public_names():
    from graphc.layers import Dense
    from graphc.onnx import verify
    from graphc.optimizers import Adam

    assert Dense is layers.Dense
    assert Adam is gx.optimizers.Adam
    assert verify is gx.onnx.verify


class OwnTokenizer(Tokenizer):
    """Defines nothing."""


class OwnFeeding(Feeding):
    """Defines nothing."""


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        (lambda: OwnTokenizer().fit(["a"]), "OwnTokenizer does not define fit"),
        (lambda: OwnTokenizer().encode("a"), "OwnTokenizer does not define _encode"),
        (lambda: OwnTokenizer().decode([7]), "OwnTokenizer does not define _decode"),
        (lambda: OwnFeeding().run_layers([]), "OwnFeeding does not define run_layers"),
        (lambda: OwnFeeding().build_for_data(None), "OwnFeeding does not define build_for_data"),
    ],
)
def test_what_a_subclass_leaves_open_is_named(use, missing):
    with pytest.raises(NotImplementedError, match=f"^{missing}$"):
        use()
