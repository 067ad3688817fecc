"""Windows: the parts of tensors that convolutions and poolings look at, and the sums that lead back.

``windows`` only names elements anew, so that nothing is copied: kernels read overlapping parts of one buffer. What goes
back (``fold_windows``) asks for each element which windows it stands in and adds them up in a fixed order; nothing is
scattered, so that results are the same bits at every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size, least, maximum
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
    NUMBERS,
    Array,
    Axis,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_int,
    as_node,
    explaining,
    ints,
    normalize_axes,
    op_class,
    require_dtype,
)
from graphc.ops.movement import broadcast_to, reshape, shown, transpose
from graphc.ops.padding import Pad
from graphc.ops.reduction import Sum
from graphc.ops.slicing import take_range

f32 = DType.float32


def spans(sizes: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """How far windows reach: from their first element to behind their last one."""
    return tuple((size - 1) * step + 1 for size, step in zip(sizes, dilations, strict=True))


def check_steps(count: int, **attributes: Sequence[int]) -> None:
    """Refuse attributes that have not one whole number from 1 on for each of ``count`` axes.

    Raises:
        AxisError: names the attribute.
    """
    for name, values in attributes.items():
        numbers = [as_int(value) for value in values]
        if len(values) != count or any(number is None or number < 1 for number in numbers):
            raise AxisError(f"{name} is {tuple(values)}", remedy=f"give {count} whole numbers from 1 on")


def window_counts(x: Sequence[Size], sizes: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Shape:
    """How many windows lie along each axis.

    Raises:
        ShapeError: an axis is shorter than a window.
    """
    counts: list[Size] = []
    for size, span, stride in zip(x, spans(sizes, dilations), strides, strict=True):
        if isinstance(size, int) and size < span:
            raise ShapeError(
                f"a window that reaches over {span} elements does not fit into {size}",
                remedy="take smaller windows, or pad first",
            )
        counts.append((size - span) // stride + 1)
    return tuple(counts)


@op_class
class Windows(Op):
    """Overlapping parts: element k of window o along an axis is element ``o * stride + k * dilation`` of x.

    Shapes: the axes from ``axis`` on, one for each size, become as many that count windows, and then the sizes.
    Raises: AxisError for attributes that do not fit; ShapeError for an axis shorter than a window.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html
    """

    axis: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        first, last = self.axis, self.axis + len(self.sizes)
        check_steps(len(self.sizes), sizes=self.sizes, strides=self.strides, dilations=self.dilations)
        if first < 0 or last > x.rank:
            raise AxisError(f"axes {first} to {last - 1} do not all exist", remedy=f"x has {x.rank} axes")
        counts = window_counts(x.shape[first:last], self.sizes, self.strides, self.dilations)
        return TensorType(x.dtype, (*x.shape[:first], *counts, *self.sizes, *x.shape[last:]))

    def reference(self, x: Array) -> Array:
        count = len(self.sizes)
        axes = tuple(range(self.axis, self.axis + count))
        if not axes:
            return x
        reach = spans(self.sizes, self.dilations)
        sizes = x.shape[self.axis : self.axis + count]
        if any(size < span for size, span in zip(sizes, reach, strict=True)):  # sizes with names may leave no window
            counts = [max((n - span) // step + 1, 0) for n, span, step in zip(sizes, reach, self.strides, strict=True)]
            return np.zeros((*x.shape[: self.axis], *counts, *self.sizes, *x.shape[self.axis + count :]), x.dtype)
        every = np.lib.stride_tricks.sliding_window_view(x, reach, axes)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]
        chosen: list[slice] = [slice(None)] * every.ndim
        for place, axis in enumerate(axes):
            chosen[axis] = slice(None, None, self.strides[place])
            chosen[x.ndim + place] = slice(None, None, self.dilations[place])
        ends = tuple(range(x.ndim, x.ndim + count))
        return np.moveaxis(every[tuple(chosen)], ends, tuple(axis + count for axis in axes))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        sizes = x.shape[self.axis : self.axis + len(self.sizes)]
        return (apply(FoldWindows(self.axis, sizes, self.strides, self.dilations, (0,) * len(sizes)), cotangent),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """One to three axes, apart, touching and overlapping, with holes, of size 1; no elements; every type."""

        def case(shape: Shape, axis: int, sizes: Shape, strides: Shape, dilations: Shape, dtype: DType = f32) -> Case:
            return Case(cls(axis, ints(sizes), ints(strides), ints(dilations)), (TensorType(dtype, shape),))

        return (
            case((7,), 0, (3,), (1,), (1,)), case((2, 8, 3), 1, (3,), (2,), (2,)), case((7,), 0, (2,), (3,), (1,)),
            case((2, 5, 6, 3), 1, (2, 3), (1, 2), (1, 1)), case((2, 7, 5, 2), 1, (3, 1), (2, 1), (2, 1)),
            case((3, 4, 4), 0, (2, 2, 2), (1, 2, 1), (1, 1, 2)), case((0, 5, 2), 1, (3,), (1,), (1,)),
            case((3,), 0, (), (), ()),
            *(case((5, 2), 0, (2,), (2,), (1,), dtype) for dtype in DType if dtype is not f32),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Windows longer than the axis, axes beyond the last, a stride of 0."""
        x = (TensorType(f32, (2, 5)),)
        return (
            BadCase(cls(1, (3,), (1,), (3,)), x, ShapeError, ("windows", "over 7", "into 5", "pad")),
            BadCase(cls(1, (2, 2), (1, 1), (1, 1)), x, AxisError, ("windows", "1 to 2", "2 axes")),
            BadCase(cls(1, (2,), (0,), (1,)), x, AxisError, ("windows", "strides", "1 whole numbers")),
        )


