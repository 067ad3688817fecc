"""Products with matrices that lie in panels of columns: how the inner loop of a product reads them, line after line.

Whoever multiplies by the same matrix many times packs it once. A backend that takes the product whole is given such
matrices by a pass (``graphc.passes.panels``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size, ceildiv, product
from graphc.ir.node import Node, apply
from graphc.ir.op import Absent, Op
from graphc.ir.types import DType, TensorType
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Tangents,
    add_tangents,
    ints,
    op_class,
    require_dtype,
)
from graphc.ops.linear import MatMul, swap_last
from graphc.ops.movement import reshape, transpose
from graphc.ops.padding import pad
from graphc.ops.slicing import take_range

f32, f64 = DType.float32, DType.float64


@op_class
class PackedPanels(Op):
    """A matrix by panels of some columns: in each all rows one below the other, the last one filled up with zeros.

    Attributes:
        width: the number of columns of a panel.

    Shapes: w (k, n) -> (ceil(n / width), k, width).
    Raises: ShapeError; AxisError for a width below 1; DTypeError for integers or bool.
    Source: https://dl.acm.org/doi/10.1145/1356052.1356053 (Goto and van de Geijn 2008), figure 5
    """

    width: int

    operands = ("w",)
    onnx = Absent.NO_ONNX_FORM
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        (w,) = types
        require_dtype(w, FLOATS)
        if self.width < 1:
            raise AxisError(f"panels of {self.width} columns", remedy="give at least 1")
        if w.rank != 2:
            raise ShapeError(f"w has {w.rank} axes, it needs 2", remedy="reshape it to a matrix")
        return TensorType(w.dtype, (ceildiv(w.shape[1], self.width), w.shape[0], self.width))

    def reference(self, w: Array) -> Array:
        rows, columns = w.shape
        panels = -(-columns // self.width)
        whole = np.zeros((rows, panels * self.width), w.dtype)
        whole[:, :columns] = w
        return np.ascontiguousarray(whole.reshape(rows, panels, self.width).transpose(1, 0, 2))

    def decompose(self, *args: Node) -> Node:
        (w,) = args
        panels, rows, width = self.infer(w.type).shape
        whole = pad(w, (0, 0), (0, panels * width - w.shape[1]))
        return transpose(reshape(whole, (rows, panels, width)), (1, 0, 2))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (_unpacked(cotangent, node.args[0].shape[1]),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """No whole panel, whole ones alone, both; without rows, without columns."""
        shapes = ((3, 5), (4, 64), (2, 70), (0, 33), (3, 0))
        cases = [Case(cls(32), (TensorType(f32, shape),)) for shape in shapes]
        return (*cases, Case(cls(4), (TensorType(f32, (3, 10)),)))

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Not a matrix, integers, no width."""
        return (
            BadCase(cls(32), (TensorType(f32, (2, 3, 4)),), ShapeError, ("packed_panels", "w has 3 axes")),
            BadCase(cls(32), (TensorType(DType.int32, (2, 3)),), DTypeError, ("packed_panels", "int32", "gx.cast")),
            BadCase(cls(0), (TensorType(f32, (2, 3)),), AxisError, ("packed_panels", "0 columns")),
        )


@op_class
class PanelProduct(Op):
    """The matrix product with a matrix of so many columns that :class:`PackedPanels` has packed.

    Attributes:
        columns: of the matrix.

    Shapes: x (..., m, k), panels (ceil(columns / width), k, width) -> (..., m, columns).
    Raises: ShapeError; AxisError for fewer than 0 columns; DTypeError for a mix, integers or bool.
    Source: https://dl.acm.org/doi/10.1145/1356052.1356053 (Goto and van de Geijn 2008)
    """

    columns: int

    operands = ("x", "panels")
    onnx = Absent.NO_ONNX_FORM
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        x, panels = types
        if self.columns < 0:
            raise AxisError(f"{self.columns} columns", remedy="give the number of columns of the matrix")
        if x.dtype is not panels.dtype:
            raise DTypeError(f"x is {x.dtype}, panels are {panels.dtype}", remedy="convert with gx.cast(x, dtype)")
        require_dtype(x, FLOATS)
        if x.rank < 2:
            raise ShapeError(f"x has {x.rank} axes, it needs 2", remedy="give it an axis of rows")
        width = panels.shape[-1] if panels.rank == 3 else 0
        wanted = (ceildiv(self.columns, width), x.shape[-1], width) if width != 0 else None
        if panels.shape != wanted:
            raise ShapeError(
                f"panels are {panels}, x is {x}, columns {self.columns}", remedy="pack a matrix with as many rows"
            )
        return TensorType(x.dtype, (*x.shape[:-1], self.columns))

    def reference(self, x: Array, panels: Array) -> Array:
        whole = np.swapaxes(panels, 0, 1).reshape(x.shape[-1], panels.shape[0] * panels.shape[2])
        return np.matmul(x, whole[:, : self.columns])

    def decompose(self, *args: Node) -> Node:
        x, panels = args
        return apply(MatMul(), x, _unpacked(panels, self.columns))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, panels = node.args
        rows, given = (reshape(part, (product(part.shape[:-1]), part.shape[-1])) for part in (x, cotangent))
        by_x = apply(MatMul(), cotangent, swap_last(_unpacked(panels, self.columns)))
        (width,) = ints(panels.shape[2:])
        return by_x, apply(PackedPanels(width), apply(MatMul(), swap_last(rows), given))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (x, panels), (dx, dp) = node.args, tangents
        return add_tangents(
            [None if dx is None else apply(self, dx, panels), None if dp is None else apply(self, x, dp)]
        )

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """One row, many; no whole panel, several; batches; no rows, columns or terms."""
        shapes = (
            ((1, 4), 5, 32), ((3, 7), 64, 32), ((29, 16), 75, 16), ((2, 3, 4), 40, 32), ((0, 3), 2, 32),
            ((3, 0), 33, 32), ((2, 3), 0, 32), ((5, 6), 23, 5),
        )  # fmt: skip
        return tuple(
            Case(cls(columns), (TensorType(f32, x), TensorType(f32, (-(-columns // width), x[-1], width))))
            for x, columns, width in shapes
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Panels of another matrix, vectors, a mix of element types, integers, a negative count."""

        def t(*shape: int, dtype: DType = f32) -> TensorType:
            return TensorType(dtype, shape)

        return (
            BadCase(cls(40), (t(2, 3), t(2, 4, 32)), ShapeError, ("panel_product", "f32[2, 4, 32]")),
            BadCase(cls(40), (t(2, 3), t(3, 32)), ShapeError, ("panel_product", "f32[3, 32]")),
            BadCase(cls(40), (t(3), t(2, 3, 32)), ShapeError, ("panel_product", "x has 1 axes")),
            BadCase(cls(40), (t(2, 3), t(2, 3, 32, dtype=f64)), DTypeError, ("panel_product", "float64", "gx.cast")),
            BadCase(
                cls(40), (t(2, 3, dtype=DType.int32), t(2, 3, 32, dtype=DType.int32)), DTypeError, ("int32", "gx.cast")
            ),
            BadCase(cls(-1), (t(2, 3), t(0, 3, 32)), AxisError, ("panel_product", "-1 columns")),
        )


def _unpacked(panels: Node, columns: Size) -> Node:
    """The matrix of which these are the panels."""
    count, rows, width = panels.shape
    whole = reshape(transpose(panels, (1, 0, 2)), (rows, count * width))
    return take_range(whole, 1, 0, columns)


__all__: list[str] = []
