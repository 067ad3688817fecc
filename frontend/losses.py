"""Losses by their Keras 3 names, arguments and defaults: from targets and predictions to one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend.config import Configurable, lookup, user_line
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType

_REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "none", None)


class Loss(Configurable):
    """Base of losses. A subclass defines ``call``: one value for each sample, or for each place of a sample.

    Args:
        name: how logs and files call it.
        reduction: ``sum_over_batch_size`` (the mean of all values), ``sum`` or ``none``.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size") -> None:
        if reduction not in _REDUCTIONS:
            raise AxisError(
                f"no reduction is called {reduction!r}", at=user_line(), remedy="use sum_over_batch_size, sum or none"
            )
        self.name = name or type(self).__name__
        self.reduction = reduction

    def call(self, y_true: Node, y_pred: Node) -> Node:
        """The values that are reduced."""
        raise NotImplementedError(f"{type(self).__name__} does not define call")

    def elementwise(self, y_true: Node, y_pred: Node) -> Node | None:
        """The values before ``call`` averages them over the last axis, where that is what it does."""
        return None

    def counted(self, y_true: Node, y_pred: Node) -> Node | None:
        """Which values count (bool), where the targets decide it."""
        return None

    def target_type(self, output: TensorType) -> TensorType | None:
        """The type of the targets for an output of this type; None: that of the data."""
        return None

    def __call__(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None, mask: Node | None = None) -> Node:
        """The reduced loss.

        Args:
            y_true: the targets.
            y_pred: the predictions.
            sample_weight: factors for the values, of their shape or with fewer axes.
            mask: which values count; the mean is then over those alone.
        """
        counted = self.counted(y_true, y_pred)
        if mask is not None:
            counted = mask if counted is None else gx.logical_and(counted, mask)
        plain = self.elementwise(y_true, y_pred)
        if plain is not None and sample_weight is None and counted is None and self.reduction in _REDUCTIONS[:2]:
            return gx.mean(plain)
        return reduce_weighted(self.call(y_true, y_pred), sample_weight, counted, self.reduction)


def reduce_weighted(values: Node, weight: Node | None, mask: Node | None, reduction: str | None) -> Node:
    """Reduce values with weights; with a mask the mean is over the values that count.

    Shapes: weight and mask have the shape of the values, or lack trailing axes.
    """
    factor = None
    if mask is not None:
        factor = gx.cast(_extend(mask, values), values.dtype)
        if reduction in _REDUCTIONS[:2]:
            total = gx.size_of(product(mask.shape), values.dtype)
            factor = factor * (total / gx.maximum(gx.sum(gx.cast(mask, values.dtype)), 1e-7))
    if weight is not None:
        given = gx.cast(_extend(weight, values), values.dtype)
        factor = given if factor is None else factor * given
    if factor is not None:
        values = values * factor
    if reduction in ("none", None):
        return values
    return gx.sum(values) if reduction == "sum" else gx.mean(values)


def _extend(weight: Node, values: Node) -> Node:
    while weight.ndim < values.ndim:
        weight = gx.expand_dims(weight, weight.ndim)
    return gx.squeeze(weight, -1) if weight.ndim == values.ndim + 1 and weight.shape[-1] == 1 else weight


