"""What pooling by the largest element and by the mean share: windows over padded places, and their cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import AxisError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
    Array,
    BadCase,
    Case,
    ints,
)
from graphc.ops.convolution import paddings
from graphc.ops.create import iota
from graphc.ops.movement import broadcast_to, reshape
from graphc.ops.windows import Windows, check_steps, fit, for_each, window_counts

f32 = DType.float32
i32 = DType.int32


@dataclass(frozen=True, eq=False, repr=False)
class Pool(Op):
    """Windows of x, padded along the axes between the batch and the channels.

    Attributes:
        sizes, strides, dilations: of the windows.
        low, high: how far the padding reaches before and behind x.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]
    high: tuple[Size, ...]

    composite = True

    def outputs(self, x: TensorType) -> Shape:
        """The shape of what there is one of for each window."""
        count = len(self.sizes)
        check_steps(count, sizes=self.sizes, strides=self.strides, dilations=self.dilations)
        if len(self.low) != count or len(self.high) != count:
            raise AxisError(f"low and high have {len(self.low)} and {len(self.high)} counts", remedy=f"give {count}")
        if x.rank != count + 2:
            raise ShapeError(
                f"x has {x.rank} axes, it needs {count + 2}", remedy="the batch comes first, channels come last"
            )
        totals = [size + low + high for size, low, high in zip(x.shape[1:-1], self.low, self.high, strict=True)]
        counts = window_counts(totals, self.sizes, self.strides, self.dilations)
        return (x.shape[0], *counts, x.shape[-1])

    @property
    def elements(self) -> int:
        """How many a window has."""
        return int(np.prod(self.sizes, dtype=np.int64))

    @property
    def window_axes(self) -> tuple[int, ...]:
        """Where the elements of windows stand."""
        count = len(self.sizes)
        return tuple(range(1 + count, 1 + 2 * count))

    def like(self, make: Callable[..., Op], *more: Any) -> Op:
        """Another op on the same windows."""
        return make(self.sizes, self.strides, self.dilations, self.low, self.high, *more)

    def bound(self, bind: Callable[[Any], Any], *more: Any) -> Op:
        low, high = tuple(map(bind, self.low)), tuple(map(bind, self.high))
        return type(self)(self.sizes, self.strides, self.dilations, low, high, *more)

    def windows(self, x: Node, value: Node) -> Node:
        """The windows of x between ``value``s."""
        rows = zip(x.shape[1:-1], self.low, self.high, strict=True)
        padded = fit(x, 1, [size + low + high for size, low, high in rows], self.low, value)
        return apply(Windows(1, self.sizes, self.strides, self.dilations), padded)

    def windows_of(self, x: Array, value: Any) -> Array:
        """:meth:`windows` by NumPy, with the elements of a window as one axis behind the channels."""
        low, high = ints(self.low), ints(self.high)
        padded = np.pad(x, [(0, 0), *zip(low, high, strict=True), (0, 0)], constant_values=value)
        found = Windows(1, self.sizes, self.strides, self.dilations).reference(padded)
        found = np.moveaxis(found, self.window_axes, range(-len(self.sizes), 0))
        return found.reshape(*found.shape[: found.ndim - len(self.sizes)], self.elements)

    def numbers(self, shape: Shape) -> Node:
        """The number of each element of a window, at the windows' shape."""
        count = len(self.sizes)
        ahead, behind = shape[: 1 + count], shape[1 + 2 * count :]
        each = reshape(iota((self.elements,), 0, "int32"), (*(1 for _ in ahead), *self.sizes, *(1 for _ in behind)))
        return broadcast_to(each, shape)


Row = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]

CASES: tuple[Row, ...] = (
    # x, sizes, strides, dilations, low, high
    ((2, 5, 4, 3), (2, 2), (2, 2), (1, 1), (0, 0), (0, 0)),
    ((2, 5, 7, 3), (3, 2), (2, 1), (1, 1), (1, 0), (1, 1)),
    ((1, 7, 2), (3,), (1,), (2,), (1,), (2,)),
    ((0, 4, 2), (3,), (1,), (1,), (0,), (0,)),
)


def cases_of(cls: type[Pool], dtype: DType = f32, *more: Any) -> list[Case]:
    """Good cases of an op, whose further attributes are ``more``."""
    return [Case(cls(*row, *more), (TensorType(dtype, x),)) for x, *row in CASES]  # pyright: ignore[reportArgumentType]


def bad_cases_of(cls: type[Pool], *more: Any) -> list[BadCase]:
    """Windows that must be refused by it."""

    def bad(error: type[Exception], says: tuple[str, ...], *row: Any, x: Shape = (2, 5, 3)) -> BadCase:
        return BadCase(cls(*row, *more), (TensorType(f32, x),), error, (cls.name, *says))

    return [
        bad(ShapeError, ("over 6", "into 5"), (6,), (1,), (1,), (0,), (0,)),
        bad(ShapeError, ("x has 3 axes", "needs 4"), (2, 2), (1, 1), (1, 1), (0, 0), (0, 0)),
        bad(AxisError, ("strides",), (2,), (0,), (1,), (0,), (0,)),
        bad(AxisError, ("low and high",), (2,), (1,), (1,), (), (0,)),
    ]


def at_windows(x: Node, count: int) -> Node:
    """A value for each window beside the elements of windows."""
    return reshape(x, (*x.shape[: 1 + count], *(1 for _ in range(count)), x.shape[-1]))


def window_of(
    x: Node,
    sizes: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: str | Sequence[Any],
    dilations: int | Sequence[int],
) -> tuple[Any, ...]:
    """The attributes of a pooling."""
    count = x.ndim - 2
    if count < 1:
        raise ShapeError(f"x has {x.ndim} axes", remedy="give x (batch, *sizes, channels)")
    window, apart = for_each("sizes", sizes, count), for_each("dilations", dilations, count)
    steps = window if strides is None else for_each("strides", strides, count)
    return (window, steps, apart, *paddings(padding, x.shape[1:-1], window, steps, apart))


__all__: list[str] = []
