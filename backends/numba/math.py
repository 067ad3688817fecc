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

from collections.abc import Callable
from dataclasses import dataclass

from graphc.backends.numba.machine import has_fused_multiply_add
from graphc.backends.numba.values import (
    Value,
    absolute,
    ceil,
    copysign,
    floor,
    fma,
    polynomial,
    rint,
    sqrt,
    where,
)

LOG2_E = 1.4426950408889634
SQRT_HALF = 0.7071067811865476
TWO_OVER_PI = 0.6366197723675814


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
    sin: tuple[float, ...]  # (sin(r) / r - 1) / r**2, in r**2
    cos: tuple[float, ...]  # (cos(r) - 1 + r**2 / 2) / r**4, in r**2
    erf_small: tuple[float, ...]  # erf(x) / x - 1 on [0, 1], in x**2
    erf_large: tuple[float, ...]  # -log(erfc(1 + t))
    erf_limit: float  # erf of it rounds to one


SINGLE = Format(
    mantissa=23,
    bias=127,
    magic=12582912.0,
    ln2_high=0.693145751953125,
    ln2_low=1.428606765330187e-06,
    exp_lowest=-104.0,
    exp_highest=89.0,
    exp=(0.5, 0.166665181517601, 0.04166620597243309, 0.008368921466171741, 0.0013950433349236846),
    sin=(-0.16666655242443085, 0.008332203142344952, -0.00019519896886777133),
    cos=(0.041666653007268906, -0.0013887585373595357, 2.446010330459103e-05),
    erf_small=(
        0.12837916612625122, -0.3761262595653534, 0.11283600330352783, -0.026854442432522774, 0.00518953287974,
        -0.0008020817185752094, 7.88903926149942e-05,
    ),
    erf_large=(
        1.8496055603027344, 2.638967514038086, 0.8431071043014526, 0.041563481092453, -0.010046450421214104,
        0.00201196176931262, -0.0002895238867495209, 2.168561695725657e-05,
    ),
    erf_limit=4.0,
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
    sin=(
        -0.16666666666666638, 0.008333333333323726, -0.00019841269830664978, 2.7557313944872005e-06,
        -2.505079274697426e-08, 1.5898585100893288e-10,
    ),
    cos=(
        0.04166666666666666, -0.0013888888888883338, 2.4801587294843635e-05, -2.755731580312174e-07,
        2.087590893240593e-09, -1.1368739656535271e-11,
    ),
    erf_small=(
        0.12837916709551256, -0.3761263890318355, 0.11283791670945251, -0.026866170643275795, 0.0052239776074203634,
        -0.0008548325989563366, 0.00012055295316904695, -1.4924744601060625e-05, 1.6447516981490965e-06,
        -1.6209171061848588e-07, 1.3722957127128493e-08, -7.801156181828504e-10,
    ),
    erf_large=(
        1.8496055099332482, 2.6389675142347757, 0.8431072563594142, 0.04156109802505784, -0.010033825178907987,
        0.0019779012145176066, -0.00023731642968717902, -2.6296340879586223e-05, 2.7199000188556824e-05,
        -9.671416570927275e-06, 2.1319816199764587e-06, -2.0484419564434455e-07, -5.7993523935976264e-08,
        3.33840364615415e-08, -8.516773409079684e-09, 1.318740266785056e-09, -1.192871899443607e-10,
        4.8631853513475064e-12,
    ),
    erf_limit=6.0,
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
# pi / 2 in parts of 33 bits, whose products with a quadrant below 2**20 are exact
HALF_PI_PARTS = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)


def _format(x: Value) -> Format:
    return SINGLE if x.bits == 32 else DOUBLE


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


def _power_of_two(n: Value) -> Value:
    """``2.0 ** n`` where the result is a normal number; bits of ``n`` above the exponent's do not matter."""
    form = SINGLE if n.bits == 32 else DOUBLE
    return ((n << form.mantissa) + (form.bias << form.mantissa)).as_float()


