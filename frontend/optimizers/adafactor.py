"""Adafactor: Adam's second moments from their sums over rows and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

import graphc as gx
from graphc.frontend.checked import Bound, NonNegative
from graphc.frontend.optimizers.base import Optimizer, Options, Rate, Scalars, Slots, zeros_for
from graphc.ir.node import Node, Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


class Adafactor(Optimizer):
    """Adam without a first moment, whose second moments of a matrix are an outer product of means.

    ``r = b r + (1 - b) mean over columns of (g**2 + epsilon_1)``, ``c`` likewise over rows, with
    ``b = 1 - t**beta_2_decay``; ``v = r c / mean(r)`` (for vectors ``v = b v + (1 - b) (g**2 + epsilon_1)``);
    ``u = g / sqrt(v)``; ``p -= max(epsilon_2, rms(p)) * rho * u / max(1, rms(u) / clip_threshold)`` with
    ``rho = min(rate, 1 / sqrt(t))``. Of a tensor with more than two axes the last two are factored.

    Args:
        learning_rate: the largest relative step.
        beta_2_decay: how fast the means come to forget slowly.
        epsilon_1: added to squares of gradients.
        epsilon_2: the least size of a weight that a relative step is taken of.
        clip_threshold: the largest root mean square of a step.
        relative_step: whether ``1 / sqrt(t)`` bounds the relative step; if not, ``rho`` is the learning rate alone.
            (In Keras it is bounded either way.)
        weight_decay, options: see :class:`Optimizer`.

    Source: Shazeer and Stern 2018, Adafactor: adaptive learning rates with sublinear memory cost,
        https://arxiv.org/abs/1804.04235, algorithms 4 and 5, relative step sizes of section 8.

    >>> import graphc as gx, numpy as np
    >>> sorted(gx.optimizers.Adafactor().slot_names(gx.parameter("kernel", np.zeros((3, 4), np.float32))))
    ['c', 'r']
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: NonNegative = 1e-30,
        epsilon_2: NonNegative = 1e-3,
        clip_threshold: Bound = 1.0,
        relative_step: bool = True,
        weight_decay: NonNegative | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_2_decay, self.epsilon_1, self.epsilon_2 = beta_2_decay, epsilon_1, epsilon_2
        self.clip_threshold, self.relative_step = clip_threshold, relative_step

    def first_values(self, parameter: Parameter) -> dict[str, Array]:
        zeros: Any = zeros_for(parameter)
        if zeros.ndim < 2:
            return {"velocity": zeros}
        return {"r": np.zeros_like(zeros[..., 0]), "c": np.zeros_like(zeros[..., 0, :])}

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        forgotten = gx.pow(step, self.beta_2_decay)
        return {
            "rho": gx.minimum(rate, 1.0 / gx.sqrt(step)) if self.relative_step else rate,
            "kept": 1.0 - forgotten,
            "forgotten": forgotten,
        }

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        squares = gx.square(g) + self.epsilon_1

        def moved(slot: str, value: Node) -> Node:
            return slots[slot] * s["kept"] + value * s["forgotten"]

        if p.ndim >= 2:
            r, c = moved("r", gx.mean(squares, axis=-1)), moved("c", gx.mean(squares, axis=-2))
            changed = {"r": r, "c": c}
            rows = gx.expand_dims(r / gx.mean(r, axis=-1, keepdims=True), -1)
            v = rows * gx.expand_dims(c, -2)
        else:
            v = moved("velocity", squares)
            changed = {"velocity": v}
        u = g / gx.sqrt(v)
        size = gx.maximum(_rms(p), self.epsilon_2) * s["rho"]
        return p - u * (size / gx.maximum(_rms(u) / self.clip_threshold, 1.0)), changed


def _rms(x: Node) -> Node:
    return gx.sqrt(gx.mean(gx.square(x)))
