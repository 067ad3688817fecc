"""Elementary functions as straight-line LLVM IR, which LLVM vectorizes where it cannot vectorize libm's calls.

Every function takes and gives a :class:`~graphc.backends.numba.values.Value` of float32 or float64. There are no
branches and no tables. NaN stays NaN; infinities, signed zeros and subnormal numbers are those of the exact
function. The stated errors, in units in the last place (ulp) of the result, are tested against exact values over
dense random points and the edges of each formula's range.

Source: polynomials fitted here (weighted minimax) after the reductions of W. J. Cody and W. Waite, "Software
Manual for the Elementary Functions" (1980); logarithms after P. T. P. Tang, "Table-driven implementation of the
logarithm function" (1990), without his tables; double-double arithmetic after T. J. Dekker (1971).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from graphc.backends.numba.machine import has_scale_instruction
from graphc.backends.numba.twofold import fast_two_sum, multiply_add, two_product, two_sum
from graphc.backends.numba.values import Value, absolute, copysign, polynomial, rint, scaled_by_power, sqrt, where

LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634
LOG10_E = 0.4342944819032518
LOG10_2, LOG10_2_LOW = 0.30102999566383914, 1.42050232272661e-13  # the product of the first with an exponent is exact
SQRT_HALF = 0.7071067811865476


@dataclass(frozen=True)
class Format:
    """What the formulas need to know of a float format, with the coefficients fitted to its precision."""

    mantissa: int  # stored bits
    bias: int
    magic: float  # 1.5 * 2**mantissa: adding it leaves the nearest integer in the low bits
    ln2_high: float  # few enough bits that a product with any exponent is exact
    ln2_low: float
    exp_lowest: float  # exp of it rounds to zero
    exp_highest: float  # exp of it overflows
    exp: tuple[float, ...]  # (exp(r) - 1 - r) / r**2


SINGLE = Format(
    mantissa=23,
    bias=127,
    magic=12582912.0,
    ln2_high=0.693145751953125,
    ln2_low=1.428606765330187e-06,
    exp_lowest=-104.0,
    exp_highest=89.0,
    exp=(0.5, 0.166665181517601, 0.04166620597243309, 0.008368921466171741, 0.0013950433349236846),
)  # fmt: skip
DOUBLE = Format(
    mantissa=52,
    bias=1023,
    magic=6755399441055744.0,
    ln2_high=0.6931471805592082,
    ln2_low=7.371002565167799e-13,
    exp_lowest=-746.0,
    exp_highest=710.0,
    exp=(
        0.5000000000000004, 0.16666666666666682, 0.04166666666658142, 0.0083333333333171, 0.0013888888930361795,
        0.0001984126989767691, 2.48015064718949e-05, 2.7557232659946205e-06, 2.7625630762861837e-07,
        2.5113007350148842e-08,
    ),
)  # fmt: skip

# (log(1 + f) - f + f**2 / 2) / f**3 for |f| <= 1/3, to float32's precision
LOG_SINGLE = (
    0.3333323299884796, -0.24999703466892242, 0.20009548962116241, -0.1668487936258316, 0.1401800960302353,
    -0.12122206389904022, 0.13931016623973846, -0.13164153695106506,
)  # fmt: skip
# (2 * atanh(s) / s - 2) / s**2, in s**2, for |s| <= 0.1716, to float64's precision
LOG_DOUBLE = (
    0.6666666666666698, 0.3999999999961345, 0.28571428703551405, 0.22222202169378738, 0.18183392709356863,
    0.1531813196673933, 0.14757643803563306,
)  # fmt: skip
# the same after its first term, 2/3
LOG_DOUBLE_TAIL = (
    0.40000000000000396, 0.2857142857090773, 0.22222222387698864, 0.18181795067795808, 0.1538629809117622,
    0.13266840789584453, 0.13108697420690563,
)  # fmt: skip


def format_of(x: Value) -> Format:
    """The float format of a value."""
    return SINGLE if x.bits == 32 else DOUBLE


def in_double(function: Callable[..., Value], *arguments: Value) -> Value:
    """``function(*arguments, single)`` in float64; float32 by way of it, where bits to spare make up for each error."""
    if arguments[0].bits == 64:
        return function(*arguments, False)
    return function(*(x.widened() for x in arguments), True).narrowed()


def exponent_of(x: Value) -> Value:
    """The power of two of a float64 as an integer: 1024 of infinities and NaN, -1023 of zero and subnormal numbers."""
    return (x.as_integer().logical_shift_right(52) & 0x7FF) - 1023


def _clamp(x: Value, low: float, high: float) -> Value:
    """NaN passes both comparisons."""
    x = where(x < low, low, x)
    return where(x > high, high, x)


def reduce_exp(x: Value) -> tuple[Value, Value]:
    """``x = n * ln(2) + r``: the bits of ``n`` (plus a multiple of a high power of two), and ``r``."""
    form = format_of(x)
    shifted = x * LOG2_E + form.magic
    n = shifted - form.magic
    r = (x - n * form.ln2_high) - n * form.ln2_low
    return shifted.as_integer(), r


def power_of_two(n: Value) -> Value:
    """``2.0 ** n`` where the result is a normal number; bits of ``n`` above the exponent's do not matter."""
    form = SINGLE if n.bits == 32 else DOUBLE
    return ((n << form.mantissa) + (form.bias << form.mantissa)).as_float()


