"""Cross entropy over classes in the last axis: one loss for each row, nothing averaged.

Operands are (labels, prediction), as in Keras. Dense labels are probabilities of each class, sparse ones integers,
which are checked while the program runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType
from graphc.ops.activation import LogSoftmax, Softmax
from graphc.ops.arithmetic import divide, maximum, multiply, negative, subtract
from graphc.ops.base import (
    FLOATS,
    INTEGERS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    add_tangents,
    as_node,
    explaining,
    op_class,
    require_dtype,
)
from graphc.ops.checked import Checked, InRange, first_outside, require_in_range
from graphc.ops.compare import equal, where
from graphc.ops.create import iota
from graphc.ops.exponential import exp, log
from graphc.ops.indexing import OneHot
from graphc.ops.loss import LOG_LIMIT, SMALLEST_DIVISOR, loss_operands
from graphc.ops.reduction import max, sum
from graphc.ops.slicing import expand_dims, squeeze

f32, i64 = DType.float32, DType.int64


def _require_classes(prediction: TensorType, name: str) -> None:
    require_dtype(prediction, FLOATS, name)
    if prediction.rank == 0:
        raise ShapeError(f"{name} is a scalar", remedy="give one number for each class, in the last axis")


class _Dense(Op):
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        labels, prediction = types
        name = self.operands[1]
        _require_classes(prediction, name)
        if labels.dtype is not prediction.dtype:
            raise DTypeError(
                f"labels are {labels.dtype}, {name} {prediction.dtype}", remedy="convert with gx.cast(x, dtype)"
            )
        if labels.shape != prediction.shape:
            raise ShapeError(
                f"labels have shape {labels.shape}, {name} {prediction.shape}",
                remedy="give a probability for each class, or integer labels to the sparse loss",
            )
        return TensorType(prediction.dtype, prediction.shape[:-1])

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Shapes that differ, a mix of element types, integers, scalars."""

        def t(*shape: int, dtype: DType = f32) -> TensorType:
            return TensorType(dtype, shape)

        return (
            BadCase(cls(), (t(4), t(4, 3)), ShapeError, (cls.name, "(4,)", "(4, 3)", "sparse")),
            BadCase(cls(), (t(4, 3), t(4, 3, dtype=DType.float64)), DTypeError, (cls.name, "float32", "float64")),
            BadCase(cls(), (t(4, 3, dtype=i64), t(4, 3, dtype=i64)), DTypeError, (cls.name, cls.operands[1], "int64")),
            BadCase(cls(), (t(), t()), ShapeError, (cls.name, "scalar", "class")),
        )


