"""Special functions of floats: the gamma function's logarithm and its derivatives, erfc, and logarithms made safe.

What is composed of other operations is computed in float64 where its operands are float32, so that errors of the parts
do not show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import AxisError
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.loops.scalar import apply_scalar
from graphc.ops.arithmetic import abs, divide, maximum, multiply, negative, square, subtract
from graphc.ops.base import FLOATS, Array, BadCase, Case, Elementwise, Operand, as_int, call, cast_to, op_class
from graphc.ops.compare import equal, isnan, less, where
from graphc.ops.exponential import exp, log, log1p, sigmoid
from graphc.ops.logic import logical_and, logical_not
from graphc.ops.rounding import floor, round
from graphc.ops.trigonometric import sin, tan


class _OfFloats(Elementwise):
    """Shapes: that of x. Raises: DTypeError for integers and bool."""

    accepts = FLOATS


def _by_float(function: Callable[[float], float], x: Array) -> Array:
    """A function of Python's floats at each place."""
    return np.array([function(value) for value in x.ravel().tolist()], np.float64).reshape(x.shape).astype(x.dtype)


def _in_double(function: Callable[..., Node], *operands: Node) -> Node:
    dtype = operands[0].dtype
    return cast_to(function(*(cast_to(x, DType.float64) for x in operands)), dtype)


def _polynomial(x: Node, coefficients: Sequence[float]) -> Node:
    """``coefficients[0] + coefficients[1] * x + ...``."""
    *rest, last = coefficients
    total = multiply(x, last)
    for coefficient in reversed(rest[1:]):
        total = multiply(total + coefficient, x)
    return total + rest[0]


@op_class
class Erfc(_OfFloats):
    """``1 - erf(x)`` without cancellation.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: ISO C ``erfc``.
    """

    fn = "erfc"

    def reference(self, x: Array) -> Array:
        return _by_float(math.erfc, x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, multiply(-2 / math.sqrt(math.pi), exp(negative(square(node.args[0])))))


def erfc(x: Operand) -> Node:
    """``1 - erf(x)`` without cancellation.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: ISO C ``erfc``.

    >>> import graphc as gx
    >>> gx.erfc(gx.placeholder("x", ("n", 3)))
    <erfc: f32[n, 3]>
    """
    return call(Erfc(), x)


