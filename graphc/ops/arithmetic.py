"""Elementwise arithmetic: add, subtract, multiply, divide, pow, negative, abs, sign, copysign, minimum, maximum.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "elementwise functions". Integers wrap around; float32 stays float32.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.node import Node, operators
from graphc.ops.base import (
    FLOATS,
    NUMBERS,
    Absent,
    Array,
    Case,
    Elementwise,
    Operand,
    call,
    op_class,
    scalar_value,
)


@op_class
class Add(Elementwise):
    """``x + y``.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Add.html
    """

    operands = ("x", "y")
    fn = "add"
    accepts = NUMBERS
    onnx = "Add"

    def reference(self, x: Array, y: Array) -> Array:
        return np.add(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return g


def add(x: Operand, y: Operand) -> Node:
    """The sum ``x + y``, with broadcasting.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``add``.

    >>> import graphc as gx
    >>> gx.add(gx.placeholder("x", ("n", 3)), 1.0)
    <add: f32[n, 3]>
    """
    return call(Add(), x, y)


@op_class
class Subtract(Elementwise):
    """``x - y``.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sub.html
    """

    operands = ("x", "y")
    fn = "sub"
    accepts = NUMBERS
    onnx = "Sub"

    def reference(self, x: Array, y: Array) -> Array:
        return np.subtract(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return negative(g) if position else g


def subtract(x: Operand, y: Operand) -> Node:
    """The difference ``x - y``, with broadcasting.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``subtract``.

    >>> import graphc as gx
    >>> gx.subtract(1.0, gx.placeholder("x", (3,)))
    <subtract: f32[3]>
    """
    return call(Subtract(), x, y)


@op_class
class Multiply(Elementwise):
    """``x * y``.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Mul.html
    """

    operands = ("x", "y")
    fn = "mul"
    accepts = NUMBERS
    onnx = "Mul"

    def reference(self, x: Array, y: Array) -> Array:
        return np.multiply(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, node.args[1 - position])


def multiply(x: Operand, y: Operand) -> Node:
    """The product ``x * y`` at each place, with broadcasting.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``multiply``.

    >>> import graphc as gx
    >>> gx.multiply(gx.placeholder("x", ("n", 3)), gx.placeholder("y", (3,)))
    <multiply: f32[n, 3]>
    """
    return call(Multiply(), x, y)


def square(x: Operand) -> Node:
    """``x * x``.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: Array API ``square``.

    >>> import graphc as gx
    >>> gx.square(gx.placeholder("x", (3,)))
    <multiply: f32[3]>
    """
    return multiply(x, x)


@op_class
class Divide(Elementwise):
    """``x / y``, true division of floats.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Div.html
    """

    operands = ("x", "y")
    fn = "div"
    accepts = FLOATS
    onnx = "Div"
    domain = (0.5, 2.0)

    def reference(self, x: Array, y: Array) -> Array:
        return np.divide(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        _, y = node.args
        return negative(divide(multiply(g, node), y)) if position else divide(g, y)


def divide(x: Operand, y: Operand) -> Node:
    """The quotient ``x / y`` of floats, with broadcasting.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError; DTypeError for integers, which want a cast or ``//``.
    Source: Array API ``divide``.

    >>> import graphc as gx
    >>> gx.divide(gx.placeholder("x", ("n", 3)), 2)
    <divide: f32[n, 3]>
    """
    return call(Divide(), x, y)


def reciprocal(x: Operand) -> Node:
    """``1 / x``; infinite at 0, with the sign of the zero.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``reciprocal``.

    >>> import graphc as gx
    >>> gx.reciprocal(gx.placeholder("x", (3,)))
    <divide: f32[3]>
    """
    return divide(1.0, x)


@op_class
class Power(Elementwise):
    """``x ** y`` of floats.

    The derivative by x has no logarithm and is right at x = 0; the one by y is 0 there.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Pow.html
    """

    name = "pow"
    operands = ("x", "y")
    fn = "pow"
    accepts = FLOATS
    onnx = "Pow"
    domain = (0.5, 2.0)

    def reference(self, x: Array, y: Array) -> Array:
        return np.power(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node | None:
        from graphc.ops.compare import equal, where
        from graphc.ops.exponential import log

        x, y = node.args
        if position == 1:
            return multiply(g, multiply(node, log(where(equal(x, 0.0), 1.0, x))))
        exponent = scalar_value(y)
        if exponent is not None:
            return _power_rule(x, float(exponent), g)
        at_zero = equal(y, 0.0)
        slope = multiply(y, pow(x, where(at_zero, 1.0, subtract(y, 1.0))))
        return multiply(g, where(at_zero, 0.0, slope))

    @classmethod
    def cases(cls) -> list[Case]:
        """Beside the usual, negative and zero bases with whole exponents."""
        base = np.array([-2, -1, 0, 1, 2, 0.5], np.float32)
        whole = [Case(cls(), (base, np.full(6, k, np.float32)), differentiable=False) for k in (-1, 0, 1, 2, 3)]
        return [*super().cases(), *whole]


def _power_rule(x: Node, exponent: float, g: Node) -> Node | None:
    """``g`` times the derivative of ``x ** exponent``, which is ``exponent * x ** (exponent - 1)``."""
    if exponent in (0, 1):
        return g if exponent else None
    return multiply(g, multiply(exponent, x if exponent == 2 else pow(x, exponent - 1)))


def pow(x: Operand, y: Operand) -> Node:
    """``x ** y``. Integers take a whole number of at least 0 as exponent and become products.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError; DTypeError for integers with other exponents.
    Source: Array API ``pow``.

    >>> import graphc as gx
    >>> gx.pow(gx.placeholder("x", (3,)), 3)
    <pow: f32[3]>
    """
    if isinstance(x, Node) and x.dtype.is_integer and isinstance(y, int) and not isinstance(y, bool):
        return _integer_power(x, y)
    return call(Power(), x, y)


def _integer_power(x: Node, exponent: int) -> Node:
    from graphc.ops.base import full, user_line

    if exponent < 0:
        raise DTypeError(
            f"pow: {x.dtype} to the power {exponent} is not whole",
            at=user_line(),
            remedy="cast first: gx.cast(x, 'float32')",
        )
    if exponent == 0:
        return full(x.shape, 1, x.dtype)
    half = _integer_power(x, exponent // 2) if exponent > 1 else None
    if half is None:
        return x
    return multiply(multiply(half, half), x) if exponent % 2 else multiply(half, half)


@op_class
class Negative(Elementwise):
    """``-x``; unsigned integers wrap around.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Neg.html
    """

    fn = "neg"
    accepts = NUMBERS
    onnx = "Neg"

    def reference(self, x: Array) -> Array:
        return np.negative(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return negative(g)


def negative(x: Operand) -> Node:
    """``-x``.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: Array API ``negative``.

    >>> import graphc as gx
    >>> gx.negative(gx.placeholder("x", (3,)))
    <negative: f32[3]>
    """
    return call(Negative(), x)


@op_class
class Abs(Elementwise):
    """The absolute value; its derivative at 0 is taken as 0. The smallest integer stays what it is.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Abs.html
    """

    fn = "abs"
    accepts = NUMBERS
    onnx = "Abs"

    def reference(self, x: Array) -> Array:
        return np.abs(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, sign(node.args[0]))


def abs(x: Operand) -> Node:
    """The absolute value.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: Array API ``abs``.

    >>> import graphc as gx
    >>> gx.abs(gx.placeholder("x", (3,)))
    <abs: f32[3]>
    """
    return call(Abs(), x)


@op_class
class Sign(Elementwise):
    """-1, 0 or 1; NaN stays NaN.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sign.html
    """

    fn = "sign"
    accepts = NUMBERS
    onnx = "Sign"
    no_vjp = Absent.PIECEWISE_CONSTANT
    no_jvp = Absent.PIECEWISE_CONSTANT

    def reference(self, x: Array) -> Array:
        return np.sign(x)


def sign(x: Operand) -> Node:
    """-1, 0 or 1, as ``x`` is below, at or above zero.

    Shapes: that of x.
    Raises: DTypeError for bool.
    Source: Array API ``sign``.

    >>> import graphc as gx
    >>> gx.sign(gx.placeholder("x", (3,)))
    <sign: f32[3]>
    """
    return call(Sign(), x)


@op_class
class Copysign(Elementwise):
    """The size of x with the sign of y, of zeros too; a NaN in y counts as positive.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: Array API ``copysign``.
    """

    operands = ("x", "y")
    accepts = FLOATS
    composite = True
    domain = (0.1, 2.0)

    def reference(self, x: Array, y: Array) -> Array:
        return np.copysign(x, np.where(np.isnan(y), y.dtype.type(1), y))

    def decompose(self, *args: Node) -> Node:
        from graphc.ops.compare import signbit, where

        x, y = args
        return where(signbit(y), negative(abs(x)), abs(x))

    def chain(self, node: Node, g: Node, position: int) -> Node | None:
        x, y = node.args
        return None if position else multiply(g, multiply(sign(x), copysign(1.0, y)))


def copysign(x: Operand, y: Operand) -> Node:
    """The size of x with the sign of y.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``copysign``.

    >>> import graphc as gx
    >>> gx.copysign(gx.placeholder("x", ("n", 3)), -1.0)
    <copysign: f32[n, 3]>
    """
    return call(Copysign(), x, y)


def _winner_share(node: Node, g: Node, position: int) -> Node:
    """``g`` where this operand is the result, half of it where both are."""
    from graphc.ops.compare import equal, where

    mine, other = node.args[position], node.args[1 - position]
    alone = where(equal(mine, node), g, 0.0)
    return where(equal(mine, other), multiply(g, 0.5), alone)


@op_class
class Minimum(Elementwise):
    """The smaller of x and y; NaN wins. Where they are equal, each gets half of the gradient.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Min.html
    """

    operands = ("x", "y")
    fn = "min"
    accepts = NUMBERS
    onnx = "Min"

    def reference(self, x: Array, y: Array) -> Array:
        return np.minimum(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return _winner_share(node, g, position)


def minimum(x: Operand, y: Operand) -> Node:
    """The smaller of two values at each place; NaN wins.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``minimum``.

    >>> import graphc as gx
    >>> gx.minimum(gx.placeholder("x", (3,)), 6)
    <minimum: f32[3]>
    """
    return call(Minimum(), x, y)


@op_class
class Maximum(Elementwise):
    """The larger of x and y; NaN wins. Where they are equal, each gets half of the gradient.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Max.html
    """

    operands = ("x", "y")
    fn = "max"
    accepts = NUMBERS
    onnx = "Max"

    def reference(self, x: Array, y: Array) -> Array:
        return np.maximum(x, y)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return _winner_share(node, g, position)


def maximum(x: Operand, y: Operand) -> Node:
    """The larger of two values at each place; NaN wins.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``maximum``.

    >>> import graphc as gx
    >>> gx.maximum(gx.placeholder("x", (3,)), 0)
    <maximum: f32[3]>
    """
    return call(Maximum(), x, y)


operators.update({
    "add": add, "subtract": subtract, "multiply": multiply, "divide": divide, "pow": pow, "negative": negative,
    "abs": abs,
})  # fmt: skip

__all__ = [
    "Abs", "Add", "Copysign", "Divide", "Maximum", "Minimum", "Multiply", "Negative", "Power", "Sign", "Subtract",
    "abs", "add", "copysign", "divide", "maximum", "minimum", "multiply", "negative", "pow", "reciprocal", "sign",
    "square", "subtract",
]  # fmt: skip
