"""Layers that change the values of images: contrast and brightness at random in training, another scale always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.config import user_line
from graphc.frontend.layers.augmentation import RandomImageLayer, bounds
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node


def value_bounds(given: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest value that images may have.

    Raises:
        AxisError: these are not two numbers, the lower one first.
    """
    pair = tuple(float(value) for value in given)
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise AxisError(f"value_range is {given!r}", at=user_line(), remedy="give (0, 255), or (0, 1)")
    return pair[0], pair[1]


class RandomContrast(RandomImageLayer):
    """In training moves each image's values away from their mean in each channel, or closer to it.

    ``(x - mean) * c + mean``, held within ``value_range``.

    Args:
        factor: c is between ``1 - lower`` and ``1 + upper``, both from 0 to 1; one number is both (as Keras's
            documentation says; its code then takes 0 as the lower one).
        value_range: the lowest and the highest value of images.
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Raises: AxisError.
    Source: Keras ``RandomContrast``.

    >>> import graphc as gx
    >>> gx.layers.RandomContrast(0.2)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    def __init__(
        self,
        factor: float | Sequence[float],
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        pair = (factor, factor) if isinstance(factor, int | float) else tuple(factor)
        if len(pair) != 2:
            raise AxisError(f"factor is {factor!r}", at=user_line(), remedy="give a number from 0 to 1, or two of them")
        low, high = pair
        self.factor = (-bounds("factor", (0, low), 0, 1)[1], bounds("factor", (0, high), 0, 1)[1])
        self.value_range = value_bounds(value_range)

    def changed(self, x: Node) -> Node:
        wide = gx.cast(x, x.dtype.wide)
        mean = gx.mean(wide, axis=(1, 2), keepdims=True)
        contrast = gx.reshape(self.drawn(x, *self.factor) + 1.0, (x.shape[0], 1, 1, 1))
        return gx.cast(gx.clip((wide - mean) * contrast + mean, *self.value_range), x.dtype)


class RandomBrightness(RandomImageLayer):
    """In training adds one number to all values of an image, and holds them within ``value_range``.

    Args:
        factor: bounds of the number in parts of the range, from -1 (all black) to 1 (all white); one number f: from
            -f to f.
        value_range: the lowest and the highest value of images.
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Raises: AxisError.
    Source: Keras ``RandomBrightness``.

    >>> import graphc as gx
    >>> gx.layers.RandomBrightness(0.2)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    def __init__(
        self,
        factor: float | Sequence[float],
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = bounds("factor", factor, -1, 1)
        self.value_range = value_bounds(value_range)

    def changed(self, x: Node) -> Node:
        low, high = self.value_range
        added = gx.reshape(self.drawn(x, *self.factor) * (high - low), (x.shape[0], 1, 1, 1))
        return gx.cast(gx.clip(gx.cast(x, x.dtype.wide) + added, low, high), x.dtype)


class Rescaling(Layer):
    """``x * scale + offset``, in training and elsewhere; integers become float32.

    Args:
        scale: a number, or one for each channel, where channels are last.
        offset: likewise.

    Shapes: the result has the shape of x.
    Source: Keras ``Rescaling``.

    >>> import graphc as gx
    >>> gx.layers.Rescaling(1 / 127.5, offset=-1)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <add: f32[batch, 8, 8, 3]>
    """

    supports_masking = True

    def __init__(self, scale: float | Sequence[float], offset: float | Sequence[float] = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset

    def call(self, inputs: Node) -> Node:
        x = inputs if inputs.dtype.is_float else gx.cast(inputs, "float32")
        scale, offset = (
            given if isinstance(given, int | float) else gx.constant(list(given), x.dtype)
            for given in (self.scale, self.offset)
        )
        return x * scale + offset
