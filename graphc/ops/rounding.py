"""Rounding of floats to whole numbers, as floats.

Names and meaning are those of the Array API standard, https://data-apis.org/array-api/latest/API_specification,
section "elementwise functions".
"""

from __future__ import annotations

import numpy as np

from graphc.ir.node import Node
from graphc.ops.base import FLOATS, Absent, Array, Elementwise, Operand, call, op_class


class _Rounding(Elementwise):
    accepts = FLOATS
    domain = (-3.0, 3.0)
    no_vjp = Absent.PIECEWISE_CONSTANT
    no_jvp = Absent.PIECEWISE_CONSTANT


@op_class
class Floor(_Rounding):
    """The largest whole number that is not above x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Floor.html
    """

    fn = "floor"
    onnx = "Floor"

    def reference(self, x: Array) -> Array:
        return np.floor(x)


def floor(x: Operand) -> Node:
    """The largest whole number that is not above x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``floor``.

    >>> import graphc as gx
    >>> gx.floor(gx.placeholder("x", ("n", 3)))
    <floor: f32[n, 3]>
    """
    return call(Floor(), x)


@op_class
class Ceil(_Rounding):
    """The smallest whole number that is not below x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Ceil.html
    """

    fn = "ceil"
    onnx = "Ceil"

    def reference(self, x: Array) -> Array:
        return np.ceil(x)


def ceil(x: Operand) -> Node:
    """The smallest whole number that is not below x.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``ceil``.

    >>> import graphc as gx
    >>> gx.ceil(gx.placeholder("x", ("n", 3)))
    <ceil: f32[n, 3]>
    """
    return call(Ceil(), x)


@op_class
class Round(_Rounding):
    """The nearest whole number, halves to the even one.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__Round.html
    """

    fn = "rint"
    onnx = "Round"

    def reference(self, x: Array) -> Array:
        return np.rint(x)


def round(x: Operand) -> Node:
    """The nearest whole number, halves to the even one.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``round``.

    >>> import graphc as gx
    >>> gx.round(gx.placeholder("x", ("n", 3)))
    <round: f32[n, 3]>
    """
    return call(Round(), x)


@op_class
class Trunc(_Rounding):
    """The nearest whole number towards zero.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``trunc``.
    """

    fn = "trunc"
    onnx = ("Abs", "Floor", "Sign", "Mul")

    def reference(self, x: Array) -> Array:
        return np.trunc(x)


def trunc(x: Operand) -> Node:
    """The nearest whole number towards zero.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: Array API ``trunc``.

    >>> import graphc as gx
    >>> gx.trunc(gx.placeholder("x", ("n", 3)))
    <trunc: f32[n, 3]>
    """
    return call(Trunc(), x)


__all__ = ["Ceil", "Floor", "Round", "Trunc", "ceil", "floor", "round", "trunc"]
