"""Layers that make one tensor of several: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node


class Merge(Layer):
    """Base of layers that combine a list of tensors of one shape (sizes of 1 are repeated)."""

    supports_masking = True
    joins = True

    def merge(self, inputs: Sequence[Node]) -> Node:
        """Combine at least two tensors of equal rank."""
        raise NotImplementedError(f"{type(self).__name__} does not define merge")

    def call(self, inputs: Any) -> Node:
        found = list(cast("Sequence[Node]", inputs if isinstance(inputs, list | tuple) else [inputs]))
        if len(found) < 2:
            raise AxisError(
                f"layer {self.name!r} takes a list of at least two inputs, not {len(found)}",
                at=user_line(),
                remedy=f"write layers.{type(self).__name__}()([a, b])",
            )
        rank = max(node.ndim for node in found)
        return self.merge([_widen(node, rank) for node in found])

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """A step counts where it counts in any of the inputs; without a mask for each input there is none."""
        if previous_mask is None or any(mask is None for mask in previous_mask):
            return None
        return reduce(gx.logical_or, previous_mask)


def _widen(node: Node, rank: int) -> Node:
    """Axes of size 1 after the batch axis, as Keras broadcasts tensors of fewer axes."""
    while node.ndim < rank:
        node = gx.expand_dims(node, 1)
    return node


class Add(Merge):
    """The sum of a list of tensors.

    >>> import graphc as gx
    >>> a, b = gx.placeholder("a", ("batch", 3)), gx.placeholder("b", ("batch", 3))
    >>> Add()([a, b])
    <add: f32[batch, 3]>
    """

    def merge(self, inputs: Sequence[Node]) -> Node:
        return reduce(gx.add, inputs)


class Subtract(Merge):
    """The first of two tensors less the second."""

    def merge(self, inputs: Sequence[Node]) -> Node:
        if len(inputs) != 2:
            raise AxisError(
                f"layer {self.name!r} takes exactly two inputs, not {len(inputs)}",
                at=user_line(),
                remedy="write layers.Subtract()([a, b])",
            )
        return gx.subtract(inputs[0], inputs[1])


class Multiply(Merge):
    """The product, element by element, of a list of tensors."""

    def merge(self, inputs: Sequence[Node]) -> Node:
        return reduce(gx.multiply, inputs)


class Average(Merge):
    """The mean, element by element, of a list of tensors."""

    def merge(self, inputs: Sequence[Node]) -> Node:
        return reduce(gx.add, inputs) / len(inputs)


class Maximum(Merge):
    """The largest, element by element, of a list of tensors."""

    def merge(self, inputs: Sequence[Node]) -> Node:
        return reduce(gx.maximum, inputs)


class Minimum(Merge):
    """The smallest, element by element, of a list of tensors."""

    def merge(self, inputs: Sequence[Node]) -> Node:
        return reduce(gx.minimum, inputs)


class Concatenate(Merge):
    """A list of tensors one after the other along an axis.

    Args:
        axis: where they are joined; all other sizes must be equal.

    >>> import graphc as gx
    >>> a, b = gx.placeholder("a", ("batch", 3)), gx.placeholder("b", ("batch", 4))
    >>> Concatenate()([a, b])
    <concatenate: f32[batch, 7]>
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def merge(self, inputs: Sequence[Node]) -> Node:
        return gx.concatenate(inputs, axis=self.axis)

    def call(self, inputs: Any) -> Node:
        given = cast("Sequence[Node]", inputs if isinstance(inputs, list | tuple) else [inputs])
        ranks = {node.ndim for node in given}
        if len(ranks) > 1:
            raise ShapeError(
                f"layer {self.name!r} takes inputs of equal rank, not {sorted(ranks)}",
                at=user_line(),
                remedy="bring them to one rank first: layers.Reshape or layers.Flatten",
            )
        return super().call(given)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """A step counts where it counts in any of the inputs; joined along the steps, masks are joined, too."""
        if previous_mask is None or all(mask is None for mask in previous_mask):
            return None
        masks = [_full_mask(node, mask) for node, mask in zip(inputs, previous_mask, strict=True)]
        axis = self.axis % inputs[0].ndim
        if axis < masks[0].ndim:
            return gx.concatenate(masks, axis=axis)
        return reduce(gx.logical_or, masks)


def _full_mask(node: Node, mask: Node | None) -> Node:
    return gx.ones(node.shape[:2], "bool") if mask is None else mask