def _scaled(y: Value, shifted: Value) -> Value:
    """``y * 2**n`` in two steps, since ``2**n`` alone may over- or underflow."""
    form = _format(y)
    magic_bits = (form.bias + form.mantissa << form.mantissa) + (1 << form.mantissa - 1)
    n = shifted - magic_bits
    half = n >> 1
    return y * _power_of_two(half) * _power_of_two(n - half)


def exp(x: Value) -> Value:
    """e to the x. Error: at most 1.1 ulp."""
    form = _format(x)
    n, r = _reduce_exp(_clamp(x, form.exp_lowest, form.exp_highest))
    return _scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, n)


def expm1(x: Value) -> Value:
    """exp(x) - 1 without cancellation. Error: at most 2 ulp."""
    form = _format(x)
    n, r = _reduce_exp(_clamp(x, -1.5 * (form.mantissa + 1), form.exp_highest))
    fraction = polynomial(r, form.exp) * (r * r) + r
    # one factor 2 is left for the end, since 2**n alone overflows where the result does not
    half_scale = _power_of_two(n - 1)
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
    import struct

    packed = struct.pack("<f", number) if bits == 32 else struct.pack("<d", number)
    return int.from_bytes(packed, "little")


def _log_of_parts(k: Value, f: Value, correction: Value | None = None) -> Value:
    """``k * ln(2) + log(1 + f) + correction`` for f of about -1/3 to 0.42."""
    form = _format(f)
    low = k * form.ln2_low
    if correction is not None:
        low = low + correction
    half_square = f * f * 0.5
    if f.bits == 32:
        return k * form.ln2_high + (f + (low - (half_square - f * f * f * polynomial(f, LOG_SINGLE))))
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


def log(x: Value) -> Value:
    """The natural logarithm. Error: at most 1 ulp."""
    form = _format(x)
    subnormal = x < 2.0 ** (1 - form.bias)
    k, m = _split_exponent(where(subnormal, x * 2.0**form.mantissa, x))
    k = where(subnormal, k - float(form.mantissa), k)
    return _log_edges(x, _log_of_parts(k, m - 1.0), 0.0)


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
    scale = _power_of_two(n)
    return (polynomial(r, form.exp) * (r * r) + r) * scale + (scale - 1.0)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent. Error: at most 3 ulp."""
    t = _expm1_negative(absolute(x) * -2.0)
    y = copysign(t / (t + 2.0), x)
    # below this tanh(x) rounds to x, and twice a subnormal number may not be one
    return where(absolute(x) < 2.0 ** -(_format(x).mantissa // 2 + 2), x, y)


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
    """The error function. Error: at most 2.5 ulp."""
    form = _format(x)
    a = absolute(x)
    t = where(a < form.erf_limit, a, form.erf_limit) - 1.0
    n, r = _reduce_exp(-polynomial(t, form.erf_large))
    scale = _power_of_two(n)
    complement = (polynomial(r, form.exp) * (r * r) + r) * scale + scale
    large = copysign(1.0 - complement, x)
    small = x + x * polynomial(x * x, form.erf_small)
    return where(x.is_nan(), x, where(a < 1.0, small, large))


def _reduce_quadrant(x: Value) -> tuple[Value, Value]:
    """``x = n * pi/2 + r``: ``n`` modulo 4 as a float64 (float32 counts in float64 too), and ``r`` in x's type."""
    wide = x.widened() if x.bits == 32 else x
    n = rint(wide * TWO_OVER_PI)
    r = wide
    for part in HALF_PI_PARTS if x.bits == 64 else HALF_PI_PARTS[:3]:
        r = r - n * part
    quadrant = n - floor(n * 0.25) * 4.0
    return (quadrant.narrowed(), r.narrowed()) if x.bits == 32 else (quadrant, r)


def _sine_of_quadrant(quadrant: Value, r: Value) -> Value:
    form = _format(r)
    z = r * r
    sine = r + r * z * polynomial(z, form.sin)
    cosine = z * z * polynomial(z, form.cos) + (1.0 - z * 0.5)
    y = where(quadrant.equals(1.0) | quadrant.equals(3.0), cosine, sine)
    return where((quadrant > 1.0) & (quadrant < 4.0), -y, y)


