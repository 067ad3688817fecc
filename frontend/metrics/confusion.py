"""Right and wrong decisions at thresholds: counts, precision, recall, and what one is where the other is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import graphc as gx
from graphc.errors import ShapeError
from graphc.frontend.checked import Count, Natural, Part
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import aligned, divide_no_nan, extended
from graphc.frontend.metrics.base import Metric, Updates
from graphc.ir.dims import product
from graphc.ir.node import Node, Parameter, apply
from graphc.ir.types import TensorType
from graphc.ops.scatter import TakeAdd

_LOWEST = -1e10
"""Predictions that are not among the k largest; and the threshold that all others exceed."""

_FEW = 16
"""Up to so many thresholds each is compared with; more, if evenly spaced, share one histogram."""


@dataclass(frozen=True)
class Decisions:
    """Weighted counts of decisions at each threshold, (thresholds, labels)."""

    true_positives: Node
    false_positives: Node
    true_negatives: Node
    false_negatives: Node


def decide(
    y_true: Node,
    y_pred: Node,
    sample_weight: Node | None,
    thresholds: Sequence[float],
    top_k: int | None = None,
    class_id: int | None = None,
    label_weights: Sequence[float] | None = None,
    by_label: bool = False,
) -> Decisions:
    """Count decisions.

    Args:
        y_true: (batch, ..., labels); what is not 0 counts as positive.
        y_pred: likewise; what is above a threshold is said to be positive, NaN never.
        sample_weight: of samples, or of places.
        thresholds: rising numbers.
        top_k: only the k largest predictions of a row can be positive.
        class_id: only this label counts.
        label_weights: factors of the labels.
        by_label: keep labels apart; else the result has one column.
    """
    positive = gx.not_equal(aligned(y_true, y_pred), 0.0)
    if top_k is not None:
        y_pred = _only_largest(y_pred, top_k)
    weight = gx.constant(1.0, "float64")
    if sample_weight is not None:
        weight = extended(gx.cast(sample_weight, "float64"), y_pred)
    if label_weights is not None:
        weight = weight * gx.constant(np.asarray(label_weights, np.float64))
    weight = gx.broadcast_to(weight, y_pred.shape)
    if class_id is not None:
        if y_pred.ndim < 2:
            raise ShapeError(
                f"class_id needs an axis of classes, the output is {y_pred.type}",
                at=user_line(),
                remedy="leave class_id out",
            )
        positive, y_pred, weight = (x[..., class_id] for x in (positive, y_pred, weight))
    labels = y_pred.shape[-1] if by_label else 1
    if not by_label:
        positive, y_pred, weight = (gx.reshape(x, (product(x.shape), 1)) for x in (positive, y_pred, weight))
    yes, no = gx.where(positive, weight, 0.0), gx.where(positive, 0.0, weight)
    if len(thresholds) > _FEW and _are_even(thresholds):
        above = _place(y_pred, thresholds)
        true_positives, false_positives = (_counts_above(x, above, len(thresholds), labels) for x in (yes, no))
    else:
        levels = gx.constant(np.asarray(thresholds, y_pred.dtype.numpy).reshape(-1, 1, 1))
        said = gx.greater(gx.expand_dims(y_pred, 0), levels)
        true_positives, false_positives = (gx.sum(gx.where(said, gx.expand_dims(x, 0), 0.0), axis=1) for x in (yes, no))
    positives, negatives = gx.sum(yes, axis=0), gx.sum(no, axis=0)
    return Decisions(true_positives, false_positives, negatives - false_positives, positives - true_positives)


def _only_largest(x: Node, k: int) -> Node:
    """Of equal ones, those that stand first count as larger."""
    place = gx.iota((x.shape[-1],), 0, "int64")
    other, own = gx.expand_dims(x, -2), gx.expand_dims(x, -1)
    before = gx.less(gx.expand_dims(place, 0), gx.expand_dims(place, 1))
    larger = gx.logical_or(gx.greater(other, own), gx.logical_and(gx.equal(other, own), before))
    return gx.where(gx.less(gx.sum(gx.cast(larger, "int64"), axis=-1), k), x, _LOWEST)


def _are_even(thresholds: Sequence[float]) -> bool:
    return bool(np.allclose(thresholds, np.linspace(0.0, 1.0, len(thresholds)), atol=1e-6))


def _place(y_pred: Node, thresholds: Sequence[float]) -> Node:
    """Above how many of the even thresholds a prediction is."""
    steps = len(thresholds) - 1
    above = gx.ceil(gx.minimum(gx.maximum(y_pred, 0.0), 1.0) * steps)
    if thresholds[0] < 0:
        above = gx.maximum(above, 1.0)
    return gx.cast(gx.where(gx.isnan(y_pred), 0.0, above), "int64")


def _counts_above(weight: Node, above: Node, count: int, labels: object) -> Node:
    """For each threshold the weight of what is above it: a histogram, summed from the end."""
    if not isinstance(labels, int):
        raise ShapeError("the number of labels is not known", at=user_line(), remedy="give the last layer a fixed size")
    index = above * labels + gx.iota((labels,), 0, "int64")
    flat = (product(weight.shape),)
    histogram = apply(TakeAdd(0, (count + 1) * labels), gx.reshape(weight, flat), gx.reshape(index, flat))
    return gx.cumsum(gx.reshape(histogram, (count + 1, labels))[1:], axis=0, reverse=True)


def _as_list(thresholds: Part | Sequence[Part] | None, default: float) -> list[float]:
    if thresholds is None:
        return [default]
    return [float(t) for t in (thresholds if isinstance(thresholds, Sequence) else (thresholds,))]


class _AtThresholds(Metric):
    """Base of metrics that are made of counts at thresholds: ``kept`` names them."""

    kept: tuple[str, ...] = ()

    def _add_counts(self, thresholds: Sequence[float]) -> None:
        self._levels = list(thresholds)
        self._top_k: int | None = None
        self._class_id: int | None = None
        for name in self.kept:
            setattr(self, name, self.add_variable(len(self._levels), name=name))

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        found = decide(y_true, y_pred, sample_weight, self._levels, self._top_k, self._class_id)
        states: list[Parameter] = [getattr(self, name) for name in self.kept]
        return {
            state: state + gx.squeeze(getattr(found, name), -1) for state, name in zip(states, self.kept, strict=True)
        }

    def _single(self, value: Node) -> Node:
        return value[0] if len(self._levels) == 1 else value

    def target_type(self, output: TensorType) -> TensorType:
        return output


class _Count(_AtThresholds):
    def __init__(self, thresholds: Part | Sequence[Part] | None = None, name: str | None = None) -> None:
        super().__init__(name or self.kept[0])
        self.thresholds = _as_list(thresholds, 0.5)
        self._add_counts(self.thresholds)

    def result(self) -> Node:
        (name,) = self.kept
        return self._single(getattr(self, name) + 0.0)


class TruePositives(_Count):
    """How many positives are said to be positive.

    Args:
        thresholds: one or several; what is above is said to be positive. Default 0.5.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...); the result: (), or one for each threshold.
    """

    kept = ("true_positives",)
    direction = "up"


class FalsePositives(_Count):
    """How many negatives are said to be positive.

    Args:
        thresholds: one or several; what is above is said to be positive. Default 0.5.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...); the result: (), or one for each threshold.
    """

    kept = ("false_positives",)
    direction = "down"


class TrueNegatives(_Count):
    """How many negatives are said to be negative.

    Args:
        thresholds: one or several; what is above is said to be positive. Default 0.5.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...); the result: (), or one for each threshold.
    """

    kept = ("true_negatives",)
    direction = "up"


class FalseNegatives(_Count):
    """How many positives are said to be negative.

    Args:
        thresholds: one or several; what is above is said to be positive. Default 0.5.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...); the result: (), or one for each threshold.
    """

    kept = ("false_negatives",)
    direction = "down"


class _Ratio(_AtThresholds):
    direction = "up"

    def __init__(
        self,
        thresholds: Part | Sequence[Part] | None = None,
        top_k: Count | None = None,
        class_id: Natural | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.thresholds = _as_list(thresholds, 0.5 if top_k is None else _LOWEST)
        self.top_k, self.class_id = top_k, class_id
        self._add_counts(self.thresholds)
        self._top_k, self._class_id = top_k, class_id

    def result(self) -> Node:
        part, rest = (getattr(self, name) for name in self.kept)
        return self._single(divide_no_nan(part, part + rest))


class Precision(_Ratio):
    """Which part of what is said to be positive is so; 0 if nothing is.

    Args:
        thresholds: one or several; what is above is said to be positive. Default 0.5, with top_k all.
        top_k: only the k largest predictions of a row are said to be positive.
        class_id: only this class counts.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., classes); the result: (), or one for each threshold.
    """

    kept = ("true_positives", "false_positives")


class Recall(_Ratio):
    """Which part of the positives is said to be so; 0 if there is none.

    Args:
        thresholds: one or several; what is above is said to be positive. Default 0.5, with top_k all.
        top_k: only the k largest predictions of a row are said to be positive.
        class_id: only this class counts.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., classes); the result: (), or one for each threshold.
    """

    kept = ("true_positives", "false_negatives")


class _Best(_AtThresholds):
    """The largest of one rate among the thresholds at which another one is large enough."""

    kept = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    direction = "up"

    true_positives: Parameter
    false_positives: Parameter
    true_negatives: Parameter
    false_negatives: Parameter

    def __init__(self, value: Part, num_thresholds: Count, class_id: Natural | None, name: str | None) -> None:
        super().__init__(name)
        self.num_thresholds, self.class_id, self._value = num_thresholds, class_id, value
        self._add_counts([0.5] if num_thresholds == 1 else np.linspace(0.0, 1.0, num_thresholds).tolist())
        self._class_id = class_id

    def _sensitivity(self) -> Node:
        return divide_no_nan(self.true_positives, self.true_positives + self.false_negatives)

    def _specificity(self) -> Node:
        return divide_no_nan(self.true_negatives, self.true_negatives + self.false_positives)

    def _precision(self) -> Node:
        return divide_no_nan(self.true_positives, self.true_positives + self.false_positives)

    def _best(self, constrained: Node, wanted: Node) -> Node:
        return gx.max(gx.where(gx.greater_equal(constrained, self._value), wanted, 0.0))


class SensitivityAtSpecificity(_Best):
    """The largest recall among the thresholds at which the true negative rate is at least ``specificity``.

    Args:
        specificity: from 0 to 1.
        num_thresholds: evenly from 0 to 1.
        class_id: only this class counts.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(
        self, specificity: Part, num_thresholds: Count = 200, class_id: Natural | None = None, name: str | None = None
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name or "sensitivity_at_specificity")

    def result(self) -> Node:
        return self._best(self._specificity(), self._sensitivity())


