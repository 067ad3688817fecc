"""Sparsemax: the probabilities nearest to given scores, many of which are exactly 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.node import Node
from graphc.ops.activation import Normalizer, normalize_along
from graphc.ops.arithmetic import divide, maximum, subtract
from graphc.ops.base import Array, Operand, Tangents, cast_to, op_class
from graphc.ops.compare import greater, where
from graphc.ops.create import iota
from graphc.ops.cumulative import cumsum
from graphc.ops.reduction import max, sum
from graphc.ops.sorting import sort


@op_class
class Sparsemax(Normalizer):
    """``max(x - t, 0)`` along an axis, with the t for which the results add up to 1.

    For every set S of elements ``t >= (sum(S) - 1) / |S|``, with equality for those that stay above 0, which are the
    largest. So t is the largest of these quotients over the first elements in falling order, and nobody asks where they
    end. Scores from 1 below the largest on cannot count and are cut off there, so that sums stay exact. A row of all
    -inf gives NaN.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068, equations 2 and 12
    """

    def reference(self, x: Array) -> Array:
        shifted: Array = np.maximum(x - np.max(x, axis=self.axis, keepdims=True, initial=-np.inf), -1)
        ordered = -np.sort(-shifted, axis=self.axis)
        count = np.arange(1, x.shape[self.axis] + 1, dtype=x.dtype)
        count = count.reshape([-1 if axis == self.axis else 1 for axis in range(x.ndim)])
        quotients = (np.cumsum(ordered, axis=self.axis, dtype=x.dtype) - 1) / count
        return np.maximum(shifted - np.max(quotients, axis=self.axis, keepdims=True, initial=-np.inf), 0)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        shifted = maximum(subtract(x, max(x, axis=self.axis, keepdims=True)), -1.0)
        total = cumsum(sort(shifted, self.axis, descending=True), self.axis)
        quotients = divide(subtract(total, 1.0), iota(x.shape, self.axis, x.dtype) + 1.0)
        return maximum(subtract(shifted, max(quotients, axis=self.axis, keepdims=True)), 0.0)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (self._derivative(node, cotangent),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else self._derivative(node, tangents[0])

    def _derivative(self, node: Node, g: Node) -> Node:
        """The Jacobian is symmetric: what stands above 0 loses its mean, the rest is 0."""
        positive = greater(node, 0)
        kept = where(positive, g, 0.0)
        count = sum(cast_to(positive, g.dtype), axis=self.axis, keepdims=True)
        mean = divide(sum(kept, axis=self.axis, keepdims=True), count)
        return where(positive, subtract(kept, mean), 0.0)


def sparsemax(x: Operand, axis: int = -1) -> Node:
    """The probabilities that are nearest to x along an axis; small scores get exactly 0.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068, equation 2

    >>> import graphc as gx
    >>> gx.sparsemax(gx.placeholder("scores", ("n", 10)))
    <sparsemax: f32[n, 10]>
    """
    return normalize_along(Sparsemax, x, axis)


__all__ = ["Sparsemax", "sparsemax"]
