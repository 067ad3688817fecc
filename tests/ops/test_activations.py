"""Activations far from 0 and close to it: values and derivatives hold their precision in both tails."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special

import graphc as gx
from graphc.ops.rectifier import SELU_ALPHA, SELU_SCALE

SIZES = np.concatenate([np.geomspace(1e-6, 80, 150), [1e3, 1e6, 1e18, 1e30]])
X = np.concatenate([-SIZES[::-1], [0.0], SIZES]).astype(np.float32)
WIDE = X.astype(np.float64)


def _mish(x):
    e = np.exp(-np.abs(x))
    above, below = (1 + 2 * e) / (1 + 2 * e + 2 * e * e), (e * e + 2 * e) / (e * e + 2 * e + 2)
    return x * np.where(x > 0, above, below)


def _gelu_tanh(x):
    with np.errstate(over="ignore"):
        return x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


ACTIVATIONS = {
    "leaky_relu": (gx.leaky_relu, lambda x: np.where(x > 0, x, 0.2 * x)),
    "prelu": (lambda x: gx.prelu(x, 0.25), lambda x: np.where(x > 0, x, 0.25 * x)),
    "elu": (gx.elu, lambda x: np.where(x > 0, x, special.expm1(np.minimum(x, 0)))),
    "selu": (
        gx.selu,
        lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * special.expm1(np.minimum(x, 0))),
    ),
    "celu": (
        lambda x: gx.celu(x, 0.5),
        lambda x: np.maximum(x, 0) + np.minimum(0, 0.5 * special.expm1(np.minimum(x, 0) / 0.5)),
    ),
    "relu6": (gx.relu6, lambda x: np.clip(x, 0, 6)),
    "hard_tanh": (gx.hard_tanh, lambda x: np.clip(x, -1, 1)),
    "hard_sigmoid": (gx.hard_sigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "hard_silu": (gx.hard_silu, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "gelu": (gx.gelu, lambda x: x * special.ndtr(x)),
    "gelu_tanh": (lambda x: gx.gelu(x, approximate="tanh"), _gelu_tanh),
    "silu": (gx.silu, lambda x: x * special.expit(x)),
    "mish": (gx.mish, _mish),
    "log_sigmoid": (gx.log_sigmoid, special.log_expit),
    "softsign": (gx.softsign, lambda x: x / (1 + np.abs(x))),
    "squareplus": (
        gx.squareplus,
        lambda x: np.where(x > 0, (x + np.hypot(x, 2)) / 2, 2 / (np.hypot(x, 2) + np.abs(x))),
    ),
}
CANCELS = {
    "silu": (-1.7, -0.9),
    "gelu": (-1.3, -0.4),
    "gelu_tanh": (-1.3, -0.4),
    "mish": (-1.8, -0.8),
    "hard_silu": (-3.1, -1.2),
}
"""Where the derivative changes its sign, so that it has no relative precision; hard_silu's does so at a kink, too."""

CONDITION = {"gelu_tanh": 8, "gelu/dx": 8, "gelu_tanh/dx": 8}
"""Their tails are exponentials of numbers as large as 80, whose rounding counts that many times."""


@pytest.fixture(scope="module")
def computed():
    """Value and derivative of every activation at every point, in one program."""
    x = gx.placeholder("x", X.shape)
    outputs = {}
    for name, (function, _) in ACTIVATIONS.items():
        y = function(x)
        outputs[name] = y
        outputs[f"{name}/dx"] = gx.grad(gx.sum(y), [x])[0]
    return gx.compile(outputs, inputs=[x], backend="numba")(x=X)


@pytest.fixture(scope="module")
def derivatives():
    """In double precision by the reference, which test_derivatives holds to differences."""
    x = gx.placeholder("x", X.shape, "float64")
    outputs = {name: gx.grad(gx.sum(function(x)), [x])[0] for name, (function, _) in ACTIVATIONS.items()}
    return gx.compile(outputs, inputs=[x], backend="reference")(x=WIDE)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_keep_their_relative_precision(name, computed):
    wanted = ACTIVATIONS[name][1](WIDE)
    near_kink = (np.abs(X + 3) < 0.1) & (name in ("hard_sigmoid", "hard_silu"))
    representable = (np.abs(wanted) > 1e-35) | (wanted == 0)
    at = representable & ~near_kink
    np.testing.assert_allclose(computed[name][at], wanted[at], rtol=CONDITION.get(name, 1) * 1.2e-6, atol=0)
    np.testing.assert_allclose(computed[name], wanted, rtol=1.2e-6, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_finite_and_precise_in_both_tails(name, computed, derivatives):
    found, wanted = computed[f"{name}/dx"], derivatives[name]
    assert np.isfinite(found).all()
    low, high = CANCELS.get(name, (0.0, 0.0))
    at = ((np.abs(wanted) > 1e-35) | (wanted == 0)) & ~((low < X) & (high > X))
    np.testing.assert_allclose(found[at], wanted[at], rtol=CONDITION.get(f"{name}/dx", 1) * 3e-6, atol=0)
    np.testing.assert_allclose(found, wanted, rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_at_zero_and_at_infinity_are_no_accident(name, computed):
    """At 0 one of the two one-sided derivatives, far out the slope of the asymptote."""
    found = computed[f"{name}/dx"]
    right, left = found[X > 1e29], found[X < -1e29]
    slopes = {"leaky_relu": (1, 0.2), "prelu": (1, 0.25), "selu": (SELU_SCALE, 0), "log_sigmoid": (0, 1)}
    flat = name in ("relu6", "hard_tanh", "hard_sigmoid", "softsign")
    wanted = slopes.get(name, (0, 0) if flat else (1, 0))
    np.testing.assert_allclose([*right, *left], wanted, rtol=1e-6)


def test_the_slope_of_prelu_gets_the_sum_over_what_it_was_repeated_for():
    x = gx.placeholder("x", ("n", 3))
    slope = gx.parameter("slope", np.array([0.1, 0.2, -0.3], np.float32))
    (dslope,) = gx.grad(gx.sum(gx.prelu(x, slope)), [slope])
    values = np.array([[-1, 2, -3], [-4, -5, 6], [0, 1, -np.float32(1e-3)]], np.float32)
    found = gx.compile({"d": dslope}, inputs=[x], backend="numba")(x=values)["d"]
    np.testing.assert_allclose(found, np.minimum(values, 0).sum(0), rtol=1e-6)


def test_gelu_by_tanh_is_close_to_gelu(computed):
    exact = WIDE * special.ndtr(WIDE)
    assert 1e-5 < np.max(np.abs(computed["gelu_tanh"] - exact)) < 5e-4


def test_unknown_forms_of_gelu_are_refused():
    with pytest.raises(gx.AxisError, match="no approximation 'erf'"):
        gx.gelu(gx.placeholder("x", (3,)), approximate="erf")


def test_glu_halves_its_axis():
    x = gx.placeholder("x", (2, 6, "n"))
    values = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)
    y = gx.glu(x, axis=1)
    assert y.shape[:2] == (2, 3)
    found = gx.compile({"y": y}, inputs=[x], backend="numba")(x=values)["y"]
    np.testing.assert_allclose(found, values[:, :3] * special.expit(values[:, 3:]), rtol=1e-6)
    with pytest.raises(gx.ShapeError, match="two halves"):
        gx.glu(x, axis=2)
    with pytest.raises(gx.ShapeError, match="two halves"):
        gx.glu(gx.placeholder("x", (2, 5)))