@op_class
class Ndtr(_OfFloats):
    """The normal distribution function ``erfc(-x / sqrt(2)) / 2``, with relative precision where it is small.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://dlmf.nist.gov/7.18, equation 7.18.1 at ``-x / sqrt(2)``; the name is SciPy's.
    """

    fn = "ndtr"
    domain = (-5.0, 5.0)

    def reference(self, x: Array) -> Array:
        return np.asarray(apply_scalar("ndtr", (x,), DType(x.dtype.name)))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, normal_density(node.args[0]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, the lower tail down to where the result is subnormal and then 0."""
        x = np.array([-1e4, -39.0, -38.4, -37.6, -26.0, -14.1, -13.0, -12.9, -8.3, -5.0, -2.5, 1.5, 6.0, 9.0, 50.0])
        return [
            *super().cases(),
            *(Case(cls(), (x.astype(d),), differentiable=False) for d in (np.float32, np.float64)),
        ]


def normal_density(x: Node) -> Node:
    """``exp(-x**2 / 2) / sqrt(2 pi)``, the derivative of ndtr."""
    return multiply(1 / math.sqrt(2 * math.pi), exp(multiply(-0.5, square(x))))


def ndtr(x: Operand) -> Node:
    """The normal distribution function ``erfc(-x / sqrt(2)) / 2``, with relative precision where it is small.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://docs.scipy.org/doc/scipy/reference/generated/scipy.special.ndtr.html

    >>> import graphc as gx
    >>> gx.ndtr(gx.placeholder("x", ("n", 3)))
    <ndtr: f32[n, 3]>
    """
    return call(Ndtr(), x)


# lgamma(2 + y) / y for -1/2 <= y <= 1, and S in lgamma(x) = (x - 1/2) (log(x) - 1) + HALF_LOG + S(1/x**2) / x, x >= 8
_LGAMMA = (
    0.42278433509846713, 0.3224670334241132, -0.0673523010531978, 0.02058080842778572, -0.00738555102869781,
    0.0028905103306966547, -0.0011927539109303643, 0.0005096695252281257, -0.00022315477123523267,
    9.945751645890405e-05, -4.492611945147623e-05, 2.050709008871258e-05, -9.44007437579582e-06,
    4.375949381945243e-06, -2.037948974959311e-06, 9.506958530810085e-07, -4.482765106377201e-07,
    2.1988702569970443e-07, -1.0940781019506397e-07, 4.699874947981573e-08, -1.3667606649933953e-08,
    1.874887562459249e-09,
)  # fmt: skip
_STIRLING = (
    0.08333333333333333, -0.0027777777777741003, 0.0007936507898355585, -0.0005952366071162396, 0.0008414728669380262,
    -0.0018905408298981376, 0.005069265392352649,
)  # fmt: skip
_HALF_LOG = 0.4189385332046727  # (log(2 pi) - 1) / 2


@op_class
class Lgamma(_OfFloats):
    """The logarithm of the absolute value of the gamma function; inf at 0 and at negative whole numbers.

    Below 0 it crosses zero between whole numbers; there the error is small beside 1, not beside the result.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: ISO C ``lgamma``; reflection and recurrence of https://dlmf.nist.gov/5.5, polynomials fitted here.
    """

    composite = True
    domain = (0.1, 6.0)

    def reference(self, x: Array) -> Array:
        return _by_float(_lgamma, x)

    def decompose(self, *args: Node) -> Node:
        return _in_double(_lgamma_of_double, *args)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, digamma(node.args[0]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, each range of the formula, negative numbers, poles and zeros."""
        x = np.array([-3.5, -2.0, -0.5, -1e-9, 0.25, 0.5, 0.9, 1.0, 1.5, 2.0, 2.5, 3.0, 7.9, 8.0, 50.0, 1e6])
        return [
            *super().cases(),
            *(Case(cls(), (x.astype(d),), differentiable=False) for d in (np.float32, np.float64)),
        ]


def _lgamma(x: float) -> float:
    return math.inf if x <= 0 and (math.isinf(x) or x == math.floor(x)) else math.lgamma(x)


def _lgamma_of_double(x: Node) -> Node:
    # by reflection lgamma(x) = log(pi / |sin(pi x)|) - lgamma(1 - x) below 0
    below = less(x, 0.0)
    z = where(below, 1.0 - x, x)
    tiny, small, medium = less(z, 0.5), less(z, 1.5), less(z, 8.0)
    # one polynomial serves from 1.5 to 3; others are moved there by gamma(z + 1) = z gamma(z)
    down = where(medium, maximum(floor(z), 2.0), 2.0)
    product = where(less(z, 3.0), 1.0, z - 1.0)
    for k in range(2, 6):
        product = multiply(product, where(less(down, k + 1.5), 1.0, subtract(z, float(k))))
    y = where(tiny, z, where(small, z - 1.0, z - down))
    by_log = log(where(tiny, multiply(z, z + 1.0), where(small, z, where(medium, product, z))))
    near = _polynomial(y, _LGAMMA) * y + where(small, negative(by_log), by_log)
    inverse = divide(1.0, z)
    far = (z - 0.5) * (by_log - 1.0) + (_polynomial(square(inverse), _STIRLING) * inverse + _HALF_LOG)
    result = where(medium, near, far)
    from_whole = x - round(x)
    reflected = math.log(math.pi) - log(abs(sin(multiply(from_whole, math.pi)))) - result
    result = where(below, reflected, result)
    return where(equal(abs(x), math.inf), math.inf, result)


def lgamma(x: Operand) -> Node:
    """The logarithm of the absolute value of the gamma function.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: ISO C ``lgamma``.

    >>> import graphc as gx
    >>> gx.lgamma(gx.placeholder("x", ("n", 3)))
    <lgamma: f32[n, 3]>
    """
    return call(Lgamma(), x)


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798)
"""The even Bernoulli numbers from the second on."""


