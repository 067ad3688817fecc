"""Conversion of element types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.ir.node import Node, operators
from graphc.ir.types import DType, TensorType, as_dtype
from graphc.loops.kernel import Apply, Const, Expr
from graphc.ops.base import (
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    Tangents,
    as_node,
    cast_to,
    explaining,
    op_class,
)


@op_class
class Cast(Elementwise):
    """``x`` in another element type.

    Floats become integers by cutting off the fraction (what lies outside the integers' range is undefined);
    integers wrap around; to bool means "is not zero".

    Shapes: that of x.
    Raises: nothing.
    Source: https://onnx.ai/onnx/operators/onnx__Cast.html
    """

    dtype: DType

    onnx = "Cast"

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.dtype, types[0].shape)

    def reference(self, x: Array) -> Array:
        return x.astype(self.dtype.numpy)

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        (x,) = args
        if dtype is DType.bool and x.dtype is not DType.bool:
            return Apply("ne", (x, Const(0.0 if x.dtype.is_float else 0, x.dtype)), dtype)
        return Apply("cast", args, dtype)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        return [cast_to(cotangent, x.dtype) if x.dtype.is_float and self.dtype.is_float else None]

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        return cast_to(dx, self.dtype) if dx is not None and self.dtype.is_float else None

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every pair of element types, wrap-around, special values, no elements."""
        rows: list[Case] = []
        for source in DType:
            domain = (0.0, 7.0) if source is DType.uint32 else (-7.0, 7.0)
            rows += [
                Case(cls(target), (TensorType(source, (4, 3)),), (0.0, 7.0) if target is DType.uint32 else domain)
                for target in DType
            ]
        wide = np.array([0, 1, -1, 2**31, 2**32 + 5, -(2**40)], np.int64)
        rows += [Case(cls(target), (wide,)) for target in DType]
        special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, 1e300])
        rows += [
            Case(cls(target), (special,), differentiable=False) for target in (DType.bool, DType.float32, DType.float64)
        ]
        rows.append(Case(cls(DType.int32), (TensorType(DType.float32, (0, 3)),)))
        rows.append(Case(cls(DType.int32), (np.array([2.9, -2.9, 0.5, -0.5], np.float32),)))
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """There are none: every type converts to every other."""
        return ()


def cast(x: Operand, dtype: Any) -> Node:
    """Convert the elements; itself if they are of this type already.

    Shapes: that of x.
    Raises: DTypeError: graphc has no such element type.
    Source: Array API ``astype``.

    >>> import graphc as gx
    >>> gx.cast(gx.placeholder("x", (3,)), "int32")
    <cast: i32[3]>
    """
    node = as_node(x)
    with explaining("cast", node):
        target = as_dtype(dtype)
    return cast_to(node, target)


operators["cast"] = cast

__all__ = ["Cast", "cast"]
