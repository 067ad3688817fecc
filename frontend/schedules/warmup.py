"""Schedules that begin small, and schedules made of schedules."""

from __future__ import annotations

from collections.abc import Sequence

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import Bound, NonNegative, Positive
from graphc.frontend.config import user_line
from graphc.frontend.schedules.base import LearningRateSchedule, as_schedule, rising
from graphc.ir.node import Node


class InverseSquareRoot(LearningRateSchedule):
    """Up in a straight line, then down with the root of the steps: ``peak * min(n / warmup, sqrt(warmup / n))``.

    n counts from 1, so that the first step moves.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3, with the peak as the argument.

    >>> InverseSquareRoot(1.0, warmup_steps=4)([0, 1, 3, 15]).tolist()
    [0.25, 0.5, 1.0, 0.5]
    """

    def __init__(self, peak_learning_rate: NonNegative, warmup_steps: Bound = 4000) -> None:
        self.peak_learning_rate = peak_learning_rate
        self.warmup_steps = warmup_steps

    def rate(self, step: Node) -> Node:
        n = step + 1.0
        return self.peak_learning_rate * gx.minimum(n / self.warmup_steps, gx.sqrt(self.warmup_steps / n))


class Noam(LearningRateSchedule):
    """The Transformer's rate: ``scale * d_model**-0.5 * min(n**-0.5, n * warmup_steps**-1.5)``, n counted from 1.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 3.

    >>> round(Noam(d_model=512)(3999), 6)
    0.000699
    """

    def __init__(self, d_model: Positive, warmup_steps: Bound = 4000, scale: NonNegative = 1.0) -> None:
        self.d_model, self.warmup_steps = d_model, warmup_steps
        self.scale = scale

    def rate(self, step: Node) -> Node:
        return InverseSquareRoot(self.scale * (self.d_model * self.warmup_steps) ** -0.5, self.warmup_steps).rate(step)


class LinearWarmup(LearningRateSchedule):
    """In a straight line from ``start`` to the first rate of another schedule, which then begins.

    Args:
        schedule: what follows: a schedule or a number.
        warmup_steps: how long it takes to get there.
        start: the rate of the first step.

    Source: Goyal et al. 2017, Accurate, large minibatch SGD, https://arxiv.org/abs/1706.02677, section 2.2.

    >>> decay = gx.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    >>> LinearWarmup(decay, warmup_steps=4)([0, 2, 4, 5]).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """

    def __init__(self, schedule: LearningRateSchedule | float, warmup_steps: Bound, start: NonNegative = 0.0) -> None:
        self.schedule, self.warmup_steps = as_schedule(schedule), warmup_steps
        self.start = start

    def rate(self, step: Node) -> Node:
        target = self.schedule(0.0)
        rising = (target - self.start) * (step / self.warmup_steps) + self.start
        following = self.schedule.rate(gx.maximum(step - self.warmup_steps, 0.0))
        return gx.where(gx.less(step, self.warmup_steps), rising, following)


class Sequential(LearningRateSchedule):
    """Schedules one after another, each with its own count of steps from 0.

    Args:
        schedules: schedules or numbers.
        boundaries: the steps at which the second, the third, ... begin.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.SequentialLR.html

    >>> decay = gx.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    >>> Sequential([0.1, decay], [2])([0, 1, 2, 3]).tolist()
    [0.1, 0.1, 1.0, 0.5]
    """

    def __init__(self, schedules: Sequence[LearningRateSchedule | float], boundaries: Sequence[float]) -> None:
        if len(boundaries) != len(schedules) - 1:
            raise AxisError(
                f"{len(boundaries)} boundaries part {len(boundaries) + 1} schedules, {len(schedules)} were given",
                at=user_line(),
                remedy="give one schedule more than boundaries",
            )
        self.schedules, self.boundaries = [as_schedule(item) for item in schedules], rising(boundaries)

    def rate(self, step: Node) -> Node:
        found = self.schedules[0](step)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            later = schedule.rate(gx.maximum(step - float(boundary), 0.0))
            found = gx.where(gx.less(step, float(boundary)), found, later)
        return found


class Chained(LearningRateSchedule):
    """The product of schedules: the first says the rate, the others are factors.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ChainedScheduler.html

    >>> stairs = gx.optimizers.schedules.StepDecay(0.5, 2)
    >>> Chained([stairs, LinearWarmup(1.0, 4)])([0, 1, 4]).round(6).tolist()
    [0.0, 0.125, 0.005]
    """

    def __init__(self, schedules: Sequence[LearningRateSchedule | float]) -> None:
        if not schedules:
            raise AxisError("there is no schedule to chain", at=user_line(), remedy="give at least one")
        self.schedules = [as_schedule(item) for item in schedules]

    def rate(self, step: Node) -> Node:
        found = self.schedules[0](step)
        for schedule in self.schedules[1:]:
            found = found * schedule(step)
        return found
