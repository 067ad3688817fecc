"""Optimizers that give each weight a rate of its own: Adagrad, Adadelta, RMSprop, Ftrl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import numpy as np

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import LessThanAll, NonNegative, Part
from graphc.frontend.config import user_line
from graphc.frontend.optimizers.base import Optimizer, Options, Rate, Scalars, Slots, zeros_for
from graphc.ir.node import Node, Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


class Adagrad(Optimizer):
    """Steps over the root of the sum of all squared gradients.

    ``a += g**2``, ``p -= rate * g / sqrt(a + epsilon)``.

    Args:
        learning_rate, weight_decay, options: see :class:`Optimizer`.
        initial_accumulator_value: what the sums begin with.
        epsilon: keeps the divisor from 0.

    Source: Duchi, Hazan and Singer 2011, Adaptive subgradient methods, figure 1, diagonal version.

    >>> import graphc as gx
    >>> gx.optimizers.Adagrad(0.01).slots
    ('accumulator',)
    """

    by_element = True
    slots = ("accumulator",)

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        initial_accumulator_value: NonNegative = 0.1,
        epsilon: NonNegative = 1e-7,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.initial_accumulator_value = float(initial_accumulator_value)
        self.epsilon = epsilon

    def first_values(self, parameter: Parameter) -> dict[str, Array]:
        return {"accumulator": np.full_like(zeros_for(parameter), self.initial_accumulator_value)}

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        total = slots["accumulator"] + gx.square(g)
        return p - g * s["rate"] / gx.sqrt(total + self.epsilon), {"accumulator": total}


class Adadelta(Optimizer):
    """Steps whose size is the root mean square of past steps over that of past gradients.

    ``a = rho a + (1 - rho) g**2``, ``d = -sqrt(b + epsilon) / sqrt(a + epsilon) * g``,
    ``b = rho b + (1 - rho) d**2``, ``p += rate * d``.

    Args:
        learning_rate: see :class:`Optimizer`; the paper's is 1.
        rho: how slowly the means forget.
        epsilon: added under both roots.
        weight_decay, options: see :class:`Optimizer`.

    Source: Zeiler 2012, ADADELTA: an adaptive learning rate method, https://arxiv.org/abs/1212.5701, algorithm 1.

    >>> import graphc as gx
    >>> gx.optimizers.Adadelta(1.0).slots
    ('accumulated_grad', 'accumulated_delta_var')
    """

    by_element = True
    slots = ("accumulated_grad", "accumulated_delta_var")

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: LessThanAll = 0.95,
        epsilon: NonNegative = 1e-7,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.rho, self.epsilon = float(rho), epsilon

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        steps = slots["accumulated_delta_var"]
        squares = slots["accumulated_grad"] * self.rho + gx.square(g) * (1.0 - self.rho)
        change = gx.sqrt(steps + self.epsilon) * g / gx.sqrt(squares + self.epsilon)
        steps = steps * self.rho + gx.square(change) * (1.0 - self.rho)
        return p - change * s["rate"], {"accumulated_grad": squares, "accumulated_delta_var": steps}


class RMSprop(Optimizer):
    """Steps over the root of the mean of squared gradients.

    ``v = rho v + (1 - rho) g**2``, ``p -= rate * g / sqrt(v + epsilon)``; centered, the square of the gradients' own
    mean is taken off v; with momentum ``b = momentum * b + rate * g / sqrt(v + epsilon)``, ``p -= b``.

    Args:
        learning_rate, weight_decay, options: see :class:`Optimizer`.
        rho: how slowly the means forget.
        momentum: the part of the last step that goes on.
        epsilon: added under the root.
        centered: divide by the gradients' standard deviation.

    Source: Tieleman and Hinton 2012, Neural networks for machine learning, lecture 6.5; centered and with momentum:
        Graves 2013, https://arxiv.org/abs/1308.0850, equations 38 to 41.

    >>> import graphc as gx
    >>> gx.optimizers.RMSprop(centered=True, momentum=0.9).slots
    ('velocity', 'momentum', 'average_gradient')
    """

    by_element = True

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: LessThanAll = 0.9,
        momentum: Part = 0.0,
        epsilon: NonNegative = 1e-7,
        centered: bool = False,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.rho, self.momentum = float(rho), float(momentum)
        self.epsilon, self.centered = epsilon, centered
        more = (("momentum",) if momentum else ()) + (("average_gradient",) if centered else ())
        self.slots = ("velocity", *more)

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        changed = {"velocity": slots["velocity"] * self.rho + gx.square(g) * (1.0 - self.rho)}
        spread = changed["velocity"]
        if self.centered:
            changed["average_gradient"] = slots["average_gradient"] * self.rho + g * (1.0 - self.rho)
            spread = spread - gx.square(changed["average_gradient"])
        change = g * s["rate"] / gx.sqrt(spread + self.epsilon)
        if self.momentum:
            change = changed["momentum"] = slots["momentum"] * self.momentum + change
        return p - change, changed


class Ftrl(Optimizer):
    """Follow the regularized leader: weights in closed form from sums, many of them exactly 0 under an L1 penalty.

    ``n' = n + g**2``, ``z += g + 2 shrinkage p - (n'**-power - n**-power) / rate * p``,
    ``p = (clip(z, -l1, l1) - z) / ((beta + n'**-power) / rate + 2 l2)``.

    Args:
        learning_rate, weight_decay, options: see :class:`Optimizer`.
        learning_rate_power: how the rate falls with the sum of squares; 0 keeps it.
        initial_accumulator_value: what the sums of squares begin with.
        l1_regularization_strength, l2_regularization_strength: penalties on the weights.
        l2_shrinkage_regularization_strength: a penalty on the weights in the gradient alone.
        beta: added to the root of the sums.

    Source: McMahan et al. 2013, Ad click prediction: a view from the trenches, algorithm 1.

    >>> import graphc as gx
    >>> gx.optimizers.Ftrl(0.1, l1_regularization_strength=0.01).slots
    ('accumulator', 'linear')
    """

    by_element = True
    slots = ("accumulator", "linear")

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: NonNegative = 0.1,
        l1_regularization_strength: NonNegative = 0.0,
        l2_regularization_strength: NonNegative = 0.0,
        l2_shrinkage_regularization_strength: NonNegative = 0.0,
        beta: NonNegative = 0.0,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        if learning_rate_power > 0:
            raise AxisError(
                f"learning_rate_power is at most 0, not {learning_rate_power!r}",
                at=user_line(),
                remedy="common is -0.5",
            )
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = float(initial_accumulator_value)
        self.l1 = float(l1_regularization_strength)
        self.l2 = float(l2_regularization_strength)
        self.shrinkage = float(l2_shrinkage_regularization_strength)
        self.beta = beta

    def first_values(self, parameter: Parameter) -> dict[str, Array]:
        zeros = zeros_for(parameter)
        return {"accumulator": np.full_like(zeros, self.initial_accumulator_value), "linear": zeros}

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        return {"rate": rate, "constant": 2.0 * self.l2 + self.beta / rate}

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        before, after = slots["accumulator"], slots["accumulator"] + gx.square(g)
        power = -self.learning_rate_power
        grown = gx.pow(after, power)
        used = g + p * (2.0 * self.shrinkage) if self.shrinkage else g
        z = slots["linear"] + (used - (grown - gx.pow(before, power)) / s["rate"] * p)
        new = (gx.minimum(gx.maximum(z, -self.l1), self.l1) - z) / (grown / s["rate"] + s["constant"])
        return new, {"accumulator": after, "linear": z}
