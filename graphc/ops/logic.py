"""Logic of bools, bits of integers, shifts.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "elementwise functions".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.node import Node, apply, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType
from graphc.ops.base import INTEGERS, Array, Case, IntegerResult, Operand, as_operands, call, explaining, op_class

_LOGIC = (DType.bool, *INTEGERS)


@op_class
class And(IntegerResult):
    """Logical and of bools, bitwise and of integers.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for floats.
    Source: https://onnx.ai/onnx/operators/onnx__And.html and onnx__BitwiseAnd.html
    """

    operands = ("x", "y")
    fn = "and"
    accepts = _LOGIC
    onnx = ("And", "BitwiseAnd")

    def reference(self, x: Array, y: Array) -> Array:
        return np.bitwise_and(x, y)


def bitwise_and(x: Operand, y: Operand) -> Node:
    """The and of the bits of integers, or of bools. What ``&`` calls.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``bitwise_and``.

    >>> import graphc as gx
    >>> gx.bitwise_and(gx.placeholder("x", (3,), "uint32"), 255)
    <and: u32[3]>
    """
    return call(And(), x, y)


def logical_and(x: Operand, y: Operand) -> Node:
    """The logical and of bools.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError; DTypeError for anything but bool.
    Source: Array API ``logical_and``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,))
    >>> gx.logical_and(x > 0, x < 1)
    <and: bool[3]>
    """
    return _on_bools("logical_and", And(), x, y)


@op_class
class Or(IntegerResult):
    """Logical or of bools, bitwise or of integers.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for floats.
    Source: https://onnx.ai/onnx/operators/onnx__Or.html and onnx__BitwiseOr.html
    """

    operands = ("x", "y")
    fn = "or"
    accepts = _LOGIC
    onnx = ("Or", "BitwiseOr")

    def reference(self, x: Array, y: Array) -> Array:
        return np.bitwise_or(x, y)


def bitwise_or(x: Operand, y: Operand) -> Node:
    """The or of the bits of integers, or of bools. What ``|`` calls.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``bitwise_or``.

    >>> import graphc as gx
    >>> gx.bitwise_or(gx.placeholder("x", (3,), "uint32"), 255)
    <or: u32[3]>
    """
    return call(Or(), x, y)


def logical_or(x: Operand, y: Operand) -> Node:
    """The logical or of bools.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError; DTypeError for anything but bool.
    Source: Array API ``logical_or``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,))
    >>> gx.logical_or(x > 0, x < 1)
    <or: bool[3]>
    """
    return _on_bools("logical_or", Or(), x, y)


@op_class
class Xor(IntegerResult):
    """Logical exclusive or of bools, bitwise exclusive or of integers.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for floats.
    Source: https://onnx.ai/onnx/operators/onnx__Xor.html and onnx__BitwiseXor.html
    """

    operands = ("x", "y")
    fn = "xor"
    accepts = _LOGIC
    onnx = ("Xor", "BitwiseXor")

    def reference(self, x: Array, y: Array) -> Array:
        return np.bitwise_xor(x, y)


def bitwise_xor(x: Operand, y: Operand) -> Node:
    """The exclusive or of the bits of integers, or of bools. What ``^`` calls.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``bitwise_xor``.

    >>> import graphc as gx
    >>> gx.bitwise_xor(gx.placeholder("x", (3,), "uint32"), 255)
    <xor: u32[3]>
    """
    return call(Xor(), x, y)


def logical_xor(x: Operand, y: Operand) -> Node:
    """The logical exclusive or of bools.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError; DTypeError for anything but bool.
    Source: Array API ``logical_xor``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,))
    >>> gx.logical_xor(x > 0, x < 1)
    <xor: bool[3]>
    """
    return _on_bools("logical_xor", Xor(), x, y)


def _on_bools(name: str, op: Op, *values: Operand) -> Node:
    with explaining(name):
        nodes = as_operands(*values)
        for node in nodes:
            if node.dtype is not DType.bool:
                raise DTypeError(f"takes bool, not {node.dtype}", remedy="compare first, as in x != 0, or use & | ^ ~")
        return apply(op, *nodes)


@op_class
class Not(IntegerResult):
    """Logical not of bools, all bits turned over of integers.

    Shapes: that of x.
    Raises: DTypeError for floats.
    Source: https://onnx.ai/onnx/operators/onnx__Not.html and onnx__BitwiseNot.html
    """

    fn = "not"
    accepts = _LOGIC
    onnx = ("Not", "BitwiseNot")

    def reference(self, x: Array) -> Array:
        return np.invert(x)


def bitwise_not(x: Operand) -> Node:
    """All bits turned over; of bools the logical not. What ``~`` calls.

    Shapes: that of x.
    Raises: DTypeError for floats.
    Source: Array API ``bitwise_invert``.

    >>> import graphc as gx
    >>> gx.bitwise_not(gx.placeholder("x", (3,), "int32"))
    <not: i32[3]>
    """
    return call(Not(), x)


def logical_not(x: Operand) -> Node:
    """The logical not of bools.

    Shapes: that of x.
    Raises: DTypeError for anything but bool.
    Source: Array API ``logical_not``.

    >>> import graphc as gx
    >>> gx.logical_not(gx.placeholder("x", (3,)) > 0)
    <not: bool[3]>
    """
    return _on_bools("logical_not", Not(), x)


class _Shift(IntegerResult):
    operands = ("x", "bits")
    accepts = INTEGERS
    domain = (0.0, 31.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every count of bits, on values with high and low bits set; broadcasting, scalars, no elements."""
        rows: list[Case] = []
        for dtype in cls.accepts:
            bits = np.arange(dtype.itemsize * 8)
            values = np.array([0x12345678, 1, np.iinfo(dtype.numpy).max]).astype(dtype.numpy)
            if dtype is not DType.uint32:
                values = np.append(values, np.array([-1, np.iinfo(dtype.numpy).min], dtype.numpy))
            rows.append(Case(cls(), (values[:, None], bits.astype(dtype.numpy))))
            for shapes in (((5, 1), (3,)), ((), ()), ((0, 3), (3,))):
                rows.append(Case(cls(), tuple(TensorType(dtype, shape) for shape in shapes), cls.domain))
        return rows


