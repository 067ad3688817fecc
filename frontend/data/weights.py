"""Weights of samples and of classes, as arrays that a program takes beside the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.frontend.config import user_line
from graphc.frontend.data.arrays import Slot, as_numpy
from graphc.ir.types import DType, TensorType

Array = NDArray[Any]


def weights_type(shape: Sequence[int], output: TensorType) -> TensorType:
    """The type of weights of this shape for an output: axes of size 1 stay, the others are the output's."""
    dtype = output.dtype if output.dtype.is_float else DType.float32
    sizes = [1 if size == 1 and own != 1 else own for size, own in zip(shape[1:], output.shape[1:], strict=False)]
    return TensorType(dtype, (output.shape[0], *sizes))


def sample_weights(
    value: Any, slots: Sequence[Slot], outputs: Sequence[TensorType], names: Sequence[str]
) -> list[Array]:
    """An array of weights for each target.

    Args:
        value: one array for all outputs; for several outputs also a list with an array or None for each, or a dict by
            the outputs' names. What is not given counts once.
        slots: of the targets.
        outputs: the types of the outputs that the targets are for.
        names: of all outputs.

    Raises:
        ShapeError: weights have sizes that the output has not.
        DTypeError: they are no numbers.
        GraphError: weights for an output that does not exist.
    """
    table = _spread(value, slots, names)
    count = next((len(item) for item in table.values() if item is not None and np.ndim(item)), 0)
    return [_weights(table.get(slot.name), output, slot, count) for slot, output in zip(slots, outputs, strict=True)]


def _spread(value: Any, slots: Sequence[Slot], names: Sequence[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        table = dict(cast("Mapping[str, Any]", value))
        for name in table:
            if name not in names:
                raise GraphError(
                    f"sample_weight names the output {name!r}, which the model does not have",
                    at=user_line(),
                    remedy=f"the outputs are {', '.join(map(repr, names))}",
                )
        return table
    if len(names) > 1 and isinstance(value, list | tuple):
        items = list(cast("Sequence[Any]", value))
        if len(items) == len(names) and all(item is None or np.ndim(item) for item in items):
            return dict(zip(names, items, strict=True))
    return {slot.name: value for slot in slots}


def _weights(value: Any, output: TensorType, slot: Slot, count: int) -> Array:
    if value is None:
        return np.ones(count, weights_type((count,), output).dtype.numpy)
    array = as_numpy(value, f"sample_weight of {slot.name!r}", "give a number for each sample")
    sizes = output.shape[1:]
    if (
        array.ndim == 0
        or array.ndim > max(1, output.rank)
        or any(size not in (1, own) for size, own in zip(array.shape[1:], sizes, strict=False) if isinstance(own, int))
    ):
        raise ShapeError(
            f"sample_weight of {slot.name!r} has shape {array.shape}, the output is {output}",
            at=user_line(),
            remedy="give one weight for each sample, or one for each of its time steps",
        )
    return np.ascontiguousarray(array, weights_type(array.shape, output).dtype.numpy)


def class_weights(targets: Sequence[Array], table: Mapping[int, float]) -> Array:
    """A weight for each label: labels are class numbers, one-hot rows, or 0 and 1.

    Args:
        targets: the targets of the only output.
        table: the weight of each class; classes that are not in it weigh 1.

    Raises:
        GraphError: there are several outputs.
        DTypeError: table is no dict of numbers.
    """
    if len(targets) != 1:
        raise GraphError(
            "class_weight is for models with one output", at=user_line(), remedy="give sample_weight for each output"
        )
    good = isinstance(table, Mapping) and all(  # pyright: ignore[reportUnnecessaryIsInstance]
        isinstance(key, int | np.integer) and isinstance(value, int | float | np.number)  # pyright: ignore[reportUnnecessaryIsInstance]
        for key, value in table.items()
    )
    if not good:
        raise DTypeError(
            f"class_weight is a dict from class numbers to weights, not {table!r}",
            at=user_line(),
            remedy="write class_weight={0: 1.0, 1: 5.0}",
        )
    (labels,) = targets
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    elif labels.ndim > 1 and labels.dtype.kind == "f":
        labels = labels.argmax(axis=-1)
    if labels.dtype.kind == "f":
        labels = np.rint(labels)
    weights = np.ones(labels.shape, np.float32)
    for key, value in table.items():
        weights[labels == key] = value
    return weights
