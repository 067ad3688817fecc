"""Metrics against their definitions, counted one by one in NumPy, over batches, with weights, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import metrics

rng = np.random.default_rng(4)
N = 30
BITS, P = (rng.random((N, 2)) < 0.4).astype(np.float32), rng.random((N, 2)).astype(np.float32)
LABELS, LOGITS = rng.integers(0, 4, N), rng.standard_normal((N, 4)).astype(np.float32)
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
CHANCE = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
SAID = LOGITS.argmax(-1)
WEIGHT = rng.uniform(0, 0.1, N)  # all of them together count less than once


def results(metric, *arrays, cuts=((0, 11), (11, N)), backend="reference"):
    """The result after each batch, and after a reset and the first batch again."""
    nodes = [gx.placeholder(n, ("batch", *a.shape[1:]), a.dtype) for n, a in zip("ypw", arrays, strict=False)]
    metric.build(nodes[1].type)
    step = gx.compile({}, inputs=nodes, updates=metric.update_state(*nodes), backend=backend)
    read = gx.compile({"r": metric.result()}, inputs=[], backend=backend)
    found = []
    for start, stop in cuts:
        step.call([array[start:stop] for array in arrays])
        found.append(read()["r"])
    metric.reset_state()
    step.call([array[cuts[0][0] : cuts[0][1]] for array in arrays])
    np.testing.assert_array_equal(read()["r"], found[0])
    return found


def above(y, p, w, t):
    """Weights of true and false positives and negatives."""
    said, is_so = p > t, y > 0
    return [w[mask].sum() for mask in (said & is_so, said & ~is_so, ~said & ~is_so, ~said & is_so)]


def precision(y, p, w, t=0.5):
    tp, fp, _, _ = above(y, p, w, t)
    return tp / (tp + fp)


def recall(y, p, w, t=0.5):
    tp, _, _, fn = above(y, p, w, t)
    return tp / (tp + fn)


def pairs(y, p, w):
    """The area under the ROC: how often a positive is above a negative."""
    yes, no = y > 0, y <= 0
    higher = (p[yes][:, None] > p[no]) + 0.5 * (p[yes][:, None] == p[no])
    return (w[yes][:, None] * w[no] * higher).sum() / (w[yes].sum() * w[no].sum())


def iou(y, said, w):
    parts = [(w[(y == c) & (said == c)].sum(), w[(y == c) | (said == c)].sum()) for c in range(4)]
    return np.mean([common / union for common, union in parts if union])


def matrix(y, said, w):
    return [[w[(y == a) & (said == b)].sum() for b in range(4)] for a in range(4)]


def f1(y, p, w):
    said = p.argmax(-1)
    scores = []
    for c in range(4):
        tp, rest = w[(y[:, c] > 0) & (said == c)].sum(), w[(y[:, c] > 0) != (said == c)].sum()
        scores.append(2 * tp / (2 * tp + rest) if tp else 0)
    return scores


def r2(y, p, w):
    mean = (w * y).sum() / w.sum()
    return 1 - (w * (y - p) ** 2).sum() / (w * (y - mean) ** 2).sum()


def flat(of):
    """A formula of flat arrays, for rows of two labels."""
    return lambda y, p, w: of(y.ravel(), p.ravel(), np.repeat(w, 2))


def mean(of):
    return lambda y, p, w: (of(y, p) * w).sum() / w.sum()


ROWS = np.arange(N)
CASES = [
    (lambda: metrics.Precision(), BITS, P, flat(precision)),
    (lambda: metrics.Recall(0.3), BITS, P, flat(lambda y, p, w: recall(y, p, w, 0.3))),
    (lambda: metrics.Recall([0.2, 0.7], class_id=1), BITS, P,
     lambda y, p, w: [recall(y[:, 1], p[:, 1], w, t) for t in (0.2, 0.7)]),
    (lambda: metrics.TrueNegatives([i / 20 for i in range(21)]), BITS, P,
     flat(lambda y, p, w: [above(y, p, w, np.float32(i / 20))[2] for i in range(21)])),
    (lambda: metrics.FalsePositives(), BITS, P, flat(lambda y, p, w: above(y, p, w, 0.5)[1])),
    (lambda: metrics.AUC(20001), BITS, P, flat(pairs)),
    (lambda: metrics.F1Score(), ONE_HOT, LOGITS, f1),
    (lambda: metrics.F1Score("macro"), ONE_HOT, LOGITS, lambda y, p, w: np.mean(f1(y, p, w))),
    (lambda: metrics.MeanIoU(4), LABELS, SAID, iou),
    (lambda: metrics.ConfusionMatrix(4), LABELS, LOGITS, lambda y, p, w: matrix(y, p.argmax(-1), w)),
    (lambda: metrics.SparseTopKCategoricalAccuracy(2), LABELS, LOGITS,
     mean(lambda y, p: (np.argsort(-p)[:, :2] == y[:, None]).any(-1))),
    (lambda: metrics.TopKCategoricalAccuracy(3), ONE_HOT, LOGITS,
     mean(lambda y, p: (np.argsort(-p)[:, :3] == y.argmax(-1)[:, None]).any(-1))),
    (lambda: metrics.RootMeanSquaredError(), BITS, P, lambda y, p, w: np.sqrt(mean(lambda y, p: ((y - p) ** 2).mean(-1))(y, p, w))),
    (lambda: metrics.R2Score(), BITS, P, lambda y, p, w: np.mean([r2(y[:, i], p[:, i], w) for i in (0, 1)])),
    (lambda: metrics.Perplexity(), LABELS, CHANCE, lambda y, p, w: np.exp(mean(lambda y, p: -np.log(p[np.arange(len(y)), y]))(y, p, w))),
    (lambda: metrics.Mean(), BITS, P, mean(lambda y, p: p.mean(-1))),
    (lambda: metrics.Sum(), BITS, P, lambda y, p, w: (p * w[:, None]).sum()),
]  # fmt: skip


@pytest.mark.parametrize(("make", "y", "p", "formula"), CASES)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alone", "weighted"])
def test_metrics_are_their_definitions(make, y, p, formula, weight):
    arrays = (y, p) if weight is None else (y, p, weight)
    first, both = results(make(), *arrays)
    w = np.ones(N) if weight is None else weight
    wide = p if p.dtype.kind == "i" else p.astype(np.float64)
    for got, rows in ((first, slice(0, 11)), (both, slice(0, N))):
        np.testing.assert_allclose(got, formula(y[rows], wide[rows], w[rows]), rtol=3e-6, atol=1e-12)


def test_metrics_run_natively():
    for make, y, p, formula in (CASES[0], CASES[5], CASES[9]):
        (got,) = results(make(), y, p, cuts=((0, N),), backend="numba")
        np.testing.assert_allclose(got, formula(y, p.astype(np.float64), np.ones(N)), rtol=3e-6)


@pytest.mark.parametrize("make", [case[0] for case in CASES] + [lambda: metrics.AUC(curve="PR")])
def test_weights_of_zero_give_numbers(make):
    y, p = next((case[1], case[2]) for case in CASES if case[0] is make) if make in [c[0] for c in CASES] else (BITS, P)
    for got in results(make(), y, p, np.zeros(N)):
        assert np.isfinite(got).all()


def test_edges_of_metrics():
    nothing = np.full((4, 2), np.nan, np.float32)
    assert results(metrics.TruePositives(), np.ones((4, 2), np.float32), nothing, cuts=((0, 4),)) == [0]
    assert (
        results(metrics.FalseNegatives([i / 20 for i in range(21)]), np.ones((4, 2)), nothing, cuts=((0, 4),))[0][0]
        == 8
    )
    ends = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    assert results(metrics.AUC(), ends, ends, cuts=((0, 2),)) == [1]
    assert results(metrics.AUC(), 1 - ends, ends, cuts=((0, 2),)) == [0]
    constant = np.ones((4, 1), np.float32)
    assert results(metrics.R2Score(), constant, constant, cuts=((0, 4),)) == [1]
    assert results(metrics.R2Score(), constant, 2 * constant, cuts=((0, 4),)) == [0]
    labels, ignored = np.array([0, 1, -1, 2]), metrics.Perplexity(ignore_class=-1)
    (got,) = results(ignored, labels, np.full((4, 4), 0.25, np.float32), cuts=((0, 4),))
    assert got == pytest.approx(4)
    ties = np.zeros((1, 4), np.float32)
    assert results(metrics.Recall(top_k=2), np.eye(4)[[2]], ties, cuts=((0, 1),)) == [0]  # the first two are taken
    assert results(metrics.Recall(top_k=3), np.eye(4)[[2]], ties, cuts=((0, 1),)) == [1]


def test_wrong_arguments_of_metrics_are_refused():
    for make, words in (
        (lambda: metrics.Precision(thresholds=1.5), "from 0 to 1"), (lambda: metrics.AUC(curve="ROCK"), "ROC, PR"),
        (lambda: metrics.AUC(1), "at least 2"), (lambda: metrics.F1Score("mean"), "macro"),
        (lambda: metrics.FBetaScore(beta=0), "beta"), (lambda: metrics.IoU(3, [3]), "class 3"),
        (lambda: metrics.R2Score("sum"), "uniform_average"), (lambda: metrics.get("mean_iou"), "no metric"),
        (lambda: metrics.get("precision_at_recall"), "needs arguments"),
        (lambda: metrics.F1Score().build(gx.TensorType(gx.DType.float32, (4, 2, 2))), "two axes"),
    ):  # fmt: skip
        with pytest.raises(gx.GraphcError) as caught:
            make()
        assert words in str(caught.value)


def test_metrics_with_several_values_in_training_logs():
    x = rng.standard_normal((N, 3)).astype(np.float32)
    model = gx.Sequential([gx.Input((3,)), gx.layers.Dense(4, activation="softmax")])
    chosen = [
        metrics.F1Score(),
        metrics.ConfusionMatrix(4, sparse_y_true=False),
        "auc",
        "top_k",
        metrics.AUC(multi_label=True, name="auc_labels"),
    ]
    model.compile("sgd", "categorical_crossentropy", metrics=chosen)
    history = model.fit(x, ONE_HOT, epochs=2, verbose=2, validation_split=0.2).history
    assert history["f1_score"][0].shape == (4,)
    assert history["confusion_matrix"][1].sum() == 24
    assert history["val_confusion_matrix"][1].sum() == 6
    assert history["top_k"] == [1, 1]
    assert 0 < history["auc"][1] < 1
    found = model.evaluate(x, ONE_HOT, return_dict=True, verbose=0)
    p = model.predict(x, verbose=0)
    np.testing.assert_allclose(found["confusion_matrix"], matrix(LABELS, p.argmax(-1), np.ones(N)))
