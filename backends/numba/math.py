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
# erf(x) / x - 1 up to 0.85, in x**2; log2(erfc(x)) from there to 3.93, and 2**r for |r| <= 1/2: to float32's precision
ERF_SINGLE = (
    0.12837916023014356, -0.3761257183607396, 0.1128271739443513, -0.026802547519276677, 0.005051094431707882,
    -0.000631512718251109,
)  # fmt: skip
LOG2_ERFC_SINGLE = (
    -0.00016547095369539813, -1.6273823383553687, -0.9184219677055173, -0.15068674949947863, 0.03243035522061662,
    -0.0044827257593270725, 0.00029218677796473267,
)  # fmt: skip
EXP2_SINGLE = (
    1.0000000716543658, 0.693146967054911, 0.24022119724872826, 0.05550713289583846, 0.009675541292958362,
    0.0013276466792653337,
)  # fmt: skip
# numerator and denominator of 2**(-GAUSS_SINGLE * x**2) ndtr(-x) for x from 0 to 14.6: no term cancels another
GAUSS_SINGLE = -0.7213475108146667  # log2(exp(-1/2)) as a float32
NDTR_SINGLE = (
    (0.5000000040415062, 0.4463438720011439, 0.1890509439396732, 0.04256037902907032, 0.004394834106302335),
    (1.0, 1.69057287109988, 1.2269775436044017, 0.4848101420069071, 0.10668496088109859, 0.011016259725640761),
)  # fmt: skip
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


def _format(x: Value) -> Format:
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


def _reduce_exp(x: Value) -> tuple[Value, Value]:
    """``x = n * ln(2) + r``: the bits of ``n`` (plus a multiple of a high power of two), and ``r``."""
    form = _format(x)
    shifted = x * LOG2_E + form.magic
    n = shifted - form.magic
    r = (x - n * form.ln2_high) - n * form.ln2_low
    return shifted.as_integer(), r


def power_of_two(n: Value) -> Value:
    """``2.0 ** n`` where the result is a normal number; bits of ``n`` above the exponent's do not matter."""
    form = SINGLE if n.bits == 32 else DOUBLE
    return ((n << form.mantissa) + (form.bias << form.mantissa)).as_float()


def _scaled(y: Value, shifted: Value) -> Value:
    """``y * 2**n``; without an instruction for it in two steps, since ``2**n`` alone may over- or underflow."""
    form = _format(y)
    magic_bits = (form.bias + form.mantissa << form.mantissa) + (1 << form.mantissa - 1)
    n = shifted - magic_bits
    if y.bits == 32 and has_scale_instruction():
        return scaled_by_power(y, n)
    half = n >> 1
    return y * power_of_two(half) * power_of_two(n - half)


def exp(x: Value) -> Value:
    """e to the x. Error: at most 1.1 ulp."""
    form = _format(x)
    n, r = _reduce_exp(_clamp(x, form.exp_lowest, form.exp_highest))
    return _scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, n)


def exp2(x: Value) -> Value:
    """2 to the x, exact for whole x. Error: at most 1.1 ulp."""
    form = _format(x)
    shifted = _clamp(x, form.exp_lowest / LN2, form.exp_highest / LN2) + form.magic
    r = (_clamp(x, form.exp_lowest / LN2, form.exp_highest / LN2) - (shifted - form.magic)) * LN2
    return _scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, shifted.as_integer())


def half_of_exp(x: Value) -> Value:
    """``exp(x) / 2`` in float64, for x >= 0; it overflows later than exp does."""
    n, r = _reduce_exp(where(x > 711.0, 711.0, x))
    return _scaled(polynomial(r, DOUBLE.exp) * (r * r) + r + 1.0, n - 1)


def expm1(x: Value) -> Value:
    """exp(x) - 1 without cancellation. Error: at most 2 ulp."""
    form = _format(x)
    n, r = _reduce_exp(_clamp(x, -1.5 * (form.mantissa + 1), form.exp_highest))
    fraction = polynomial(r, form.exp) * (r * r) + r
    # one factor 2 is left for the end, since 2**n alone overflows where the result does not
    half_scale = power_of_two(n - 1)
    y = (fraction * half_scale + (half_scale - 0.5)) * 2.0
    return where(absolute(x) < 0.25, where(x.equals(0.0), x, fraction), y)


def _split_exponent(x: Value) -> tuple[Value, Value]:
    """A positive normal ``x = m * 2**k`` with m about 1: ``k`` as a float, and ``m``."""
    form = _format(x)
    bits = x.as_integer()
    centre = _bits_of(2.0 / 3.0 if x.bits == 32 else SQRT_HALF, x.bits)
    k = (bits - centre) >> form.mantissa
    return k.to_float(x), (bits - (k << form.mantissa)).as_float()