class SpecificityAtSensitivity(_Best):
    """The largest true negative rate among the thresholds at which the recall is at least ``sensitivity``.

    Args:
        sensitivity: from 0 to 1.
        num_thresholds: evenly from 0 to 1.
        class_id: only this class counts.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(
        self, sensitivity: Part, num_thresholds: Count = 200, class_id: Natural | None = None, name: str | None = None
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name or "specificity_at_sensitivity")

    def result(self) -> Node:
        return self._best(self._sensitivity(), self._specificity())


class PrecisionAtRecall(_Best):
    """The largest precision among the thresholds at which the recall is at least ``recall``.

    Args:
        recall: from 0 to 1.
        num_thresholds: evenly from 0 to 1.
        class_id: only this class counts.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(
        self, recall: Part, num_thresholds: Count = 200, class_id: Natural | None = None, name: str | None = None
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name or "precision_at_recall")

    def result(self) -> Node:
        return self._best(self._sensitivity(), self._precision())


class RecallAtPrecision(_Best):
    """The largest recall among the thresholds at which the precision is at least ``precision``.

    Args:
        precision: from 0 to 1.
        num_thresholds: evenly from 0 to 1.
        class_id: only this class counts.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(
        self, precision: Part, num_thresholds: Count = 200, class_id: Natural | None = None, name: str | None = None
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name or "recall_at_precision")

    def result(self) -> Node:
        return self._best(self._precision(), self._sensitivity())
