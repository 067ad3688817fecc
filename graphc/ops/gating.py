"""Smooth activations: gelu in both forms, silu, mish, log_sigmoid, softsign, squareplus, and the gated unit glu.

Written so that neither tail cancels: what nears 0 is a product of small numbers and no difference of large ones, and
derivatives are finite wherever x is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import AxisError, ShapeError
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.loops.scalar import apply_scalar
from graphc.ops.arithmetic import abs, divide, maximum, minimum, multiply, negative, square
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    as_node,
    call,
    explaining,
    normalize_axis,
    op_class,
)
from graphc.ops.compare import greater_equal, where
from graphc.ops.exponential import sigmoid, softplus, sqrt
from graphc.ops.slicing import take_range
from graphc.ops.special import ndtr, normal_density


class _Smooth(Elementwise):
    """Shapes: that of x. Raises: DTypeError for integers and bool."""

    accepts = FLOATS
    composite = True
    domain = (-6.0, 6.0)


@op_class
class Gelu(Elementwise):
    """``x * Phi(x)`` with the normal distribution function Phi, without approximation.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2
    """

    accepts = FLOATS
    onnx = "Gelu"
    composite = True
    domain = (-4.0, 4.0)

    def reference(self, x: Array) -> Array:
        wide = x.astype(np.float64)
        return (wide * apply_scalar("ndtr", (wide,), DType.float64)).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        return multiply(x, ndtr(x))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        (x,) = node.args
        return multiply(g, ndtr(x) + x * normal_density(x))


def gelu(x: Operand, approximate: str = "none") -> Node:
    """``x * Phi(x)`` with the normal distribution function Phi: exact, or with ``approximate="tanh"`` by a tanh.

    Shapes: that of x.
    Raises: AxisError for another ``approximate``; DTypeError for integers and bool.
    Source: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2

    >>> import graphc as gx
    >>> gx.gelu(gx.placeholder("x", ("n", 3)))
    <gelu: f32[n, 3]>
    >>> gx.gelu(gx.placeholder("x", ("n", 3)), approximate="tanh")
    <gelu_tanh: f32[n, 3]>
    """
    if approximate not in ("none", "tanh"):
        with explaining("gelu", *([x] if isinstance(x, Node) else [])):
            raise AxisError(f"there is no approximation {approximate!r}", remedy='say "none" or "tanh"')
    return call(GeluTanh() if approximate == "tanh" else Gelu(), x)


_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715
_SATURATED = 40.0
"""From here on, both ways, the sigmoid that stands for Phi is 0 or 1 in every element type."""


@op_class
class GeluTanh(_Smooth):
    """``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``, which is within 0.0005 of gelu.

    The factor of x is written as a sigmoid, which does not cancel where it is small.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Gelu.html with ``approximate="tanh"``
    """

    onnx = "Gelu"

    def reference(self, x: Array) -> Array:
        t = np.clip(x, -_SATURATED, _SATURATED)
        z = _SLOPE * t * (1 + _CUBIC * t * t)
        small = np.exp(-np.abs(z))
        return (x * (np.where(z >= 0, 1, small) / (1 + small))).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        return multiply(x, sigmoid(self._argument(x)))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        x = minimum(maximum(node.args[0], -_SATURATED), _SATURATED)
        z = self._argument(x)
        s = sigmoid(z)
        slope = multiply(square(x), 3 * _SLOPE * _CUBIC) + _SLOPE
        return multiply(g, s + multiply(multiply(x, slope), multiply(s, sigmoid(negative(z)))))

    def _argument(self, x: Node) -> Node:
        return multiply(x, multiply(square(x), _SLOPE * _CUBIC) + _SLOPE)


@op_class
class Silu(_Smooth):
    """``x * sigmoid(x)``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Elfwing, Uchibe and Doya 2018, https://arxiv.org/abs/1702.03118, equation 4
    """

    onnx = ("Sigmoid", "Mul")

    def reference(self, x: Array) -> Array:
        return x * _sigmoid(x)

    def decompose(self, *args: Node) -> Node:
        return multiply(args[0], sigmoid(args[0]))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        (x,) = node.args
        return multiply(g, multiply(sigmoid(x), multiply(x, sigmoid(negative(x))) + 1.0))


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return (np.where(x >= 0, 1, small) / (1 + small)).astype(x.dtype)


def silu(x: Operand) -> Node:
    """``x * sigmoid(x)``, also known as swish.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Elfwing, Uchibe and Doya 2018, https://arxiv.org/abs/1702.03118, equation 4

    >>> import graphc as gx
    >>> gx.silu(gx.placeholder("x", ("n", 3)))
    <silu: f32[n, 3]>
    """
    return call(Silu(), x)


@op_class
class Mish(_Smooth):
    """``x * tanh(softplus(x))``.

    With ``s = sigmoid(x)`` and ``a = sigmoid(-x)`` the factor of x is ``s * (1 + a) / (1 + a * a)``, and one minus its
    square ``(2 * a / (1 + a * a))**2``: exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Misra 2019, https://arxiv.org/abs/1908.08681, equation 1
    """

    onnx = "Mish"

    def reference(self, x: Array) -> Array:
        s, a = _sigmoid(x), _sigmoid(-x)
        return x * (s * (1 + a) / (1 + a * a))

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        a = sigmoid(negative(x))
        return multiply(x, _mish_factor(x, a))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        (x,) = node.args
        a = sigmoid(negative(x))
        rest = square(divide(multiply(a, 2.0), square(a) + 1.0))
        return multiply(g, _mish_factor(x, a) + multiply(multiply(x, rest), sigmoid(x)))


def _mish_factor(x: Node, a: Node) -> Node:
    return divide(multiply(sigmoid(x), a + 1.0), square(a) + 1.0)


def mish(x: Operand) -> Node:
    """``x * tanh(softplus(x))``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Misra 2019, https://arxiv.org/abs/1908.08681, equation 1

    >>> import graphc as gx
    >>> gx.mish(gx.placeholder("x", ("n", 3)))
    <mish: f32[n, 3]>
    """
    return call(Mish(), x)


@op_class
class LogSigmoid(_Smooth):
    """``log(sigmoid(x))`` as ``-softplus(-x)``, exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: the logarithm of https://onnx.ai/onnx/operators/onnx__Sigmoid.html
    """

    onnx = ("Neg", "Softplus", "Neg")

    def reference(self, x: Array) -> Array:
        return -np.logaddexp(-x, x.dtype.type(0))

    def decompose(self, *args: Node) -> Node:
        return negative(softplus(negative(args[0])))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, sigmoid(negative(node.args[0])))


def log_sigmoid(x: Operand) -> Node:
    """``log(sigmoid(x))``, exact in both tails.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Keras ``log_sigmoid``.

    >>> import graphc as gx
    >>> gx.log_sigmoid(gx.placeholder("x", ("n", 3)))
    <log_sigmoid: f32[n, 3]>
    """
    return call(LogSigmoid(), x)


@op_class
class Softsign(_Smooth):
    """``x / (1 + |x|)``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Softsign.html
    """

    onnx = "Softsign"

    def reference(self, x: Array) -> Array:
        return x / (1 + np.abs(x))

    def decompose(self, *args: Node) -> Node:
        return divide(args[0], abs(args[0]) + 1.0)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, square(divide(1.0, abs(node.args[0]) + 1.0)))


def softsign(x: Operand) -> Node:
    """``x / (1 + |x|)``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Softsign.html

    >>> import graphc as gx
    >>> gx.softsign(gx.placeholder("x", ("n", 3)))
    <softsign: f32[n, 3]>
    """
    return call(Softsign(), x)


@op_class
class Squareplus(_Smooth):
    """``(x + sqrt(x * x + b)) / 2``, without overflow for large x and without cancellation below 0.

    Below 0 it is ``b / 4`` over its value at ``-x``, for the product of the two is ``b / 4``.

    Shapes: that of x.
    Raises: AxisError unless b > 0; DTypeError for integers and bool.
    Source: Barron 2021, https://arxiv.org/abs/2112.11687, equation 1
    """

    b: float = 4.0

    def infer(self, *types: TensorType) -> TensorType:
        if not self.b > 0:
            raise AxisError(f"b is {self.b}", remedy="give a b above 0, or use gx.relu")
        return super().infer(*types)

    def reference(self, x: Array) -> Array:
        above = (np.abs(x) + np.hypot(x, x.dtype.type(math.sqrt(self.b)))) / 2
        return np.where(x >= 0, above, self.b / 4 / above).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        above = multiply(abs(x) + self._hypotenuse(x), 0.5)
        return where(greater_equal(x, 0), above, divide(self.b / 4, above))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return multiply(g, divide(node, self._hypotenuse(node.args[0])))

    def _hypotenuse(self, x: Node) -> Node:
        size, root = abs(x), math.sqrt(self.b)
        longer = maximum(size, root)
        return multiply(longer, sqrt(square(divide(minimum(size, root), longer)) + 1.0))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """A sharper bend."""
        return [*super().cases(), Case(cls(0.25), (TensorType(DType.float32, (40,)),), cls.domain)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Integers, a b of 0."""
        x = TensorType(DType.float32, (3,))
        return [*super().bad_cases(), BadCase(cls(0.0), (x,), AxisError, ("squareplus", "b is 0.0"))]


