"""The error functions and the normal distribution, as :mod:`graphc.backends.numba.math` has the others.

Source: polynomials and fractions fitted here (weighted minimax).
"""

from __future__ import annotations

from graphc.backends.numba.math import (
    DOUBLE,
    LOG2_E,
    SINGLE,
    SQRT_HALF,
    format_of,
    in_double,
    power_of_two,
    reduce_exp,
    scaled,
)
from graphc.backends.numba.twofold import multiply_add
from graphc.backends.numba.values import Value, absolute, copysign, polynomial, where

# erf(x) / x - 1 on [0, 1], in x**2, and -log(erfc(1 + t)), to float64's precision
ERF_SMALL = (
    0.12837916709551256, -0.3761263890318355, 0.11283791670945251, -0.026866170643275795, 0.0052239776074203634,
    -0.0008548325989563366, 0.00012055295316904695, -1.4924744601060625e-05, 1.6447516981490965e-06,
    -1.6209171061848588e-07, 1.3722957127128493e-08, -7.801156181828504e-10,
    )  # fmt: skip
ERF_LARGE = (
    1.8496055099332482, 2.6389675142347757, 0.8431072563594142, 0.04156109802505784, -0.010033825178907987,
    0.0019779012145176066, -0.00023731642968717902, -2.6296340879586223e-05, 2.7199000188556824e-05,
    -9.671416570927275e-06, 2.1319816199764587e-06, -2.0484419564434455e-07, -5.7993523935976264e-08,
    3.33840364615415e-08, -8.516773409079684e-09, 1.318740266785056e-09, -1.192871899443607e-10,
    4.8631853513475064e-12,
    )  # fmt: skip
# erf(x) / x - 1 up to 0.65, in x**2; log2(erfc(x)) from there to 3.93, and 2**r for |r| <= 1/2: to float32's precision
ERF_SINGLE = (
    0.128379146965572, -0.37612403653703785, 0.11279348936591221, -0.026569465049912682, 0.004399869542905338,
)  # fmt: skip
LOG2_ERFC_SINGLE = (
    2.9374167731077705e-05, -1.628276059348095, -0.9167598539303556, -0.1522887854476944, 0.03327345157999063,
    -0.004712236277800785, 0.00031742297966478813,
)  # fmt: skip
EXP2_SINGLE = (
    1.0000000716543658, 0.693146967054911, 0.24022119724872826, 0.05550713289583846, 0.009675541292958362,
    0.0013276466792653337,
)  # fmt: skip
# ndtr(-a) = 2**-(a**2 / NDTR_OCTAVE) * numerator(a) / denominator(a) for a from 0 to 14.6: no term cancels another, and
# the highest coefficients are 1, so that a sum stands for the first product. The octave is 2 ln(2) less 3e-6 of it; the
# fraction makes up for that, and can be one degree lower for it. Its constant factor, 2.9e-5, is in the power, which is
# 2**(-r / NDTR_OCTAVE) times that. Coefficients were moved by some ulp until the roundings of all steps agreed best.
NDTR_OCTAVE = 1.386290192604065
NDTR_POWER = (
    3.9657752495259047e-05, -1.9828927179332823e-05, 4.957142209605081e-06, -8.26258087727183e-07,
    1.0389343430006193e-07, -1.028347895726256e-08,
)  # fmt: skip
NDTR_NUMERATOR = (393389.3125, 255350.3125, 78713.578125, 10037.9951171875)
NDTR_DENOMINATOR = (31.201873779296875, 45.148624420166016, 26.666610717773438, 7.793531894683838)
# (1 + 2 x) exp(x**2) erfc(x), in (x - 2.5) / (x + 2.5) up to x = 10.1, and in (x - 4) / (x + 4) up to x = 27.5
ERFC_SINGLE = (
    1.2648381810512586, -0.12235669862903573, -0.09902419895211867, 0.15762785969930168, -0.1029735006355155,
    0.03277737856623169, 0.000978962198816147, -0.004421517080942052, 0.0003437723706869618, 0.0006168935502962124,
    8.069577878680474e-05,
)  # fmt: skip
ERFC_DOUBLE = (
    1.2329951186255526, -0.1396211168405632, 0.01537965210260649, 0.06809705425476618, -0.10103906603557923,
    0.09373283499611249, -0.0663303658278904, 0.03716751556731847, -0.016197733882398268, 0.005031969773325587,
    -0.0007577744390835295, -0.00019925594688258042, 0.00015062637242107456, -2.440046246779747e-05,
    -1.1234221217136953e-05, 5.709383486443943e-06, 3.1370513712713775e-07, -8.202941008498618e-07,
    5.527275570413768e-08, 1.0157726584206312e-07, -8.054926633388781e-09, -8.39088287491607e-09,
)  # fmt: skip


