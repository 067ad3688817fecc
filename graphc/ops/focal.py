"""Focal cross entropy: cross entropy in which what is already told apart counts less.

Operands are (labels, prediction), as in Keras. Nothing is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import AxisError
from graphc.ir.node import Node, apply
from graphc.ir.types import DType, TensorType
from graphc.ops.activation import log_softmax
from graphc.ops.arithmetic import maximum, multiply, negative, pow, subtract
from graphc.ops.base import Array, BadCase, Case, Operand, explaining, op_class
from graphc.ops.compare import equal, where
from graphc.ops.exponential import expm1, log, sigmoid
from graphc.ops.loss import (
    LOG_LIMIT,
    SMALLEST_DIVISOR,
    BinaryCrossEntropy,
    BinaryCrossEntropyWithLogits,
    ElementLoss,
    loss_operands,
)

f32 = DType.float32

SMALLEST_BASE = 1e-30
"""Powers are taken of this where the base is smaller: with an exponent below 1 their slope would be infinite."""


@dataclass(frozen=True, eq=False, repr=False)
class _BinaryFocal(ElementLoss):
    gamma: float = 2.0

    def infer(self, *types: TensorType) -> TensorType:
        if not self.gamma >= 0:
            raise AxisError(f"gamma is {self.gamma}", remedy="give a number of at least 0; the paper uses 2")
        return super().infer(*types)

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Beside the usual, a negative gamma."""
        t = TensorType(f32, (3,))
        return [*super().bad_cases(), BadCase(cls(-1.0), (t, t), AxisError, ("gamma is -1.0", "at least 0"))]


def _missed(labels: Node, yes: Node, no: Node) -> Node:
    """The probability of being wrong, from those of 1 and of 0, without a difference of near numbers."""
    return multiply(labels, no) + multiply(subtract(1.0, labels), yes)


def _power(base: Node, exponent: float) -> Node:
    return pow(maximum(base, SMALLEST_BASE), exponent)


@op_class
class BinaryFocalCrossEntropy(_BinaryFocal):
    """``(1 - p_t)**gamma`` times binary cross entropy, where p_t is the probability given to the label.

    Logarithms are cut off at -100, as in the binary cross entropy.

    Shapes: both of one shape.
    Raises: AxisError unless gamma >= 0; ShapeError; DTypeError for integers and bool.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4
    """

    operands = ("labels", "probabilities")
    domain = (0.05, 0.95)

    def reference(self, labels: Array, probabilities: Array) -> Array:
        one = probabilities.dtype.type(1)
        missed = labels * (one - probabilities) + (one - labels) * probabilities
        return missed**self.gamma * BinaryCrossEntropy().reference(labels, probabilities)

    def decompose(self, *args: Node) -> Node:
        labels, p = args
        return multiply(pow(_missed(labels, p, subtract(1.0, p)), self.gamma), apply(BinaryCrossEntropy(), labels, p))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        labels, p = node.args
        missed = _missed(labels, p, subtract(1.0, p))
        entropy = apply(BinaryCrossEntropy(), labels, p)
        grown = multiply(self.gamma, multiply(_power(missed, self.gamma - 1.0), entropy))
        other = labels if position else p
        slope = multiply(grown, subtract(1.0, multiply(2.0, other)))
        rest = BinaryCrossEntropy().chain(entropy, multiply(g, pow(missed, self.gamma)), position)
        return multiply(g, slope) + rest

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, another gamma, and probabilities of 0 and 1, right and wrong."""
        labels, p = np.array([0, 0, 1, 1], np.float32), np.array([0, 1, 0, 1], np.float32)
        usual = TensorType(f32, (20,))
        return [
            *super().cases(),
            Case(cls(0.5), (usual, usual), cls.domain),
            Case(cls(), (labels, p), differentiable=False),
        ]


def binary_focal_cross_entropy(labels: Operand, probabilities: Operand, gamma: float = 2.0) -> Node:
    """``(1 - p_t)**gamma`` times the binary cross entropy of each element, p_t the probability given to the label.

    Shapes: both of one shape, or one a scalar.
    Raises: AxisError unless gamma >= 0; ShapeError; DTypeError.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4

    >>> import graphc as gx
    >>> gx.binary_focal_cross_entropy(gx.placeholder("y", ("n",)), gx.sigmoid(gx.placeholder("z", ("n",))))
    <binary_focal_cross_entropy: f32[n]>
    """
    with explaining("binary_focal_cross_entropy"):
        return apply(BinaryFocalCrossEntropy(float(gamma)), *loss_operands(labels, probabilities))


@op_class
class BinaryFocalCrossEntropyWithLogits(_BinaryFocal):
    """Binary focal cross entropy of ``sigmoid(logits)``, exact for large logits.

    ``1 - p_t`` is made of ``sigmoid(z)`` and ``sigmoid(-z)``, so that it is right where p_t is rounded to 1.

    Shapes: both of one shape.
    Raises: AxisError unless gamma >= 0; ShapeError; DTypeError for integers and bool.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4 and appendix A
    """

    operands = ("labels", "logits")
    domain = (0.05, 0.95)  # labels are probabilities

    def reference(self, labels: Array, logits: Array) -> Array:
        one = logits.dtype.type(1)
        small: Array = np.exp(-np.abs(logits))
        low: Array = small / (one + small)
        high: Array = one / (one + small)
        yes: Array = np.where(logits < 0, low, high)
        no: Array = np.where(logits < 0, high, low)
        missed: Array = labels * no + (one - labels) * yes
        return missed**self.gamma * BinaryCrossEntropyWithLogits().reference(labels, logits)

    def decompose(self, *args: Node) -> Node:
        labels, logits = args
        missed = _missed(labels, sigmoid(logits), sigmoid(negative(logits)))
        return multiply(pow(missed, self.gamma), apply(BinaryCrossEntropyWithLogits(), labels, logits))

    def chain(self, node: Node, g: Node, position: int) -> Node:
        labels, logits = node.args
        yes, no = sigmoid(logits), sigmoid(negative(logits))
        missed = _missed(labels, yes, no)
        entropy = apply(BinaryCrossEntropyWithLogits(), labels, logits)
        grown = multiply(self.gamma, multiply(_power(missed, self.gamma - 1.0), entropy))
        slope = multiply(subtract(1.0, multiply(2.0, labels)), multiply(yes, no)) if position else subtract(no, yes)
        rest = BinaryCrossEntropyWithLogits().chain(entropy, multiply(g, pow(missed, self.gamma)), position)
        return multiply(g, multiply(grown, slope)) + rest

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Beside the usual, another gamma, and logits so large that their exponential overflows."""
        labels, logits = np.array([0, 0, 1, 1, 0.5], np.float32), np.array([-200, 30, 30, -1e4, 0], np.float32)
        usual = TensorType(f32, (20,))
        return [
            *super().cases(),
            Case(cls(0.5), (usual, usual), cls.domain),
            Case(cls(), (labels, logits), differentiable=False),
        ]


