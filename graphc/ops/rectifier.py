"""Activations of pieces: leaky_relu, prelu, elu, selu, celu, relu6, threshold, and the hard tanh, sigmoid and silu.

All but elu, selu and celu are made of straight lines; where two pieces meet, the derivative is that of the piece which
is named in the class. None of them forms an infinity in a piece that is not taken, so that derivatives are finite
wherever x is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import AxisError
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.ops.arithmetic import abs, maximum, minimum, multiply
from graphc.ops.base import FLOATS, Array, BadCase, Case, Elementwise, Operand, call, op_class, special_operands
from graphc.ops.compare import greater, greater_equal, less, where
from graphc.ops.exponential import exp, expm1
from graphc.ops.logic import logical_and

_X = TensorType(DType.float32, (3,))


class _Piecewise(Elementwise):
    """Shapes: that of x. Raises: DTypeError for integers and bool."""

    accepts = FLOATS
    composite = True


def _with_attributes(*ops: Elementwise) -> list[Case]:
    """Random operands and special ones in both element types, for ops with attributes of other than default values."""
    shapes = [Case(op, (TensorType(dtype, (40,)),)) for op in ops for dtype in FLOATS]
    return shapes + [Case(op, special_operands(d, 1), differentiable=False) for op in ops for d in FLOATS]


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise AxisError(f"{name} is {value}", remedy=f"give a {name} above 0")


@op_class
class LeakyRelu(_Piecewise):
    """``x`` from 0 on, ``negative_slope * x`` below; NaN stays NaN. Its derivative at 0 is 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__LeakyRelu.html
    """

    negative_slope: float = 0.2

    onnx = "LeakyRelu"

    def reference(self, x: Array) -> Array:
        return np.where(x >= 0, x, x * x.dtype.type(self.negative_slope))

    def decompose(self, *args: Node) -> Node:
        return where(greater_equal(args[0], 0), args[0], multiply(args[0], self.negative_slope))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return where(greater_equal(node.args[0], 0), g, multiply(g, self.negative_slope))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Other slopes: none, that of a straight line, a rising one below."""
        return [*super().cases(), *_with_attributes(cls(0.0), cls(1.0), cls(-0.5))]


def leaky_relu(x: Operand, negative_slope: float = 0.2) -> Node:
    """``x`` from 0 on, ``negative_slope * x`` below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Maas, Hannun and Ng 2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf

    >>> import graphc as gx
    >>> gx.leaky_relu(gx.placeholder("x", ("n", 3)), 0.01)
    <leaky_relu: f32[n, 3]>
    """
    return call(LeakyRelu(float(negative_slope)), x)


@op_class
class Prelu(Elementwise):
    """``x`` from 0 on, ``slope * x`` below, where the slope is learned. The derivative by x at 0 is 1.

    Shapes: x and slope broadcast.
    Raises: DTypeError for integers and bool; ShapeError.
    Source: https://onnx.ai/onnx/operators/onnx__PRelu.html
    """

    operands = ("x", "slope")
    accepts = FLOATS
    composite = True
    onnx = "PRelu"

    def reference(self, x: Array, slope: Array) -> Array:
        return np.where(x >= 0, x, x * slope)

    def decompose(self, *args: Node) -> Node:
        x, slope = args
        return where(greater_equal(x, 0), x, multiply(x, slope))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        x, slope = node.args
        if position == 0:
            return where(greater_equal(x, 0), g, multiply(g, slope))
        return multiply(g, minimum(x, 0.0))


def prelu(x: Operand, slope: Operand) -> Node:
    """``x`` from 0 on, ``slope * x`` below; the slope is an operand, as a rule a parameter.

    Shapes: x and slope broadcast.
    Raises: DTypeError for integers and bool; ShapeError.
    Source: He et al. 2015, https://arxiv.org/abs/1502.01852, equation 1

    >>> import graphc as gx
    >>> gx.prelu(gx.placeholder("x", ("n", 3)), gx.parameter("slope", [0.1, 0.2, 0.3]))
    <prelu: f32[n, 3]>
    """
    return call(Prelu(), x, slope)