def scaled(y: Value, shifted: Value) -> Value:
    """``y * 2**n``; without an instruction for it in two steps, since ``2**n`` alone may over- or underflow."""
    form = format_of(y)
    magic_bits = (form.bias + form.mantissa << form.mantissa) + (1 << form.mantissa - 1)
    n = shifted - magic_bits
    if y.bits == 32 and has_scale_instruction():
        return scaled_by_power(y, n)
    half = n >> 1
    return y * power_of_two(half) * power_of_two(n - half)


def exp(x: Value) -> Value:
    """e to the x. Error: at most 1.1 ulp."""
    form = format_of(x)
    n, r = reduce_exp(_clamp(x, form.exp_lowest, form.exp_highest))
    return scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, n)


def exp2(x: Value) -> Value:
    """2 to the x, exact for whole x. Error: at most 1.1 ulp."""
    form = format_of(x)
    shifted = _clamp(x, form.exp_lowest / LN2, form.exp_highest / LN2) + form.magic
    r = (_clamp(x, form.exp_lowest / LN2, form.exp_highest / LN2) - (shifted - form.magic)) * LN2
    return scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, shifted.as_integer())


def half_of_exp(x: Value) -> Value:
    """``exp(x) / 2`` in float64, for x >= 0; it overflows later than exp does."""
    n, r = reduce_exp(where(x > 711.0, 711.0, x))
    return scaled(polynomial(r, DOUBLE.exp) * (r * r) + r + 1.0, n - 1)


def expm1(x: Value) -> Value:
    """exp(x) - 1 without cancellation. Error: at most 2 ulp."""
    form = format_of(x)
    n, r = reduce_exp(_clamp(x, -1.5 * (form.mantissa + 1), form.exp_highest))
    fraction = polynomial(r, form.exp) * (r * r) + r
    # one factor 2 is left for the end, since 2**n alone overflows where the result does not
    half_scale = power_of_two(n - 1)
    y = (fraction * half_scale + (half_scale - 0.5)) * 2.0
    return where(absolute(x) < 0.25, where(x.equals(0.0), x, fraction), y)


def _split_exponent(x: Value) -> tuple[Value, Value]:
    """A positive normal ``x = m * 2**k`` with m about 1: ``k`` as a float, and ``m``."""
    form = format_of(x)
    bits = x.as_integer()
    centre = _bits_of(2.0 / 3.0 if x.bits == 32 else SQRT_HALF, x.bits)
    k = (bits - centre) >> form.mantissa
    return k.to_float(x), (bits - (k << form.mantissa)).as_float()


def _bits_of(number: float, bits: int) -> int:
    packed = struct.pack("<f", number) if bits == 32 else struct.pack("<d", number)
    return int.from_bytes(packed, "little")


def _log_of_parts(k: Value, f: Value, correction: Value | None = None) -> Value:
    """``k * ln(2) + log(1 + f) + correction`` for f of about -1/3 to 0.42."""
    form = format_of(f)
    low = k * form.ln2_low
    if correction is not None:
        low = low + correction
    if f.bits == 32:
        return k * form.ln2_high + (f + (f * f * polynomial(f, (-0.5, *LOG_SINGLE)) + low))
    half_square = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    tail = s * (half_square + z * polynomial(z, LOG_DOUBLE)) + low
    return k * form.ln2_high - ((half_square - tail) - f)


def _log_edges(x: Value, y: Value, zero: float) -> Value:
    """``y`` where x is between ``zero``, the pole, and infinity."""
    infinity = float("inf")
    beyond = where(x.equals(zero), -infinity, where(x < zero, float("nan"), x))
    # the bits of positive numbers are in order, so that one comparison of integers without sign does for two
    inside = (x > zero) & (x < infinity)
    if zero == 0.0:
        inside = (x.as_integer() - 1).is_below(_bits_of(infinity, x.bits) - 1)
    return where(inside, y, beyond)


