"""Schedules that fall with the steps, once and for all."""

from __future__ import annotations

from collections.abc import Sequence

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import Bound, NonNegative
from graphc.frontend.config import user_line
from graphc.frontend.schedules.base import LearningRateSchedule, constant, rising
from graphc.ir.node import Node


class StepDecay(LearningRateSchedule):
    """``initial * gamma ** floor(step / step_size)``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.StepLR.html

    >>> StepDecay(1.0, step_size=2)([0, 1, 2, 3, 4]).round(4).tolist()
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    def __init__(self, initial_learning_rate: NonNegative, step_size: Bound, gamma: NonNegative = 0.1) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.step_size, self.gamma = step_size, gamma

    def rate(self, step: Node) -> Node:
        return self.initial_learning_rate * gx.pow(constant(self.gamma), gx.floor(step / self.step_size))


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[0]`` up to and including step ``boundaries[0]``, then ``values[1]``, and so on.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/piecewise_constant_decay/

    >>> PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1])([10, 11, 20, 21]).tolist()
    [1.0, 0.5, 0.5, 0.1]
    """

    def __init__(
        self, boundaries: Sequence[float], values: Sequence[NonNegative], name: str = "PiecewiseConstant"
    ) -> None:
        if len(boundaries) != len(values) - 1:
            raise AxisError(
                f"{len(boundaries)} boundaries part {len(boundaries) + 1} values, {len(values)} were given",
                at=user_line(),
                remedy="give one value more than boundaries",
            )
        self.boundaries, self.values, self.name = rising(boundaries), list(values), name

    def rate(self, step: Node) -> Node:
        found = constant(self.values[-1])
        for boundary, value in zip(reversed(self.boundaries), reversed(self.values[:-1]), strict=True):
            found = gx.where(gx.less_equal(step, float(boundary)), constant(value), found)
        return found


class ExponentialDecay(LearningRateSchedule):
    """``initial * decay_rate ** (step / decay_steps)``, the quotient rounded down if ``staircase``.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/exponential_decay/

    >>> ExponentialDecay(1.0, decay_steps=10, decay_rate=0.25)(5)
    0.5
    """

    def __init__(
        self,
        initial_learning_rate: NonNegative,
        decay_steps: Bound,
        decay_rate: NonNegative,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps, self.decay_rate = decay_steps, decay_rate
        self.staircase, self.name = staircase, name

    def rate(self, step: Node) -> Node:
        passed = step / self.decay_steps
        return self.initial_learning_rate * gx.pow(
            constant(self.decay_rate), gx.floor(passed) if self.staircase else passed
        )


class InverseTimeDecay(LearningRateSchedule):
    """``initial / (1 + decay_rate * step / decay_steps)``, the quotient rounded down if ``staircase``.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/inverse_time_decay/

    >>> InverseTimeDecay(1.0, decay_steps=10, decay_rate=2.0)(5)
    0.5
    """

    def __init__(
        self,
        initial_learning_rate: NonNegative,
        decay_steps: Bound,
        decay_rate: NonNegative,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps, self.decay_rate = decay_steps, decay_rate
        self.staircase, self.name = staircase, name

    def rate(self, step: Node) -> Node:
        passed = step / self.decay_steps
        return self.initial_learning_rate / (1.0 + self.decay_rate * (gx.floor(passed) if self.staircase else passed))


class PolynomialDecay(LearningRateSchedule):
    """``(initial - end) * (1 - step / decay_steps) ** power + end``, then ``end``.

    With ``cycle`` the steps of decay are doubled, tripled, ... whenever they are over.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/polynomial_decay/

    >>> PolynomialDecay(1.0, decay_steps=10, end_learning_rate=0.5)([0, 5, 10, 20]).tolist()
    [1.0, 0.75, 0.5, 0.5]
    """

    def __init__(
        self,
        initial_learning_rate: NonNegative,
        decay_steps: Bound,
        end_learning_rate: NonNegative = 0.0001,
        power: NonNegative = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps, self.end_learning_rate = decay_steps, end_learning_rate
        self.power, self.cycle, self.name = power, cycle, name

    def rate(self, step: Node) -> Node:
        if self.cycle:
            passed = step / (self.decay_steps * gx.maximum(gx.ceil(step / self.decay_steps), 1.0))
        else:
            passed = gx.minimum(step / self.decay_steps, 1.0)
        span = self.initial_learning_rate - self.end_learning_rate
        return span * gx.pow(1.0 - passed, self.power) + self.end_learning_rate
