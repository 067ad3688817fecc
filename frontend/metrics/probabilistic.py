"""How well probabilities and scores fit: cross entropies, divergences, perplexity, hinges."""

from __future__ import annotations

import graphc as gx
from graphc.frontend.checked import Part
from graphc.frontend.losses import crossentropy, divergence, margins
from graphc.frontend.losses.base import extended
from graphc.frontend.metrics.base import MeanOf, Updates
from graphc.ir.node import Node
from graphc.ir.types import TensorType


class KLDivergence(MeanOf):
    """The mean of ``sum(y_true * log(y_true / y_pred))``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    direction = "down"

    def __init__(self, name: str = "kl_divergence") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return divergence.kl_divergence(y_true, y_pred)


class Poisson(MeanOf):
    """The mean of ``y_pred - y_true * log(y_pred)``.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "poisson") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return divergence.poisson(y_true, y_pred)


class Hinge(MeanOf):
    """The mean of ``max(1 - y_true * y_pred, 0)``; labels are -1 and 1, or 0 and 1.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "hinge") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return margins.hinge(y_true, y_pred)


class SquaredHinge(MeanOf):
    """The mean of ``max(1 - y_true * y_pred, 0)**2``; labels are -1 and 1, or 0 and 1.

    Args:
        name: the key in logs.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "squared_hinge") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return margins.squared_hinge(y_true, y_pred)


class CategoricalHinge(MeanOf):
    """The mean of ``max(1 + neg - pos, 0)``: see the loss of this name.

    Args:
        name: the key in logs.

    Shapes: y_true, one-hot rows, and y_pred: (batch, ..., classes).
    """

    direction = "down"

    def __init__(self, name: str = "categorical_hinge") -> None:
        super().__init__(name)

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return margins.categorical_hinge(y_true, y_pred)


class BinaryCrossentropy(MeanOf):
    """The mean of ``-(y log p + (1 - y) log(1 - p))``.

    Args:
        name: the key in logs.
        from_logits: whether y_pred are logits; else probabilities.
        label_smoothing: moves labels by this part towards 1/2.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(
        self, name: str = "binary_crossentropy", from_logits: bool = False, label_smoothing: Part = 0.0
    ) -> None:
        super().__init__(name)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return crossentropy.binary_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)


class CategoricalCrossentropy(MeanOf):
    """The mean of ``-sum(y * log p)`` over the classes, for one-hot rows.

    Args:
        name: the key in logs.
        from_logits: whether y_pred are logits; else probabilities.
        label_smoothing: moves labels by this part towards the uniform distribution.
        axis: the axis of the classes.

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    direction = "down"

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        from_logits: bool = False,
        label_smoothing: Part = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(name)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return crossentropy.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, self.axis)


class SparseCategoricalCrossentropy(MeanOf):
    """The mean of ``-log p[label]`` for labels that are class numbers. Ignored labels do not count.

    Args:
        name: the key in logs.
        from_logits: whether y_pred are logits; else probabilities.
        ignore_class: a label whose places do not count.
        axis: the axis of the classes.

    Shapes: y_true: (batch, ...), whole numbers; y_pred: (batch, ..., classes).
    """

    direction = "down"

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def values(self, y_true: Node, y_pred: Node) -> Node:
        return crossentropy.sparse_categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.ignore_class, self.axis
        )

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        values = self.values(y_true, y_pred)
        if self.ignore_class is not None:
            labels = gx.reshape(y_true, values.shape)
            counted = gx.cast(gx.not_equal(labels, self.ignore_class), "float64")
            given = sample_weight
            sample_weight = counted if given is None else counted * extended(gx.cast(given, "float64"), counted)
        return self.add_values(values, sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return crossentropy.labels_type(output, self.axis, self.name)


class Perplexity(SparseCategoricalCrossentropy):
    """``exp`` of the mean cross entropy of labels: among how many equally likely ones a model hesitates.

    Args:
        name: the key in logs.
        from_logits: whether y_pred are logits; else probabilities.
        ignore_class: a label whose places do not count, such as that of padding.
        axis: the axis of the classes.

    Shapes: y_true: (batch, ...), whole numbers; y_pred: (batch, ..., classes).
    """

    def __init__(
        self,
        name: str = "perplexity",
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, from_logits, ignore_class, axis)

    def result(self) -> Node:
        return gx.exp(super().result())
