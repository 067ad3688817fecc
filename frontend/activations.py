"""Activations by name, as ``Dense(10, activation="relu")`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import graphc as gx
from graphc.errors import GraphError
from graphc.frontend.arguments import shown
from graphc.frontend.checked import Extended, checked
from graphc.frontend.config import lookup, register_function, user_line
from graphc.ir.node import Node


def linear(x: Node) -> Node:
    """The argument itself."""
    return x


@checked
def relu(x: Node, negative_slope: float = 0.0, max_value: Extended | None = None, threshold: float = 0.0) -> Node:
    """``max(x, 0)``; or with a slope below, a ceiling, and a threshold under which values are cut off.

    Shapes: any.
    Source: Keras ``relu``: x where x >= threshold (at most max_value), else negative_slope * (x - threshold).
    """
    if negative_slope == 0 and threshold == 0:
        kept = gx.relu(x)
    elif threshold == 0:
        kept = gx.leaky_relu(x, negative_slope)
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


@checked
def softmax(x: Node, axis: int = -1) -> Node:
    """``exp(x) / sum(exp(x))`` along an axis."""
    return gx.softmax(x, axis=axis)


@checked
def log_softmax(x: Node, axis: int = -1) -> Node:
    """The logarithm of softmax."""
    return gx.log_softmax(x, axis=axis)


def softplus(x: Node) -> Node:
    """``log(1 + exp(x))``."""
    return gx.softplus(x)


@checked
def gelu(x: Node, approximate: bool = False) -> Node:
    """``x * P(X <= x)`` for a standard normal X: exactly (by the error function), or approximately by a tanh."""
    return gx.gelu(x, approximate="tanh" if approximate else "none")


def silu(x: Node) -> Node:
    """``x * sigmoid(x)``."""
    return gx.silu(x)


def mish(x: Node) -> Node:
    """``x * tanh(softplus(x))``."""
    return gx.mish(x)


def exponential(x: Node) -> Node:
    """``exp(x)``."""
    return gx.exp(x)


@checked
def leaky_relu(x: Node, negative_slope: float = 0.2) -> Node:
    """``x`` from 0 on, ``negative_slope * x`` below."""
    return gx.leaky_relu(x, negative_slope)


def relu6(x: Node) -> Node:
    """``min(max(x, 0), 6)``."""
    return gx.relu6(x)


@checked
def elu(x: Node, alpha: float = 1.0) -> Node:
    """``x`` above 0, ``alpha * (exp(x) - 1)`` below."""
    return gx.elu(x, alpha)


def selu(x: Node) -> Node:
    """``1.0507 * elu(x, 1.6733)``: keeps mean 0 and variance 1 with the initializer ``lecun_normal``."""
    return gx.selu(x)


@checked
def celu(x: Node, alpha: float = 1.0) -> Node:
    """``x`` above 0, ``alpha * (exp(x / alpha) - 1)`` below."""
    return gx.celu(x, alpha)


def softsign(x: Node) -> Node:
    """``x / (1 + |x|)``."""
    return gx.softsign(x)


def hard_sigmoid(x: Node) -> Node:
    """``min(max(x + 3, 0), 6) / 6``."""
    return gx.hard_sigmoid(x)


def hard_silu(x: Node) -> Node:
    """``x * hard_sigmoid(x)``."""
    return gx.hard_silu(x)


def hard_tanh(x: Node) -> Node:
    """``min(max(x, -1), 1)``."""
    return gx.hard_tanh(x)


def log_sigmoid(x: Node) -> Node:
    """``log(sigmoid(x))``, exact in both tails."""
    return gx.log_sigmoid(x)


@checked
def squareplus(x: Node, b: float = 4.0) -> Node:
    """``(x + sqrt(x * x + b)) / 2``."""
    return gx.squareplus(x, b)


@checked
def threshold(x: Node, threshold: float, default_value: float) -> Node:
    """``x`` where it is above the threshold, else ``default_value``."""
    return gx.threshold(x, threshold, default_value)


@checked
def glu(x: Node, axis: int = -1) -> Node:
    """The first half along an axis times the sigmoid of the second."""
    return gx.glu(x, axis)


@checked
def sparsemax(x: Node, axis: int = -1) -> Node:
    """The probabilities that are nearest to x along an axis."""
    return gx.sparsemax(x, axis=axis)


@checked
def hard_shrink(x: Node, threshold: float = 0.5) -> Node:
    """``x`` where it is further from 0 than the threshold, else 0."""
    return gx.where(gx.abs(x) > threshold, x, 0.0)


@checked
def soft_shrink(x: Node, threshold: float = 0.5) -> Node:
    """``x`` moved towards 0 by the threshold, and 0 where it is nearer than that."""
    return x - gx.minimum(gx.maximum(x, -threshold), threshold)


def tanh_shrink(x: Node) -> Node:
    """``x - tanh(x)``."""
    return x - gx.tanh(x)


def sparse_plus(x: Node) -> Node:
    """0 up to -1, ``(x + 1)**2 / 4`` up to 1, then ``x``."""
    cut = gx.minimum(gx.maximum(x, -1.0), 1.0)
    return gx.square(cut + 1.0) * 0.25 + gx.relu(x - 1.0)


def sparse_sigmoid(x: Node) -> Node:
    """0 up to -1, ``(x + 1) / 2`` up to 1, then 1: the derivative of ``sparse_plus``."""
    return (gx.hard_tanh(x) + 1.0) * 0.5


_ALL: tuple[Callable[..., Node], ...] = (
    linear, relu, sigmoid, tanh, softmax, log_softmax, softplus, gelu, silu, mish, exponential, leaky_relu, relu6, elu,
    selu, celu, softsign, hard_sigmoid, hard_silu, hard_tanh, log_sigmoid, squareplus, threshold, glu,
    sparsemax, hard_shrink, soft_shrink, tanh_shrink, sparse_plus, sparse_sigmoid,
)  # fmt: skip
_BY_NAME: dict[str, Callable[..., Node]] = {
    **{function.__name__: function for function in _ALL},
    "swish": silu,
    "hard_swish": hard_silu,
}

for _function in _ALL:
    register_function("activations", _function)


def get(value: Any) -> Callable[[Node], Node]:
    """An activation from a name or a function of a node; None is ``linear``.

    Raises:
        GraphError: it is none of these.

    >>> get("relu").__name__, get(None).__name__
    ('relu', 'linear')
    """
    found = linear if value is None else lookup(value, _BY_NAME, "activation")
    if not callable(found) or isinstance(found, type):
        own = f"make it: {found.__name__}()" if isinstance(found, type) else "a function of a node"
        raise GraphError(
            f"{shown(value)} is not an activation", at=user_line(), remedy=f"give a name such as 'relu', or {own}"
        )
    return cast("Callable[[Node], Node]", found)
