"""What attention does before and after: features to heads and back, and which axes are attended over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import activations, initializers
from graphc.frontend.config import user_line
from graphc.frontend.initializers import Initializer
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.dot_product import as_mask, both
from graphc.ir.dims import Size
from graphc.ir.node import Node, Parameter


class _Projection(Layer):
    """A product with a kernel of three or more axes, and a bias."""

    supports_masking = True
    kernel: Parameter
    bias: Parameter | None

    def __init__(
        self,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        activation: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.activation = activations.get(activation)
        self._kernel = {
            "initializer": kernel_initializer, "regularizer": kernel_regularizer, "constraint": kernel_constraint
        }  # fmt: skip
        self._bias = {"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint}

    def _add_weights(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        said: dict[str, Any] = {**self._kernel, "initializer": OfMatrix(self._kernel["initializer"], len(inputs))}
        self.kernel = self.add_weight(name="kernel", shape=(*inputs, *outputs), **said)
        self.bias = self.add_weight(name="bias", shape=tuple(outputs), **self._bias) if self.use_bias else None

    def _project(self, x: Node, features: Size, outputs: Sequence[int]) -> Node:
        """The product of (..., features) with the kernel as a matrix, and the bias, as (..., *outputs)."""
        size = math.prod(outputs)
        y = gx.matmul(x, gx.reshape(self.kernel, (features, size)))
        if self.bias is not None:
            y = y + gx.reshape(self.bias, (size,))
        return self.activation(gx.reshape(y, (*x.shape[:-1], *outputs)) if len(outputs) > 1 else y)


class HeadsProjection(_Projection):
    """(..., features) to (..., heads, size); the kernel is (features, heads, size)."""

    def __init__(self, heads: int, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.size = heads, size

    def build(self, input_shape: Any) -> None:
        self._add_weights(input_shape[-1:], (self.heads, self.size))

    def call(self, inputs: Node) -> Node:
        return self._project(inputs, self.kernel.shape[0], (self.heads, self.size))


class HeadsToFeatures(_Projection):
    """(..., heads, size) to (..., *features); the kernel is (heads, size, *features)."""

    def __init__(self, features: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = tuple(features)

    def build(self, input_shape: Any) -> None:
        self._add_weights(input_shape[-2:], self.features)

    def call(self, inputs: Node) -> Node:
        heads, size = self.kernel.shape[:2]
        return self._project(gx.reshape(inputs, (*inputs.shape[:-2], heads * size)), heads * size, self.features)


class OfMatrix(Initializer):
    """What an initializer draws for the matrix that a kernel of more axes stands for.

    Args:
        initializer: for the matrix.
        inputs: how many axes of the kernel, from the front, are inputs.
    """

    def __init__(self, initializer: Any, inputs: int) -> None:
        self.initializer = initializers.get(initializer)
        self.inputs = inputs

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any], where: tuple[object, ...]) -> Any:
        matrix = (math.prod(shape[: self.inputs]), math.prod(shape[self.inputs :]))
        return self.initializer.draw(matrix, dtype, where).reshape(shape)


class Grid:
    """Which axes are attended over, and how tensors get from and to (..., heads, time, size) with one axis of time.

    Args:
        rank: of the queries.
        axes: the axes attended over; default all but the batch's and the features'.
        layer: named in messages.
    """

    def __init__(self, rank: int, axes: Sequence[int] | None, layer: Layer) -> None:
        if rank < 3:
            raise ShapeError(
                f"layer {layer.name!r} takes (batch, time, features), its queries have {rank} axes",
                at=user_line(),
                remedy="add an axis: layers.Reshape((1, -1)), or layers.Embedding for ids",
            )
        self.axes = sorted(axis % rank for axis in axes) if axes else list(range(1, rank - 1))
        if not all(0 < axis < rank - 1 for axis in self.axes):
            raise AxisError(
                f"attention_axes of layer {layer.name!r} are {axes}, its queries have {rank} axes",
                at=user_line(),
                remedy="name axes between the batch and the features",
            )
        self.free = [axis for axis in range(rank - 1) if axis not in self.axes]

    def flat(self, x: Node) -> Node:
        """(..., heads, time, size) of a projection (batch, ..., heads, size)."""
        heads = x.ndim - 2
        x = gx.transpose(x, (*self.free, heads, *self.axes, heads + 1))
        if len(self.axes) == 1:
            return x
        start = len(self.free) + 1
        return gx.reshape(x, (*x.shape[:start], math.prod(x.shape[start:-1]), x.shape[-1]))

    def unfold(self, x: Node, query: Node) -> Node:
        """(batch, ..., heads, size) of (..., heads, time, size), with the axes of the queries."""
        sizes = [query.shape[axis] for axis in self.axes]
        x = gx.reshape(x, (*x.shape[:-2], *sizes, x.shape[-1]))
        places = {axis: place for place, axis in enumerate(self.free)}
        places |= {axis: len(self.free) + 1 + place for place, axis in enumerate(self.axes)}
        return gx.transpose(x, (*(places[axis] for axis in sorted(places)), len(self.free), x.ndim - 1))

    def unfold_scores(self, scores: Node, query: Node, value: Node) -> Node:
        """Scores with all axes of the queries and those of the keys."""
        if len(self.axes) == 1:
            return scores
        sizes = [node.shape[axis] for node in (query, value) for axis in self.axes]
        return gx.reshape(scores, (*scores.shape[:-2], *sizes))

    def mask(self, query: Node, value: Node, given: Node | None, padding: Sequence[Node]) -> Node | None:
        """What is allowed as (..., heads or 1, time or 1, steps)."""
        found = None if given is None else self._scores_mask(given, query, value)
        count = len(self.axes)
        for mask in padding:
            lined = mask
            while lined.ndim < value.ndim - 1:
                lined = gx.expand_dims(lined, lined.ndim)
            lined = gx.broadcast_to(lined, value.shape[:-1]) if count > 1 else lined
            lined = gx.transpose(lined, (*self.free, *self.axes))
            start = lined.shape[: len(self.free)]
            found = both(found, gx.reshape(lined, (*start, 1, 1, math.prod(lined.shape[len(self.free) :]))))
        return found

    def _scores_mask(self, given: Node, query: Node, value: Node) -> Node:
        """The mask that a user gave: with an axis of heads, and one of time and one of steps."""
        count, rank = len(self.axes), len(self.free) + 1 + 2 * len(self.axes)
        mask = as_mask(given)
        while mask.ndim < rank:
            mask = gx.expand_dims(mask, mask.ndim - 2 * count)
        if count == 1:
            return mask
        wanted = [node.shape[axis] for node in (query, value) for axis in self.axes]
        before = mask.shape[: -2 * count]
        full = gx.broadcast_to(mask, (*before, *wanted))
        return gx.reshape(full, (*before, math.prod(wanted[:count]), math.prod(wanted[count:])))
