"""Learning rates as functions of the step: part of the graph, so that they run and export with it.

A schedule gets the number of batches that there have been, 0 at the first step, in double precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import NonNegative
from graphc.frontend.config import Configurable, user_line
from graphc.ir.node import Node
from graphc.ir.types import DType

Rates = NDArray[np.float64]


class LearningRateSchedule(Configurable):
    """Base of schedules: a subclass defines ``rate``.

    Called on a node a schedule gives a node; called on a number, a number; on an array of steps, an array:

    >>> import graphc as gx
    >>> gx.optimizers.schedules.StepDecay(0.1, step_size=10, gamma=0.5)([0, 9, 10, 20]).tolist()
    [0.1, 0.1, 0.05, 0.025]
    """

    def rate(self, step: Node) -> Node:
        """The learning rate.

        Args:
            step: the number of batches so far, float64.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define rate")

    @overload
    def __call__(self, step: Node) -> Node: ...
    @overload
    def __call__(self, step: float) -> float: ...
    @overload
    def __call__(self, step: Sequence[float] | NDArray[Any]) -> Rates: ...
    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, or at each of several."""
        if isinstance(step, Node):
            return self.rate(gx.cast(step, DType.float64))
        if np.ndim(step) == 0:
            return evaluate(self.rate, float(step))
        return _values(self.rate, np.asarray(step, np.float64))


def evaluate(function: Callable[[Node], Node], step: float) -> float:
    """A function of the step as a number."""
    return float(_values(function, np.array([step], np.float64))[0])


def _values(function: Callable[[Node], Node], steps: Rates) -> Rates:
    step = gx.placeholder("step", (steps.size,), DType.float64)
    rates = gx.broadcast_to(gx.cast(function(step), DType.float64), (steps.size,))
    program = gx.compile({"rates": rates}, inputs=[step], backend="reference")
    return program.call([np.ascontiguousarray(steps).reshape(-1)])[0].reshape(steps.shape)


class Constant(LearningRateSchedule):
    """The same rate at all steps; a part of other schedules.

    >>> Constant(0.1)(1000)
    0.1
    """

    def __init__(self, learning_rate: NonNegative) -> None:
        self.learning_rate = float(learning_rate)

    def rate(self, step: Node) -> Node:
        return constant(self.learning_rate)


def constant(value: float) -> Node:
    """A number in double precision."""
    return gx.constant(value, DType.float64)


def as_schedule(value: Any) -> LearningRateSchedule:
    """A schedule, or a number as one."""
    if isinstance(value, LearningRateSchedule):
        return value
    return Constant(value)


def rising(boundaries: Sequence[float]) -> list[float]:
    """Boundaries in order.

    Raises:
        AxisError: they are not in order.
    """
    if any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise AxisError(f"boundaries rise, {list(boundaries)} do not", at=user_line(), remedy="sort them")
    return list(boundaries)