class _Sparse(Checked):
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        labels, prediction = types
        name = self.operands[1]
        _require_classes(prediction, name)
        require_dtype(labels, INTEGERS, "labels")
        if labels.shape != prediction.shape[:-1]:
            raise ShapeError(
                f"labels have shape {labels.shape}, rows of {name} {prediction.shape[:-1]}",
                remedy="give one integer for each row; gx.squeeze drops a last axis of size 1",
            )
        return TensorType(prediction.dtype, labels.shape)

    def limit(self, *types: TensorType) -> Size:
        return types[1].shape[-1]

    def fault(self, *arrays: Array) -> int | None:
        labels, prediction = arrays
        return first_outside(labels, prediction.shape[-1])

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Labels of another shape, labels that are floats, predictions that are integers, scalars."""
        rows = TensorType(f32, (4, 3))
        return (
            BadCase(cls(), (TensorType(i64, (4, 1)), rows), ShapeError, (cls.name, "(4, 1)", "(4,)", "squeeze")),
            BadCase(cls(), (TensorType(f32, (4,)), rows), DTypeError, (cls.name, "labels", "float32", "int64")),
            BadCase(cls(), (TensorType(i64, (4,)), TensorType(i64, (4, 3))), DTypeError, (cls.name, cls.operands[1])),
            BadCase(cls(), (TensorType(i64, ()), TensorType(f32, ())), ShapeError, (cls.name, "scalar", "class")),
        )


def _log_softmax(logits: Array) -> Array:
    return LogSoftmax(logits.ndim - 1).reference(logits)


def _last(x: Node) -> int:
    return x.ndim - 1


def _checked(labels: Node, prediction: Node) -> Node:
    return apply(InRange(prediction.shape[-1]), labels)


def _at_label(labels: Node, x: Node) -> Node:
    """The element of each row at its label, as a sum over the row that fuses with what is around it."""
    checked = expand_dims(_checked(labels, x), -1)
    return sum(where(equal(checked, iota((x.shape[-1],), 0, labels.dtype)), x, 0.0), axis=-1)


@op_class
class SoftmaxCrossEntropy(_Dense):
    """``-sum(labels * log_softmax(logits))`` of each row; classes with label 0 do not count, whatever their logit.

    The derivative by the logits is ``softmax(logits) * sum(labels) - labels``.

    Shapes: labels and logits (..., c) -> (...).
    Raises: ShapeError; DTypeError.
    Source: https://www.tensorflow.org/api_docs/python/tf/nn/softmax_cross_entropy_with_logits
    """

    operands = ("labels", "logits")

    def reference(self, labels: Array, logits: Array) -> Array:
        terms = np.where(labels == 0, labels.dtype.type(0), labels * _log_softmax(logits))
        return -np.sum(terms, axis=-1)

    def decompose(self, *args: Node) -> Node:
        labels, logits = args
        terms = multiply(labels, apply(LogSoftmax(_last(logits)), logits))
        return negative(sum(where(equal(labels, 0.0), 0.0, terms), axis=-1))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        labels, logits = node.args
        g = expand_dims(cotangent, -1)
        by_labels = multiply(g, negative(apply(LogSoftmax(_last(logits)), logits)))
        return by_labels, multiply(g, self._by_logits(labels, logits))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (labels, logits), (dlabels, dlogits) = node.args, tangents
        log_p = apply(LogSoftmax(_last(logits)), logits)
        return add_tangents(
            [
                None if dlabels is None else negative(sum(multiply(dlabels, log_p), axis=-1)),
                None if dlogits is None else sum(multiply(dlogits, self._by_logits(labels, logits)), axis=-1),
            ]
        )

    def _by_logits(self, labels: Node, logits: Node) -> Node:
        p = apply(Softmax(_last(logits)), logits)
        return subtract(multiply(p, sum(labels, axis=-1, keepdims=True)), labels)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Rows, batches of rows, one row, none; large logits; -inf where the label is 0."""
        t = TensorType
        labels = np.array([[1, 0, 0], [0, 0.5, 0.5]], np.float32)
        logits = np.array([[1000, -1000, 0], [-np.inf, 1, 2]], np.float32)
        rows = [Case(cls(), (t(f32, s), t(f32, s)), (0.0, 2.0)) for s in ((4, 5), (2, 3, 4), (5,), (0, 3), (2, 70))]
        return [*rows, Case(cls(), (labels, logits), differentiable=False)]


def softmax_cross_entropy(labels: Operand, logits: Operand) -> Node:
    """``-sum(labels * log_softmax(logits))`` of each row, exact for large logits.

    Shapes: labels and logits (..., c) -> (...).
    Raises: ShapeError; DTypeError.
    Source: https://www.tensorflow.org/api_docs/python/tf/nn/softmax_cross_entropy_with_logits

    >>> import graphc as gx
    >>> gx.softmax_cross_entropy(gx.placeholder("y", ("n", 10)), gx.placeholder("z", ("n", 10)))
    <softmax_cross_entropy: f32[n]>
    """
    with explaining("softmax_cross_entropy"):
        return apply(SoftmaxCrossEntropy(), *loss_operands(labels, logits))


