"""Every metric against Keras 3: results after each of three batches, with and without weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import graphc as gx
from graphc import metrics

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::UserWarning")]

rng = np.random.default_rng(11)


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


N = 40
BITS = (rng.random((N, 3)) < 0.4).astype(np.float32)
P = rng.random((N, 3)).astype(np.float32)
P[::7] = np.round(P[::7])  # certain ones
BIT, ONE = BITS[:, 0], P[:, 0]
LABELS = rng.integers(0, 6, N)
ONE_HOT = np.eye(6, dtype=np.float32)[LABELS]
LOGITS = f32(N, 6) + 2 * ONE_HOT
CHANCES = softmax(LOGITS)
SAID = np.where(rng.random(N) < 0.5, LABELS, rng.integers(0, 6, N))
WEIGHT = rng.uniform(0, 2, N).astype(np.float32)
WHOLE = rng.integers(0, 3, N).astype(np.float32)
COUNTS = np.abs(f32(N, 3))
EVEN = [i / 20 for i in range(1, 20)]

CASES = [
    ("Accuracy", {}, LABELS.astype(np.float32), SAID.astype(np.float32)),
    ("BinaryAccuracy", {}, BITS, P),
    ("BinaryAccuracy", {"threshold": 0.2}, BITS, P),
    ("CategoricalAccuracy", {}, ONE_HOT, LOGITS),
    ("SparseCategoricalAccuracy", {}, LABELS, LOGITS),
    ("TopKCategoricalAccuracy", {"k": 2}, ONE_HOT, LOGITS),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, LABELS, LOGITS),
    ("MeanSquaredError", {}, f32(N, 3), P),
    ("RootMeanSquaredError", {}, f32(N, 3), P),
    ("MeanAbsoluteError", {}, f32(N, 3), P),
    ("MeanAbsolutePercentageError", {}, f32(N, 3), P),
    ("MeanSquaredLogarithmicError", {}, COUNTS, P),
    ("LogCoshError", {}, f32(N, 3), P),
    ("CosineSimilarity", {}, f32(N, 3), f32(N, 3)),
    ("R2Score", {}, f32(N, 3), f32(N, 3)),
    ("R2Score", {"class_aggregation": None}, f32(N, 3), f32(N, 3)),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, f32(N, 3), f32(N, 3)),
    ("R2Score", {"num_regressors": 2}, f32(N, 1), f32(N, 1)),  # of several columns Keras counts each as a sample
    ("KLDivergence", {}, softmax(f32(N, 6)), CHANCES),
    ("Poisson", {}, COUNTS, P + np.float32(0.1)),
    ("Hinge", {}, BITS, f32(N, 3)),
    ("SquaredHinge", {}, 2 * BITS - 1, f32(N, 3)),
    ("CategoricalHinge", {}, ONE_HOT, LOGITS),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, BITS, f32(N, 3)),
    ("CategoricalCrossentropy", {}, ONE_HOT, CHANCES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS, LOGITS),
    ("TruePositives", {}, BITS, P),
    ("FalsePositives", {"thresholds": [0.1, 0.6]}, BITS, P),
    ("TrueNegatives", {"thresholds": 0.3}, BIT, ONE),
    ("FalseNegatives", {"thresholds": [0.0, *EVEN, 1.0]}, BITS, P),
    ("Precision", {}, BITS, P),
    ("Precision", {"thresholds": [0.2, 0.9], "class_id": 1}, BITS, P),
    ("Precision", {"top_k": 2}, ONE_HOT, LOGITS),
    ("Recall", {}, BIT, ONE),
    ("Recall", {"top_k": 3, "class_id": 4}, ONE_HOT, LOGITS),
    ("AUC", {}, BIT, ONE),
    ("AUC", {"curve": "PR"}, BITS, P),
    ("AUC", {"curve": "PR", "summation_method": "minoring", "num_thresholds": 12}, BITS, P),
    ("AUC", {"summation_method": "majoring", "thresholds": [0.3, 0.1, 0.8]}, BITS, P),
    ("AUC", {"curve": "PRGAIN"}, BITS, P),
    ("AUC", {"multi_label": True, "num_labels": 3}, BITS, P),
    ("AUC", {"multi_label": True, "num_labels": 3, "label_weights": [1.0, 2.0, 0.5], "curve": "PR"}, BITS, P),
    ("AUC", {"from_logits": True}, BITS, f32(N, 3)),
    ("SensitivityAtSpecificity", {"specificity": 0.6}, BIT, ONE),
    ("SpecificityAtSensitivity", {"sensitivity": 0.4, "num_thresholds": 30}, BITS, P),
    ("PrecisionAtRecall", {"recall": 0.5}, BITS, P),
    ("RecallAtPrecision", {"precision": 0.3, "num_thresholds": 1}, BITS, P),
    ("FBetaScore", {"beta": 2.0}, ONE_HOT, LOGITS),
    ("FBetaScore", {"beta": 0.5, "average": "micro", "threshold": 0.4}, BITS, P),
    ("F1Score", {"average": "macro"}, ONE_HOT, LOGITS),
    ("F1Score", {"average": "weighted", "threshold": 0.6}, BITS, P),
    ("IoU", {"num_classes": 6, "target_class_ids": [1, 4]}, LABELS, SAID),
    ("MeanIoU", {"num_classes": 6, "ignore_class": 2}, LABELS, SAID),
    ("MeanIoU", {"num_classes": 6, "sparse_y_true": False, "sparse_y_pred": False}, ONE_HOT, LOGITS),
    ("MeanIoU", {"num_classes": 4}, LABELS, SAID),  # what is no class does not count
    ("BinaryIoU", {"threshold": 0.3}, BIT, ONE),
]  # fmt: skip


def steps(metric, batches):
    """The metric's result after each batch, in float64, as a program computes it."""
    nodes = [gx.placeholder(n, ("batch", *a.shape[1:]), a.dtype) for n, a in zip("ypw", batches[0], strict=False)]
    metric.build(nodes[1].type)
    step = gx.compile({}, inputs=nodes, updates=metric.update_state(*nodes), backend="reference")
    read = gx.compile({"r": metric.result()}, inputs=[], backend="reference")
    for batch in batches:
        step.call(list(batch))
        yield read()["r"]


