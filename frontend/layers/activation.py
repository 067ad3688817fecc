"""Activations that are layers of their own."""

from __future__ import annotations

from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend import activations
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node


class ReLU(Layer):
    """``max(x, 0)``, optionally with a ceiling, a slope below and a threshold.

    Args:
        max_value: no output is larger; None: no ceiling.
        negative_slope: the slope below the threshold.
        threshold: where the positive part begins.
    """

    supports_masking = True

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for what, value in (("max_value", max_value), ("negative_slope", negative_slope), ("threshold", threshold)):
            if value is not None and value < 0:
                raise AxisError(f"{what} of ReLU cannot be negative: {value}", at=user_line(), remedy="give 0 or more")
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def call(self, inputs: Node) -> Node:
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` along an axis; where a mask is false the weight is 0.

    Args:
        axis: the axis whose values sum to one.
    """

    supports_masking = True

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Node, mask: Node | None = None) -> Node:
        if mask is None:
            return gx.softmax(inputs, axis=self.axis)
        outputs = gx.softmax(gx.where(mask, inputs, -1e9), axis=self.axis)
        return gx.where(mask, outputs, 0.0)


class Tanh(Layer):
    """The hyperbolic tangent."""

    supports_masking = True

    def call(self, inputs: Node) -> Node:
        return gx.tanh(inputs)


class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``."""

    supports_masking = True

    def call(self, inputs: Node) -> Node:
        return gx.sigmoid(inputs)
