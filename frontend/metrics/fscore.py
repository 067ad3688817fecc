"""F scores: precision and recall in one number."""

from __future__ import annotations

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import Positive
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import aligned, divide_no_nan, extended
from graphc.frontend.metrics.base import Metric, Updates
from graphc.frontend.metrics.regression import columns
from graphc.ir.node import Node
from graphc.ir.types import TensorType


class FBetaScore(Metric):
    """``(1 + beta**2) * precision * recall / (beta**2 * precision + recall)``; 0 where nothing is right.

    Args:
        average: of the scores of the classes: ``macro`` (their mean), ``weighted`` (by how often they occur),
            ``micro`` (one score of all decisions together), or None: all scores.
        beta: how many times as much recall matters as precision.
        threshold: what is above it is said to be of the class; None: only the largest prediction of a row is.
        name: the key in logs.

    Shapes: y_true, one-hot or multi-hot rows, and y_pred: (batch, classes).
    """

    direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: Positive = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
    ) -> None:
        super().__init__(name)
        if average not in (None, "micro", "macro", "weighted"):
            raise AxisError(
                f"no average is called {average!r}", at=user_line(), remedy="use micro, macro, weighted or None"
            )
        if threshold is not None and not 0 < threshold <= 1:
            raise AxisError(f"a threshold is above 0 and at most 1, not {threshold}", at=user_line(), remedy="try 0.5")
        self.average, self.beta, self.threshold = average, beta, threshold
        self._size: int | None = None

    def build(self, output: TensorType) -> None:
        size = columns(output, self.name)
        if size == self._size:
            return
        self.forget_variables()
        self._size = size
        shape = () if self.average == "micro" else (size,)
        self.true_positives = self.add_variable(shape, name="true_positives")
        self.false_positives = self.add_variable(shape, name="false_positives")
        self.false_negatives = self.add_variable(shape, name="false_negatives")

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        self.build(y_pred.type)
        truth = gx.cast(aligned(y_true, y_pred), "float64")
        if self.threshold is None:
            largest = gx.greater_equal(y_pred, gx.max(y_pred, axis=-1, keepdims=True))
            said = gx.logical_and(largest, gx.greater(gx.abs(y_pred), 1e-9))
        else:
            said = gx.greater(y_pred, self.threshold)
        said = gx.cast(said, "float64")
        if sample_weight is not None:
            weight = extended(gx.cast(sample_weight, "float64"), truth)
        else:
            weight = gx.constant(1.0, "float64")
        axis = None if self.average == "micro" else 0

        def total(values: Node) -> Node:
            return gx.sum(values * weight, axis=axis)

        return {
            self.true_positives: self.true_positives + total(said * truth),
            self.false_positives: self.false_positives + total(said * (1.0 - truth)),
            self.false_negatives: self.false_negatives + total((1.0 - said) * truth),
        }

    def result(self) -> Node:
        right, square = self.true_positives, self.beta**2
        wrong = square * self.false_negatives + self.false_positives
        scores = divide_no_nan((1.0 + square) * right, (1.0 + square) * right + wrong)
        if self.average == "weighted":
            occurs = right + self.false_negatives
            return divide_no_nan(gx.sum(scores * occurs), gx.sum(occurs))
        return gx.mean(scores) if self.average == "macro" else scores + 0.0

    def target_type(self, output: TensorType) -> TensorType:
        return output


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall; 0 where nothing is right.

    Args:
        average: see :class:`FBetaScore`.
        threshold: see :class:`FBetaScore`.
        name: the key in logs.

    Shapes: y_true, one-hot or multi-hot rows, and y_pred: (batch, classes).
    """

    def __init__(self, average: str | None = None, threshold: float | None = None, name: str = "f1_score") -> None:
        super().__init__(average, 1.0, threshold, name)
