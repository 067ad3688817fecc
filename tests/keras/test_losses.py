"""Every loss against Keras 3: values in each reduction, with and without weights, and gradients by the predictions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import graphc as gx
from graphc import losses

pytestmark = pytest.mark.keras

rng = np.random.default_rng(5)
REDUCTIONS = ("sum_over_batch_size", "sum", "none", "mean_with_sample_weight")


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


BITS = (rng.random((6, 4)) < 0.5).astype(np.float32)
PROBABILITIES = rng.uniform(0.02, 0.98, (6, 4)).astype(np.float32)
LOGITS = f32(6, 4)
LABELS = rng.integers(0, 4, 6)
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
MAPS = np.eye(4, dtype=np.float32)[rng.integers(0, 4, (6, 3))].transpose(0, 2, 1).copy()
COUNTS, EXPECTED = np.abs(f32(6, 4)), np.abs(f32(6, 4)) + np.float32(0.1)
LOGGED = {"from_logits": True}

# name, arguments, targets, predictions, whether predictions pass through softmax: Keras divides rows by their sum
CASES = [
    ("MeanSquaredError", {}, f32(6, 4), LOGITS, False),
    ("MeanAbsoluteError", {}, f32(6, 4), LOGITS, False),
    ("MeanAbsolutePercentageError", {}, f32(6, 4), LOGITS, False),
    ("MeanSquaredLogarithmicError", {}, COUNTS, EXPECTED, False),
    ("Huber", {}, 2 * f32(6, 4), LOGITS, False),
    ("Huber", {"delta": 0.3}, f32(6, 4), LOGITS, False),
    ("LogCosh", {}, f32(6, 4), LOGITS, False),
    ("CosineSimilarity", {}, f32(6, 4), LOGITS, False),
    ("CosineSimilarity", {"axis": 1}, f32(6, 3, 4), f32(6, 3, 4), False),
    ("Hinge", {}, BITS, LOGITS, False),
    ("Hinge", {}, 2 * BITS - 1, LOGITS, False),
    ("SquaredHinge", {}, BITS, LOGITS, False),
    ("CategoricalHinge", {}, ONE_HOT, LOGITS, False),
    ("KLDivergence", {}, softmax(f32(6, 4)), softmax(LOGITS), False),
    ("Poisson", {}, COUNTS, EXPECTED, False),
    ("BinaryCrossentropy", {}, BITS, PROBABILITIES, False),
    ("BinaryCrossentropy", {**LOGGED, "label_smoothing": 0.1}, BITS, LOGITS, False),
    ("CategoricalCrossentropy", {}, ONE_HOT, LOGITS, True),
    ("CategoricalCrossentropy", {**LOGGED, "label_smoothing": 0.1}, ONE_HOT, LOGITS, False),
    ("CategoricalCrossentropy", {**LOGGED, "axis": 1}, MAPS, f32(6, 4, 3), False),
    ("SparseCategoricalCrossentropy", {}, LABELS, LOGITS, True),
    ("SparseCategoricalCrossentropy", {**LOGGED, "ignore_class": 2}, LABELS, LOGITS, False),
    ("BinaryFocalCrossentropy", {}, BITS, PROBABILITIES, False),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "gamma": 1.5, "label_smoothing": 0.2, **LOGGED},
     BITS, LOGITS, False),
    ("CategoricalFocalCrossentropy", {}, ONE_HOT, LOGITS, True),
    ("CategoricalFocalCrossentropy", {**LOGGED, "alpha": [0.1, 0.2, 0.3, 0.4], "gamma": 3.0}, ONE_HOT, LOGITS, False),
    ("Dice", {}, BITS, PROBABILITIES, False),
    ("Dice", {"axis": (1,)}, BITS, PROBABILITIES, False),
    ("Tversky", {"alpha": 0.3, "beta": 0.8}, BITS, PROBABILITIES, False),
    ("CTC", {}, np.array([[1, 2, 2], [3, 0, 0], [1, 1, 0]]), f32(3, 7, 5), False),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.6}, LABELS, softmax(LOGITS), False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "y", "p", "through"), CASES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_and_gradients_are_those_of_keras(name, arguments, y, p, through, reduction, weighted):
    if weighted and (name in ("Dice", "Tversky") or (p.ndim > 2 and name != "CTC")):
        pytest.skip("its values are not one for each sample")
    theirs = getattr(keras.losses, name)(reduction=reduction, **arguments)
    ours = getattr(losses, name)(reduction=reduction, **arguments)
    weight = rng.random(len(y)).astype(np.float32) if weighted else None

    def total(x):
        return jnp.sum(theirs(y, jax.nn.softmax(x) if through else x, weight))

    expected = np.asarray(theirs(y, softmax(p) if through else p, weight))
    nodes = [gx.placeholder("y", ("batch", *y.shape[1:]), y.dtype), gx.placeholder("p", ("batch", *p.shape[1:]))]
    arrays = [y, p]
    if weighted:
        nodes, arrays = [*nodes, gx.placeholder("w", ("batch",))], [*arrays, weight]
    said = gx.softmax(nodes[1]) if through else nodes[1]
    value = ours(nodes[0], said, *nodes[2:])
    (gradient,) = gx.grad(gx.sum(value) if value.ndim else value, [nodes[1]])
    got, slope = gx.compile({"v": value, "g": gradient}, nodes, backend="reference").call(arrays)
    np.testing.assert_allclose(got, expected, rtol=5e-6, atol=1e-6)
    np.testing.assert_allclose(slope, jax.grad(total)(jnp.asarray(p)), rtol=2e-5, atol=2e-6)
    assert ours.name == theirs.name


def test_names_of_losses_are_those_of_keras():
    from keras.src.losses import ALL_OBJECTS_DICT

    missing = {"circle", "Circle", "loss_function_wrapper", "Loss", "LossFunctionWrapper", "BCE", "KLD", "MAE", "MAPE"}
    missing |= {"MSE", "MSLE"}
    for name in set(ALL_OBJECTS_DICT) - missing:
        assert isinstance(losses.get(name), losses.Loss), name
