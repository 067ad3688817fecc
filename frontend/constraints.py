"""Constraints: functions that a weight's new value goes through in every step, within the update itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import AxisError, GraphError
from graphc.frontend.checked import Limit, NonNegative, Part
from graphc.frontend.config import Configurable, lookup, user_line
from graphc.ir.node import Node

EPSILON = 1e-7
"""Added to norms by which is divided."""


class Constraint(Configurable):
    """Base of constraints: a function from a weight's new value to the value that it gets.

    >>> import graphc as gx
    >>> class Rounded(gx.constraints.Constraint):
    ...     def __call__(self, w):
    ...         return gx.round(w)
    >>> layer = gx.layers.Dense(2, kernel_constraint=Rounded())
    """

    def __call__(self, w: Node) -> Node:
        """The value that the weight gets: of its shape."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class NonNeg(Constraint):
    """Negative elements become 0.

    >>> import graphc as gx
    >>> NonNeg()(gx.placeholder("w", (3,)))
    <maximum: f32[3]>
    """

    def __call__(self, w: Node) -> Node:
        return gx.maximum(w, 0.0)


class _Norm(Constraint):
    """A constraint on the norms along some axes."""

    axis: int | Sequence[int] | None

    def norms(self, w: Node) -> Node:
        axes = self.axis if isinstance(self.axis, int | None) else tuple(self.axis)
        return gx.sqrt(gx.sum(gx.square(w), axis=axes, keepdims=True))


class MaxNorm(_Norm):
    """Vectors that are longer than ``max_value`` are shortened to it.

    Args:
        max_value: the largest norm.
        axis: along which norms are taken, None for all: 0 for the weights into each unit of a dense layer, (0, 1, 2)
            for those of each filter of a convolution in two dimensions.

    Source: Srebro, Rennie and Jaakkola 2005, Maximum-margin matrix factorization; as in Srivastava et al. 2014,
        Dropout, section 5.1.

    >>> import graphc as gx
    >>> MaxNorm(3.0)(gx.placeholder("w", (3, 2)))
    <multiply: f32[3, 2]>
    """

    def __init__(self, max_value: Limit = 2, axis: int | Sequence[int] | None = 0) -> None:
        self.max_value, self.axis = float(max_value), axis

    def __call__(self, w: Node) -> Node:
        norms = self.norms(w)
        return w * (gx.minimum(norms, self.max_value) / (norms + EPSILON))


class UnitNorm(_Norm):
    """Vectors get the length 1.

    Args:
        axis: see :class:`MaxNorm`.

    >>> import graphc as gx
    >>> UnitNorm()(gx.placeholder("w", (3, 2)))
    <divide: f32[3, 2]>
    """

    def __init__(self, axis: int | Sequence[int] | None = 0) -> None:
        self.axis = axis

    def __call__(self, w: Node) -> Node:
        return w / (self.norms(w) + EPSILON)


class MinMaxNorm(_Norm):
    """Vectors are brought to a length between two bounds, at once or by a part of the way in each step.

    Args:
        min_value, max_value: the bounds.
        rate: the part of the way: ``rate * clip(norm, min_value, max_value) + (1 - rate) * norm`` is the new length.
        axis: see :class:`MaxNorm`.

    >>> import graphc as gx
    >>> MinMaxNorm(0.5, 1.5, rate=0.9)(gx.placeholder("w", (3, 2)))
    <multiply: f32[3, 2]>
    """

    def __init__(
        self,
        min_value: NonNegative = 0.0,
        max_value: Limit = 1.0,
        rate: Part = 1.0,
        axis: int | Sequence[int] | None = 0,
    ) -> None:
        self.min_value, self.max_value = float(min_value), float(max_value)
        if self.min_value > self.max_value:
            raise AxisError(
                f"min_value {min_value} is above max_value {max_value}", at=user_line(), remedy="exchange them"
            )
        self.rate, self.axis = float(rate), axis

    def __call__(self, w: Node) -> Node:
        norms = self.norms(w)
        bounded = gx.minimum(gx.maximum(norms, self.min_value), self.max_value)
        desired = bounded if self.rate == 1 else bounded * self.rate + norms * (1.0 - self.rate)
        return w * (desired / (norms + EPSILON))


_BY_NAME: dict[str, type[Constraint]] = {
    "max_norm": MaxNorm,
    "maxnorm": MaxNorm,
    "unit_norm": UnitNorm,
    "unitnorm": UnitNorm,
    "non_neg": NonNeg,
    "nonneg": NonNeg,
    "min_max_norm": MinMaxNorm,
    "minmaxnorm": MinMaxNorm,
}


def get(value: Any) -> Any:
    """A constraint from a name, a constraint, its class, or a function of a weight; None stays None.

    Raises:
        GraphError: it is none of these.

    >>> get("max_norm").max_value
    2.0
    """
    found = lookup(value, _BY_NAME, "constraint")
    made = found() if isinstance(found, type) else found
    if made is not None and not callable(made):
        raise GraphError(
            f"{value!r} is not a constraint", at=user_line(), remedy="give 'non_neg' or gx.constraints.MaxNorm(...)"
        )
    return made


__all__ = ["Constraint", "MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm", "get"]
