"""Focal cross entropies by their Keras 3 names: what is already told apart counts less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import graphc as gx
from graphc.frontend.checked import NonNegative, Part, checked
from graphc.frontend.losses.base import Loss, PointwiseLoss, aligned
from graphc.frontend.losses.crossentropy import dense_operands, smoothed_binary
from graphc.ir.node import Node
from graphc.ir.types import TensorType


@checked
def binary_focal_crossentropy(
    y_true: Node,
    y_pred: Node,
    apply_class_balancing: bool = False,
    alpha: Part = 0.25,
    gamma: NonNegative = 2.0,
    from_logits: bool = False,
    label_smoothing: Part = 0.0,
    axis: int = -1,
) -> Node:
    """The mean of ``(1 - p_t)**gamma`` times the cross entropy over an axis: see :class:`BinaryFocalCrossentropy`.

    >>> import graphc as gx
    >>> binary_focal_crossentropy(gx.placeholder("y", ("batch", 2)), gx.placeholder("p", ("batch", 2))).type
    f32[batch]
    """
    balance = alpha if apply_class_balancing else None
    return gx.mean(_binary(y_true, y_pred, balance, gamma, from_logits, label_smoothing), axis=axis)


def _binary(
    y_true: Node, y_pred: Node, balance: float | None, gamma: float, from_logits: bool, label_smoothing: float
) -> Node:
    y_true = smoothed_binary(aligned(y_true, y_pred), label_smoothing)
    if from_logits:
        values = gx.binary_focal_cross_entropy_with_logits(y_true, y_pred, gamma)
    else:
        values = gx.binary_focal_cross_entropy(y_true, y_pred, gamma)
    if balance is None:
        return values
    return (y_true * balance + (1.0 - y_true) * (1.0 - balance)) * values


@checked
def categorical_focal_crossentropy(
    y_true: Node,
    y_pred: Node,
    alpha: NonNegative | Sequence[NonNegative] = 0.25,
    gamma: NonNegative = 2.0,
    from_logits: bool = False,
    label_smoothing: Part = 0.0,
    axis: int = -1,
) -> Node:
    """``-sum(alpha * (1 - p)**gamma * y * log p)`` over the classes: see :class:`CategoricalFocalCrossentropy`."""
    y_true, y_pred = dense_operands(y_true, y_pred, label_smoothing, axis)
    if from_logits:
        values = gx.categorical_focal_cross_entropy_with_logits(y_true, y_pred, gamma)
    else:
        values = gx.categorical_focal_cross_entropy(y_true, y_pred, gamma)
    factors = alpha if isinstance(alpha, int | float) else gx.constant(np.asarray(alpha, y_pred.dtype.numpy))
    return gx.sum(values * factors, axis=-1)


class BinaryFocalCrossentropy(PointwiseLoss):
    """``(1 - p_t)**gamma`` times the binary cross entropy, where p_t is the probability given to the label.

    Args:
        apply_class_balancing: weigh labels of 1 with alpha and those of 0 with ``1 - alpha``.
        alpha: see there.
        gamma: the larger, the less counts what is already told apart; 0 gives the cross entropy.
        from_logits: whether y_pred are logits; else probabilities.
        label_smoothing: moves labels by this part towards 1/2.
        axis: the axis that ``call`` averages over.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred: (batch, ..., n).

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equations 4 and 5
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: Part = 0.25,
        gamma: NonNegative = 2.0,
        from_logits: bool = False,
        label_smoothing: Part = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        balance = self.alpha if self.apply_class_balancing else None
        return _binary(y_true, y_pred, balance, self.gamma, self.from_logits, self.label_smoothing)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return gx.mean(self.elementwise(y_true, y_pred), axis=self.axis)


class CategoricalFocalCrossentropy(Loss):
    """``-sum(alpha * (1 - p)**gamma * y * log p)`` over the classes, for labels that are probabilities (one-hot rows).

    Args:
        alpha: a factor, or one for each class.
        gamma: the larger, the less counts what is already told apart; 0 gives alpha times the cross entropy.
        from_logits: whether y_pred are logits; else probabilities.
        label_smoothing: moves labels by this part towards the uniform distribution.
        axis: the axis of the classes.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred: (batch, ..., classes).

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 5
    """

    def __init__(
        self,
        alpha: NonNegative | Sequence[NonNegative] = 0.25,
        gamma: NonNegative = 2.0,
        from_logits: bool = False,
        label_smoothing: Part = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.alpha, self.gamma = alpha, gamma
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return categorical_focal_crossentropy(
            y_true, y_pred, self.alpha, self.gamma, self.from_logits, self.label_smoothing, self.axis
        )

    def target_type(self, output: TensorType) -> TensorType:
        return output