def squareplus(x: Operand, b: float = 4.0) -> Node:
    """``(x + sqrt(x * x + b)) / 2``: like softplus, without exponentials.

    Shapes: that of x.
    Raises: AxisError unless b > 0; DTypeError for integers and bool.
    Source: Barron 2021, https://arxiv.org/abs/2112.11687, equation 1

    >>> import graphc as gx
    >>> gx.squareplus(gx.placeholder("x", ("n", 3)))
    <squareplus: f32[n, 3]>
    """
    return call(Squareplus(float(b)), x)


def glu(x: Operand, axis: int = -1) -> Node:
    """The first half along an axis times the sigmoid of the second half.

    Shapes: the axis, whose size must be an even number, is halved.
    Raises: AxisError; ShapeError for an odd or unknown size; DTypeError for integers and bool.
    Source: Dauphin et al. 2017, https://arxiv.org/abs/1612.08083, equation 1

    >>> import graphc as gx
    >>> gx.glu(gx.placeholder("x", ("n", 6)))
    <multiply: f32[n, 3]>
    """
    node = as_node(x)
    with explaining("glu", node):
        place = normalize_axis(axis, node.ndim)
        size = node.shape[place]
        if not isinstance(size, int) or size % 2:
            raise ShapeError(f"axis {axis} of size {size} has no two halves", remedy="give an even size known by now")
    half = size // 2
    return multiply(take_range(node, place, 0, half), sigmoid(take_range(node, place, half, size)))


__all__ = [
    "Gelu", "GeluTanh", "LogSigmoid", "Mish", "Silu", "Softsign", "Squareplus", "gelu", "glu", "log_sigmoid", "mish",
    "silu", "softsign", "squareplus",
]  # fmt: skip
