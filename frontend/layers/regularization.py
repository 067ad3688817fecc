"""Layers that act in training only."""

from __future__ import annotations

from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node


class Dropout(Layer):
    """In training sets a random part of the values to 0 and scales the rest by ``1 / (1 - rate)``.

    Which values fall depends on the model's seed, the training step and the layer's path, and on nothing else: not on
    the backend, the number of threads or what is computed beside it.

    Args:
        rate: the part that falls, 0 <= rate < 1.
        seed: fixes the masks whatever ``gx.set_seed`` says.

    Shapes: the result has the shape of x.
    Source: Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting.

    >>> import graphc as gx
    >>> Dropout(0.5)(gx.placeholder("x", ("batch", 3)))
    <when_training: f32[batch, 3]>
    """

    supports_masking = True

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise AxisError(
                f"rate is the part that is dropped, from 0 to below 1, not {rate!r}",
                at=user_line(),
                remedy="write Dropout(0.5) to drop half",
            )
        self.rate = float(rate)
        self.seed = seed

    def call(self, inputs: Node, training: bool | None = None) -> Node:
        if self.rate == 0 or training is False:
            return inputs
        return self.when_training(gx.dropout(inputs, self.rate, *self.random_state(self.seed)), inputs)
