"""Constraints: their formulas, and that every step obeys them within the update."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, constraints, layers
from graphc.lower.plan import KernelItem
from graphc.optimizers import SGD, Adam
from tests.frontend.running import evaluate

E = 1e-7
"""What is added to norms by which is divided."""


def norms(w, axis=0):
    return np.sqrt(np.sum(w * w, axis=axis, keepdims=True))


def min_max(w, low, high, rate):
    found = norms(w)
    return w * (rate * np.clip(found, low, high) + (1 - rate) * found) / (found + E)


CONSTRAINTS = {
    "non_neg": (constraints.NonNeg(), lambda w: np.where(w > 0, w, 0)),
    "max_norm": (constraints.MaxNorm(1.5), lambda w: w * np.minimum(norms(w), 1.5) / (norms(w) + E)),
    "max_norm of all": (
        constraints.MaxNorm(2.0, axis=(0, 1)),
        lambda w: w * np.minimum(norms(w, (0, 1)), 2) / (norms(w, (0, 1)) + E),
    ),
    "unit_norm": (constraints.UnitNorm(axis=1), lambda w: w / (norms(w, 1) + E)),
    "min_max_norm": (constraints.MinMaxNorm(1.8, 2.2), lambda w: min_max(w, 1.8, 2.2, 1.0)),
    "by parts": (constraints.MinMaxNorm(1.8, 2.2, rate=0.3), lambda w: min_max(w, 1.8, 2.2, 0.3)),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_are_their_formulas(name):
    made, rule = CONSTRAINTS[name]
    w = np.random.default_rng(0).standard_normal((4, 3))
    node = gx.placeholder("w", w.shape, "float64")
    (found,) = evaluate([made(node)], [(node, w)])
    np.testing.assert_allclose(found, rule(w), rtol=1e-12)
    assert repr(type(made).from_config(made.get_config())) == repr(made)


@gx.saving.register
def at_most_a_tenth(w):
    """A constraint of the user's."""
    return gx.minimum(w, 0.1)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_every_step_ends_within_the_constraints(backend, tmp_path):
    gx.set_seed(1)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 3)).astype(np.float32), rng.standard_normal((32, 1)).astype(np.float32)
    first = layers.Dense(4, kernel_constraint=constraints.MaxNorm(0.5), bias_constraint=at_most_a_tenth)
    model = Sequential([Input((3,)), first, layers.Dense(1, kernel_constraint="non_neg")])
    model.compile(Adam(0.2), "mse", backend=backend)
    free = Sequential([Input((3,)), layers.Dense(4), layers.Dense(1)])
    free.compile(Adam(0.2), "mse", backend=backend)
    for step in range(6):
        free.set_weights(model.get_weights())
        for a, b in zip(
            free.optimizer.variables(free.named_weights()).values(),
            model.optimizer.variables(model.named_weights()).values(),
            strict=False,
        ):
            a.value = b.value
        for one in (model, free):
            one.train_on_batch(x, y)
        kernel, bias, last, _ = free.get_weights()
        wanted = [
            kernel * np.minimum(norms(kernel), 0.5) / (norms(kernel) + E),
            np.minimum(bias, 0.1),
            np.maximum(last, 0),
        ]
        for found, value in zip(model.get_weights(), wanted, strict=False):
            np.testing.assert_allclose(found, value, rtol=2e-6, atol=1e-7, err_msg=str(step))
    assert (norms(model.get_weights()[0]) <= 0.5 + 1e-6).all()
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    for one in (model, loaded):
        one.train_on_batch(x, y)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_elementwise_constraints_stay_in_the_kernel_of_the_update():
    def kernels(bound):
        ps = [gx.parameter(f"p{i}", np.ones((i + 2, 3), np.float32)) for i in range(4)]
        gs = [gx.placeholder(f"g{i}", p.shape) for i, p in enumerate(ps)]
        updates = Adam().updates(ps, gs, {p: bound for p in ps} if bound else None)
        plan = gx.compile({}, gs, updates, backend="numba").plan
        return len({item.kernel for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)})

    assert kernels(constraints.NonNeg()) == kernels(None) == 2


def test_averages_are_those_of_constrained_weights():
    p, g = gx.parameter("p", np.ones(2)), gx.placeholder("g", (2,), "float64")
    optimizer = SGD(1.0, use_ema=True, ema_momentum=0.5)
    step = gx.compile({}, [g], optimizer.updates([p], [g], {p: constraints.NonNeg()}), backend="reference")
    for _ in range(2):
        step.call([np.array([3.0, 0.25])])
    np.testing.assert_allclose(p.value, [0.0, 0.5])
    optimizer.finalize_variable_values([p])
    np.testing.assert_allclose(p.value, [0.0, 0.625])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: constraints.MaxNorm(-1), "max_value"),
        (lambda: constraints.MinMaxNorm(2.0, 1.0), "exchange"),
        (lambda: constraints.MinMaxNorm(rate=2), "rate"),
        (lambda: constraints.get("max"), "no constraint is called 'max'"),
        (lambda: constraints.get(3), "not a constraint"),
        (lambda: layers.Dense(2, kernel_constraint="noneg"), "did you mean 'non"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(gx.GraphcError, match="(?s)" + words):
        make()
