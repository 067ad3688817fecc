"""Muon: momentum made orthogonal for matrices, Adam for everything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack, cast

import graphc as gx
from graphc.frontend.checked import Count, LessThanAll, NonNegative, Positive
from graphc.frontend.optimizers.adam import power
from graphc.frontend.optimizers.base import Optimizer, Options, Rate, Scalars, Slots, zeros_for
from graphc.frontend.optimizers.gradients import squared_norm
from graphc.ir.node import Node, Parameter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


class Muon(Optimizer):
    """Steps that turn a matrix in all its directions equally: the momentum with all singular values near 1.

    Of matrices: ``m = momentum m + g``, ``u = g + momentum m`` (without ``nesterov`` ``u = m``), and
    ``p -= rate * rms_rate * sqrt(max(rows, columns)) * O(u)``. ``O`` begins with ``x = u / |u|`` and repeats
    ``x = a x + (b A + c A A) x`` with ``A = x x^T``, which takes all singular values to about 1 without computing them.
    Vectors, tensors with more than two axes, embeddings, and layers that are named are trained by AdamW; a model's last
    layer should be.

    Args:
        learning_rate: see :class:`Optimizer`.
        adam_beta_1, adam_beta_2, epsilon: of AdamW.
        adam_weight_decay: the decay of the weights that AdamW trains.
        weight_decay: that of matrices; options: see :class:`Optimizer`.
        exclude_layers: AdamW trains weights whose path holds one of these regular expressions, or this one.
        exclude_embeddings: AdamW trains weights whose path holds the word "embedding".
        muon_a, muon_b, muon_c: the coefficients of ``O``.
        adam_lr_ratio: the learning rate of AdamW as a multiple.
        momentum: how slowly the sum of gradients forgets.
        ns_steps: how often ``O`` repeats.
        nesterov: look one step ahead.
        rms_rate: the root mean square of a step by a rate of 1, which is about Adam's with 0.2, so that its rates and
            decays serve here, too; None: steps are ``rate * O(u)``.

    Raises: AxisError: ``ns_steps`` is no positive whole number, or ``momentum`` not from 0 to 1.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the size of steps: Liu et al. 2025, Muon is
        scalable for LLM training, https://arxiv.org/abs/2502.16982, section 2.2; Keras ``Muon``.

    >>> import graphc as gx, numpy as np
    >>> optimizer = gx.optimizers.Muon(1e-3, exclude_layers=["logits"])
    >>> optimizer.slot_names(gx.parameter("dense/kernel", np.zeros((3, 4), np.float32)))
    ['momentum']
    >>> optimizer.slot_names(gx.parameter("logits/kernel", np.zeros((3, 4), np.float32)))
    ['momentum', 'velocity']
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        adam_beta_1: LessThanAll = 0.9,
        adam_beta_2: LessThanAll = 0.999,
        adam_weight_decay: NonNegative | None = 0.004,
        epsilon: NonNegative = 1e-7,
        weight_decay: NonNegative | None = 0.004,
        exclude_layers: Sequence[str] | str | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.7750,
        muon_c: float = 2.0315,
        adam_lr_ratio: NonNegative = 1,
        momentum: LessThanAll = 0.95,
        ns_steps: Count = 5,
        nesterov: bool = True,
        rms_rate: Positive | None = 0.2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.adam_beta_1, self.adam_beta_2 = float(adam_beta_1), float(adam_beta_2)
        self.adam_weight_decay = adam_weight_decay
        self.epsilon, self.adam_lr_ratio = epsilon, adam_lr_ratio
        excluded = (exclude_layers,) if isinstance(exclude_layers, str) else exclude_layers or ()
        self.by_adam = [*excluded, *(("(?i)embedding",) if exclude_embeddings else ())]
        self.coefficients = muon_a, muon_b, muon_c
        self.momentum, self.ns_steps, self.nesterov = float(momentum), ns_steps, nesterov
        self.rms_rate = rms_rate

    def is_orthogonal(self, parameter: Parameter) -> bool:
        """Whether a weight's steps are made orthogonal; AdamW trains the others."""
        return parameter.ndim == 2 and not any(re.search(pattern, parameter.label) for pattern in self.by_adam)

    def first_values(self, parameter: Parameter) -> dict[str, Array]:
        slots = ("momentum",) if self.is_orthogonal(parameter) else ("momentum", "velocity")
        return {slot: zeros_for(parameter) for slot in slots}

    def decay_of(self, parameter: Parameter) -> float | None:
        return self.weight_decay if self.is_orthogonal(parameter) else self.adam_weight_decay

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        corrected = gx.sqrt(1.0 - power(self.adam_beta_2, step)) / (1.0 - power(self.adam_beta_1, step))
        return {"rate": rate, "alpha": rate * self.adam_lr_ratio * corrected}

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        m = slots["momentum"]
        if "velocity" in slots:
            m = m + (g - m) * (1.0 - self.adam_beta_1)
            v = slots["velocity"] + (gx.square(g) - slots["velocity"]) * (1.0 - self.adam_beta_2)
            return p - m * s["alpha"] / (gx.sqrt(v) + self.epsilon), {"momentum": m, "velocity": v}
        m = m * self.momentum + g
        change = self._orthogonal(g + m * self.momentum if self.nesterov else m)
        scale = 1.0 if self.rms_rate is None else self.rms_rate * max(cast("tuple[int, int]", p.shape)) ** 0.5
        return p - change * (s["rate"] * scale), {"momentum": m}

    def _orthogonal(self, u: Node) -> Node:
        """``O`` of a matrix, by products with the smaller of its two Gram matrices."""
        rows, columns = cast("tuple[int, int]", u.shape)
        x = gx.transpose(u) if rows > columns else u
        x = x / (gx.sqrt(squared_norm(x)) + 1e-7)
        a, b, c = self.coefficients
        for _ in range(self.ns_steps):
            gram = x @ gx.transpose(x)
            x = x * a + (gram * b + (gram @ gram) * c) @ x
        return gx.transpose(x) if rows > columns else x
