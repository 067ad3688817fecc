"""Errors in units in the last place, against functions of 64-bit mantissas (or the standard library's, for erf)."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest

from graphc.backends.numba import build, error_function, hyperbolic, trigonometric, twofold
from graphc.backends.numba import math as native_math
from graphc.backends.numba.compiler import compile_kernel
from graphc.backends.numba.machine import Loader
from graphc.backends.numba.printer import kernel_source
from graphc.ir.types import DType
from tests.numba.native import native_function

LONG = np.longdouble
EXTENDED = np.finfo(LONG).nmant >= 63
SINGLE, DOUBLE = DType.float32, DType.float64


def _sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def by_mpmath(function, bits=100):
    """A function that no longer float has."""

    def exact(x):
        with mpmath.workprec(bits):
            values = [function(mpmath.mpf(float(value))) for value in x]
            high = [float(value) for value in values]
            low = [float(v - h) if math.isfinite(h) else 0.0 for v, h in zip(values, high, strict=True)]
        return np.array(high, LONG) + np.array(low, LONG)

    return exact


def function_of(name):
    """What makes the code of a function."""
    rooms = (native_math, error_function, trigonometric, hyperbolic)
    return next(getattr(module, name) for module in rooms if hasattr(module, name))


# the exact function, and the errors that math.py states for float32 and float64
BOUNDS = {
    "exp": (np.exp, 1.1, 1.1),
    "log": (np.log, 1.0, 1.0),
    "expm1": (np.expm1, 2.0, 2.0),
    "log1p": (np.log1p, 1.0, 1.0),
    "exp2": (np.exp2, 1.1, 1.1),
    "log2": (np.log2, 2.0, 2.0),
    "log10": (np.log10, 0.6, 2.0),
    "tanh": (np.tanh, 3.0, 3.0),
    "sigmoid": (_sigmoid, 2.5, 2.5),
    "softplus": (_softplus, 2.0, 2.0),
    "erf": (by_mpmath(mpmath.erf), 2.0, 2.5),
    "erfc": (by_mpmath(lambda x: mpmath.erfc(min(max(x, -100), 100)) if x == x else x), 0.6, 5.0),
    "ndtr": (by_mpmath(lambda x: mpmath.ncdf(min(max(x, -100), 100)) if x == x else x), 6.5, 5.0),
    "sin": (np.sin, 2.0, 1.5),
    "cos": (np.cos, 2.0, 1.5),
    "tan": (np.tan, 0.6, 3.0),
    "asin": (np.arcsin, 0.6, 2.5),
    "acos": (np.arccos, 0.6, 2.0),
    "atan": (np.arctan, 0.6, 2.0),
    "sinh": (np.sinh, 0.6, 2.0),
    "cosh": (np.cosh, 0.6, 2.0),
    "asinh": (np.arcsinh, 0.6, 3.0),
    "acosh": (np.arccosh, 0.6, 3.0),
    "atanh": (np.arctanh, 0.6, 3.0),
    "sqrt": (np.sqrt, 0.5, 0.5),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.5, 1.5),
}
BY_MPMATH = ("erf", "erfc", "ndtr")
"""Functions whose judge takes 20 microseconds and more for a point."""
FUNCTIONS = [(name, dtype) for name in BOUNDS for dtype in (SINGLE, DOUBLE)]


def edges(dtype):
    """Zeros, infinities, NaN, subnormal numbers, limits, and both sides of where formulas change."""
    info = np.finfo(dtype.numpy)
    positive = [0, 1, 2, 0.5, 0.25, 1.5, info.tiny, info.smallest_subnormal, 3 * info.smallest_subnormal, info.max]
    positive += [info.eps, info.eps / 4, np.sqrt(0.5), np.sqrt(2), 2 / 3, 4 / 3, np.pi / 4, np.pi / 2, np.pi, 100, 1e4]
    positive += [math.log(2) / 2, math.log(2), 87.3, 88.7, 88.8, 103.2, 103.9, 104.1, 708.4, 709.7, 709.8, 745.1, 745.2]
    positive += [4.0, 6.0, 2.0**-13, 2.0**-14, 2.0**-25, 2.0**-28, 2.0**-54, 1e6]
    with np.errstate(all="ignore"):
        points = np.array([*positive, np.inf]).astype(dtype.numpy)
        near = np.concatenate([points, np.nextafter(points, points.dtype.type(0)), np.nextafter(points, points.max())])
    with_signs = np.concatenate([near, -near]).astype(dtype.numpy)
    return np.append(with_signs, dtype.numpy.type(np.nan))


def points(dtype, seed, count=20_000):
    rng = np.random.default_rng(seed)
    limit = 89.0 if dtype is SINGLE else 710.0
    low = 104.0 if dtype is SINGLE else 746.0
    scale = np.log(np.finfo(dtype.numpy).max) * 0.999
    parts = [
        rng.uniform(-1, 1, count),
        rng.uniform(-limit, limit, count),
        rng.uniform(-20, 20, count),
        rng.uniform(-low, -limit * 0.97, count),  # exp is subnormal
        1 + rng.uniform(-0.5, 1, count),
        np.exp(rng.uniform(-scale * 0.98, scale, count)) * rng.choice([-1, 1], count),
        np.exp(rng.uniform(-low, -scale * 0.98, count)),  # subnormal
        rng.uniform(-1e6, 1e6, count),
    ]
    with np.errstate(under="ignore"):
        return np.concatenate([*(part.astype(dtype.numpy) for part in parts), edges(dtype)])


def ulps(found, exact):
    """The error in units of the last place of the exact result; infinite where NaN or infinity are wrong."""
    dtype = found.dtype
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype)
        unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(dtype).tiny))
        error = np.abs(found.astype(LONG) - exact) / unit
        special = ~np.isfinite(rounded)
        same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return np.where(special, np.where(same, 0, np.inf), np.where(np.isnan(error), np.inf, error))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "dtype"), FUNCTIONS)
def test_errors_stay_within_the_stated_bounds(name, dtype, seed):
    exact, *bounds = BOUNDS[name]
    if dtype is DOUBLE and not EXTENDED:
        pytest.skip("no longer float to compare float64 with on this platform")
    x = points(dtype, seed, 1_500 if name in BY_MPMATH else 20_000)
    found = native_function(name, dtype)(x)
    with np.errstate(all="ignore"):
        error = ulps(found, exact(x.astype(LONG)))
    worst = int(np.argmax(error))
    bound = bounds[dtype is DOUBLE]
    # the exact value itself is rounded to 64 bits, which shows in the error of a correctly rounded result
    assert error[worst] <= bound + 1e-3, f"{name}({x[worst]!r}) is {found[worst]!r}, {error[worst]} ulp"
    if name != "sqrt":
        assert f"{max(bounds):g} ulp" in function_of(name).__doc__


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize(
    "name", ["expm1", "log1p", "tanh", "erf", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh", "sqrt"]
)
def test_odd_functions_keep_the_sign_of_zero(name, dtype):
    found = native_function(name, dtype)(np.array([0.0, -0.0]))
    np.testing.assert_array_equal(np.signbit(found), [False, True])
    np.testing.assert_array_equal(found, [0, 0])


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize(
    "name", ["expm1", "log1p", "tanh", "erf", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh"]
)
def test_subnormal_numbers_are_their_own_image(name, dtype):
    step = np.finfo(dtype.numpy).smallest_subnormal
    x = step * np.array([1, 2, 3, 1000, -1, -7], dtype.numpy)
    expected = x if name != "erf" else np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(native_function(name, dtype)(x), expected, rtol=0, atol=step)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_arguments_that_are_nearly_multiples_of_a_quarter_turn(name):
    """Of all float32 these come nearest; the error of a reduction shows a billion times larger."""
    x = np.array([16367173 * 2.0**72, 10741887 * 2.0**11, 16367173 * 2.0**73, 16573937 * 2.0**-16], np.float32)
    x = np.concatenate([x, -x, 2 * x, 4 * x])
    exact = by_mpmath(getattr(mpmath, name), 300)(x)
    assert np.max(ulps(native_function(name, SINGLE)(x), exact)) <= BOUNDS[name][1]


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_rounding(dtype):
    large = 2.0 ** (np.finfo(dtype.numpy).nmant + 1)
    x = np.array([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 1e-40, large, large + 2, np.inf, -np.inf, np.nan])
    x = x.astype(dtype.numpy)
    for name in ("rint", "floor", "ceil", "trunc"):
        found, expected = native_function(name, dtype)(x), getattr(np, name)(x)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def compile_apart(kernels):
    """Addresses of kernels that are compiled anew."""
    addresses = {}
    for kernel in kernels:
        symbol = f"apart_{next(numbers)}"
        loader = Loader()
        loader.load(compile_kernel(kernel_source(kernel), "kernel.py", symbol))
        loaders.append(loader)
        addresses[kernel] = loader.address(symbol)
    return addresses


numbers, loaders = itertools.count(), []


def test_exp_without_an_instruction_for_powers_of_two(monkeypatch):
    """As on a CPU without AVX-512, whose results may differ where they are subnormal and were rounded twice."""
    with_it = native_function("exp", SINGLE)
    monkeypatch.setattr(native_math, "has_scale_instruction", lambda: False)
    monkeypatch.setattr(build, "kernel_addresses", compile_apart)
    without_it = native_function("exp", SINGLE)
    x = points(SINGLE, 2)
    with np.errstate(all="ignore"):
        exact = np.exp(x.astype(LONG))
    assert np.max(ulps(without_it(x), exact)) <= 1.1
    normal = exact >= np.finfo(np.float32).tiny
    np.testing.assert_array_equal(without_it(x)[normal], with_it(x)[normal])


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_tails_without_fused_multiply_add(dtype, monkeypatch):
    monkeypatch.setattr(twofold, "has_fused_multiply_add", lambda: False)
    monkeypatch.setattr(build, "kernel_addresses", compile_apart)
    x = np.random.default_rng(7).uniform(-14 if dtype is SINGLE else -38, 3, 1000).astype(dtype.numpy)
    exact, *bounds = BOUNDS["ndtr"]
    assert np.max(ulps(native_function("ndtr", dtype)(x), exact(x.astype(LONG)))) <= bounds[dtype is DOUBLE]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_power(dtype, fused, monkeypatch):
    rng = np.random.default_rng(3)
    count, wide = 40_000, 80 if dtype is SINGLE else 700
    x = np.concatenate([np.exp(rng.uniform(-wide, wide, count)), rng.uniform(0.5, 2, count)])
    x = np.concatenate([x, 1 + rng.uniform(-1e-3, 1e-3, count)])
    y = np.concatenate([rng.uniform(-1, 1, count), rng.uniform(-wide, wide, count), rng.uniform(-1e5, 1e5, count)])
    x, y = x.astype(dtype.numpy), y.astype(dtype.numpy)
    if dtype is DOUBLE and not EXTENDED:
        pytest.skip("no longer float to compare float64 with on this platform")
    function = native_function("pow", dtype, 2)
    if not fused:
        # as on a CPU without fused multiply-add; not through the cache, which rightly knows only this CPU
        monkeypatch.setattr(twofold, "has_fused_multiply_add", lambda: False)
        monkeypatch.setattr(build, "kernel_addresses", compile_apart)
    with np.errstate(all="ignore"):
        error = ulps(function(x, y), np.power(x.astype(LONG), y.astype(LONG)))
    worst = int(np.argmax(error))
    assert error[worst] <= (1.0 if dtype is SINGLE else 1.5), (x[worst], y[worst], error[worst])


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_angles_of_points(dtype):
    """Beside dense points all pairs of special values, by the rules of C, which NumPy follows."""
    if dtype is DOUBLE and not EXTENDED:
        pytest.skip("no longer float to compare float64 with on this platform")
    rng = np.random.default_rng(5)
    y, x = (rng.standard_normal(40_000) * np.exp(rng.uniform(-30, 30, 40_000)) for _ in range(2))
    special = np.array([0.0, 1, 2.5, np.inf, np.finfo(dtype.numpy).smallest_subnormal, np.finfo(dtype.numpy).max])
    special = np.array([*special, *-special, np.nan])
    pairs = np.meshgrid(special, special)
    y, x = (np.concatenate([a, b.ravel()]).astype(dtype.numpy) for a, b in zip((y, x), pairs, strict=True))
    found = native_function("atan2", dtype, 2)(y, x)
    with np.errstate(all="ignore"):
        exact = np.arctan2(y.astype(LONG), x.astype(LONG))
        error = ulps(found, exact)
    worst = int(np.argmax(error))
    assert error[worst] <= (0.6 if dtype is SINGLE else 2.0), (y[worst], x[worst], found[worst], error[worst])
    numbers = ~np.isnan(exact)
    np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(exact)[numbers])


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_power_of_special_values(dtype):
    """By the rules of C, which NumPy follows."""
    tiny = np.finfo(dtype.numpy).smallest_subnormal
    values = [0.0, 1, 2, 0.5, 3, 4, 5, 2.5, np.inf, 1e30, float(tiny), 1025, 2.0**24, 2.0**24 + 2, 2.0**53]
    values = np.array([*values, *(-value for value in values), np.nan]).astype(dtype.numpy)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    found = native_function("pow", dtype, 2)(x, y)
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    np.testing.assert_allclose(found, expected, rtol=3 * np.finfo(dtype.numpy).eps, atol=2 * tiny)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("name", ["exp", "tanh", "log"])
def test_all_of_float32_is_monotonic_where_it_should_be(name):
    """Neighbours never change places by more than the rounding: a wrong constant in one range would show."""
    bits = np.arange(0, 0x7F800000, 4099, dtype=np.uint32)
    x = bits.view(np.float32)
    y = native_function(name, SINGLE)(x)
    finite = np.isfinite(y)
    y = y[finite].astype(np.float64)
    assert np.all(np.diff(y) >= -4 * np.spacing(np.abs(y[1:]).astype(np.float32)))
