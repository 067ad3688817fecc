"""How elementwise ops are written: arithmetic, comparison, logic and bits, choice, casts, functions of floats.

Where a rule is longer than its operator's name suggests, ONNX means something else by that operator (integer division
rounds towards zero), leaves it undefined (division by zero), or onnxruntime has no kernel for the element type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from graphc.backends.onnx.writer import Writer
from graphc.ir.node import Constant, Node
from graphc.ir.types import DType, Kind
from graphc.ops.activation import Relu
from graphc.ops.arithmetic import Abs, FloorDivide, Negative, Remainder, Sign
from graphc.ops.cast import Cast
from graphc.ops.compare import IsFinite, NotEqual, Where
from graphc.ops.exponential import Cos, Erf, Expm1, Log1p, Rsqrt, Softplus
from graphc.ops.logic import And, LeftShift, Not, Or, RightShift, Xor
from graphc.ops.movement import BroadcastTo

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule

_UNSIGNED = {DType.int32: TensorProto.UINT32, DType.int64: TensorProto.UINT64}


def _negative(w: Writer, node: Node, x: str) -> str:
    return w.emit("Sub", w.constant(0, node.dtype), x) if node.dtype.kind is Kind.UINT else w.emit("Neg", x)


def _abs(w: Writer, node: Node, x: str) -> str:
    return x if node.dtype.kind is Kind.UINT else w.emit("Abs", x)


def _sign(w: Writer, node: Node, x: str) -> str:
    return w.emit("Min", x, w.constant(1, node.dtype)) if node.dtype.kind is Kind.UINT else w.emit("Sign", x)


def _relu(w: Writer, node: Node, x: str) -> str:
    if node.dtype.kind is Kind.UINT:
        return x
    if node.dtype is DType.int64:  # onnxruntime has no kernel
        return w.emit("Max", x, w.constant(0, node.dtype))
    return w.emit("Relu", x)


def _floor_divide(w: Writer, node: Node, x: str, y: str) -> str:
    if node.dtype.is_float:
        return w.emit("Floor", w.emit("Div", x, y))
    by_zero, by_minus_one, divisor = _safe_divisor(w, node, y)
    result = w.emit("Div", x, divisor)
    if node.dtype.kind is not Kind.UINT:
        rest = w.emit("Sub", x, w.emit("Mul", result, divisor))
        inexact = w.emit("Not", w.emit("Equal", rest, w.emit("Mod", x, divisor)))
        result = w.emit("Sub", result, w.cast(inexact, node.dtype))
    if by_minus_one:
        result = w.emit("Where", by_minus_one, w.emit("Neg", x), result)
    return where(w, node.dtype, by_zero, w.constant(0, node.dtype), result) if by_zero else result


def _remainder(w: Writer, node: Node, x: str, y: str) -> str:
    if not node.dtype.is_float:
        _, _, divisor = _safe_divisor(w, node, y)
        return w.emit("Mod", x, divisor)  # by 1 where y is 0 or -1, which gives the 0 that is wanted
    zero = w.constant(0, node.dtype)
    rest = w.emit("Mod", x, y, fmod=1)
    signs_differ = w.emit("Xor", w.emit("Less", rest, zero), w.emit("Less", y, zero))
    wrong = w.emit("And", signs_differ, w.emit("Not", w.emit("Equal", rest, zero)))
    return w.emit("Where", wrong, w.emit("Add", rest, y), rest)


def _safe_divisor(w: Writer, node: Node, y: str) -> tuple[str, str, str]:
    """Where y is 0 (an error in ONNX runtimes), where it is -1 (which overflows), and y with 1 in these places.

    A condition that a constant divisor rules out is an empty name.
    """
    known = _constant_of(node.args[1])
    by_zero = by_minus_one = ""
    if known is None or (known == 0).any():
        by_zero = w.emit("Equal", y, w.constant(0, node.dtype))
    if node.dtype.kind is not Kind.UINT and (known is None or (known == -1).any()):
        by_minus_one = w.emit("Equal", y, w.constant(-1, node.dtype))
    if by_zero and by_minus_one:
        replaced = w.emit("Or", by_zero, by_minus_one)
    else:
        replaced = by_zero or by_minus_one
    return by_zero, by_minus_one, where(w, node.dtype, replaced, w.constant(1, node.dtype), y) if replaced else y


def _constant_of(node: Node) -> np.ndarray | None:
    while isinstance(node.op, BroadcastTo):
        (node,) = node.args
    return node.op.array if isinstance(node.op, Constant) else None


def _not_equal(w: Writer, node: Node, x: str, y: str) -> str:
    return w.emit("Not", w.emit("Equal", x, y))


def _is_finite(w: Writer, node: Node, x: str) -> str:
    return w.emit("Not", w.emit("Or", w.emit("IsInf", x), w.emit("IsNaN", x)))


def _where(w: Writer, node: Node, condition: str, x: str, y: str) -> str:
    return where(w, node.dtype, condition, x, y)


def where(w: Writer, dtype: DType, condition: str, x: str, y: str) -> str:
    """A choice; onnxruntime has no kernel for bool, and older ones none for uint32."""
    if dtype is DType.bool:
        return w.emit("Or", w.emit("And", condition, x), w.emit("And", w.emit("Not", condition), y))
    if dtype is DType.uint32:
        return w.cast(w.emit("Where", condition, w.cast(x, DType.int64), w.cast(y, DType.int64)), dtype)
    return w.emit("Where", condition, x, y)


def _logic(name: str) -> Rule:
    def write(w: Writer, node: Node, *args: str) -> str:
        if node.dtype is DType.bool:
            return w.emit(name, *args)
        w.require(18, node, f"Bitwise{name}")
        return w.emit(f"Bitwise{name}", *args)

    return write


def _left_shift(w: Writer, node: Node, x: str, bits: str) -> str:
    return _shift(w, node.dtype, x, bits, "LEFT")


def _right_shift(w: Writer, node: Node, x: str, bits: str) -> str:
    if node.dtype.kind is Kind.UINT:
        return _shift(w, node.dtype, x, bits, "RIGHT")
    minus_one = w.constant(-1, node.dtype)
    below = w.emit("Less", x, w.constant(0, node.dtype))
    turned = w.emit("Where", below, w.emit("Sub", minus_one, x), x)
    shifted = _shift(w, node.dtype, turned, bits, "RIGHT")
    return w.emit("Where", below, w.emit("Sub", minus_one, shifted), shifted)


def _shift(w: Writer, dtype: DType, x: str, bits: str, direction: str) -> str:
    """BitShift takes unsigned integers only."""
    if dtype.kind is Kind.UINT:
        return w.emit("BitShift", x, bits, direction=direction)
    unsigned = _UNSIGNED[dtype]
    x, bits = w.emit("Cast", x, to=unsigned), w.emit("Cast", bits, to=unsigned)
    return w.cast(w.emit("BitShift", x, bits, direction=direction), dtype)


def _cast(w: Writer, node: Node, x: str) -> str:
    return w.cast(x, node.dtype)


def _rsqrt(w: Writer, node: Node, x: str) -> str:
    return w.emit("Reciprocal", w.emit("Sqrt", x))


def _expm1(w: Writer, node: Node, x: str) -> str:
    """``(u - 1) * x / log(u)`` with ``u = exp(x)``: the rounding error of u cancels.

    Source: W. Kahan, in N. Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1.
    """
    one = w.constant(1, node.dtype)
    u = w.emit("Exp", x)
    difference = w.emit("Sub", u, one)
    corrected = w.emit("Mul", difference, w.emit("Div", x, w.emit("Log", u)))
    near_zero = w.emit("Where", w.emit("Equal", u, one), x, corrected)
    return w.emit("Where", w.emit("Less", w.emit("Abs", x), one), near_zero, difference)


def _log1p(w: Writer, node: Node, x: str) -> str:
    """``log(u) * x / (u - 1)`` with ``u = 1 + x``: the rounding error of u cancels.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, problem 1.5.
    """
    one = w.constant(1, node.dtype)
    u = w.emit("Add", x, one)
    difference = w.emit("Sub", u, one)
    corrected = w.emit("Mul", w.emit("Log", u), w.emit("Div", x, difference))
    tiny = w.emit("Equal", difference, w.constant(0, node.dtype))
    as_is = w.emit("Or", tiny, w.emit("IsInf", x, detect_negative=0))
    return w.emit("Where", as_is, x, corrected)


def _softplus(w: Writer, node: Node, x: str) -> str:
    if node.dtype is not DType.float64:  # onnxruntime has no kernel for float64
        return w.emit("Softplus", x)
    small = w.emit("Exp", w.emit("Neg", w.emit("Abs", x)))
    return w.emit("Add", w.emit("Relu", x), _log1p(w, node, small))


def _cos(w: Writer, node: Node, x: str) -> str:
    if node.dtype is not DType.float64:  # onnxruntime has no kernel for float64 before 1.30
        return w.emit("Cos", x)
    half = w.emit("Sin", w.emit("Mul", x, w.constant(0.5, node.dtype)))
    return w.emit("Sub", w.constant(1, node.dtype), w.emit("Mul", w.emit("Add", half, half), half))


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
_ERF_IS_ONE = 6.0
"""From here on erf rounds to 1 in float64."""


def _erf(w: Writer, node: Node, x: str) -> str:
    if node.dtype is not DType.float64:  # onnxruntime has no kernel for float64
        return w.emit("Erf", x)
    size = w.emit("Abs", x)
    square = w.emit("Mul", x, x)
    inner = w.emit("Mul", x, w.emit("Div", _polynomial(w, square, _ERF_TOP), _polynomial(w, square, _ERF_BOTTOM)))
    capped = w.emit("Min", size, w.constant(_ERF_IS_ONE, node.dtype))
    ratio = w.emit("Div", _polynomial(w, capped, _ERFC_TOP), _polynomial(w, capped, _ERFC_BOTTOM))
    erfc = w.emit("Mul", w.emit("Exp", w.emit("Neg", w.emit("Mul", capped, capped))), ratio)
    outer = w.emit("Mul", w.emit("Sign", x), w.emit("Sub", w.constant(1, node.dtype), erfc))
    return w.emit("Where", w.emit("Less", size, w.constant(1, node.dtype)), inner, outer)


def _polynomial(w: Writer, x: str, coefficients: tuple[float, ...]) -> str:
    first, *rest = (w.constant(c, DType.float64) for c in coefficients)
    value = first
    for position, coefficient in enumerate(rest):
        product = x if position == 0 and coefficients[0] == 1 else w.emit("Mul", value, x)
        value = w.emit("Add", product, coefficient)
    return value


RULES: dict[type, Rule] = {
    Negative: _negative,
    Abs: _abs,
    Sign: _sign,
    Relu: _relu,
    FloorDivide: _floor_divide,
    Remainder: _remainder,
    NotEqual: _not_equal,
    IsFinite: _is_finite,
    Where: _where,
    And: _logic("And"),
    Or: _logic("Or"),
    Xor: _logic("Xor"),
    Not: _logic("Not"),
    LeftShift: _left_shift,
    RightShift: _right_shift,
    Cast: _cast,
    Rsqrt: _rsqrt,
    Expm1: _expm1,
    Log1p: _log1p,
    Softplus: _softplus,
    Cos: _cos,
    Erf: _erf,
}
