"""Norms of vectors over any axes; over both axes of a matrix the norm of order 2 is Frobenius's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc.errors import AxisError, DTypeError
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.arithmetic import abs, divide, multiply, pow, sign, square
from graphc.ops.base import (
    FLOATS,
    Array,
    Axis,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    cast_to,
    explaining,
    normalize_axes,
    op_class,
    require_dtype,
    special_operands,
)
from graphc.ops.compare import equal, greater, isfinite, where
from graphc.ops.exponential import sqrt
from graphc.ops.logic import logical_and
from graphc.ops.reduction import check_axes, max, min, reduced_shape, restore_axes, spread, sum
from graphc.ops.slicing import squeeze

f32 = DType.float32


@op_class
class Norm(Op):
    """``sum(|x|**order)**(1 / order)`` over axes; for infinite orders the largest or smallest |x|; of nothing 0.

    Elements are divided by the largest before they are raised, so that nothing overflows or vanishes on the way. The
    derivative at 0 is 0, and equal extremes share it.

    Shapes: x of any shape; the axes vanish, or become 1 with keepdims.
    Raises: AxisError for an order of 0 or a finite one below; DTypeError for integers and bool.
    Source: Array API ``linalg.vector_norm``; Blue 1978, https://doi.org/10.1145/355769.355771, for the scale.
    """

    axes: tuple[int, ...]
    keepdims: bool
    order: float = 2.0

    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, FLOATS)
        check_axes(self.axes, x.rank)
        if not (self.order > 0 or self.order == -math.inf):
            raise AxisError(f"there is no norm of order {self.order}", remedy="give 1, 2, another one above 0, or inf")
        return TensorType(x.dtype, reduced_shape(x.shape, self.axes, self.keepdims))

    def reference(self, x: Array) -> Array:
        size: Array = np.abs(x)
        if math.isinf(self.order):
            extreme, start = (np.maximum, 0.0) if self.order > 0 else (np.minimum, math.inf)
            total: Array = extreme.reduce(size, axis=self.axes, keepdims=True, initial=start)
        elif self.order == 1:
            total = np.sum(size, axis=self.axes, keepdims=True)
        else:
            largest: Array = np.maximum.reduce(size, axis=self.axes, keepdims=True, initial=0)
            scale = np.where((largest > 0) & np.isfinite(largest), largest, np.ones_like(largest))
            powers: Array = np.sum((size / scale) ** self.order, axis=self.axes, keepdims=True)
            total = scale * powers ** (1 / self.order)
        total = np.asarray(total, x.dtype)
        return total if self.keepdims else np.squeeze(total, self.axes)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        size = abs(x)
        if math.isinf(self.order):
            extreme = max if self.order > 0 else min
            total = extreme(size, axis=self.axes, keepdims=True)
            total = _at_least_0(total) if self.order > 0 else total
        elif self.order == 1:
            total = sum(size, axis=self.axes, keepdims=True)
        else:
            largest = max(size, axis=self.axes, keepdims=True)
            scale = where(logical_and(greater(largest, 0), isfinite(largest)), largest, 1.0)
            ratio = divide(x if self.order == 2 else size, scale)
            powers = sum(square(ratio) if self.order == 2 else pow(ratio, self.order), axis=self.axes, keepdims=True)
            total = multiply(scale, sqrt(powers) if self.order == 2 else pow(powers, 1 / self.order))
        return total if self.keepdims else squeeze(total, self.axes)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (multiply(spread(cotangent, node.args[0].shape, self.axes), self._slope(node)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        if dx is None:
            return None
        return sum(multiply(self._slope(node), dx), axis=self.axes, keepdims=self.keepdims)

    def _slope(self, node: Node) -> Node:
        """The derivative of the norm by each element."""
        (x,) = node.args
        if self.order == 1:
            return sign(x)
        total = restore_axes(node, x.shape, self.axes)
        if math.isinf(self.order):
            hit = cast_to(equal(abs(x), total), x.dtype)
            return multiply(sign(x), divide(hit, sum(hit, axis=self.axes, keepdims=True)))
        ratio = divide(x, where(equal(total, 0), 1.0, total))
        return ratio if self.order == 2 else multiply(sign(x), pow(abs(ratio), self.order - 1))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every kind of order, axes kept and not, sizes of 0 and 1, zeros, numbers whose squares overflow or vanish."""

        def case(shape: Shape, axes: tuple[int, ...], order: float = 2.0, keepdims: bool = False) -> Case:
            return Case(cls(axes, keepdims, order), (TensorType(f32, shape),), (0.2, 2.0))

        inf = math.inf
        extremes = np.array([[3e30, -4e30], [3e-30, 4e-30], [0, 0], [-inf, 1], [np.nan, 1]], np.float32)
        pairs = np.stack(special_operands(f32, 2), axis=1)[:40]
        orders = (1.0, 2.0, inf, -inf, 3.0, 1.5)
        return [
            *(case((4, 5), (1,), order) for order in orders),
            *(case((2, 3, 4), (0, 2), order, True) for order in orders),
            case((), ()), case((3, 1), (1,)), case((0, 3), (1,)), case((3, 70), (1,)), case((70, 3), (0,)),
            *(Case(cls((1,), False, order), (TensorType(f32, (3, 0)),), differentiable=False) for order in (1.0, inf)),
            *(Case(cls((1,), False, order), (x,), differentiable=False)
              for order in (1.0, 2.0, inf) for x in (extremes, pairs)),
        ]  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, an order of 0, integers."""
        x = TensorType(f32, (4, 5))
        return (
            BadCase(cls((2,), False), (x,), AxisError, ("norm", "axis 2", "2 axes")),
            BadCase(cls((1,), False, 0.0), (x,), AxisError, ("norm", "order 0.0")),
            BadCase(cls((0,), False), (TensorType(DType.int64, (4,)),), DTypeError, ("norm", "int64", "gx.cast")),
        )


def _at_least_0(x: Node) -> Node:
    """Of nothing the largest element is -inf; sizes are not negative."""
    return where(equal(x, -math.inf), 0.0, x)


def norm(x: Operand, ord: float | str = 2, axis: Axis = None, keepdims: bool = False) -> Node:
    """The norm of the elements over axes (None: all), as of one vector.

    Args:
        x: floats.
        ord: the order: 1, 2 (or "fro"), another number above 0, ``math.inf`` or ``-math.inf``.
        axis: the axes over which one norm is taken.
        keepdims: whether the axes stay, with size 1.

    Shapes: the axes vanish, or become 1 with keepdims.
    Raises: AxisError; DTypeError for integers and bool.
    Source: Array API ``linalg.vector_norm``.

    >>> import graphc as gx
    >>> gx.norm(gx.placeholder("x", ("n", 3)), axis=1)
    <norm: f32[n]>
    """
    node = as_node(x)
    with explaining("norm", node):
        if not isinstance(ord, int | float | np.number) and ord != "fro":
            raise AxisError(f"there is no norm of order {ord!r}", remedy='give 1, 2, inf, another number or "fro"')
        order = 2.0 if isinstance(ord, str) else float(ord)
        axes = normalize_axes(axis, node.ndim)
        return apply(Norm(axes, bool(keepdims), order), node)


__all__ = ["Norm", "norm"]
