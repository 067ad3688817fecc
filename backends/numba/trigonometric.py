"""Trigonometric functions and their inverses, as :mod:`graphc.backends.numba.math` has the others.

The argument of sine, cosine and tangent is reduced by as many bits of 2/pi as its exponent asks for, so that the
stated errors hold for every number of the type.

Source: M. Payne and R. Hanek, "Radian reduction for trigonometric functions" (1983), for float64 with the products in
parts of float64 instead of integers; polynomials fitted here (weighted minimax).
"""

from __future__ import annotations

from graphc.backends.numba.math import exponent_of, in_double, power_of_two
from graphc.backends.numba.twofold import fast_two_sum, two_product, two_sum
from graphc.backends.numba.values import (
    Value,
    absolute,
    constants,
    copysign,
    funnel_shift,
    polynomial,
    rint,
    sqrt,
    where,
)

HALF_PI, HALF_PI_LOW = 1.5707963267948966, 6.123233995736766e-17
PI, PI_LOW = 3.141592653589793, 1.2246467991473532e-16

# (sin(r) / r - 1) / r**2 and (cos(r) - 1 + r**2 / 2) / r**4, in r**2
SIN_SINGLE = (-0.16666655242443085, 0.008332203142344952, -0.00019519896886777133)
COS_SINGLE = (0.041666653007268906, -0.0013887585373595357, 2.446010330459103e-05)
SIN_DOUBLE = (
    -0.16666666666666638, 0.008333333333323726, -0.00019841269830664978, 2.7557313944872005e-06,
    -2.505079274697426e-08, 1.5898585100893288e-10,
)  # fmt: skip
COS_DOUBLE = (
    0.04166666666666666, -0.0013888888888883338, 2.4801587294843635e-05, -2.755731580312174e-07, 2.087590893240593e-09,
    -1.1368739656535271e-11,
)  # fmt: skip
# (atan(t) / t - 1) / t**2 on [0, 1], in t**2
ATAN_SINGLE = (
    -0.33333330683433593, 0.19999798250980372, -0.14281383925480853, 0.11067790609678343, -0.08845151631081562,
    0.06815856216387702, -0.04569739586278267, 0.023369643363297585, -0.007697800270726908, 0.0011879282052398225,
)  # fmt: skip
ATAN_DOUBLE = (
    -0.33333333333333304, 0.19999999999985535, -0.142857142843553, 0.11111111055122273, -0.09090907793131968,
    0.07692288485213392, -0.06666470797562167, 0.05880905508398167, -0.05255127508886366, 0.04727575185368044,
    -0.0423247482541493, 0.03690439369490453, -0.030308382060328275, 0.022469322971913883, -0.014346476225625087,
    0.007505699070132674, -0.003041081644974256, 0.0008855190866361239, -0.00016371341146017746,
    1.4365002215124526e-05,
)  # fmt: skip
# (asin(t) / t - 1) / t**2 on [0, 1/2], in t**2
ASIN_SINGLE = (
    0.16666666879084288, 0.07499968825951751, 0.044655352619522935, 0.030163206635350513, 0.024318350147882566,
    0.008315540166652804, 0.033751051292461684,
)  # fmt: skip
ASIN_DOUBLE = (
    0.1666666666666668, 0.0749999999999058, 0.04464285715738139, 0.03038194347173622, 0.02237219491260702,
    0.017351950812370284, 0.01397698173002382, 0.011428750083199896, 0.010620688469391806, 0.0042836419324582715,
    0.02035789016233644, -0.019158528317343836, 0.03151651337959721,
)  # fmt: skip

TWO_OVER_PI_BITS = 1216
TWO_OVER_PI = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1d"
    "eb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b"
    "5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b"
    "6bab",
    16,
)
"""2/pi times ``2**TWO_OVER_PI_BITS``."""


STEP = 16  # so many powers of two share a row
TABLE_PARTS = (53, 53, 53, 53)


