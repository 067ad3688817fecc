"""What each scalar function of the kernel IR means, on NumPy scalars and arrays of the exact element type."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.types import DType, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value = Any
"""A NumPy scalar or array; which one is known only where the loops are."""


def apply_scalar(fn: str, args: tuple[Value, ...], dtype: DType) -> Value:
    """``fn`` of the arguments. They have the types that the IR asks for; the result has ``dtype``.

    >>> apply_scalar("floordiv", (np.int32(-7), np.int32(2)), DType.int32)
    np.int32(-4)
    """
    with np.errstate(all="ignore"):
        if fn == "cast":
            return _cast(args[0], dtype)
        return _FUNCTIONS[fn](*args)


def threefry2x32(key0: Value, key1: Value, counter0: Value, counter1: Value) -> tuple[Value, Value]:
    """The Threefry-2x32-20 block of a key and a counter, all uint32.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; 20 rounds.

    >>> zero = np.uint32(0)
    >>> [hex(word) for word in threefry2x32(zero, zero, zero, zero)]
    ['0x6b200159', '0x99ba4efe']
    """
    with np.errstate(over="ignore"):
        schedule = (key0, key1, key0 ^ key1 ^ np.uint32(0x1BD11BDA))
        x, y = counter0 + key0, counter1 + key1
        for group in range(5):
            for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
                x = x + y
                y = ((y << np.uint32(distance)) | (y >> np.uint32(32 - distance))) ^ x
            x = x + schedule[(group + 1) % 3]
            y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
        return x, y


def accumulate_over(fn: str, initial: Value, values: NDArray[Any]) -> Value:
    """``initial`` combined with all ``values``, in the type of ``values``."""
    with np.errstate(all="ignore"):
        return _FUNCTIONS[fn](initial, _REDUCTIONS[fn].reduce(values, dtype=values.dtype))


def identity(fn: str, dtype: DType) -> bool | int | float:
    """The value that changes nothing when ``fn`` accumulates it: 0 for add, 1 for mul, ...

    >>> identity("max", DType.float32)
    -inf
    """
    if fn in ("add", "mul"):
        return float(fn == "mul") if dtype.is_float else int(fn == "mul")
    if fn in ("and", "or"):
        if dtype is DType.bool:
            return fn == "and"
        return 0 if fn == "or" else int(np.iinfo(dtype.value).max) if dtype.kind is Kind.UINT else -1
    if dtype.is_float:
        return math.inf if fn == "min" else -math.inf
    limits = np.iinfo(dtype.value)
    return int(limits.max if fn == "min" else limits.min)


def _cast(x: Value, dtype: DType) -> Value:
    return x.astype(dtype.numpy)


def _sigmoid(x: Value) -> Value:
    small = np.exp(-np.abs(x))
    one: Value = x.dtype.type(1)
    return _select(x >= 0, one, small) / (one + small)


def _softplus(x: Value) -> Value:
    return np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: Value) -> Value:
    return np.asarray(_ERF(x), np.float64).astype(x.dtype)[()]


def _erfc(x: Value) -> Value:
    return np.asarray(_ERFC(x), np.float64).astype(x.dtype)[()]


def _ndtr(x: Value) -> Value:
    """The rounding of x / sqrt(2), which the tail would show magnified, is put right to first order."""
    y = -x.astype(np.float64) * _ROOT_HALF
    lost = (-x.astype(np.longdouble) * _LONG_ROOT_HALF - y).astype(np.float64)
    slope = _TWO_OVER_ROOT_PI * np.exp(-(y * y))
    complement = np.asarray(_ERFC(y), np.float64) - np.where(np.isfinite(y), lost * slope, 0.0)
    return (0.5 * complement).astype(x.dtype)[()]


def _power(x: Value, exponent: Value) -> Value:
    """Integers wrap around; a negative exponent gives the power truncated, and 0 for base 0."""
    if x.dtype.kind != "i":
        return np.power(x, exponent)
    positive = np.power(x, np.maximum(exponent, exponent.dtype.type(0)))
    odd = (exponent & 1).astype(x.dtype)
    reciprocal = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * odd, 0)).astype(x.dtype)
    return _select(exponent >= 0, positive, reciprocal)


def _rsqrt(x: Value) -> Value:
    one: Value = x.dtype.type(1)
    return one / np.sqrt(x)


def _select(condition: Value, yes: Value, no: Value) -> Value:
    where: Callable[..., Value] = np.where
    return where(condition, yes, no)[()]  # a scalar of scalars


def _threefry(key0: Value, key1: Value, counter0: Value, counter1: Value) -> Value:
    return threefry2x32(key0, key1, counter0, counter1)[0]


_ERF, _ERFC = np.frompyfunc(math.erf, 1, 1), np.frompyfunc(math.erfc, 1, 1)
_ROOT_HALF, _LONG_ROOT_HALF, _TWO_OVER_ROOT_PI = math.sqrt(0.5), np.sqrt(np.longdouble(0.5)), 2 / math.sqrt(math.pi)
_REDUCTIONS = {
    "add": np.add,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
}
_FUNCTIONS: dict[str, Callable[..., Value]] = {
    **_REDUCTIONS,
    "sub": np.subtract,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": _power,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "select": _select,
    "fmod": np.fmod,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": _rsqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "erf": _erf,
    "erfc": _erfc,
    "ndtr": _ndtr,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "floor": np.floor,
    "ceil": np.ceil,
    "rint": np.rint,
    "trunc": np.trunc,
    "isnan": np.isnan,
    "isfinite": np.isfinite,
    "threefry": _threefry,
}
