"""Training in float16: the loss is multiplied, so that small gradients do not vanish, and bad steps are left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import reduce

import numpy as np

import graphc as gx
from graphc.errors import AxisError, GraphError
from graphc.frontend.checked import Count
from graphc.frontend.config import user_line
from graphc.frontend.optimizers.base import Optimizer
from graphc.frontend.optimizers.sparse import sparse_rows
from graphc.ir.node import Node, Parameter


class LossScaleOptimizer(Optimizer):
    """An optimizer whose gradients are taken of a multiple of the loss that adapts itself.

    Gradients are divided by the scale again, in float32, before they are accumulated, clipped and used. Where one of
    them is not finite, the step changes nothing but the scale, which is halved; after ``dynamic_growth_steps`` steps in
    a row without that it is doubled. ``model.compile(precision="mixed_float16")`` puts it around the model's optimizer.

    Args:
        inner_optimizer: what uses the gradients.
        initial_scale: the first scale; a power of two rounds nothing.
        dynamic_growth_steps: after how many good steps the scale is doubled.
        name: for texts and files.

    Attributes:
        dynamic_scale: the scale, a float32 that never falls below 1.
        step_counter: how many good steps there have been since the scale last changed.

    Raises:
        AxisError: the scale is less than 1, or there are no steps between doublings.
        GraphError: the inner optimizer scales the loss itself.

    Source: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2; Keras ``LossScaleOptimizer``

    >>> import graphc as gx
    >>> optimizer = gx.optimizers.LossScaleOptimizer(gx.optimizers.Adam(1e-3))
    >>> float(optimizer.dynamic_scale.value)
    32768.0
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: Count = 2000,
        name: str | None = None,
    ) -> None:
        super().__init__(0.0, name=name)
        inner = gx.optimizers.get(inner_optimizer)
        if isinstance(inner, LossScaleOptimizer) or inner.loss_scale_factor is not None:
            raise GraphError(
                f"{type(inner).__name__} scales the loss itself", at=user_line(), remedy="give one without a scale"
            )
        if not 1 <= initial_scale < 2.0**127:
            raise AxisError(f"initial_scale={initial_scale!r}", at=user_line(), remedy="common is 2.0**15")
        self.inner_optimizer = inner
        self.initial_scale = float(initial_scale)
        self.dynamic_growth_steps = dynamic_growth_steps
        self.iterations = inner.iterations
        self.use_ema = inner.use_ema
        self.gradient_accumulation_steps = inner.gradient_accumulation_steps
        self.dynamic_scale = Parameter(
            f"{self.name}/dynamic_scale", np.array(initial_scale, np.float32), trainable=False
        )
        self.step_counter = Parameter(f"{self.name}/step_counter", np.array(0, np.int64), trainable=False)

    @classmethod
    def around(cls, optimizer: Optimizer) -> LossScaleOptimizer:
        """One around an optimizer, or the optimizer itself if it is one."""
        return optimizer if isinstance(optimizer, cls) else cls(optimizer)

    # What a user asks.

    @property
    def learning_rate(self) -> float:
        """That of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.inner_optimizer.learning_rate = value

    @property
    def follows_schedule(self) -> bool:
        """Whether the inner optimizer's learning rate is a function of the number of steps taken."""
        return self.inner_optimizer.follows_schedule

    def exclude_from_weight_decay(
        self, var_list: Sequence[Parameter] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spare weights from ``weight_decay``; see :meth:`Optimizer.exclude_from_weight_decay`."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def shared_state(self, key: str) -> Parameter:
        """A piece of the inner optimizer's state."""
        return self.inner_optimizer.shared_state(key)

    def swap_averages(self) -> None:
        """Exchange the weights and their moving averages."""
        self.inner_optimizer.swap_averages()
        self.averages_in_weights = self.inner_optimizer.averages_in_weights

    def finalize_variable_values(self, var_list: Sequence[Parameter]) -> None:
        """Replace these weights by their moving averages, if there are any."""
        self.inner_optimizer.averages_in_weights = self.averages_in_weights
        self.inner_optimizer.finalize_variable_values(var_list)
        self.averages_in_weights = False

    # What programs ask.

    def check(self, weights: Sequence[Parameter]) -> None:
        self.inner_optimizer.check(weights)

    def needs_all_rows(self, parameter: Parameter) -> Iterator[tuple[str, str]]:
        yield "a step that is left out keeps every row", "train it in mixed_bfloat16, which needs no scale"

    def gradients(self, loss: Node, parameters: Sequence[Parameter]) -> list[Node]:
        """The gradients of a loss, by way of its present multiple."""
        scaled = gx.grad(loss * gx.cast(self.dynamic_scale, loss.dtype), parameters)
        wide = [gx.cast(gradient, p.dtype.wide) for p, gradient in zip(parameters, scaled, strict=True)]
        return [gradient / gx.cast(self.dynamic_scale, gradient.dtype) for gradient in wide]

    def build(self, parameters: Sequence[Parameter]) -> None:
        self.inner_optimizer.build(parameters)

    def slot_names(self, parameter: Parameter) -> list[str]:
        return self.inner_optimizer.slot_names(parameter)

    def updates(
        self,
        parameters: Sequence[Parameter],
        gradients: Sequence[Node],
        constraints: Mapping[Parameter, Callable[[Node], Node]] | None = None,
        sparse: Collection[Parameter] = (),
    ) -> dict[Parameter, Node]:
        """The next values of the parameters and of all state; those of a step that counts, and of one that does not."""
        sparse_rows(self, parameters, gradients, constraints, sparse)  # refuses them
        found = self.guard(self.inner_optimizer.updates(parameters, gradients, constraints), gradients)
        good = _all_finite(gradients)
        count = self.step_counter + 1
        grows = gx.greater_equal(count, self.dynamic_growth_steps)
        scale = self.dynamic_scale
        doubled = gx.where(gx.less(scale, 2.0**126), scale * 2.0, scale)
        found[scale] = gx.where(good, gx.where(grows, doubled, scale), gx.maximum(scale * 0.5, 1.0))
        found[self.step_counter] = gx.where(gx.logical_and(good, gx.logical_not(grows)), count, gx.zeros_like(count))
        return found

    def guard(self, updates: Mapping[Parameter, Node], gradients: Sequence[Node]) -> dict[Parameter, Node]:
        """State keeps its value in a step whose gradients are not all finite."""
        good = _all_finite(gradients)
        return {target: gx.where(good, value, target) for target, value in updates.items()}

    def variables(self, names: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """All state by name: the inner optimizer's, and the scale."""
        own = {"dynamic_scale": self.dynamic_scale, "step_counter": self.step_counter}
        return {**self.inner_optimizer.variables(names), **own}


def _all_finite(gradients: Sequence[Node]) -> Node:
    """Is no element of any gradient infinite or NaN?"""
    if not gradients:
        return gx.constant(True)
    # As a vector, so that one kernel serves gradients of all shapes.
    each = [gx.all(gx.isfinite(gx.reshape(gradient, (-1,)))) for gradient in gradients]
    return reduce(gx.logical_and, each)
