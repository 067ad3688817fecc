"""Elementwise comparison, choice, and questions about floats.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
sections "elementwise functions" and "searching functions".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.node import Node, apply, operators
from graphc.ir.types import DType, TensorType, broadcast_shapes
from graphc.loops.kernel import Apply, Const, Expr
from graphc.ops.base import (
    FLOATS,
    NUMBERS,
    Array,
    BadCase,
    Case,
    Elementwise,
    IntegerResult,
    Operand,
    as_node,
    as_operands,
    call,
    explaining,
    op_class,
    special_operands,
)


@op_class
class Equal(IntegerResult):
    """``x == y`` as bool; NaN equals nothing.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not.
    Source: https://onnx.ai/onnx/operators/onnx__Equal.html
    """

    operands = ("x", "y")
    fn = "eq"
    result = DType.bool
    onnx = "Equal"

    def reference(self, x: Array, y: Array) -> Array:
        return np.equal(x, y)


def equal(x: Operand, y: Operand) -> Node:
    """``x == y`` at each place, as bool.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``equal``.

    >>> import graphc as gx
    >>> gx.equal(gx.placeholder("x", (3,)), 0)
    <equal: bool[3]>
    """
    return call(Equal(), x, y)


@op_class
class NotEqual(IntegerResult):
    """``x != y`` as bool; NaN differs from everything.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not.
    Source: Array API ``not_equal``.
    """

    operands = ("x", "y")
    fn = "ne"
    result = DType.bool
    onnx = ("Equal", "Not")

    def reference(self, x: Array, y: Array) -> Array:
        return np.not_equal(x, y)


def not_equal(x: Operand, y: Operand) -> Node:
    """``x != y`` at each place, as bool.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``not_equal``.

    >>> import graphc as gx
    >>> gx.not_equal(gx.placeholder("x", (3,)), 0)
    <not_equal: bool[3]>
    """
    return call(NotEqual(), x, y)


@op_class
class Less(IntegerResult):
    """``x < y`` as bool; False with NaN.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Less.html
    """

    operands = ("x", "y")
    fn = "lt"
    accepts = NUMBERS
    result = DType.bool
    onnx = "Less"

    def reference(self, x: Array, y: Array) -> Array:
        return np.less(x, y)


def less(x: Operand, y: Operand) -> Node:
    """``x < y`` at each place, as bool.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``less``.

    >>> import graphc as gx
    >>> gx.less(gx.placeholder("x", (3,)), 0)
    <less: bool[3]>
    """
    return call(Less(), x, y)


@op_class
class LessEqual(IntegerResult):
    """``x <= y`` as bool; False with NaN.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__LessOrEqual.html
    """

    operands = ("x", "y")
    fn = "le"
    accepts = NUMBERS
    result = DType.bool
    onnx = "LessOrEqual"

    def reference(self, x: Array, y: Array) -> Array:
        return np.less_equal(x, y)


def less_equal(x: Operand, y: Operand) -> Node:
    """``x <= y`` at each place, as bool.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``less_equal``.

    >>> import graphc as gx
    >>> gx.less_equal(gx.placeholder("x", (3,)), 0)
    <less_equal: bool[3]>
    """
    return call(LessEqual(), x, y)


@op_class
class Greater(IntegerResult):
    """``x > y`` as bool; False with NaN.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Greater.html
    """

    operands = ("x", "y")
    fn = "gt"
    accepts = NUMBERS
    result = DType.bool
    onnx = "Greater"

    def reference(self, x: Array, y: Array) -> Array:
        return np.greater(x, y)


def greater(x: Operand, y: Operand) -> Node:
    """``x > y`` at each place, as bool.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``greater``.

    >>> import graphc as gx
    >>> gx.greater(gx.placeholder("x", (3,)), 0)
    <greater: bool[3]>
    """
    return call(Greater(), x, y)


@op_class
class GreaterEqual(IntegerResult):
    """``x >= y`` as bool; False with NaN.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__GreaterOrEqual.html
    """

    operands = ("x", "y")
    fn = "ge"
    accepts = NUMBERS
    result = DType.bool
    onnx = "GreaterOrEqual"

    def reference(self, x: Array, y: Array) -> Array:
        return np.greater_equal(x, y)


def greater_equal(x: Operand, y: Operand) -> Node:
    """``x >= y`` at each place, as bool.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``greater_equal``.

    >>> import graphc as gx
    >>> gx.greater_equal(gx.placeholder("x", (3,)), 0)
    <greater_equal: bool[3]>
    """
    return call(GreaterEqual(), x, y)


@op_class
class Where(Elementwise):
    """``x`` where the condition holds, else ``y``. Gradients do not leak from the place not taken, NaN included.

    Shapes: condition, x and y broadcast against each other; x and y have one element type, the condition is bool.
    Raises: ShapeError where they do not; DTypeError.
    Source: https://onnx.ai/onnx/operators/onnx__Where.html
    """

    operands = ("condition", "x", "y")
    fn = "select"
    onnx = "Where"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        condition, x, y = types
        if condition.dtype is not DType.bool:
            raise DTypeError(f"the condition is {condition.dtype}, not bool", remedy="compare first, as in x != 0")
        if x.dtype is not y.dtype:
            raise DTypeError(f"the choices are {x.dtype} and {y.dtype}", remedy="convert with gx.cast(x, dtype)")
        return TensorType(x.dtype, broadcast_shapes(*(type.shape for type in types)))

    def reference(self, condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        condition = node.args[0]
        return where(condition, g, 0.0) if position == 1 else where(condition, 0.0, g)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every element type, broadcasting, and NaN at places that are not taken."""
        flag, f32 = DType.bool, DType.float32
        shapes = (((5, 3), (5, 3), (5, 3)), ((5, 1), (3,), (1, 3)), ((), (4,), ()), ((0, 2), (2,), (1, 2)))
        rows = [Case(cls(), (TensorType(flag, c), TensorType(f32, x), TensorType(f32, y))) for c, x, y in shapes]
        rows += [Case(cls(), (TensorType(flag, (7,)), TensorType(d, (7,)), TensorType(d, (7,)))) for d in DType]
        special = special_operands(f32, 1)[0]
        rows.append(Case(cls(), (np.isfinite(special), special, np.zeros_like(special)), differentiable=False))
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A condition of numbers, choices of two types, shapes that differ."""
        flag, f = TensorType(DType.bool, (2,)), TensorType(DType.float32, (2,))
        return (
            BadCase(cls(), (f, f, f), DTypeError, ("where", "condition", "float32", "bool")),
            BadCase(cls(), (flag, f, TensorType(DType.float64, (2,))), DTypeError, ("float32", "float64", "gx.cast")),
            BadCase(cls(), (flag, f, TensorType(DType.float32, (3,))), ShapeError, ("2", "3", "broadcast")),
        )


def where(condition: Operand, x: Operand, y: Operand) -> Node:
    """``x`` where the condition holds, else ``y``.

    Shapes: condition, x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``where``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("n", 3))
    >>> gx.where(x > 0, x, 0.0)
    <where: f32[n, 3]>
    """
    with explaining("where"):
        return apply(Where(), as_node(condition), *as_operands(x, y))


@op_class
class IsNan(IntegerResult):
    """Whether x is NaN.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__IsNaN.html
    """

    name = "isnan"
    fn = "isnan"
    accepts = FLOATS
    result = DType.bool
    onnx = "IsNaN"

    def reference(self, x: Array) -> Array:
        return np.isnan(x)


def isnan(x: Operand) -> Node:
    """Whether x is NaN, at each place.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``isnan``.

    >>> import graphc as gx
    >>> gx.isnan(gx.placeholder("x", (3,)))
    <isnan: bool[3]>
    """
    return call(IsNan(), x)


@op_class
class IsFinite(IntegerResult):
    """Whether x is neither NaN nor infinite.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``isfinite``.
    """

    name = "isfinite"
    fn = "isfinite"
    accepts = FLOATS
    result = DType.bool
    onnx = ("IsInf", "IsNaN", "Or", "Not")

    def reference(self, x: Array) -> Array:
        return np.isfinite(x)


def isfinite(x: Operand) -> Node:
    """Whether x is neither NaN nor infinite, at each place.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``isfinite``.

    >>> import graphc as gx
    >>> gx.isfinite(gx.placeholder("x", (3,)))
    <isfinite: bool[3]>
    """
    return call(IsFinite(), x)


@op_class
class IsInf(IntegerResult):
    """Whether x is inf or -inf.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__IsInf.html
    """

    name = "isinf"
    accepts = FLOATS
    result = DType.bool
    onnx = "IsInf"

    def reference(self, x: Array) -> Array:
        return np.isinf(x)

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        (x,) = args
        return Apply("eq", (Apply("abs", (x,), x.dtype), Const(math.inf, x.dtype)), dtype)


def isinf(x: Operand) -> Node:
    """Whether x is infinite, at each place.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``isinf``.

    >>> import graphc as gx
    >>> gx.isinf(gx.placeholder("x", (3,)))
    <isinf: bool[3]>
    """
    return call(IsInf(), x)


@op_class
class Signbit(IntegerResult):
    """Whether x is below zero, or the zero that is: -0.0. False of NaN, whose sign no ONNX operator tells.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``signbit``.
    """

    accepts = FLOATS
    result = DType.bool
    onnx = ("Less", "Equal", "Reciprocal", "And", "Or")

    def reference(self, x: Array) -> Array:
        return np.signbit(x) & ~np.isnan(x)

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        (x,) = args
        zero, one = Const(0.0, x.dtype), Const(1.0, x.dtype)
        # the reciprocal of zero is the infinity of its sign; of what is not zero the first comparison tells
        is_zero = Apply("eq", (x, zero), dtype)
        sign = Apply("div", (one, Apply("select", (is_zero, x, one), x.dtype)), x.dtype)
        return Apply("or", (Apply("lt", (x, zero), dtype), Apply("lt", (sign, zero), dtype)), dtype)


def signbit(x: Operand) -> Node:
    """Whether x is below zero or -0.0, at each place; False of NaN.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``signbit``.

    >>> import graphc as gx
    >>> gx.signbit(gx.placeholder("x", (3,)))
    <signbit: bool[3]>
    """
    return call(Signbit(), x)


operators.update({
    "equal": equal, "not_equal": not_equal, "less": less, "less_equal": less_equal, "greater": greater,
    "greater_equal": greater_equal, "where": where,
})  # fmt: skip

__all__ = [
    "Equal", "Greater", "GreaterEqual", "IsFinite", "IsInf", "IsNan", "Less", "LessEqual", "NotEqual", "Signbit",
    "Where", "equal", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "not_equal",
    "signbit", "where",
]  # fmt: skip
