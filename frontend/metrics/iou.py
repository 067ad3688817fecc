"""Which classes are taken for which: the confusion matrix, and how far regions of a class overlap."""

from __future__ import annotations

from collections.abc import Sequence

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import Count, Natural
from graphc.frontend.config import user_line
from graphc.frontend.losses.base import divide_no_nan, extended
from graphc.frontend.losses.crossentropy import labels_type
from graphc.frontend.metrics.base import Metric, Updates
from graphc.ir.dims import product
from graphc.ir.node import Node, apply
from graphc.ir.types import DType, TensorType
from graphc.ops.scatter import TakeAdd


class ConfusionMatrix(Metric):
    """How often a class (row) is taken for a class (column), by weight.

    Args:
        num_classes: how many classes there are; what is none of them does not count.
        name: the key in logs.
        ignore_class: a label whose places do not count.
        sparse_y_true: whether targets are class numbers; else one-hot.
        sparse_y_pred: whether predictions are class numbers; else scores of the classes.
        axis: the axis of the classes, where there is one.

    Shapes: y_true: (batch, ...) or (batch, ..., classes); y_pred likewise; the result: (classes, classes).
    """

    def __init__(
        self,
        num_classes: Count,
        name: str | None = "confusion_matrix",
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(name)
        self.num_classes, self.ignore_class = num_classes, ignore_class
        self.sparse_y_true, self.sparse_y_pred, self.axis = sparse_y_true, sparse_y_pred, axis
        self.total = self.add_variable((num_classes, num_classes), name="total_confusion_matrix")

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        said = gx.cast(y_pred, "int64") if self.sparse_y_pred else gx.argmax(y_pred, axis=self.axis)
        label = gx.cast(y_true, "int64") if self.sparse_y_true else gx.argmax(y_true, axis=self.axis)
        label = gx.reshape(label, said.shape)
        counted = gx.logical_and(_among(label, self.num_classes), _among(said, self.num_classes))
        if self.ignore_class is not None:
            counted = gx.logical_and(counted, gx.not_equal(label, self.ignore_class))
        given = gx.constant(1.0, "float64") if sample_weight is None else gx.cast(sample_weight, "float64")
        weight = gx.where(counted, gx.broadcast_to(extended(given, said), said.shape), 0.0)
        place = gx.where(counted, label * self.num_classes + said, 0)
        flat = (product(said.shape),)
        cells = apply(TakeAdd(0, self.num_classes**2), gx.reshape(weight, flat), gx.reshape(place, flat))
        return {self.total: self.total + gx.reshape(cells, self.total.shape)}

    def result(self) -> Node:
        return self.total + 0.0

    def target_type(self, output: TensorType) -> TensorType:
        if self.sparse_y_pred or not self.sparse_y_true:
            return TensorType(DType.int64, output.shape) if self.sparse_y_true else output
        return labels_type(output, self.axis, self.name)


def _among(x: Node, count: int) -> Node:
    return gx.logical_and(gx.greater_equal(x, 0), gx.less(x, count))


class IoU(ConfusionMatrix):
    """Intersection over union of regions: the mean over chosen classes of those that occur.

    Args:
        num_classes: how many classes there are.
        target_class_ids: the classes that the mean is over.
        name: the key in logs.
        ignore_class: a label whose places do not count.
        sparse_y_true: whether targets are class numbers; else one-hot.
        sparse_y_pred: whether predictions are class numbers; else scores of the classes.
        axis: the axis of the classes, where there is one.

    Shapes: y_true: (batch, ...) or (batch, ..., classes); y_pred likewise.
    """

    direction = "up"

    def __init__(
        self,
        num_classes: Count,
        target_class_ids: Sequence[Natural],
        name: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, ignore_class, sparse_y_true, sparse_y_pred, axis)
        self.target_class_ids = list(target_class_ids)
        for chosen in self.target_class_ids:
            if not 0 <= chosen < num_classes:
                raise AxisError(f"there is no class {chosen}", at=user_line(), remedy=f"use 0 to {num_classes - 1}")

    def result(self) -> Node:
        own = gx.equal(gx.expand_dims(_numbers(self.num_classes), 1), _numbers(self.num_classes))
        common = gx.sum(gx.where(own, self.total, 0.0), axis=1)
        union = gx.sum(self.total, axis=0) + gx.sum(self.total, axis=1) - common
        common, union = gx.take(common, self.target_class_ids), gx.take(union, self.target_class_ids)
        occurs = gx.sum(gx.cast(gx.greater(union, 0.0), "float64"))
        return divide_no_nan(gx.sum(divide_no_nan(common, union)), occurs)


def _numbers(count: int) -> Node:
    return gx.iota((count,), 0, "int64")


class MeanIoU(IoU):
    """Intersection over union of regions: the mean over all classes that occur.

    Args:
        num_classes: how many classes there are.
        name: the key in logs.
        ignore_class: a label whose places do not count.
        sparse_y_true: whether targets are class numbers; else one-hot.
        sparse_y_pred: whether predictions are class numbers; else scores of the classes.
        axis: the axis of the classes, where there is one.

    Shapes: y_true: (batch, ...) or (batch, ..., classes); y_pred likewise.
    """

    def __init__(
        self,
        num_classes: Count,
        name: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        ids = range(num_classes)
        super().__init__(num_classes, ids, name, ignore_class, sparse_y_true, sparse_y_pred, axis)


class BinaryIoU(IoU):
    """Intersection over union of two classes, told apart by a threshold.

    Args:
        target_class_ids: the classes that the mean is over.
        threshold: predictions of at least this are of class 1.
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ...).
    """

    def __init__(
        self, target_class_ids: Sequence[Natural] = (0, 1), threshold: float = 0.5, name: str | None = None
    ) -> None:
        super().__init__(2, target_class_ids, name)
        self.threshold = threshold

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        return super().update_state(y_true, gx.greater_equal(y_pred, self.threshold), sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return TensorType(DType.int64, output.shape)
