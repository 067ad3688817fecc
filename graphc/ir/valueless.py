"""What Python and NumPy ask of things that have values now: a node refuses, and says what to write instead.

Mixed arithmetic stays with nodes: where NumPy finds a node beside an array under one of Python's operators, it hands
over to that operator of the node.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.location import user_line

_OPERATORS: dict[np.ufunc, tuple[str, str]] = {
    np.add: ("__add__", "__radd__"),
    np.subtract: ("__sub__", "__rsub__"),
    np.multiply: ("__mul__", "__rmul__"),
    np.divide: ("__truediv__", "__rtruediv__"),
    np.floor_divide: ("__floordiv__", "__rfloordiv__"),
    np.remainder: ("__mod__", "__rmod__"),
    np.power: ("__pow__", "__rpow__"),
    np.matmul: ("__matmul__", "__rmatmul__"),
    np.bitwise_and: ("__and__", "__rand__"),
    np.bitwise_or: ("__or__", "__ror__"),
    np.bitwise_xor: ("__xor__", "__rxor__"),
    np.equal: ("__eq__", "__eq__"),
    np.not_equal: ("__ne__", "__ne__"),
    np.less: ("__lt__", "__gt__"),
    np.less_equal: ("__le__", "__ge__"),
    np.greater: ("__gt__", "__lt__"),
    np.greater_equal: ("__ge__", "__le__"),
}
"""The methods for a ufunc whose first, and whose second, operand is a node."""
_RUN = "compile it and call the program: gx.compile({'y': y}, inputs=[...])(...)"


class Valueless:
    """What a node cannot be asked, since its elements are known only when a program runs."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise _refusal(
            "a node has no truth value: its elements are known only when a program runs",
            "choose elements with gx.where(condition, a, b); compare nodes themselves with `is`",
        )

    def __iter__(self) -> NoReturn:
        raise _refusal("a node cannot be iterated over", "index it: x[0], x[1]")

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise _refusal(
            "a node never changes, and neither do its elements",
            "make another one: gx.index_update(x, index, values), or gx.where(condition, a, b)",
        )

    def __float__(self) -> NoReturn:
        raise _refusal("a node is not a number: its value is known only when a program runs", _RUN)

    __int__ = __index__ = __complex__ = __float__

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise _refusal("a node is not an array: its elements are known only when a program runs", _RUN)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in (np.shape, np.ndim):  # these ask for what a node knows
            return self.shape if func is np.shape else self.ndim  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        raise _numpy(func.__name__)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        names = _OPERATORS.get(ufunc)
        if names is None or method != "__call__" or kwargs:
            raise _numpy(ufunc.__name__)
        first, second = inputs
        return getattr(first, names[0])(second) if isinstance(first, Valueless) else getattr(second, names[1])(first)


def _refusal(message: str, remedy: str) -> DTypeError:
    return DTypeError(message, at=user_line(), remedy=remedy)


def _numpy(name: str) -> DTypeError:
    return _refusal(
        f"np.{name} computes with arrays, and a node has no elements before a program runs",
        f"compute with graphc's functions, which have NumPy's names: gx.{name}, where there is one",
    )
