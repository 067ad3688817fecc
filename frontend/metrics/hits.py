"""How often predictions are right: equal, above a threshold, the largest, among the k largest."""

from __future__ import annotations

import numpy as np

import graphc as gx
from graphc.errors import ShapeError
from graphc.frontend.checked import Count, checked
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import aligned
from graphc.frontend.metrics.base import MeanOf
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType


def accuracy(y_true: Node, y_pred: Node) -> Node:
    """Where predictions equal targets, as bools.

    >>> import graphc as gx
    >>> accuracy(gx.placeholder("y", ("batch",)), gx.placeholder("p", ("batch",))).type
    bool[batch]
    """
    return gx.equal(aligned(y_true, y_pred), y_pred)


@checked
def binary_accuracy(y_true: Node, y_pred: Node, threshold: float = 0.5) -> Node:
    """Where predictions are above a threshold and targets 1, or neither, as bools."""
    return gx.equal(aligned(y_true, y_pred), gx.cast(gx.greater(y_pred, threshold), y_pred.dtype))


def categorical_accuracy(y_true: Node, y_pred: Node) -> Node:
    """Where the largest prediction stands at the largest target, as bools.

    Shapes: y_true, one-hot rows, and y_pred: (..., classes); the result: (...).
    Raises: ShapeError: the targets are no rows, but class numbers.
    """
    if y_true.ndim != y_pred.ndim or y_true.shape[-1] != y_pred.shape[-1]:
        raise ShapeError(
            f"targets have shape {y_true.shape}, which are no one-hot rows for predictions {y_pred.shape}",
            at=user_line(),
            remedy="class numbers are for sparse_categorical_accuracy; 'accuracy' takes the one that fits",
        )
    return gx.equal(gx.argmax(y_pred, axis=-1), gx.argmax(y_true, axis=-1))


def sparse_categorical_accuracy(y_true: Node, y_pred: Node) -> Node:
    """Where the largest prediction stands at the label, as bools.

    Shapes: y_true: (...), whole numbers; y_pred: (..., classes); the result: (...).
    Raises: ShapeError: the targets are rows and no class numbers.
    """
    said = gx.argmax(y_pred, axis=-1)
    return gx.equal(said, gx.cast(labels_of(y_true, y_pred), said.dtype))


def labels_of(y_true: Node, y_pred: Node) -> Node:
    """Labels without a last axis of size 1.

    Raises: ShapeError: there is not one label for each row of predictions.
    """
    labels = gx.squeeze(y_true, -1) if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
    if labels.ndim != y_pred.ndim - 1:
        raise ShapeError(
            f"targets have shape {y_true.shape}, which are no class numbers for predictions {y_pred.shape}",
            at=user_line(),
            remedy="one-hot rows are for the metric without 'sparse'; 'accuracy' takes the one that fits",
        )
    return labels


@checked
def top_k_categorical_accuracy(y_true: Node, y_pred: Node, k: Count = 5) -> Node:
    """Where less than k predictions are larger than that of the class with the largest target, as bools."""
    return sparse_top_k_categorical_accuracy(gx.argmax(y_true, axis=-1), y_pred, k)


@checked
def sparse_top_k_categorical_accuracy(y_true: Node, y_pred: Node, k: Count = 5, from_sorted_ids: bool = False) -> Node:
    """Where less than k predictions are larger than that of the label, as bools.

    Args:
        y_true: (...), whole numbers.
        y_pred: (..., classes); or class numbers, the best first.
        k: how many.
        from_sorted_ids: whether y_pred are class numbers.
    """
    label = gx.expand_dims(gx.cast(labels_of(y_true, y_pred), "int64"), -1)
    if from_sorted_ids:
        return gx.any(gx.equal(gx.cast(y_pred[..., :k], "int64"), label), axis=-1)
    here = gx.equal(gx.iota((y_pred.shape[-1],), 0, "int64"), label)
    own = gx.max(gx.where(here, y_pred, -np.inf), axis=-1, keepdims=True)
    own = gx.where(gx.isnan(own), -np.inf, own)
    return gx.less(gx.sum(gx.cast(gx.greater(y_pred, own), "int64"), axis=-1), k)


class _Accuracy(MeanOf):
    direction = "up"


class Accuracy(_Accuracy):
    """How often predictions equal targets.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return accuracy(y_true, y_pred)


class BinaryAccuracy(_Accuracy):
    """How often predictions above a threshold and labels of 1 meet.

    Args:
        name: the key in logs.
        threshold: predictions above it count as 1. Logits want 0.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = threshold

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return binary_accuracy(y_true, y_pred, self.threshold)


class CategoricalAccuracy(_Accuracy):
    """How often the largest prediction stands where the largest label stands (one-hot rows).

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    def __init__(self, name: str = "categorical_accuracy") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return categorical_accuracy(y_true, y_pred)


class SparseCategoricalAccuracy(_Accuracy):
    """How often the largest prediction stands at the label, a class number.

    Args:
        name: the key in logs.

    Shapes: y_true: (batch, ...); y_pred: (batch, ..., classes).
    """

    def __init__(self, name: str = "sparse_categorical_accuracy") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return sparse_categorical_accuracy(y_true, y_pred)

    def target_type(self, output: TensorType) -> TensorType:
        return TensorType(DType.int64, output.shape[:-1])


class TopKCategoricalAccuracy(_Accuracy):
    """How often the class of a one-hot row is among the k largest predictions.

    Args:
        k: how many.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    def __init__(self, k: Count = 5, name: str = "top_k_categorical_accuracy") -> None:
        super().__init__(name)
        self.k = k

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return top_k_categorical_accuracy(y_true, y_pred, self.k)


class SparseTopKCategoricalAccuracy(_Accuracy):
    """How often the label, a class number, is among the k largest predictions.

    Args:
        k: how many.
        name: the key in logs.
        from_sorted_ids: whether predictions are class numbers, the best first.

    Shapes: y_true: (batch, ...); y_pred: (batch, ..., classes).
    """

    def __init__(
        self, k: Count = 5, name: str = "sparse_top_k_categorical_accuracy", from_sorted_ids: bool = False
    ) -> None:
        super().__init__(name)
        self.k, self.from_sorted_ids = k, from_sorted_ids

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return sparse_top_k_categorical_accuracy(y_true, y_pred, self.k, self.from_sorted_ids)

    def target_type(self, output: TensorType) -> TensorType:
        return TensorType(DType.int64, output.shape[:-1])
