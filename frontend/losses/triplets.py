"""Triplet losses: an embedding should be nearer to one of its own class than to one of another, by a margin."""

from __future__ import annotations

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.checked import NonNegative, checked
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import Loss, divide_no_nan
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType

_DISTANCES = ("squared_l2", "l2", "angular")


def distance(a: Node, b: Node, kind: str = "squared_l2") -> Node:
    """How far vectors in the last axis are apart.

    Args:
        a: vectors.
        b: others; both broadcast.
        kind: ``squared_l2``, ``l2`` (its slope where both are equal is taken as 0) or ``angular`` (one minus the
            cosine).

    >>> import graphc as gx
    >>> distance(gx.placeholder("a", ("batch", 8)), gx.placeholder("b", ("batch", 8))).type
    f32[batch]
    """
    if kind == "angular":
        return 1.0 - gx.sum(_unit(a) * _unit(b), axis=-1)
    squared = gx.sum(gx.square(a - b), axis=-1)  # of differences, so that equal vectors are exactly 0 apart
    if kind == "squared_l2":
        return squared
    same = gx.equal(squared, 0.0)
    return gx.where(same, 0.0, gx.sqrt(gx.where(same, 1.0, squared)))


def _unit(x: Node) -> Node:
    return x * gx.rsqrt(gx.maximum(gx.sum(x * x, axis=-1, keepdims=True), 1e-24))


@checked
def triplet(
    anchor: Node, positive: Node, negative: Node, margin: NonNegative = 1.0, distance_metric: str = "squared_l2"
) -> Node:
    """``max(d(anchor, positive) - d(anchor, negative) + margin, 0)`` of each row.

    Shapes: all (..., n); the result: (...).

    Source: Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, equation 2
    """
    near, far = distance(anchor, positive, distance_metric), distance(anchor, negative, distance_metric)
    return gx.maximum(near - far + margin, 0.0)


@checked
def triplet_semi_hard(
    y_true: Node, y_pred: Node, margin: NonNegative = 1.0, distance_metric: str = "squared_l2"
) -> Node:
    """The triplet loss with triplets that are found within the batch, of each anchor.

    For each pair of one class, the negative is the nearest of those that are farther than the positive; where there is
    none, the farthest of all. An anchor's value is the sum over its pairs, scaled so that the mean over the batch is
    the mean over all pairs; without pairs it is 0.

    Shapes: y_true: (batch,), classes; y_pred: (batch, n), embeddings; the result: (batch,).

    Source: Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, section 3.2
    """
    count = y_pred.shape[0]
    apart = distance(gx.expand_dims(y_pred, 1), gx.expand_dims(y_pred, 0), distance_metric)
    same = gx.equal(gx.expand_dims(y_true, 1), gx.expand_dims(y_true, 0))
    place = gx.iota((count,), 0, "int64")
    pair = gx.logical_and(same, gx.not_equal(gx.expand_dims(place, 1), gx.expand_dims(place, 0)))
    negative, candidate = gx.expand_dims(gx.logical_not(same), 1), gx.expand_dims(apart, 1)
    farther = gx.logical_and(negative, gx.greater(candidate, gx.expand_dims(apart, 2)))
    nearest = gx.min(gx.where(farther, candidate, _FAR), axis=2)
    farthest = gx.max(gx.where(gx.logical_not(same), apart, 0.0), axis=1, keepdims=True)
    chosen = gx.where(gx.less(nearest, _FAR), nearest, farthest)
    terms = gx.where(pair, gx.maximum(apart - chosen + margin, 0.0), 0.0)
    pairs = gx.sum(gx.cast(pair, y_pred.dtype))
    return gx.sum(terms, axis=1) * divide_no_nan(gx.size_of(count, y_pred.dtype), pairs)


_FAR = 3e38
"""Farther than any pair; finite, so that no infinity meets a factor of 0 in the gradient."""


class _Triplets(Loss):
    def __init__(self, margin: NonNegative, distance_metric: str, reduction: str | None, name: str | None) -> None:
        super().__init__(name, reduction)
        if distance_metric not in _DISTANCES:
            raise AxisError(
                f"no distance is called {distance_metric!r}", at=user_line(), remedy=f"use {', '.join(_DISTANCES)}"
            )
        self.margin, self.distance_metric = margin, distance_metric


class TripletLoss(_Triplets):
    """``max(d(anchor, positive) - d(anchor, negative) + margin, 0)`` for triplets that are given.

    Args:
        margin: how much farther negatives should be than positives.
        distance_metric: ``squared_l2``, ``l2`` or ``angular``.
        reduction, name: see :class:`Loss`.

    Shapes: y_pred: (batch, 3, n), the embeddings of anchor, positive and negative; y_true: (batch,), not read.

    Source: Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, equation 2
    """

    def __init__(
        self,
        margin: NonNegative = 1.0,
        distance_metric: str = "squared_l2",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "triplet_loss",
    ) -> None:
        super().__init__(margin, distance_metric, reduction, name)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        if y_pred.ndim != 3 or y_pred.shape[1] != 3:
            raise ShapeError(
                f"a triplet is anchor, positive and negative, the output is {y_pred.type}",
                at=user_line(),
                remedy="let the model return them together: (batch, 3, n)",
            )
        return triplet(y_pred[:, 0], y_pred[:, 1], y_pred[:, 2], self.margin, self.distance_metric)

    def target_type(self, output: TensorType) -> TensorType:
        return TensorType(output.dtype, output.shape[:1])


class TripletSemiHardLoss(_Triplets):
    """The triplet loss with semi-hard triplets that are found within the batch: see :func:`triplet_semi_hard`.

    Args:
        margin: how much farther negatives should be than positives.
        distance_metric: ``squared_l2``, ``l2`` or ``angular``.
        reduction, name: see :class:`Loss`.

    Shapes: y_true: (batch,), classes; y_pred: (batch, n), embeddings.

    Source: Schroff, Kalenichenko and Philbin 2015, https://arxiv.org/abs/1503.03832, section 3.2
    """

    def __init__(
        self,
        margin: NonNegative = 1.0,
        distance_metric: str = "squared_l2",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "triplet_semi_hard_loss",
    ) -> None:
        super().__init__(margin, distance_metric, reduction, name)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return triplet_semi_hard(y_true, y_pred, self.margin, self.distance_metric)

    def target_type(self, output: TensorType) -> TensorType:
        return TensorType(DType.int64, output.shape[:1])
