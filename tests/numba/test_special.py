"""Functions that are composed of others, as compiled programs, against mpmath; and the page that states all bounds."""

from __future__ import annotations

import re

import mpmath
import numpy as np
import pytest

import graphc as gx
from tests.numba.test_math import BOUNDS, LONG, by_mpmath, ulps
from tests.project.checkout import ROOT

COMPOSED = {
    "lgamma": (gx.lgamma, mpmath.loggamma, 0.6, 6.0),
    "polygamma": (lambda x: gx.polygamma(1, x), lambda x: mpmath.polygamma(1, x), 0.6, 6.0),
    "cbrt": (gx.cbrt, mpmath.cbrt, 1.5, 1.5),
    "hypot": (lambda x: gx.hypot(x, 1.5), lambda x: mpmath.hypot(x, 1.5), 2.5, 2.5),
}
OF_TWO = {"pow": (1.0, 1.5), "atan2": (0.6, 2.0)}


@pytest.fixture(scope="module")
def results():
    """All functions on numbers above 0, by element type: ``{dtype: (x, {name: y})}``."""
    rng = np.random.default_rng(4)
    near = [
        1 + rng.uniform(-1e-3, 1e-3, 60),
        2 + rng.uniform(-1e-3, 1e-3, 60),
        np.array([0.5, 1.5, 3.0, 8.0, 1.0, 2.0]),
    ]
    values = np.concatenate([np.exp(rng.uniform(-12, 12, 400)), rng.uniform(0.1, 9, 400), *near])
    found = {}
    for dtype in ("float32", "float64"):
        x = gx.placeholder("x", ("n",), dtype)
        outputs = {name: build(x) for name, (build, *_) in COMPOSED.items()} | {"digamma": gx.digamma(x)}
        given = values.astype(dtype)
        found[dtype] = given, gx.compile(outputs, inputs=[x], backend="numba")(x=given)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", COMPOSED)
def test_composed_functions_stay_within_the_stated_bounds(name, dtype, results):
    _, exact, *bounds = COMPOSED[name]
    x, found = results[dtype]
    error = ulps(found[name], by_mpmath(exact)(x))
    worst = int(np.argmax(error))
    assert error[worst] <= bounds[dtype == "float64"], (x[worst], found[name][worst], error[worst])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digamma_is_exact_beside_one_or_beside_itself(dtype, results):
    x, found = results[dtype]
    exact = by_mpmath(mpmath.digamma)(x)
    unit = np.finfo(dtype).eps * np.maximum(np.abs(exact), 1)
    assert np.max(np.abs(found["digamma"].astype(LONG) - exact) / unit) <= (0.6 if dtype == "float32" else 8)


@pytest.mark.parametrize("x", [-0.3, -1.7, -2.5, -3.999, -7.25, -40.5])
def test_below_zero_by_reflection(x):
    for order in (0, 1, 2, 3):
        np.testing.assert_allclose(_value(gx.polygamma(order, _X), x), float(mpmath.polygamma(order, x)), rtol=1e-11)
    np.testing.assert_allclose(_value(gx.lgamma(_X), x), float(mpmath.loggamma(x).real), rtol=1e-12, atol=1e-14)


_X = gx.placeholder("x", (1,), "float64")


def _value(y, x):
    return gx.compile({"y": y}, inputs=[_X], backend="reference")(x=np.array([x]))["y"][0]


def test_logarithms_and_powers_of_their_base_are_exact():
    x = gx.placeholder("x", ("n",), "float64")
    program = gx.compile({"two": gx.log2(x), "back": gx.exp2(gx.log2(x))}, inputs=[x], backend="numba")
    powers = 2.0 ** np.arange(-1074, 1024)
    found = program(x=powers)
    np.testing.assert_array_equal(found["two"], np.arange(-1074, 1024))
    np.testing.assert_array_equal(found["back"], powers)


def test_no_bound_of_float32_lets_a_function_leave_its_range():
    x = np.concatenate([np.linspace(-10, 10, 400_001), np.linspace(3, 4, 400_001)]).astype(np.float32)
    v = gx.placeholder("x", ("n",), "float32")
    found = gx.compile({"erf": gx.erf(v), "tanh": gx.tanh(v), "sin": gx.sin(v)}, inputs=[v], backend="numba")(x=x)
    assert all(np.abs(y).max() <= 1 for y in found.values())


def test_the_page_states_what_is_tested():
    text = (ROOT / "docs" / "math.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    stated = {name: (float(single), float(double)) for name, single, double in rows}
    tested = {name: tuple(bounds) for name, (_, *bounds) in BOUNDS.items()} | OF_TWO
    tested |= {name: tuple(bounds) for name, (_, _, *bounds) in COMPOSED.items()}
    assert stated == tested
