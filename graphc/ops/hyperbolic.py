"""Elementwise hyperbolic functions beside tanh, and their inverses.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "elementwise functions".
"""

from __future__ import annotations

import numpy as np

from graphc.ir.node import Node
from graphc.ops.arithmetic import divide, multiply, square
from graphc.ops.base import FLOATS, Array, Elementwise, Operand, call, op_class
from graphc.ops.exponential import rsqrt


class _OfFloats(Elementwise):
    """Shapes: that of x. Raises: DTypeError for integers and bool."""

    accepts = FLOATS


@op_class
class Sinh(_OfFloats):
    """The hyperbolic sine.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sinh.html
    """

    fn = "sinh"
    onnx = "Sinh"

    def reference(self, x: Array) -> Array:
        return np.sinh(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, cosh(node.args[0]))


def sinh(x: Operand) -> Node:
    """The hyperbolic sine.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``sinh``.

    >>> import graphc as gx
    >>> gx.sinh(gx.placeholder("x", ("n", 3)))
    <sinh: f32[n, 3]>
    """
    return call(Sinh(), x)


@op_class
class Cosh(_OfFloats):
    """The hyperbolic cosine.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Cosh.html
    """

    fn = "cosh"
    onnx = "Cosh"

    def reference(self, x: Array) -> Array:
        return np.cosh(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, sinh(node.args[0]))


def cosh(x: Operand) -> Node:
    """The hyperbolic cosine.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``cosh``.

    >>> import graphc as gx
    >>> gx.cosh(gx.placeholder("x", ("n", 3)))
    <cosh: f32[n, 3]>
    """
    return call(Cosh(), x)


@op_class
class Asinh(_OfFloats):
    """The inverse hyperbolic sine.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Asinh.html
    """

    fn = "asinh"
    onnx = "Asinh"

    def reference(self, x: Array) -> Array:
        return np.arcsinh(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, rsqrt(square(node.args[0]) + 1.0))


def asinh(x: Operand) -> Node:
    """The inverse hyperbolic sine.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``asinh``.

    >>> import graphc as gx
    >>> gx.asinh(gx.placeholder("x", ("n", 3)))
    <asinh: f32[n, 3]>
    """
    return call(Asinh(), x)


@op_class
class Acosh(_OfFloats):
    """The inverse hyperbolic cosine; NaN below 1. Its derivative at 1 is inf.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Acosh.html
    """

    fn = "acosh"
    onnx = "Acosh"
    domain = (1.1, 4.0)

    def reference(self, x: Array) -> Array:
        return np.arccosh(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, rsqrt((node.args[0] - 1.0) * (node.args[0] + 1.0)))


def acosh(x: Operand) -> Node:
    """The inverse hyperbolic cosine; NaN below 1. Its derivative at 1 is inf.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``acosh``.

    >>> import graphc as gx
    >>> gx.acosh(gx.placeholder("x", ("n", 3)))
    <acosh: f32[n, 3]>
    """
    return call(Acosh(), x)


@op_class
class Atanh(_OfFloats):
    """The inverse hyperbolic tangent; -inf at -1 and inf at 1, NaN beyond.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Atanh.html
    """

    fn = "atanh"
    onnx = "Atanh"
    domain = (-0.9, 0.9)

    def reference(self, x: Array) -> Array:
        return np.arctanh(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, (1.0 - node.args[0]) * (1.0 + node.args[0]))


def atanh(x: Operand) -> Node:
    """The inverse hyperbolic tangent; -inf at -1 and inf at 1, NaN beyond.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``atanh``.

    >>> import graphc as gx
    >>> gx.atanh(gx.placeholder("x", ("n", 3)))
    <atanh: f32[n, 3]>
    """
    return call(Atanh(), x)


__all__ = [
    "Acosh", "Asinh", "Atanh", "Cosh", "Sinh", "acosh", "asinh", "atanh", "cosh", "sinh",
]  # fmt: skip
