"""Hinge losses: what is on the right side of the margin costs nothing."""

from __future__ import annotations

import graphc as gx
from graphc.frontend.losses.base import Loss, PointwiseLoss, aligned
from graphc.ir.node import Node
from graphc.ir.types import TensorType


def hinge(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``max(1 - y_true * y_pred, 0)`` over the last axis; labels are -1 and 1, or 0 and 1.

    >>> import graphc as gx
    >>> hinge(gx.placeholder("y", ("batch", 2)), gx.placeholder("p", ("batch", 2))).type
    f32[batch]
    """
    return gx.mean(_missing(y_true, y_pred), axis=-1)


def squared_hinge(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``max(1 - y_true * y_pred, 0)**2`` over the last axis; labels as for :func:`hinge`."""
    return gx.mean(gx.square(_missing(y_true, y_pred)), axis=-1)


def categorical_hinge(y_true: Node, y_pred: Node) -> Node:
    """``max(1 + neg - pos, 0)``: pos is the score of the class, neg the largest of the other classes.

    Shapes: y_true, one-hot rows, and y_pred: (..., classes); the result: (...).
    """
    y_true = aligned(y_true, y_pred)
    pos = gx.sum(y_true * y_pred, axis=-1)
    neg = gx.max((1.0 - y_true) * y_pred, axis=-1)
    return gx.maximum(neg - pos + 1.0, 0.0)


def _missing(y_true: Node, y_pred: Node) -> Node:
    y_true = aligned(y_true, y_pred)
    binary = gx.all(gx.logical_or(gx.equal(y_true, 0.0), gx.equal(y_true, 1.0)))
    signs = gx.where(binary, 2.0 * y_true - 1.0, y_true)
    return gx.maximum(1.0 - signs * y_pred, 0.0)


class Hinge(PointwiseLoss):
    """The mean of ``max(1 - y_true * y_pred, 0)`` for labels -1 and 1; if all are 0 or 1, 0 stands for -1.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "hinge") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _missing(y_true, y_pred)


class SquaredHinge(PointwiseLoss):
    """The mean of ``max(1 - y_true * y_pred, 0)**2``; labels as for :class:`Hinge`.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "squared_hinge") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return gx.square(_missing(y_true, y_pred))


class CategoricalHinge(Loss):
    """``max(1 + neg - pos, 0)``: pos is the score of the class, neg the largest of the other classes.

    Shapes: y_true, one-hot rows, and y_pred: (batch, ..., classes).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "categorical_hinge") -> None:
        super().__init__(name, reduction)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return categorical_hinge(y_true, y_pred)

    def target_type(self, output: TensorType) -> TensorType:
        return output
