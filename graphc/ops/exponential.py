"""Elementwise functions of floats: exponentials, logarithms, roots, and what is made of them; erf.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification;
erf, sigmoid, softplus and rsqrt beside it.
"""

from __future__ import annotations

import math

import numpy as np

from graphc.ir.node import Node
from graphc.ops.arithmetic import divide, multiply, negative, square, subtract
from graphc.ops.base import FLOATS, Array, Elementwise, Operand, call, op_class


class _OfFloats(Elementwise):
    """Shapes: that of x. Raises: DTypeError for integers and bool."""

    accepts = FLOATS


@op_class
class Exp(_OfFloats):
    """e to the power x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Exp.html
    """

    fn = "exp"
    onnx = "Exp"

    def reference(self, x: Array) -> Array:
        return np.exp(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, node)


def exp(x: Operand) -> Node:
    """e to the power x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``exp``.

    >>> import graphc as gx
    >>> gx.exp(gx.placeholder("x", ("n", 3)))
    <exp: f32[n, 3]>
    """
    return call(Exp(), x)


@op_class
class Log(_OfFloats):
    """The natural logarithm; -inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Log.html
    """

    fn = "log"
    onnx = "Log"
    domain = (0.1, 3.0)

    def reference(self, x: Array) -> Array:
        return np.log(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, node.args[0])


def log(x: Operand) -> Node:
    """The natural logarithm; -inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log``.

    >>> import graphc as gx
    >>> gx.log(gx.placeholder("x", ("n", 3)))
    <log: f32[n, 3]>
    """
    return call(Log(), x)


@op_class
class Exp2(_OfFloats):
    """2 to the power x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``exp2``.
    """

    fn = "exp2"
    onnx = "Pow"

    def reference(self, x: Array) -> Array:
        return np.exp2(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, multiply(node, math.log(2)))


def exp2(x: Operand) -> Node:
    """2 to the power x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``exp2``.

    >>> import graphc as gx
    >>> gx.exp2(gx.placeholder("x", ("n", 3)))
    <exp2: f32[n, 3]>
    """
    return call(Exp2(), x)


@op_class
class Log2(_OfFloats):
    """The logarithm to base 2; -inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log2``.
    """

    fn = "log2"
    onnx = ("Log", "Mul")
    domain = (0.1, 3.0)

    def reference(self, x: Array) -> Array:
        return np.log2(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, multiply(node.args[0], math.log(2)))


def log2(x: Operand) -> Node:
    """The logarithm to base 2; -inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log2``.

    >>> import graphc as gx
    >>> gx.log2(gx.placeholder("x", ("n", 3)))
    <log2: f32[n, 3]>
    """
    return call(Log2(), x)


@op_class
class Log10(_OfFloats):
    """The logarithm to base 10; -inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log10``.
    """

    fn = "log10"
    onnx = ("Log", "Mul")
    domain = (0.1, 3.0)

    def reference(self, x: Array) -> Array:
        return np.log10(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, multiply(node.args[0], math.log(10)))


def log10(x: Operand) -> Node:
    """The logarithm to base 10; -inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log10``.

    >>> import graphc as gx
    >>> gx.log10(gx.placeholder("x", ("n", 3)))
    <log10: f32[n, 3]>
    """
    return call(Log10(), x)


@op_class
class Expm1(_OfFloats):
    """``exp(x) - 1``, exact near 0.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``expm1``.
    """

    fn = "expm1"

    def reference(self, x: Array) -> Array:
        return np.expm1(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, node + 1.0)


def expm1(x: Operand) -> Node:
    """``exp(x) - 1``, exact near 0.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``expm1``.

    >>> import graphc as gx
    >>> gx.expm1(gx.placeholder("x", ("n", 3)))
    <expm1: f32[n, 3]>
    """
    return call(Expm1(), x)


