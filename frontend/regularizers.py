"""Penalties on weights and on outputs of layers, added to the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

import graphc as gx
from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend.checked import NonNegative
from graphc.frontend.config import Configurable, lookup, user_line
from graphc.ir.node import Node

EPSILON = 1e-7
"""The least norm by which rows are divided."""


class Regularizer(Configurable):
    """Base of regularizers: a function from a weight, or from a layer's output, to a scalar.

    >>> import graphc as gx
    >>> class FourthPowers(gx.regularizers.Regularizer):
    ...     def __call__(self, x):
    ...         return 0.01 * gx.sum(gx.square(gx.square(x)))
    >>> layer = gx.layers.Dense(2, kernel_regularizer=FourthPowers())
    """

    def __call__(self, x: Node) -> Node:
        """The penalty."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


class L1L2(Regularizer):
    """``l1 * sum(|x|) + l2 * sum(x**2)``.

    Source: Zou and Hastie 2005, Regularization and variable selection via the elastic net, equation 3.

    >>> import graphc as gx
    >>> L1L2(l1=0.1, l2=0.2)(gx.placeholder("w", (3,)))
    <add: f32[]>
    """

    def __init__(self, l1: NonNegative = 0.0, l2: NonNegative = 0.0) -> None:
        self.l1, self.l2 = float(l1), float(l2)

    def __call__(self, x: Node) -> Node:
        # A factor of 0 leaves its term out: 0 * infinity would be NaN.
        terms = [self.l1 * gx.sum(gx.abs(x))] if self.l1 else []
        terms += [self.l2 * gx.sum(gx.square(x))] if self.l2 else []
        return terms[0] if len(terms) == 1 else terms[0] + terms[1] if terms else gx.constant(0.0, x.dtype)


class L1(L1L2):
    """``l1 * sum(|x|)``.

    Source: Tibshirani 1996, Regression shrinkage and selection via the lasso, equation 1, as a penalty.

    >>> import graphc as gx
    >>> L1(0.1)(gx.placeholder("w", (3,)))
    <multiply: f32[]>
    """

    def __init__(self, l1: NonNegative = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """``l2 * sum(x**2)``.

    Source: Hoerl and Kennard 1970, Ridge regression, equation 2.1, as a penalty.

    >>> import graphc as gx
    >>> L2(0.1)(gx.placeholder("w", (3,)))
    <multiply: f32[]>
    """

    def __init__(self, l2: NonNegative = 0.01) -> None:
        super().__init__(l2=l2)


class OrthogonalRegularizer(Regularizer):
    """``factor`` times the mean of the absolute cosines between all pairs of rows, or of columns, of a matrix.

    Args:
        factor: how much it counts.
        mode: ``rows`` or ``columns``.

    Shapes: x: a matrix with two rows (columns) at least.

    Raises:
        ShapeError: x is not a matrix, or has one row (column).

    Source: https://keras.io/api/layers/regularizers/#orthogonalregularizer-class

    >>> import graphc as gx
    >>> OrthogonalRegularizer(0.1)(gx.placeholder("w", (3, 4)))
    <multiply: f32[]>
    """

    def __init__(self, factor: NonNegative = 0.01, mode: str = "rows") -> None:
        self.factor = float(factor)
        if mode not in ("rows", "columns"):
            raise AxisError(f"mode {mode!r} is not known", at=user_line(), remedy="use rows or columns")
        self.mode = mode

    def __call__(self, x: Node) -> Node:
        if x.ndim != 2:
            raise ShapeError(
                f"OrthogonalRegularizer takes a matrix, not {x.type}", at=user_line(), remedy="reshape it within yours"
            )
        rows = x if self.mode == "rows" else gx.transpose(x)
        count = rows.shape[0]
        if not isinstance(count, int) or count < 2:
            raise ShapeError(
                f"there are no two {self.mode} to compare in {x.type}", at=user_line(), remedy="use the other mode"
            )
        # The bound stands under the root, so that the gradient of a row of zeros is 0 instead of NaN.
        unit = rows / gx.sqrt(gx.maximum(gx.sum(gx.square(rows), axis=1, keepdims=True), EPSILON**2))
        others = gx.constant(1.0 - np.eye(count), x.dtype)
        cosines = gx.matmul(unit, gx.transpose(unit)) * others
        return (self.factor / (count * (count - 1))) * gx.sum(gx.abs(cosines))


_BY_NAME: dict[str, Any] = {
    "l1": L1,
    "l2": L2,
    "l1_l2": lambda: L1L2(0.01, 0.01),
    "l1l2": L1L2,
    "orthogonal_regularizer": OrthogonalRegularizer,
    "orthogonalregularizer": OrthogonalRegularizer,
}


def get(value: Any) -> Any:
    """A regularizer from a name (``"l1"``, ``"l2"``, ``"l1_l2"``), a regularizer, its class or a function; None stays.

    Raises:
        GraphError: it is none of these.

    >>> get("l2").l2
    0.01
    """
    made = lookup(value, _BY_NAME, "regularizer")
    if isinstance(made, type) or (isinstance(value, str) and not isinstance(made, Regularizer)):
        made = cast("Callable[[], Any]", made)()
    if made is not None and not callable(made):
        raise GraphError(
            f"{value!r} is not a regularizer", at=user_line(), remedy="give 'l2' or gx.regularizers.L2(0.01)"
        )
    return made


__all__ = ["L1", "L1L2", "L2", "OrthogonalRegularizer", "Regularizer", "get"]
