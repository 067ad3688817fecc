"""Optimizers by their Keras 3 names, arguments, defaults and formulas. Subclass :class:`Optimizer` for your own."""

from __future__ import annotations

from typing import Any

from graphc.errors import GraphError
from graphc.frontend import schedules as schedules
from graphc.frontend.config import lookup, user_line
from graphc.frontend.optimizers.adafactor import Adafactor as Adafactor
from graphc.frontend.optimizers.adam import Adam as Adam
from graphc.frontend.optimizers.adam import Adamax as Adamax
from graphc.frontend.optimizers.adam import AdamW as AdamW
from graphc.frontend.optimizers.adam import Lamb as Lamb
from graphc.frontend.optimizers.adam import Nadam as Nadam
from graphc.frontend.optimizers.adaptive import Adadelta as Adadelta
from graphc.frontend.optimizers.adaptive import Adagrad as Adagrad
from graphc.frontend.optimizers.adaptive import Ftrl as Ftrl
from graphc.frontend.optimizers.adaptive import RMSprop as RMSprop
from graphc.frontend.optimizers.base import Optimizer as Optimizer
from graphc.frontend.optimizers.descent import SGD as SGD
from graphc.frontend.optimizers.descent import Lion as Lion
from graphc.frontend.optimizers.groups import Grouped as Grouped
from graphc.frontend.optimizers.loss_scale import LossScaleOptimizer as LossScaleOptimizer
from graphc.frontend.optimizers.muon import Muon as Muon

_OPTIMIZERS = (SGD, Adam, AdamW, Nadam, Adamax, Lamb, RMSprop, Adagrad, Adadelta, Ftrl, Adafactor, Lion, Muon)
_BY_NAME: dict[str, type[Optimizer]] = {cls.__name__.lower(): cls for cls in _OPTIMIZERS}


def get(value: Any) -> Optimizer:
    """An optimizer from a name, an optimizer or its class.

    >>> get("adam").learning_rate
    0.001
    """
    found = lookup(value, _BY_NAME, "optimizer")
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Optimizer):
        raise GraphError(
            f"{value!r} is not an optimizer", at=user_line(), remedy="give 'adam', 'sgd' or gx.optimizers.Adam(...)"
        )
    return made


__all__ = [
    "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Grouped", "Lamb", "Lion",
    "LossScaleOptimizer", "Muon", "Nadam", "Optimizer", "RMSprop", "get", "schedules",
]  # fmt: skip
