"""What metrics share: state that every step updates inside its program, and results computed from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gx
from graphc.frontend import initializers
from graphc.frontend.arguments import is_number, sizes_of
from graphc.frontend.config import Configurable
from graphc.frontend.losses.base import as_values, divide_no_nan, extended, takes_both
from graphc.ir.dims import product
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType, TensorType, as_dtype

Updates = dict[Parameter, Node]


class Metric(Configurable):
    """Base of metrics. A subclass makes its state in ``__init__`` and defines ``update_state`` and ``result``.

    Both are graph code: ``update_state`` returns the next values of the state, ``result`` is an expression of the
    state. Programs put them together, so that results always are those of all batches since the last reset.

    State whose shape depends on the output is made in ``build``.

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
        sizes = sizes_of(shape)
        element = as_dtype(dtype)
        first = np.asarray(made(sizes, element.value), element.numpy)
        label = name or f"variable_{len(self.variables)}"
        variable = Parameter(f"{self.name}/{label}", first, trainable=False)
        self.variables.append(variable)
        self._first_values().append(first)
        return variable

    def _first_values(self) -> list[Any]:
        return self.__dict__.setdefault("_resets", [])

    def forget_variables(self) -> None:
        """Let go of all state, before ``build`` makes it anew for another output."""
        self.variables.clear()
        self._first_values().clear()

    def build(self, output: TensorType) -> None:
        """Make the state that depends on the type of the predictions; called before programs are built."""

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
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


def double_sum(values: Node, axis: int | None = None) -> Node:
    """The sum in double precision; whole numbers and bools are summed exactly."""
    exact = values if values.dtype.is_float else gx.cast(values, "int64")
    return gx.cast(gx.sum(gx.cast(exact, "float64") if exact.dtype.is_float else exact, axis=axis), "float64")


class Mean(Metric):
    """The weighted mean of values; 0 as long as nothing counts.

    Args:
        name: the key in logs.
    """

    def __init__(self, name: str = "mean") -> None:
        super().__init__(name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def add_values(self, values: Node, sample_weight: Node | None = None) -> Updates:
        """The next state after these values; whole numbers and bools are summed exactly."""
        if sample_weight is not None:
            weight = extended(gx.cast(sample_weight, "float64"), values)
            total = gx.sum(gx.cast(values, "float64") * weight)
            count = gx.sum(gx.broadcast_to(weight, values.shape))
        else:
            exact = gx.cast(values, "int64") if values.dtype is DType.bool else values
            total = gx.cast(gx.sum(exact), "float64")
            count = gx.size_of(product(values.shape), "float64")
        return {self.total: self.total + total, self.count: self.count + count}

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        """The mean of the predictions themselves."""
        return self.add_values(y_pred, sample_weight)

    def result(self) -> Node:
        return divide_no_nan(self.total, self.count)


class Sum(Metric):
    """The weighted sum of the predictions themselves.

    Args:
        name: the key in logs.
    """

    def __init__(self, name: str = "sum") -> None:
        super().__init__(name)
        self.total = self.add_variable(name="total")

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        values = gx.cast(y_pred, "float64")
        if sample_weight is not None:
            values = values * extended(gx.cast(sample_weight, "float64"), values)
        return {self.total: self.total + gx.sum(values)}

    def result(self) -> Node:
        return self.total + 0.0


class MeanOf(Mean):
    """Base of metrics that are the mean of a value of each sample, or of each of its places: ``values``."""

    def values(self, y_true: Node, y_pred: Node) -> Node:
        """What the mean is of."""
        raise NotImplementedError(f"{type(self).__name__} does not define values")

    def update_state(self, y_true: Node, y_pred: Node, sample_weight: Node | None = None) -> Updates:
        return self.add_values(self.values(y_true, y_pred), sample_weight)

    def target_type(self, output: TensorType) -> TensorType | None:
        return output


class MeanMetricWrapper(MeanOf):
    """The mean of a function of targets and predictions.

    Args:
        fn: returns one value for each sample, or for each place of a sample, or a number.
        name: the key in logs; default the function's name.
        kwargs: further arguments of the function.
    """

    def __init__(self, fn: Callable[..., Node], name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", "metric"))
        self.fn = takes_both(fn, f"the metric {self.name!r}", kwargs)
        self._arguments = kwargs

    def values(self, y_true: Node, y_pred: Node) -> Node:
        found: Any = self.fn(y_true, y_pred, **self._arguments)
        return as_values(gx.constant(float(found)) if is_number(found) else found, f"the metric {self.name!r}")

    def target_type(self, output: TensorType) -> TensorType | None:
        return None
