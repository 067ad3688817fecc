"""How far numbers are from what they should be: squared, absolute, relative errors, angles, explained variance."""

from __future__ import annotations

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.checked import Natural
from graphc.frontend.config import user_line
from graphc.frontend.losses import regression
from graphc.frontend.losses.base import aligned, divide_no_nan, extended
from graphc.frontend.metrics.base import MeanOf, Metric, Updates
from graphc.ir.node import Node
from graphc.ir.types import TensorType


class MeanSquaredError(MeanOf):
    """The mean of ``(y_true - y_pred)**2``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "mean_squared_error") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return regression.mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(MeanOf):
    """The mean of ``|y_true - y_pred|``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "mean_absolute_error") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return regression.mean_absolute_error(y_true, y_pred)


class MeanAbsolutePercentageError(MeanOf):
    """The mean of ``100 * |y_true - y_pred| / |y_true|``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "mean_absolute_percentage_error") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return regression.mean_absolute_percentage_error(y_true, y_pred)


class MeanSquaredLogarithmicError(MeanOf):
    """The mean of ``(log(1 + y_true) - log(1 + y_pred))**2``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "mean_squared_logarithmic_error") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return regression.mean_squared_logarithmic_error(y_true, y_pred)


class LogCoshError(MeanOf):
    """The mean of ``log(cosh(y_pred - y_true))``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "logcosh") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return regression.log_cosh(y_true, y_pred)


class CosineSimilarity(MeanOf):
    """The mean cosine of the angle between targets and predictions: 1 where they point the same way.

    Args:
        name: the key in logs.
        axis: the axis of the vectors.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "up"

    def __init__(self, name: str = "cosine_similarity", axis: int = -1) -> None:
        super().__init__(name)
        self.axis = axis

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return -regression.cosine_similarity(y_true, y_pred, self.axis)


class RootMeanSquaredError(MeanOf):
    """The root of the mean of ``(y_true - y_pred)**2``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "root_mean_squared_error") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return gx.squared_error(aligned(y_true, y_pred), y_pred)

    def result(self) -> Node:
        return gx.sqrt(super().result())


class R2Score(Metric):
    """The part of the targets' variance that predictions explain: 1 if they are right, 0 if no better than the mean.

    Of a constant target it is 1 if predictions are right, else 0.

    Args:
        class_aggregation: how the scores of several outputs become one: ``uniform_average``,
            ``variance_weighted_average``, or None for all of them.
        num_regressors: of how many variables the predictions are functions: the score is adjusted for them, as long as
            there are more samples than these.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, n).
    """

    direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: Natural = 0,
        name: str = "r2_score",
    ) -> None:
        super().__init__(name)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise AxisError(
                f"no aggregation is called {class_aggregation!r}",
                at=user_line(),
                remedy="use uniform_average, variance_weighted_average or None",
            )
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self._size: int | None = None

    def build(self, output: TensorType) -> None:
        size = columns(output, self.name)
        if size == self._size:
            return
        self.forget_variables()
        self._size = size
        self.num_samples = self.add_variable(name="num_samples")
        self.squared_sum = self.add_variable(size, name="squared_sum")
        self.sum = self.add_variable(size, name="sum")
        self.residual = self.add_variable(size, name="residual")
        self.count = self.add_variable(size, name="count")

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        self.build(y_pred.type)
        y = gx.cast(aligned(y_true, y_pred), "float64")
        error = gx.square(y - gx.cast(y_pred, "float64"))
        weight = gx.constant(1.0, "float64") if sample_weight is None else gx.cast(sample_weight, "float64")
        weight = gx.broadcast_to(extended(weight, y), y.shape)
        return {
            self.sum: self.sum + gx.sum(weight * y, axis=0),
            self.squared_sum: self.squared_sum + gx.sum(weight * y * y, axis=0),
            self.residual: self.residual + gx.sum(weight * error, axis=0),
            self.count: self.count + gx.sum(weight, axis=0),
            self.num_samples: self.num_samples + gx.size_of(y.shape[0], "float64"),
        }

    def result(self) -> Node:
        total = self.squared_sum - divide_no_nan(gx.square(self.sum), self.count)
        constant = gx.less_equal(total, 0.0)
        explained = 1.0 - self.residual / gx.where(constant, 1.0, total)
        scores = gx.where(constant, gx.where(gx.equal(self.residual, 0.0), 1.0, 0.0), explained)
        if self.class_aggregation == "uniform_average":
            scores = gx.mean(scores)
        elif self.class_aggregation is not None:
            scores = divide_no_nan(gx.sum(total * scores), gx.sum(total))
        if not self.num_regressors:
            return scores
        rest = self.num_samples - self.num_regressors - 1.0
        enough = gx.greater(rest, 0.0)
        adjusted = 1.0 - (1.0 - scores) * (self.num_samples - 1.0) / gx.where(enough, rest, 1.0)
        return gx.where(enough, adjusted, scores)

    def target_type(self, output: TensorType) -> TensorType:
        return output


def columns(output: TensorType, name: str) -> int:
    """The size of the last axis of ``(batch, n)``.

    Raises:
        ShapeError: the output is something else, or the size is not known.
    """
    size = output.shape[-1] if output.rank == 2 else None
    if not isinstance(size, int):
        raise ShapeError(
            f"the metric {name} is of outputs (batch, n) with a known n, the output is {output}",
            at=user_line(),
            remedy="bring the output to two axes: layers.Flatten()",
        )
    return size
