"""What losses share: how values become one number, with weights and masks, and functions as losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.frontend.arguments import shown
from graphc.frontend.config import Configurable, user_line
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import TensorType

EPSILON = 1e-7
"""Keras's: what stands in for a divisor, or for an argument of a logarithm, that may be 0."""

_MEANS = ("sum_over_batch_size", "mean")
_REDUCTIONS = (*_MEANS, "mean_with_sample_weight", "sum", "none", None)


class Loss(Configurable):
    """Base of losses. A subclass defines ``call``: one value for each sample, or for each place of a sample.

    Args:
        name: how logs and files call it.
        reduction: ``sum_over_batch_size`` or ``mean`` (the sum divided by the number of values),
            ``mean_with_sample_weight`` (divided by the sum of the weights), ``sum``, or ``none`` or None.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size") -> None:
        if reduction not in _REDUCTIONS:
            raise AxisError(
                f"no reduction is called {reduction!r}",
                at=user_line(),
                remedy="use sum_over_batch_size, sum, mean_with_sample_weight or none",
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
        if plain is not None and sample_weight is None and counted is None and self.reduction in _MEANS:
            return gx.mean(plain)
        return reduce_weighted(self.call(y_true, y_pred), sample_weight, counted, self.reduction)


class PointwiseLoss(Loss):
    """Base of losses of each place, averaged over the last axis. A subclass defines ``elementwise``."""

    def call(self, y_true: Node, y_pred: Node) -> Node:
        values = self.elementwise(y_true, y_pred)
        if values is None:
            raise NotImplementedError(f"{type(self).__name__} does not define elementwise")
        return gx.mean(values, axis=-1)

    def target_type(self, output: TensorType) -> TensorType | None:
        return output


def aligned(y_true: Node, y_pred: Node) -> Node:
    """Targets in the element type and the shape of the predictions; a last axis of size 1 comes or goes.

    Raises:
        ShapeError: the shapes differ otherwise. Broadcasting would be a mistake here.
        DTypeError: these are lists or other things that are no nodes.
    """
    for given in (y_true, y_pred):
        if not isinstance(given, Node | np.ndarray | np.generic):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DTypeError(
                f"losses and metrics compute with nodes, not with {shown(given)}",
                at=user_line(),
                remedy="write gx.constant(values); to measure a model on data call model.evaluate(x, y)",
            )
    y_true = gx.cast(y_true, y_pred.dtype)
    if y_true.ndim + 1 == y_pred.ndim and y_pred.shape[-1] == 1:
        y_true = gx.expand_dims(y_true, -1)
    elif y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        y_true = gx.squeeze(y_true, -1)
    if y_true.shape != y_pred.shape:
        raise ShapeError(
            f"targets have shape {y_true.shape}, predictions {y_pred.shape}",
            at=user_line(),
            remedy="give one-hot rows as targets, or take what is for class numbers, whose name begins with Sparse"
            if y_true.ndim + 1 == y_pred.ndim
            else "make them equal with gx.reshape or gx.expand_dims; a loss does not broadcast",
        )
    return y_true


def as_values(result: Any, what: str) -> Node:
    """What a user's function returned, if it is a node.

    Raises:
        DTypeError: it is something else.
    """
    if not isinstance(result, Node):
        raise DTypeError(
            f"the function of {what} returned {shown(result)}",
            at=user_line(),
            remedy="return a node: compute with graphc's functions from the targets and predictions it is given",
        )
    return result


def takes_both(function: Callable[..., Any], what: str, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """A user's function, if it can be called with targets and predictions.

    Raises:
        DTypeError: it takes other arguments.
    """
    try:
        inspect.signature(function).bind(None, None, **arguments)
    except TypeError as error:
        raise DTypeError(
            f"{what} is not called with targets and predictions: {error}",
            at=user_line(),
            remedy="write it as a function of (y_true, y_pred)",
        ) from None
    except ValueError:  # what is written in C may not say what it takes
        pass
    return function


def reduce_weighted(values: Node, weight: Node | None, mask: Node | None, reduction: str | None) -> Node:
    """Reduce values with weights; with a mask the mean is over the values that count.

    Where nothing counts, the mean is 0.

    Shapes: weight and mask have the shape of the values, or lack trailing axes.
    """
    factor = None
    if mask is not None:
        factor = gx.cast(extended(mask, values), values.dtype)
        if reduction in _MEANS:
            total = gx.size_of(product(mask.shape), values.dtype)
            factor = factor * (total / gx.maximum(gx.sum(gx.cast(mask, values.dtype)), EPSILON))
    if weight is not None:
        given = gx.cast(extended(weight, values), values.dtype)
        factor = given if factor is None else factor * given
    if factor is not None:
        values = values * factor
    if reduction in ("none", None):
        return values
    if reduction == "sum":
        return gx.sum(values)
    if reduction == "mean_with_sample_weight" and factor is not None:
        return divide_no_nan(gx.sum(values), gx.sum(gx.broadcast_to(factor, values.shape)))
    return gx.mean(values)


def divide_no_nan(a: Node, b: Node) -> Node:
    """``a / b``, and 0 where b is 0."""
    nothing = gx.equal(b, 0.0)
    return gx.where(nothing, 0.0, a / gx.where(nothing, 1.0, b))


def extended(weight: Node, values: Node) -> Node:
    """A weight or mask with as many axes as the values, so that it broadcasts along the trailing ones."""
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
        self.fn = takes_both(fn, f"the loss {self.name!r}", kwargs)
        self._arguments = kwargs

    def call(self, y_true: Node, y_pred: Node) -> Node:
        return as_values(self.fn(y_true, y_pred, **self._arguments), f"the loss {self.name!r}")