class _Exponential(_Piecewise):
    """``scale * x`` above 0, ``scale * alpha * (exp(x / width) - 1)`` below, exact near 0 and in the tail."""

    def _constants(self) -> tuple[float, float, float]:
        """Scale, alpha and width."""
        raise NotImplementedError(f"{type(self).__name__} lacks _constants")

    def reference(self, x: Array) -> Array:
        scale, alpha, width = self._constants()
        below = scale * alpha * np.expm1(np.minimum(x, x.dtype.type(0)) / width)
        return np.where(x > 0, scale * x, below).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        scale, alpha, width = self._constants()
        below = expm1(_scaled(minimum(x, 0.0), 1 / width))
        return where(greater(x, 0), _scaled(x, scale), _scaled(below, scale * alpha))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        """By the operand: in the tail the result has lost what the exponential still knows."""
        (x,) = node.args
        scale, alpha, width = self._constants()
        below = _scaled(exp(_scaled(minimum(x, 0.0), 1 / width)), scale * alpha / width)
        return where(greater(x, 0), _scaled(g, scale), multiply(g, below))


def _scaled(x: Node, factor: float) -> Node:
    return x if factor == 1 else multiply(x, factor)


@op_class
class Elu(_Exponential):
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below. Its derivative at 0 is alpha.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Elu.html
    """

    alpha: float = 1.0

    onnx = "Elu"

    def _constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, 1.0

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Other limits far below 0."""
        return [*super().cases(), *_with_attributes(cls(0.5))]


def elu(x: Operand, alpha: float = 1.0) -> Node:
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Clevert, Unterthiner and Hochreiter 2016, https://arxiv.org/abs/1511.07289, equation 15

    >>> import graphc as gx
    >>> gx.elu(gx.placeholder("x", ("n", 3)))
    <elu: f32[n, 3]>
    """
    return call(Elu(float(alpha)), x)


SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


@op_class
class Selu(_Exponential):
    """``scale * elu(x, alpha)`` with the scale and alpha that keep mean 0 and variance 1 from layer to layer.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, equations 2 and 14
    """

    onnx = "Selu"

    def _constants(self) -> tuple[float, float, float]:
        return SELU_SCALE, SELU_ALPHA, 1.0


def selu(x: Operand) -> Node:
    """``1.0507 * elu(x, alpha=1.6733)``: activations tend to mean 0 and variance 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, equations 2 and 14

    >>> import graphc as gx
    >>> gx.selu(gx.placeholder("x", ("n", 3)))
    <selu: f32[n, 3]>
    """
    return call(Selu(), x)


@op_class
class Celu(_Exponential):
    """``x`` above 0, ``alpha * (exp(x / alpha) - 1)`` below, so that the derivative at 0 is 1 for every alpha.

    Shapes: that of x.
    Raises: AxisError unless alpha > 0; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Celu.html
    """

    alpha: float = 1.0

    onnx = "Celu"

    def infer(self, *types: TensorType) -> TensorType:
        _require_positive("alpha", self.alpha)
        return super().infer(*types)

    def _constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, self.alpha

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """A slower and a faster decay."""
        return [*super().cases(), *_with_attributes(cls(2.0), cls(0.3))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Integers, an alpha of 0."""
        return [*super().bad_cases(), BadCase(cls(0.0), (_X,), AxisError, ("celu", "alpha is 0.0"))]


def celu(x: Operand, alpha: float = 1.0) -> Node:
    """``x`` above 0, ``alpha * (exp(x / alpha) - 1)`` below: smooth for every alpha.

    Shapes: that of x.
    Raises: AxisError unless alpha > 0; DTypeError for integers and bool.
    Source: Barron 2017, https://arxiv.org/abs/1704.07483

    >>> import graphc as gx
    >>> gx.celu(gx.placeholder("x", ("n", 3)), 0.5)
    <celu: f32[n, 3]>
    """
    return call(Celu(float(alpha)), x)


class _Clipped(_Piecewise):
    """x cut to an interval. The derivative at both ends is 0."""

    low: float
    high: float

    def reference(self, x: Array) -> Array:
        return np.clip(x, x.dtype.type(self.low), x.dtype.type(self.high))

    def decompose(self, *args: Node) -> Node:
        return minimum(maximum(args[0], self.low), self.high)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        # The result tells as much as the operand, and the operand need not be kept for it.
        return where(logical_and(greater(node, self.low), less(node, self.high)), g, 0.0)


@op_class
class Relu6(_Clipped):
    """``min(max(x, 0), 6)``; NaN stays NaN. Its derivative at 0 and at 6 is 0.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Howard et al. 2017, https://arxiv.org/abs/1704.04861, and Keras ``relu6``
    """

    low = 0.0
    high = 6.0
    domain = (-3.0, 9.0)
    onnx = ("Max", "Min")