@op_class
class Polygamma(_OfFloats):
    """The derivative of this order of digamma, the logarithmic derivative of the gamma function.

    At 0 and negative whole numbers it is infinite where both sides agree on a sign, else NaN; at zeros, as 1.4616 for
    order 0, the error is small beside 1, not beside the result.

    Shapes: that of x.
    Raises: AxisError unless the order is a whole number from 0 to 20; DTypeError for integers and bool.
    Source: https://dlmf.nist.gov/5.15, recurrence 5.15.5, reflection 5.15.6, asymptotic expansion 5.15.9.
    """

    order: int = 0

    composite = True
    domain = (0.3, 4.0)

    def infer(self, *types: TensorType) -> TensorType:
        order = as_int(self.order)
        if order is None or not 0 <= order <= 20:
            raise AxisError(f"the order {self.order!r} is not from 0 to 20", remedy="give an int from 0 to 20")
        return super().infer(*types)

    def reference(self, x: Array) -> Array:
        """The sum of the series, shifted so far that few terms are left of the asymptotic expansion."""
        return _polygamma_of_array(self.order, x.astype(np.float64)).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        return _in_double(self._of_double, *args)

    def _of_double(self, x: Node) -> Node:
        n = self.order
        below = less(x, 0.0)
        z = where(below, 1.0 - x, x)
        shift = 10 + n
        total = _inverse_power(z, n + 1)
        for k in range(1, shift):
            total = total + _inverse_power(z + float(k), n + 1)
        w = z + float(shift)
        inverse = divide(1.0, w)
        even = [
            number * math.factorial(2 * k + n - 1) / math.factorial(2 * k) for k, number in enumerate(_BERNOULLI, 1)
        ]
        tail = _polynomial(square(inverse), (0.0, *even))
        if n:
            tail = tail + (math.factorial(n - 1) + math.factorial(n) / 2 * inverse)
            result = multiply(tail, _power(inverse, n)) + math.factorial(n) * total
            result = result if n % 2 else negative(result)
        else:
            result = log(w) - (tail + 0.5 * inverse) - total
        # psi_n(x) = (-1)**n psi_n(1 - x) - the n-th derivative of pi cot(pi x)
        from_whole = x - round(x)
        cotangent = divide(1.0, tan(multiply(from_whole, math.pi)))
        reflected = (negative(result) if n % 2 else result) - math.pi ** (n + 1) * _power_sum(cotangent, _cotangents(n))
        if n % 2 == 0:
            reflected = where(equal(from_whole, 0.0), math.nan, reflected)
        return where(below, reflected, result)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, polygamma(self.order + 1, node.args[0]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Orders from 0 to 4, on both sides of 0, and at poles."""
        rows = list(super().cases())
        x = np.array([-2.2, -1.0, -0.25, 0.25, 1.0, 3.0, 12.0, 1e4])
        for order in (0, 1, 2, 3, 4):
            rows.append(Case(cls(order), (TensorType(DType.float64, (7,)),), (0.5, 4.0)))
            rows.append(Case(cls(order), (x,), differentiable=False))
            rows.append(Case(cls(order), (x.astype(np.float32),), differentiable=False))
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Integers, and orders that are none."""
        x = TensorType(DType.float32, (3,))
        return [*super().bad_cases(), BadCase(cls(-1), (x,), AxisError, ("order -1", "from 0 to 20"))]


def _power(x: Node, exponent: int) -> Node:
    """x to a whole power of at least 1, by products."""
    result = x
    for _ in range(exponent - 1):
        result = multiply(result, x)
    return result


def _inverse_power(x: Node, exponent: int) -> Node:
    return divide(1.0, _power(x, exponent))


def _power_sum(x: Node, coefficients: Sequence[int]) -> Node:
    return x if tuple(coefficients) == (0, 1) else _polynomial(x, [float(c) for c in coefficients])


def _cotangents(order: int) -> list[int]:
    """The derivative of cot of an order as a polynomial in cot: that of cot is ``-1 - cot**2``."""
    terms = [0, 1]
    for _ in range(order):
        slope = [k * c for k, c in enumerate(terms)][1:]
        terms = [-c for c in (*slope, 0, 0)]
        for k, c in enumerate(slope):
            terms[k + 2] -= c
    return terms


def _polygamma_of_array(n: int, x: Array) -> Array:
    whole = (x <= 0) & (x == np.floor(x))
    z = np.where(x < 0, 1 - x, x)
    w, sign = z + 30, -1 if n % 2 == 0 else 1
    total = (1 / z ** (n + 1) + sum(1 / (z + k) ** (n + 1) for k in range(1, 30))) * math.factorial(n)
    if n:
        total = total + math.factorial(n - 1) / w**n
    total = total + math.factorial(n) / (2 * w ** (n + 1))
    for k, number in enumerate(_BERNOULLI, 1):
        total = total + number * math.factorial(2 * k + n - 1) / math.factorial(2 * k) / w ** (2 * k + n)
    result = sign * total if n else np.log(w) - total
    slope = sum(c * (1 / np.tan(np.pi * (x - np.rint(x)))) ** k for k, c in enumerate(_cotangents(n)))
    result = np.where(x < 0, (-1) ** n * result - math.pi ** (n + 1) * slope, result)
    pole = np.where(x == 0, result, math.inf if n % 2 else math.nan)
    return np.where(whole & np.isfinite(x), pole, result)


def polygamma(order: int, x: Operand) -> Node:
    """The derivative of this order of digamma, the logarithmic derivative of the gamma function.

    Shapes: that of x.
    Raises: AxisError unless the order is a whole number from 0 to 20; DTypeError for integers and bool.
    Source: https://dlmf.nist.gov/5.15

    >>> import graphc as gx
    >>> gx.polygamma(1, gx.placeholder("x", ("n", 3)))
    <polygamma: f32[n, 3]>
    """
    return call(Polygamma(order), x)


def digamma(x: Operand) -> Node:
    """The derivative of :func:`lgamma`.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://dlmf.nist.gov/5.2.E2

    >>> import graphc as gx
    >>> gx.digamma(gx.placeholder("x", ("n", 3)))
    <polygamma: f32[n, 3]>
    """
    return polygamma(0, x)


@op_class
class Cbrt(_OfFloats):
    """The cube root, of negative numbers too. Its derivative at 0 is inf.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: ISO C ``cbrt``.
    """

    composite = True
    domain = (0.1, 3.0)

    def reference(self, x: Array) -> Array:
        return np.cbrt(x)

    def decompose(self, *args: Node) -> Node:
        from graphc.ops.arithmetic import pow

        (x,) = args
        size = abs(x)
        root = pow(size, 1 / 3)
        # a step of Newton's method takes away the error of the exponent, which is no third
        better = root - divide(square(root) - divide(size, root), multiply(root, 3.0))
        usable = logical_and(less(size, math.inf), less(0.0, size))
        return where(usable, where(less(x, 0.0), negative(better), better), x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, multiply(3.0, square(node)))


def cbrt(x: Operand) -> Node:
    """The cube root, of negative numbers too.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: ISO C ``cbrt``.

    >>> import graphc as gx
    >>> gx.cbrt(gx.placeholder("x", ("n", 3)))
    <cbrt: f32[n, 3]>
    """
    return call(Cbrt(), x)


@op_class
class Logaddexp(_OfFloats):
    """``log(exp(x) + exp(y))`` without overflow.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: Array API ``logaddexp``.
    """

    operands = ("x", "y")
    composite = True

    def reference(self, x: Array, y: Array) -> Array:
        return np.logaddexp(x, y)

    def decompose(self, *args: Node) -> Node:
        x, y = args
        apart = where(equal(x, y), 0.0, abs(x - y))  # infinities of one sign are not apart
        return maximum(x, y) + log1p(exp(negative(apart)))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        mine, other = node.args[position], node.args[1 - position]
        return multiply(g, sigmoid(where(equal(mine, other), 0.0, mine - other)))


def logaddexp(x: Operand, y: Operand) -> Node:
    """``log(exp(x) + exp(y))`` without overflow.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``logaddexp``.

    >>> import graphc as gx
    >>> gx.logaddexp(gx.placeholder("x", ("n", 3)), 0.0)
    <logaddexp: f32[n, 3]>
    """
    return call(Logaddexp(), x, y)


@op_class
class Xlogy(_OfFloats):
    """``x * log(y)``, and 0 where x is 0 and y is not NaN: what an entropy sums.

    Where both are 0, both derivatives are taken as 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: SciPy ``scipy.special.xlogy``.
    """

    operands = ("x", "y")
    composite = True
    domain = (0.1, 3.0)

    def reference(self, x: Array, y: Array) -> Array:
        zero = (x == 0) & ~np.isnan(y)
        return np.where(zero, x.dtype.type(0), x * np.log(np.where(zero, 1, y))).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        x, y = args
        zero = logical_and(equal(x, 0.0), logical_not(isnan(y)))
        return where(zero, 0.0, multiply(x, log(where(zero, 1.0, y))))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        x, y = node.args
        both = logical_and(equal(x, 0.0), equal(y, 0.0))
        y = where(both, 1.0, y)
        return multiply(g, divide(x, y) if position else log(y))


def xlogy(x: Operand, y: Operand) -> Node:
    """``x * log(y)``, and 0 where x is 0 and y is not NaN.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: SciPy ``scipy.special.xlogy``.

    >>> import graphc as gx
    >>> p = gx.placeholder("p", ("n", 3))
    >>> gx.sum(gx.xlogy(p, p), axis=1)
    <sum: f32[n]>
    """
    return call(Xlogy(), x, y)


__all__ = [
    "Cbrt", "Erfc", "Lgamma", "Logaddexp", "Ndtr", "Polygamma", "Xlogy", "cbrt", "digamma", "erfc", "lgamma",
    "logaddexp", "ndtr", "polygamma", "xlogy",
]  # fmt: skip
