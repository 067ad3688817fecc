"""Images and the like made larger or smaller: by interpolation, by zeros around them, by cutting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.checked import Count, Ends
from graphc.frontend.config import user_line
from graphc.frontend.layers.spatial import SpatialLayer, for_axes
from graphc.ir.node import Node

INTERPOLATIONS = ("nearest", "bilinear")


def _interpolation(name: str) -> str:
    if name.lower() not in INTERPOLATIONS:
        raise AxisError(
            f"there is no interpolation {name!r}", at=user_line(), remedy=f"use {' or '.join(INTERPOLATIONS)}"
        )
    return name.lower()


def _repeated(x: Node, axis: int, times: int) -> Node:
    """Each element ``times`` times in a row: a view."""
    if times == 1:
        return x
    apart = gx.expand_dims(x, axis + 1)
    wide = gx.broadcast_to(apart, (*x.shape[: axis + 1], times, *x.shape[axis + 1 :]))
    return gx.reshape(wide, (*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :]))


def resized(x: Node, axis: int, size: int, interpolation: str) -> Node:
    """One axis in another size; elements are taken to stand in the middle of their cells."""
    before = x.shape[axis]
    assert isinstance(before, int)
    if before == size:
        return x
    place = (np.arange(size) + 0.5) * before / size
    if interpolation == "nearest":
        return gx.take(x, gx.constant(np.minimum(place.astype(np.int64), before - 1)), axis)
    place = np.clip(place - 0.5, 0, before - 1)
    low = np.floor(place).astype(np.int64)
    share = (place - low).astype(x.dtype.numpy).reshape(size, *(1,) * (x.ndim - 1 - axis))
    here, there = (gx.take(x, gx.constant(index), axis) for index in (low, np.minimum(low + 1, before - 1)))
    return here * gx.constant(1 - share) + there * gx.constant(share)


def known_sizes(layer: SpatialLayer, x: Node) -> list[int]:
    """The sizes between the batch and the channels.

    Raises:
        ShapeError: one is symbolic.
    """
    sizes = [size for size in x.shape[1:-1] if isinstance(size, int)]
    if len(sizes) != layer.rank:
        raise ShapeError(
            f"layer {layer.name!r} interpolates between sizes that must be known, its input has shape {x.shape}",
            at=user_line(),
            remedy="give the sizes in Input",
        )
    return sizes


class _UpSampling(SpatialLayer):
    """Each element several times along each axis.

    Args:
        size: how often.
        data_format: "channels_last" or "channels_first".
    """

    size: tuple[int, ...]

    def __init__(self, size: int | Sequence[int] = 2, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.size = for_axes("size", size, self.rank)

    def transform(self, x: Node) -> Node:
        for axis, times in enumerate(self.size, 1):
            x = _repeated(x, axis, times)
        return x


class UpSampling1D(_UpSampling):
    """Each element of a sequence ``size`` times.

    Shapes: (batch, length, channels) -> (batch, length * size, channels).
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.UpSampling1D(3)(gx.placeholder("x", ("n", 5, 4)))
    <reshape: f32[n, 15, 4]>
    """

    rank = 1

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(size, **kwargs)
        self.size = size  # pyright: ignore[reportAttributeAccessIssue]

    def transform(self, x: Node) -> Node:
        return _repeated(x, 1, *for_axes("size", self.size, 1))


class UpSampling2D(_UpSampling):
    """An image ``size`` times as large.

    Args:
        size: how many times, along each axis.
        data_format: "channels_last" or "channels_first".
        interpolation: "nearest" repeats, "bilinear" interpolates.

    Shapes: (batch, height, width, channels) -> (batch, height * size, width * size, channels).
    Raises: AxisError; ShapeError: bilinear needs sizes that are known.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.UpSampling2D()(gx.placeholder("x", ("n", 5, 6, 4)))
    <reshape: f32[n, 10, 12, 4]>
    """

    rank = 2

    def __init__(
        self,
        size: int | Sequence[int] = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, data_format, **kwargs)
        self.interpolation = _interpolation(interpolation)

    def transform(self, x: Node) -> Node:
        if self.interpolation == "nearest":
            return super().transform(x)
        for axis, (size, times) in enumerate(zip(known_sizes(self, x), self.size, strict=True), 1):
            x = resized(x, axis, size * times, self.interpolation)
        return x


class UpSampling3D(_UpSampling):
    """Each element of a volume several times along each axis.

    Args:
        size: how often.
        data_format: "channels_last" or "channels_first".

    Shapes: sizes are multiplied.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.UpSampling3D()(gx.placeholder("x", ("n", 2, 3, 4, 1)))
    <reshape: f32[n, 4, 6, 8, 1]>
    """

    rank = 3

    def __init__(self, size: int | Sequence[int] = (2, 2, 2), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(size, data_format, **kwargs)


class Resizing(SpatialLayer):
    """Images in a given size.

    Args:
        height, width: the size.
        interpolation: "nearest" or "bilinear", between four pixels also where the image becomes smaller.
        data_format: "channels_last" or "channels_first".

    Shapes: (batch, *sizes, channels) -> (batch, height, width, channels); the input's sizes are known.
    Raises: AxisError; ShapeError: sizes that are not known.
    Source: Keras; half-pixel centers as in https://onnx.ai/onnx/operators/onnx__Resize.html

    >>> import graphc as gx
    >>> gx.layers.Resizing(4, 6)(gx.placeholder("x", ("n", 8, 8, 3))).type
    f32[n, 4, 6, 3]
    """

    rank = 2

    def __init__(
        self,
        height: Count,
        width: Count,
        interpolation: str = "bilinear",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.height, self.width = for_axes("height and width", (height, width), 2)
        self.interpolation = _interpolation(interpolation)

    def transform(self, x: Node) -> Node:
        known_sizes(self, x)
        for axis, size in ((1, self.height), (2, self.width)):
            x = resized(x, axis, size, self.interpolation)
        return x


def _pairs(name: str, given: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """How much at the front and the end of each axis."""
    if isinstance(given, int):
        given = cast("Any", (given,) * rank if rank > 1 else (given, given))
    values = [given] if rank == 1 else list(given)
    pairs = [for_axes(name, one, 2, least=0) for one in values]
    if len(pairs) != rank:
        raise AxisError(
            f"{name} is {given!r}", at=user_line(), remedy=f"give a number or a pair for each of {rank} axes"
        )
    return tuple((one[0], one[1]) for one in pairs)


class _Padding(SpatialLayer):
    def __init__(self, padding: Ends, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        pairs = _pairs("padding", padding, self.rank)
        self.padding = pairs[0] if self.rank == 1 else pairs

    def transform(self, x: Node) -> Node:
        rows = _pairs("padding", self.padding, self.rank)
        return gx.pad(x, (0, *(low for low, _ in rows), 0), (0, *(high for _, high in rows), 0))


class ZeroPadding1D(_Padding):
    """Zeros before and behind a sequence.

    Args:
        padding: how many at each end, or a pair.
        data_format: "channels_last" or "channels_first".

    Shapes: the length grows by both.
    Raises: AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.ZeroPadding1D((1, 2))(gx.placeholder("x", ("n", 5, 4)))
    <pad: f32[n, 8, 4]>
    """

    rank = 1

    def __init__(self, padding: Ends = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding2D(_Padding):
    """Zeros around an image.

    Args:
        padding: how many at all sides, a number for each axis, or a pair for each axis.
        data_format: "channels_last" or "channels_first".

    Shapes: sizes grow by both ends.
    Raises: AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.ZeroPadding2D()(gx.placeholder("x", ("n", 5, 5, 4)))
    <pad: f32[n, 7, 7, 4]>
    """

    rank = 2

    def __init__(self, padding: Ends = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class ZeroPadding3D(_Padding):
    """Zeros around a volume.

    Args:
        padding: how many at all sides, a number for each axis, or a pair for each axis.
        data_format: "channels_last" or "channels_first".

    Shapes: sizes grow by both ends.
    Raises: AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.ZeroPadding3D()(gx.placeholder("x", ("n", 5, 5, 5, 4)))
    <pad: f32[n, 7, 7, 7, 4]>
    """

    rank = 3

    def __init__(self, padding: Ends = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(padding, data_format, **kwargs)


class _Cropping(SpatialLayer):
    def __init__(self, cropping: Ends, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        pairs = _pairs("cropping", cropping, self.rank)
        self.cropping = pairs[0] if self.rank == 1 else pairs

    def transform(self, x: Node) -> Node:
        rows = _pairs("cropping", self.cropping, self.rank)
        for size, (low, high) in zip(x.shape[1:-1], rows, strict=True):
            if isinstance(size, int) and low + high >= size:
                raise ShapeError(
                    f"layer {self.name!r} cuts {low} and {high} off {size}", at=user_line(), remedy="cut off less"
                )
        cuts = (slice(low, size - high) for size, (low, high) in zip(x.shape[1:-1], rows, strict=True))
        return x[(slice(None), *cuts)]


class Cropping1D(_Cropping):
    """A sequence without its ends.

    Args:
        cropping: how much is cut off at each end, or a pair.
        data_format: "channels_last" or "channels_first".

    Shapes: the length shrinks by both.
    Raises: ShapeError: nothing would be left; AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.Cropping1D((1, 2))(gx.placeholder("x", ("n", 5, 4)))
    <slice: f32[n, 2, 4]>
    """

    rank = 1

    def __init__(self, cropping: Ends = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping2D(_Cropping):
    """An image without its edges.

    Args:
        cropping: how much is cut off at all sides, a number for each axis, or a pair for each axis.
        data_format: "channels_last" or "channels_first".

    Shapes: sizes shrink by both ends.
    Raises: ShapeError: nothing would be left; AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.Cropping2D(1)(gx.placeholder("x", ("n", 5, 5, 4)))
    <slice: f32[n, 3, 3, 4]>
    """

    rank = 2

    def __init__(self, cropping: Ends = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(_Cropping):
    """A volume without its edges.

    Args:
        cropping: how much is cut off at all sides, a number for each axis, or a pair for each axis.
        data_format: "channels_last" or "channels_first".

    Shapes: sizes shrink by both ends.
    Raises: ShapeError: nothing would be left; AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.Cropping3D(1)(gx.placeholder("x", ("n", 5, 5, 5, 4)))
    <slice: f32[n, 3, 3, 3, 4]>
    """

    rank = 3

    def __init__(
        self, cropping: Ends = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)
