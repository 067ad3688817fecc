"""Numbers as unevaluated sums of two: what an addition or a product rounds away, kept.

Source: T. J. Dekker, "A floating-point technique for extending the available precision" (1971).
"""

from __future__ import annotations

from graphc.backends.numba.machine import has_fused_multiply_add
from graphc.backends.numba.values import Value, fma


def fast_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error, for |a| >= |b|; both exact values."""
    a = a.exact()
    high = a + b
    return high, b - (high - a)


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error, whichever is larger."""
    a = a.exact()
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """a * b and its rounding error."""
    high = a.exact() * b
    return high, multiply_add(a, b, -high)


def multiply_add(a: Value, b: Value, c: Value) -> Value:
    """a * b + c where c cancels most of the product; rounded once, or nearly so on CPUs that cannot."""
    if has_fused_multiply_add():
        return fma(a, b, c)
    a, b = a.exact(), b.exact()
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    product = a * b
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return (product + c) + error


def _halves(a: Value) -> tuple[Value, Value]:
    """A number as the sum of two of half as many bits, whose products are exact."""
    scaled = a * (134217729.0 if a.bits == 64 else 4097.0)  # 2**27 + 1, 2**12 + 1
    high = scaled - (scaled - a)
    return high, a - high
