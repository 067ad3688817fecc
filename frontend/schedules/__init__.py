"""Learning rates as functions of the step, in the graph: Keras's schedules and others that papers use."""

from __future__ import annotations

from graphc.frontend.schedules.base import Constant as Constant
from graphc.frontend.schedules.base import LearningRateSchedule as LearningRateSchedule
from graphc.frontend.schedules.decay import ExponentialDecay as ExponentialDecay
from graphc.frontend.schedules.decay import InverseTimeDecay as InverseTimeDecay
from graphc.frontend.schedules.decay import PiecewiseConstantDecay as PiecewiseConstantDecay
from graphc.frontend.schedules.decay import PolynomialDecay as PolynomialDecay
from graphc.frontend.schedules.decay import StepDecay as StepDecay
from graphc.frontend.schedules.warmup import Chained as Chained
from graphc.frontend.schedules.warmup import InverseSquareRoot as InverseSquareRoot
from graphc.frontend.schedules.warmup import LinearWarmup as LinearWarmup
from graphc.frontend.schedules.warmup import Noam as Noam
from graphc.frontend.schedules.warmup import Sequential as Sequential
from graphc.frontend.schedules.waves import CosineDecay as CosineDecay
from graphc.frontend.schedules.waves import CosineDecayRestarts as CosineDecayRestarts
from graphc.frontend.schedules.waves import OneCycle as OneCycle

__all__ = [
    "Chained", "Constant", "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseSquareRoot",
    "InverseTimeDecay", "LearningRateSchedule", "LinearWarmup", "Noam", "OneCycle", "PiecewiseConstantDecay",
    "PolynomialDecay", "Sequential", "StepDecay",
]  # fmt: skip