def erf(x: Value) -> Value:
    """The error function, at most 1. Error: at most 2.5 ulp."""
    return _erf_single(x) if x.bits == 32 else _erf_double(x)


def _erf_single(x: Value) -> Value:
    a = absolute(x)
    logarithm = polynomial(where(a > 3.93, 3.93, a), LOG2_ERFC_SINGLE)
    shifted = logarithm + SINGLE.magic
    power = polynomial(logarithm - (shifted - SINGLE.magic), EXP2_SINGLE)
    large = 1.0 - (power.as_integer() + (shifted.as_integer() << SINGLE.mantissa)).as_float()
    small = a + a * polynomial(a * a, ERF_SINGLE)
    return copysign(where(a < 0.65, small, large), x)


def _erf_double(x: Value) -> Value:
    a = absolute(x)
    t = where(a < 6.0, a, 6.0) - 1.0
    n, r = reduce_exp(-polynomial(t, ERF_LARGE))
    scale = power_of_two(n)
    complement = (polynomial(r, DOUBLE.exp) * (r * r) + r) * scale + scale
    large = copysign(1.0 - complement, x)
    small = x + x * polynomial(x * x, ERF_SMALL)
    return where(x.is_nan(), x, where(a < 1.0, small, large))


def erfc(x: Value) -> Value:
    """1 - erf(x) without cancellation. Error: at most 5 ulp."""
    return in_double(_erfc, x)


def _erfc(x: Value, single: bool) -> Value:
    limit, centre, terms = (10.1, 2.5, ERFC_SINGLE) if single else (27.5, 4.0, ERFC_DOUBLE)
    a = absolute(x)
    a = where(a > limit, limit, a)
    y = _gauss(a, 1.0) * _scaled_erfc(a, centre, terms)
    return where(x < 0.0, 2.0 - y, y)


def _gauss(a: Value, factor: float) -> Value:
    """``exp(-factor * a**2)`` for a factor 1 or 1/2; the square is not rounded, which would show magnified."""
    form = format_of(a)
    b = a * -factor
    shifted = a * b * LOG2_E + form.magic
    n = shifted - form.magic
    r = multiply_add(a, b, -(n * form.ln2_high)) - n * form.ln2_low
    return scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, shifted.as_integer())


def _scaled_erfc(a: Value, centre: float, terms: tuple[float, ...]) -> Value:
    """``exp(a**2) * erfc(a)`` for a >= 0."""
    return polynomial((a - centre) / (a + centre), terms) / (a * 2.0 + 1.0)


def ndtr(x: Value) -> Value:
    """The normal distribution function, precise in its lower tail. Error: at most 6.5 ulp in float32, 5 in float64."""
    a = absolute(x)
    tail = _upper_tail_single(a) if x.bits == 32 else _upper_tail_double(a)
    return where(x < 0.0, tail, 1.0 - tail)


def _upper_tail_single(a: Value) -> Value:
    """``ndtr(-a)`` for a >= 0."""
    a = where(a > 14.6, 14.6, a)
    square = a * a
    lost = multiply_add(a, a, -square)  # which would show magnified
    lift = 40.0  # powers of two that the product's other factor lacks, so that neither is subnormal
    shifted = square * (-1.0 / NDTR_OCTAVE) + (SINGLE.magic + lift)
    n = shifted - (SINGLE.magic + lift)
    r = multiply_add(n, n.constant(NDTR_OCTAVE), square) + lost
    power = polynomial(r, [coefficient * 2.0**-lift for coefficient in NDTR_POWER])
    fraction = _monic_quartic(a, square, NDTR_NUMERATOR) / _monic_quartic(a, square, NDTR_DENOMINATOR)
    exponent = shifted.as_integer() << SINGLE.mantissa  # n + lift; the bits of magic leave on the left
    return power * (fraction.as_integer() + exponent).as_float()


def _monic_quartic(x: Value, square: Value, terms: tuple[float, float, float, float]) -> Value:
    """``terms[0] + ... + terms[3] * x**3 + x**4``, in two halves that do not wait for each other."""
    return (x * terms[1] + terms[0]) + square * ((x + terms[3]) * x + terms[2])


def _upper_tail_double(a: Value) -> Value:
    a = where(a > 38.8, 38.8, a)
    return _gauss(a, 0.5) * (_scaled_erfc(a * SQRT_HALF, 4.0, ERFC_DOUBLE) * 0.5)