def _table() -> tuple[tuple[float, ...], ...]:
    """``2/pi * 2**(STEP * row)``, less multiples of 4, in so many bits each; whole turns of integers leave nothing."""
    table: list[tuple[float, ...]] = []
    for row in range(62):
        rest = (TWO_OVER_PI << STEP * row) % (4 << TWO_OVER_PI_BITS)
        numbers: list[float] = []
        for bits in TABLE_PARTS:
            unit = 1 << max(rest.bit_length() - bits, 0)
            numbers.append(rest // unit * unit / (1 << TWO_OVER_PI_BITS))
            rest %= unit
        table.append(tuple(numbers))
    return tuple(zip(*table, strict=True))


TABLE = _table()
WORDS = tuple((TWO_OVER_PI << 38 >> TWO_OVER_PI_BITS - 64 * i) % (1 << 64) for i in range(4))
"""2/pi in words of 64 bits, the first of which ends with the weight 2**-38."""


def _turn_single(a: Value) -> tuple[Value, Value, Value]:
    """``a = n * pi/2 + r`` for a float32 ``a >= 0``: n modulo 4, r in float64 and whether a is below 1/2.

    There n and r are not to be used; where a is infinite or NaN they are any numbers. In integers: 2/pi, shifted by
    the exponent, times the mantissa, where all of weight 4 and above leaves on the left.
    """
    bits = a.as_integer()
    exponent = bits >> 23
    mantissa = (bits & 0x7FFFFF) | 0x800000
    mantissa = mantissa + where(exponent < 127, 0, mantissa)  # twice from 1 on: 128 exponents have shifts of their own
    shift = exponent - 127
    shift = where(shift < 0, 0, shift).zero_extended(64)
    mantissa = mantissa.zero_extended(64)
    is_first = shift < 64
    high, middle, low = (where(is_first, _word(shift, i), _word(shift, i + 1)) for i in range(3))
    below = funnel_shift(middle, low, shift).logical_shift_right(32)
    turn = mantissa * funnel_shift(high, middle, shift) + (mantissa * below).logical_shift_right(32)
    nearest = (turn + (1 << 61)).logical_shift_right(62)
    r = (turn << 2).to_float(a.widened()) * (HALF_PI * 2.0**-64)
    return nearest.truncated(32), r, exponent < 126


def _word(like: Value, i: int) -> Value:
    return like.constant(WORDS[i] - (WORDS[i] >> 63 << 64))  # as a signed integer


def _turn_double(x: Value) -> tuple[Value, Value, Value]:
    """``x = n * pi/2 + r``: the bits of n modulo 4, r, and what is left of r beyond it."""
    beyond = exponent_of(x) - 52
    row = where(beyond < 0, 0, beyond) >> 4
    row = where(row < len(TABLE[0]), row, len(TABLE[0]) - 1)
    y = x * power_of_two(-(row << 4))  # a whole number unless row is 0
    parts = [constants(f"graphc_two_over_pi_{i}", part, row) for i, part in enumerate(TABLE)]
    (p0, e0), (p1, e1), (p2, e2) = (two_product(y, part) for part in parts[:3])
    turn, tail = two_sum(_without_turns(p0), _without_turns(e0))
    turn, error = two_sum(turn, _without_turns(p1))
    n, nearest = _nearest(turn)
    turn, tail = turn - nearest, tail + error
    for more in (e1, p2):
        turn, error = two_sum(turn, more)
        tail = tail + error
    turn, tail = fast_two_sum(turn, tail + (e2 + y * parts[3]))
    angle, error = two_product(turn, turn.constant(HALF_PI))
    return n, angle, error + (turn * HALF_PI_LOW + tail * HALF_PI)


def _without_turns(x: Value) -> Value:
    """x less a multiple of 4, exactly."""
    return x.exact() - rint(x * 0.25) * 4.0


def _nearest(x: Value) -> tuple[Value, Value]:
    """The nearest whole number, in the low bits of an integer and as a float."""
    magic = 6755399441055744.0  # 1.5 * 2**52
    shifted = x.exact() + magic
    return shifted.as_integer(), shifted - magic


def _sine_and_cosine(r: Value, rest: Value, single: bool) -> tuple[Value, Value]:
    """Of r + rest, where r is between -pi/4 and pi/4."""
    z = r * r
    near_one = 1.0 - z * 0.5
    sine = r + (r * z * polynomial(z, SIN_SINGLE if single else SIN_DOUBLE) + rest * near_one)
    return sine, near_one + (z * z * polynomial(z, COS_SINGLE if single else COS_DOUBLE) - r * rest)


def _parts(a: Value) -> tuple[Value, Value, Value]:
    """The turns of ``a >= 0`` as bits, sine and cosine of the rest, in its type."""
    if a.bits == 64:
        turns, r, rest = _turn_double(a)
        return turns, *_sine_and_cosine(r, rest, single=False)
    turns, r, is_small = _turn_single(a)
    r = where(is_small, a, r.narrowed() + _nan_unless_finite(a))
    return where(is_small, 0, turns), *_sine_and_cosine(r, r.constant(0.0), single=True)


def _nan_unless_finite(x: Value) -> Value:
    """0 or NaN."""
    return x - x


def _with_sign_of(y: Value, turns: Value) -> Value:
    """-y where bit 1 of the turns is set."""
    return (y.as_integer() ^ ((turns & 2) << y.bits - 2)).as_float()


def _with_sign_changed_by(y: Value, x: Value) -> Value:
    """-y where the sign bit of x is set."""
    return (y.as_integer() ^ (x.as_integer() & -(1 << x.bits - 1))).as_float()


def _for_small(x: Value, y: Value) -> Value:
    """x where the function of it rounds to x, else y."""
    return where(absolute(x) < 2.0 ** (-12 if x.bits == 32 else -27), x, y)


def sin(x: Value) -> Value:
    """The sine. Error: at most 2 ulp."""
    turns, sine, cosine = _parts(absolute(x))
    y = _with_sign_of(where((turns & 1).equals(0), sine, cosine), turns)
    y = _with_sign_changed_by(y, x)
    return y if x.bits == 32 else _for_small(x, y)


def cos(x: Value) -> Value:
    """The cosine. Error: at most 2 ulp."""
    turns, sine, cosine = _parts(absolute(x))
    return _with_sign_of(where((turns & 1).equals(0), cosine, sine), turns + (turns & 1))


def tan(x: Value) -> Value:
    """The tangent. Error: at most 3 ulp."""
    a = absolute(x)
    if x.bits == 64:
        turns, r, rest = _turn_double(a)
    else:
        turns, r, is_small = _turn_single(a)
        r = where(is_small, a.widened(), r + _nan_unless_finite(a).widened())
        turns, rest = where(is_small, 0, turns), r.constant(0.0)
    sine, cosine = _sine_and_cosine(r, rest, single=x.bits == 32)
    even = (turns & 1).equals(0)
    y = where(even, sine, -cosine) / where(even, cosine, sine)
    return _for_small(x, _with_sign_changed_by(y if x.bits == 64 else y.narrowed(), x))


def _atan_of_fraction(t: Value, single: bool) -> Value:
    """For t from 0 to 1."""
    z = t * t
    return t + t * z * polynomial(z, ATAN_SINGLE if single else ATAN_DOUBLE)


def atan(x: Value) -> Value:
    """The inverse tangent. Error: at most 2 ulp."""
    return in_double(_atan, x)


def _atan(x: Value, single: bool) -> Value:
    a = absolute(x)
    is_large = a > 1.0
    small = _atan_of_fraction(where(is_large, 1.0 / a, a), single)
    return copysign(where(is_large, HALF_PI - (small - HALF_PI_LOW), small), x)


def atan2(y: Value, x: Value) -> Value:
    """The angle of the point (x, y), from -pi to pi. Error: at most 2 ulp."""
    return in_double(_atan2, y, x)


def _atan2(y: Value, x: Value, single: bool) -> Value:
    height, width = absolute(y), absolute(x)
    is_steep = height > width
    low, high = where(is_steep, width, height), where(is_steep, height, width)
    fraction = low / high
    fraction = where(high.equals(0.0), 0.0, fraction)
    fraction = where(low.equals(float("inf")), 1.0, fraction)
    angle = _atan_of_fraction(fraction, single)
    angle = where(is_steep, HALF_PI - (angle - HALF_PI_LOW), angle)
    angle = where(x.as_integer() < 0, PI - (angle - PI_LOW), angle)
    return where(x.is_nan() | y.is_nan(), x + y, copysign(angle, y))


def _asin_of_half(x: Value, single: bool) -> tuple[Value, Value, Value]:
    """Whether ``|x| > 1/2``; then a from 0 to 1/2 and ``asin(a)``: a is ``|x|``, else ``sin((pi/2 - asin|x|) / 2)``."""
    a = absolute(x)
    is_large = a > 0.5
    z = where(is_large, (1.0 - a) * 0.5, a * a)
    t = where(is_large, sqrt(z), a)
    return is_large, t, t + t * z * polynomial(z, ASIN_SINGLE if single else ASIN_DOUBLE)


def asin(x: Value) -> Value:
    """The inverse sine; NaN outside of -1 to 1. Error: at most 2.5 ulp."""
    return in_double(_asin, x)


def _asin(x: Value, single: bool) -> Value:
    is_large, _, angle = _asin_of_half(x, single)
    return copysign(where(is_large, HALF_PI - (angle * 2.0 - HALF_PI_LOW), angle), x)


def acos(x: Value) -> Value:
    """The inverse cosine; NaN outside of -1 to 1. Error: at most 2 ulp."""
    return in_double(_acos, x)


def _acos(x: Value, single: bool) -> Value:
    is_large, _, angle = _asin_of_half(x, single)
    twice = angle * 2.0
    large = where(x < 0.0, PI - (twice - PI_LOW), twice)
    return where(is_large, large, HALF_PI - (copysign(angle, x) - HALF_PI_LOW))