class LossFunctionWrapper(Loss):
    """A function of targets and predictions as a loss.

    Args:
        fn: returns one value for each sample, or for each place of a sample.
        reduction: see :class:`Loss`.
        name: default the function's name.
        kwargs: further arguments of the function.
    """

    def __init__(
        self,
        fn: Callable[..., Node],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", "loss"), reduction)
        self.fn = fn
        self._arguments = kwargs

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return self.fn(y_true, y_pred, **self._arguments)


class MeanSquaredError(Loss):
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
        return gx.squared_error(gx.cast(y_true, y_pred.dtype), y_pred)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return gx.mean(self.elementwise(y_true, y_pred), axis=-1)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class MeanAbsoluteError(Loss):
    """The mean of ``|y_true - y_pred|``.

    Shapes: y_true and y_pred: (batch, ..., n); the values that are reduced: (batch, ...).
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_absolute_error") -> None:
        super().__init__(name, reduction)

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return gx.abs(gx.cast(y_true, y_pred.dtype) - y_pred)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return gx.mean(self.elementwise(y_true, y_pred), axis=-1)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class BinaryCrossentropy(Loss):
    """``-(y log p + (1 - y) log(1 - p))`` for each place, for labels that are 0 or 1.

    Args:
        from_logits: whether y_pred are logits; else probabilities.
        label_smoothing: moves labels by this part towards 1/2.
        axis: the axis that ``call`` averages over.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        y_true = gx.cast(y_true, y_pred.dtype)
        if self.label_smoothing:
            y_true = y_true * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        if self.from_logits:
            return gx.binary_cross_entropy_with_logits(y_true, y_pred)
        return gx.binary_cross_entropy(y_true, y_pred)

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return gx.mean(self.elementwise(y_true, y_pred), axis=self.axis)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class CategoricalCrossentropy(Loss):
    """``-sum(y * log p)`` over the classes, for labels that are probabilities (one-hot rows).

    Args:
        from_logits: whether y_pred are logits; else probabilities.
        label_smoothing: moves labels by this part towards the uniform distribution.
        axis: the axis of the classes.
        reduction, name: see :class:`Loss`.

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        y_true = _to_last(gx.cast(y_true, y_pred.dtype), self.axis)
        y_pred = _to_last(y_pred, self.axis)
        if self.label_smoothing:
            classes = y_pred.shape[-1]
            y_true = y_true * (1.0 - self.label_smoothing) + self.label_smoothing / _known(classes)
        if self.from_logits:
            return gx.softmax_cross_entropy(y_true, y_pred)
        return gx.categorical_cross_entropy(y_true, y_pred)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class SparseCategoricalCrossentropy(Loss):
    """``-log p[label]`` for labels that are class numbers.

    Args:
        from_logits: whether y_pred are logits; else probabilities.
        ignore_class: a label whose places do not count.
        axis: the axis of the classes.
        reduction, name: see :class:`Loss`.

    Shapes: y_true: (batch, ...), whole numbers from 0 to classes - 1; y_pred: (batch, ..., classes).

    Raises:
        IndexRangeError: when a program runs and a label is not a class. No weight is changed then.
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sparse_categorical_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        y_pred = _to_last(y_pred, self.axis)
        counted = self.counted(y_true, y_pred)
        if counted is not None:
            y_true = gx.where(counted, y_true, 0)
        if self.from_logits:
            values = gx.sparse_softmax_cross_entropy(y_true, y_pred)
        else:
            values = gx.sparse_categorical_cross_entropy(y_true, y_pred)
        return values if counted is None else gx.where(counted, values, 0.0)

    def counted(self, y_true: Node, y_pred: Node) -> Node | None:
        return None if self.ignore_class is None else gx.not_equal(y_true, self.ignore_class)

    def target_type(self, output: TensorType) -> TensorType:
        axis = self.axis % max(1, output.rank)
        if output.rank < 2:
            raise ShapeError(
                f"{self.name} needs an axis of classes, the output is {output}",
                at=user_line(),
                remedy="let the last layer have one unit for each class: layers.Dense(classes)",
            )
        return TensorType(DType.int64, (*output.shape[:axis], *output.shape[axis + 1 :]))


def _to_last(x: Node, axis: int) -> Node:
    axis %= x.ndim
    if axis == x.ndim - 1:
        return x
    return gx.transpose(x, (*range(axis), *range(axis + 1, x.ndim), axis))


def _known(size: Any) -> int:
    if not isinstance(size, int):
        raise ShapeError(
            "the number of classes is not known", at=user_line(), remedy="give the last layer a fixed size"
        )
    return size


_BY_NAME: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    "mean_squared_error": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "mean_absolute_error": MeanAbsoluteError,
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}


def get(value: Any) -> Any:
    """A loss from a name, a loss, its class, or a function of targets and predictions; None stays None.

    >>> get("mse").name
    'mean_squared_error'
    """
    table: dict[str, Any] = {**_BY_NAME, **{cls.__name__: cls for cls in _BY_NAME.values()}}
    found = lookup(value, table, "loss")
    if isinstance(found, type):
        return found()
    if found is None or isinstance(found, Loss):
        return found
    if not callable(found):
        raise GraphError(
            f"{value!r} is not a loss", at=user_line(), remedy="give a name such as 'mse', a loss, or a function"
        )
    return LossFunctionWrapper(cast("Callable[..., Node]", found))
