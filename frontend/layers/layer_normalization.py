"""Normalization of each sample by itself: LayerNormalization and RMSNormalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend import constraints, initializers, regularizers
from graphc.frontend.checked import NonNegative
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node, Parameter


class LayerNormalization(Layer):
    """Each sample gets mean 0 and variance 1 over its features: ``(x - mean) / sqrt(var + epsilon) * gamma + beta``.

    It needs no other samples, and is the same in training and inference; BatchNormalization takes its means over the
    samples instead. Textbooks also write ``gamma * (x - mean) / (std + eps) + beta``. The two differ by the place of
    epsilon: ``sqrt(var + epsilon)`` is ``std + eps`` with ``eps = sqrt(var + epsilon) - std``, which is about
    ``epsilon / (2 std)`` where std is large and ``sqrt(epsilon)`` where it is 0. Ours has a derivative there, too.

    Args:
        axis: the axis of the features, or several.
        epsilon: keeps the divisor from 0.
        center: add beta.
        scale: multiply by gamma.
        beta_initializer, gamma_initializer: first values.
        beta_regularizer, gamma_regularizer: penalties, added to the loss.
        beta_constraint, gamma_constraint: what they go through in every step of training.

    Shapes: x: (batch, ..., n), n known; the result has the shape of x. Weights: gamma and beta, of the axes' sizes.
    Source: Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450, equation 4; Keras ``LayerNormalization``.

    >>> import graphc as gx
    >>> gx.layers.LayerNormalization()(gx.placeholder("x", ("batch", "time", 4)))
    <add: f32[batch, time, 4]>
    """

    supports_masking = True
    gamma: Parameter | None
    beta: Parameter | None

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: NonNegative = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self._beta = (initializers.get(beta_initializer), regularizers.get(beta_regularizer),
                      constraints.get(beta_constraint))  # fmt: skip
        self._gamma = (initializers.get(gamma_initializer), regularizers.get(gamma_regularizer),
                       constraints.get(gamma_constraint))  # fmt: skip

    def build(self, input_shape: Any) -> None:
        axes = _axes(self.axis, len(input_shape))
        shape = [input_shape[axis] for axis in axes]
        made = {"gamma": self._gamma if self.scale else None, "beta": self._beta if self.center else None}
        weights = {
            name: None
            if said is None
            else self.add_weight(name=name, shape=shape, initializer=said[0], regularizer=said[1], constraint=said[2])
            for name, said in made.items()
        }
        self.gamma, self.beta = weights["gamma"], weights["beta"]

    def call(self, inputs: Node) -> Node:
        axes = _axes(self.axis, inputs.ndim)
        centred = inputs - gx.mean(inputs, axis=axes, keepdims=True)
        variance = gx.mean(gx.square(centred), axis=axes, keepdims=True)
        outputs = centred * gx.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            outputs = outputs * _beside(self.gamma, axes, inputs.ndim)
        return outputs if self.beta is None else outputs + _beside(self.beta, axes, inputs.ndim)


class RMSNormalization(Layer):
    """Each sample over the root of its mean square, times a scale: ``x / sqrt(mean(x**2) + epsilon) * scale``.

    LayerNormalization without the mean: cheaper, and as good in large language models.

    Args:
        axis: the axis of the features, or several.
        epsilon: keeps the divisor from 0.

    Shapes: x: (batch, ..., n), n known; the result has the shape of x. Weights: scale, of the axes' sizes.
    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, equation 4; Keras ``RMSNormalization``.

    >>> import graphc as gx
    >>> gx.layers.RMSNormalization()(gx.placeholder("x", ("batch", "time", 4)))
    <multiply: f32[batch, time, 4]>
    """

    supports_masking = True
    scale: Parameter

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: NonNegative = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.epsilon = float(epsilon)

    def build(self, input_shape: Any) -> None:
        axes = _axes(self.axis, len(input_shape))
        self.scale = self.add_weight(name="scale", shape=[input_shape[axis] for axis in axes], initializer="ones")

    def call(self, inputs: Node) -> Node:
        axes = _axes(self.axis, inputs.ndim)
        size = gx.rsqrt(gx.mean(gx.square(inputs), axis=axes, keepdims=True) + self.epsilon)
        return inputs * size * _beside(self.scale, axes, inputs.ndim)


def _axes(axis: int | Sequence[int], rank: int) -> tuple[int, ...]:
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    if not given or not all(-rank <= one < rank for one in given):
        raise AxisError(f"axis {axis} of {rank} axes", at=user_line(), remedy="name axes of the input, such as -1")
    return tuple(sorted(one % rank for one in given))


def _beside(weight: Parameter, axes: Sequence[int], rank: int) -> Node:
    """The weight with sizes of 1 where the input has other axes."""
    if list(axes) == list(range(rank - len(axes), rank)):
        return weight
    sizes = dict(zip(axes, weight.shape, strict=True))
    return gx.reshape(weight, tuple(sizes.get(axis, 1) for axis in range(rank)))
