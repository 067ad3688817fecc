"""Rosenblatt's perceptron: both rules against each other and against NumPy, the theorem that it ends, its exports."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc as gx
from graphc.frontend.perceptron import Line


def separable(seed, count=40, inputs=2, margin=0.2):
    """Points on both sides of a line, none nearer to it than the margin."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(inputs)
    normal /= np.linalg.norm(normal)
    offset = rng.uniform(-0.3, 0.3)
    x = rng.uniform(-1, 1, (20 * count, inputs))
    x = x[np.abs(x @ normal + offset) > margin][:count]
    return x.astype(np.float32), (x @ normal + offset > 0).astype(int), np.append(normal, offset)


def by_hand(x, y, rate, first, epochs):
    """The trick as it is told: by cases, in single precision."""
    w, b = np.float32(first[:-1]), np.float32(first[-1])
    rate = np.float32(rate)
    for _ in range(epochs):
        for point, label in zip(x, y, strict=True):
            positive = (w * point).sum(dtype=np.float32) + b >= 0
            if label == 1 and not positive:
                w, b = w + rate * point, b + rate
            if label == 0 and positive:
                w, b = w - rate * point, b - rate
    return w, b


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [None, 0.01])
def test_both_rules_are_the_same_and_are_what_they_say(seed, rate):
    x, y, _ = separable(seed)
    first = np.float32([1.0, -2.0, 0.5])
    trick, delta = (
        gx.Perceptron(rule, rate, initializer=first, backend="reference").fit(x, y) for rule in ("trick", "delta")
    )
    w, b = by_hand(x, y, 1.0 if rate is None else rate, first, len(trick.mistakes))
    for neuron in (trick, delta):
        np.testing.assert_array_equal(neuron.weights.value, w)
        assert neuron.bias.value == b
        assert neuron.converged
        assert neuron.score(x, y) == 1.0
    assert trick.mistakes == delta.mistakes
    assert len(trick.lines) == 1 + sum(trick.mistakes)


@pytest.mark.parametrize("inputs", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_it_ends_after_no_more_mistakes_than_novikoff_allows(seed, inputs):
    """From zero, mistakes <= (R / margin)^2, with samples extended by a one and a separating vector of length 1."""
    x, y, plane = separable(seed, inputs=inputs)
    extended = np.c_[x.astype(np.float64), np.ones(len(x))]
    plane = plane / np.linalg.norm(plane)
    margin = np.min(np.abs(extended @ plane))
    bound = (np.linalg.norm(extended, axis=1).max() / margin) ** 2
    neuron = gx.Perceptron(backend="reference").fit(x, y)
    assert neuron.converged
    assert 0 < sum(neuron.mistakes) <= bound


def test_the_learning_rate_only_scales_what_begins_at_zero():
    x, y, _ = separable(3)
    whole, slow = (gx.Perceptron(learning_rate=rate, backend="reference").fit(x, y) for rate in (None, 0.25))
    assert whole.mistakes == slow.mistakes
    np.testing.assert_array_equal(whole.weights.value * np.float32(0.25), slow.weights.value)


def test_without_a_learning_rate_the_line_jumps():
    """A far sample throws the line about; a rate makes the same moves small."""
    x, y, _ = separable(1)
    x = np.r_[x * 10, x]
    y = np.r_[y, y]
    first = np.float32([-1, 1, 0])

    def longest_jump(rate):
        lines = gx.Perceptron("trick", rate, initializer=first, backend="reference").fit(x, y).lines
        vectors = [np.append(line.weights, line.bias) for line in lines]
        return max(np.linalg.norm(b - a) for a, b in itertools.pairwise(vectors))

    assert longest_jump(None) == pytest.approx(100 * longest_jump(0.01), rel=1.0)
    assert longest_jump(None) > 20 * longest_jump(0.01)


def test_xor_has_no_line():
    x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    neuron = gx.Perceptron(backend="reference").fit(x, y, epochs=50)
    assert not neuron.converged
    assert len(neuron.mistakes) == 50
    assert neuron.score(x, y) < 1.0


def test_labels_come_back_as_they_were_given():
    x = [[0.0, 0], [0, 1], [1, 0], [1, 1]]
    assert gx.Perceptron(backend="reference").fit(x, [-1, -1, -1, 1]).predict(x).tolist() == [-1, -1, -1, 1]
    assert gx.Perceptron(backend="reference").fit(x, [False, True, True, True]).predict(x).dtype == bool
    assert gx.Perceptron(backend="reference").fit(x, [1, 1, 1, 1]).predict(x).tolist() == [1] * 4


def test_the_order_comes_from_the_seed():
    x, y, _ = separable(2)

    def lines(seed):
        gx.set_seed(seed)
        neuron = gx.Perceptron(shuffle=True, initializer="normal", backend="reference").fit(x, y)
        return [line.bias for line in neuron.lines]

    assert lines(1) == lines(1)
    assert lines(1) != lines(2)


def test_numba_and_onnx_learn_alike(tmp_path):
    x, y, _ = separable(0)
    native, reference = (gx.Perceptron(backend=name).fit(x, y) for name in ("numba", "reference"))
    np.testing.assert_allclose(native.weights.value, reference.weights.value, rtol=1e-5)
    for training in (False, True):
        path = tmp_path / f"perceptron-{training}.onnx"
        native.export(path, training=training)
        assert gx.onnx.verify(path, native.programs["train" if training else "predict"]).ok


def test_lines_are_drawn_where_they_are():
    line = Line(np.array([2.0, -4.0]), 1.0)
    np.testing.assert_allclose(line.at([0.0, 1.0]), [0.25, 0.75])
    assert np.isnan(Line(np.array([1.0, 0.0]), 1.0).at(3.0))


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda: gx.Perceptron("hebb"), gx.AxisError, "no rule"),
        (lambda: gx.Perceptron(learning_rate=0), gx.AxisError, "greater than 0"),
        (lambda: gx.Perceptron(initializer="ones").fit([[1.0]], [1]), gx.AxisError, "no initializer"),
        (lambda: gx.Perceptron(initializer=[1.0]).fit([[1.0]], [1]), gx.ShapeError, "first weights"),
        (lambda: gx.Perceptron().fit([[1.0], [2.0]], [1]), gx.ShapeError, "y has 1"),
        (lambda: gx.Perceptron().fit([1.0], [1]), gx.ShapeError, "shape"),
        (lambda: gx.Perceptron().fit([[1.0], [2], [3]], [1, 2, 3]), gx.DTypeError, "3 labels"),
        (lambda: gx.Perceptron().predict([[1.0]]), gx.GraphError, "no data"),
        (lambda: gx.Perceptron().fit([[1.0]], [1]).predict([[1.0, 2.0]]), gx.ShapeError, "shape"),
    ],
)
def test_mistakes_are_told(run, error, says):
    with pytest.raises(error, match=says) as caught:
        run()
    assert "test_perceptron.py" in str(caught.value.at)
