"""Data that does not fit a model: the message names the input, the user's line and what to do; no weight changes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers

X = np.ones((6, 4), np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture(scope="module")
def one():
    model = Sequential([Input((4,), name="image"), layers.Dense(3, name="scores")])
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], backend="reference")
    return model


@pytest.fixture(scope="module")
def two():
    a, b = Input((4,), name="a"), Input((2,), name="b", dtype="int64")
    h = layers.Concatenate()([a, layers.Lambda(lambda v: gx.cast(v, "float32"))(b)])
    model = Model([a, b], [layers.Dense(1, name="left")(h), layers.Dense(1, name="right")(h)])
    model.compile("sgd", "mse", backend="reference")
    return model


B = np.ones((6, 2), np.int64)
T = np.ones((6, 1), np.float32)


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (lambda m: m.fit(X[:, :3], Y), gx.ShapeError, r"input 'image' is f32\[batch, 4\], the data has shape \(6, 3\)"),
        (lambda m: m.fit(X[0], Y), gx.ShapeError, r"'image'.*shape \(4,\)"),
        (lambda m: m.fit(X, Y[:5]), gx.ShapeError, "'image' has 6 samples, target 'scores' has 5"),
        (lambda m: m.train_on_batch(X, Y[:5]), gx.ShapeError, "'image' has 6 samples, target 'scores' has 5"),
        (lambda m: m.fit(X[:0], Y[:0]), gx.ShapeError, "'image' holds no samples"),
        (lambda m: m.predict(X[:0]), gx.ShapeError, "'image' holds no samples"),
        (lambda m: m.predict([[1, 2, 3, 4], [1, 2]]), gx.ShapeError, "'image' is ragged"),
        (lambda m: m.predict(np.array([["a"] * 4])), gx.DTypeError, "'image' holds <U1"),
        (lambda m: m.predict(X.astype(complex)), gx.DTypeError, "'image' holds complex128"),
        (lambda m: m.predict([None]), gx.DTypeError, "'image' holds object"),
        (lambda m: m.predict({"picture": X}), gx.ShapeError, "'image'.*'picture'"),
        (lambda m: m.fit(X, Y + 0.5), gx.DTypeError, "target 'scores' is i64.*float64 values"),
        (lambda m: m.fit(X, np.eye(3)[Y]), gx.ShapeError, r"target 'scores' is i64\[batch\].*\(6, 3\)"),
        (lambda m: m.fit(X), gx.GraphError, "targets for 'scores', y is missing"),
        (lambda m: m.fit(X, Y, batch_size=0), gx.AxisError, "batch_size"),
        (lambda m: m.fit(X, Y, batch_size=2.5), gx.AxisError, "batch_size"),
        (lambda m: m.fit(X, Y, validation_split=1.0), gx.AxisError, "validation_split"),
        (lambda m: m.fit(X[:1], Y[:1], validation_split=0.5), gx.ShapeError, "leaves none to train on"),
        (lambda m: m.fit(X, Y, validation_data=3), gx.GraphError, "validation_data"),
        (lambda m: m.fit((X for _ in range(2)), Y), gx.GraphError, "y must be left out"),
        (lambda m: m.fit(X for _ in range(2)), gx.GraphError, r"not a pair \(x, y\)"),
        (lambda m: m.fit(iter([(X, Y)]), validation_split=0.5), gx.GraphError, "validation_split needs arrays"),
        (lambda m: m.evaluate(iter([])), gx.ShapeError, "no batch"),
        (lambda m: m.predict(iter([])), gx.ShapeError, "no batch"),
        (lambda m: m.fit(X, Y + 1), gx.IndexRangeError, "3"),
        (lambda m: m.fit(X, Y - 1), gx.IndexRangeError, "-1"),
    ],
)
def test_data_that_does_not_fit_a_model_of_one_input(one, run, error, words):
    before = one.get_weights()
    with pytest.raises(error, match="(?s)" + words) as caught:
        run(one)
    text = str(caught.value)
    assert "test_bad_data.py:" in text, text
    assert "to do: " in text, text
    for old, new in zip(before, one.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (lambda m: m.fit([X], [T, T]), gx.ShapeError, r"2 inputs \(a, b\), the data has 1"),
        (lambda m: m.fit(X, [T, T]), gx.ShapeError, r"2 inputs \(a, b\), the data has 1"),
        (lambda m: m.fit([X, B], [T]), gx.ShapeError, r"2 outputs \(left, right\), the data has 1"),
        (lambda m: m.fit([X, B], T), gx.ShapeError, r"2 outputs \(left, right\), the data has 1"),
        (lambda m: m.fit([X, B + 0.5], [T, T]), gx.DTypeError, "'b' is i64.*int64 cannot hold"),
        (lambda m: m.fit([X, B.astype(float) * 1e30], [T, T]), gx.DTypeError, "'b'.*cannot hold"),
        (lambda m: m.fit([X, B[:5]], [T, T]), gx.ShapeError, "'a' has 6 samples, input 'b' has 5"),
        (lambda m: m.fit({"a": X, "c": B}, [T, T]), gx.ShapeError, "'b'.*'c'"),
        (lambda m: m.fit([X, B], {"left": T}), gx.ShapeError, "'right'"),
    ],
)
def test_data_that_does_not_fit_a_model_of_two_inputs(two, run, error, words):
    with pytest.raises(error, match="(?s)" + words) as caught:
        run(two)
    text = str(caught.value)
    assert "test_bad_data.py:" in text, text
    assert "to do: " in text, text


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("sgdd", "mse"), gx.GraphError, "no optimizer is called 'sgdd'"),
        (("sgd", "msee"), gx.GraphError, "no loss is called 'msee'"),
        (("sgd", ["mse"]), gx.GraphError, "1 entries, the model 2 outputs"),
        (("sgd", {"up": "mse"}), gx.GraphError, "output 'up'.*'left', 'right'"),
        (("sgd", "mse", None, {"up": ["mse"]}), gx.GraphError, "metrics names the output 'up'"),
        (("sgd", "mse", None, [["acuracy"], []]), gx.GraphError, "no metric is called 'acuracy'"),
        (("sgd", None), gx.GraphError, "has no loss"),
    ],
)
def test_what_a_model_cannot_be_compiled_for(arguments, error, words):
    a = Input((4,))
    model = Model(a, [layers.Dense(1, name="left")(a), layers.Dense(1, name="right")(a)])

    def run():
        model.compile(*arguments, backend="reference")
        model.fit(X, [T, T], verbose=0)

    with pytest.raises(error, match="(?s)" + words) as caught:
        run()
    assert "test_bad_data.py:" in str(caught.value)
    assert "to do: " in str(caught.value)


def test_a_model_that_was_not_compiled_says_so():
    model = Sequential([Input((4,)), layers.Dense(1)])
    for run in (lambda: model.fit(X, T), lambda: model.evaluate(X, T), lambda: model.train_on_batch(X, T)):
        with pytest.raises(gx.GraphError, match=r"(?s)not been compiled.*model.compile\("):
            run()
    model.compile("sgd", "mse", backend="fast")
    with pytest.raises(gx.BackendError, match="'fast'"):
        model.fit(X, T)


@pytest.mark.parametrize(
    "data",
    [
        X.astype(np.float64),
        X.astype(int),
        X.astype(np.uint8),
        X.astype(bool),
        X.tolist(),
        [X],
        {"image": X},
        X.T.copy().T,
    ],
)
def test_data_that_can_be_converted_is_converted(one, data):
    np.testing.assert_array_equal(one.predict(data, verbose=0), one.predict(X, verbose=0))


@pytest.mark.parametrize(
    "labels", [Y.astype(np.int32), Y.astype(np.uint8), Y.astype(np.float32), Y[:, None], Y.tolist(), [Y], {"scores": Y}]
)
def test_labels_that_can_be_converted_are_converted(one, labels):
    assert one.evaluate(X, labels, verbose=0) == one.evaluate(X, Y, verbose=0)


def test_targets_of_single_numbers_fit_one_unit():
    model = Sequential([Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse", backend="reference")
    assert model.evaluate(X, T[:, 0], verbose=0) == model.evaluate(X, T, verbose=0)


def test_a_fixed_batch_size():
    model = Sequential([Input((4,), batch_size=3), layers.Dense(1)])
    assert model.predict(X, verbose=0).shape == (6, 1)
    with pytest.raises(gx.ShapeError, match="fixed batch size 3"):
        model.predict(X[:5], batch_size=3, verbose=0)
