"""How elementwise ops are written: arithmetic, comparison, logic and bits, choice, casts.

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
from graphc.ops.arithmetic import Abs, Negative, Sign
from graphc.ops.cast import Cast
from graphc.ops.clipping import Clip
from graphc.ops.compare import IsFinite, NotEqual, Signbit, Where
from graphc.ops.division import FloorDivide, Fmod, Remainder
from graphc.ops.logic import And, LeftShift, Not, Or, RightShift, Xor
from graphc.ops.movement import BroadcastTo
from graphc.ops.rounding import Trunc

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


def _fmod(w: Writer, node: Node, x: str, y: str) -> str:
    if node.dtype.is_float:
        return w.emit("Mod", x, y, fmod=1)
    return w.emit("Mod", x, _safe_divisor(w, node, y)[2], fmod=1)


def _trunc(w: Writer, node: Node, x: str) -> str:
    return w.emit("Mul", w.emit("Sign", x), w.emit("Floor", w.emit("Abs", x)))


def _clip(w: Writer, node: Node, x: str, low: str, high: str) -> str:
    """ONNX's Clip takes scalars as bounds."""
    return w.emit("Min", w.emit("Max", x, low), high)


def _signbit(w: Writer, node: Node, x: str) -> str:
    (operand,) = node.args
    zero = w.constant(0, operand.dtype)
    is_negative_zero = w.emit("And", w.emit("Equal", x, zero), w.emit("Less", w.emit("Reciprocal", x), zero))
    return w.emit("Or", w.emit("Less", x, zero), is_negative_zero)


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
    Fmod: _fmod,
    Trunc: _trunc,
    Clip: _clip,
    Signbit: _signbit,
}
