"""Every loss against its formula in double precision, its gradient by differences, and at the edges of its domain."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import losses

rng = np.random.default_rng(2)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def run(loss, y, p, dtype="float64", backend="reference", **weights):
    """The loss and its gradient by the predictions."""
    arrays = {"y": y, "p": np.asarray(p, dtype), **weights}
    nodes = {name: gx.placeholder(name, ("batch", *np.shape(a)[1:]), a.dtype) for name, a in arrays.items()}
    extra = {"sample_weight": nodes["w"]} if "w" in nodes else {}
    extra |= {"mask": nodes["m"]} if "m" in nodes else {}
    value = loss(nodes["y"], nodes["p"], **extra)
    (slope,) = gx.grad(gx.sum(value) if value.ndim else value, [nodes["p"]])
    return gx.compile({"v": value, "g": slope}, list(nodes.values()), backend=backend).call(list(arrays.values()))


Y, P = rng.standard_normal((5, 4)), rng.standard_normal((5, 4))
BITS, CHANCE = (rng.random((5, 4)) < 0.5).astype(float), rng.uniform(0.05, 0.95, (5, 4))
SIGNS = 2 * BITS - 1
LABELS = rng.integers(0, 4, 5)
ONE_HOT = np.eye(4)[LABELS]
COUNTS, EXPECTED = rng.uniform(0.1, 5, (5, 4)), rng.uniform(0.1, 5, (5, 4))


def huber(y, p, d):
    e = np.abs(y - p)
    return np.where(e <= d, e**2 / 2, d * e - d**2 / 2).mean(-1)


def cosine(y, p):
    return -(y * p).sum(-1) / np.linalg.norm(y, axis=-1) / np.linalg.norm(p, axis=-1)


def binary_focal(y, p, gamma, alpha=None):
    p_t = np.where(y == 1, p, 1 - p)
    factor = 1 if alpha is None else np.where(y == 1, alpha, 1 - alpha)
    return (-factor * (1 - p_t) ** gamma * np.log(p_t)).mean(-1)


def focal(y, p, gamma, alpha):
    return -(np.asarray(alpha) * y * (1 - p) ** gamma * np.log(p)).sum(-1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ALPHA = [0.1, 0.9, 0.3, 0.4]
CASES = [
    (losses.MeanSquaredError(), Y, P, lambda y, p: ((y - p) ** 2).mean(-1)),
    (losses.MeanAbsoluteError(), Y, P, lambda y, p: np.abs(y - p).mean(-1)),
    (losses.MeanAbsolutePercentageError(), COUNTS, P, lambda y, p: 100 * np.abs((y - p) / y).mean(-1)),
    (losses.MeanSquaredLogarithmicError(), COUNTS, EXPECTED, lambda y, p: (np.log((1 + y) / (1 + p)) ** 2).mean(-1)),
    (losses.Huber(), 2 * Y, P, lambda y, p: huber(y, p, 1.0)),
    (losses.Huber(delta=0.2), Y, P, lambda y, p: huber(y, p, 0.2)),
    (losses.LogCosh(), 3 * Y, P, lambda y, p: np.log(np.cosh(y - p)).mean(-1)),
    (losses.CosineSimilarity(), Y, P, cosine),
    (losses.Hinge(), SIGNS, P, lambda y, p: np.maximum(1 - y * p, 0).mean(-1)),
    (losses.Hinge(), BITS, P, lambda y, p: np.maximum(1 - (2 * y - 1) * p, 0).mean(-1)),
    (losses.SquaredHinge(), SIGNS, P, lambda y, p: (np.maximum(1 - y * p, 0) ** 2).mean(-1)),
    (losses.CategoricalHinge(), ONE_HOT, P,
     lambda y, p: np.maximum(1 + ((1 - y) * p).max(-1) - (y * p).sum(-1), 0)),
    (losses.KLDivergence(), softmax(Y), softmax(P), lambda y, p: (y * np.log(y / p)).sum(-1)),
    (losses.Poisson(), COUNTS, EXPECTED, lambda y, p: (p - y * np.log(p + 1e-7)).mean(-1)),
    (losses.BinaryFocalCrossentropy(gamma=3.0), BITS, CHANCE, lambda y, p: binary_focal(y, p, 3.0)),
    (losses.BinaryFocalCrossentropy(True, alpha=0.3, gamma=0.5, from_logits=True), BITS, P,
     lambda y, p: binary_focal(y, sigmoid(p), 0.5, 0.3)),
    (losses.CategoricalFocalCrossentropy(), ONE_HOT, CHANCE, lambda y, p: focal(y, p, 2.0, 0.25)),
    (losses.CategoricalFocalCrossentropy(ALPHA, 1.5, True), ONE_HOT, P, lambda y, p: focal(y, softmax(p), 1.5, ALPHA)),
    (losses.Dice(axis=-1), BITS, CHANCE, lambda y, p: 1 - 2 * (y * p).sum(-1) / (y.sum(-1) + p.sum(-1) + 1e-7)),
    (losses.Tversky(0.3, 0.6, axis=-1), BITS, CHANCE, lambda y, p: 1 - (y * p).sum(-1)
     / ((y * p).sum(-1) + 0.3 * ((1 - p) * y).sum(-1) + 0.6 * (p * (1 - y)).sum(-1) + 1e-7)),
    (losses.CategoricalGeneralizedCrossEntropy(0.7), LABELS, CHANCE,
     lambda y, p: (1 - p[np.arange(5), y] ** 0.7) / 0.7),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "y", "p", "formula"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_values_are_the_formulas_and_gradients_their_differences(loss, y, p, formula):
    value, slope = run(loss, y, p)
    np.testing.assert_allclose(value, formula(y, p).mean(), rtol=1e-12)
    d = rng.standard_normal(p.shape)
    numeric = (formula(y, p + 1e-6 * d).mean() - formula(y, p - 1e-6 * d).mean()) / 2e-6
    np.testing.assert_allclose((slope * d).sum(), numeric, rtol=2e-7, atol=1e-9)


def test_all_losses_in_single_precision_and_native_code():
    """One program of all of them."""
    inputs, outputs, arrays, expected = [], {}, [], []
    for i, (loss, y, p, formula) in enumerate(CASES):
        narrow = y if y.dtype.kind == "i" else y.astype(np.float32)
        nodes = [gx.placeholder(f"{n}{i}", a.shape, a.dtype) for n, a in (("y", narrow), ("p", p.astype(np.float32)))]
        inputs += nodes
        arrays += [narrow, p.astype(np.float32)]
        outputs[f"l{i}"] = loss(*nodes)
        expected.append(formula(y, p).mean())
    np.testing.assert_allclose(gx.compile(outputs, inputs, backend="numba").call(arrays), expected, rtol=3e-6)


EXTREMES = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0.0, -1e4]])
SURE = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
FIRST = np.array([[1.0, 0.0]] * 4)


@pytest.mark.parametrize(
    ("loss", "p"),
    [
        (losses.BinaryCrossentropy(from_logits=True), EXTREMES),
        (losses.CategoricalCrossentropy(from_logits=True), EXTREMES),
        (losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), EXTREMES),
        (losses.BinaryFocalCrossentropy(from_logits=True), EXTREMES),
        (losses.BinaryFocalCrossentropy(from_logits=True, gamma=0.5), EXTREMES),
        (losses.CategoricalFocalCrossentropy(from_logits=True, gamma=0.5), EXTREMES),
        (losses.LogCosh(), EXTREMES), (losses.Huber(), EXTREMES), (losses.CosineSimilarity(), EXTREMES * 1e30),
        (losses.CosineSimilarity(), EXTREMES * 0), (losses.CosineSimilarity(), EXTREMES * 1e-30),
        (losses.BinaryCrossentropy(), SURE), (losses.CategoricalCrossentropy(), SURE),
        (losses.BinaryFocalCrossentropy(), SURE), (losses.CategoricalFocalCrossentropy(), SURE),
        (losses.KLDivergence(), SURE), (losses.Poisson(), SURE), (losses.Dice(), SURE * 0), (losses.Tversky(), SURE * 0),
        (losses.MeanAbsolutePercentageError(), SURE), (losses.MeanSquaredLogarithmicError(), -SURE),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_extremes_stay_finite(loss, p):
    value, slope = run(loss, FIRST.astype(np.float32), p, "float32")
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_large_logits_cost_what_they_should():
    value, slope = run(losses.BinaryCrossentropy(from_logits=True, reduction="none"), FIRST, EXTREMES)
    np.testing.assert_allclose(value, [0, 1e4, 5e3, np.log(2) / 2])
    np.testing.assert_allclose(slope[0], 0)
    value, _ = run(losses.BinaryFocalCrossentropy(from_logits=True, reduction="none"), FIRST, EXTREMES)
    np.testing.assert_allclose(value, [0, 1e4, 5e3, np.log(2) / 8])
    value, _ = run(losses.LogCosh(reduction="none"), np.zeros((3, 1)), np.array([[1e-6], [-1e4], [0.0]]))
    np.testing.assert_allclose(value, [5e-13, 1e4 - np.log(2), 0], rtol=1e-11)


def test_what_is_no_number_shows():
    for loss, *_ in CASES[:4]:
        assert np.isnan(run(loss, Y, np.where(P > 0, P, np.nan))[0])


def test_weights_and_reductions():
    w = np.array([0.5, 0, 2, 1, 3])
    rows = ((Y - P) ** 2).mean(-1)
    for reduction, expected in (
        ("sum_over_batch_size", (rows * w).mean()), ("mean", (rows * w).mean()), ("sum", (rows * w).sum()),
        ("mean_with_sample_weight", (rows * w).sum() / w.sum()), ("none", rows * w), (None, rows * w),
    ):  # fmt: skip
        np.testing.assert_allclose(run(losses.MeanSquaredError(reduction), Y, P, w=w)[0], expected, rtol=1e-12)
    loss = losses.MeanSquaredError("mean_with_sample_weight")
    m = np.array([True, False, True, True, False])
    np.testing.assert_allclose(run(loss, Y, P, w=w, m=m)[0], (rows * w * m).sum() / (w * m).sum(), rtol=1e-12)
    for none in ({"w": w * 0}, {"m": m & False}, {"w": w * 0, "m": m & False}):
        for reduction in ("mean", "mean_with_sample_weight", "sum"):
            value, slope = run(losses.MeanSquaredError(reduction), Y, P, **none)
            assert value == 0
            assert not slope.any()


def test_targets_are_aligned_and_never_broadcast():
    y, p = gx.placeholder("y", ("batch",)), gx.placeholder("p", ("batch", 1))
    assert losses.huber(y, p).shape == y.shape
    assert losses.mean_absolute_error(p, y).shape == ()
    for loss in (losses.MeanAbsoluteError(), losses.Hinge(), losses.Poisson(), losses.Dice(), losses.LogCosh()):
        with pytest.raises(gx.ShapeError, match="targets have shape"):
            loss(y, gx.placeholder("q", ("batch", 3)))


def semi_hard(labels, x, margin):
    """Pair by pair, as the paper says."""
    total, pairs = 0.0, 0
    d = ((x[:, None] - x[None]) ** 2).sum(-1)
    for a in range(len(x)):
        for p in range(len(x)):
            if a == p or labels[a] != labels[p]:
                continue
            others = d[a][labels != labels[a]]
            farther = others[others > d[a, p]]
            chosen = farther.min() if farther.size else (others.max() if others.size else 0.0)
            total, pairs = total + max(0.0, d[a, p] - chosen + margin), pairs + 1
    return total / max(pairs, 1)


def test_triplets():
    x = rng.standard_normal((6, 3, 4))
    near, far = ((x[:, 0] - x[:, 1]) ** 2).sum(-1), ((x[:, 0] - x[:, 2]) ** 2).sum(-1)
    value, _ = run(losses.TripletLoss(0.5), np.zeros(6), x)
    np.testing.assert_allclose(value, np.maximum(near - far + 0.5, 0).mean(), rtol=1e-12)
    value, _ = run(losses.TripletLoss(0.5, "l2"), np.zeros(6), x)
    np.testing.assert_allclose(value, np.maximum(np.sqrt(near) - np.sqrt(far) + 0.5, 0).mean(), rtol=1e-12)
    same = np.repeat(x[:, :1], 3, 1)
    value, slope = run(losses.TripletLoss(0.5, "l2"), np.zeros(6), same)
    assert value == 0.5
    assert np.isfinite(slope).all()
    with pytest.raises(gx.ShapeError, match="anchor, positive and negative"):
        run(losses.TripletLoss(), np.zeros(6), x[:, :2])


@pytest.mark.parametrize("seed", range(3))
def test_triplets_are_mined_in_the_batch(seed):
    draw = np.random.default_rng(seed)
    x, labels = draw.standard_normal((9, 4)), draw.integers(0, 3, 9)
    loss = losses.TripletSemiHardLoss(margin=1.0)
    value, slope = run(loss, labels, x)
    np.testing.assert_allclose(value, semi_hard(labels, x, 1.0), rtol=1e-11)
    d = draw.standard_normal(x.shape)
    numeric = (semi_hard(labels, x + 1e-6 * d, 1.0) - semi_hard(labels, x - 1e-6 * d, 1.0)) / 2e-6
    np.testing.assert_allclose((slope * d).sum(), numeric, rtol=1e-6, atol=1e-8)
    for lonely in (np.arange(9), np.zeros(9, int)):  # no pairs; no negatives
        value, slope = run(loss, lonely, x)
        np.testing.assert_allclose(value, semi_hard(lonely, x, 1.0), rtol=1e-11)
        assert np.isfinite(slope).all()


def test_losses_come_back_from_files(tmp_path):
    model = gx.Sequential([gx.Input((4,)), gx.layers.Dense(4)])
    for loss in (
        losses.Huber(delta=2.0),
        losses.CategoricalFocalCrossentropy(alpha=ALPHA, from_logits=True),
        losses.huber,
    ):
        model.compile("sgd", loss)
        model.save(tmp_path / "model")
        back = gx.load_model(tmp_path / "model")
        assert back.test_on_batch(P, ONE_HOT) == model.test_on_batch(P, ONE_HOT)