def _bits_of(number: float, bits: int) -> int:
    packed = struct.pack("<f", number) if bits == 32 else struct.pack("<d", number)
    return int.from_bytes(packed, "little")


def _log_of_parts(k: Value, f: Value, correction: Value | None = None) -> Value:
    """``k * ln(2) + log(1 + f) + correction`` for f of about -1/3 to 0.42."""
    form = _format(f)
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
    y = where(x < infinity, y, x)
    y = where(x.equals(zero), -infinity, y)
    return where(x < zero, float("nan"), y)


def _logarithm(x: Value, of_parts: Callable[[Value, Value], Value]) -> Value:
    """``of_parts(k, m - 1)`` for ``x = m * 2**k``."""
    form = _format(x)
    subnormal = x < 2.0 ** (1 - form.bias)
    k, m = _split_exponent(where(subnormal, x * 2.0**form.mantissa, x))
    k = where(subnormal, k - float(form.mantissa), k)
    return _log_edges(x, of_parts(k, m - 1.0), 0.0)


def log(x: Value) -> Value:
    """The natural logarithm. Error: at most 1 ulp."""
    return _logarithm(x, _log_of_parts)


def log2(x: Value) -> Value:
    """The logarithm to base 2, exact for powers of 2. Error: at most 2 ulp."""
    return _logarithm(x, lambda k, f: _log_of_parts(k.constant(0.0), f) * LOG2_E + k)


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
    y = where(absolute(x) < 2.0 ** -(_format(x).mantissa + 2), x, y)
    return _log_edges(x, y, -1.0)


def _expm1_negative(x: Value) -> Value:
    """expm1 for x <= 0."""
    form = _format(x)
    n, r = _reduce_exp(where(x < -1.5 * (form.mantissa + 1), -1.5 * (form.mantissa + 1), x))
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
    logarithm = where(e < 2.0 ** -(_format(x).mantissa + 2), e, logarithm)
    return where(x < 0.0, 0.0, x) + logarithm


def erf(x: Value) -> Value:
    """The error function, at most 1. Error: at most 2.5 ulp."""
    return _erf_single(x) if x.bits == 32 else _erf_double(x)


def _erf_single(x: Value) -> Value:
    form = SINGLE
    a = absolute(x)
    logarithm = polynomial(where(a > 3.93, 3.93, a), LOG2_ERFC_SINGLE)
    shifted = logarithm + form.magic
    power = polynomial(logarithm - (shifted - form.magic), EXP2_SINGLE)
    large = copysign(1.0 - power * power_of_two(shifted.as_integer()), x)
    small = x + x * polynomial(x * x, ERF_SINGLE)
    return where(a < 0.85, small, large)


def _erf_double(x: Value) -> Value:
    a = absolute(x)
    t = where(a < 6.0, a, 6.0) - 1.0
    n, r = _reduce_exp(-polynomial(t, ERF_LARGE))
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
    form = _format(a)
    b = a * -factor
    shifted = a * b * LOG2_E + form.magic
    n = shifted - form.magic
    r = multiply_add(a, b, -(n * form.ln2_high)) - n * form.ln2_low
    return _scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, shifted.as_integer())


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
    form = SINGLE
    a = where(a > 14.6, 14.6, a)
    # the rounding error of b would show magnified by the product with a
    b = a * GAUSS_SINGLE
    lost = multiply_add(a, a.constant(GAUSS_SINGLE), -b)
    shifted = a * b + form.magic
    r = multiply_add(a, b, -(shifted - form.magic)) + a * lost
    gauss = _scaled(polynomial(r, EXP2_SINGLE), shifted.as_integer())
    return gauss * polynomial(a, NDTR_SINGLE[0]) / polynomial(a, NDTR_SINGLE[1])


def _upper_tail_double(a: Value) -> Value:
    a = where(a > 38.8, 38.8, a)
    return _gauss(a, 0.5) * (_scaled_erfc(a * SQRT_HALF, 4.0, ERFC_DOUBLE) * 0.5)


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
    odd = whole & rint(half).differs(half) & (absolute(y) < 2.0 ** (_format(x).mantissa + 1))
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
    n, r = _reduce_exp(_clamp(Value(x.builder, p_high.llvm), form.exp_lowest, form.exp_highest))
    r = r + where(absolute(p_high) < 745.5, p_low, 0.0)
    return _scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, n)


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