@op_class
class SparseSoftmaxCrossEntropy(_Sparse):
    """``-log_softmax(logits)[label]`` of each row.

    The derivative by the logits is ``softmax(logits) - one_hot(labels)``.

    Shapes: labels (...), logits (..., c) -> (...).
    Raises: ShapeError; DTypeError; at run time IndexRangeError for a label outside 0 .. c - 1.
    Source: https://www.tensorflow.org/api_docs/python/tf/nn/sparse_softmax_cross_entropy_with_logits
    """

    operands = ("labels", "logits")

    def reference(self, labels: Array, logits: Array) -> Array:
        require_in_range(labels, logits.shape[-1])
        rows = np.take_along_axis(_log_softmax(logits), labels.astype(np.int64)[..., None], -1)
        return -rows[..., 0]

    def decompose(self, *args: Node) -> Node:
        labels, logits = args
        shifted = subtract(logits, max(logits, axis=-1, keepdims=True))  # as in Softmax, to share its exponentials
        total = squeeze(log(sum(exp(shifted), axis=-1, keepdims=True)), -1)
        return subtract(total, _at_label(labels, shifted))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        labels, logits = node.args
        return None, multiply(expand_dims(cotangent, -1), self._by_logits(labels, logits))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (labels, logits), (_, dlogits) = node.args, tangents
        return None if dlogits is None else sum(multiply(dlogits, self._by_logits(labels, logits)), axis=-1)

    def _by_logits(self, labels: Node, logits: Node) -> Node:
        target = apply(OneHot(logits.shape[-1], logits.dtype), _checked(labels, logits))
        return subtract(apply(Softmax(_last(logits)), logits), target)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Rows, batches of rows, one row, none; every element type of labels; large logits."""
        rows = [
            Case(cls(), (np.array(labels, dtype), TensorType(f32, (*np.shape(labels), 5))))
            for labels, dtype in (
                ([0, 4, 2], np.int64), ([0, 4, 2], np.int32), ([0, 4, 2], np.uint32),
                ([[1, 2, 3], [4, 0, 1]], np.int64), (3, np.int64), (np.zeros((0,)), np.int64),
            )
        ]  # fmt: skip
        large = np.array([[1000, -1000, 0], [-1000, 1, 2]], np.float32)
        return [*rows, Case(cls(), (np.array([1, 2]), large), differentiable=False)]


def sparse_softmax_cross_entropy(labels: Operand, logits: Operand) -> Node:
    """``-log_softmax(logits)[label]`` of each row, exact for large logits.

    Shapes: labels (...) of integers, logits (..., c) -> (...).
    Raises: ShapeError; DTypeError; at run time IndexRangeError for a label outside 0 .. c - 1.
    Source: https://www.tensorflow.org/api_docs/python/tf/nn/sparse_softmax_cross_entropy_with_logits

    >>> import graphc as gx
    >>> gx.sparse_softmax_cross_entropy(gx.placeholder("y", ("n",), "int64"), gx.placeholder("z", ("n", 10)))
    <sparse_softmax_cross_entropy: f32[n]>
    """
    with explaining("sparse_softmax_cross_entropy"):
        return apply(SparseSoftmaxCrossEntropy(), as_node(labels), as_node(logits))


@op_class
class CategoricalCrossEntropy(_Dense):
    """``-sum(labels * log(p))`` of each row, with logarithms cut off at -100. Rows are not scaled to sum 1.

    The derivative by p is ``-labels / p``, where the divisor is at least 1e-12.

    Shapes: labels and probabilities (..., c) -> (...).
    Raises: ShapeError; DTypeError.
    Source: https://keras.io/api/losses/probabilistic_losses/#categorical_crossentropy-function
    """

    operands = ("labels", "probabilities")

    def reference(self, labels: Array, probabilities: Array) -> Array:
        log_p = np.maximum(np.log(probabilities), probabilities.dtype.type(LOG_LIMIT))
        return -np.sum(labels * log_p, axis=-1)

    def decompose(self, *args: Node) -> Node:
        labels, p = args
        return negative(sum(multiply(labels, maximum(log(p), LOG_LIMIT)), axis=-1))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        labels, p = node.args
        g = expand_dims(cotangent, -1)
        by_labels = multiply(g, negative(maximum(log(p), LOG_LIMIT)))
        return by_labels, negative(divide(multiply(g, labels), maximum(p, SMALLEST_DIVISOR)))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (labels, p), (dlabels, dp) = node.args, tangents
        log_p, divisor = maximum(log(p), LOG_LIMIT), maximum(p, SMALLEST_DIVISOR)
        return add_tangents(
            [
                None if dlabels is None else negative(sum(multiply(dlabels, log_p), axis=-1)),
                None if dp is None else negative(sum(divide(multiply(dp, labels), divisor), axis=-1)),
            ]
        )

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Rows, batches of rows, one row, none; probabilities of 0 and 1."""
        t = TensorType
        labels, p = np.array([[1, 0], [1, 0]], np.float32), np.array([[1, 0], [0, 1]], np.float32)
        rows = [Case(cls(), (t(f32, s), t(f32, s)), (0.05, 0.95)) for s in ((4, 5), (2, 3, 4), (5,), (0, 3), (2, 70))]
        return [*rows, Case(cls(), (labels, p), differentiable=False)]


