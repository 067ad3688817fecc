"""Pooling: the largest value or the mean of windows, of whole images, or of as many parts as are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.checked import Ends
from graphc.frontend.config import user_line
from graphc.frontend.layers.spatial import SpatialLayer, for_axes
from graphc.ir.node import Node


class _Pooling(SpatialLayer):
    """What :class:`MaxPooling2D` and its kin share."""

    def __init__(
        self,
        pool_size: int | Sequence[int] = 2,
        strides: int | Sequence[int] | None = None,
        padding: str | Ends = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.pool_size = for_axes("pool_size", pool_size, self.rank)
        self.strides = self.pool_size if strides is None else for_axes("strides", strides, self.rank)
        self.padding = padding.lower() if isinstance(padding, str) else padding
        if isinstance(padding, str) and self.padding not in ("valid", "same"):
            raise AxisError(f"there is no padding {padding!r} here", at=user_line(), remedy="use valid or same")


class _MaxPooling(_Pooling):
    def transform(self, x: Node) -> Node:
        return gx.max_pool(x, self.pool_size, self.strides, self.padding)


class _AveragePooling(_Pooling):
    def transform(self, x: Node) -> Node:
        return gx.average_pool(x, self.pool_size, self.strides, self.padding)


class MaxPooling1D(_MaxPooling):
    """The largest value of each window of sequences; arguments as of :class:`MaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.MaxPooling1D()(gx.placeholder("x", ("n", 8, 4)))
    <max_pool: f32[n, 4, 4]>
    """

    rank = 1


class MaxPooling2D(_MaxPooling):
    """The largest value of each window of images.

    Args:
        pool_size: how far a window reaches along each axis.
        strides: how far the next window is; None: as far as a window reaches.
        padding: "valid" for none, "same" for as many windows as places (divided by the stride), or numbers: an int or a
            pair for each axis. What is added does not count.
        data_format: "channels_last" or "channels_first".

    Shapes: (batch, *sizes, channels) -> (batch, *windows, channels), or with the channels behind the batch.
    Raises: ShapeError: the input has other axes, or a window does not fit; AxisError.
    Source: Keras.

    >>> import graphc as gx
    >>> gx.layers.MaxPooling2D()(gx.placeholder("x", ("n", 8, 8, 4)))
    <max_pool: f32[n, 4, 4, 4]>
    """

    rank = 2


class MaxPooling3D(_MaxPooling):
    """The largest value of each window of volumes; arguments as of :class:`MaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.MaxPooling3D()(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <max_pool: f32[n, 4, 4, 4, 4]>
    """

    rank = 3


class AveragePooling1D(_AveragePooling):
    """The mean of each window of sequences; arguments as of :class:`MaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AveragePooling1D()(gx.placeholder("x", ("n", 8, 4)))
    <average_pool: f32[n, 4, 4]>
    """

    rank = 1


class AveragePooling2D(_AveragePooling):
    """The mean of each window of images; arguments as of :class:`MaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AveragePooling2D()(gx.placeholder("x", ("n", 8, 8, 4)))
    <average_pool: f32[n, 4, 4, 4]>
    """

    rank = 2


class AveragePooling3D(_AveragePooling):
    """The mean of each window of volumes; arguments as of :class:`MaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AveragePooling3D()(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <average_pool: f32[n, 4, 4, 4, 4]>
    """

    rank = 3


class _GlobalPooling(SpatialLayer):
    """What :class:`GlobalMaxPooling2D` and its kin share."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.keepdims = keepdims

    @property
    def places(self) -> tuple[int, ...]:
        """The axes over which values are taken."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.rank))


class _GlobalMaxPooling(_GlobalPooling):
    def call(self, inputs: Node) -> Node:
        self._check_rank(inputs.ndim)
        return gx.max(inputs, axis=self.places, keepdims=self.keepdims)


class _GlobalAveragePooling(_GlobalPooling):
    def call(self, inputs: Node) -> Node:
        self._check_rank(inputs.ndim)
        return gx.mean(inputs, axis=self.places, keepdims=self.keepdims)


class GlobalMaxPooling1D(_GlobalMaxPooling):
    """The largest value of each channel of sequences; arguments as of :class:`GlobalMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.GlobalMaxPooling1D()(gx.placeholder("x", ("n", 8, 4)))
    <max: f32[n, 4]>
    """

    rank = 1


class GlobalMaxPooling2D(_GlobalMaxPooling):
    """The largest value of each channel of images.

    Args:
        data_format: "channels_last" or "channels_first".
        keepdims: whether the axes of places stay, with size 1.

    Shapes: (batch, *sizes, channels) -> (batch, channels).
    Raises: ShapeError: the input has other axes.
    Source: Keras; Lin, Chen and Yan 2013, https://arxiv.org/abs/1312.4400.

    >>> import graphc as gx
    >>> gx.layers.GlobalMaxPooling2D()(gx.placeholder("x", ("n", 8, 8, 4)))
    <max: f32[n, 4]>
    """

    rank = 2


class GlobalMaxPooling3D(_GlobalMaxPooling):
    """The largest value of each channel of volumes; arguments as of :class:`GlobalMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.GlobalMaxPooling3D()(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <max: f32[n, 4]>
    """

    rank = 3


class GlobalAveragePooling1D(_GlobalAveragePooling):
    """The mean of each channel over the places that count.

    Args:
        data_format: "channels_last" or "channels_first".
        keepdims: whether the axis of places stays, with size 1.

    Shapes: (batch, length, channels) -> (batch, channels).
    Raises: ShapeError: the input has other axes.
    Source: Keras.
    """

    rank = 1
    supports_masking = True

    def call(self, inputs: Node, mask: Node | None = None) -> Node:
        if mask is None:
            return super().call(inputs)
        self._check_rank(inputs.ndim)
        counts = gx.cast(gx.expand_dims(mask, 2 if self.data_format == "channels_last" else 1), inputs.dtype)
        total = gx.sum(inputs * counts, axis=self.places, keepdims=self.keepdims)
        return total / gx.sum(counts, axis=self.places, keepdims=self.keepdims)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


class GlobalAveragePooling2D(_GlobalAveragePooling):
    """The mean of each channel of images; arguments as of :class:`GlobalMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.GlobalAveragePooling2D()(gx.placeholder("x", ("n", 8, 8, 4)))
    <mean: f32[n, 4]>
    """

    rank = 2


class GlobalAveragePooling3D(_GlobalAveragePooling):
    """The mean of each channel of volumes; arguments as of :class:`GlobalMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.GlobalAveragePooling3D()(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <mean: f32[n, 4]>
    """

    rank = 3


class _AdaptivePooling(SpatialLayer):
    """What :class:`AdaptiveMaxPooling2D` and its kin share."""

    def __init__(self, output_size: int | Sequence[int], data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.output_size = for_axes("output_size", output_size, self.rank)

    def transform(self, x: Node) -> Node:
        sizes = [size for size in x.shape[1:-1] if isinstance(size, int)]
        if len(sizes) != self.rank:
            raise ShapeError(
                f"layer {self.name!r} divides sizes that must be known, its input has shape {x.shape}",
                at=user_line(),
                remedy="give the sizes in Input",
            )
        even = [size // parts for size, parts in zip(sizes, self.output_size, strict=True)]
        if all(size == each * parts for size, each, parts in zip(sizes, even, self.output_size, strict=True)):
            return self.pool(x, even)
        widths: list[int] = []
        for axis, (size, parts) in enumerate(zip(sizes, self.output_size, strict=True), 1):
            x, width = self.spread(x, axis, _parts(size, parts))
            widths.append(width)
        return self.pool(x, widths)

    def pool(self, x: Node, sizes: Sequence[int]) -> Node:
        """One value for each of touching windows."""
        raise NotImplementedError(f"{type(self).__name__} does not define pool")

    def spread(self, x: Node, axis: int, parts: list[range]) -> tuple[Node, int]:
        """Parts of one axis made touching windows of one size, and that size."""
        raise NotImplementedError(f"{type(self).__name__} does not define spread")


def _parts(size: int, count: int) -> list[range]:
    return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


class _AdaptiveMaxPooling(_AdaptivePooling):
    def pool(self, x: Node, sizes: Sequence[int]) -> Node:
        return gx.max_pool(x, sizes)

    def spread(self, x: Node, axis: int, parts: list[range]) -> tuple[Node, int]:
        width = max(map(len, parts))
        # A part that is shorter has its first element again, which is in it anyway.
        chosen = [[*[part[0]] * (width - len(part)), *part] for part in parts]
        return gx.take(x, gx.constant(np.array(chosen, np.int64).ravel()), axis), width


class _AdaptiveAveragePooling(_AdaptivePooling):
    def pool(self, x: Node, sizes: Sequence[int]) -> Node:
        return gx.average_pool(x, sizes)

    def spread(self, x: Node, axis: int, parts: list[range]) -> tuple[Node, int]:
        size = max(part[-1] for part in parts) + 1
        shares = np.zeros((len(parts), size))
        for row, part in zip(shares, parts, strict=True):
            row[part.start : part.stop] = 1 / len(part)
        moved = gx.moveaxis(x, axis, -1)
        mixed = gx.matmul(moved, gx.constant(shares.T.astype(x.dtype.numpy)))
        return gx.moveaxis(mixed, -1, axis), 1


class AdaptiveMaxPooling1D(_AdaptiveMaxPooling):
    """The largest value of each part of sequences; arguments as of :class:`AdaptiveMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AdaptiveMaxPooling1D(2)(gx.placeholder("x", ("n", 8, 4)))
    <max_pool: f32[n, 2, 4]>
    """

    rank = 1


class AdaptiveMaxPooling2D(_AdaptiveMaxPooling):
    """The largest value of each part of images.

    Part i of n goes from i / n of the input's size, rounded down, to (i + 1) / n of it, rounded up.

    Args:
        output_size: the number of parts along each axis.
        data_format: "channels_last" or "channels_first".

    Shapes: (batch, *sizes, channels) -> (batch, *output_size, channels), or with the channels behind the batch; the
        input's sizes are known.
    Raises: ShapeError: the input has other axes, or sizes that are not known.
    Source: Keras; https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html

    >>> import graphc as gx
    >>> gx.layers.AdaptiveMaxPooling2D(2)(gx.placeholder("x", ("n", 8, 8, 4)))
    <max_pool: f32[n, 2, 2, 4]>
    """

    rank = 2


class AdaptiveMaxPooling3D(_AdaptiveMaxPooling):
    """The largest value of each part of volumes; arguments as of :class:`AdaptiveMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AdaptiveMaxPooling3D(2)(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <max_pool: f32[n, 2, 2, 2, 4]>
    """

    rank = 3


class AdaptiveAveragePooling1D(_AdaptiveAveragePooling):
    """The mean of each part of sequences; arguments as of :class:`AdaptiveMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AdaptiveAveragePooling1D(2)(gx.placeholder("x", ("n", 8, 4)))
    <average_pool: f32[n, 2, 4]>
    """

    rank = 1


class AdaptiveAveragePooling2D(_AdaptiveAveragePooling):
    """The mean of each part of images; arguments as of :class:`AdaptiveMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AdaptiveAveragePooling2D(2)(gx.placeholder("x", ("n", 8, 8, 4)))
    <average_pool: f32[n, 2, 2, 4]>
    """

    rank = 2


class AdaptiveAveragePooling3D(_AdaptiveAveragePooling):
    """The mean of each part of volumes; arguments as of :class:`AdaptiveMaxPooling2D`.

    >>> import graphc as gx
    >>> gx.layers.AdaptiveAveragePooling3D(2)(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <average_pool: f32[n, 2, 2, 2, 4]>
    """

    rank = 3
