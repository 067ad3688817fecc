"""Running results along an axis: cumsum, cumprod, cummax, cummin, cumlogsumexp, and the recurrence behind them.

Each element is computed from the one before it, in order, so that a result does not depend on how work is divided.
The derivatives of all of them are linear recurrences, which take one pass and divide by nothing: those of a running
product are right where factors are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.loops.kernel import Apply, Expr
from graphc.ops.arithmetic import multiply, subtract
from graphc.ops.base import (
    FLOATS,
    NUMBERS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    add_tangents,
    as_node,
    as_operands,
    cast_to,
    explaining,
    normalize_axis,
    op_class,
    require_dtype,
    special_operands,
)
from graphc.ops.compare import equal, greater, isfinite, less, where
from graphc.ops.exponential import exp, log
from graphc.ops.padding import pad
from graphc.ops.reduction import Reduce, check_axes
from graphc.ops.slicing import take_range

f32 = DType.float32


@dataclass(frozen=True, eq=False, repr=False)
class Cumulative(Op):
    """Base of ops that run along one axis and carry one number from element to element.

    Attributes:
        axis: counted from the front.
        reverse: from the last element to the first.

    Class attributes:
        fn: the function that joins the carry and an element.
        accepts: the element types of the operands.
    """

    axis: int
    reverse: bool = False

    fn: ClassVar[str] = ""
    accepts: ClassVar[tuple[DType, ...]] = NUMBERS

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        require_dtype(x, self.accepts)
        check_axes((self.axis,), x.rank)
        return x

    @property
    def shifted(self) -> bool:
        """Does an element get what was carried up to it, without itself?"""
        return False

    def first(self, dtype: DType) -> bool | int | float:
        """The carry before the first element."""
        return Reduce.identity(self.fn, dtype)

    def step(self, carry: Expr, *elements: Expr) -> Expr:
        """The next carry, as a kernel expression."""
        return Apply(self.fn, (carry, *elements), carry.dtype)

    def _previous(self, x: Node, fill: int | float = 0) -> Node:
        """At each place the element before it in the order of the op."""
        return _neighbour(x, self.axis, not self.reverse, fill)

    def _next(self, x: Node, fill: int | float = 0) -> Node:
        """At each place the element after it in the order of the op."""
        return _neighbour(x, self.axis, self.reverse, fill)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each axis, both ways, sizes of 0 and 1, every element type, NaN and infinities."""
        count = len(cls.operands)

        def case(shape: Shape, axis: int, reverse: bool = False, dtype: DType = f32) -> Case:
            return Case(cls(axis, reverse), (TensorType(dtype, shape),) * count)

        special = np.stack(special_operands(f32, 2), axis=1)
        return [
            case((7,), 0), case((7,), 0, True), case((4, 5), 0), case((4, 5), 1, True), case((2, 3, 4), 1),
            case((2, 3, 4), 1, True), case((3, 0), 1), case((0, 3), 1), case((0, 3), 0), case((3, 1), 1),
            case((5, 70), 0), *(case((3, 6), 1, dtype=dtype) for dtype in cls.accepts if dtype is not f32),
            Case(cls(1, False), (special,) * count, differentiable=False),
        ]  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, an element type that is not taken."""
        count = len(cls.operands)
        good, refused = TensorType(f32, (2, 3)), TensorType(DType.bool, (2,))
        return (
            BadCase(cls(2), (good,) * count, AxisError, (cls.name, "axis 2", "2 axes")),
            BadCase(cls(0), (refused,) * count, DTypeError, (cls.name, "bool", "gx.cast")),
        )


def _neighbour(x: Node, axis: int, before: bool, fill: int | float) -> Node:
    """At each place the element one place before it (or after it) along the axis, ``fill`` where there is none."""
    low = tuple(int(before and i == axis) for i in range(x.ndim))
    high = tuple(int(not before and i == axis) for i in range(x.ndim))
    longer = pad(x, low, high, value=fill)
    size = x.shape[axis]
    return take_range(longer, axis, 0, size) if before else take_range(longer, axis, 1, size + 1)


def _in_order(x: Array, axis: int, reverse: bool) -> Array:
    """The elements with the axis in front, in the order of the op."""
    moved = np.moveaxis(x, axis, 0)
    return moved[::-1] if reverse else moved


def _restored(x: Array, axis: int, reverse: bool) -> Array:
    return np.ascontiguousarray(np.moveaxis(x[::-1] if reverse else x, 0, axis))


@dataclass(frozen=True, eq=False, repr=False)
class _Exclusive(Cumulative):
    """Base of those that may leave the element itself out.

    Attributes:
        exclusive: an element gets the result of those before it.
    """

    exclusive: bool = False

    @property
    def shifted(self) -> bool:
        return self.exclusive

    def reference(self, x: Array) -> Array:
        ordered = _in_order(x, self.axis, self.reverse)
        ufunc = np.add if self.fn == "add" else np.multiply
        total = ufunc.accumulate(ordered, axis=0, dtype=x.dtype) if ordered.shape[0] else ordered
        if self.exclusive:
            total = np.concatenate([np.full_like(ordered[:1], self.first(DType(x.dtype.name))), total[:-1]])
        return _restored(total, self.axis, self.reverse)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the base, and without the element itself."""
        shapes = (((7,), 0, False), ((4, 5), 0, True), ((2, 3, 70), 1, False), ((3, 1), 1, False), ((3, 0), 1, False))
        rows = [Case(cls(axis, reverse, True), (TensorType(f32, shape),)) for shape, axis, reverse in shapes]
        integers = np.array([[3, 5, -7, 2]], np.int64)
        return [*super().cases(), *rows, Case(cls(1, True, True), (integers,))]


