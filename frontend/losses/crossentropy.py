"""Cross entropies by their Keras 3 names, of probabilities or logits, of dense or sparse labels."""

from __future__ import annotations

import warnings
from typing import Any

import graphc as gx
from graphc.errors import ShapeError
from graphc.frontend.checked import Part, checked
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import Loss, aligned
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType


@checked
def binary_crossentropy(
    y_true: Node, y_pred: Node, from_logits: bool = False, label_smoothing: Part = 0.0, axis: int = -1
) -> Node:
    """The mean of ``-(y log p + (1 - y) log(1 - p))`` over an axis: see :class:`BinaryCrossentropy`.

    >>> import graphc as gx
    >>> binary_crossentropy(gx.placeholder("y", ("batch", 2)), gx.placeholder("p", ("batch", 2))).type
    f32[batch]
    """
    return gx.mean(_binary(y_true, y_pred, from_logits, label_smoothing), axis=axis)


def _binary(y_true: Node, y_pred: Node, from_logits: bool, label_smoothing: float) -> Node:
    y_true = smoothed_binary(aligned(y_true, y_pred), label_smoothing)
    if from_logits:
        return gx.binary_cross_entropy_with_logits(y_true, y_pred)
    return gx.binary_cross_entropy(y_true, y_pred)


def smoothed_binary(y_true: Node, label_smoothing: float) -> Node:
    """Labels moved by this part towards 1/2."""
    return y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true


@checked
def categorical_crossentropy(
    y_true: Node, y_pred: Node, from_logits: bool = False, label_smoothing: Part = 0.0, axis: int = -1
) -> Node:
    """``-sum(y * log p)`` over the classes: see :class:`CategoricalCrossentropy`."""
    y_true, y_pred = dense_operands(y_true, y_pred, label_smoothing, axis)
    if from_logits:
        return gx.softmax_cross_entropy(y_true, y_pred)
    return gx.categorical_cross_entropy(y_true, y_pred)


def dense_operands(y_true: Node, y_pred: Node, label_smoothing: float, axis: int) -> tuple[Node, Node]:
    """Labels moved towards the uniform distribution, and predictions; classes in the last axis."""
    y_true, y_pred = to_last(gx.cast(y_true, y_pred.dtype), axis), to_last(y_pred, axis)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / _known(y_pred.shape[-1])
    return y_true, y_pred


@checked
def sparse_categorical_crossentropy(
    y_true: Node,
    y_pred: Node,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    label_smoothing: Part = 0.0,
) -> Node:
    """``-log p[label]``, 0 for ignored labels: see :class:`SparseCategoricalCrossentropy`."""
    y_pred = to_last(y_pred, axis)
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = gx.squeeze(y_true, -1)
    counted = None if ignore_class is None else gx.not_equal(y_true, ignore_class)
    if counted is not None:
        y_true = gx.where(counted, y_true, 0)
    if from_logits:
        values = gx.sparse_softmax_cross_entropy(y_true, y_pred)
    else:
        values = gx.sparse_categorical_cross_entropy(y_true, y_pred)
    if label_smoothing:
        anything = gx.full(y_pred.shape, 1.0 / _known(y_pred.shape[-1]), y_pred.dtype)
        values = (1.0 - label_smoothing) * values
        values = values + label_smoothing * categorical_crossentropy(anything, y_pred, from_logits)
    return values if counted is None else gx.where(counted, values, 0.0)


def labels_type(output: TensorType, axis: int, name: str) -> TensorType:
    """The type of class numbers for an output with an axis of classes.

    Raises:
        ShapeError: the output has no such axis.
    """
    if output.rank < 2:
        raise ShapeError(
            f"{name} needs an axis of classes, the output is {output}",
            at=user_line(),
            remedy="let the last layer have one unit for each class: layers.Dense(classes)",
        )
    axis %= output.rank
    warn_of_one_class(output.shape[axis], name)
    return TensorType(DType.int64, (*output.shape[:axis], *output.shape[axis + 1 :]))


def warn_of_one_class(size: Size, name: str) -> None:
    """A softmax over one class is always 1, and its loss 0."""
    if size == 1:
        warnings.warn(
            f"{name} of one class is always 0: for yes or no take the loss binary_crossentropy and the activation "
            "sigmoid, or one unit for each class",
            stacklevel=2,
        )


def to_last(x: Node, axis: int) -> Node:
    """``x`` with this axis behind all others."""
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
        label_smoothing: Part = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def elementwise(self, y_true: Node, y_pred: Node) -> Node:
        return _binary(y_true, y_pred, self.from_logits, self.label_smoothing)

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
        label_smoothing: Part = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, self.axis)

    def target_type(self, output: TensorType) -> TensorType:
        warn_of_one_class(output.shape[self.axis], self.name)
        return output


class SparseCategoricalCrossentropy(Loss):
    """``-log p[label]`` for labels that are class numbers.

    Args:
        from_logits: whether y_pred are logits; else probabilities.
        ignore_class: a label whose places do not count.
        axis: the axis of the classes.
        reduction, name: see :class:`Loss`.
        label_smoothing: moves what is wanted by this part towards the uniform distribution, as in "Attention is all you
            need" and ``torch.nn.CrossEntropyLoss``.

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
        label_smoothing: Part = 0.0,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis
        self.label_smoothing = label_smoothing

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return sparse_categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.ignore_class, self.axis, self.label_smoothing
        )

    def counted(self, y_true: Node, y_pred: Node) -> Node | None:
        return None if self.ignore_class is None else gx.not_equal(y_true, self.ignore_class)

    def target_type(self, output: TensorType) -> TensorType:
        return labels_type(output, self.axis, self.name)
