"""Elementwise trigonometric functions and their inverses, of angles in radians.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "elementwise functions".
"""

from __future__ import annotations

import numpy as np

from graphc.ir.node import Node
from graphc.ops.arithmetic import abs, divide, maximum, minimum, multiply, negative, square
from graphc.ops.base import FLOATS, Array, Elementwise, Operand, call, op_class
from graphc.ops.compare import equal, where
from graphc.ops.exponential import rsqrt, sqrt
from graphc.ops.logic import logical_or


class _OfFloats(Elementwise):
    """Shapes: that of x. Raises: DTypeError for integers and bool."""

    accepts = FLOATS


@op_class
class Sin(_OfFloats):
    """The sine of x in radians.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sin.html
    """

    fn = "sin"
    onnx = "Sin"
    domain = (-6.0, 6.0)

    def reference(self, x: Array) -> Array:
        return np.sin(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, cos(node.args[0]))


def sin(x: Operand) -> Node:
    """The sine of x in radians.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``sin``.

    >>> import graphc as gx
    >>> gx.sin(gx.placeholder("x", ("n", 3)))
    <sin: f32[n, 3]>
    """
    return call(Sin(), x)


@op_class
class Cos(_OfFloats):
    """The cosine of x in radians.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Cos.html
    """

    fn = "cos"
    onnx = "Cos"
    domain = (-6.0, 6.0)

    def reference(self, x: Array) -> Array:
        return np.cos(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return negative(multiply(g, sin(node.args[0])))


def cos(x: Operand) -> Node:
    """The cosine of x in radians.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``cos``.

    >>> import graphc as gx
    >>> gx.cos(gx.placeholder("x", ("n", 3)))
    <cos: f32[n, 3]>
    """
    return call(Cos(), x)


@op_class
class Tan(_OfFloats):
    """The tangent of x in radians.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Tan.html
    """

    fn = "tan"
    onnx = "Tan"
    domain = (-1.2, 1.2)

    def reference(self, x: Array) -> Array:
        return np.tan(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, square(node) + 1.0)


def tan(x: Operand) -> Node:
    """The tangent of x in radians.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``tan``.

    >>> import graphc as gx
    >>> gx.tan(gx.placeholder("x", ("n", 3)))
    <tan: f32[n, 3]>
    """
    return call(Tan(), x)


@op_class
class Asin(_OfFloats):
    """The angle from -pi/2 to pi/2 whose sine is x; NaN where x is not from -1 to 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Asin.html
    """

    fn = "asin"
    onnx = "Asin"
    domain = (-0.9, 0.9)

    def reference(self, x: Array) -> Array:
        return np.arcsin(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, _slope_of_arc(node.args[0]))


def asin(x: Operand) -> Node:
    """The angle from -pi/2 to pi/2 whose sine is x; NaN where x is not from -1 to 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``asin``.

    >>> import graphc as gx
    >>> gx.asin(gx.placeholder("x", ("n", 3)))
    <asin: f32[n, 3]>
    """
    return call(Asin(), x)


@op_class
class Acos(_OfFloats):
    """The angle from 0 to pi whose cosine is x; NaN where x is not from -1 to 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Acos.html
    """

    fn = "acos"
    onnx = "Acos"
    domain = (-0.9, 0.9)

    def reference(self, x: Array) -> Array:
        return np.arccos(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return negative(multiply(g, _slope_of_arc(node.args[0])))


def acos(x: Operand) -> Node:
    """The angle from 0 to pi whose cosine is x; NaN where x is not from -1 to 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``acos``.

    >>> import graphc as gx
    >>> gx.acos(gx.placeholder("x", ("n", 3)))
    <acos: f32[n, 3]>
    """
    return call(Acos(), x)


def _slope_of_arc(x: Node) -> Node:
    """``1 / sqrt(1 - x**2)``, without the rounding error of the square near 1."""
    return rsqrt((1.0 - x) * (1.0 + x))


@op_class
class Atan(_OfFloats):
    """The angle from -pi/2 to pi/2 whose tangent is x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Atan.html
    """

    fn = "atan"
    onnx = "Atan"

    def reference(self, x: Array) -> Array:
        return np.arctan(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, square(node.args[0]) + 1.0)


def atan(x: Operand) -> Node:
    """The angle from -pi/2 to pi/2 whose tangent is x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``atan``.

    >>> import graphc as gx
    >>> gx.atan(gx.placeholder("x", ("n", 3)))
    <atan: f32[n, 3]>
    """
    return call(Atan(), x)


@op_class
class Atan2(_OfFloats):
    """The angle from -pi to pi of the point whose height is y and whose width is x, by the signs of both.

    Zeros count by their sign, as in C: ``atan2(0.0, -0.0)`` is pi. Both derivatives at the origin are NaN.

    Shapes: y and x broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: Array API ``atan2``; special values of ISO C, annex F.
    """

    operands = ("y", "x")
    fn = "atan2"

    def reference(self, y: Array, x: Array) -> Array:
        return np.arctan2(y, x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        y, x = node.args
        distance = hypot(x, y)
        # one quotient after the other: the square of the distance may overflow or vanish
        slope = divide(divide(y if position else x, distance), distance)
        return negative(multiply(g, slope)) if position else multiply(g, slope)


def atan2(y: Operand, x: Operand) -> Node:
    """The angle from -pi to pi of the point whose height is y and whose width is x.

    Shapes: y and x broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``atan2``.

    >>> import graphc as gx
    >>> gx.atan2(gx.placeholder("y", ("n", 3)), 1.0)
    <atan2: f32[n, 3]>
    """
    return call(Atan2(), y, x)


@op_class
class Hypot(_OfFloats):
    """The distance of the point (x, y) from the origin, without overflow or underflow on the way.

    Infinite if either is, even beside NaN. The derivatives at the origin are taken as 0.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for integers and bool.
    Source: Array API ``hypot``; special values of ISO C, annex F.
    """

    operands = ("x", "y")
    composite = True

    def reference(self, x: Array, y: Array) -> Array:
        return np.hypot(x, y)

    def decompose(self, *args: Node) -> Node:
        x, y = abs(args[0]), abs(args[1])
        low, high = minimum(x, y), maximum(x, y)
        ratio = divide(low, where(equal(high, 0.0), 1.0, high))
        infinite = logical_or(equal(x, np.inf), equal(y, np.inf))
        return where(infinite, np.inf, multiply(high, sqrt(square(ratio) + 1.0)))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, divide(node.args[position], where(equal(node, 0.0), 1.0, node)))


def hypot(x: Operand, y: Operand) -> Node:
    """``sqrt(x * x + y * y)``, without overflow or underflow on the way.

    Shapes: x and y broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``hypot``.

    >>> import graphc as gx
    >>> gx.hypot(gx.placeholder("x", ("n", 3)), 4.0)
    <hypot: f32[n, 3]>
    """
    return call(Hypot(), x, y)


__all__ = [
    "Acos", "Asin", "Atan", "Atan2", "Cos", "Hypot", "Sin", "Tan", "acos", "asin", "atan", "atan2", "cos", "hypot",
    "sin", "tan",
]  # fmt: skip
