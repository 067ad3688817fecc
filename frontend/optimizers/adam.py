"""Adam and its kin: steps by a mean of gradients over a measure of their size."""

from __future__ import annotations

from typing import Unpack

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import LessThanAll, NonNegative
from graphc.frontend.config import user_line
from graphc.frontend.optimizers.base import Optimizer, Options, Rate, Scalars, Slots
from graphc.frontend.optimizers.gradients import squared_norm
from graphc.ir.node import Node
from graphc.ir.types import DType


class _Moments(Optimizer):
    """The arguments that all of the family take, and its means."""

    by_element = True

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: LessThanAll = 0.9,
        beta_2: LessThanAll = 0.999,
        epsilon: NonNegative = 1e-7,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1, self.beta_2, self.epsilon = float(beta_1), float(beta_2), epsilon

    def first_moment(self, slots: Slots, g: Node) -> Node:
        """``m + (1 - beta_1) (g - m)``."""
        return slots["momentum"] + (g - slots["momentum"]) * (1.0 - self.beta_1)

    def second_moment(self, slots: Slots, g: Node) -> Node:
        """``v + (1 - beta_2) (g**2 - v)``."""
        return slots["velocity"] + (gx.square(g) - slots["velocity"]) * (1.0 - self.beta_2)


class Adam(_Moments):
    """Steps by the mean of past gradients over the root of the mean of their squares.

    ``m += (1 - beta_1) (g - m)``, ``v += (1 - beta_2) (g**2 - v)``,
    ``p -= rate sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)``.

    Args:
        learning_rate: see :class:`Optimizer`.
        beta_1, beta_2: how slowly the two means forget.
        epsilon: keeps the divisor from 0 (the paper's epsilon-hat).
        amsgrad: divide by the largest v so far.
        weight_decay, options: see :class:`Optimizer`.

    Source: Kingma and Ba 2015, Adam: a method for stochastic optimization, https://arxiv.org/abs/1412.6980, end of
        section 2; for ``amsgrad`` Reddi, Kale and Kumar 2018, On the convergence of Adam and beyond, algorithm 2.

    >>> import graphc as gx
    >>> gx.optimizers.Adam(amsgrad=True).slots
    ('momentum', 'velocity', 'velocity_hat')
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: LessThanAll = 0.9,
        beta_2: LessThanAll = 0.999,
        epsilon: NonNegative = 1e-7,
        amsgrad: bool = False,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.amsgrad = amsgrad
        self.slots = ("momentum", "velocity", *(("velocity_hat",) if amsgrad else ()))

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        return {"alpha": rate * gx.sqrt(1.0 - power(self.beta_2, step)) / (1.0 - power(self.beta_1, step))}

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m, v = self.first_moment(slots, g), self.second_moment(slots, g)
        changed = {"momentum": m, "velocity": v}
        if self.amsgrad:
            v = changed["velocity_hat"] = gx.maximum(slots["velocity_hat"], v)
        return p - m * s["alpha"] / (gx.sqrt(v) + self.epsilon), changed


class AdamW(Adam):
    """Adam with decay of the weights that is no part of the gradient.

    Args:
        learning_rate: see :class:`Optimizer`.
        weight_decay: before each step weights shrink by this part times the learning rate.
        beta_1, beta_2, epsilon, amsgrad: see :class:`Adam`.
        options: see :class:`Optimizer`.

    Source: Loshchilov and Hutter 2019, Decoupled weight decay regularization, https://arxiv.org/abs/1711.05101,
        algorithm 2.

    >>> import graphc as gx
    >>> optimizer = gx.optimizers.AdamW(1e-3)
    >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: NonNegative | None = 0.004,
        beta_1: LessThanAll = 0.9,
        beta_2: LessThanAll = 0.999,
        epsilon: NonNegative = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if weight_decay is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise AxisError("AdamW needs a weight_decay", at=user_line(), remedy="use Adam where nothing decays")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **options)


