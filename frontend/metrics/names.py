"""Metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from graphc.errors import GraphError
from graphc.frontend.config import lookup, register_function, user_line
from graphc.frontend.losses.names import snake_case
from graphc.frontend.metrics import area, confusion, fscore, hits, iou, probabilistic, regression
from graphc.frontend.metrics.base import Mean, MeanMetricWrapper, Metric, Sum
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.node import Node

_CLASSES: tuple[type[Metric], ...] = (
    Mean, Sum,
    hits.Accuracy, hits.BinaryAccuracy, hits.CategoricalAccuracy, hits.SparseCategoricalAccuracy,
    hits.TopKCategoricalAccuracy, hits.SparseTopKCategoricalAccuracy,
    regression.MeanSquaredError, regression.RootMeanSquaredError, regression.MeanAbsoluteError,
    regression.MeanAbsolutePercentageError, regression.MeanSquaredLogarithmicError, regression.LogCoshError,
    regression.CosineSimilarity, regression.R2Score,
    probabilistic.KLDivergence, probabilistic.Poisson, probabilistic.Hinge, probabilistic.SquaredHinge,
    probabilistic.CategoricalHinge, probabilistic.BinaryCrossentropy, probabilistic.CategoricalCrossentropy,
    probabilistic.SparseCategoricalCrossentropy, probabilistic.Perplexity,
    confusion.TruePositives, confusion.FalsePositives, confusion.TrueNegatives, confusion.FalseNegatives,
    confusion.Precision, confusion.Recall, confusion.SensitivityAtSpecificity, confusion.SpecificityAtSensitivity,
    confusion.PrecisionAtRecall, confusion.RecallAtPrecision,
    area.AUC, fscore.FBetaScore, fscore.F1Score,
    iou.ConfusionMatrix, iou.IoU, iou.MeanIoU, iou.BinaryIoU,
)  # fmt: skip

_FUNCTIONS: tuple[Callable[..., Node], ...] = (
    hits.accuracy, hits.binary_accuracy, hits.categorical_accuracy, hits.sparse_categorical_accuracy,
    hits.top_k_categorical_accuracy, hits.sparse_top_k_categorical_accuracy,
)  # fmt: skip

for _function in _FUNCTIONS:
    register_function("metrics", _function)

_SHORT: dict[str, type[Metric]] = {
    "bce": probabilistic.BinaryCrossentropy, "kld": probabilistic.KLDivergence, "mae": regression.MeanAbsoluteError,
    "mape": regression.MeanAbsolutePercentageError, "mse": regression.MeanSquaredError,
    "msle": regression.MeanSquaredLogarithmicError, "rmse": regression.RootMeanSquaredError,
    "r2": regression.R2Score, "f1": fscore.F1Score, "fbeta_score": fscore.FBetaScore,
    "logcosh": regression.LogCoshError,
}  # fmt: skip

_BY_NAME = {**{snake_case(cls.__name__): cls for cls in _CLASSES if not cls.__name__.endswith("IoU")}, **_SHORT}
_TABLE: dict[str, Any] = {**_BY_NAME, **{cls.__name__: cls for cls in _CLASSES}}
BY_TARGETS = ("accuracy", "acc", "top_k", "crossentropy", "ce")
"""Names that stand for the metric that suits the targets."""


def get(value: Any, target: TensorType | None = None, output: TensorType | None = None) -> Metric:
    """A metric from a name, a metric, its class, or a function; ``accuracy`` is the one that suits the targets.

    So are ``top_k`` and ``crossentropy``.

    Args:
        value: what the user gave.
        target: the type of the targets.
        output: the type of the predictions.

    Raises:
        GraphError: there is no such metric, or ``accuracy`` has no targets to be chosen by.

    >>> get("mse").name
    'mse'
    """
    if isinstance(value, str) and value.lower() in BY_TARGETS:
        if target is None or output is None:
            raise GraphError("accuracy needs targets", at=user_line(), remedy="name it: sparse_categorical_accuracy")
        return _suited(target, output, value)
    found = lookup(value, _TABLE, "metric", also=BY_TARGETS)
    if isinstance(found, type):
        if isinstance(value, str) and value in _BY_NAME:
            return _made(found, value, name=value)
        return _made(found, value)
    if not isinstance(found, Metric) and not callable(found):
        raise GraphError(
            f"{value!r} is not a metric",
            at=user_line(),
            remedy="give a name such as 'accuracy', a metric, or a function",
        )
    return found if isinstance(found, Metric) else MeanMetricWrapper(cast("Callable[..., Node]", found))


def _made(cls: Any, value: Any, **kwargs: Any) -> Metric:
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise GraphError(
            f"{value!r} needs arguments: {error}", at=user_line(), remedy=f"make it: metrics.{cls.__name__}(...)"
        ) from None


def _suited(target: TensorType, output: TensorType, name: str) -> Metric:
    """Keras's choice: by the sizes of the last axes."""
    binary = output.rank == 0 or output.shape[-1] == 1 or output.rank == 1
    sparse = not binary and (target.rank < output.rank or target.shape[-1] == 1)
    kind = name.lower()
    if kind == "top_k":
        return hits.SparseTopKCategoricalAccuracy(name=name) if sparse else hits.TopKCategoricalAccuracy(name=name)
    if kind in ("crossentropy", "ce"):
        if binary:
            return probabilistic.BinaryCrossentropy(name)
        return (probabilistic.SparseCategoricalCrossentropy if sparse else probabilistic.CategoricalCrossentropy)(name)
    if binary:
        return hits.BinaryAccuracy(name)
    return hits.SparseCategoricalAccuracy(name) if sparse else hits.CategoricalAccuracy(name)
