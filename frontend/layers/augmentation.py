"""Layers that move, turn and stretch images at random in training, each image by itself, and leave them elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.arguments import is_number
from graphc.frontend.config import user_line
from graphc.frontend.layers.spatial import SpatialLayer
from graphc.ir.node import Node

FILL_MODES = ("constant", "nearest", "reflect", "wrap")
INTERPOLATIONS = ("nearest", "bilinear")
FLIPS = ("horizontal", "vertical", "horizontal_and_vertical")


def one_of(name: str, given: str, known: Sequence[str]) -> str:
    """A name that there is.

    Raises:
        AxisError: there is none such.
    """
    if given not in known:
        raise AxisError(f"there is no {name} {given!r}", at=user_line(), remedy=f"use one of {', '.join(known)}")
    return given


def bounds(
    name: str, given: float | Sequence[float], low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """Between which numbers is drawn: the two that are given, or from -f to f.

    Raises:
        AxisError: these are not one or two numbers in order, or they lie beyond ``low`` and ``high``.
    """
    reach = abs(cast("float", given)) if is_number(given) else None
    pair = (-reach, reach) if reach is not None else tuple(cast("Sequence[float]", given))
    if len(pair) != 2 or not all(is_number(one, low, high) for one in pair) or pair[0] > pair[1]:
        where = "" if math.isinf(high) else f" from {low:g} to {high:g}"
        raise AxisError(
            f"{name} is {given!r}", at=user_line(), remedy=f"give a number{where}, or two of them, the lower one first"
        )
    return float(pair[0]), float(pair[1])


class RandomImageLayer(SpatialLayer):
    """A layer that changes each image of a batch in a way of its own in training, and no image elsewhere.

    What it draws depends on the model's seed, the training step and the layer's path, and on nothing else. Integers
    become float32.

    Args:
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        data_format: "channels_last" (the default) or "channels_first".
    """

    def __init__(self, seed: int | None = None, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.seed = seed

    def call(self, inputs: Node, training: bool | None = None) -> Node:
        images = inputs if inputs.dtype.is_float else gx.cast(inputs, "float32")
        x = self.to_last(images)
        left = self.left(x)
        elsewhere = images if left is x else self.from_last(left)
        if training is False:
            return elsewhere
        return self.when_training(self.from_last(self.changed(x)), elsewhere)

    def changed(self, x: Node) -> Node:
        """What becomes of images in training, channels last."""
        raise NotImplementedError(f"{type(self).__name__} does not define changed")

    def left(self, x: Node) -> Node:
        """What becomes of them elsewhere: by default nothing."""
        return x

    def drawn(self, x: Node, low: float, high: float, purpose: str = "") -> Node:
        """A number between two bounds for each image."""
        images, dtype = x.shape[:1], x.dtype.wide
        if low == high:
            return gx.full(images, low, dtype)
        return gx.random.uniform(images, *self.random_state(self.seed, purpose), dtype=dtype, low=low, high=high)


class RandomFlip(RandomImageLayer):
    """In training mirrors half of the images, left and right or upside down.

    Args:
        mode: "horizontal", "vertical" or "horizontal_and_vertical": then both are drawn, each by itself, so that a
            quarter of the images is mirrored both ways (in Keras one draw decides both).
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Raises: AxisError for an unknown mode.
    Source: Keras ``RandomFlip``.

    >>> import graphc as gx
    >>> gx.layers.RandomFlip("horizontal")(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.mode = one_of("mode", mode, FLIPS)

    def changed(self, x: Node) -> Node:
        for name, mirrored in (("horizontal", (..., slice(None, None, -1), slice(None))),
                               ("vertical", (slice(None), slice(None, None, -1)))):  # fmt: skip
            if name in self.mode:
                state = self.random_state(self.seed, name)
                x = gx.where(gx.random.bernoulli((x.shape[0], 1, 1, 1), 0.5, *state), x[mirrored], x)
        return x


class _Moved(RandomImageLayer):
    """Images read at places that an affine map of each one says."""

    def __init__(
        self, fill_mode: str, interpolation: str, seed: int | None, fill_value: float, data_format: str | None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(seed, data_format, **kwargs)
        self.fill_mode = one_of("fill_mode", fill_mode, FILL_MODES)
        self.interpolation = one_of("interpolation", interpolation, INTERPOLATIONS)
        self.fill_value = float(fill_value)

    def _read(
        self, x: Node, linear: Sequence[Node | float], down: Node | float = 0.0, right: Node | float = 0.0
    ) -> Node:
        """Images where each pixel comes from elsewhere.

        Args:
            x: the images.
            linear: the map of places, seen from the middle: new row by row and column, new column by row and column.
            down, right: how many pixels farther down and right to read.
        """
        dtype = x.dtype.wide
        a, b, c, d = linear
        middle_row, middle_column = ((gx.size_of(size, dtype) - 1.0) * 0.5 for size in x.shape[1:3])
        rows = [a, b, middle_row - middle_row * a - middle_column * b + down]
        columns = [c, d, middle_column - middle_row * c - middle_column * d + right]
        parts = [one if isinstance(one, Node) else gx.constant(one, dtype) for one in (*rows, *columns)]
        matrix = gx.stack([gx.broadcast_to(part, x.shape[:1]) for part in parts], -1)
        places = gx.affine_grid(gx.reshape(matrix, (x.shape[0], 2, 3)), x.shape[1:3])
        return gx.grid_sample(x, *places, self.interpolation, self.fill_mode, self.fill_value)


class RandomRotation(_Moved):
    """In training turns each image about its middle, by an angle of its own.

    Args:
        factor: the bounds of the angle in full turns, counter-clockwise; one number f: from -f to f.
        fill_mode: what comes in from beyond the edges of ``a b c d``: "reflect" ``b a | d c``, "wrap" ``c d | a b``,
            "nearest" ``a a | d d``, or "constant".
        interpolation: "bilinear" between four pixels, or "nearest".
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        fill_value: of the fill mode "constant".
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Raises: AxisError.
    Source: Keras ``RandomRotation``.

    >>> import graphc as gx
    >>> gx.layers.RandomRotation(0.1)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    def __init__(
        self,
        factor: float | Sequence[float],
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.factor = bounds("factor", factor)

    def changed(self, x: Node) -> Node:
        angle = self.drawn(x, *self.factor) * (2 * math.pi)
        sine, cosine = gx.sin(angle), gx.cos(angle)
        return self._read(x, (cosine, sine, -sine, cosine))


class RandomZoom(_Moved):
    """In training makes each image smaller or larger, about its middle.

    Args:
        height_factor: bounds from -1 to 1: at 0.2 the image becomes 1 / 1.2 as high, at -0.2 1 / 0.8; one number f:
            from -f to f.
        width_factor: the same of the width; None: both by one number, so that nothing is distorted.
        fill_mode: what comes in from beyond the edges of ``a b c d``: "reflect" ``b a | d c``, "wrap" ``c d | a b``,
            "nearest" ``a a | d d``, or "constant".
        interpolation: "bilinear" between four pixels, or "nearest".
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        fill_value: of the fill mode "constant".
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Raises: AxisError.
    Source: Keras ``RandomZoom``.

    >>> import graphc as gx
    >>> gx.layers.RandomZoom(0.2)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    def __init__(
        self,
        height_factor: float | Sequence[float],
        width_factor: float | Sequence[float] | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor = bounds("height_factor", height_factor, -1, 1)
        self.width_factor = None if width_factor is None else bounds("width_factor", width_factor, -1, 1)

    def changed(self, x: Node) -> Node:
        by_height = self.drawn(x, *self.height_factor, "height") + 1.0
        by_width = by_height if self.width_factor is None else self.drawn(x, *self.width_factor, "width") + 1.0
        return self._read(x, (by_height, 0.0, 0.0, by_width))


class RandomTranslation(_Moved):
    """In training moves each image.

    Args:
        height_factor: bounds of the way down in heights of the image, from -1 to 1; one number f: from -f to f.
        width_factor: the same of the way to the right, in widths.
        fill_mode: what comes in from beyond the edges of ``a b c d``: "reflect" ``b a | d c``, "wrap" ``c d | a b``,
            "nearest" ``a a | d d``, or "constant".
        interpolation: "bilinear" between four pixels, or "nearest".
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        fill_value: of the fill mode "constant".
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: x: (batch, height, width, channels); the result has the shape of x.
    Raises: AxisError.
    Source: Keras ``RandomTranslation``.

    >>> import graphc as gx
    >>> gx.layers.RandomTranslation(0.1, 0.1)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 8, 8, 3]>
    """

    def __init__(
        self,
        height_factor: float | Sequence[float],
        width_factor: float | Sequence[float],
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor = bounds("height_factor", height_factor, -1, 1)
        self.width_factor = bounds("width_factor", width_factor, -1, 1)

    def changed(self, x: Node) -> Node:
        down = self.drawn(x, *self.height_factor, "height") * gx.size_of(x.shape[1], x.dtype.wide)
        right = self.drawn(x, *self.width_factor, "width") * gx.size_of(x.shape[2], x.dtype.wide)
        return self._read(x, (1.0, 0.0, 0.0, 1.0), -down, -right)
