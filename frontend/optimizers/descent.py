"""Optimizers whose step has the direction of a gradient or of its signs: SGD, Lion."""

from __future__ import annotations

from typing import Unpack

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import LessThanAll, NonNegative, Part
from graphc.frontend.config import user_line
from graphc.frontend.optimizers.base import Optimizer, Options, Rate, Scalars, Slots
from graphc.ir.node import Node


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    ``p -= rate * g``; with momentum ``v = momentum * v - rate * g`` and ``p += v``, with Nesterov's
    ``p += momentum * v - rate * g``.

    Args:
        learning_rate: see :class:`Optimizer`.
        momentum: the part of the last step that goes on, from 0 to 1.
        nesterov: look ahead along the momentum.
        weight_decay, options: see :class:`Optimizer`.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep learning, equations 1 to 4.

    >>> import graphc as gx
    >>> gx.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0).slots
    ('momentum',)
    """

    by_element = True

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: Part = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.momentum = float(momentum)
        self.nesterov = nesterov
        self.slots = ("momentum",) if momentum else ()

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        if not self.slots:
            return p - g * s["rate"], {}
        velocity = slots["momentum"] * self.momentum - g * s["rate"]
        if self.nesterov:
            return p + (velocity * self.momentum - g * s["rate"]), {"momentum": velocity}
        return p + velocity, {"momentum": velocity}


class Lion(Optimizer):
    """Steps of one size, in the signs of a mean of gradients.

    ``p -= rate * sign(beta_1 m + (1 - beta_1) g)``, then ``m = beta_2 m + (1 - beta_2) g``.

    Args:
        learning_rate: see :class:`Optimizer`; a third to a tenth of Adam's.
        beta_1: how much of the mean goes into the signs.
        beta_2: how slowly the mean forgets.
        weight_decay, options: see :class:`Optimizer`.

    Source: Chen et al. 2023, Symbolic discovery of optimization algorithms, https://arxiv.org/abs/2302.06675,
        algorithm 2.

    >>> import graphc as gx
    >>> gx.optimizers.Lion(1e-4, weight_decay=0.1).learning_rate
    0.0001
    """

    by_element = True
    slots = ("momentum",)

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: LessThanAll = 0.9,
        beta_2: LessThanAll = 0.99,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        if beta_1 == 0:
            raise AxisError("beta_1 of Lion is above 0", at=user_line(), remedy="common is 0.9")
        self.beta_1, self.beta_2 = float(beta_1), float(beta_2)

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m = slots["momentum"]
        new = p - s["rate"] * gx.sign(m * self.beta_1 + g * (1.0 - self.beta_1))
        return new, {"momentum": m * self.beta_2 + g * (1.0 - self.beta_2)}