def categorical_cross_entropy(labels: Operand, probabilities: Operand) -> Node:
    """``-sum(labels * log(p))`` of each row, with logarithms cut off at -100.

    Shapes: labels and probabilities (..., c) -> (...).
    Raises: ShapeError; DTypeError.
    Source: https://keras.io/api/losses/probabilistic_losses/#categorical_crossentropy-function

    >>> import graphc as gx
    >>> gx.categorical_cross_entropy(gx.placeholder("y", ("n", 10)), gx.placeholder("p", ("n", 10)))
    <categorical_cross_entropy: f32[n]>
    """
    with explaining("categorical_cross_entropy"):
        return apply(CategoricalCrossEntropy(), *loss_operands(labels, probabilities))


@op_class
class SparseCategoricalCrossEntropy(_Sparse):
    """``-log(p[label])`` of each row, with the logarithm cut off at -100.

    The derivative by p is ``-1 / p`` at the label, where the divisor is at least 1e-12.

    Shapes: labels (...), probabilities (..., c) -> (...).
    Raises: ShapeError; DTypeError; at run time IndexRangeError for a label outside 0 .. c - 1.
    Source: https://keras.io/api/losses/probabilistic_losses/#sparse_categorical_crossentropy-function
    """

    operands = ("labels", "probabilities")

    def reference(self, labels: Array, probabilities: Array) -> Array:
        require_in_range(labels, probabilities.shape[-1])
        chosen = np.take_along_axis(probabilities, labels.astype(np.int64)[..., None], -1)[..., 0]
        return -np.maximum(np.log(chosen), chosen.dtype.type(LOG_LIMIT))

    def decompose(self, *args: Node) -> Node:
        labels, p = args
        return negative(maximum(log(_at_label(labels, p)), LOG_LIMIT))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        labels, p = node.args
        return None, multiply(expand_dims(cotangent, -1), self._by_p(labels, p))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (labels, p), (_, dp) = node.args, tangents
        return None if dp is None else sum(multiply(dp, self._by_p(labels, p)), axis=-1)

    def _by_p(self, labels: Node, p: Node) -> Node:
        target = apply(OneHot(p.shape[-1], p.dtype), _checked(labels, p))
        return negative(divide(target, maximum(p, SMALLEST_DIVISOR)))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Rows, batches of rows, one row, none; every element type of labels; probabilities of 0 and 1."""
        rows = [
            Case(cls(), (np.array(labels, dtype), TensorType(f32, (*np.shape(labels), 5))), (0.05, 0.95))
            for labels, dtype in (
                ([0, 4, 2], np.int64), ([0, 4, 2], np.int32), ([0, 4, 2], np.uint32),
                ([[1, 2, 3], [4, 0, 1]], np.int64), (3, np.int64), (np.zeros((0,)), np.int64),
            )
        ]  # fmt: skip
        certain = np.array([[1, 0], [1, 0]], np.float32)
        return [*rows, Case(cls(), (np.array([0, 1]), certain), differentiable=False)]


def sparse_categorical_cross_entropy(labels: Operand, probabilities: Operand) -> Node:
    """``-log(p[label])`` of each row, with the logarithm cut off at -100.

    Shapes: labels (...) of integers, probabilities (..., c) -> (...).
    Raises: ShapeError; DTypeError; at run time IndexRangeError for a label outside 0 .. c - 1.
    Source: https://keras.io/api/losses/probabilistic_losses/#sparse_categorical_crossentropy-function

    >>> import graphc as gx
    >>> gx.sparse_categorical_cross_entropy(gx.placeholder("y", ("n",), "int64"), gx.placeholder("p", ("n", 10)))
    <sparse_categorical_cross_entropy: f32[n]>
    """
    with explaining("sparse_categorical_cross_entropy"):
        return apply(SparseCategoricalCrossEntropy(), as_node(labels), as_node(probabilities))


__all__ = [
    "CategoricalCrossEntropy", "SoftmaxCrossEntropy", "SparseCategoricalCrossEntropy", "SparseSoftmaxCrossEntropy",
    "categorical_cross_entropy", "softmax_cross_entropy", "sparse_categorical_cross_entropy",
    "sparse_softmax_cross_entropy",
]  # fmt: skip
