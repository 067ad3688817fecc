"""Losses of segmentation: how little predicted and given regions overlap."""

from __future__ import annotations

from collections.abc import Sequence

import graphc as gx
from graphc.frontend.checked import NonNegative, checked
from graphc.frontend.losses.base import EPSILON, Loss, aligned
from graphc.ir.node import Node
from graphc.ir.types import TensorType


@checked
def dice(y_true: Node, y_pred: Node, axis: int | Sequence[int] | None = None) -> Node:
    """One minus ``2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred))`` over axes, None: all, the batch too.

    >>> import graphc as gx
    >>> dice(gx.placeholder("y", ("batch", 9)), gx.placeholder("p", ("batch", 9)), axis=-1).type
    f32[batch]
    """
    y_true = aligned(y_true, y_pred)
    common = gx.sum(y_true * y_pred, axis=axis)
    return 1.0 - 2.0 * common / (gx.sum(y_true, axis=axis) + gx.sum(y_pred, axis=axis) + EPSILON)


@checked
def tversky(
    y_true: Node,
    y_pred: Node,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 0.5,
    axis: int | Sequence[int] | None = None,
) -> Node:
    """One minus Tversky's index over axes, None: all, the batch too.

    The index is ``common / (common + alpha * missed + beta * extra)``: what y_true has and y_pred has not is missed.
    """
    y_true = aligned(y_true, y_pred)
    common = gx.sum(y_true * y_pred, axis=axis)
    missed = gx.sum((1.0 - y_pred) * y_true, axis=axis)
    extra = gx.sum(y_pred * (1.0 - y_true), axis=axis)
    return 1.0 - common / (common + missed * alpha + extra * beta + EPSILON)


class Dice(Loss):
    """One minus the Dice coefficient, twice the overlap divided by the sizes.

    Args:
        axis: the axes of a region; None: all, the batch too.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred of one shape.

    Source: Milletari, Navab and Ahmadi 2016, https://arxiv.org/abs/1606.04797, section 3, without the squares
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "dice",
        axis: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.axis = axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return dice(y_true, y_pred, self.axis)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class Tversky(Loss):
    """One minus Tversky's index: Dice with weights for what is missed and for what is too much.

    Args:
        alpha: the weight of what is missed.
        beta: the weight of what is too much.
        axis: the axes of a region; None: all, the batch too.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred of one shape.

    Source: Salehi, Erdogmus and Gholipour 2017, https://arxiv.org/abs/1706.05721, equation 4
    """

    def __init__(
        self,
        alpha: NonNegative = 0.5,
        beta: NonNegative = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "tversky",
        axis: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.alpha, self.beta, self.axis = alpha, beta, axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return tversky(y_true, y_pred, self.alpha, self.beta, self.axis)

    def target_type(self, output: TensorType) -> TensorType:
        return output