@op_class
class CumSum(_Exclusive):
    """The sum of the elements up to each place; with ``exclusive`` of those before it. Integers wrap around.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__CumSum.html
    """

    name = "cumsum"
    fn = "add"
    onnx = "CumSum"

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (apply(replace(self, reverse=not self.reverse), cotangent),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])


def cumsum(x: Operand, axis: int = -1, reverse: bool = False, exclusive: bool = False) -> Node:
    """The sum of the elements up to each place along an axis.

    Args:
        x: numbers.
        axis: where the running sum runs.
        reverse: from the last element to the first.
        exclusive: leave the element itself out.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``cumulative_sum``; https://onnx.ai/onnx/operators/onnx__CumSum.html

    >>> import graphc as gx
    >>> gx.cumsum(gx.placeholder("x", ("n", 3)))
    <cumsum: f32[n, 3]>
    """
    return _run(CumSum, x, axis, reverse, exclusive)


@op_class
class CumProd(_Exclusive):
    """The product of the elements up to each place; with ``exclusive`` of those before it. Integers wrap around.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``cumulative_prod``
    """

    name = "cumprod"
    fn = "mul"

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        later = self._next(cotangent) if self.exclusive else cotangent
        of_later = apply(LinearRecurrence(self.axis, not self.reverse), self._next(x), later)
        return (multiply(self._before(node), of_later),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (x,), (dx,) = node.args, tangents
        if dx is None:
            return None
        moved = apply(LinearRecurrence(self.axis, self.reverse), x, multiply(dx, self._before(node)))
        return self._previous(moved) if self.exclusive else moved

    def _before(self, node: Node) -> Node:
        """The product of what stands before each place."""
        return node if self.exclusive else self._previous(node, 1)


def cumprod(x: Operand, axis: int = -1, reverse: bool = False, exclusive: bool = False) -> Node:
    """The product of the elements up to each place along an axis.

    Args:
        x: numbers.
        axis: where the running product runs.
        reverse: from the last element to the first.
        exclusive: leave the element itself out.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: Array API ``cumulative_prod``.

    >>> import graphc as gx
    >>> gx.cumprod(gx.placeholder("x", ("n", 3)), axis=0)
    <cumprod: f32[n, 3]>
    """
    return _run(CumProd, x, axis, reverse, exclusive)


class _Record(Cumulative):
    """A running extreme. The derivative goes to the first of equal elements: the one that set the record."""

    def reference(self, x: Array) -> Array:
        ordered = _in_order(x, self.axis, self.reverse)
        ufunc = np.maximum if self.fn == "max" else np.minimum
        return _restored(ufunc.accumulate(ordered, axis=0) if ordered.shape[0] else ordered, self.axis, self.reverse)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        record = self._sets_record(node)
        held = apply(LinearRecurrence(self.axis, not self.reverse), self._next(subtract(1.0, record)), cotangent)
        return (multiply(record, held),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        if dx is None:
            return None
        record = self._sets_record(node)
        return apply(LinearRecurrence(self.axis, self.reverse), subtract(1.0, record), multiply(record, dx))

    def _sets_record(self, node: Node) -> Node:
        """1 where an element is beyond all before it, else 0; the first element always is."""
        (x,) = node.args
        beyond = greater if self.fn == "max" else less
        before = self._previous(node, Reduce.identity(self.fn, x.dtype))
        return cast_to(beyond(x, before), x.dtype)


@op_class
class CumMax(_Record):
    """The largest of the elements up to each place; NaN wins. Equal ones: the derivative goes to the first.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cummax.html
    """

    name = "cummax"
    fn = "max"


def cummax(x: Operand, axis: int = -1, reverse: bool = False) -> Node:
    """The largest of the elements up to each place along an axis; NaN wins.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: JAX ``lax.cummax``.

    >>> import graphc as gx
    >>> gx.cummax(gx.placeholder("x", ("n", 3)))
    <cummax: f32[n, 3]>
    """
    return _run(CumMax, x, axis, reverse)


@op_class
class CumMin(_Record):
    """The smallest of the elements up to each place; NaN wins. Equal ones: the derivative goes to the first.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cummin.html
    """

    name = "cummin"
    fn = "min"


def cummin(x: Operand, axis: int = -1, reverse: bool = False) -> Node:
    """The smallest of the elements up to each place along an axis; NaN wins.

    Shapes: that of x.
    Raises: AxisError; DTypeError for bool.
    Source: JAX ``lax.cummin``.

    >>> import graphc as gx
    >>> gx.cummin(gx.placeholder("x", ("n", 3)))
    <cummin: f32[n, 3]>
    """
    return _run(CumMin, x, axis, reverse)


@op_class
class LinearRecurrence(Cumulative):
    """``y[k] = a[k] * y[k - 1] + b[k]`` along an axis, from ``y = 0``; with ``reverse`` from ``y[k + 1]``.

    Shapes: a and b have one shape, which is that of the result.
    Raises: AxisError; ShapeError; DTypeError for integers and bool.
    Source: Martin and Cundy 2018, https://arxiv.org/abs/1709.04057, equation 5
    """

    operands = ("a", "b")
    accepts = FLOATS

    def infer(self, *types: TensorType) -> TensorType:
        result = super().infer(*types)
        a, b = types
        if a.dtype is not b.dtype:
            raise DTypeError(f"a is {a.dtype}, b is {b.dtype}", remedy="convert one of them with gx.cast(x, dtype)")
        if a.shape != b.shape:
            raise ShapeError(f"a is {a}, b is {b}", remedy="give both one shape, with gx.broadcast_to")
        return result

    def first(self, dtype: DType) -> bool | int | float:
        return 0

    def step(self, carry: Expr, *elements: Expr) -> Expr:
        a, b = elements
        return Apply("add", (Apply("mul", (a, carry), carry.dtype), b), carry.dtype)

    def reference(self, a: Array, b: Array) -> Array:
        factors, addends = (_in_order(x, self.axis, self.reverse) for x in (a, b))
        result = np.zeros_like(addends)
        carry = np.zeros_like(addends[:1]).sum(axis=0)
        for k in range(len(addends)):
            carry = result[k] = factors[k] * carry + addends[k]
        return _restored(result, self.axis, self.reverse)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        a, _ = node.args
        db = apply(LinearRecurrence(self.axis, not self.reverse), self._next(a), cotangent)
        return multiply(db, self._previous(node)), db

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        da, db = tangents
        moved = add_tangents([None if da is None else multiply(da, self._previous(node)), db])
        return None if moved is None else apply(self, node.args[0], moved)

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Those of the base; shapes and element types that differ."""
        x = TensorType(f32, (2, 3))
        return (
            *super().bad_cases(),
            BadCase(cls(0), (x, TensorType(f32, (3,))), ShapeError, ("linear_recurrence", "broadcast_to")),
            BadCase(cls(0), (x, TensorType(DType.float64, (2, 3))), DTypeError, ("linear_recurrence", "gx.cast")),
        )


def linear_recurrence(a: Operand, b: Operand, axis: int = -1, reverse: bool = False) -> Node:
    """``y[k] = a[k] * y[k - 1] + b[k]`` along an axis, from ``y = 0``: running averages, discounted sums, filters.

    Shapes: a and b broadcast.
    Raises: AxisError; ShapeError; DTypeError for integers and bool.
    Source: Martin and Cundy 2018, https://arxiv.org/abs/1709.04057, equation 5

    >>> import graphc as gx
    >>> gx.linear_recurrence(0.9, gx.placeholder("reward", ("n", 8)), reverse=True)
    <linear_recurrence: f32[n, 8]>
    """
    from graphc.ir.types import broadcast_shapes
    from graphc.ops.movement import broadcast_to

    with explaining("linear_recurrence", *(x for x in (a, b) if isinstance(x, Node))):
        left, right = as_operands(a, b)
        shape = broadcast_shapes(left.shape, right.shape)
        place = normalize_axis(axis, len(shape))
    return apply(LinearRecurrence(place, bool(reverse)), broadcast_to(left, shape), broadcast_to(right, shape))


@op_class
class CumLogSumExp(Cumulative):
    """``log(cumsum(exp(x)))`` with the largest element so far taken out; of all -inf it is -inf.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: JAX ``lax.cumlogsumexp``
    """

    name = "cumlogsumexp"
    accepts = FLOATS
    composite = True

    def reference(self, x: Array) -> Array:
        ordered = _in_order(x, self.axis, self.reverse)
        total = np.logaddexp.accumulate(ordered, axis=0) if ordered.shape[0] else ordered
        return _restored(total, self.axis, self.reverse)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        largest = apply(CumMax(self.axis, self.reverse), x)
        before = self._previous(largest, -np.inf)
        kept, added = _exp_of_difference(before, largest), _exp_of_difference(x, largest)
        total = apply(LinearRecurrence(self.axis, self.reverse), kept, added)
        return where(isfinite(largest), largest + log(total), largest)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        """``exp(x)`` times the reverse sum of ``g * exp(-y)``, as a recurrence of differences that cannot overflow."""
        fade = _exp_of_difference(node, self._next(node, np.inf))
        held = apply(LinearRecurrence(self.axis, not self.reverse), fade, cotangent)
        return (multiply(held, self._share(node)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        if dx is None:
            return None
        fade = _exp_of_difference(self._previous(node, -np.inf), node)
        return apply(LinearRecurrence(self.axis, self.reverse), fade, multiply(self._share(node), dx))

    def _share(self, node: Node) -> Node:
        """What part of its result an element is; 0 where all so far is -inf."""
        return exp(subtract(node.args[0], where(isfinite(node), node, 0.0)))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the base, values whose exponentials overflow, and a row of -inf."""
        inf = np.inf
        large = np.array([[1000.0, 1001.0, -1000.0], [-1000.0, -1001.0, 0.0]], np.float32)
        special = np.array([[-inf, -inf, 1.0], [-inf, inf, 1.0], [np.nan, 1.0, 2.0], [inf, -inf, 0.0]], np.float32)
        rows = [case for case in super().cases() if case.differentiable]
        return [*rows, *(Case(cls(1, False), (x,), differentiable=False) for x in (large, special))]


def _exp_of_difference(x: Node, y: Node) -> Node:
    """``exp(x - y)``, 1 for equal infinities."""
    return where(equal(x, y), 1.0, exp(subtract(x, y)))


def cumlogsumexp(x: Operand, axis: int = -1, reverse: bool = False) -> Node:
    """``log(cumsum(exp(x)))`` along an axis, safe for large values.

    Shapes: that of x.
    Raises: AxisError; DTypeError for integers and bool.
    Source: JAX ``lax.cumlogsumexp``.

    >>> import graphc as gx
    >>> gx.cumlogsumexp(gx.placeholder("x", ("n", 3)))
    <cumlogsumexp: f32[n, 3]>
    """
    return _run(CumLogSumExp, x, axis, reverse)


def _run(op: type[Cumulative], x: Operand, axis: int, *how: bool) -> Node:
    node = as_node(x)
    with explaining(op.name, node):
        place = normalize_axis(axis, node.ndim)
    return apply(op(place, *map(bool, how)), node)


__all__ = [
    "CumLogSumExp", "CumMax", "CumMin", "CumProd", "CumSum", "Cumulative", "LinearRecurrence", "cumlogsumexp", "cummax",
    "cummin", "cumprod", "cumsum", "linear_recurrence",
]  # fmt: skip