@pytest.mark.parametrize(("name", "arguments", "y", "p"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_keras(name, arguments, y, p, weighted):
    theirs, ours = getattr(keras.metrics, name)(**arguments), getattr(metrics, name)(**arguments)
    weight = WHOLE if "IoU" in name else WEIGHT  # Keras counts whole weights there
    cuts = [slice(0, 17), slice(17, 30), slice(30, N)]
    batches = [(y[c], p[c], weight[c]) if weighted else (y[c], p[c]) for c in cuts]
    for batch, got in zip(batches, steps(ours, batches), strict=True):
        theirs.update_state(*batch)
        np.testing.assert_allclose(got, np.asarray(theirs.result()), rtol=2e-5, atol=2e-6)
    assert getattr(theirs, "_direction", None) in (None, ours.direction)
    ours.reset_state()
    theirs.reset_state()
    theirs.update_state(*batches[1])
    np.testing.assert_allclose(next(steps(ours, batches[1:2])), np.asarray(theirs.result()), rtol=2e-5, atol=2e-6)


def test_names_of_metrics_are_those_of_keras():
    from keras.src.metrics import ALL_OBJECTS_DICT

    absent = {"Metric", "MeanMetricWrapper", "PearsonCorrelation", "ConcordanceCorrelation", "OneHotIoU"}
    absent |= {"OneHotMeanIoU"}
    for cls in {cls for cls in ALL_OBJECTS_DICT.values() if cls.__name__ not in absent}:
        assert hasattr(metrics, cls.__name__), cls.__name__
    for name in ("mse", "mean_squared_error", "auc", "precision", "f1_score", "r2_score", "binary_crossentropy"):
        assert metrics.get(name).name == name
        assert keras.metrics.get(name) is not None