def binary_focal_cross_entropy_with_logits(labels: Operand, logits: Operand, gamma: float = 2.0) -> Node:
    """Binary focal cross entropy of ``sigmoid(logits)`` of each element, exact for large logits.

    Shapes: both of one shape, or one a scalar.
    Raises: AxisError unless gamma >= 0; ShapeError; DTypeError.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4 and appendix A

    >>> import graphc as gx
    >>> gx.binary_focal_cross_entropy_with_logits(gx.placeholder("y", ("n",)), gx.placeholder("z", ("n",)))
    <binary_focal_cross_entropy_with_logits: f32[n]>
    """
    with explaining("binary_focal_cross_entropy_with_logits"):
        return apply(BinaryFocalCrossEntropyWithLogits(float(gamma)), *loss_operands(labels, logits))


def categorical_focal_cross_entropy(labels: Operand, probabilities: Operand, gamma: float = 2.0) -> Node:
    """``-labels * (1 - p)**gamma * log(p)`` of each class, with logarithms cut off at -100; the caller adds them up.

    Shapes: both (..., c), and so is the result.
    Raises: ShapeError; DTypeError.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, for each class

    >>> import graphc as gx
    >>> y, z = gx.placeholder("y", ("n", 10)), gx.placeholder("z", ("n", 10))
    >>> gx.sum(gx.categorical_focal_cross_entropy(y, gx.softmax(z)), axis=-1)
    <sum: f32[n]>
    """
    with explaining("categorical_focal_cross_entropy"):
        labels, p = loss_operands(labels, probabilities)
        # The logarithm's slope is that of the divisor that the other losses of probabilities use.
        cut = maximum(log(maximum(p, SMALLEST_DIVISOR)), LOG_LIMIT)
        return _weighed(labels, cut, subtract(1.0, p), gamma)


def categorical_focal_cross_entropy_with_logits(labels: Operand, logits: Operand, gamma: float = 2.0) -> Node:
    """Focal cross entropy of each class of ``softmax(logits)``, exact for large logits; the caller adds them up.

    Shapes: both (..., c), and so is the result.
    Raises: ShapeError; DTypeError.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, for each class

    >>> import graphc as gx
    >>> y, z = gx.placeholder("y", ("n", 10)), gx.placeholder("z", ("n", 10))
    >>> gx.sum(gx.categorical_focal_cross_entropy_with_logits(y, z), axis=-1)
    <sum: f32[n]>
    """
    with explaining("categorical_focal_cross_entropy_with_logits"):
        labels, logits = loss_operands(labels, logits)
        log_p = log_softmax(logits, axis=-1)
        return _weighed(labels, log_p, negative(expm1(log_p)), gamma)


def _weighed(labels: Node, log_p: Node, missed: Node, gamma: float) -> Node:
    terms = multiply(negative(labels), multiply(_power(missed, float(gamma)), log_p))
    return where(equal(labels, 0.0), 0.0, terms)


__all__ = [
    "BinaryFocalCrossEntropy", "BinaryFocalCrossEntropyWithLogits",
    "binary_focal_cross_entropy", "binary_focal_cross_entropy_with_logits",
    "categorical_focal_cross_entropy", "categorical_focal_cross_entropy_with_logits",
]  # fmt: skip
