"""Losses and metrics against NumPy; known values; weights and masks."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import losses, metrics
from graphc.ir.types import DType, TensorType
from tests.frontend.running import evaluate, placeholder_for

rng = np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def value(loss, y, p, **extra):
    """The reduced loss of arrays; extra arrays are sample_weight and mask."""
    arrays = {"y": y, "p": p, **extra}
    nodes = {name: placeholder_for(name, array) for name, array in arrays.items()}
    node = loss(nodes.pop("y"), nodes.pop("p"), **nodes)
    feeds = [leaf for leaf in _leaves(node)]
    (result,) = evaluate([node], [(leaf, arrays[leaf.name]) for leaf in feeds])
    return result


def _leaves(node):
    from graphc.ir.node import topological

    return [n for n in topological([node]) if n.op.name == "input"]


LOGITS = rng.standard_normal((6, 4))
PROBABILITIES = softmax(LOGITS)
LABELS = np.array([0, 3, 1, 1, 2, 0])
ONE_HOT = np.eye(4)[LABELS]
P = rng.uniform(0.05, 0.95, (6, 3))
BITS = rng.integers(0, 2, (6, 3)).astype(float)
BCE = -(BITS * np.log(P) + (1 - BITS) * np.log(1 - P))
ROWS = -np.log(PROBABILITIES[np.arange(6), LABELS])


@pytest.mark.parametrize(
    ("loss", "y", "p", "rows"),
    [
        (losses.MeanSquaredError, BITS, P, ((BITS - P) ** 2).mean(-1)),
        (losses.BinaryCrossentropy, BITS, P, BCE.mean(-1)),
        (lambda **k: losses.BinaryCrossentropy(from_logits=True, **k), BITS, np.log(P / (1 - P)), BCE.mean(-1)),
        (losses.CategoricalCrossentropy, ONE_HOT, PROBABILITIES, ROWS),
        (lambda **k: losses.CategoricalCrossentropy(from_logits=True, **k), ONE_HOT, LOGITS, ROWS),
        (losses.SparseCategoricalCrossentropy, LABELS, PROBABILITIES, ROWS),
        (lambda **k: losses.SparseCategoricalCrossentropy(from_logits=True, **k), LABELS, LOGITS, ROWS),
    ],
)
def test_losses_in_each_reduction(loss, y, p, rows):
    np.testing.assert_allclose(value(loss(), y, p), rows.mean(), rtol=1e-6)
    np.testing.assert_allclose(value(loss(reduction="sum"), y, p), rows.sum(), rtol=1e-6)
    np.testing.assert_allclose(value(loss(reduction="none"), y, p), rows, rtol=1e-6)
    weight = rng.uniform(size=6)
    np.testing.assert_allclose(value(loss(), y, p, sample_weight=weight), (rows * weight).mean(), rtol=1e-6)
    mask = np.array([1, 1, 0, 1, 0, 0], bool)
    np.testing.assert_allclose(value(loss(), y, p, mask=mask), rows[mask].mean(), rtol=1e-6)


def test_the_values_of_the_lecture():
    one = np.ones((1, 1))
    assert value(losses.BinaryCrossentropy(), one, one * 0.9) == pytest.approx(0.105, abs=5e-4)
    assert value(losses.BinaryCrossentropy(), one, one * 0.1) == pytest.approx(2.303, abs=5e-4)


def test_label_smoothing():
    y = BITS * 0.8 + 0.1
    expected = -(y * np.log(P) + (1 - y) * np.log(1 - P)).mean()
    np.testing.assert_allclose(value(losses.BinaryCrossentropy(label_smoothing=0.2), BITS, P), expected, rtol=1e-6)
    y = ONE_HOT * 0.8 + 0.05
    expected = -(y * np.log(PROBABILITIES)).sum(-1).mean()
    loss = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    np.testing.assert_allclose(value(loss, ONE_HOT, LOGITS), expected, rtol=1e-6)


@pytest.mark.parametrize(("from_logits", "given"), [(True, LOGITS), (False, PROBABILITIES)])
def test_label_smoothing_of_class_numbers_is_that_of_one_hot_rows(from_logits, given):
    labels = ONE_HOT.argmax(-1)
    same = losses.CategoricalCrossentropy(from_logits, label_smoothing=0.2)
    loss = losses.SparseCategoricalCrossentropy(from_logits, label_smoothing=0.2)
    np.testing.assert_allclose(value(loss, labels, given), value(same, ONE_HOT, given), rtol=1e-6)
    loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class=1, label_smoothing=0.2)
    keep = labels != 1
    np.testing.assert_allclose(value(loss, labels, given), value(same, ONE_HOT[keep], given[keep]), rtol=1e-6)


def test_an_ignored_class_does_not_count():
    labels = np.array([0, -1, 1, -1, 2, 0])
    keep = labels >= 0
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    expected = -np.log(PROBABILITIES[keep, labels[keep]]).mean()
    np.testing.assert_allclose(value(loss, labels, LOGITS), expected, rtol=1e-6)


def test_classes_on_another_axis():
    logits = rng.standard_normal((5, 4, 2))
    labels = rng.integers(0, 4, (5, 2))
    p = softmax(logits.transpose(0, 2, 1))
    expected = -np.log(np.take_along_axis(p, labels[..., None], -1)).mean()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, axis=1)
    np.testing.assert_allclose(value(loss, labels, logits), expected, rtol=1e-6)
    assert loss.target_type(TensorType(DType.float32, (5, 4, 2))).shape == (5, 2)


def test_functions_are_losses():
    loss = losses.get(lambda y, p: gx.abs(y - p))
    np.testing.assert_allclose(value(loss, BITS, P), np.abs(BITS - P).mean(), rtol=1e-6)


def test_names_of_losses():
    for name in ("mse", "mean_squared_error", "MeanSquaredError"):
        assert isinstance(losses.get(name), losses.MeanSquaredError)
    assert losses.get("sparse_categorical_crossentropy").from_logits is False
    with pytest.raises(gx.GraphError, match=r"no loss is called 'msee'"):
        losses.get("msee")
    with pytest.raises(gx.AxisError, match="reduction"):
        losses.MeanSquaredError(reduction="average")


def results(metric, batches):
    """The metric after each of some batches (y, p, and maybe weights), as a program computes it."""
    nodes = [placeholder_for(name, array) for name, array in zip("ypw", batches[0], strict=False)]
    new = metric.update_state(*nodes)
    program = gx.compile({"r": metric.result()}, inputs=[], backend="reference")
    step = gx.compile({}, inputs=nodes, updates=new, backend="reference")
    found = []
    for batch in batches:
        step.call(list(batch))
        found.append(float(program()["r"]))
    return found


@pytest.mark.parametrize(
    ("make", "y", "p", "hits"),
    [
        (metrics.SparseCategoricalAccuracy, LABELS, LOGITS, LOGITS.argmax(-1) == LABELS),
        (metrics.CategoricalAccuracy, ONE_HOT, LOGITS, LOGITS.argmax(-1) == LABELS),
        (metrics.BinaryAccuracy, BITS, P, (P > 0.5) == BITS),
        (lambda: metrics.BinaryAccuracy(threshold=0.2), BITS, P, (P > 0.2) == BITS),
        (metrics.MeanSquaredError, BITS, P, ((BITS - P) ** 2).mean(-1)),
        (lambda: metrics.get(lambda y, p: gx.abs(y - p)), BITS, P, np.abs(BITS - P)),
    ],
)
def test_metrics_over_batches_of_unequal_size(make, y, p, hits):
    metric = make()
    first, second = results(metric, [(y[:4], p[:4]), (y[4:], p[4:])])
    assert first == pytest.approx(hits[:4].mean(), rel=1e-6)
    assert second == pytest.approx(hits.mean(), rel=1e-6)
    metric.reset_state()
    assert results(metric, [(y[:2], p[:2])]) == pytest.approx([hits[:2].mean()], rel=1e-6)


def test_metrics_with_weights():
    weight = np.array([1, 0, 2, 0, 0.5, 1])
    hits = LOGITS.argmax(-1) == LABELS
    (got,) = results(metrics.SparseCategoricalAccuracy(), [(LABELS, LOGITS, weight)])
    assert got == pytest.approx((hits * weight).sum() / weight.sum())


def test_counts_stay_exact_beyond_single_precision():
    metric = metrics.SparseCategoricalAccuracy()
    metric.total.value = metric.count.value = np.float64(2**24 + 1)
    results(metric, [(LABELS[:1], np.eye(4)[LABELS[:1]])])
    assert metric.total.value == 2**24 + 2


@pytest.mark.parametrize(
    ("target", "output", "kind"),
    [
        (("batch",), ("batch", 10), metrics.SparseCategoricalAccuracy),
        (("batch", 10), ("batch", 10), metrics.CategoricalAccuracy),
        (("batch", 1), ("batch", 1), metrics.BinaryAccuracy),
        (("batch",), ("batch", 1), metrics.BinaryAccuracy),
        (("batch", 5), ("batch", 5, 7), metrics.SparseCategoricalAccuracy),
    ],
)
def test_accuracy_is_the_one_that_suits_the_targets(target, output, kind):
    metric = metrics.get("accuracy", TensorType(DType.int64, target), TensorType(DType.float32, output))
    assert type(metric) is kind
    assert metric.name == "accuracy"


def test_a_metric_of_the_user_with_state():
    class Largest(metrics.Metric):
        def __init__(self):
            super().__init__("largest")
            self.seen = self.add_variable(initializer=gx.initializers.Constant(-1e30), name="seen")

        def update_state(self, y_true, y_pred, sample_weight=None):
            return {self.seen: gx.maximum(self.seen, gx.max(y_pred))}

        def result(self):
            return self.seen + 0.0

    metric = Largest()
    assert results(metric, [(BITS, P), (BITS, P * 0.1)]) == [P.max(), P.max()]
    metric.reset_state()
    assert metric.seen.value == -1e30
