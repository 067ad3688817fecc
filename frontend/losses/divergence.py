"""Losses between distributions that are no cross entropies: Kullback-Leibler's, Poisson's, a generalized one."""

from __future__ import annotations

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import checked
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import EPSILON, Loss, PointwiseLoss, aligned
from graphc.frontend.losses.crossentropy import labels_type
from graphc.ir.node import Node
from graphc.ir.types import TensorType


def kl_divergence(y_true: Node, y_pred: Node) -> Node:
    """``sum(y_true * log(y_true / y_pred))`` over the last axis, of probabilities cut off at 1e-7 and 1.

    >>> import graphc as gx
    >>> kl_divergence(gx.placeholder("y", ("batch", 2)), gx.placeholder("p", ("batch", 2))).type
    f32[batch]
    """
    y_true = _probability(aligned(y_true, y_pred))
    return gx.sum(y_true * gx.log(y_true / _probability(y_pred)), axis=-1)


def _probability(x: Node) -> Node:
    return gx.minimum(gx.maximum(x, EPSILON), 1.0)


def poisson(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``y_pred - y_true * log(y_pred + 1e-7)`` over the last axis."""
    return gx.mean(_poisson(y_true, y_pred), axis=-1)


def _poisson(y_true: Node, y_pred: Node) -> Node:
    return y_pred - aligned(y_true, y_pred) * gx.log(y_pred + EPSILON)


@checked
def categorical_generalized_cross_entropy(y_true: Node, y_pred: Node, q: float = 0.5) -> Node:
    """``(1 - p**q) / q`` with the probability p of the label: cross entropy for q towards 0, the absolute error for 1.

    Shapes: y_true: (...), whole numbers; y_pred: (..., classes); the result: (...).
    """
    classes = gx.iota((y_pred.shape[-1],), 0, y_true.dtype)
    p = gx.sum(gx.where(gx.equal(gx.expand_dims(y_true, -1), classes), y_pred, 0.0), axis=-1)
    return (1.0 - gx.pow(gx.maximum(p, EPSILON), q)) / q


class KLDivergence(Loss):
    """``sum(y_true * log(y_true / y_pred))``: how far predicted probabilities are from given ones.

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "kl_divergence") -> None:
        super().__init__(name, reduction)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return kl_divergence(y_true, y_pred)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class Poisson(PointwiseLoss):
    """``y_pred - y_true * log(y_pred)``: how unlikely counts are, where y_pred is what is expected.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "poisson") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _poisson(y_true, y_pred)


class CategoricalGeneralizedCrossEntropy(Loss):
    """``(1 - p**q) / q`` with the probability p of the label: wrong labels do less harm than with cross entropy.

    Args:
        q: between 0 (cross entropy) and 1 (absolute error).
        reduction, name: see :class:`Loss`.

    Shapes: y_true: (batch, ...), whole numbers; y_pred: (batch, ..., classes).

    Source: Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836, equation 6
    """

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_generalized_cross_entropy",
    ) -> None:
        super().__init__(name, reduction)
        if not 0 < q < 1:
            raise AxisError(f"q is between 0 and 1, not {q}", at=user_line(), remedy="the paper uses 0.7")
        self.q = q

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return categorical_generalized_cross_entropy(y_true, y_pred, self.q)

    def target_type(self, output: TensorType) -> TensorType:
        return labels_type(output, -1, self.name)
