"""Losses of each element that grow linearly far away, so that outliers do not rule: Huber's and log-cosh."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import AxisError
from graphc.ir.node import Node, apply
from graphc.ir.types import DType, TensorType
from graphc.ops.arithmetic import abs, divide, maximum, minimum, multiply, negative, square, subtract
from graphc.ops.base import Array, BadCase, Case, Operand, explaining, op_class
from graphc.ops.compare import less_equal, where
from graphc.ops.exponential import exp, expm1, log1p, tanh
from graphc.ops.loss import ElementLoss, loss_operands

f32 = DType.float32


@op_class
class Huber(ElementLoss):
    """``e**2 / 2`` for errors e up to ``delta``, beyond that ``delta * (|e| - delta / 2)``.

    The derivative is the error, cut off at ``delta``; nothing is squared, so that nothing overflows.

    Shapes: both of one shape.
    Raises: AxisError unless delta > 0; ShapeError; DTypeError for integers and bool.
    Source: Huber 1964, https://doi.org/10.1214/aoms/1177703732, section 4
    """

    delta: float = 1.0

    operands = ("target", "prediction")

    def infer(self, *types: TensorType) -> TensorType:
        if not self.delta > 0:
            raise AxisError(f"delta is {self.delta}", remedy="give a positive number")
        return super().infer(*types)

    def reference(self, target: Array, prediction: Array) -> Array:
        error = np.abs(prediction - target)
        near = np.minimum(error, error.dtype.type(self.delta))
        return near * (error - error.dtype.type(0.5) * near)

    def decompose(self, *args: Node) -> Node:
        target, prediction = args
        error = abs(subtract(prediction, target))
        near = minimum(error, self.delta)
        return multiply(near, subtract(error, multiply(0.5, near)))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        target, prediction = node.args
        error = subtract(prediction, target) if position else subtract(target, prediction)
        return multiply(g, minimum(maximum(error, -self.delta), self.delta))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, another delta, and errors whose squares overflow."""
        large = np.array([1e30, -1e30, 0, np.inf, np.nan], np.float32)
        usual = TensorType(f32, (20,))
        return [
            *super().cases(),
            Case(cls(0.5), (usual, usual)),
            Case(cls(), (np.zeros_like(large), large), differentiable=False),
        ]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Beside the usual, a delta that is not positive."""
        t = TensorType(f32, (3,))
        return [*super().bad_cases(), BadCase(cls(0.0), (t, t), AxisError, ("delta is 0.0", "positive"))]


def huber(target: Operand, prediction: Operand, delta: float = 1.0) -> Node:
    """``e**2 / 2`` of each error e up to ``delta``, beyond that ``delta * (|e| - delta / 2)``.

    Shapes: both of one shape, or one a scalar.
    Raises: AxisError unless delta > 0; ShapeError; DTypeError.
    Source: Huber 1964, https://doi.org/10.1214/aoms/1177703732, section 4

    >>> import graphc as gx
    >>> gx.huber(gx.placeholder("t", ("n",)), gx.placeholder("y", ("n",)))
    <huber: f32[n]>
    """
    with explaining("huber"):
        return apply(Huber(float(delta)), *loss_operands(target, prediction))


@op_class
class LogCosh(ElementLoss):
    """``log(cosh(prediction - target))``, exact for small errors and without overflow for large ones.

    Up to 1 it is ``log1p(2 * sinh(e / 2)**2)``, beyond that ``|e| + log1p(exp(-2 * |e|)) - log(2)``. The derivative is
    ``tanh`` of the error.

    Shapes: both of one shape.
    Raises: ShapeError; DTypeError for integers and bool.
    Source: https://keras.io/api/losses/regression_losses/#log_cosh-function before the mean
    """

    operands = ("target", "prediction")

    def reference(self, target: Array, prediction: Array) -> Array:
        error: Array = np.abs(prediction - target)
        real = error.dtype.type
        s: Array = np.expm1(np.minimum(error, real(1)) * real(0.5))
        near: Array = np.log1p(np.square(s + s / (s + real(1))) * real(0.5))
        far: Array = error + np.log1p(np.exp(-2 * error)) - real(math.log(2))
        return np.where(error <= 1, near, far)

    def decompose(self, *args: Node) -> Node:
        target, prediction = args
        error = abs(subtract(prediction, target))
        s = expm1(multiply(minimum(error, 1.0), 0.5))
        near = log1p(multiply(square(s + divide(s, s + 1.0)), 0.5))  # s + s / (s + 1) is 2 sinh(e / 2)
        far = subtract(error + log1p(exp(multiply(-2.0, error))), math.log(2))
        return where(less_equal(error, 1.0), near, far)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        target, prediction = node.args
        slope = multiply(g, tanh(subtract(prediction, target)))
        return slope if position else negative(slope)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, errors whose cosh overflows or is rounded to 1."""
        error = np.array([1e4, -1e30, 1e-6, -1e-20, 0, 1, np.inf, np.nan], np.float32)
        return [*super().cases(), Case(cls(), (np.zeros_like(error), error), differentiable=False)]


def log_cosh(target: Operand, prediction: Operand) -> Node:
    """``log(cosh(prediction - target))`` of each element, for errors of any size.

    Shapes: both of one shape, or one a scalar.
    Raises: ShapeError; DTypeError.
    Source: https://keras.io/api/losses/regression_losses/#log_cosh-function before the mean

    >>> import graphc as gx
    >>> gx.log_cosh(gx.placeholder("t", ("n",)), gx.placeholder("y", ("n",)))
    <log_cosh: f32[n]>
    """
    with explaining("log_cosh"):
        return apply(LogCosh(), *loss_operands(target, prediction))


__all__ = ["Huber", "LogCosh", "huber", "log_cosh"]