def _logarithm(x: Value, of_parts: Callable[[Value, Value], Value]) -> Value:
    """``of_parts(k, m - 1)`` for ``x = m * 2**k``."""
    form = format_of(x)
    subnormal = x < 2.0 ** (1 - form.bias)
    k, m = _split_exponent(where(subnormal, x * 2.0**form.mantissa, x))
    k = where(subnormal, k - float(form.mantissa), k)
    return _log_edges(x, of_parts(k, m - 1.0), 0.0)


def log(x: Value) -> Value:
    """The natural logarithm. Error: at most 1 ulp."""
    return _logarithm(x, _log_of_parts)


def log2(x: Value) -> Value:
    """The logarithm to base 2, exact for powers of 2. Error: at most 2 ulp."""
    log2_e = x.constant(LOG2_E)
    return _logarithm(x, lambda k, f: multiply_add(_log_of_parts(k.constant(0.0), f), log2_e, k))


def log10(x: Value) -> Value:
    """The logarithm to base 10. Error: at most 2 ulp."""

    def of_parts(k: Value, f: Value) -> Value:
        return k * LOG10_2 + (_log_of_parts(k.constant(0.0), f) * LOG10_E + k * LOG10_2_LOW)

    return in_double(lambda wide, single: _logarithm(wide, of_parts), x)


def log1p(x: Value) -> Value:
    """log(1 + x) without cancellation. Error: at most 1 ulp."""
    u = x + 1.0
    rounding = where(x < 1.0, x - (u - 1.0), 1.0 - (u - x))
    k, m = _split_exponent(u)
    whole = k.equals(0.0)
    f = where(whole, x, m - 1.0)
    correction = where(whole, 0.0, rounding / u)
    y = _log_of_parts(k, f, correction)
    # below this the formula's squares underflow, and log1p(x) rounds to x
    y = where(absolute(x) < 2.0 ** -(format_of(x).mantissa + 2), x, y)
    return _log_edges(x, y, -1.0)


def _expm1_negative(x: Value) -> Value:
    """expm1 for x <= 0."""
    form = format_of(x)
    n, r = reduce_exp(where(x < -1.5 * (form.mantissa + 1), -1.5 * (form.mantissa + 1), x))
    scale = power_of_two(n)
    return (polynomial(r, form.exp) * (r * r) + r) * scale + (scale - 1.0)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent. Error: at most 3 ulp."""
    t = _expm1_negative(absolute(x) * -2.0)
    return copysign(t / (t + 2.0), x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)). Error: at most 2.5 ulp."""
    e = exp(-absolute(x))
    return where(x < 0.0, e, 1.0) / (e + 1.0)


def softplus(x: Value) -> Value:
    """log(1 + exp(x)). Error: at most 2 ulp."""
    e = exp(-absolute(x))
    u = e + 1.0
    k, m = _split_exponent(u)
    whole = k.equals(0.0)
    logarithm = _log_of_parts(k, where(whole, e, m - 1.0), where(whole, 0.0, (e - (u - 1.0)) / u))
    logarithm = where(e < 2.0 ** -(format_of(x).mantissa + 2), e, logarithm)
    return where(x < 0.0, 0.0, x) + logarithm


def rsqrt(x: Value) -> Value:
    """1 / sqrt(x). Error: at most 1.5 ulp."""
    return 1.0 / sqrt(x)


def sign(x: Value) -> Value:
    """-1, 0 or 1; NaN stays NaN."""
    y = where(x > 0.0, 1.0, where(x < 0.0, -1.0, 0.0 * x.constant(0.0)))
    return where(x.is_nan(), x, y)


def minimum(a: Value, b: Value) -> Value:
    """The lesser; NaN if either is."""
    return where(a < b, a, where(a.is_nan(), a, b))


def maximum(a: Value, b: Value) -> Value:
    """The greater; NaN if either is."""
    return where(a > b, a, where(a.is_nan(), a, b))


def pow(x: Value, y: Value) -> Value:
    """x to the y by the rules of C's ``pow``. Error: at most 1 ulp in float32, 1.5 in float64."""
    magnitude = _power_single(absolute(x), y) if x.bits == 32 else _power_double(absolute(x), y)
    whole = rint(y).equals(y)
    half = y * 0.5
    odd = whole & rint(half).differs(half) & (absolute(y) < 2.0 ** (format_of(x).mantissa + 1))
    negative = x.as_integer() < 0
    result = where(negative & odd, -magnitude, magnitude)
    finite_negative = (x < 0.0) & (x > -float("inf"))
    result = where(finite_negative & ~whole, float("nan"), result)
    result = where(x.is_nan() | y.is_nan(), x + y, result)
    return where(x.equals(1.0) | y.equals(0.0), 1.0, result)


