"""Losses of each element: squared error and binary cross entropy. Those of rows of classes are in ``crossentropy``.

Operands are (target, prediction), as in Keras. Nothing is averaged: the result has one loss for each element.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.node import Node, apply
from graphc.ir.types import DType, TensorType
from graphc.ops.arithmetic import abs, divide, maximum, multiply, negative, square, subtract
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    as_node,
    as_operands,
    cast_to,
    explaining,
    op_class,
)
from graphc.ops.exponential import exp, log, log1p, sigmoid

f32 = DType.float32

LOG_LIMIT = -100.0
"""Logarithms of probabilities are cut off here, as in PyTorch: the loss of a certain error stays finite."""

SMALLEST_DIVISOR = 1e-12
"""Derivatives divide by a probability, or by this where it is smaller."""


class ElementLoss(Elementwise):
    """Base of losses of each element: a target and a prediction of one shape."""

    accepts = FLOATS
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        result = super().infer(*types)
        target, prediction = types
        if target.shape != prediction.shape:
            first, second = self.operands
            raise ShapeError(
                f"{first} have shape {target.shape}, {second} {prediction.shape}",
                remedy="make them equal with gx.reshape or gx.expand_dims; a loss does not broadcast, but for scalars",
            )
        return result

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Scalars, two axes, no elements."""
        shapes = ((), (5, 3), (0, 2), (33,))
        return [Case(cls(), (TensorType(f32, shape), TensorType(f32, shape)), cls.domain) for shape in shapes]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Shapes that would broadcast and shapes that would not, a mix of element types, integers."""

        def t(*shape: int, dtype: DType = f32) -> TensorType:
            return TensorType(dtype, shape)

        return (
            BadCase(cls(), (t(3), t(3, 1)), ShapeError, (cls.name, "(3,)", "(3, 1)", "expand_dims")),
            BadCase(cls(), (t(3), t(4)), ShapeError, (cls.name, "3", "4")),
            BadCase(cls(), (t(3), t(3, dtype=DType.float64)), DTypeError, ("float32", "float64", "gx.cast")),
            BadCase(cls(), (t(3, dtype=DType.int32), t(3, dtype=DType.int32)), DTypeError, (cls.name, "int32")),
        )


def loss_operands(target: Operand, prediction: Operand) -> tuple[Node, Node]:
    """Both as floats of one type (labels may be integers or bools), a scalar repeated to the other's shape."""
    from graphc.ops.movement import broadcast_to

    if isinstance(target, Node | np.ndarray | np.generic) and not as_node(target).dtype.is_float:
        like = as_node(prediction).dtype
        target = cast_to(as_node(target), like if like.is_float else f32)
    left, right = as_operands(target, prediction)
    if left.ndim == 0 or right.ndim == 0:
        shape = left.shape or right.shape
        return broadcast_to(left, shape), broadcast_to(right, shape)
    return left, right


@op_class
class SquaredError(ElementLoss):
    """``(prediction - target) ** 2``.

    Shapes: both of one shape.
    Raises: ShapeError; DTypeError for integers and bool.
    Source: https://keras.io/api/losses/regression_losses/#mean_squared_error-function before the mean
    """

    operands = ("target", "prediction")
    onnx = ("Sub", "Mul")

    def reference(self, target: Array, prediction: Array) -> Array:
        return np.square(np.subtract(prediction, target))

    def decompose(self, *args: Node) -> Node:
        target, prediction = args
        return square(subtract(prediction, target))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        target, prediction = node.args
        difference = subtract(prediction, target) if position else subtract(target, prediction)
        return multiply(g, multiply(2.0, difference))


def squared_error(target: Operand, prediction: Operand) -> Node:
    """``(prediction - target) ** 2`` of each element.

    Shapes: both of one shape, or one a scalar.
    Raises: ShapeError; DTypeError.
    Source: https://keras.io/api/losses/regression_losses/#mean_squared_error-function before the mean

    >>> import graphc as gx
    >>> gx.squared_error(gx.placeholder("t", ("n",)), gx.placeholder("y", ("n",)))
    <squared_error: f32[n]>
    """
    with explaining("squared_error"):
        return apply(SquaredError(), *loss_operands(target, prediction))


