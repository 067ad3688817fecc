"""The area under a curve of two rates, summed over thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.checked import Count, NonNegative
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import EPSILON, divide_no_nan
from graphc.frontend.metrics.base import Metric, Updates
from graphc.frontend.metrics.confusion import decide
from graphc.ir.node import Node, Parameter
from graphc.ir.types import TensorType

_CURVES = ("ROC", "PR", "PRGAIN")
_METHODS = ("interpolation", "minoring", "majoring")
_STATES = ("true_positives", "false_positives", "true_negatives", "false_negatives")


class AUC(Metric):
    """The area under the ROC or the precision-recall curve, from counts at thresholds.

    Args:
        num_thresholds: evenly from 0 to 1; the more, the nearer to the exact area.
        curve: ``ROC`` (recall over the false positive rate), ``PR`` (precision over recall) or ``PRGAIN`` (their
            gains over saying always yes).
        summation_method: ``interpolation`` (of the ROC by trapezoids, of the PR as Davis and Goadrich do),
            ``minoring`` or ``majoring`` (the lower or the upper sum).
        name: the key in logs.
        thresholds: other ones between 0 and 1; 0 and 1 are added.
        multi_label: each label has its own curve, and the result is the mean of the areas.
        num_labels: how many labels there are, if the model should be held to it.
        label_weights: factors of the labels: of their areas with ``multi_label``, else of their counts.
        from_logits: whether y_pred are logits; else probabilities.

    Shapes: y_true and y_pred: (batch, ...), with ``multi_label`` (batch, labels).

    Source: Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874; for PRGAIN Flach and Kull 2015,
        Precision-Recall-Gain Curves, equation 1
    """

    direction = "up"

    true_positives: Parameter
    false_positives: Parameter
    true_negatives: Parameter
    false_negatives: Parameter

    def __init__(
        self,
        num_thresholds: Count = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: Count | None = None,
        label_weights: Sequence[NonNegative] | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name)
        self.curve, self.summation_method = curve.upper(), summation_method.lower()
        for value, known in ((self.curve, _CURVES), (self.summation_method, _METHODS)):
            if value not in known:
                raise AxisError(f"there is no {value!r} here", at=user_line(), remedy=f"use {', '.join(known)}")
        if thresholds is None and num_thresholds < 2:
            raise AxisError(
                f"num_thresholds is at least 2, not {num_thresholds}", at=user_line(), remedy="leave it at 200"
            )
        inner = np.linspace(0.0, 1.0, num_thresholds)[1:-1].tolist() if thresholds is None else sorted(thresholds)
        self.thresholds = [-EPSILON, *inner, 1.0 + EPSILON]
        self.num_thresholds = len(self.thresholds)
        self.multi_label, self.num_labels, self.label_weights = multi_label, num_labels, label_weights
        self.from_logits = from_logits
        self._labels = 0
        if not multi_label:
            self._make(1)

    def _make(self, labels: int) -> None:
        if labels == self._labels:
            return
        self.forget_variables()
        self._labels = labels
        for name in _STATES:
            setattr(self, name, self.add_variable((self.num_thresholds, labels), name=name))

    def build(self, output: TensorType) -> None:
        if not self.multi_label:
            return
        labels = output.shape[-1] if output.rank == 2 else None
        if not isinstance(labels, int) or labels != (self.num_labels or labels):
            raise ShapeError(
                f"{self.name} is of outputs (batch, {self.num_labels or 'labels'}), the output is {output}",
                at=user_line(),
                remedy="give the last layer one unit for each label",
            )
        self._make(labels)

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        self.build(y_pred.type)
        if self.from_logits:
            y_pred = gx.sigmoid(y_pred)
        weights = None if self.multi_label else self.label_weights
        found = decide(y_true, y_pred, sample_weight, self.thresholds, label_weights=weights, by_label=self.multi_label)
        states: list[Parameter] = [getattr(self, name) for name in _STATES]
        return {state: state + getattr(found, name) for state, name in zip(states, _STATES, strict=True)}

    def result(self) -> Node:
        pr = self.curve == "PR" and self.summation_method == "interpolation"
        areas = gx.sum(self._interpolated() if pr else self._strips(), axis=0)
        if not self.multi_label or self.label_weights is None:
            return gx.mean(areas)
        weights = gx.constant(np.asarray(self.label_weights, np.float64))
        return divide_no_nan(gx.sum(areas * weights), gx.sum(weights))

    def _interpolated(self) -> Node:
        """Between neighbouring thresholds positives of both kinds grow in one ratio: an integral in closed form."""
        tp, said = self.true_positives, self.true_positives + self.false_positives
        more_right, more_said = tp[:-1] - tp[1:], said[:-1] - said[1:]
        slope = divide_no_nan(more_right, gx.maximum(more_said, 0.0))
        intercept = tp[1:] - slope * said[1:]
        both = gx.logical_and(gx.greater(said[:-1], 0.0), gx.greater(said[1:], 0.0))
        ratio = gx.where(both, divide_no_nan(said[:-1], gx.maximum(said[1:], 0.0)), 1.0)
        grown = slope * (more_right + intercept * gx.log(ratio))
        return divide_no_nan(grown, gx.maximum(tp[1:] + self.false_negatives[1:], 0.0))

    def _strips(self) -> Node:
        x, y = self._curve()
        left, right = y[:-1], y[1:]
        if self.summation_method == "interpolation":
            heights = (left + right) / 2.0
        else:
            heights = gx.minimum(left, right) if self.summation_method == "minoring" else gx.maximum(left, right)
        return (x[:-1] - x[1:]) * heights

    def _curve(self) -> tuple[Node, Node]:
        tp, fp = self.true_positives, self.false_positives
        tn, fn = self.true_negatives, self.false_negatives
        recall = divide_no_nan(tp, tp + fn)
        if self.curve == "ROC":
            return divide_no_nan(fp, fp + tn), recall
        if self.curve == "PR":
            return recall, divide_no_nan(tp, tp + fp)
        scale, none = divide_no_nan(tp + fn, tn + fp), gx.equal(tp, 0.0)
        recall_gain = gx.where(none, 0.0, 1.0 - scale * divide_no_nan(fn, tp))
        precision_gain = gx.where(none, 1.0, 1.0 - scale * divide_no_nan(fp, tp))
        return gx.maximum(recall_gain, 0.0), precision_gain

    def target_type(self, output: TensorType) -> TensorType:
        return output
