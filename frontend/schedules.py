"""Learning rates as functions of the step: part of the graph, so that they run and export with it.

A schedule gets the number of batches that there have been, 0 at the first step, in double precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

import graphc as gx
from graphc.errors import AxisError
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

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = _not_negative("learning_rate", learning_rate)

    def rate(self, step: Node) -> Node:
        return _constant(self.learning_rate)


class StepDecay(LearningRateSchedule):
    """``initial * gamma ** floor(step / step_size)``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.StepLR.html

    >>> StepDecay(1.0, step_size=2)([0, 1, 2, 3, 4]).round(4).tolist()
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    def __init__(self, initial_learning_rate: float, step_size: int, gamma: float = 0.1) -> None:
        self.initial_learning_rate = _not_negative("initial_learning_rate", initial_learning_rate)
        self.step_size, self.gamma = _positive("step_size", step_size), gamma

    def rate(self, step: Node) -> Node:
        return self.initial_learning_rate * gx.pow(_constant(self.gamma), gx.floor(step / self.step_size))


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[0]`` up to and including step ``boundaries[0]``, then ``values[1]``, and so on.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/piecewise_constant_decay/

    >>> PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1])([10, 11, 20, 21]).tolist()
    [1.0, 0.5, 0.5, 0.1]
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1:
            raise AxisError(
                f"{len(boundaries)} boundaries part {len(boundaries) + 1} values, {len(values)} were given",
                at=user_line(),
                remedy="give one value more than boundaries",
            )
        self.boundaries, self.values, self.name = _rising(boundaries), list(values), name

    def rate(self, step: Node) -> Node:
        found = _constant(self.values[-1])
        for boundary, value in zip(reversed(self.boundaries), reversed(self.values[:-1]), strict=True):
            found = gx.where(gx.less_equal(step, float(boundary)), _constant(value), found)
        return found


class ExponentialDecay(LearningRateSchedule):
    """``initial * decay_rate ** (step / decay_steps)``, the quotient rounded down if ``staircase``.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/exponential_decay/

    >>> ExponentialDecay(1.0, decay_steps=10, decay_rate=0.25)(5)
    0.5
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = _not_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps, self.decay_rate = _positive("decay_steps", decay_steps), decay_rate
        self.staircase, self.name = staircase, name

    def rate(self, step: Node) -> Node:
        passed = step / self.decay_steps
        return self.initial_learning_rate * gx.pow(
            _constant(self.decay_rate), gx.floor(passed) if self.staircase else passed
        )


class InverseTimeDecay(LearningRateSchedule):
    """``initial / (1 + decay_rate * step / decay_steps)``, the quotient rounded down if ``staircase``.

    Source: https://keras.io/api/optimizers/learning_rate_schedules/inverse_time_decay/

    >>> InverseTimeDecay(1.0, decay_steps=10, decay_rate=2.0)(5)
    0.5
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = _not_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps, self.decay_rate = _positive("decay_steps", decay_steps), decay_rate
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
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = _not_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps, self.end_learning_rate = _positive("decay_steps", decay_steps), end_learning_rate
        self.power, self.cycle, self.name = power, cycle, name

    def rate(self, step: Node) -> Node:
        if self.cycle:
            passed = step / (self.decay_steps * gx.maximum(gx.ceil(step / self.decay_steps), 1.0))
        else:
            passed = gx.minimum(step / self.decay_steps, 1.0)
        span = self.initial_learning_rate - self.end_learning_rate
        return span * gx.pow(1.0 - passed, self.power) + self.end_learning_rate


