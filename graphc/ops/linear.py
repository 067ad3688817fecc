"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import product
from graphc.ir.node import Node, apply, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, broadcast_shapes
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    add_tangents,
    as_operands,
    explaining,
    op_class,
    require_dtype,
    sum_to,
)
from graphc.ops.movement import reshape, transpose


@op_class
class MatMul(Op):
    """The product of matrices in the last two axes; the axes before them broadcast.

    Shapes: a (..., m, k), b (..., k, n) -> (..., m, n).
    Raises: ShapeError; DTypeError for a mix, integers or bool.
    Source: https://onnx.ai/onnx/operators/onnx__MatMul.html
    """

    name = "matmul"
    operands = ("a", "b")
    onnx = "MatMul"
    factors = ("a", "b")

    def infer(self, *types: TensorType) -> TensorType:
        a, b = types
        if a.dtype is not b.dtype:
            raise DTypeError(f"a is {a.dtype}, b is {b.dtype}", remedy="convert with gx.cast(x, dtype)")
        require_dtype(a, FLOATS)
        for name, type in (("a", a), ("b", b)):
            if type.rank < 2:
                raise ShapeError(f"{name} has {type.rank} axes, it needs 2", remedy="gx.matmul takes vectors too")
        if a.shape[-1] != b.shape[-2]:
            raise ShapeError(
                f"inner dimensions differ: a[-1] is {a.shape[-1]}, b[-2] is {b.shape[-2]}",
                remedy="make the last axis of a and the second to last of b the same size",
            )
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1]))

    def reference(self, a: Array, b: Array) -> Array:
        return np.matmul(a, b)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        a, b = node.args
        da = sum_to(apply(self, cotangent, swap_last(b)), a.shape)
        if b.ndim == 2 and a.ndim > 2:
            # One large product over all rows, instead of one for each matrix of the batch and a sum.
            db = apply(self, swap_last(_rows(a)), _rows(cotangent))
        else:
            db = sum_to(apply(self, swap_last(a), cotangent), b.shape)
        return da, db

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (a, b), (da, db) = node.args, tangents
        return add_tangents(
            [
                None if da is None else apply(self, da, b),
                None if db is None else apply(self, a, db),
            ]
        )

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Matrices, batches that broadcast, sizes of 0 and 1, sizes beyond a vector register."""
        shapes = (
            ((3, 4), (4, 5)), ((1, 4), (4, 1)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
            ((2, 1, 3, 4), (5, 4, 2)), ((3, 0), (0, 2)), ((0, 3), (3, 2)), ((0, 2, 3), (3, 4)), ((17, 33), (33, 9)),
        )  # fmt: skip
        return tuple(Case(cls(), (TensorType(DType.float32, a), TensorType(DType.float32, b))) for a, b in shapes)

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Inner and batch sizes that differ, vectors, a mix of element types, integers."""

        def t(*shape: int, dtype: DType = DType.float32) -> TensorType:
            return TensorType(dtype, shape)

        return (
            BadCase(cls(), (t(2, 768), t(512, 10)), ShapeError, ("a[-1] is 768", "b[-2] is 512", "same size")),
            BadCase(cls(), (t(2, 3, 4), t(3, 4, 5)), ShapeError, ("matmul", "broadcast", "2", "3")),
            BadCase(cls(), (t(3), t(3, 4)), ShapeError, ("matmul", "a has 1 axes")),
            BadCase(cls(), (t(2, 3), t(3, 4, dtype=DType.float64)), DTypeError, ("float32", "float64", "gx.cast")),
            BadCase(cls(), (t(2, 3, dtype=DType.int32), t(3, 4, dtype=DType.int32)), DTypeError, ("int32", "float32")),
        )


def swap_last(x: Node) -> Node:
    """The transposes of the matrices in the last two axes."""
    order = list(range(x.ndim))
    order[-2:] = order[-1], order[-2]
    return transpose(x, order)


def _rows(x: Node) -> Node:
    """All matrices of a batch below each other."""
    return reshape(x, (product(x.shape[:-1]), x.shape[-1]))


def matmul(a: Operand, b: Operand) -> Node:
    """The matrix product; a vector on the left is a row, on the right a column, and that axis vanishes again.

    Shapes: a (..., m, k), b (..., k, n) -> (..., m, n); (k,) for either.
    Raises: ShapeError: inner dimensions differ, or an operand is a scalar; DTypeError.
    Source: Array API ``matmul``.

    >>> import graphc as gx
    >>> gx.matmul(gx.placeholder("x", ("n", 4)), gx.placeholder("w", (4, 3)))
    <matmul: f32[n, 3]>
    """
    names = [value for value in (a, b) if isinstance(value, Node)]
    with explaining("matmul", *names):
        left, right = as_operands(a, b)
        for name, node in (("a", left), ("b", right)):
            if node.ndim == 0:
                raise ShapeError(f"{name} is a scalar", remedy="multiply by a scalar with *")
        row = reshape(left, (1, left.shape[0])) if left.ndim == 1 else left
        column = reshape(right, (right.shape[0], 1)) if right.ndim == 1 else right
        if row.shape[-1] != column.shape[-2]:
            inner = "b[-1]" if right.ndim == 1 else "b[-2]"
            place = "last" if right.ndim == 1 else "second to last"
            raise ShapeError(
                f"inner dimensions differ: a[-1] is {row.shape[-1]}, {inner} is {column.shape[-2]}",
                remedy=f"make the last axis of a and the {place} of b the same size",
            )
    result = apply(MatMul(), row, column)
    rows = () if left.ndim == 1 else (result.shape[-2],)
    columns = () if right.ndim == 1 else (result.shape[-1],)
    return reshape(result, (*result.shape[:-2], *rows, *columns))


def dot(a: Operand, b: Operand) -> Node:
    """The product of vectors and matrices, as :func:`matmul`; of more axes it is not defined here.

    Shapes: a (k,) or (m, k), b (k,) or (k, n).
    Raises: ShapeError: inner dimensions differ, or an operand has more than two axes; DTypeError.
    Source: NumPy ``dot`` for one and two axes.

    >>> import graphc as gx
    >>> gx.dot(gx.placeholder("x", (3,)), gx.placeholder("y", (3,)))
    <reshape: f32[]>
    """
    with explaining("dot"):
        for name, node in zip("ab", as_operands(a, b), strict=True):
            if node.ndim > 2:
                raise ShapeError(f"{name} has {node.ndim} axes", remedy="use gx.matmul, which takes batches")
    return matmul(a, b)


operators["matmul"] = matmul

__all__ = ["MatMul", "dot", "matmul"]
