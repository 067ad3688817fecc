"""Optimizers by their Keras 3 names, arguments, defaults and formulas: gradients in, next values of all state out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

import graphc as gx
from graphc.errors import AxisError, GraphError
from graphc.frontend.config import Configurable, lookup, user_line
from graphc.ir.node import Node, Parameter

Slots = Mapping[str, Parameter]
Scalars = Mapping[str, Node]


class Optimizer(Configurable):
    """Base of optimizers. A subclass says which slots a parameter has and how one step changes it.

    ``rule`` is written once for any parameter; what does not depend on the parameter is computed in ``scalars``, so
    that a compiler can make one kernel for all of them. The learning rate and the number of steps taken are state:
    changing them compiles nothing.

    Args:
        learning_rate: a number, or a function from the number of steps taken (a float64 node) to a node.
        weight_decay: before each step weights shrink by this part times the learning rate.
        name: for texts and files.
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: float | Callable[[Node], Node] = 0.001,
        weight_decay: float | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or type(self).__name__.lower()
        self.weight_decay = weight_decay
        self.iterations = Parameter(f"{self.name}/iterations", np.array(0, np.int64), trainable=False)
        self._schedule = learning_rate if callable(learning_rate) else None
        first = 0.0 if callable(learning_rate) else _rate(learning_rate)
        self._rate = Parameter(f"{self.name}/learning_rate", np.array(first, np.float64), trainable=False)
        self._slots: dict[int, dict[str, Parameter]] = {}
        self._built_for: list[Parameter] = []

    @property
    def learning_rate(self) -> float:
        """The current learning rate. Setting it takes effect at the next step and compiles nothing."""
        if self._schedule is not None:
            raise GraphError(
                "the learning rate follows a schedule", at=user_line(), remedy="read optimizer.iterations instead"
            )
        return float(self._rate.value)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self._schedule is not None:
            raise GraphError(
                "the learning rate follows a schedule", at=user_line(), remedy="compile with a number to set it by hand"
            )
        self._rate.value = np.float64(_rate(value))

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        """The next value of one parameter and of its slots.

        Args:
            p: the parameter, weight decay already applied.
            g: its gradient.
            slots: its slots by name.
            s: what :meth:`scalars` returned, in the parameter's element type.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define rule")

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        """What is the same for all parameters, in double precision.

        Args:
            rate: the learning rate.
            step: the number of this step, 1 at the first.
        """
        return {"rate": rate}

    def build(self, parameters: Sequence[Parameter]) -> None:
        """Make the slots, filled with zeros, of parameters that have none yet."""
        for parameter in parameters:
            if id(parameter) not in self._slots:
                self._built_for.append(parameter)
                self._slots[id(parameter)] = {
                    slot: Parameter(
                        f"{self.name}/{parameter.label}/{slot}", np.zeros_like(parameter.array), trainable=False
                    )
                    for slot in self.slots
                }

    def updates(self, parameters: Sequence[Parameter], gradients: Sequence[Node]) -> dict[Parameter, Node]:
        """The next values of the parameters, their slots and the counter, for ``gx.compile(updates=...)``.

        >>> import graphc as gx, numpy as np
        >>> w = gx.parameter("w", np.ones(3, np.float32))
        >>> new = SGD(0.1).updates([w], gx.grad(gx.sum(w * w), [w]))
        >>> [p.label for p in new]
        ['w', 'sgd/iterations']
        """
        self.build(parameters)
        step = gx.cast(self.iterations, "float64")
        rate = self._rate if self._schedule is None else gx.cast(self._schedule(step), "float64")
        scalars = self.scalars(rate, step + 1.0)
        found: dict[Parameter, Node] = {}
        for parameter, gradient in zip(parameters, gradients, strict=True):
            dtype = parameter.dtype
            s = {key: gx.cast(value, dtype) for key, value in scalars.items()}
            start: Node = parameter
            if self.weight_decay is not None:
                start = parameter - parameter * gx.cast(rate * self.weight_decay, dtype)
            slots = self._slots[id(parameter)]
            found[parameter], changed = self.rule(start, gradient, slots, s)
            found.update((slots[key], value) for key, value in changed.items())
        found[self.iterations] = self.iterations + 1
        return found

    def variables(self, names: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """All state by name: the counter, the learning rate, and the slots of these parameters.

        Args:
            names: parameters by name; those without slots are passed over.
        """
        found = {"iterations": self.iterations, "learning_rate": self._rate}
        for name, parameter in names.items():
            slots = self._slots.get(id(parameter), {})
            found.update((f"{name}/{slot}", value) for slot, value in slots.items())
        return found


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    ``p -= rate * g``; with momentum ``v = momentum * v - rate * g`` and ``p += v``, with Nesterov's
    ``p += momentum * v - rate * g``.

    Args:
        learning_rate: see :class:`Optimizer`.
        momentum: the part of the last step that goes on, from 0 to 1.
        nesterov: look ahead along the momentum.
        weight_decay, name: see :class:`Optimizer`.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep learning, equations 1 to 4.
    """

    def __init__(
        self,
        learning_rate: float | Callable[[Node], Node] = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        name: str = "sgd",
    ) -> None:
        super().__init__(learning_rate, weight_decay, name)
        self.momentum = _part("momentum", momentum, closed=True)
        self.nesterov = nesterov
        self.slots = ("momentum",) if momentum else ()

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        if not self.slots:
            return p - g * s["rate"], {}
        velocity = slots["momentum"] * self.momentum - g * s["rate"]
        if self.nesterov:
            return p + (velocity * self.momentum - g * s["rate"]), {"momentum": velocity}
        return p + velocity, {"momentum": velocity}


class Adam(Optimizer):
    """Steps by the mean of past gradients over the root of the mean of their squares.

    ``m += (1 - beta_1) (g - m)``, ``v += (1 - beta_2) (g**2 - v)``,
    ``p -= rate sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)``.

    Args:
        learning_rate: see :class:`Optimizer`.
        beta_1, beta_2: how slowly the two means forget.
        epsilon: keeps the divisor from 0 (the paper's epsilon-hat).
        weight_decay, name: see :class:`Optimizer`.

    Source: Kingma and Ba 2015, Adam: a method for stochastic optimization, end of section 2.
    """

    slots = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: float | Callable[[Node], Node] = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        name: str = "adam",
    ) -> None:
        super().__init__(learning_rate, weight_decay, name)
        self.beta_1, self.beta_2, self.epsilon = _part("beta_1", beta_1), _part("beta_2", beta_2), epsilon

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        first = 1.0 - gx.pow(gx.constant(self.beta_1, "float64"), step)
        second = 1.0 - gx.pow(gx.constant(self.beta_2, "float64"), step)
        return {"alpha": rate * gx.sqrt(second) / first}

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m = slots["momentum"] + (g - slots["momentum"]) * (1.0 - self.beta_1)
        v = slots["velocity"] + (gx.square(g) - slots["velocity"]) * (1.0 - self.beta_2)
        return p - m * s["alpha"] / (gx.sqrt(v) + self.epsilon), {"momentum": m, "velocity": v}


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not value >= 0:
        raise AxisError(
            f"a learning rate is a number of at least 0, not {value!r}", at=user_line(), remedy="start with 0.001"
        )
    return float(cast("float", value))


def _part(name: str, value: float, closed: bool = False) -> float:
    if not (0 <= value <= 1 if closed else 0 <= value < 1):
        raise AxisError(f"{name} must be from 0 to 1, not {value!r}", at=user_line(), remedy="common is 0.9")
    return float(value)


_BY_NAME: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}


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