def sin(x: Value) -> Value:
    """The sine. Error: at most 2.5 ulp for |x| <= 1e6, where float64 has exact products to reduce x with."""
    quadrant, r = _reduce_quadrant(x)
    return where(x.equals(0.0), x, _sine_of_quadrant(quadrant, r))


def cos(x: Value) -> Value:
    """The cosine. Error: at most 2.5 ulp for |x| <= 1e6, where float64 has exact products to reduce x with."""
    quadrant, r = _reduce_quadrant(x)
    return _sine_of_quadrant(where(quadrant.equals(3.0), 0.0, quadrant + 1.0), r)


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
    d_high, d_low = _fast_two_sum(f.constant(2.0).exact(), f)
    s_high = f / d_high
    s_low = (-_multiply_add(s_high, d_high, -f) - s_high * d_low) / d_high
    z_high, z_low = _two_product(s_high, s_high)
    z_low = z_low + s_high * s_low * 2.0
    # log(m) = 2 s + s * (2/3 z + z**2 * tail)
    third_high, third_low = 0.6666666666666666, 3.700743415417188e-17
    t_high, t_low = _two_product(z_high, z_high.constant(third_high))
    t_low = t_low + z_low * third_high + z_high * third_low
    t_low = t_low + z_high * z_high * polynomial(z_high, LOG_DOUBLE_TAIL)
    t_high, t_low = _fast_two_sum(t_high, t_low)
    u_high, u_low = _two_product(s_high, t_high)
    u_low = u_low + s_high * t_low + s_low * t_high
    high, low = _fast_two_sum(s_high * 2.0, u_high)
    low = low + (s_low * 2.0 + u_low)
    base_high, base_low = _two_sum((k * form.ln2_high).exact(), high)
    low = base_low + (low + k * form.ln2_low)
    high, low = _fast_two_sum(base_high, low)
    logarithm = _log_edges(x, high, 0.0).exact()
    finite = (x > 0.0) & (x < float("inf"))
    low = where(finite, low, 0.0)
    # y * log(x) = p_high + p_low
    p_high = where(logarithm.equals(0.0), 0.0, y.exact() * logarithm)
    bounded = (absolute(p_high) < 1e4) & (absolute(y) < float("inf"))
    p_low = _multiply_add(where(bounded, y, 0.0).exact(), where(bounded, logarithm, 0.0), -where(bounded, p_high, 0.0))
    p_low = where(bounded, p_low + y.exact() * low, 0.0)
    n, r = _reduce_exp(_clamp(Value(x.builder, p_high.llvm), form.exp_lowest, form.exp_highest))
    r = r + where(absolute(p_high) < 745.5, p_low, 0.0)
    return _scaled(polynomial(r, form.exp) * (r * r) + r + 1.0, n)


def _fast_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error, for |a| >= |b|; both exact values."""
    a = a.exact()
    high = a + b
    return high, b - (high - a)


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error, whichever is larger."""
    a = a.exact()
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


def _two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """a * b and its rounding error."""
    high = a.exact() * b
    return high, _multiply_add(a, b, -high)


def _multiply_add(a: Value, b: Value, c: Value) -> Value:
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
    """A float64 as the sum of two numbers of 26 bits, whose products are exact."""
    scaled = a * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - a)
    return high, a - high


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


def _isfinite(x: Value) -> Value:
    return absolute(x) < float("inf")


def _isnan(x: Value) -> Value:
    return x.is_nan()


UNARY: dict[str, Callable[[Value], Value]] = {
    "exp": exp, "log": log, "expm1": expm1, "log1p": log1p, "sqrt": sqrt, "rsqrt": rsqrt,
    "tanh": tanh, "sigmoid": sigmoid, "softplus": softplus, "erf": erf, "sin": sin, "cos": cos,
    "floor": floor, "ceil": ceil, "rint": rint,
}  # fmt: skip
"""Float functions of one argument, by their name in the kernel IR."""

PREDICATES: dict[str, Callable[[Value], Value]] = {"isnan": _isnan, "isfinite": _isfinite}
"""Questions about a float, by their name in the kernel IR."""
