"""What arguments of layers and functions may be, asked in one way: whole numbers, numbers, parts that are dropped."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from graphc.errors import AxisError, DTypeError, GraphcError
from graphc.ir.location import user_line
from graphc.ir.types import DType, as_dtype


def is_whole(value: Any, least: float = 1) -> bool:
    """Is it a whole number from ``least`` on? NumPy's count, and arrays of one such; bools do not.

    >>> is_whole(3), is_whole(np.int64(3)), is_whole(np.array(3)), is_whole(0), is_whole(3.0), is_whole(True)
    (True, True, True, False, False, False)
    """
    number = _scalar(value)
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and int(cast("Any", number)) >= least


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Is it a number from ``low`` to ``high``? NumPy's count, and arrays of one such; bools and NaN do not.

    Nor do whole numbers beyond the largest float.

    >>> is_number(0.5), is_number(np.float32(2), low=0), is_number(-1, low=0), is_number("0.5"), is_number(math.nan)
    (True, True, False, False, False)
    """
    number = _scalar(value)
    if not isinstance(number, int | float | np.integer | np.floating) or isinstance(number, bool):
        return False
    try:
        return low <= float(cast("Any", number)) <= high
    except OverflowError:
        return False


def _scalar(value: Any) -> Any:
    """What an array without axes holds; everything else as it is."""
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return array[()] if array.ndim == 0 else array
    return value


def sizes_of(shape: Any) -> tuple[Any, ...]:
    """A shape as a tuple, from one size or several.

    >>> sizes_of(3), sizes_of(np.int64(3)), sizes_of([3, None])
    ((3,), (3,), (3, None))
    """
    number = _scalar(shape)
    return (int(number),) if is_whole(number, -math.inf) else tuple(number)


def shown(value: Any) -> str:
    """How messages show what was given: an array by its type and shape, other things cut to one short line.

    >>> shown("relu"), shown(np.zeros((2, 3))), len(shown([1] * 100))
    ("'relu'", 'an array of float64 (2, 3)', 57)
    """
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return f"an array of {array.dtype} {array.shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:54]}..."


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean 'relu'? `` where known names are near, else nothing.

    >>> suggestion("rleu", ["relu", "tanh"])
    "did you mean 'relu'? "
    """
    near = difflib.get_close_matches(name, list(known), 2, 0.65)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def element(owner: str, dtype: Any) -> DType:
    """The element type that an argument names.

    Raises:
        DTypeError: there is none.
    """
    try:
        return as_dtype(dtype)
    except GraphcError as error:
        raise error.located(owner, (), user_line()) from None


def numpy_type(owner: str, dtype: Any) -> np.dtype[Any]:
    """The element type of NumPy's that an argument names.

    Raises:
        DTypeError: there is none.
    """
    try:
        return np.dtype(dtype)
    except TypeError:
        raise DTypeError(f"dtype of {owner} is {shown(dtype)}", at=user_line(), remedy="give 'float32', say") from None


def positive(owner: Any, name: str, value: Any) -> int:
    """The value of an argument, if it is a positive whole number.

    Raises:
        AxisError: it is not.
    """
    if not is_whole(value):
        raise AxisError(
            f"{name} of {type(owner).__name__} is {value!r}",
            at=user_line(),
            remedy=f"give a positive whole number of {name}",
        )
    return int(value)