def relu6(x: Operand) -> Node:
    """``min(max(x, 0), 6)``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Keras ``relu6``.

    >>> import graphc as gx
    >>> gx.relu6(gx.placeholder("x", ("n", 3)))
    <relu6: f32[n, 3]>
    """
    return call(Relu6(), x)


@op_class
class HardTanh(_Clipped):
    """``min(max(x, -1), 1)``; NaN stays NaN. Its derivative at -1 and at 1 is 0.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Collobert 2004, Large scale machine learning, and Keras ``hard_tanh``
    """

    low = -1.0
    high = 1.0
    onnx = ("Max", "Min")


def hard_tanh(x: Operand) -> Node:
    """``min(max(x, -1), 1)``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Keras ``hard_tanh``.

    >>> import graphc as gx
    >>> gx.hard_tanh(gx.placeholder("x", ("n", 3)))
    <hard_tanh: f32[n, 3]>
    """
    return call(HardTanh(), x)


@op_class
class HardSigmoid(_Piecewise):
    """``min(max(x + 3, 0), 6) / 6``; NaN stays NaN. Its derivative at -3 and at 3 is 0.

    Keras and PyTorch mean this; ONNX's operator has a slope of 0.2 unless told otherwise, and is told so in files.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Howard et al. 2019, https://arxiv.org/abs/1905.02244, section 5.2
    """

    domain = (-5.0, 5.0)
    onnx = "HardSigmoid"

    def reference(self, x: Array) -> Array:
        return (np.clip(x + 3, 0, 6) / 6).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        return multiply(minimum(maximum(args[0] + 3.0, 0.0), 6.0), 1 / 6)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return where(logical_and(greater(node, 0), less(node, 1)), multiply(g, 1 / 6), 0.0)


def hard_sigmoid(x: Operand) -> Node:
    """``min(max(x + 3, 0), 6) / 6``: a sigmoid of three straight lines.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Keras ``hard_sigmoid``.

    >>> import graphc as gx
    >>> gx.hard_sigmoid(gx.placeholder("x", ("n", 3)))
    <hard_sigmoid: f32[n, 3]>
    """
    return call(HardSigmoid(), x)


@op_class
class HardSilu(_Piecewise):
    """``x * hard_sigmoid(x)``: 0 up to -3, x from 3 on. Its derivative at -3 is 0, at 3 it is 1.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__HardSwish.html
    """

    domain = (-5.0, 5.0)
    onnx = "HardSwish"

    def reference(self, x: Array) -> Array:
        return (x * (np.clip(x + 3, 0, 6) / 6)).astype(x.dtype)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        return multiply(x, HardSigmoid().decompose(x))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        (x,) = node.args
        outside = where(greater(x, 0), g, 0.0)
        return where(less(abs(x), 3), multiply(g, multiply(x, 1 / 3) + 0.5), outside)


def hard_silu(x: Operand) -> Node:
    """``x * hard_sigmoid(x)``, also known as hard swish.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Howard et al. 2019, https://arxiv.org/abs/1905.02244, section 5.2

    >>> import graphc as gx
    >>> gx.hard_silu(gx.placeholder("x", ("n", 3)))
    <hard_silu: f32[n, 3]>
    """
    return call(HardSilu(), x)


@op_class
class Threshold(_Piecewise):
    """``x`` where it is above ``threshold``, else ``value``. Its derivative at the threshold is 0; NaN gives ``value``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__ThresholdedRelu.html for a value of 0
    """

    threshold: float = 0.0
    value: float = 0.0

    def reference(self, x: Array) -> Array:
        return np.where(x > self.threshold, x, x.dtype.type(self.value))

    def decompose(self, *args: Node) -> Node:
        return where(greater(args[0], self.threshold), args[0], self.value)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return where(greater(node.args[0], self.threshold), g, 0.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """A threshold and a value other than 0."""
        return [*super().cases(), *_with_attributes(cls(0.5, -2.0))]


def threshold(x: Operand, threshold: float = 0.0, value: float = 0.0) -> Node:
    """``x`` where it is above ``threshold``, else ``value``.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Keras ``threshold``.

    >>> import graphc as gx
    >>> gx.threshold(gx.placeholder("x", ("n", 3)), 0.5)
    <threshold: f32[n, 3]>
    """
    return call(Threshold(float(threshold), float(value)), x)


__all__ = [
    "Celu", "Elu", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "Prelu", "Relu6", "Selu", "Threshold", "celu",
    "elu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "prelu", "relu6", "selu", "threshold",
]  # fmt: skip