@op_class
class Log1p(_OfFloats):
    """``log(1 + x)``, exact near 0; -inf at -1, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log1p``.
    """

    fn = "log1p"
    domain = (-0.8, 3.0)

    def reference(self, x: Array) -> Array:
        return np.log1p(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(g, node.args[0] + 1.0)


def log1p(x: Operand) -> Node:
    """``log(1 + x)``, exact near 0; -inf at -1, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``log1p``.

    >>> import graphc as gx
    >>> gx.log1p(gx.placeholder("x", ("n", 3)))
    <log1p: f32[n, 3]>
    """
    return call(Log1p(), x)


@op_class
class Sqrt(_OfFloats):
    """The square root; NaN below 0. Its derivative at 0 is inf.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sqrt.html
    """

    fn = "sqrt"
    onnx = "Sqrt"
    domain = (0.1, 3.0)

    def reference(self, x: Array) -> Array:
        return np.sqrt(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return divide(multiply(g, 0.5), node)


def sqrt(x: Operand) -> Node:
    """The square root; NaN below 0. Its derivative at 0 is inf.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``sqrt``.

    >>> import graphc as gx
    >>> gx.sqrt(gx.placeholder("x", ("n", 3)))
    <sqrt: f32[n, 3]>
    """
    return call(Sqrt(), x)


@op_class
class Rsqrt(_OfFloats):
    """``1 / sqrt(x)``; inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sqrt.html and onnx__Reciprocal.html
    """

    fn = "rsqrt"
    onnx = ("Sqrt", "Reciprocal")
    domain = (0.1, 3.0)

    def reference(self, x: Array) -> Array:
        return (1 / np.sqrt(x)).astype(x.dtype)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(multiply(g, -0.5), multiply(node, square(node)))


def rsqrt(x: Operand) -> Node:
    """``1 / sqrt(x)``; inf at 0, NaN below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: the reciprocal of Array API ``sqrt``.

    >>> import graphc as gx
    >>> gx.rsqrt(gx.placeholder("x", ("n", 3)))
    <rsqrt: f32[n, 3]>
    """
    return call(Rsqrt(), x)


@op_class
class Tanh(_OfFloats):
    """The hyperbolic tangent.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Tanh.html
    """

    fn = "tanh"
    onnx = "Tanh"

    def reference(self, x: Array) -> Array:
        return np.tanh(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, subtract(1.0, square(node)))


def tanh(x: Operand) -> Node:
    """The hyperbolic tangent.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``tanh``.

    >>> import graphc as gx
    >>> gx.tanh(gx.placeholder("x", ("n", 3)))
    <tanh: f32[n, 3]>
    """
    return call(Tanh(), x)


@op_class
class Sigmoid(_OfFloats):
    """``1 / (1 + exp(-x))``, exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sigmoid.html
    """

    fn = "sigmoid"
    onnx = "Sigmoid"
    domain = (-6.0, 6.0)

    def reference(self, x: Array) -> Array:
        return _sigmoid(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, multiply(node, subtract(1.0, node)))


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def sigmoid(x: Operand) -> Node:
    """``1 / (1 + exp(-x))``, exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Sigmoid.html

    >>> import graphc as gx
    >>> gx.sigmoid(gx.placeholder("x", ("n", 3)))
    <sigmoid: f32[n, 3]>
    """
    return call(Sigmoid(), x)


@op_class
class Softplus(_OfFloats):
    """``log(1 + exp(x))``, exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Softplus.html
    """

    fn = "softplus"
    onnx = "Softplus"
    domain = (-6.0, 6.0)

    def reference(self, x: Array) -> Array:
        return np.logaddexp(x, x.dtype.type(0))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, sigmoid(node.args[0]))


def softplus(x: Operand) -> Node:
    """``log(1 + exp(x))``, exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Softplus.html

    >>> import graphc as gx
    >>> gx.softplus(gx.placeholder("x", ("n", 3)))
    <softplus: f32[n, 3]>
    """
    return call(Softplus(), x)


@op_class
class Erf(_OfFloats):
    """The error function.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Erf.html
    """

    fn = "erf"
    onnx = "Erf"

    def reference(self, x: Array) -> Array:
        return _erf(x)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, multiply(2 / math.sqrt(math.pi), exp(negative(square(node.args[0])))))


def _erf(x: Array) -> Array:
    """NumPy has no erf: C's, in float64."""
    return np.array([math.erf(value) for value in x.ravel().tolist()], x.dtype).reshape(x.shape)


def erf(x: Operand) -> Node:
    """The error function.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Erf.html

    >>> import graphc as gx
    >>> gx.erf(gx.placeholder("x", ("n", 3)))
    <erf: f32[n, 3]>
    """
    return call(Erf(), x)


__all__ = [
    "Erf", "Exp", "Exp2", "Expm1", "Log", "Log1p", "Log2", "Log10", "Rsqrt", "Sigmoid", "Softplus", "Sqrt", "Tanh",
    "erf", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "rsqrt", "sigmoid", "softplus", "sqrt", "tanh",
]  # fmt: skip
