"""Activations by name, as ``Dense(10, activation="relu")`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gx
from graphc.frontend.config import lookup, register_function
from graphc.ir.node import Node


def linear(x: Node) -> Node:
    """The argument itself."""
    return x


def relu(x: Node, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Node:
    """``max(x, 0)``; or with a slope below, a ceiling, and a threshold under which values are cut off.

    Shapes: any.
    Source: Keras ``relu``: x where x >= threshold (at most max_value), else negative_slope * (x - threshold).
    """
    if negative_slope == 0 and threshold == 0:
        kept = gx.relu(x)
    elif threshold == 0:
        kept = gx.where(x >= 0, x, negative_slope * x)
    else:
        below = negative_slope * (x - threshold) if negative_slope else gx.zeros_like(x)
        kept = gx.where(x >= threshold, x, below)
    return kept if max_value is None else gx.minimum(kept, max_value)


def sigmoid(x: Node) -> Node:
    """``1 / (1 + exp(-x))``."""
    return gx.sigmoid(x)


def tanh(x: Node) -> Node:
    """The hyperbolic tangent."""
    return gx.tanh(x)


def softmax(x: Node, axis: int = -1) -> Node:
    """``exp(x) / sum(exp(x))`` along an axis."""
    return gx.softmax(x, axis=axis)


def log_softmax(x: Node, axis: int = -1) -> Node:
    """The logarithm of softmax."""
    return gx.log_softmax(x, axis=axis)


def softplus(x: Node) -> Node:
    """``log(1 + exp(x))``."""
    return gx.softplus(x)


def gelu(x: Node) -> Node:
    """``x * P(X <= x)`` for a standard normal X, exactly (by the error function)."""
    return gx.gelu(x)


def silu(x: Node) -> Node:
    """``x * sigmoid(x)``."""
    return x * gx.sigmoid(x)


def exponential(x: Node) -> Node:
    """``exp(x)``."""
    return gx.exp(x)


_ALL: tuple[Callable[..., Node], ...] = (
    linear, relu, sigmoid, tanh, softmax, log_softmax, softplus, gelu, silu, exponential,
)  # fmt: skip
_BY_NAME: dict[str, Callable[..., Node]] = {function.__name__: function for function in _ALL}
_BY_NAME["swish"] = silu

for _function in _ALL:
    register_function("activations", _function)


def get(value: Any) -> Callable[[Node], Node]:
    """An activation from a name or a function of a node; None is ``linear``.

    >>> get("relu").__name__, get(None).__name__
    ('relu', 'linear')
    """
    return linear if value is None else lookup(value, _BY_NAME, "activation")