class CosineDecay(LearningRateSchedule):
    """Half a wave of the cosine from the first rate down to ``alpha`` times it, after a linear warm-up if asked for.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: how long the decay takes.
        alpha: the part of the rate that is left.
        name: for texts.
        warmup_target: the rate to which the warm-up leads, from which the decay starts; None for no warm-up.
        warmup_steps: how long the warm-up takes, before the decay.

    Source: Loshchilov and Hutter 2017, SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.

    >>> CosineDecay(0.0, decay_steps=10, warmup_target=1.0, warmup_steps=2)([0, 1, 2, 7, 12]).round(4).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        self.initial_learning_rate = _not_negative("initial_learning_rate", initial_learning_rate)
        self.decay_steps, self.alpha, self.name = _positive("decay_steps", decay_steps), alpha, name
        self.warmup_target, self.warmup_steps = warmup_target, _not_negative("warmup_steps", warmup_steps)

    def rate(self, step: Node) -> Node:
        if self.warmup_target is None:
            return self.initial_learning_rate * self._factor(step)
        decayed = self.warmup_target * self._factor(step - self.warmup_steps)
        if not self.warmup_steps:
            return decayed
        rise = (self.warmup_target - self.initial_learning_rate) / self.warmup_steps
        return gx.where(gx.less(step, self.warmup_steps), step * rise + self.initial_learning_rate, decayed)

    def _factor(self, step: Node) -> Node:
        return (1.0 - self.alpha) * half_wave(gx.minimum(step / self.decay_steps, 1.0)) + self.alpha


class CosineDecayRestarts(LearningRateSchedule):
    """Half waves of the cosine one after another, each ``t_mul`` times as long and ``m_mul`` times as high.

    Source: Loshchilov and Hutter 2017, SGDR, https://arxiv.org/abs/1608.03983, equation 5.

    >>> CosineDecayRestarts(1.0, first_decay_steps=10)([0, 5, 10, 20, 30]).round(4).tolist()
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = _not_negative("initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = _positive("first_decay_steps", first_decay_steps)
        if not t_mul >= 1:
            raise AxisError(f"t_mul is at least 1, not {t_mul!r}", at=user_line(), remedy="1 keeps the length")
        self.t_mul, self.m_mul, self.alpha, self.name = float(t_mul), m_mul, alpha, name

    def rate(self, step: Node) -> Node:
        passed = step / self.first_decay_steps
        if self.t_mul == 1:
            number = gx.floor(passed)
            part = passed - number
        else:
            # After n restarts (t_mul**n - 1) / (t_mul - 1) first lengths have passed. A logarithm that falls a rounding
            # short of n at the very step of a restart would give the end of a wave instead of the next one's start.
            grown = passed * (self.t_mul - 1.0) + 1.0
            number = gx.floor(gx.log(grown) / math.log(self.t_mul))
            number = gx.where(gx.less_equal(self._length(number + 1.0), grown), number + 1.0, number)
            number = gx.where(gx.greater(self._length(number), grown), number - 1.0, number)
            part = (grown - self._length(number)) / ((self.t_mul - 1.0) * self._length(number))
        height = gx.pow(_constant(self.m_mul), number)
        return self.initial_learning_rate * ((1.0 - self.alpha) * height * half_wave(part) + self.alpha)

    def _length(self, number: Node) -> Node:
        return gx.pow(_constant(self.t_mul), number)


class OneCycle(LearningRateSchedule):
    """Up to the largest rate and down to nearly nothing, once.

    From ``max / div_factor`` up to ``max`` in the first ``pct_start`` of the steps, then down to
    ``max / div_factor / final_div_factor``; with ``three_phase`` first down to the beginning, as long as it went up.
    After ``total_steps`` the rate stays. Momentum is not cycled.

    Args:
        max_learning_rate: the top.
        total_steps: the length of the cycle.
        pct_start: the part of the steps that go up.
        anneal_strategy: ``cos`` or ``linear``.
        div_factor: how much smaller the first rate is than the top.
        final_div_factor: how much smaller the last rate is than the first.
        three_phase: see above.

    Source: Smith and Topin 2018, Super-convergence, https://arxiv.org/abs/1708.07120, as
        https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html computes it.

    >>> OneCycle(1.0, total_steps=11, pct_start=0.5, anneal_strategy="linear")([0, 4.5, 10]).round(4).tolist()
    [0.04, 1.0, 0.0]
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        self.max_learning_rate = _not_negative("max_learning_rate", max_learning_rate)
        self.total_steps, self.pct_start = _positive("total_steps", total_steps), pct_start
        if not 0 <= pct_start <= 1:
            raise AxisError(f"pct_start is from 0 to 1, not {pct_start!r}", at=user_line(), remedy="common is 0.3")
        if anneal_strategy not in ("cos", "linear"):
            raise AxisError(
                f"anneal_strategy {anneal_strategy!r} is not known", at=user_line(), remedy="use cos or linear"
            )
        self.anneal_strategy, self.three_phase = anneal_strategy, three_phase
        self.div_factor = _positive("div_factor", div_factor)
        self.final_div_factor = _positive("final_div_factor", final_div_factor)

    def rate(self, step: Node) -> Node:
        first = self.max_learning_rate / self.div_factor
        last = first / self.final_div_factor
        up, end = self.pct_start * self.total_steps - 1.0, self.total_steps - 1.0
        phases = [(up, first, self.max_learning_rate)]
        if self.three_phase:
            phases += [(2.0 * up, self.max_learning_rate, first), (end, first, last)]
        else:
            phases += [(end, self.max_learning_rate, last)]
        starts = [0.0, *(stop for stop, _, _ in phases)]
        step = gx.minimum(step, end)
        found: Node | None = None
        for begin, (stop, high, low) in reversed(list(zip(starts, phases, strict=False))):
            piece = self._anneal(high, low, (step - begin) / (stop - begin) if stop > begin else _constant(1.0))
            found = piece if found is None else gx.where(gx.less_equal(step, stop), piece, found)
        assert found is not None  # there are two phases at least
        return found

    def _anneal(self, start: float, end: float, part: Node) -> Node:
        if self.anneal_strategy == "linear":
            return (end - start) * part + start
        return end + (start - end) * half_wave(part)


class InverseSquareRoot(LearningRateSchedule):
    """Up in a straight line, then down with the root of the steps: ``peak * min(n / warmup, sqrt(warmup / n))``.

    n counts from 1, so that the first step moves.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 5.3, with the peak as the argument.

    >>> InverseSquareRoot(1.0, warmup_steps=4)([0, 1, 3, 15]).tolist()
    [0.25, 0.5, 1.0, 0.5]
    """

    def __init__(self, peak_learning_rate: float, warmup_steps: float = 4000) -> None:
        self.peak_learning_rate = _not_negative("peak_learning_rate", peak_learning_rate)
        self.warmup_steps = _positive("warmup_steps", warmup_steps)

    def rate(self, step: Node) -> Node:
        n = step + 1.0
        return self.peak_learning_rate * gx.minimum(n / self.warmup_steps, gx.sqrt(self.warmup_steps / n))


class Noam(LearningRateSchedule):
    """The Transformer's rate: ``scale * d_model**-0.5 * min(n**-0.5, n * warmup_steps**-1.5)``, n counted from 1.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 3.

    >>> round(Noam(d_model=512)(3999), 6)
    0.000699
    """

    def __init__(self, d_model: int, warmup_steps: float = 4000, scale: float = 1.0) -> None:
        self.d_model, self.warmup_steps = _positive("d_model", d_model), _positive("warmup_steps", warmup_steps)
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

    >>> LinearWarmup(ExponentialDecay(1.0, 1, 0.5), warmup_steps=4)([0, 2, 4, 5]).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """

    def __init__(self, schedule: LearningRateSchedule | float, warmup_steps: float, start: float = 0.0) -> None:
        self.schedule, self.warmup_steps = _schedule(schedule), _positive("warmup_steps", warmup_steps)
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

    >>> Sequential([0.1, ExponentialDecay(1.0, 1, 0.5)], [2])([0, 1, 2, 3]).tolist()
    [0.1, 0.1, 1.0, 0.5]
    """

    def __init__(self, schedules: Sequence[LearningRateSchedule | float], boundaries: Sequence[float]) -> None:
        if len(boundaries) != len(schedules) - 1:
            raise AxisError(
                f"{len(boundaries)} boundaries part {len(boundaries) + 1} schedules, {len(schedules)} were given",
                at=user_line(),
                remedy="give one schedule more than boundaries",
            )
        self.schedules, self.boundaries = [_schedule(item) for item in schedules], _rising(boundaries)

    def rate(self, step: Node) -> Node:
        found = self.schedules[0](step)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            later = schedule.rate(gx.maximum(step - float(boundary), 0.0))
            found = gx.where(gx.less(step, float(boundary)), found, later)
        return found


class Chained(LearningRateSchedule):
    """The product of schedules: the first says the rate, the others are factors.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ChainedScheduler.html

    >>> Chained([StepDecay(0.5, 2), LinearWarmup(1.0, 4)])([0, 1, 4]).round(6).tolist()
    [0.0, 0.125, 0.005]
    """

    def __init__(self, schedules: Sequence[LearningRateSchedule | float]) -> None:
        if not schedules:
            raise AxisError("there is no schedule to chain", at=user_line(), remedy="give at least one")
        self.schedules = [_schedule(item) for item in schedules]

    def rate(self, step: Node) -> Node:
        found = self.schedules[0](step)
        for schedule in self.schedules[1:]:
            found = found * schedule(step)
        return found


def half_wave(part: Node) -> Node:
    """From 1 at 0 to 0 at 1 along the cosine."""
    return 0.5 * (1.0 + gx.cos(math.pi * part))


def _constant(value: float) -> Node:
    return gx.constant(value, DType.float64)


def _schedule(value: Any) -> LearningRateSchedule:
    if isinstance(value, LearningRateSchedule):
        return value
    return Constant(value)


def _rising(boundaries: Sequence[float]) -> list[float]:
    if any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise AxisError(f"boundaries rise, {list(boundaries)} do not", at=user_line(), remedy="sort them")
    return list(boundaries)


def _not_negative(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not value >= 0:
        raise AxisError(f"{name} is a number of at least 0, not {value!r}", at=user_line(), remedy="give 0 or more")
    return float(cast("float", value))


def _positive(name: str, value: Any) -> float:
    if not _not_negative(name, value):
        raise AxisError(f"{name} is above 0", at=user_line(), remedy="common is the number of batches of an epoch")
    return float(value)


__all__ = [
    "Chained", "Constant", "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseSquareRoot",
    "InverseTimeDecay", "LearningRateSchedule", "LinearWarmup", "Noam", "OneCycle", "PiecewiseConstantDecay",
    "PolynomialDecay", "Sequential", "StepDecay",
]  # fmt: skip