@op_class
class BinaryCrossEntropy(ElementLoss):
    """``-(labels * log(p) + (1 - labels) * log(1 - p))``, with logarithms cut off at -100.

    The derivative by p is ``(p - labels) / (p * (1 - p))``, where the divisor is at least 1e-12.

    Shapes: both of one shape.
    Raises: ShapeError; DTypeError for integers and bool.
    Source: https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html
    """

    operands = ("labels", "probabilities")
    domain = (0.05, 0.95)

    def reference(self, labels: Array, probabilities: Array) -> Array:
        one, limit = probabilities.dtype.type(1), probabilities.dtype.type(LOG_LIMIT)
        yes = np.maximum(np.log(probabilities), limit)
        no = np.maximum(np.log1p(-probabilities), limit)
        return -(labels * yes + (one - labels) * no)

    def decompose(self, *args: Node) -> Node:
        labels, p = args
        yes, no = _log_yes_no(p)
        return negative(multiply(labels, yes) + multiply(subtract(1.0, labels), no))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        labels, p = node.args
        if position == 0:
            yes, no = _log_yes_no(p)
            return multiply(g, subtract(no, yes))
        return divide(multiply(g, subtract(p, labels)), maximum(multiply(p, subtract(1.0, p)), SMALLEST_DIVISOR))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, probabilities of 0 and 1, right and wrong."""
        labels, p = np.array([0, 0, 1, 1], np.float32), np.array([0, 1, 0, 1], np.float32)
        return [*super().cases(), Case(cls(), (labels, p), differentiable=False)]


def _log_yes_no(p: Node) -> tuple[Node, Node]:
    return maximum(log(p), LOG_LIMIT), maximum(log1p(negative(p)), LOG_LIMIT)


def binary_cross_entropy(labels: Operand, probabilities: Operand) -> Node:
    """``-(labels * log(p) + (1 - labels) * log(1 - p))`` of each element, with logarithms cut off at -100.

    Shapes: both of one shape, or one a scalar.
    Raises: ShapeError; DTypeError.
    Source: https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html

    >>> import graphc as gx
    >>> gx.binary_cross_entropy(gx.placeholder("y", ("n",)), gx.sigmoid(gx.placeholder("z", ("n",))))
    <binary_cross_entropy: f32[n]>
    """
    with explaining("binary_cross_entropy"):
        return apply(BinaryCrossEntropy(), *loss_operands(labels, probabilities))


@op_class
class BinaryCrossEntropyWithLogits(ElementLoss):
    """Binary cross entropy of ``sigmoid(logits)``, exact for large logits: ``max(z, 0) - z * y + log1p(exp(-|z|))``.

    The derivative by the logits is ``sigmoid(logits) - labels``.

    Shapes: both of one shape.
    Raises: ShapeError; DTypeError for integers and bool.
    Source: https://www.tensorflow.org/api_docs/python/tf/nn/sigmoid_cross_entropy_with_logits
    """

    operands = ("labels", "logits")

    def reference(self, labels: Array, logits: Array) -> Array:
        zero = logits.dtype.type(0)
        return np.maximum(logits, zero) - logits * labels + np.log1p(np.exp(-np.abs(logits)))

    def decompose(self, *args: Node) -> Node:
        labels, logits = args
        linear = subtract(maximum(logits, 0.0), multiply(logits, labels))
        return linear + log1p(exp(negative(abs(logits))))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        labels, logits = node.args
        return multiply(g, subtract(sigmoid(logits), labels)) if position else negative(multiply(g, logits))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, logits so large that their exponential overflows."""
        labels, logits = np.array([0, 0, 1, 1, 0.5], np.float32), np.array([-200, 30, 30, -200, 0], np.float32)
        return [*super().cases(), Case(cls(), (labels, logits), differentiable=False)]


def binary_cross_entropy_with_logits(labels: Operand, logits: Operand) -> Node:
    """Binary cross entropy of ``sigmoid(logits)`` of each element, exact for large logits.

    Shapes: both of one shape, or one a scalar.
    Raises: ShapeError; DTypeError.
    Source: https://www.tensorflow.org/api_docs/python/tf/nn/sigmoid_cross_entropy_with_logits

    >>> import graphc as gx
    >>> gx.binary_cross_entropy_with_logits(gx.placeholder("y", ("n",)), gx.placeholder("z", ("n",)))
    <binary_cross_entropy_with_logits: f32[n]>
    """
    with explaining("binary_cross_entropy_with_logits"):
        return apply(BinaryCrossEntropyWithLogits(), *loss_operands(labels, logits))


__all__ = [
    "BinaryCrossEntropy", "BinaryCrossEntropyWithLogits", "SquaredError",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "squared_error",
]  # fmt: skip
