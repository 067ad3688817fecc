"""Layers that cut images: at random places in training, and from the middle."""

from __future__ import annotations

from typing import Any

import graphc as gx
from graphc.frontend.checked import Count
from graphc.frontend.layers.augmentation import RandomImageLayer
from graphc.frontend.layers.resizing import known_sizes, resized
from graphc.frontend.layers.spatial import SpatialLayer, for_axes
from graphc.ir.node import Node


def fitted(layer: SpatialLayer, x: Node, height: int, width: int) -> Node:
    """The largest part from the middle that has the form of height and width, in that size."""
    own_height, own_width = known_sizes(layer, x)
    rows = max(min(own_height, own_width * height // width), 1)
    columns = max(min(own_width, own_height * width // height), 1)
    x = _middle(x, rows, columns)
    for axis, size in ((1, height), (2, width)):
        x = resized(x, axis, size, "bilinear")
    return x


def _middle(x: Node, rows: int, columns: int) -> Node:
    top, left = (x.shape[1] - rows) // 2, (x.shape[2] - columns) // 2
    return x[:, top : top + rows, left : left + columns]


class RandomCrop(RandomImageLayer):
    """In training cuts a part out of each image, at a place of its own.

    Elsewhere, and from images that are smaller, it takes the largest part in the middle that has the form of the
    result, and resizes that.

    Args:
        height, width: of the part.
        seed: fixes what is drawn whatever ``gx.set_seed`` says.
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: (batch, *sizes, channels) -> (batch, height, width, channels); the input's sizes are known.
    Raises: AxisError; ShapeError: sizes that are not known.
    Source: Keras ``RandomCrop``, which draws one place for a whole batch.

    >>> import graphc as gx
    >>> gx.layers.RandomCrop(6, 6)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <when_training: f32[batch, 6, 6, 3]>
    """

    def __init__(
        self, height: Count, width: Count, seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.height, self.width = for_axes("height and width", (height, width), 2)

    def changed(self, x: Node) -> Node:
        spare = [own - size for own, size in zip(known_sizes(self, x), (self.height, self.width), strict=True)]
        if min(spare) < 0:
            return fitted(self, x, self.height, self.width)
        places = [
            gx.random.randint((x.shape[0], 1, 1), 0, count + 1, *self.random_state(self.seed, name))
            for name, count in zip(("height", "width"), spare, strict=True)
        ]
        part = (x.shape[0], self.height, self.width)
        rows, columns = (gx.cast(start + gx.iota(part, axis), "float32") for axis, start in enumerate(places, 1))
        return gx.grid_sample(x, rows, columns, "nearest", "nearest")

    def left(self, x: Node) -> Node:
        return fitted(self, x, self.height, self.width)


class CenterCrop(SpatialLayer):
    """The middle of images, in training and elsewhere.

    From an image that is smaller it takes the largest part in the middle that has the form of the result, and resizes
    that.

    Args:
        height, width: of the part.
        data_format: "channels_last" (the default) or "channels_first".

    Shapes: (batch, *sizes, channels) -> (batch, height, width, channels); the input's sizes are known.
    Raises: AxisError; ShapeError: sizes that are not known.
    Source: Keras ``CenterCrop``.

    >>> import graphc as gx
    >>> gx.layers.CenterCrop(6, 6)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <slice: f32[batch, 6, 6, 3]>
    """

    def __init__(self, height: Count, width: Count, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.height, self.width = for_axes("height and width", (height, width), 2)

    def transform(self, x: Node) -> Node:
        own_height, own_width = known_sizes(self, x)
        if own_height < self.height or own_width < self.width:
            return fitted(self, x, self.height, self.width)
        return _middle(x, self.height, self.width)
