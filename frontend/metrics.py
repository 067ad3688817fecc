"""Metrics as graph state: sums that every step updates inside its program, and results computed from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

import graphc as gx
from graphc.errors import GraphError
from graphc.frontend import initializers
from graphc.frontend.config import Configurable, lookup, user_line
from graphc.frontend.losses import MeanAbsoluteError as _AbsoluteErrorLoss
from graphc.frontend.losses import MeanSquaredError as _SquaredErrorLoss
from graphc.ir.dims import product
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType, TensorType, as_dtype


class Metric(Configurable):
    """Base of metrics. A subclass makes its state in ``__init__`` and defines ``update_state`` and ``result``.

    Both are graph code: ``update_state`` returns the next values of the state, ``result`` is an expression of the
    state. Programs put them together, so that results always are those of all batches since the last reset.

    Args:
        name: the key in logs.
    """

    direction: str | None = None
    """Whether more is better (``up``), less (``down``), or that is not known."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__.lower()
        self.variables: list[Parameter] = []

    def add_variable(
        self, shape: Any = (), initializer: Any = "zeros", dtype: Any = "float64", name: str | None = None
    ) -> Parameter:
        """Make state.

        Args:
            shape: whole numbers.
            initializer: its value after a reset.
            dtype: default double precision: sums over many batches stay exact.
            name: for texts.
        """
        made = initializers.get(initializer)
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        element = as_dtype(dtype)
        first = np.asarray(made(sizes, element.value), element.numpy)
        label = name or f"variable_{len(self.variables)}"
        variable = Parameter(f"{self.name}/{label}", first, trainable=False)
        self.variables.append(variable)
        self._first_values().append(first)
        return variable

    def _first_values(self) -> list[Any]:
        return self.__dict__.setdefault("_resets", [])

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        """The next values of the state after one more batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define update_state")

    def result(self) -> Node:
        """The metric as an expression of the state."""
        raise NotImplementedError(f"{type(self).__name__} does not define result")

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable, first in zip(self.variables, self._first_values(), strict=True):
            variable.value = first

    def target_type(self, output: TensorType) -> TensorType | None:
        """The type of the targets for an output of this type, where no loss says it."""
        return None


class Mean(Metric):
    """The weighted mean of values.

    Args:
        name: the key in logs.
    """

    def __init__(self, name: str = "mean") -> None:
        super().__init__(name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def add_values(self, values: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        """The next state after these values; whole numbers and bools are summed exactly."""
        if sample_weight is not None:
            weight = gx.cast(sample_weight, "float64")
            while weight.ndim < values.ndim:
                weight = gx.expand_dims(weight, weight.ndim)
            total = gx.sum(gx.cast(values, "float64") * weight)
            count = gx.sum(gx.broadcast_to(weight, values.shape))
        else:
            exact = gx.cast(values, "int64") if values.dtype is DType.bool else values
            total = gx.cast(gx.sum(exact), "float64")
            count = gx.size_of(product(values.shape), "float64")
        return {self.total: self.total + total, self.count: self.count + count}

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        """The mean of the predictions themselves."""
        return self.add_values(y_pred, sample_weight)

    def result(self) -> Node:
        return self.total / gx.maximum(self.count, 1.0)


class MeanMetricWrapper(Mean):
    """The mean of a function of targets and predictions.

    Args:
        fn: returns one value for each sample, or for each place of a sample.
        name: the key in logs; default the function's name.
        kwargs: further arguments of the function.
    """

    def __init__(self, fn: Callable[..., Node], name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", "metric"))
        self.fn = fn
        self._arguments = kwargs

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        return self.add_values(self.fn(y_true, y_pred, **self._arguments), sample_weight)


class BinaryAccuracy(Mean):
    """How often predictions above a threshold and labels of 1 meet.

    Args:
        name: the key in logs.
        threshold: predictions above it count as 1. Logits want 0.

    Shapes: y_true and y_pred: (batch, ...).
    """

    direction = "up"

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = threshold

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        said = gx.cast(gx.greater(y_pred, self.threshold), y_true.dtype)
        return self.add_values(gx.equal(said, y_true), sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class CategoricalAccuracy(Mean):
    """How often the largest prediction stands where the largest label stands (one-hot rows).

    Shapes: y_true and y_pred: (batch, ..., classes).
    """

    direction = "up"

    def __init__(self, name: str = "categorical_accuracy") -> None:
        super().__init__(name)

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        return self.add_values(gx.equal(gx.argmax(y_pred, axis=-1), gx.argmax(y_true, axis=-1)), sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class SparseCategoricalAccuracy(Mean):
    """How often the largest prediction stands at the label, a class number.

    Shapes: y_true: (batch, ...); y_pred: (batch, ..., classes).
    """

    direction = "up"

    def __init__(self, name: str = "sparse_categorical_accuracy") -> None:
        super().__init__(name)

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        said = gx.argmax(y_pred, axis=-1)
        return self.add_values(gx.equal(said, gx.cast(y_true, said.dtype)), sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return TensorType(DType.int64, output.shape[:-1])


class MeanSquaredError(Mean):
    """The mean of ``(y_true - y_pred)**2``.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "mean_squared_error") -> None:
        super().__init__(name)

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        return self.add_values(_SquaredErrorLoss().call(y_true, y_pred), sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return output


class MeanAbsoluteError(Mean):
    """The mean of ``|y_true - y_pred|``.

    Shapes: y_true and y_pred: (batch, ..., n).
    """

    direction = "down"

    def __init__(self, name: str = "mean_absolute_error") -> None:
        super().__init__(name)

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> dict[Parameter, Node]:
        return self.add_values(_AbsoluteErrorLoss().call(y_true, y_pred), sample_weight)

    def target_type(self, output: TensorType) -> TensorType:
        return output


_BY_NAME: dict[str, type[Metric]] = {
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "mse": MeanSquaredError,
    "mean_squared_error": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "mean_absolute_error": MeanAbsoluteError,
}


def get(value: Any, target: TensorType | None = None, output: TensorType | None = None) -> Metric:
    """A metric from a name, a metric, its class, or a function; ``accuracy`` is the one that suits the targets.

    Args:
        value: what the user gave.
        target: the type of the targets.
        output: the type of the predictions.

    Raises:
        GraphError: there is no such metric, or ``accuracy`` has no targets to be chosen by.

    >>> get("mse").name
    'mse'
    """
    if isinstance(value, str) and value.lower() in ("accuracy", "acc"):
        if target is None or output is None:
            raise GraphError("accuracy needs targets", at=user_line(), remedy="name it: sparse_categorical_accuracy")
        return _accuracy(target, output, value)
    table: dict[str, Any] = {**_BY_NAME, **{cls.__name__: cls for cls in _BY_NAME.values()}}
    found = lookup(value, table, "metric", also=("accuracy",))
    if isinstance(found, type):
        made: Metric = found(name=value) if isinstance(value, str) and value in _BY_NAME else found()
        return made
    if not isinstance(found, Metric) and not callable(found):
        raise GraphError(
            f"{value!r} is not a metric",
            at=user_line(),
            remedy="give a name such as 'accuracy', a metric, or a function",
        )
    return found if isinstance(found, Metric) else MeanMetricWrapper(cast("Callable[..., Node]", found))


def _accuracy(target: TensorType, output: TensorType, name: str) -> Metric:
    """Keras's choice: by the sizes of the last axes."""
    if output.rank == 0 or output.shape[-1] == 1 or output.rank == 1:
        return BinaryAccuracy(name)
    if target.rank < output.rank or target.shape[-1] == 1:
        return SparseCategoricalAccuracy(name)
    return CategoricalAccuracy(name)
