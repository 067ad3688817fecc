"""Hyperbolic functions and their inverses, as :mod:`graphc.backends.numba.math` has the others."""

from __future__ import annotations

from graphc.backends.numba.math import LN2, half_of_exp, in_double, log1p
from graphc.backends.numba.values import Value, absolute, copysign, polynomial, sqrt, where

# (sinh(x) / x - 1) / x**2 on [0, 1], in x**2
SINH = (
    0.16666666666666669, 0.008333333333333188, 0.00019841269841408765, 2.7557319163398155e-06, 2.5052122243026548e-08,
    1.6057322722296395e-10, 7.756998247089719e-13,
)  # fmt: skip
HUGE = 2.0**60
"""From here on 1 is nothing beside x, and long before its square overflows."""


def sinh(x: Value) -> Value:
    """The hyperbolic sine. Error: at most 2 ulp."""
    return in_double(_sinh, x)


def _sinh(x: Value, single: bool) -> Value:
    a = absolute(x)
    z = x * x
    half = half_of_exp(a)
    return where(a < 1.0, x + x * z * polynomial(z, SINH), copysign(half - 0.25 / half, x))


def cosh(x: Value) -> Value:
    """The hyperbolic cosine. Error: at most 2 ulp."""
    return in_double(_cosh, x)


def _cosh(x: Value, single: bool) -> Value:
    half = half_of_exp(absolute(x))
    return half + 0.25 / half


def asinh(x: Value) -> Value:
    """The inverse hyperbolic sine. Error: at most 3 ulp."""
    return in_double(_asinh, x)


def _asinh(x: Value, single: bool) -> Value:
    a = absolute(x)
    z = a * a
    return copysign(_log1p_of_twice(a, a + z / (sqrt(z + 1.0) + 1.0)), x)


def acosh(x: Value) -> Value:
    """The inverse hyperbolic cosine; NaN below 1. Error: at most 3 ulp."""
    return in_double(_acosh, x)


def _acosh(x: Value, single: bool) -> Value:
    t = x - 1.0
    return where(x < 1.0, float("nan"), _log1p_of_twice(x, t + sqrt(t * 2.0 + t * t)))


def _log1p_of_twice(x: Value, u: Value) -> Value:
    """``log(1 + u)``; where x is huge and u rounds to twice x, or overflows, ``log(x) + log(2)``."""
    is_huge = x > HUGE
    return log1p(where(is_huge, x, u)) + where(is_huge, LN2, x.constant(0.0))


def atanh(x: Value) -> Value:
    """The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond. Error: at most 3 ulp."""
    return in_double(_atanh, x)


def _atanh(x: Value, single: bool) -> Value:
    a = absolute(x)
    return copysign(log1p(a * 2.0 / (1.0 - a)) * 0.5, x)