def _power_single(x: Value, y: Value) -> Value:
    """float64 has bits to spare."""
    wide, exponent = x.widened(), y.widened()
    k, m = _split_exponent(wide)
    logarithm = _log_edges(wide, _log_of_parts(k, m - 1.0), 0.0)
    return exp(_product_of_log(logarithm, exponent)).narrowed()


def _product_of_log(logarithm: Value, exponent: Value) -> Value:
    """``exponent * log(x)`` where 0 * infinity means x is 1 or exponent is 0."""
    product = logarithm * exponent
    return where(logarithm.equals(0.0), 0.0, product)


def _power_double(x: Value, y: Value) -> Value:
    """The logarithm as an unevaluated sum of two float64, whose error stays below 2**-65 of it."""
    form = DOUBLE
    subnormal = x < 2.0**-1022
    k, m = _split_exponent(where(subnormal, x * 2.0**52, x))
    k = where(subnormal, k - 52.0, k)
    f = (m - 1.0).exact()
    # s = f / (2 + f), as s_high + s_low
    d_high, d_low = fast_two_sum(f.constant(2.0).exact(), f)
    s_high = f / d_high
    s_low = (-multiply_add(s_high, d_high, -f) - s_high * d_low) / d_high
    z_high, z_low = two_product(s_high, s_high)
    z_low = z_low + s_high * s_low * 2.0
    # log(m) = 2 s + s * (2/3 z + z**2 * tail)
    third_high, third_low = 0.6666666666666666, 3.700743415417188e-17
    t_high, t_low = two_product(z_high, z_high.constant(third_high))
    t_low = t_low + z_low * third_high + z_high * third_low
    t_low = t_low + z_high * z_high * polynomial(z_high, LOG_DOUBLE_TAIL)
    t_high, t_low = fast_two_sum(t_high, t_low)
    u_high, u_low = two_product(s_high, t_high)
    u_low = u_low + s_high * t_low + s_low * t_high
    high, low = fast_two_sum(s_high * 2.0, u_high)
    low = low + (s_low * 2.0 + u_low)
    base_high, base_low = two_sum((k * form.ln2_high).exact(), high)
    low = base_low + (low + k * form.ln2_low)
    high, low = fast_two_sum(base_high, low)
    logarithm = _log_edges(x, high, 0.0).exact()
    finite = (x > 0.0) & (x < float("inf"))
    low = where(finite, low, 0.0)
    # y * log(x) = p_high + p_low
    p_high = where(logarithm.equals(0.0), 0.0, y.exact() * logarithm)
    bounded = (absolute(p_high) < 1e4) & (absolute(y) < float("inf"))
    p_low = multiply_add(where(bounded, y, 0.0).exact(), where(bounded, logarithm, 0.0), -where(bounded, p_high, 0.0))
    p_low = where(bounded, p_low + y.exact() * low, 0.0)
    n, r = reduce_exp(_clamp(Value(x.builder, p_high.llvm), form.exp_lowest, form.exp_highest))
    r = r + where(absolute(p_high) < 745.5, p_low, 0.0)
    return scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, n)


def threefry2x32(key: tuple[Value, Value], counter: tuple[Value, Value]) -> tuple[Value, Value]:
    """Threefry-2x32 with 20 rounds: two random words of a key and a counter, all uint32.

    Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    rotations = (13, 15, 26, 6, 17, 29, 16, 24)
    schedule = (key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = counter[0] + schedule[0], counter[1] + schedule[1]
    for turn in range(20):
        x0 = x0 + x1
        x1 = _rotate_left(x1, rotations[turn % 8]) ^ x0
        if turn % 4 == 3:
            group = turn // 4 + 1
            x0 = x0 + schedule[group % 3]
            x1 = x1 + schedule[(group + 1) % 3] + group
    return x0, x1


def _rotate_left(x: Value, bits: int) -> Value:
    return (x << bits) | x.logical_shift_right(x.bits - bits)


def isfinite(x: Value) -> Value:
    """Neither NaN nor infinite."""
    return absolute(x) < float("inf")


def isnan(x: Value) -> Value:
    """NaN."""
    return x.is_nan()
