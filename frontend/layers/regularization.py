"""Layers that act in training only: dropout in its forms, noise, and a penalty on what passes through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import ShapeError
from graphc.frontend import regularizers
from graphc.frontend.checked import LessThanAll, NonNegative, Part
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.spatial import format_of
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import broadcast_shapes

# What a unit of selu that is switched off gives: its limit far below 0, -scale * alpha.
_SELU_OFF = -1.0507009873554804934 * 1.6732632423543772848


class _Random(Layer):
    """A layer that draws numbers in training and passes its input on elsewhere."""

    supports_masking = True

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def call(self, inputs: Node, training: bool | None = None) -> Node:
        if training is False or self._is_idle():
            return inputs
        return self.when_training(self._disturbed(inputs), inputs)

    def _is_idle(self) -> bool:
        """Would it change nothing in training, either?"""
        raise NotImplementedError(f"{type(self).__name__} does not define _is_idle")

    def _disturbed(self, inputs: Node) -> Node:
        raise NotImplementedError(f"{type(self).__name__} does not define _disturbed")

    def _normal(self, like: Node) -> Node:
        """Standard normal numbers of this shape and element type."""
        drawn = gx.random.normal(like.shape, *self.random_state(self.seed), dtype=like.dtype.wide)
        return gx.cast(drawn, like.dtype)

    def _kept(self, shape: Sequence[Size], rate: float) -> Node:
        """Which places are kept: each with probability ``1 - rate``."""
        return gx.random.bernoulli(tuple(shape), 1 - rate, *self.random_state(self.seed))


class _Dropping(_Random):
    def __init__(self, rate: Part, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.rate = float(rate)

    def _is_idle(self) -> bool:
        return self.rate == 0


class Dropout(_Dropping):
    """In training sets a random part of the values to 0 and scales the rest by ``1 / (1 - rate)``.

    Which values fall depends on the model's seed, the training step and the layer's path, and on nothing else: not on
    the backend, the number of threads or what is computed beside it.

    Args:
        rate: the part that falls, from 0 to 1.
        noise_shape: the shape of the mask, which broadcasts against the input's; None in it: as the input. A size of 1
            lets all values along an axis fall together.
        seed: fixes the masks whatever ``gx.set_seed`` says.

    Shapes: the result has the shape of x.
    Raises: ShapeError: the mask does not broadcast to x.
    Source: Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting.

    >>> import graphc as gx
    >>> Dropout(0.5)(gx.placeholder("x", ("batch", 3)))
    <when_training: f32[batch, 3]>
    """

    def __init__(
        self, rate: Part, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def _disturbed(self, inputs: Node) -> Node:
        shape = _mask_shape(self, inputs, self.noise_shape)
        if shape == inputs.shape:
            return gx.dropout(inputs, self.rate, *self.random_state(self.seed))
        return gx.where(self._kept(shape, self.rate), inputs * (1 / (1 - self.rate or 1)), 0.0)


def _mask_shape(layer: Layer, inputs: Node, given: Sequence[int | None] | None) -> tuple[Size, ...]:
    """The shape of a mask over the inputs."""
    if given is None:
        return inputs.shape
    if len(given) == inputs.ndim:
        shape = tuple(own if size is None else size for size, own in zip(given, inputs.shape, strict=True))
        if all(size in (1, own) for size, own in zip(shape, inputs.shape, strict=True)):
            return broadcast_shapes(shape, (1,) * len(shape))
    raise ShapeError(
        f"layer {layer.name!r}: a mask of shape {tuple(given)} does not broadcast to {inputs.type}",
        at=user_line(),
        remedy="give one size for each axis: 1, that of the input, or None",
    )


class _SpatialDropout(_Dropping):
    """Whole channels fall together.

    Attributes:
        axes: how many axes there are between the batch and the channels.
    """

    axes = 1

    def __init__(self, rate: Part, data_format: str | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = format_of(data_format)

    def _disturbed(self, inputs: Node) -> Node:
        if inputs.ndim != self.axes + 2:
            raise ShapeError(
                f"layer {self.name!r} takes {self.axes + 2} axes, its input has {inputs.ndim}",
                details=(f"inputs: {inputs.type}",),
                at=user_line(),
                remedy=f"SpatialDropout{inputs.ndim - 2}D fits" if 3 <= inputs.ndim <= 5 else "use Dropout",
            )
        ones = (1,) * self.axes
        first = self.data_format == "channels_first"
        shape = (*inputs.shape[:2], *ones) if first else (inputs.shape[0], *ones, inputs.shape[-1])
        return gx.where(self._kept(shape, self.rate), inputs * (1 / (1 - self.rate or 1)), 0.0)


class SpatialDropout1D(_SpatialDropout):
    """Dropout of whole channels of sequences: neighbouring steps are alike, so that single values would not be missed.

    Args:
        rate: the part of the channels that falls, 0 <= rate < 1.
        seed: fixes the masks whatever ``gx.set_seed`` says.

    Shapes: x: (batch, time, channels); the result has the shape of x.
    Source: Tompson et al. 2015, https://arxiv.org/abs/1411.4280, section 3.2

    >>> import graphc as gx
    >>> SpatialDropout1D(0.5)(gx.placeholder("x", ("batch", "time", 3)))
    <when_training: f32[batch, time, 3]>
    """

    def __init__(self, rate: Part, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)


class SpatialDropout2D(_SpatialDropout):
    """Dropout of whole channels of images.

    Args:
        rate: the part of the channels that falls, 0 <= rate < 1.
        data_format: "channels_last" (the default) or "channels_first".
        seed: fixes the masks whatever ``gx.set_seed`` says.

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Source: Tompson et al. 2015, https://arxiv.org/abs/1411.4280, section 3.2

    >>> import graphc as gx
    >>> SpatialDropout2D(0.5)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    axes = 2


