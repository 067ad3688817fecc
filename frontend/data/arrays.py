"""What a user hands to ``fit``, as checked, contiguous arrays of the types that programs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError, ShapeError
from graphc.frontend.arguments import shown
from graphc.frontend.config import user_line
from graphc.ir.types import DType, TensorType, kind_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Slot:
    """A place for an array.

    Attributes:
        name: the input's or output's name.
        what: ``input`` or ``target``, for messages.
        type: its element type and shape; the first axis counts samples.
    """

    name: str
    what: str
    type: TensorType

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.what} {self.name!r}"


def distribute(value: Any, names: Sequence[str], what: str) -> list[Any]:
    """One item for each name, from an array, a list of arrays, or a dict by name.

    Raises:
        ShapeError: another number of arrays, or unknown names.
    """
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        if set(table) != set(names):
            raise ShapeError(
                f"the {what}s are {', '.join(map(repr, names))}, the data is for {', '.join(map(repr, table))}",
                at=user_line(),
                remedy=f"give a dict with exactly these keys, or a list in this order: {', '.join(names)}",
            )
        return [table[name] for name in names]
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        arrays = any(isinstance(item, np.ndarray) for item in items)
        if len(names) == 1 and not (len(items) == 1 and arrays):
            return [value]  # samples, one after the other
        if len(items) != len(names):
            raise _wrong_count(names, len(items), what)
        return list(items)
    if len(names) != 1:
        raise _wrong_count(names, 1, what)
    return [value]


def _wrong_count(names: Sequence[str], count: int, what: str) -> ShapeError:
    return ShapeError(
        f"the model has {len(names)} {what}s ({', '.join(names)}), the data has {count}",
        at=user_line(),
        remedy="give a list with one array for each, in this order, or a dict by name",
    )


def ready(value: Any, slot: Slot) -> bool:
    """Is this an array that a program takes as it is?"""
    if not isinstance(value, np.ndarray):
        return False
    array = cast("Array", value)
    shape = slot.type.shape
    return (
        array.dtype == slot.type.dtype.numpy
        and array.ndim == len(shape)
        and array.flags.c_contiguous
        and array.shape[0] > 0
        and not (isinstance(shape[0], int) and array.shape[0] % shape[0])
        and all(a == b for a, b in zip(array.shape[1:], shape[1:], strict=True))
    )


def to_array(value: Any, slot: Slot) -> Array:
    """An array of the slot's type, without a copy where none is needed.

    Raises:
        ShapeError: the sizes of a sample are not those of the slot, or there is no sample.
        DTypeError: the values cannot become the slot's element type without loss.
    """
    if ready(value, slot):
        return value
    numbered = "; of names make numbers: np.unique(y, return_inverse=True)[1]" if slot.what == "target" else ""
    array = as_numpy(value, slot.title, f"give an array of {slot.type.dtype}{numbered}")
    wanted = slot.type
    if array.ndim == wanted.rank - 1 and wanted.rank > 1 and wanted.shape[-1] == 1:
        array = array[..., np.newaxis]
    elif slot.what == "target" and array.ndim == wanted.rank + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    _check_shape(array, slot)
    return np.ascontiguousarray(_convert(array, slot))


def as_numpy(value: Any, title: str, remedy: str = "give an array of numbers") -> Array:
    """The user's numbers as an array.

    Args:
        value: an array, numbers, or lists of them.
        title: what messages call the place that the data is for.
        remedy: what to do about things that are not numbers.

    Raises:
        ShapeError: samples have several shapes.
        DTypeError: there are things that are not numbers.
    """
    if value is None or callable(value):
        what, then = ("None", "give data") if value is None else (shown(value), "call the function: fit(batches())")
        raise DTypeError(f"the data for {title} is {what}", at=user_line(), remedy=then)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(
            f"the data for {title} is ragged: its items have different shapes",
            at=user_line(),
            remedy="bring all samples to one shape; x and y are two arguments: fit(x, y); batches come from a generator"
            " or another iterable, not from a list",
        ) from None
    if kind_of(array.dtype) not in "biuf":
        raise DTypeError(f"the data for {title} holds {array.dtype}, not numbers", at=user_line(), remedy=remedy)
    return array


def _check_shape(array: Array, slot: Slot) -> None:
    shape = slot.type.shape
    if array.ndim != len(shape) or any(
        isinstance(want, int) and want != have for want, have in zip(shape[1:], array.shape[1:], strict=True)
    ):
        raise ShapeError(
            f"{slot.title} is {slot.type}, the data has shape {array.shape}",
            at=user_line(),
            remedy=f"give an array of shape {_shown(shape)}{_one_sample(array, slot)}{_other_labels(array, slot)}",
        )
    if array.shape[0] == 0:
        raise ShapeError(
            f"the data for {slot.title} holds no samples", at=user_line(), remedy="give at least one sample"
        )
    if isinstance(shape[0], int) and array.shape[0] % shape[0]:
        raise ShapeError(
            f"{slot.title} has the fixed batch size {shape[0]}, the data has {array.shape[0]} samples",
            at=user_line(),
            remedy=f"give a multiple of {shape[0]} samples, or leave batch_size out of Input",
        )


def _shown(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _one_sample(array: Array, slot: Slot) -> str:
    """What helps if data is a sample without the axis of samples."""
    return "; of one sample: x[None]" if slot.what == "input" and array.shape == tuple(slot.type.shape[1:]) else ""


def _other_labels(array: Array, slot: Slot) -> str:
    """What helps if labels come in the other of the two ways, one-hot rows and class numbers."""
    if slot.what != "target":
        return ""
    if slot.type.dtype.is_float and array.dtype.kind in "iu" and array.ndim == slot.type.rank - 1:
        return "; class numbers are for the loss sparse_categorical_crossentropy"
    if not slot.type.dtype.is_float and array.ndim == slot.type.rank + 1:
        return "; one-hot rows are for the loss categorical_crossentropy"
    return ""


def _convert(array: Array, slot: Slot) -> Array:
    dtype = slot.type.dtype
    if array.dtype == dtype.numpy:
        return array
    if dtype.is_float:
        return array.astype(dtype.numpy)
    if dtype is DType.bool:
        if kind_of(array.dtype) != "f" or bool(np.isin(array, (0, 1)).all()):
            return array.astype(np.bool_)
    elif array.dtype.kind == "b":
        return array.astype(dtype.numpy)
    elif array.size:
        low, high = np.min(array), np.max(array)
        info = np.iinfo(dtype.numpy)
        whole = kind_of(array.dtype) != "f" or bool(np.all(np.equal(array, np.floor(array))))
        if whole and int(info.min) <= int(low) and int(high) <= int(info.max):
            return array.astype(dtype.numpy)
    raise DTypeError(
        f"{slot.title} is {slot.type}, the data holds {array.dtype} values that {dtype} cannot hold",
        at=user_line(),
        remedy=f"convert it yourself if that is meant: x.astype({dtype.value!r})",
    )


def check_lengths(arrays: Sequence[Array], slots: Sequence[Slot]) -> int:
    """The number of samples.

    Raises:
        ShapeError: arrays of different lengths.
    """
    count = arrays[0].shape[0]
    for array, slot in zip(arrays, slots, strict=True):
        if array.shape[0] != count:
            raise ShapeError(
                f"{slots[0].title} has {count} samples, {slot.title} has {array.shape[0]}",
                at=user_line(),
                remedy="give arrays of one length",
            )
    return count


def type_of_data(value: Any, batch: Any) -> TensorType:
    """The type of targets that no loss prescribes: that of the data, floats as float32 and whole numbers as int64."""
    array = np.asarray(value)
    kind = {"f": DType.float32, "i": DType.int64, "u": DType.int64, "b": DType.bool}.get(kind_of(array.dtype))
    if kind is None:
        raise DTypeError(f"the targets hold {array.dtype}, not numbers", at=user_line(), remedy="give numbers or bools")
    return TensorType(kind, (batch, *array.shape[1:]))
