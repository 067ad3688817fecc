"""Activations that are layers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import activations, constraints, initializers, regularizers
from graphc.frontend.checked import Limit, NonNegative
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node, Parameter


class ReLU(Layer):
    """``max(x, 0)``, optionally with a ceiling, a slope below and a threshold.

    Args:
        max_value: no output is larger; None: no ceiling.
        negative_slope: the slope below the threshold.
        threshold: where the positive part begins.
    """

    supports_masking = True

    def __init__(
        self,
        max_value: Limit | None = None,
        negative_slope: NonNegative = 0.0,
        threshold: NonNegative = 0.0,
        **kwargs: Any,
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


class LeakyReLU(Layer):
    """``x`` from 0 on, ``negative_slope * x`` below.

    Args:
        negative_slope: the slope below 0.

    Shapes: the result has the shape of x.
    Source: Keras ``LeakyReLU``; Maas, Hannun and Ng 2013.

    >>> import graphc as gx
    >>> LeakyReLU()(gx.placeholder("x", ("batch", 3)))
    <leaky_relu: f32[batch, 3]>
    """

    supports_masking = True

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = float(negative_slope)

    def call(self, inputs: Node) -> Node:
        return gx.leaky_relu(inputs, self.negative_slope)


class PReLU(Layer):
    """``x`` from 0 on, ``alpha * x`` below, where alpha is learned.

    Args:
        alpha_initializer: first slopes.
        alpha_regularizer: a penalty on the slopes.
        alpha_constraint: what the slopes go through in every step.
        shared_axes: axes along which one slope serves all, counted with the batch: ``(1, 2)`` for images of
            (batch, height, width, channels) gives one slope for each channel.

    Shapes: the result has the shape of x. Weights: alpha, of the shape of x without the batch, 1 on shared axes.
    Raises: AxisError: a shared axis does not exist; ShapeError: the size of an axis that is not shared is not known.
    Source: Keras ``PReLU``; He et al. 2015, https://arxiv.org/abs/1502.01852

    >>> import graphc as gx
    >>> layer = PReLU(shared_axes=(1, 2))
    >>> y = layer(gx.placeholder("x", ("batch", "height", "width", 3)))
    >>> layer.alpha.shape
    (1, 1, 3)
    """

    supports_masking = True
    alpha: Parameter

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        axes = () if shared_axes is None else (shared_axes,) if isinstance(shared_axes, int) else tuple(shared_axes)
        self.shared_axes = axes

    def build(self, input_shape: Any) -> None:
        rank = len(input_shape)
        wrong = [axis for axis in self.shared_axes if not 0 < axis % rank < rank or not -rank <= axis < rank]
        if wrong:
            raise AxisError(
                f"layer {self.name!r} cannot share along axis {wrong[0]} of {rank}, axis 0 is the batch",
                at=user_line(),
                remedy=f"axes to share along: 1 to {rank - 1}",
            )
        shared = {axis % rank for axis in self.shared_axes}
        shape = tuple(1 if axis in shared else input_shape[axis] for axis in range(1, rank))
        if None in shape:
            raise ShapeError(
                f"layer {self.name!r} needs a slope for each place of {input_shape[1:]}, where a size is not known",
                at=user_line(),
                remedy=f"share along that axis: shared_axes=({shape.index(None) + 1},)",
            )
        self.alpha = self.add_weight(
            name="alpha",
            shape=shape,
            initializer=self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )

    def call(self, inputs: Node) -> Node:
        return gx.prelu(inputs, self.alpha)


class ELU(Layer):
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below.

    Args:
        alpha: minus the limit far below 0.

    Shapes: the result has the shape of x.
    Source: Keras ``ELU``; Clevert, Unterthiner and Hochreiter 2016, https://arxiv.org/abs/1511.07289

    >>> import graphc as gx
    >>> ELU()(gx.placeholder("x", ("batch", 3)))
    <elu: f32[batch, 3]>
    """

    supports_masking = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = float(alpha)

    def call(self, inputs: Node) -> Node:
        return gx.elu(inputs, self.alpha)


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` along an axis, or over several; where a mask is false the weight is 0.

    Args:
        axis: the axis or the axes whose values sum to one.
    """

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Node, mask: Node | None = None) -> Node:
        if mask is None:
            return self._normalized(inputs)
        return gx.where(mask, self._normalized(gx.where(mask, inputs, -1e9)), 0.0)

    def _normalized(self, inputs: Node) -> Node:
        axes = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        if len(axes) == 1:
            return gx.softmax(inputs, axis=axes[0])
        return gx.exp(inputs - gx.logsumexp(inputs, axis=axes, keepdims=True))


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
