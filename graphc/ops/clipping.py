"""Values kept within bounds, and replaced where they are not finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.loops.kernel import Apply, Expr
from graphc.ops.base import (
    FLOATS,
    NUMBERS,
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    as_node,
    as_operands,
    call,
    op_class,
    special_operands,
)
from graphc.ops.compare import equal, greater, isnan, less, where
from graphc.ops.logic import logical_and, logical_not, logical_or


@op_class
class Clip(Elementwise):
    """``min(max(x, low), high)``: x, but at least low and at most high; high where low > high. NaN wins.

    The gradient goes to x where it is within the bounds, them included, else to the bound that it hits.

    Shapes: x, low and high broadcast against each other.
    Raises: ShapeError where they do not; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__Clip.html
    """

    operands = ("x", "low", "high")
    accepts = NUMBERS
    onnx = ("Max", "Min")

    def reference(self, x: Array, low: Array, high: Array) -> Array:
        return np.minimum(np.maximum(x, low), high)

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        x, low, high = args
        return Apply("min", (Apply("max", (x, low), dtype), high), dtype)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        x, low, high = node.args
        below = logical_and(less(x, low), logical_not(greater(low, high)))
        above = logical_or(greater(x, high), greater(low, high))
        if position == 0:
            return where(logical_or(below, above), 0.0, g)
        return where(above if position == 2 else below, g, 0.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each element type; bounds that are met, that broadcast, that are crossed; NaN anywhere."""
        f32, wide = DType.float32, (-2.0, 2.0)
        shapes = (((5, 3), (), ()), ((5, 3), (3,), (5, 1)), ((), (), ()), ((0, 3), (3,), ()), ((33,), (33,), (33,)))
        rows = [Case(cls(), tuple(TensorType(f32, shape) for shape in row), wide) for row in shapes]
        for dtype in cls.accepts:
            ends = np.array(0, dtype.numpy), np.array(2, dtype.numpy)
            rows.append(Case(cls(), (TensorType(dtype, (7,)), *ends), wide))
            rows.append(Case(cls(), (TensorType(dtype, (7,)), *reversed(ends)), wide))
            if dtype.is_float and not dtype.is_half:
                rows.append(Case(cls(), special_operands(dtype, 3), differentiable=False))
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Bools, a mix of types, and shapes that do not broadcast."""
        x, flag = TensorType(DType.float32, (2,)), TensorType(DType.bool, (2,))
        return (
            BadCase(cls(), (flag, flag, flag), DTypeError, ("clip", "bool", "float32")),
            BadCase(cls(), (x, x, TensorType(DType.int64, (2,))), DTypeError, ("float32", "int64", "gx.cast")),
            BadCase(cls(), (x, x, TensorType(DType.float32, (3,))), ShapeError, ("2", "3", "broadcast")),
        )


def clip(x: Operand, low: Operand | None = None, high: Operand | None = None) -> Node:
    """x, but at least low and at most high; a bound that is None does not bound.

    Shapes: x, low and high broadcast against each other.
    Raises: ShapeError, DTypeError.
    Source: Array API ``clip``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("n", 3))
    >>> gx.clip(x, 0.0, 6.0), gx.clip(x, high=1.0)
    (<clip: f32[n, 3]>, <clip: f32[n, 3]>)
    """
    given = as_operands(x, *(bound for bound in (low, high) if bound is not None))
    lowest, highest = _limits(given[0].dtype)
    return call(Clip(), given[0], lowest if low is None else given[1], highest if high is None else given[-1])


def _limits(dtype: DType) -> tuple[bool | int | float, bool | int | float]:
    """What bounds nothing; of bool, which Clip refuses, its values."""
    if dtype.is_float:
        return -np.inf, np.inf
    return (int(np.iinfo(dtype.numpy).min), int(np.iinfo(dtype.numpy).max)) if dtype.is_integer else (False, True)


@op_class
class NanToNum(Elementwise):
    """x with NaN and infinities replaced by numbers.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: NumPy ``nan_to_num``.
    """

    nan: float = 0.0
    posinf: float = float(np.finfo(np.float32).max)
    neginf: float = float(np.finfo(np.float32).min)

    accepts = FLOATS
    composite = True

    def reference(self, x: Array) -> Array:
        return np.nan_to_num(x, nan=self.nan, posinf=self.posinf, neginf=self.neginf)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        finite = where(equal(x, np.inf), self.posinf, where(equal(x, -np.inf), self.neginf, x))
        return where(isnan(x), self.nan, finite)

    def chain(self, node: Node, g: Node, position: int) -> Node:
        from graphc.ops.compare import isfinite

        return where(isfinite(node.args[0]), g, 0.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Random operands; beside NaN and infinities given numbers, since next to the largest there is no unit."""
        rows = [Case(cls(), (TensorType(DType.float32, shape),)) for shape in ((5, 3), (), (0, 3), (33,))]
        rows += [Case(cls(), (TensorType(d, (7,)),)) for d in cls.accepts if d is not DType.float32]
        other = cls(1.5, 2.5, -3.5)
        wide = (DType.float32, DType.float64)
        return [*rows, *(Case(other, special_operands(d, 1), differentiable=False) for d in wide)]


def nan_to_num(x: Operand, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Node:
    """x with NaN and infinities replaced by numbers, the largest ones of the type unless given.

    Shapes: that of x.
    Raises: DTypeError for integers and bool.
    Source: NumPy ``nan_to_num``.

    >>> import graphc as gx
    >>> gx.nan_to_num(gx.placeholder("x", ("n", 3)))
    <nan_to_num: f32[n, 3]>
    """
    node = as_node(x, DType.float32)
    largest = _LARGEST.get(node.dtype, 0.0)  # what has none is refused
    above, below = (largest if posinf is None else posinf), (-largest if neginf is None else neginf)
    return call(NanToNum(float(nan), float(above), float(below)), node)


_LARGEST = {
    DType.float16: 65504.0,
    DType.bfloat16: 3.3895313892515355e38,
    DType.float32: float(np.finfo(np.float32).max),
    DType.float64: float(np.finfo(np.float64).max),
}


__all__ = ["Clip", "NanToNum", "clip", "nan_to_num"]
