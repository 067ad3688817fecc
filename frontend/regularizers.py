"""Penalties on weights that are added to the loss."""

from __future__ import annotations

from typing import Any

import graphc as gx
from graphc.frontend.config import Configurable, lookup
from graphc.ir.node import Node


class Regularizer(Configurable):
    """Base of regularizers: a function from a weight to a scalar."""

    def __call__(self, x: Node) -> Node:
        """The penalty."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class L1(Regularizer):
    """``l1 * sum(|w|)``."""

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = l1

    def __call__(self, x: Node) -> Node:
        return self.l1 * gx.sum(gx.abs(x))


class L2(Regularizer):
    """``l2 * sum(w**2)``.

    >>> import graphc as gx
    >>> L2(0.1)(gx.placeholder("w", (3,)))
    <multiply: f32[]>
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = l2

    def __call__(self, x: Node) -> Node:
        return self.l2 * gx.sum(gx.square(x))


class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w**2)``."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = l1, l2

    def __call__(self, x: Node) -> Node:
        return self.l1 * gx.sum(gx.abs(x)) + self.l2 * gx.sum(gx.square(x))


def get(value: Any) -> Any:
    """A regularizer from a name (``"l1"``, ``"l2"``, ``"l1_l2"``), a regularizer or a function; None stays None."""
    found = lookup(value, {"l1": L1, "l2": L2, "l1_l2": lambda: L1L2(0.01, 0.01)}, "regularizer")
    return found() if isinstance(value, str) and not isinstance(found, Regularizer) else found
