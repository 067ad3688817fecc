"""What the op families share: operands from Python values, promotion, broadcasting, the elementwise base class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from graphc.errors import AxisError, DTypeError, GraphcError
from graphc.ir import location
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Op, op_class
from graphc.ir.types import DType, Shape, TensorType, broadcast_shapes, promote
from graphc.loops.kernel import Apply, Expr

Operand = Node | np.ndarray[Any, Any] | np.generic | bool | int | float


def user_line() -> str | None:
    """The user's current line as text, for errors."""
    place = location.here()
    return None if place is None else str(place)


def as_node(value: Any, like: DType | None = None) -> Node:
    """A node from a node, an array or a number; a Python number takes the element type ``like``.

    Raises:
        DTypeError: the value is none of these, or a float number meets an integer ``like``.
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, bool | int | float) and like is not None:
        if isinstance(value, float) and not like.is_float:
            raise DTypeError(
                f"the number {value} does not mix with {like}", at=user_line(), remedy="cast first: gx.cast(x, 'float32')"
            )
        if isinstance(value, bool) and like is not DType.bool:
            raise DTypeError(f"{value} does not mix with {like}", at=user_line(), remedy=f"write {int(value)}")
        if isinstance(value, int) and not isinstance(value, bool) and like is DType.bool:
            raise DTypeError(f"the number {value} does not mix with bool", at=user_line(), remedy="write True or False")
        if isinstance(value, int) and like.is_integer:
            info = np.iinfo(like.numpy)
            if not int(info.min) <= value <= int(info.max):
                raise DTypeError(
                    f"{value} does not fit in {like}", at=user_line(), remedy="cast to a wider type: gx.cast(x, 'int64')"
                )
        return constant(value, like)
    if isinstance(value, bool | int | float | np.ndarray | np.generic | list | tuple):
        return constant(value)
    raise DTypeError(
        f"{type(value).__name__} is not a node, an array or a number", at=user_line(), remedy="see gx.constant"
    )


def as_operands(*values: Any, name: str = "") -> tuple[Node, ...]:
    """Nodes of one common element type: Python numbers are weak, the rest is promoted with explicit casts."""
    strong = [value for value in values if not isinstance(value, bool | int | float)]
    if not strong:
        return tuple(as_node(value) for value in values)
    try:
        nodes = [as_node(value) for value in strong]
        dtype = promote(*(node.dtype for node in nodes))
        return tuple(cast_to(as_node(value, dtype), dtype) for value in values)
    except GraphcError as error:
        raise error.located(name, (), user_line()) from None


def cast_to(x: Node, dtype: DType) -> Node:
    """``x`` in another element type; itself if it already has it."""
    if x.dtype is dtype:
        return x
    from graphc.ops.cast import Cast

    return apply(Cast(dtype), x)


def normalize_axis(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        AxisError: there is no such axis.
    """
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AxisError(f"an axis is an int, not {axis!r}", at=user_line(), remedy="give an int or a tuple of ints")
    if not -rank <= axis < rank:
        allowed = f"from {-rank} to {rank - 1}" if rank else "none: the operand is a scalar"
        raise AxisError(f"axis {axis} does not exist", at=user_line(), remedy=f"axes here: {allowed}")
    return int(axis) % rank


def normalize_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """Sorted axes counted from the front; None means all.

    Raises:
        AxisError: an axis does not exist or stands twice.
    """
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    axes = tuple(sorted(normalize_axis(a, rank) for a in given))
    if len(set(axes)) != len(axes):
        raise AxisError(f"an axis stands twice in {tuple(given)}", at=user_line(), remedy="name each axis once")
    return axes


def sum_to(x: Node, shape: Shape) -> Node:
    """Undo broadcasting: sum ``x`` over the axes along which ``shape`` was repeated. The transpose of broadcasting."""
    if x.shape == shape:
        return x
    from graphc.ops.movement import reshape
    from graphc.ops.reduction import sum

    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + axis for axis, size in enumerate(shape) if size == 1 and x.shape[extra + axis] != 1
    )
    reduced = sum(x, axis=axes, keepdims=True) if axes else x
    return reduced if reduced.shape == shape else reshape(reduced, shape)


def zeros_like(x: Node) -> Node:
    """Zeros of the type of ``x``."""
    return full(x.shape, 0, x.dtype)


def full(shape: Shape, value: bool | int | float, dtype: DType) -> Node:
    """One number in every place of a shape."""
    from graphc.ops.movement import broadcast_to

    return broadcast_to(constant(value if dtype.is_float else int(value), dtype), shape)


class Elementwise(Op):
    """Base of ops that compute each element from the elements at the same place, with broadcasting.

    Class attributes:
        fn: the scalar function of the kernel IR; ops that need more than one override :meth:`scalar`.
        accepts: the element types that operands may have; all operands share one.
        result: the element type of the result, or None for that of the operands.
    """

    fn: ClassVar[str] = ""
    accepts: ClassVar[tuple[DType, ...]] = tuple(DType)
    result: ClassVar[DType | None] = None

    def infer(self, *types: TensorType) -> TensorType:
        first = types[0].dtype
        if any(type.dtype is not first for type in types):
            shown = " and ".join(str(type.dtype) for type in types)
            raise DTypeError(f"operands have different element types: {shown}", remedy="convert with gx.cast(x, dtype)")
        if first not in self.accepts:
            allowed = ", ".join(dtype.value for dtype in self.accepts)
            raise DTypeError(f"does not take {first}", remedy=f"convert with gx.cast(x, dtype) to one of {allowed}")
        return TensorType(self.result or first, broadcast_shapes(*(type.shape for type in types)))

    def scalar(self, *args: Expr, dtype: DType) -> Expr:
        """One element of the result as a kernel expression; ``dtype`` is the result's."""
        return Apply(self.fn, args, dtype)


FLOATS = (DType.float32, DType.float64)
NUMBERS = (DType.uint32, DType.int32, DType.int64, *FLOATS)
INTEGERS = (DType.uint32, DType.int32, DType.int64)

Tangents = Sequence[Node | None]

__all__ = [
    "FLOATS", "INTEGERS", "NUMBERS", "Elementwise", "Operand", "Tangents", "apply", "as_node", "as_operands", "cast_to",
    "full", "normalize_axes", "normalize_axis", "op_class", "sum_to", "user_line", "zeros_like",
]  # fmt: skip
