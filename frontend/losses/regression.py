"""Losses of numbers: squared and absolute errors, relative ones, Huber's, log-cosh, cosine similarity."""

from __future__ import annotations

import graphc as gx
from graphc.frontend.checked import Bound, checked
from graphc.frontend.losses.base import EPSILON, Loss, PointwiseLoss, aligned
from graphc.ir.node import Node
from graphc.ir.types import TensorType


def mean_squared_error(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``(y_true - y_pred)**2`` over the last axis.

    >>> import graphc as gx
    >>> mean_squared_error(gx.placeholder("y", ("batch", 2)), gx.placeholder("p", ("batch", 2))).type
    f32[batch]
    """
    return gx.mean(_squared(y_true, y_pred), axis=-1)


def _squared(y_true: Node, y_pred: Node) -> Node:
    return gx.squared_error(aligned(y_true, y_pred), y_pred)


def mean_absolute_error(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``|y_true - y_pred|`` over the last axis."""
    return gx.mean(_absolute(y_true, y_pred), axis=-1)


def _absolute(y_true: Node, y_pred: Node) -> Node:
    return gx.abs(aligned(y_true, y_pred) - y_pred)


def mean_absolute_percentage_error(y_true: Node, y_pred: Node) -> Node:
    """100 times the mean of ``|y_true - y_pred| / max(|y_true|, 1e-7)`` over the last axis."""
    return gx.mean(_percentage(y_true, y_pred), axis=-1)


def _percentage(y_true: Node, y_pred: Node) -> Node:
    y_true = aligned(y_true, y_pred)
    return 100.0 * gx.abs((y_true - y_pred) / gx.maximum(gx.abs(y_true), EPSILON))


def mean_squared_logarithmic_error(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``(log(1 + y_true) - log(1 + y_pred))**2`` over the last axis; what is below 1e-7 counts as that."""
    return gx.mean(_logarithmic(y_true, y_pred), axis=-1)


def _logarithmic(y_true: Node, y_pred: Node) -> Node:
    y_true = aligned(y_true, y_pred)
    return gx.squared_error(gx.log1p(gx.maximum(y_true, EPSILON)), gx.log1p(gx.maximum(y_pred, EPSILON)))


@checked
def huber(y_true: Node, y_pred: Node, delta: Bound = 1.0) -> Node:
    """The mean of :func:`gx.huber <graphc.huber>` over the last axis."""
    return gx.mean(gx.huber(aligned(y_true, y_pred), y_pred, delta), axis=-1)


def log_cosh(y_true: Node, y_pred: Node) -> Node:
    """The mean of ``log(cosh(y_pred - y_true))`` over the last axis."""
    return gx.mean(gx.log_cosh(aligned(y_true, y_pred), y_pred), axis=-1)


@checked
def cosine_similarity(y_true: Node, y_pred: Node, axis: int = -1) -> Node:
    """Minus the cosine of the angle between targets and predictions along an axis; 0 where one of them is 0."""
    return -gx.sum(_unit(aligned(y_true, y_pred), axis) * _unit(y_pred, axis), axis=axis)


def _unit(x: Node, axis: int) -> Node:
    """A vector of length 1, or 0. The angle does not depend on the scale, so that no square need overflow."""
    scale = gx.stop_gradient(gx.max(gx.abs(x), axis=axis, keepdims=True))
    x = x / gx.where(gx.equal(scale, 0.0), 1.0, scale)
    return x * gx.rsqrt(gx.maximum(gx.sum(x * x, axis=axis, keepdims=True), 0.5))


class MeanSquaredError(PointwiseLoss):
    """The mean of ``(y_true - y_pred)**2``.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).

    >>> import graphc as gx
    >>> y, p = gx.placeholder("y", ("batch", 2)), gx.placeholder("p", ("batch", 2))
    >>> MeanSquaredError()(y, p).type
    f32[]
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_squared_error") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _squared(y_true, y_pred)


class MeanAbsoluteError(PointwiseLoss):
    """The mean of ``|y_true - y_pred|``: outliers count less than in the squared error.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_absolute_error") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _absolute(y_true, y_pred)


class MeanAbsolutePercentageError(PointwiseLoss):
    """The mean of ``100 * |y_true - y_pred| / |y_true|``.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_absolute_percentage_error"
    ) -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _percentage(y_true, y_pred)


class MeanSquaredLogarithmicError(PointwiseLoss):
    """The mean of ``(log(1 + y_true) - log(1 + y_pred))**2``, for targets that span several orders of magnitude.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_squared_logarithmic_error"
    ) -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _logarithmic(y_true, y_pred)


class Huber(PointwiseLoss):
    """Squared errors up to ``delta``, absolute ones beyond.

    Args:
        delta: where the loss goes over from a square to a line.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(
        self, delta: Bound = 1.0, reduction: str | None = "sum_over_batch_size", name: str | None = "huber_loss"
    ) -> None:
        super().__init__(name, reduction)
        self.delta = delta

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return gx.huber(aligned(y_true, y_pred), y_pred, self.delta)


class LogCosh(PointwiseLoss):
    """The mean of ``log(cosh(y_pred - y_true))``: about ``e**2 / 2`` for small errors, ``|e| - log(2)`` for large ones.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "log_cosh") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return gx.log_cosh(aligned(y_true, y_pred), y_pred)


class CosineSimilarity(Loss):
    """Minus the cosine of the angle between targets and predictions: -1 where they point the same way.

    Args:
        axis: the axis of the vectors.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced lack the axis.
    """

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
    ) -> None:
        super().__init__(name, reduction)
        self.axis = axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return cosine_similarity(y_true, y_pred, self.axis)

    def target_type(self, output: TensorType) -> TensorType:
        return output
