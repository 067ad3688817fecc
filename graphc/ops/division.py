"""Elementwise division of whole numbers, and remainders, with every edge defined.

Of integers a quotient or remainder by zero is 0, on every backend, and nothing traps. The lowest integer by -1, whose
quotient does not fit, wraps around to itself, with remainder 0. Of floats a quotient by zero is infinite or NaN, and a
remainder by zero or of an infinity is NaN; the remainder of a finite number by an infinity is that number, or, where
signs differ and the quotient is rounded down, that infinity.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "elementwise functions"; fmod beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.node import Node, operators
from graphc.ir.types import DType
from graphc.loops.kernel import Apply, Expr
from graphc.ops.arithmetic import divide, multiply, negative
from graphc.ops.base import NUMBERS, Absent, Array, Case, Elementwise, Operand, call, op_class


class _Division(Elementwise):
    operands = ("x", "y")
    accepts = NUMBERS

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, all signs, zeros and the lowest integer by -1."""
        rows = list(super().cases())
        for dtype in (d for d in cls.accepts if not d.is_half):
            edges = np.array([-7, -3, -1, 0, 1, 2, 3, 7]) if dtype is not DType.uint32 else np.array([0, 1, 2, 3, 7])
            values = edges.astype(dtype.numpy)
            if dtype.is_integer:
                limits = np.iinfo(dtype.numpy)
                values = np.append(values, np.array([limits.min, limits.max], dtype.numpy))
            x, y = (np.ascontiguousarray(grid.ravel()) for grid in np.meshgrid(values, values))
            rows.append(Case(cls(), (x, y), differentiable=False))
        return rows


@op_class
class FloorDivide(_Division):
    """``x / y`` rounded towards minus infinity: exact for integers, the floor of the rounded quotient for floats.

    By zero 0 for integers, infinite or NaN for floats; the lowest integer by -1 is the lowest integer.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: Array API ``floor_divide``.
    """

    fn = "floordiv"
    no_vjp = Absent.PIECEWISE_CONSTANT
    no_jvp = Absent.PIECEWISE_CONSTANT

    def reference(self, x: Array, y: Array) -> Array:
        return np.floor(np.divide(x, y)) if x.dtype.kind == "f" else np.floor_divide(x, y)

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        if not dtype.is_float:
            return Apply("floordiv", args, dtype)
        return Apply("floor", (Apply("div", args, dtype),), dtype)


def floor_divide(x: Operand, y: Operand) -> Node:
    """The quotient rounded towards minus infinity; integers by zero give 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``floor_divide``.

    >>> import graphc as gx
    >>> gx.floor_divide(gx.placeholder("x", (3,), "int32"), 2)
    <floor_divide: i32[3]>
    """
    return call(FloorDivide(), x, y)


@op_class
class Remainder(_Division):
    """The rest of floor division, with the sign of ``y`` as Python's ``%``; by zero 0 for integers, NaN for floats.

    The lowest integer by -1 leaves 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: Array API ``remainder``.
    """

    fn = "mod"
    domain = (0.5, 2.0)

    def reference(self, x: Array, y: Array) -> Array:
        return np.remainder(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return negative(multiply(g, floor_divide(*node.args))) if position else g


def remainder(x: Operand, y: Operand) -> Node:
    """The rest of floor division, with the sign of ``y``; integers by zero give 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``remainder``.

    >>> import graphc as gx
    >>> gx.remainder(gx.placeholder("x", (3,), "int64"), 10)
    <remainder: i64[3]>
    """
    return call(Remainder(), x, y)


@op_class
class Fmod(_Division):
    """The rest of division rounded towards zero, with the sign of ``x`` as in C; exact for floats.

    By zero 0 for integers, NaN for floats. The lowest integer by -1 leaves 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Mod.html with fmod=1
    """

    fn = "fmod"
    onnx = "Mod"
    domain = (0.5, 2.0)

    def reference(self, x: Array, y: Array) -> Array:
        return np.fmod(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        from graphc.ops.rounding import trunc

        return negative(multiply(g, trunc(divide(*node.args)))) if position else g


def fmod(x: Operand, y: Operand) -> Node:
    """The rest of division rounded towards zero, with the sign of ``x``; integers by zero give 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: ISO C ``fmod``.

    >>> import graphc as gx
    >>> gx.fmod(gx.placeholder("x", (3,)), 2.0)
    <fmod: f32[3]>
    """
    return call(Fmod(), x, y)


operators.update({"floor_divide": floor_divide, "remainder": remainder})

__all__ = ["FloorDivide", "Fmod", "Remainder", "floor_divide", "fmod", "remainder"]