class SpatialDropout3D(_SpatialDropout):
    """Dropout of whole channels of volumes.

    Args:
        rate: the part of the channels that falls, 0 <= rate < 1.
        data_format: "channels_last" (the default) or "channels_first".
        seed: fixes the masks whatever ``gx.set_seed`` says.

    Shapes: x: (batch, depth, height, width, channels); the result has the shape of x.
    Source: Tompson et al. 2015, https://arxiv.org/abs/1411.4280, section 3.2

    >>> import graphc as gx
    >>> SpatialDropout3D(0.5)(gx.placeholder("x", ("batch", 4, 8, 8, 3)))
    <when_training: f32[batch, 4, 8, 8, 3]>
    """

    axes = 3


class GaussianDropout(_Dropping):
    """In training multiplies by normal numbers of mean 1, with the variance that Dropout's factors have.

    Args:
        rate: of the Dropout that it is like: the standard deviation is ``sqrt(rate / (1 - rate))``.
        seed: fixes the numbers whatever ``gx.set_seed`` says.

    Shapes: the result has the shape of x.
    Source: Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from overfitting, section 10.

    >>> import graphc as gx
    >>> GaussianDropout(0.5)(gx.placeholder("x", ("batch", 3)))
    <when_training: f32[batch, 3]>
    """

    def __init__(self, rate: LessThanAll, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)

    def _disturbed(self, inputs: Node) -> Node:
        return inputs * (self._normal(inputs) * math.sqrt(self.rate / (1 - self.rate)) + 1.0)


class GaussianNoise(_Random):
    """In training adds normal numbers of mean 0.

    Args:
        stddev: their standard deviation, at least 0.
        seed: fixes the numbers whatever ``gx.set_seed`` says.

    Shapes: the result has the shape of x.
    Source: Keras ``GaussianNoise``; Bishop 1995, Training with noise is equivalent to Tikhonov regularization.

    >>> import graphc as gx
    >>> GaussianNoise(0.1)(gx.placeholder("x", ("batch", 3)))
    <when_training: f32[batch, 3]>
    """

    def __init__(self, stddev: NonNegative, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.stddev = float(stddev)

    def _is_idle(self) -> bool:
        return self.stddev == 0

    def _disturbed(self, inputs: Node) -> Node:
        return inputs + self._normal(inputs) * self.stddev


class AlphaDropout(_Dropping):
    """Dropout for selu: what falls takes selu's lowest value, and mean 0 and variance 1 stay as they are.

    Args:
        rate: the part that falls, from 0 to 1.
        noise_shape: the shape of the mask, which broadcasts against the input's; None in it: as the input.
        seed: fixes the masks whatever ``gx.set_seed`` says.

    Shapes: the result has the shape of x.
    Raises: ShapeError: the mask does not broadcast to x.
    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515, section "New Dropout Technique"

    >>> import graphc as gx
    >>> AlphaDropout(0.1)(gx.placeholder("x", ("batch", 3)))
    <when_training: f32[batch, 3]>
    """

    def __init__(
        self, rate: LessThanAll, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def _disturbed(self, inputs: Node) -> Node:
        scale = 1 / math.sqrt((1 - self.rate) * (1 + self.rate * _SELU_OFF**2))
        shift = -scale * _SELU_OFF * self.rate
        kept = self._kept(_mask_shape(self, inputs, self.noise_shape), self.rate)
        return gx.where(kept, inputs, _SELU_OFF) * scale + shift


class ActivityRegularization(Layer):
    """Passes its input on and adds a penalty on it to the loss: ``l1 * sum(|x|) + l2 * sum(x**2)`` for each sample.

    Args:
        l1: the factor of the sizes.
        l2: the factor of the squares.

    Shapes: the result has the shape of x.
    Source: Keras ``ActivityRegularization``.

    >>> import graphc as gx
    >>> layer = ActivityRegularization(l1=0.01)
    >>> y = layer(gx.placeholder("x", ("batch", 3)))
    >>> layer.losses
    [<divide: f32[]>]
    """

    supports_masking = True

    def __init__(self, l1: NonNegative = 0.0, l2: NonNegative = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1, l2), **kwargs)
        self.l1, self.l2 = float(l1), float(l2)

    def call(self, inputs: Node) -> Node:
        return inputs