@op_class
class ShiftWindows(Op):
    """Windows with their elements brought side by side: element k of row i is element k of row ``i + far * dilation``.

    ``far`` is k, or, with ``back``, the number of elements behind k. It is what makes a sum of overlapping windows a
    sum along an axis.

    Shapes: the axes from ``axis`` on count rows, as many behind them the elements of windows; rows become fewer by
    (size - 1) * dilation.
    Raises: AxisError for attributes that do not fit; ShapeError for too few rows.
    Source: graphc's own; the index map of NumPy's ``diagonal``, for each diagonal of a band.
    """

    axis: int
    dilations: tuple[int, ...]
    back: bool

    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        count = len(self.dilations)
        check_steps(count, dilations=self.dilations)
        if self.axis < 0 or self.axis + 2 * count > x.rank:
            raise AxisError(f"{2 * count} axes from {self.axis} on do not all exist", remedy=f"x has {x.rank} axes")
        sizes = ints(x.shape[self.axis + count : self.axis + 2 * count])
        rows = window_counts(x.shape[self.axis : self.axis + count], sizes, (1,) * count, self.dilations)
        return TensorType(x.dtype, (*x.shape[: self.axis], *rows, *x.shape[self.axis + count :]))

    def reference(self, x: Array) -> Array:
        for place, dilation in enumerate(self.dilations):
            rows, elements = self.axis + place, self.axis + len(self.dilations) + place
            size = x.shape[elements]
            count = x.shape[rows] - (size - 1) * dilation
            parts: list[Array] = []
            for k in range(size):
                start = ((size - 1 - k) if self.back else k) * dilation
                parts.append(np.take(np.take(x, k, elements), range(start, start + count), rows))
            x = np.stack(parts, elements)
        return x

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x = node.args[0]
        around = [0] * x.ndim
        for place, dilation in enumerate(self.dilations):
            (size,) = ints((x.shape[self.axis + len(self.dilations) + place],))
            around[self.axis + place] = (size - 1) * dilation
        padded = apply(Pad(tuple(around), tuple(around), (0,) * x.ndim), cotangent, constant(0, x.dtype))
        return (apply(ShiftWindows(self.axis, self.dilations, not self.back), padded),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both directions, one axis and two, with holes, single elements, no elements, every type."""

        def case(shape: Shape, axis: int, dilations: tuple[int, ...], back: bool, dtype: DType = f32) -> Case:
            return Case(cls(axis, dilations, back), (TensorType(dtype, shape),))

        return (
            case((5, 3), 0, (1,), False), case((5, 3), 0, (1,), True), case((2, 7, 3, 2), 1, (2,), True),
            case((2, 5, 6, 2, 3, 2), 1, (2, 1), False), case((4, 1), 0, (3,), True), case((0, 4, 2), 1, (1,), True),
            *(case((4, 2), 0, (1,), True, dtype) for dtype in DType if dtype is not f32),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Too few rows, axes beyond the last."""
        x = (TensorType(f32, (2, 5)),)
        return (
            BadCase(cls(0, (1,), False), x, ShapeError, ("shift_windows", "over 5", "into 2")),
            BadCase(cls(1, (1,), False), x, AxisError, ("shift_windows", "from 1", "2 axes")),
        )


@op_class
class FoldWindows(Op):
    """The sum of all windows at the places that they were read from: the transpose of :class:`Windows`.

    Element i is the sum of elements k of windows o where ``o * stride + k * dilation`` is ``i + low``.

    Attributes:
        sizes: of the result along the axes.
        low: how many elements of a padding stand before the result; they are left out.

    Shapes: the axes from ``axis`` on, one for each size, that count windows and as many behind them with the elements
    of windows become the sizes.
    Raises: AxisError for attributes that do not fit; DTypeError for bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Fold.html
    """

    axis: int
    sizes: tuple[Size, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]

    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, NUMBERS)
        count = len(self.sizes)
        check_steps(count, strides=self.strides, dilations=self.dilations)
        if self.axis < 0 or self.axis + 2 * count > x.rank:
            raise AxisError(f"{2 * count} axes from {self.axis} on do not all exist", remedy=f"x has {x.rank} axes")
        return TensorType(x.dtype, (*x.shape[: self.axis], *self.sizes, *x.shape[self.axis + 2 * count :]))

    def reference(self, x: Array) -> Array:
        count, axis = len(self.sizes), self.axis
        counts, sizes = x.shape[axis : axis + count], x.shape[axis + count : axis + 2 * count]
        low, inside = ints(self.low), ints(self.sizes)
        reach = [
            max((n - 1) * s + span, start + size, 0)
            for n, s, span, start, size in zip(
                counts, self.strides, spans(sizes, self.dilations), low, inside, strict=True
            )
        ]
        total = np.zeros((*x.shape[:axis], *reach, *x.shape[axis + 2 * count :]), x.dtype)
        ahead = (slice(None),) * axis
        for k in np.ndindex(*sizes):
            starts = [place * dilation for place, dilation in zip(k, self.dilations, strict=True)]
            there = tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, counts, self.strides, strict=True))
            if 0 not in counts:
                total[(*ahead, *there)] += x[(*ahead, *(slice(None),) * count, *k)]
        return total[(*ahead, *(slice(a, a + n) for a, n in zip(low, inside, strict=True)))]

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        count, axis = len(self.sizes), self.axis
        sizes = ints(x.shape[axis + count : axis + 2 * count])
        if self._is_apart(sizes):
            return self._side_by_side(x, sizes)
        spread = _spread(x, axis, self.sizes, sizes, self.strides, self.dilations, self.low, constant(0, x.dtype))
        aligned = apply(ShiftWindows(axis, self.dilations, True), spread)
        return apply(Sum(tuple(range(axis + count, axis + 2 * count)), False), aligned)

    def _is_apart(self, sizes: Sequence[int]) -> bool:
        """Does each element stand in at most one window, and each window touch the next one?"""
        touching = all(
            size == stride and (dilation == 1 or size == 1)
            for size, stride, dilation in zip(sizes, self.strides, self.dilations, strict=True)
        )
        return touching and all(low == 0 for low in self.low)

    def _side_by_side(self, x: Node, sizes: Sequence[int]) -> Node:
        count, axis = len(sizes), self.axis
        rest = tuple(range(axis + 2 * count, x.ndim))
        pairs = tuple(place for a in range(axis, axis + count) for place in (a, a + count))
        joined = transpose(x, (*range(axis), *pairs, *rest))
        covered = tuple(n * size for n, size in zip(x.shape[axis : axis + count], sizes, strict=True))
        flat = reshape(joined, (*x.shape[:axis], *covered, *x.shape[axis + 2 * count :]))
        return fit(flat, axis, self.sizes)

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return FoldWindows(
            self.axis, tuple(map(bind, self.sizes)), self.strides, self.dilations, tuple(map(bind, self.low))
        )

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x = node.args[0]
        count, axis = len(self.sizes), self.axis
        sizes = ints(x.shape[axis + count : axis + 2 * count])
        reach = tuple(
            (n - 1) * s + span
            for n, s, span in zip(x.shape[axis : axis + count], self.strides, spans(sizes, self.dilations), strict=True)
        )
        padded = fit(cotangent, axis, reach, self.low)
        return (apply(Windows(axis, sizes, self.strides, self.dilations), padded),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Windows apart, touching, overlapping, with holes and in front; elements that none holds; no elements."""

        def case(
            shape: Shape, axis: int, sizes: Shape, strides: Shape, dilations: Shape, low: Shape, dtype: DType = f32
        ) -> Case:
            return Case(cls(axis, sizes, ints(strides), ints(dilations), low), (TensorType(dtype, shape),))

        return (
            case((5, 3), 0, (7,), (1,), (1,), (0,)), case((2, 3, 3, 2), 1, (9,), (2,), (2,), (0,)),
            case((2, 3, 2, 2), 1, (7,), (2,), (1,), (0,)), case((2, 3, 2, 2), 1, (8,), (3,), (1,), (0,)),
            case((2, 3, 4, 3, 2, 2), 1, (4, 7), (2, 2), (1, 1), (1, 0)), case((3, 2), 0, (5,), (2,), (1,), (0,)),
            case((3, 2, 3, 2), 0, (2, 2), (1, 1), (1, 1), (2, 0)), case((0, 3, 2), 1, (4,), (1,), (1,), (0,)),
            *(case((4, 2), 0, (5,), (1,), (1,), (0,), dtype) for dtype in NUMBERS if dtype is not f32),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Axes beyond the last, bools, a stride of 0."""
        x = TensorType(f32, (3, 2))
        return (
            BadCase(cls(1, (4,), (1,), (1,), (0,)), (x,), AxisError, ("fold_windows", "from 1", "2 axes")),
            BadCase(cls(0, (4,), (0,), (1,), (0,)), (x,), AxisError, ("fold_windows", "strides")),
            BadCase(
                cls(0, (4,), (1,), (1,), (0,)), (TensorType(DType.bool, (3, 2)),), DTypeError, ("fold_windows", "bool")
            ),
        )


def fit(
    x: Node, axis: int, totals: Sequence[Size], low: Sequence[Size] | None = None, value: Node | None = None
) -> Node:
    """``x`` behind ``low`` further elements, padded or cut at the end to ``totals`` along the axes from ``axis`` on.

    A negative ``low`` leaves out elements.
    """
    return _stretch(x, axis, totals, low or (0,) * len(totals), (0,) * len(totals), value)


def _stretch(
    x: Node, axis: int, totals: Sequence[Size], low: Sequence[Size], interior: Sequence[int], value: Node | None
) -> Node:
    before, after, between = [0] * x.ndim, [0] * x.ndim, [0] * x.ndim
    starts: list[Size] = []
    for place, (total, start, inner) in enumerate(zip(totals, low, interior, strict=True), axis):
        size = x.shape[place]
        grown = size + maximum(size - 1, 0) * inner
        cut = isinstance(start, int) and start < 0
        starts.append(-start if cut else 0)
        before[place] = 0 if cut else start  # pyright: ignore[reportArgumentType, reportCallIssue]
        missing = total - start - grown
        after[place] = missing if least(missing) >= 0 else maximum(missing, 0)  # pyright: ignore[reportArgumentType, reportCallIssue]
        between[place] = inner
    if any(count != 0 for count in (*before, *after, *between)):
        filler = constant(0, x.dtype) if value is None else value
        x = apply(Pad(tuple(before), tuple(after), tuple(between)), x, filler)
    for place, (total, start) in enumerate(zip(totals, starts, strict=True), axis):
        if start != 0 or x.shape[place] != total:
            x = take_range(x, place, start, start + total)  # that far it reaches by now
    return x


def spread_windows(
    x: Node,
    axis: int,
    sizes: Sequence[Size],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    low: Sequence[Size],
    value: Node | None = None,
) -> Node:
    """For each element of a tensor the windows that hold it: x has one value for each window.

    Place (i, k) has the value of the window whose element ``size - 1 - k`` is element ``i`` behind ``low`` elements of
    a padding, and ``value`` where there is none.

    Shapes: the axes from ``axis`` on, which count windows, become ``sizes`` and then ``window``.
    """
    filler = constant(0, x.dtype) if value is None else value
    padded = _spread(x, axis, sizes, window, strides, dilations, low, filler)
    return apply(Windows(axis, tuple(window), (1,) * len(window), tuple(dilations)), padded)


def _spread(
    x: Node,
    axis: int,
    sizes: Sequence[Size],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    low: Sequence[Size],
    value: Node,
) -> Node:
    """Windows as far apart as their first elements, so far behind the front that none begins before it."""
    reach = [span - 1 for span in spans(window, dilations)]
    totals = [size + far for size, far in zip(sizes, reach, strict=True)]
    before = [far - first for far, first in zip(reach, low, strict=True)]
    return _stretch(x, axis, totals, before, [stride - 1 for stride in strides], value)


def windows(
    x: Operand,
    sizes: int | Sequence[int],
    strides: int | Sequence[int] = 1,
    dilations: int | Sequence[int] = 1,
    axis: Axis = -1,
) -> Node:
    """All windows of these sizes along neighbouring axes; nothing is copied where kernels read them.

    Args:
        x: of any type.
        sizes: of a window, along each axis.
        strides: how far the next window is.
        dilations: how far the next element of a window is.
        axis: the axes.

    Shapes: the axes become as many that count windows, and behind them those of a window.
    Raises: AxisError; ShapeError for an axis shorter than a window.
    Source: NumPy ``sliding_window_view``, with strides and dilations.

    >>> import graphc as gx
    >>> gx.windows(gx.placeholder("x", ("n", 8, 8, 3)), (3, 3), axis=(1, 2))
    <windows: f32[n, 6, 6, 3, 3, 3]>
    """
    node = as_node(x)
    with explaining("windows", node):
        axes = normalize_axes(axis, node.ndim)
        if not axes or axes != tuple(range(axes[0], axes[-1] + 1)):
            raise AxisError(f"axes {shown(axes)} are not neighbours", remedy="transpose first")
        named = {"sizes": sizes, "strides": strides, "dilations": dilations}
        return apply(Windows(axes[0], *(for_each(name, given, len(axes)) for name, given in named.items())), node)


def for_each(name: str, given: int | Sequence[int], count: int) -> tuple[int, ...]:
    """An argument that is one number for all axes, or one for each."""
    number = as_int(given)
    values = (number,) * count if number is not None else tuple(cast("Sequence[int]", given))
    check_steps(count, **{name: values})
    return values


def repeat_over_windows(x: Node, axis: int, window: Sequence[int]) -> Node:
    """The value of each window for all of its elements."""
    count = len(window)
    ahead, behind = x.shape[: axis + count], x.shape[axis + count :]
    return broadcast_to(reshape(x, (*ahead, *(1 for _ in window), *behind)), (*ahead, *window, *behind))


__all__ = ["FoldWindows", "ShiftWindows", "Windows", "windows"]
