"""Normalization over batches, groups of channels, and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import ShapeError
from graphc.frontend import constraints, initializers, regularizers
from graphc.frontend.checked import NonNegative, Part
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.dims import product
from graphc.ir.node import Node, Parameter


class _Scaled(Layer):
    """What is left of mean and scale is learnt: ``gamma`` and ``beta``, one of each for each channel."""

    supports_masking = True
    gamma: Parameter | None
    beta: Parameter | None

    def __init__(
        self, axis: int | Sequence[int], epsilon: NonNegative, center: bool, scale: bool, beta: tuple[Any, Any, Any],
        gamma: tuple[Any, Any, Any], **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        (self.axis,) = axis if isinstance(axis, Sequence) else (int(axis),)
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta[0])
        self.beta_regularizer = regularizers.get(beta[1])
        self.beta_constraint = constraints.get(beta[2])
        self.gamma_initializer = initializers.get(gamma[0])
        self.gamma_regularizer = regularizers.get(gamma[1])
        self.gamma_constraint = constraints.get(gamma[2])

    def channels_of(self, shape: Sequence[int | None]) -> int:
        """The size of the axis.

        Raises:
            ShapeError: it is not known, or there is no such axis.
        """
        if not -len(shape) <= self.axis < len(shape) or shape[self.axis] is None:
            raise ShapeError(
                f"layer {self.name!r} needs the size of axis {self.axis}, its input has shape {tuple(shape)}",
                at=user_line(),
                remedy="name the axis of the channels, and give their number in Input",
            )
        return shape[self.axis] or 0

    def build_scales(self, channels: int) -> None:
        """Make gamma and beta, where there are to be any."""
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight(
                name="gamma", shape=(channels,), initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer, constraint=self.gamma_constraint,
            )  # fmt: skip
        if self.center:
            self.beta = self.add_weight(
                name="beta", shape=(channels,), initializer=self.beta_initializer,
                regularizer=self.beta_regularizer, constraint=self.beta_constraint,
            )  # fmt: skip

    def beside(self, weight: Node, rank: int) -> Node:
        """A value for each channel, at the places of the channels."""
        axis = self.axis % rank
        return weight if axis == rank - 1 else gx.reshape(weight, (weight.shape[0], *(1,) * (rank - 1 - axis)))


class BatchNormalization(_Scaled):
    """Each channel gets mean 0 and variance 1: over the batch in training, over what was seen in training elsewhere.

    The statistics of a training step move ``moving_mean`` and ``moving_variance`` a little; called twice, the layer
    moves them twice. With ``trainable = False`` it is frozen: it uses the moving statistics in training, too, and
    leaves them as they are.

    Args:
        axis: the axis of the channels: -1, or 1 for channels first.
        momentum: the part of the moving statistics that a step leaves.
        epsilon: keeps the divisor from 0.
        center: add beta.
        scale: multiply by gamma.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer: first values.
        beta_regularizer, gamma_regularizer: penalties, added to the loss.
        beta_constraint, gamma_constraint: what they go through in every step of training.

    Shapes: the result has the shape of x. Weights: gamma, beta, moving_mean, moving_variance, one for each channel. A
        mask (batch, ...) leaves places out of the statistics.
    Raises: ShapeError: the number of channels is not known.
    Source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, algorithm 1; Keras.

    >>> import graphc as gx
    >>> layer = gx.layers.BatchNormalization()
    >>> layer(gx.placeholder("x", ("batch", 8, 8, 4))).type
    f32[batch, 8, 8, 4]
    >>> [w.shape for w in layer.weights]
    [(4,), (4,), (4,), (4,)]
    """

    moving_mean: Parameter
    moving_variance: Parameter

    def __init__(
        self,
        axis: int = -1,
        momentum: Part = 0.99,
        epsilon: NonNegative = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis, epsilon, center, scale, (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint), **kwargs,
        )  # fmt: skip
        self.momentum = float(momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, input_shape: Any) -> None:
        channels = self.channels_of(input_shape)
        self.build_scales(channels)
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=(channels,), initializer=self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=(channels,), initializer=self.moving_variance_initializer, trainable=False
        )

    def call(self, inputs: Node, mask: Node | None = None, training: bool | None = None) -> Node:
        mean, variance = self.moving_mean, self.moving_variance
        if self.trainable and training is not False:
            seen_mean, seen_variance = self._statistics(inputs, mask)
            for moving, seen in ((self.moving_mean, seen_mean), (self.moving_variance, seen_variance)):
                fresh = gx.stop_gradient(seen)
                self.add_update(moving, lambda old, fresh=fresh: old * self.momentum + fresh * (1 - self.momentum))
            mean = self.when_training(seen_mean, mean)
            variance = self.when_training(seen_variance, variance)
        factor = gx.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            factor = factor * self.gamma
        outputs = (inputs - self.beside(mean, inputs.ndim)) * self.beside(factor, inputs.ndim)
        return outputs if self.beta is None else outputs + self.beside(self.beta, inputs.ndim)

    def _statistics(self, inputs: Node, mask: Node | None) -> tuple[Node, Node]:
        """Mean and variance of each channel over the places that count."""
        channel = self.axis % inputs.ndim
        axes = tuple(axis for axis in range(inputs.ndim) if axis != channel)
        if mask is None:
            mean = gx.mean(inputs, axis=axes)
            return mean, gx.mean(gx.square(inputs - self.beside(mean, inputs.ndim)), axis=axes)
        counts = gx.reshape(gx.cast(mask, inputs.dtype), (*mask.shape, *(1,) * (inputs.ndim - mask.ndim)))
        over = [size for axis, size in enumerate(inputs.shape) if axis in axes and counts.shape[axis] == 1]
        total = gx.maximum(gx.sum(counts) * gx.size_of(product(tuple(over)), inputs.dtype), 1e-7)
        mean = gx.sum(inputs * counts, axis=axes) / total
        apart = inputs - self.beside(mean, inputs.ndim)
        return mean, gx.sum(gx.square(apart) * counts, axis=axes) / total


class GroupNormalization(_Scaled):
    """Each sample gets mean 0 and variance 1 over each group of its channels and all places.

    ``groups=-1`` makes each channel a group, which is instance normalization; ``groups=1`` normalizes whole samples.

    Args:
        groups: the number of groups; -1: as many as channels.
        axis: the axis of the channels: -1, or 1 for channels first.
        epsilon: keeps the divisor from 0.
        center: add beta.
        scale: multiply by gamma.
        beta_initializer, gamma_initializer: first values.
        beta_regularizer, gamma_regularizer: penalties, added to the loss.
        beta_constraint, gamma_constraint: what they go through in every step of training.

    Shapes: the result has the shape of x. Weights: gamma and beta, one for each channel.
    Raises: ShapeError: the number of channels is not known, or does not divide by the groups.
    Source: Wu and He 2018, https://arxiv.org/abs/1803.08494, equation 7; Keras.

    >>> import graphc as gx
    >>> gx.layers.GroupNormalization(2)(gx.placeholder("x", ("batch", 8, 8, 4))).type
    f32[batch, 8, 8, 4]
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
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
        super().__init__(
            axis, epsilon, center, scale, (beta_initializer, beta_regularizer, beta_constraint),
            (gamma_initializer, gamma_regularizer, gamma_constraint), **kwargs,
        )  # fmt: skip
        self.groups = groups

    def build(self, input_shape: Any) -> None:
        channels = self.channels_of(input_shape)
        self.groups = channels if self.groups == -1 else self.groups
        if self.groups < 1 or channels % self.groups:
            raise ShapeError(
                f"layer {self.name!r}: {channels} channels do not divide by {self.groups} groups",
                at=user_line(),
                remedy="give a number of groups that divides the channels, or -1 for one each",
            )
        self.build_scales(channels)

    def call(self, inputs: Node) -> Node:
        channel = self.axis % inputs.ndim
        ahead, behind = inputs.shape[:channel], inputs.shape[channel + 1 :]
        channels = product((inputs.shape[channel],))
        apart = gx.reshape(inputs, (*ahead, self.groups, channels // self.groups, *behind))
        axes = tuple(axis for axis in range(1, apart.ndim) if axis != channel)
        centred = apart - gx.mean(apart, axis=axes, keepdims=True)
        variance = gx.mean(gx.square(centred), axis=axes, keepdims=True)
        outputs = gx.reshape(centred * gx.rsqrt(variance + self.epsilon), inputs.shape)
        if self.gamma is not None:
            outputs = outputs * self.beside(self.gamma, inputs.ndim)
        return outputs if self.beta is None else outputs + self.beside(self.beta, inputs.ndim)


class UnitNormalization(Layer):
    """Each vector divided by its length.

    Args:
        axis: the axis of the vectors, or several.

    Shapes: the result has the shape of x.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.UnitNormalization()(gx.placeholder("x", ("batch", 4)))
    <multiply: f32[batch, 4]>
    """

    supports_masking = True

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Node) -> Node:
        axis = self.axis if isinstance(self.axis, int) else tuple(self.axis)
        squares = gx.sum(gx.square(inputs), axis=axis, keepdims=True)
        return inputs * gx.rsqrt(gx.maximum(squares, 1e-24))