class Nadam(_Moments):
    """Adam with Nesterov's momentum, whose weight ``u_t = beta_1 (1 - 0.96**t / 2)`` warms up.

    ``p -= rate * m_hat / (sqrt(v / (1 - beta_2**t)) + epsilon)`` with
    ``m_hat = u_(t+1) m / (1 - u_1 ... u_(t+1)) + (1 - u_t) g / (1 - u_1 ... u_t)``.

    Args:
        learning_rate, weight_decay, options: see :class:`Optimizer`.
        beta_1, beta_2, epsilon: see :class:`Adam`.

    Source: Dozat 2016, Incorporating Nesterov momentum into Adam, algorithm 2, with the warm-up that Keras gives it.

    >>> import graphc as gx
    >>> gx.optimizers.Nadam().slots
    ('momentum', 'velocity')
    """

    slots = ("momentum", "velocity")
    state = (("u_product", 1.0),)

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        now, following = (self.beta_1 * (1.0 - 0.5 * power(0.96, t)) for t in (step, step + 1.0))
        product = self.shared_state("u_product") * now
        return {
            "from_mean": rate * following / (1.0 - product * following),
            "from_gradient": rate * (1.0 - now) / (1.0 - product),
            "corrected": 1.0 / (1.0 - power(self.beta_2, step)),
            "u_product": product,
        }

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m, v = self.first_moment(slots, g), self.second_moment(slots, g)
        change = (m * s["from_mean"] + g * s["from_gradient"]) / (gx.sqrt(v * s["corrected"]) + self.epsilon)
        return p - change, {"momentum": m, "velocity": v}


class Adamax(_Moments):
    """Adam whose measure of the gradients' size is their largest, slowly forgotten.

    ``m += (1 - beta_1) (g - m)``, ``u = max(beta_2 u, |g|)``, ``p -= rate / (1 - beta_1**t) * m / (u + epsilon)``.

    Args:
        learning_rate, weight_decay, options: see :class:`Optimizer`.
        beta_1, beta_2: how slowly the mean and the largest are forgotten.
        epsilon: keeps the divisor from 0.

    Source: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 2.

    >>> import graphc as gx
    >>> gx.optimizers.Adamax().slots
    ('momentum', 'norm')
    """

    slots = ("momentum", "norm")

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        return {"alpha": rate / (1.0 - power(self.beta_1, step))}

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m = self.first_moment(slots, g)
        u = gx.maximum(slots["norm"] * self.beta_2, gx.abs(g))
        return p - m * s["alpha"] / (u + self.epsilon), {"momentum": m, "norm": u}


class Lamb(_Moments):
    """Adam whose step in each parameter has a length in proportion to the parameter's own norm.

    ``r = m / (1 - beta_1**t) / (sqrt(v / (1 - beta_2**t)) + epsilon)``, ``p -= rate * |p| / |r| * r``, where the
    quotient of norms is 1 if one of them is 0.

    Args:
        learning_rate, weight_decay, options: see :class:`Optimizer`.
        beta_1, beta_2, epsilon: see :class:`Adam`.

    Source: You et al. 2020, Large batch optimization for deep learning, https://arxiv.org/abs/1904.00962, algorithm 2.

    >>> import graphc as gx
    >>> gx.optimizers.Lamb().slots
    ('momentum', 'velocity')
    """

    by_element = False
    slots = ("momentum", "velocity")

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        return {
            "rate": rate,
            "first": 1.0 / (1.0 - power(self.beta_1, step)),
            "second": 1.0 / (1.0 - power(self.beta_2, step)),
        }

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m, v = self.first_moment(slots, g), self.second_moment(slots, g)
        change = m * s["first"] / (gx.sqrt(v * s["second"]) + self.epsilon)
        lengths = gx.sqrt(squared_norm(p)), gx.sqrt(squared_norm(change))
        both = gx.logical_and(gx.greater(lengths[0], 0.0), gx.greater(lengths[1], 0.0))
        trust = gx.where(both, lengths[0] / lengths[1], 1.0)
        return p - change * (trust * s["rate"]), {"momentum": m, "velocity": v}


def power(base: float, step: Node) -> Node:
    """``base**step`` in double precision."""
    return gx.pow(gx.constant(base, DType.float64), step)
