"""Ops that can fail while a program runs, and the two that do nothing else: in_range and check_finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc.errors import DTypeError, IndexRangeError, NonFiniteError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, as_shape
from graphc.loops.kernel import Expr
from graphc.ops.base import (
    FLOATS,
    INTEGERS,
    Absent,
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    as_node,
    explaining,
    ints,
    op_class,
    special_operands,
)

f32, i64 = DType.float32, DType.int64


class Checked(Op):
    """Base of ops that can fail while a program runs.

    Class attributes:
        check: ``index`` (the detail of a failure is the index) or ``finite`` (it is the flat position).
    """

    check: ClassVar[str] = "index"

    def limit(self, *types: TensorType) -> Size:
        """Of an index check: the size of the axis."""
        return 0

    def fault(self, *arrays: Any) -> int | None:
        """The detail of a failure, by NumPy, or None. Symbolic sizes are already numbers."""
        raise NotImplementedError(f"{type(self).__name__} lacks fault")


def first_outside(indices: Array, limit: Size) -> int | None:
    """The first index, in row-major order, that is not one of ``0 .. limit - 1``."""
    numbers = indices.astype(np.int64)
    outside = numbers[(numbers < 0) | (numbers >= ints((limit,))[0])]
    return int(outside.flat[0]) if outside.size else None


def require_in_range(indices: Array, limit: Size) -> None:
    """Refuse indices outside an axis.

    Raises:
        IndexRangeError: names the index and the size.
    """
    index = first_outside(indices, limit)
    if index is not None:
        raise IndexRangeError(f"index {index} is outside an axis of size {limit}", remedy=f"use 0 to {limit - 1}")


@op_class
class InRange(Checked, Elementwise):
    """Integers as they are, checked while the program runs: ``0 <= x < size``.

    Shapes: that of x.
    Raises: DTypeError for anything but integers; at run time IndexRangeError.
    Source: none, this is graphc's own.
    """

    size: Size

    accepts = INTEGERS
    onnx = "Identity"
    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT

    def limit(self, *types: TensorType) -> Size:
        return self.size

    def fault(self, *arrays: Any) -> int | None:
        return first_outside(arrays[0], self.size)

    def reference(self, x: Array) -> Array:
        require_in_range(x, self.size)
        return x

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        return args[0]

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return InRange(bind(self.size))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Every element type; the smallest and the largest index; no indices."""
        rows = [Case(cls(5), (np.array([[0, 4, 2]], dtype.numpy),)) for dtype in INTEGERS]
        return [*rows, Case(cls(3), (np.zeros((0, 2), np.int64),))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Floats and bools."""
        return tuple(
            BadCase(cls(5), (TensorType(dtype, (2,)),), DTypeError, ("in_range", dtype.value, "int64"))
            for dtype in (f32, DType.bool)
        )


def in_range(x: Operand, size: Size | str) -> Node:
    """Integers as they are, checked while the program runs: ``0 <= x < size``.

    Shapes: that of x.
    Raises: DTypeError for anything but integers; at run time IndexRangeError.
    Source: the bounds of https://onnx.ai/onnx/operators/onnx__Gather.html

    >>> import graphc as gx
    >>> gx.in_range(gx.placeholder("labels", ("n",), "int64"), 10)
    <in_range: i64[n]>
    """
    node = as_node(x)
    with explaining("in_range", node):
        (limit,) = as_shape((size,))
    return apply(InRange(limit), node)


@op_class
class CheckFinite(Checked, Elementwise):
    """Floats as they are, checked while the program runs: no NaN and no infinity.

    Attributes:
        label: what the message calls the value.

    Shapes: that of x.
    Raises: DTypeError for anything but floats; at run time NonFiniteError.
    Source: none, this is graphc's own.
    """

    label: str = ""

    accepts = FLOATS
    onnx = "Identity"
    check = "finite"

    def fault(self, *arrays: Any) -> int | None:
        bad = np.flatnonzero(~np.isfinite(arrays[0]))
        return int(bad[0]) if bad.size else None

    def reference(self, x: Array) -> Array:
        place = self.fault(x)
        if place is not None:
            raise NonFiniteError(
                f"element {place} of {self.label or 'a value'} is {x.flat[place]}", remedy="look at what computes it"
            )
        return x

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        return args[0]

    def chain(self, node: Node, g: Node, position: int) -> Node:
        return g

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both element types, scalars, no elements; the largest and smallest floats."""
        extremes = special_operands(f32, 1)[0]
        return (
            Case(cls(), (TensorType(f32, (3, 4)),)), Case(cls("loss"), (TensorType(DType.float64, ()),)),
            Case(cls(), (TensorType(f32, (0,)),)),
            Case(cls(), (extremes[np.isfinite(extremes)],), differentiable=False),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Integers and bools, which are always finite."""
        return tuple(
            BadCase(cls(), (TensorType(dtype, (2,)),), DTypeError, ("check_finite", dtype.value))
            for dtype in (i64, DType.bool)
        )


def check_finite(x: Operand, label: str = "") -> Node:
    """Floats as they are; a NaN or infinity stops the program, which then changes no state.

    Shapes: that of x.
    Raises: DTypeError for anything but floats; at run time NonFiniteError.
    Source: TensorFlow ``debugging.check_numerics``.

    >>> import graphc as gx
    >>> gx.check_finite(gx.placeholder("x", (3,)), "the input")
    <check_finite 'the input': f32[3]>
    """
    return apply(CheckFinite(label), as_node(x))


__all__ = ["CheckFinite", "Checked", "InRange", "check_finite", "in_range"]
