"""How functions of floats are written that ONNX has no operator for, or onnxruntime no kernel for float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphc.backends.onnx.writer import Writer
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.exponential import Erf, Exp2, Expm1, Log1p, Log2, Log10, Rsqrt, Softplus
from graphc.ops.hyperbolic import Acosh, Asinh, Atanh, Cosh, Sinh
from graphc.ops.special import Erfc, Ndtr
from graphc.ops.trigonometric import Acos, Asin, Atan, Atan2, Cos, Tan

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphc.backends.onnx.rules import Rule


class Term:
    """A value of the file with Python's operators, so that formulas read like formulas; numbers are of its type."""

    def __init__(self, w: Writer, dtype: DType, name: str) -> None:
        self.w = w
        self.dtype = dtype
        self.name = name

    def named(self, value: Term | float) -> str:
        """The name of a value or number."""
        return value.name if isinstance(value, Term) else self.w.constant(value, self.dtype)

    def emit(self, op_type: str, *operands: Term | float) -> Term:
        """An operator on this value and others."""
        return Term(self.w, self.dtype, self.w.emit(op_type, self.name, *map(self.named, operands)))

    def __add__(self, other: Term | float) -> Term:
        return self.emit("Add", other)

    __radd__ = __add__

    def __sub__(self, other: Term | float) -> Term:
        return self.emit("Sub", other)

    def __rsub__(self, other: float) -> Term:
        return Term(self.w, self.dtype, self.named(other)) - self

    def __mul__(self, other: Term | float) -> Term:
        return self.emit("Mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Term | float) -> Term:
        return self.emit("Div", other)

    def __rtruediv__(self, other: float) -> Term:
        return Term(self.w, self.dtype, self.named(other)) / self

    def __neg__(self) -> Term:
        return self.emit("Neg")

    def __abs__(self) -> Term:
        return self.emit("Abs")

    def __lt__(self, other: Term | float) -> Term:
        return self.emit("Less", other)

    def equals(self, other: Term | float) -> Term:
        return self.emit("Equal", other)

    def __or__(self, other: Term) -> Term:
        return self.emit("Or", other)

    def __and__(self, other: Term) -> Term:
        return self.emit("And", other)


def _where(condition: Term, yes: Term | float, no: Term | float) -> Term:
    like = yes if isinstance(yes, Term) else no
    assert isinstance(like, Term)
    return Term(like.w, like.dtype, like.w.emit("Where", condition.name, like.named(yes), like.named(no)))


def _written(formula: Callable[..., Term], operator: str | None = None) -> Rule:
    """The operator for float32, and a formula for float64, or both if there is no operator."""

    def write(w: Writer, node: Node, *args: str) -> str:
        if operator is not None and node.dtype is DType.float32:
            return w.emit(operator, *args)
        return formula(*(Term(w, node.dtype, arg) for arg in args)).name

    return write


def _rsqrt(x: Term) -> Term:
    return x.emit("Sqrt").emit("Reciprocal")


def _exp2(x: Term) -> Term:
    return Term(x.w, x.dtype, x.named(2.0)).emit("Pow", x)


def _log2(x: Term) -> Term:
    return x.emit("Log") * (1 / math.log(2))


def _log10(x: Term) -> Term:
    return x.emit("Log") * (1 / math.log(10))


def _expm1(x: Term) -> Term:
    """``(u - 1) * x / log(u)`` with ``u = exp(x)``: the rounding error of u cancels.

    Source: W. Kahan, in N. Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1.
    """
    u = x.emit("Exp")
    difference = u - 1.0
    near_zero = _where(u.equals(1.0), x, difference * (x / u.emit("Log")))
    return _where(abs(x) < 1.0, near_zero, difference)


def _log1p(x: Term) -> Term:
    """``log(u) * x / (u - 1)`` with ``u = 1 + x``: the rounding error of u cancels.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, problem 1.5.
    """
    u = x + 1.0
    difference = u - 1.0
    return _where(difference.equals(0.0) | x.equals(math.inf), x, u.emit("Log") * (x / difference))


def _softplus(x: Term) -> Term:
    return x.emit("Relu") + _log1p((-abs(x)).emit("Exp"))


def _sin(x: Term) -> Term:
    return x.emit("Sin")


def _cos(x: Term) -> Term:
    half = _sin(x * 0.5)
    return 1.0 - half * half * 2.0


def _tan(x: Term) -> Term:
    return _sin(x) / _cos(x)


# (atan(t) / t - 1) / t**2 on [0, 1], in t**2, to float64's precision; the last term first
_ATAN = (
    1.4365002215124526e-05, -0.00016371341146017746, 0.0008855190866361239, -0.003041081644974256,
    0.007505699070132674, -0.014346476225625087, 0.022469322971913883, -0.030308382060328275, 0.03690439369490453,
    -0.0423247482541493, 0.04727575185368044, -0.05255127508886366, 0.05880905508398167, -0.06666470797562167,
    0.07692288485213392, -0.09090907793131968, 0.11111111055122273, -0.142857142843553, 0.19999999999985535,
    -0.33333333333333304,
)  # fmt: skip


def _atan_of_fraction(t: Term) -> Term:
    if t.dtype is DType.float32:
        return t.emit("Atan")
    z = t * t
    return t + t * z * _polynomial(z, _ATAN)


def _atan(x: Term) -> Term:
    size = abs(x)
    is_small = size < 1.0
    angle = _atan_of_fraction(_where(is_small, size, 1.0 / size))
    return x.emit("Sign") * _where(is_small, angle, math.pi / 2 - angle)


def _asin(x: Term) -> Term:
    return _atan(x / ((1.0 - x) * (1.0 + x)).emit("Sqrt"))


def _acos(x: Term) -> Term:
    return _atan(((1.0 - x) / (1.0 + x)).emit("Sqrt")) * 2.0


def _atan2(y: Term, x: Term) -> Term:
    height, width = abs(y), abs(x)
    is_steep = width < height
    low, high = height.emit("Min", width), height.emit("Max", width)
    fraction = _where(high.equals(0.0) | low.equals(math.inf), low.emit("Min", 1.0), low / high)
    angle = _atan_of_fraction(fraction)
    angle = _where(is_steep, math.pi / 2 - angle, angle)
    angle = _where(_is_below(x), math.pi - angle, angle)
    return _with_nan(_where(_is_below(y), -angle, angle), y, x)


def _is_below(x: Term) -> Term:
    """Negative, or the zero that is."""
    return (x < 0.0) | (x.equals(0.0) & (x.emit("Reciprocal") < 0.0))


def _with_nan(result: Term, *operands: Term) -> Term:
    for x in operands:
        result = _where(x.emit("IsNaN"), x, result)
    return result


def _sinh(x: Term) -> Term:
    size = abs(x)
    small = _expm1(size)
    half = (size * 0.5).emit("Exp")
    large = half * (half * 0.5) - 0.5 / half / half
    return x.emit("Sign") * _where(size < 1.0, (small + small / (small + 1.0)) * 0.5, large)


def _cosh(x: Term) -> Term:
    half = (abs(x) * 0.5).emit("Exp")
    return half * (half * 0.5) + 0.5 / half / half


_HUGE = 2.0**60
"""From here on 1 is nothing beside x, and long before its square overflows."""


def _asinh(x: Term) -> Term:
    size = abs(x)
    square = size * size
    return x.emit("Sign") * _log1p_of_twice(size, size + square / ((square + 1.0).emit("Sqrt") + 1.0))


def _acosh(x: Term) -> Term:
    t = x - 1.0
    return _where(x < 1.0, math.nan, _log1p_of_twice(x, t + (t * 2.0 + t * t).emit("Sqrt")))


def _log1p_of_twice(x: Term, u: Term) -> Term:
    return _where(x < _HUGE, _log1p(u), x.emit("Log") + math.log(2))


def _atanh(x: Term) -> Term:
    size = abs(x)
    return x.emit("Sign") * (_log1p(size * 2.0 / (1.0 - size)) * 0.5)


# Rational approximations of erf and erfc, highest power first: S. Moshier, Cephes Mathematical Library, ndtr.c.
_ERF_TOP = (9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3, 7.00332514112805075473e3,
            5.55923013010394962768e4)  # fmt: skip
_ERF_BOTTOM = (1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3,
               2.26290000613890934246e4, 4.92673942608635921086e4)  # fmt: skip
_ERFC_TOP = (2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0, 4.86371970985681366614e1,
             1.96520832956077098242e2, 5.26445194995477358631e2, 9.34528527171957607540e2, 1.02755188689515710272e3,
             5.57535335369399327526e2)  # fmt: skip
_ERFC_BOTTOM = (1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2,
                9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3, 1.65666309194161350182e3,
                5.57535340817727675546e2)  # fmt: skip
# erfc(x) = exp(-x**2) / x times a ratio in 1 / x**2 from 8 on
_FAR_TOP = (5.64189583547755073984e-1, 1.27536670759978104416e0, 5.01905042251180477414e0, 6.16021097993053585195e0,
            7.40974269950448939160e0, 2.97886665372100240670e0)  # fmt: skip
_FAR_BOTTOM = (1.0, 2.26052863220117276590e0, 9.39603524938001434673e0, 1.20489539808096656605e1,
               1.70814450747565897222e1, 9.60896809063285878198e0, 3.36907645100081516050e0)  # fmt: skip


def _erf_near_zero(x: Term) -> Term:
    square = x * x
    return x * (_polynomial(square, _ERF_TOP) / _polynomial(square, _ERF_BOTTOM))


def _erfc_of_size(x: Term) -> Term:
    """For x >= 1; from 30 on it is 0 in float64, too."""
    near, x = x.emit("Min", 8.0), x.emit("Min", 30.0)
    ratio = _where(
        x < 8.0,
        _polynomial(near, _ERFC_TOP) / _polynomial(near, _ERFC_BOTTOM),
        _polynomial(x, _FAR_TOP) / _polynomial(x, _FAR_BOTTOM),
    )
    return (-(x * x)).emit("Exp") * ratio


def _erf(x: Term) -> Term:
    size = abs(x)
    return _where(size < 1.0, _erf_near_zero(x), x.emit("Sign") * (1.0 - _erfc_of_size(size)))


def _erfc(x: Term) -> Term:
    size = abs(x)
    large = _erfc_of_size(size)
    return _where(size < 1.0, 1.0 - _erf_near_zero(x), _where(x < 0.0, 2.0 - large, large))


def _ndtr(x: Term) -> Term:
    return _erfc(x * -math.sqrt(0.5)) * 0.5


def _polynomial(x: Term, coefficients: tuple[float, ...]) -> Term:
    """The highest power first."""
    value = x * coefficients[0] if coefficients[0] != 1 else x
    for coefficient in coefficients[1:-1]:
        value = (value + coefficient) * x
    return value + coefficients[-1]


RULES: dict[type, Rule] = {
    Rsqrt: _written(_rsqrt),
    Exp2: _written(_exp2),
    Log2: _written(_log2),
    Log10: _written(_log10),
    Expm1: _written(_expm1),
    Log1p: _written(_log1p),
    Softplus: _written(_softplus, "Softplus"),
    Cos: _written(_cos, "Cos"),
    Tan: _written(_tan, "Tan"),
    Asin: _written(_asin, "Asin"),
    Acos: _written(_acos, "Acos"),
    Atan: _written(_atan, "Atan"),
    Atan2: _written(_atan2),
    Sinh: _written(_sinh, "Sinh"),
    Cosh: _written(_cosh, "Cosh"),
    Asinh: _written(_asinh, "Asinh"),
    Acosh: _written(_acosh, "Acosh"),
    Atanh: _written(_atanh, "Atanh"),
    Erf: _written(_erf, "Erf"),
    Erfc: _written(_erfc),
    Ndtr: _written(_ndtr),
}
