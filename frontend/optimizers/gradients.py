"""What happens to gradients before an optimizer's rule: their norms or elements are bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.checked import Bound
from graphc.frontend.config import user_line
from graphc.ir.node import Node
from graphc.ir.types import DType


@dataclass(frozen=True)
class Clipping:
    """A bound on gradients; at most one of the three is given.

    Attributes:
        norm: the largest norm of each gradient.
        value: the largest size of each element.
        global_norm: the largest norm of all gradients taken as one vector.

    Source: Pascanu, Mikolov and Bengio 2013, https://arxiv.org/abs/1211.5063, algorithm 1, for the norms.
    """

    norm: float | None = None
    value: float | None = None
    global_norm: float | None = None

    def apply(self, gradients: Sequence[Node]) -> list[Node]:
        """The bounded gradients. Within the bound they stay as they are, to the last bit."""
        if self.value is not None:
            bound = self.value
            return [gx.minimum(gx.maximum(g, -bound), bound) for g in gradients]
        if self.norm is not None:
            bound = self.norm
            return [g * (bound / gx.maximum(gx.sqrt(squared_norm(g)), bound)) for g in gradients]
        if self.global_norm is not None and gradients:
            norm = gx.sqrt(reduce(add, [gx.cast(squared_norm(g), DType.float64) for g in gradients]))
            # Of an infinite norm the quotient is 0, which would hide it: the difference makes it NaN.
            scale = self.global_norm / gx.maximum(norm, self.global_norm) + (norm - norm)
            return [g * gx.cast(scale, g.dtype) for g in gradients]
        return list(gradients)


def clipping(clipnorm: Bound | None, clipvalue: Bound | None, global_clipnorm: Bound | None) -> Clipping:
    """The bound that an optimizer's arguments ask for; infinity bounds nothing.

    Raises:
        AxisError: two are given.
    """
    named = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
    given = {name: bound for name, bound in named.items() if bound is not None}
    if len(given) > 1:
        raise AxisError(f"{' and '.join(given)} are both given", at=user_line(), remedy="choose one of them")
    finite = {name: None if bound == math.inf else bound for name, bound in named.items()}
    return Clipping(finite["clipnorm"], finite["clipvalue"], finite["global_clipnorm"])


def squared_norm(x: Node) -> Node:
    """The sum of the squares of all elements."""
    # As a vector, so that one kernel serves parameters of all shapes.
    return gx.sum(gx.square(gx.reshape(x, (-1,))))
