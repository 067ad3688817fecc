"""Python's operators on nodes, and the methods that the Array API gives arrays.

Nodes do not know operations: ``graphc.ops`` fills the table that these call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphc.ir.node import Node

operators: dict[str, Callable[..., Any]] = {}
"""What Python's operators and the methods of nodes call; ``graphc.ops`` fills it."""


class Operators:
    """What a node can be asked in the syntax of numbers and arrays."""

    __slots__ = ()

    def __add__(self, other: Any) -> Node:
        return operators["add"](self, other)

    def __radd__(self, other: Any) -> Node:
        return operators["add"](other, self)

    def __sub__(self, other: Any) -> Node:
        return operators["subtract"](self, other)

    def __rsub__(self, other: Any) -> Node:
        return operators["subtract"](other, self)

    def __mul__(self, other: Any) -> Node:
        return operators["multiply"](self, other)

    def __rmul__(self, other: Any) -> Node:
        return operators["multiply"](other, self)

    def __truediv__(self, other: Any) -> Node:
        return operators["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return operators["divide"](other, self)

    def __floordiv__(self, other: Any) -> Node:
        return operators["floor_divide"](self, other)

    def __rfloordiv__(self, other: Any) -> Node:
        return operators["floor_divide"](other, self)

    def __mod__(self, other: Any) -> Node:
        return operators["remainder"](self, other)

    def __rmod__(self, other: Any) -> Node:
        return operators["remainder"](other, self)

    def __pow__(self, other: Any) -> Node:
        return operators["pow"](self, other)

    def __rpow__(self, other: Any) -> Node:
        return operators["pow"](other, self)

    def __matmul__(self, other: Any) -> Node:
        return operators["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Node:
        return operators["matmul"](other, self)

    def __and__(self, other: Any) -> Node:
        return operators["and"](self, other)

    def __rand__(self, other: Any) -> Node:
        return operators["and"](other, self)

    def __or__(self, other: Any) -> Node:
        return operators["or"](self, other)

    def __ror__(self, other: Any) -> Node:
        return operators["or"](other, self)

    def __xor__(self, other: Any) -> Node:
        return operators["xor"](self, other)

    def __rxor__(self, other: Any) -> Node:
        return operators["xor"](other, self)

    def __lshift__(self, other: Any) -> Node:
        return operators["left_shift"](self, other)

    def __rshift__(self, other: Any) -> Node:
        return operators["right_shift"](self, other)

    def __neg__(self) -> Node:
        return operators["negative"](self)

    def __abs__(self) -> Node:
        return operators["abs"](self)

    def __invert__(self) -> Node:
        return operators["not"](self)

    def __eq__(self, other: Any) -> Node:  # pyright: ignore[reportIncompatibleMethodOverride]
        return operators["equal"](self, other)

    def __ne__(self, other: Any) -> Node:  # pyright: ignore[reportIncompatibleMethodOverride]
        return operators["not_equal"](self, other)

    def __lt__(self, other: Any) -> Node:
        return operators["less"](self, other)

    def __le__(self, other: Any) -> Node:
        return operators["less_equal"](self, other)

    def __gt__(self, other: Any) -> Node:
        return operators["greater"](self, other)

    def __ge__(self, other: Any) -> Node:
        return operators["greater_equal"](self, other)

    def __getitem__(self, index: Any) -> Node:
        return operators["getitem"](self, index)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Node:
        """Sum over axes; see :func:`graphc.sum`."""
        return operators["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Node:
        """Mean over axes; see :func:`graphc.mean`."""
        return operators["mean"](self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Node:
        """Maximum over axes; see :func:`graphc.max`."""
        return operators["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Node:
        """Minimum over axes; see :func:`graphc.min`."""
        return operators["min"](self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Node:
        """The same elements in another shape; see :func:`graphc.reshape`."""
        return operators["reshape"](self, shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape)

    def astype(self, dtype: Any) -> Node:
        """Convert the elements; see :func:`graphc.cast`."""
        return operators["cast"](self, dtype)