@op_class
class LeftShift(_Shift):
    """``x << bits`` with 0 <= bits < the number of bits of the type; other counts are undefined.

    Shapes: x and bits broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for floats and bool.
    Source: https://onnx.ai/onnx/operators/onnx__BitShift.html
    """

    fn = "shl"
    onnx = "BitShift"

    def reference(self, x: Array, bits: Array) -> Array:
        return np.left_shift(x, bits)


def left_shift(x: Operand, bits: Operand) -> Node:
    """The bits of x moved up.

    Shapes: x and bits broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``bitwise_left_shift``.

    >>> import graphc as gx
    >>> gx.left_shift(gx.placeholder("x", (3,), "uint32"), 13)
    <left_shift: u32[3]>
    """
    return call(LeftShift(), x, bits)


@op_class
class RightShift(_Shift):
    """``x >> bits`` with 0 <= bits < the number of bits of the type; signed integers keep their sign.

    Shapes: x and bits broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for floats and bool.
    Source: https://onnx.ai/onnx/operators/onnx__BitShift.html
    """

    fn = "shr"
    onnx = "BitShift"

    def reference(self, x: Array, bits: Array) -> Array:
        return np.right_shift(x, bits)


def right_shift(x: Operand, bits: Operand) -> Node:
    """The bits of x moved down; signed integers keep their sign.

    Shapes: x and bits broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``bitwise_right_shift``.

    >>> import graphc as gx
    >>> gx.right_shift(gx.placeholder("x", (3,), "uint32"), 8)
    <right_shift: u32[3]>
    """
    return call(RightShift(), x, bits)


operators.update({
    "and": bitwise_and, "or": bitwise_or, "xor": bitwise_xor, "not": bitwise_not, "left_shift": left_shift,
    "right_shift": right_shift,
})  # fmt: skip

__all__ = [
    "And", "LeftShift", "Not", "Or", "RightShift", "Xor", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor",
    "left_shift", "logical_and", "logical_not", "logical_or", "logical_xor", "right_shift",
]  # fmt: skip
