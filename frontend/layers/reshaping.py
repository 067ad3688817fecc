"""Layers that move values without computing: Flatten, Reshape, Permute, RepeatVector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.checked import Count
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.spatial import format_of
from graphc.ir.dims import product
from graphc.ir.node import Node


class Flatten(Layer):
    """All axes but the batch axis as one.

    Args:
        data_format: ``channels_last``, or ``channels_first`` to move channels last before flattening.

    Shapes: (batch, a, b, ...) becomes (batch, a * b * ...); (batch,) becomes (batch, 1).
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = format_of(data_format)

    def call(self, inputs: Node) -> Node:
        if self.data_format == "channels_first" and inputs.ndim > 2:
            inputs = gx.transpose(inputs, (0, *range(2, inputs.ndim), 1))
        return gx.reshape(inputs, (inputs.shape[0], product(inputs.shape[1:])))


class Reshape(Layer):
    """Another shape for each sample.

    Args:
        target_shape: sizes without the batch axis; one may be -1.

    Shapes: (batch, ...) becomes (batch, *target_shape).
    """

    def __init__(self, target_shape: Iterable[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def call(self, inputs: Node) -> Node:
        known = [size for size in self.target_shape if size != -1]
        if len(known) == len(self.target_shape):
            return gx.reshape(inputs, (inputs.shape[0], *known))
        total, part = product(inputs.shape[1:]), product(tuple(known))
        if len(self.target_shape) - len(known) > 1 or part == 0 or total % part != 0:
            raise ShapeError(
                f"layer {self.name!r} cannot make {self.target_shape} of {inputs.shape[1:]}",
                at=user_line(),
                remedy="the sizes must divide the number of values of a sample; at most one may be -1",
            )
        return gx.reshape(
            inputs, (inputs.shape[0], *(total // part if size == -1 else size for size in self.target_shape))
        )


class Permute(Layer):
    """The axes of each sample in another order.

    Args:
        dims: the axes, counted from 1, without the batch axis: (2, 1) swaps the two axes of a matrix.
    """

    def __init__(self, dims: Iterable[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise AxisError(
                f"dims must hold each axis from 1 to {len(self.dims)} once, not {self.dims}",
                at=user_line(),
                remedy="write Permute((2, 1)) to swap two axes",
            )

    def call(self, inputs: Node) -> Node:
        return gx.transpose(inputs, (0, *self.dims))


class RepeatVector(Layer):
    """A vector as every step of a sequence: how one input starts a sequence of outputs.

    Args:
        n: the number of steps.

    Shapes: (batch, features) becomes (batch, n, features).
    Raises: AxisError: n is no positive whole number; ShapeError: the inputs have other than two axes.
    Source: Keras ``RepeatVector``.

    >>> import graphc as gx
    >>> RepeatVector(5)(gx.placeholder("x", ("batch", 3)))
    <broadcast_to: f32[batch, 5, 3]>
    """

    def __init__(self, n: Count, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = n

    def call(self, inputs: Node) -> Node:
        if inputs.ndim != 2:
            raise ShapeError(
                f"layer {self.name!r} takes two axes (batch, features), its input has {inputs.ndim}",
                details=(f"inputs: {inputs.type}",),
                at=user_line(),
                remedy="take one vector for each sample: layers.Flatten()",
            )
        return gx.broadcast_to(gx.expand_dims(inputs, 1), (inputs.shape[0], self.n, inputs.shape[1]))
