"""Schedules along the cosine, and there and back: decay, restarts, one cycle."""

from __future__ import annotations

import math

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import Bound, NonNegative, Part, Positive
from graphc.frontend.config import user_line
from graphc.frontend.schedules.base import LearningRateSchedule, constant
from graphc.ir.node import Node


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
        initial_learning_rate: NonNegative,
        decay_steps: Bound,
        alpha: NonNegative = 0.0,
        name: str = "CosineDecay",
        warmup_target: NonNegative | None = None,
        warmup_steps: NonNegative = 0,
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps, self.alpha, self.name = decay_steps, alpha, name
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

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
        initial_learning_rate: NonNegative,
        first_decay_steps: Bound,
        t_mul: Positive = 2.0,
        m_mul: NonNegative = 1.0,
        alpha: NonNegative = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
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
        height = gx.pow(constant(self.m_mul), number)
        return self.initial_learning_rate * ((1.0 - self.alpha) * height * half_wave(part) + self.alpha)

    def _length(self, number: Node) -> Node:
        return gx.pow(constant(self.t_mul), number)


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
        max_learning_rate: NonNegative,
        total_steps: Positive,
        pct_start: Part = 0.3,
        anneal_strategy: str = "cos",
        div_factor: Positive = 25.0,
        final_div_factor: Positive = 1e4,
        three_phase: bool = False,
    ) -> None:
        self.max_learning_rate = max_learning_rate
        self.total_steps, self.pct_start = total_steps, pct_start
        if anneal_strategy not in ("cos", "linear"):
            raise AxisError(
                f"anneal_strategy {anneal_strategy!r} is not known", at=user_line(), remedy="use cos or linear"
            )
        self.anneal_strategy, self.three_phase = anneal_strategy, three_phase
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor

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
            piece = self._anneal(high, low, (step - begin) / (stop - begin) if stop > begin else constant(1.0))
            found = piece if found is None else gx.where(gx.less_equal(step, stop), piece, found)
        assert found is not None  # there are two phases at least
        return found

    def _anneal(self, start: float, end: float, part: Node) -> Node:
        if self.anneal_strategy == "linear":
            return (end - start) * part + start
        return end + (start - end) * half_wave(part)


def half_wave(part: Node) -> Node:
    """From 1 at 0 to 0 at 1 along the cosine."""
    return 0.5 * (1.0 + gx.cos(math.pi * part))
