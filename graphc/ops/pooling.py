"""Pooling over windows with the channels last: the largest element, or the mean.

The gradient of a largest element goes to one place, the first that holds it. Which one that is, is found once, as an
integer; to take values from these places and to put them there are each other's derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    Absent,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    explaining,
    ints,
    op_class,
    require_dtype,
)
from graphc.ops.compare import equal, isnan, where
from graphc.ops.convolution import paddings
from graphc.ops.create import iota
from graphc.ops.logic import logical_or
from graphc.ops.movement import broadcast_to, reshape
from graphc.ops.reduction import Max, Min, Reduce, Sum
from graphc.ops.windows import FoldWindows, Windows, check_steps, fit, for_each, spread_windows, window_counts

f32 = DType.float32
i32 = DType.int32


@dataclass(frozen=True, eq=False, repr=False)
class _Pool(Op):
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


_Row = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]

_CASES: tuple[_Row, ...] = (
    # x, sizes, strides, dilations, low, high
    ((2, 5, 4, 3), (2, 2), (2, 2), (1, 1), (0, 0), (0, 0)),
    ((2, 5, 7, 3), (3, 2), (2, 1), (1, 1), (1, 0), (1, 1)),
    ((1, 7, 2), (3,), (1,), (2,), (1,), (2,)),
    ((0, 4, 2), (3,), (1,), (1,), (0,), (0,)),
)
_TIES = ((1, 1, 0, 2), (1, 0, 2, 2), (0, 1, -np.inf, -np.inf), (0, 3, -np.inf, -np.inf))
_IN_SPACE: _Row = ((2, 3, 4, 3, 2), (2, 2, 2), (1, 2, 1), (1, 1, 1), (0, 0, 1), (0, 0, 0))


def _rows(cls: type[_Pool], dtype: DType = f32, *more: Any) -> list[Case]:
    return [Case(cls(*row, *more), (TensorType(dtype, x),)) for x, *row in _CASES]  # pyright: ignore[reportArgumentType]


def _bad_rows(cls: type[_Pool], *more: Any) -> list[BadCase]:
    def bad(error: type[Exception], says: tuple[str, ...], *row: Any, x: Shape = (2, 5, 3)) -> BadCase:
        return BadCase(cls(*row, *more), (TensorType(f32, x),), error, (cls.name, *says))

    return [
        bad(ShapeError, ("over 6", "into 5"), (6,), (1,), (1,), (0,), (0,)),
        bad(ShapeError, ("x has 3 axes", "needs 4"), (2, 2), (1, 1), (1, 1), (0, 0), (0, 0)),
        bad(AxisError, ("strides",), (2,), (0,), (1,), (0,), (0,)),
        bad(AxisError, ("low and high",), (2,), (1,), (1,), (), (0,)),
    ]


@op_class
class MaxPool(_Pool):
    """The largest element of each window; NaN wins. Its gradient goes to the first place that holds it.

    Attributes:
        sizes, strides, dilations, low, high: see above; a padding is never the largest, unless it is all there is.

    Shapes: x (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html
    """

    onnx = "MaxPool"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, NUMBERS)
        return TensorType(x.dtype, self.outputs(x))

    def reference(self, x: Array) -> Array:
        return self.windows_of(x, Reduce.identity("max", DType(x.dtype.name))).max(axis=-1)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        lowest = constant(Reduce.identity("max", x.dtype), x.dtype)
        return apply(Max(self.window_axes, False), self.windows(x, lowest))

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        return self.bound(bind)

    def _place(self, x: Node) -> Node:
        return apply(self.like(MaxPoolPlace), x)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        put = self.like(PutAtPlaces, x.shape[1:-1])
        return (apply(put, cotangent, self._place(x)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (dx,) = tangents
        take = self.like(TakeFromPlaces)
        return None if dx is None else apply(take, dx, self._place(node.args[0]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Windows apart, overlapping, with holes and padding; equal elements; integers; no images."""
        tied = Case(cls((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), (np.array(_TIES, np.float32).reshape(1, 4, 4, 1),))
        others = [_rows(cls, dtype)[2] for dtype in (*INTEGERS, DType.bfloat16)]
        x, *row = _IN_SPACE
        space = Case(cls(*row), (TensorType(f32, x),))  # pyright: ignore[reportArgumentType]
        return [*_rows(cls), space, *others, Case(tied.op, tied.operands, differentiable=False)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A window that does not fit, axes too few, attributes missing, bools."""
        op, bools = cls((2,), (1,), (1,), (0,), (0,)), TensorType(DType.bool, (2, 5, 3))
        return [*_bad_rows(cls), BadCase(op, (bools,), DTypeError, ("max_pool", "bool", "float32"))]


@op_class
class MaxPoolPlace(_Pool):
    """The number of the first largest element in each window, counted along the axes in order, as int32.

    Attributes:
        sizes, strides, dilations, low, high: those of the pooling.

    Shapes: x (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for bool.
    Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html, its second output, within windows.
    """

    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, NUMBERS)
        return TensorType(i32, self.outputs(x))

    def reference(self, x: Array) -> Array:
        return self.windows_of(x, Reduce.identity("max", DType(x.dtype.name))).argmax(axis=-1).astype(np.int32)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        lowest = constant(Reduce.identity("max", x.dtype), x.dtype)
        elements = self.windows(x, lowest)
        largest = apply(Max(self.window_axes, True), elements)
        hit = equal(elements, largest)
        if x.dtype.is_float:
            hit = logical_or(hit, isnan(elements))
        return apply(Min(self.window_axes, False), where(hit, self.numbers(elements.shape), self.elements))

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        return self.bound(bind)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the pooling; equal elements and NaN."""
        whole = [_rows(cls, dtype)[2] for dtype in (DType.int64, DType.bfloat16)]
        tied = np.array([*_TIES, (1, np.nan, 0, 5), (2, np.nan, np.nan, 5)], np.float32).reshape(1, 6, 4, 1)
        return [*_rows(cls), *whole, Case(cls((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), (tied,))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A window that does not fit, axes too few, attributes missing."""
        return _bad_rows(cls)


@op_class
class TakeFromPlaces(_Pool):
    """Of each window the element whose number is given.

    Attributes:
        sizes, strides, dilations, low, high: those of the windows; what is taken of a padding is 0.

    Shapes: x (batch, *sizes, channels), place (batch, *windows, channels) of int32 -> (batch, *windows, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool2d.html, its transpose.
    """

    operands = ("x", "place")

    def infer(self, *types: TensorType) -> TensorType:
        x, place = types
        require_dtype(x, FLOATS, "x")
        require_dtype(place, (i32,), "place")
        shape = self.outputs(x)
        if place.shape != shape:
            raise ShapeError(f"place is {place}, there are windows {shape}", remedy="give a place for each window")
        return TensorType(x.dtype, shape)

    def reference(self, x: Array, place: Array) -> Array:
        return np.take_along_axis(self.windows_of(x, 0), place[..., None], -1)[..., 0]

    def decompose(self, *args: Node) -> Node:
        x, place = args
        elements = self.windows(x, constant(0, x.dtype))
        hit = equal(_at_windows(place, len(self.sizes)), self.numbers(elements.shape))
        return apply(Sum(self.window_axes, False), where(hit, elements, 0))

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        return self.bound(bind)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, place = node.args
        return (apply(self.like(PutAtPlaces, x.shape[1:-1]), cotangent, place), None)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], node.args[1])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the pooling, with any places."""
        found: list[Case] = []
        for case in _rows(cls):
            op = case.op
            assert isinstance(op, _Pool)
            found.append(Case(op, (case.operands[0], _places(op, op.outputs(case.operands[0])))))
        return found

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Places of another shape or type."""
        op, x = cls((2,), (2,), (1,), (0,), (0,)), TensorType(f32, (2, 4, 3))
        return (
            BadCase(op, (x, TensorType(i32, (2, 4, 3))), ShapeError, ("take_from_places", "each window")),
            BadCase(op, (x, TensorType(DType.int64, (2, 2, 3))), DTypeError, ("take_from_places", "int64")),
        )


@op_class
class PutAtPlaces(_Pool):
    """The value of each window added to its element whose number is given: the transpose of :class:`TakeFromPlaces`.

    Attributes:
        sizes, strides, dilations, low, high: those of the windows.
        inside: the sizes of the result; what falls into the padding is left out.

    Shapes: g and place (batch, *windows, channels), place of int32 -> (batch, *inside, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool2d.html
    """

    inside: tuple[Size, ...]

    operands = ("g", "place")

    def infer(self, *types: TensorType) -> TensorType:
        g, place = types
        require_dtype(g, FLOATS, "g")
        require_dtype(place, (i32,), "place")
        whole = TensorType(g.dtype, (g.shape[0], *self.inside, g.shape[-1]))
        shape = self.outputs(whole)
        for name, type in (("g", g), ("place", place)):
            if type.shape != shape:
                raise ShapeError(f"{name} is {type}, there are windows {shape}", remedy="give one for each window")
        return whole

    def reference(self, g: Array, place: Array) -> Array:
        numbers = np.arange(self.elements).reshape(*self.sizes, 1)
        count = len(self.sizes)
        spread = (g.shape[0], *g.shape[1:-1], *(1 for _ in self.sizes), g.shape[-1])
        parts = np.where(place.reshape(spread) == numbers, g.reshape(spread), g.dtype.type(0))
        assert parts.ndim == 2 + 2 * count
        return FoldWindows(1, self.inside, self.strides, self.dilations, self.low).reference(parts)

    def decompose(self, *args: Node) -> Node:
        g, place = args
        if self.sizes == self.strides and max(self.dilations) == 1 and all(low == 0 for low in self.low):
            count = len(self.sizes)
            shape = (*g.shape[: 1 + count], *self.sizes, g.shape[-1])
            hit = equal(_at_windows(place, count), self.numbers(shape))
            parts = where(hit, _at_windows(g, count), 0)
            return apply(FoldWindows(1, self.inside, self.strides, self.dilations, self.low), parts)
        given, chosen = (
            spread_windows(node, 1, self.inside, self.sizes, self.strides, self.dilations, self.low, value)
            for node, value in ((g, constant(0, g.dtype)), (place, constant(-1, "int32")))
        )
        backwards = self.elements - 1 - self.numbers(given.shape)
        return apply(Sum(self.window_axes, False), where(equal(chosen, backwards), given, 0))

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        return self.bound(bind, tuple(map(bind, self.inside)))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (apply(self.like(TakeFromPlaces), cotangent, node.args[1]), None)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], node.args[1])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the pooling, with any places."""
        found: list[Case] = []
        for x, *row in _CASES:
            sizes, strides, dilations, low, high = row
            op = cls(sizes, strides, dilations, low, high, x[1:-1])
            shape = op.outputs(TensorType(f32, x))
            found.append(Case(op, (TensorType(f32, shape), _places(op, shape))))
        return found

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Windows that are too few, places of another type."""
        op, g = cls((2,), (2,), (1,), (0,), (0,), (4,)), TensorType(f32, (2, 2, 3))
        return (
            BadCase(op, (TensorType(f32, (2, 1, 3)), TensorType(i32, (2, 2, 3))), ShapeError, ("put_at_places", "g")),
            BadCase(op, (g, TensorType(DType.int64, (2, 2, 3))), DTypeError, ("put_at_places", "int64")),
        )


def _places(op: _Pool, shape: Shape) -> Array:
    sizes = ints(shape)
    return (np.arange(int(np.prod(sizes))).reshape(sizes) * 7 % op.elements).astype(np.int32)


def _at_windows(x: Node, count: int) -> Node:
    """A value for each window beside the elements of windows."""
    return reshape(x, (*x.shape[: 1 + count], *(1 for _ in range(count)), x.shape[-1]))


@op_class
class AveragePool(_Pool):
    """The mean of each window.

    Attributes:
        sizes, strides, dilations, low, high: see above.
        counts_padding: whether the zeros around x are elements like others, or none.

    Shapes: x (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for integers and bool.
    Source: https://onnx.ai/onnx/operators/onnx__AveragePool.html
    """

    counts_padding: bool

    onnx = "AveragePool"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        require_dtype(x, FLOATS)
        return TensorType(x.dtype, self.outputs(x))

    def reference(self, x: Array) -> Array:
        total = self.windows_of(x, 0).sum(axis=-1)
        if self.counts_padding:
            return total / x.dtype.type(self.elements)
        return total / self.windows_of(np.ones((1, *x.shape[1:-1], 1), x.dtype), 0).sum(axis=-1)

    def decompose(self, *args: Node) -> Node:
        (x,) = args
        total = apply(Sum(self.window_axes, False), self.windows(x, constant(0, x.dtype)))
        return total / self._divisor(x)

    def _divisor(self, x: Node) -> Node:
        """How many elements each window has."""
        if self.counts_padding or all(count == 0 for count in (*self.low, *self.high)):
            return constant(float(self.elements), x.dtype)
        counts = self.outputs(TensorType(x.dtype, (1, *x.shape[1:-1], 1)))
        if all(isinstance(size, int) for size in (*x.shape[1:-1], *self.low, *self.high)):
            ones = np.ones((1, *ints(x.shape[1:-1]), 1), np.float64)
            return constant(self.windows_of(ones, 0).sum(axis=-1).astype(x.dtype.numpy), x.dtype)
        ones = broadcast_to(constant(1.0, x.dtype), (1, *x.shape[1:-1], 1))
        found = apply(Sum(self.window_axes, False), self.windows(ones, constant(0, x.dtype)))
        return reshape(found, counts)

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        return self.bound(bind, self.counts_padding)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        (x,) = node.args
        share = cotangent / self._divisor(x)
        inside = x.shape[1:-1]
        if self.sizes == self.strides and max(self.dilations) == 1 and all(low == 0 for low in self.low):
            count = len(self.sizes)
            parts = broadcast_to(_at_windows(share, count), (*share.shape[:-1], *self.sizes, share.shape[-1]))
            return (apply(FoldWindows(1, inside, self.strides, self.dilations, self.low), parts),)
        given = spread_windows(share, 1, inside, self.sizes, self.strides, self.dilations, self.low)
        return (apply(Sum(self.window_axes, False), given),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Windows apart, overlapping, with holes and padding that counts and does not."""
        return [*_rows(cls, f32, False), _rows(cls, f32, True)[1]]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A window that does not fit, axes too few, attributes missing, integers."""
        op, whole = cls((2,), (1,), (1,), (0,), (0,), False), TensorType(DType.int64, (2, 5, 3))
        return [*_bad_rows(cls, False), BadCase(op, (whole,), DTypeError, ("average_pool", "int64", "float32"))]


def max_pool(
    x: Operand,
    sizes: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[Any] = "valid",
    dilations: int | Sequence[int] = 1,
) -> Node:
    """The largest element of each window, along all axes between the batch and the channels.

    Args:
        x: channels last.
        sizes: of a window.
        strides: how far the next window is; by default a window's size.
        padding: "valid" for none, "same" for as many windows as elements (divided by the stride), or numbers as in
            ``gx.conv``; a padding is never the largest.
        dilations: how far the elements of a window stand apart.

    Shapes: (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError; DTypeError for bool.
    Source: Keras ``ops.max_pool``; https://onnx.ai/onnx/operators/onnx__MaxPool.html

    >>> import graphc as gx
    >>> gx.max_pool(gx.placeholder("x", ("n", 28, 28, 6)), 2)
    <max_pool: f32[n, 14, 14, 6]>
    """
    node = as_node(x)
    with explaining("max_pool", node):
        return apply(MaxPool(*_window(node, sizes, strides, padding, dilations)), node)


def average_pool(
    x: Operand,
    sizes: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: str | Sequence[Any] = "valid",
    counts_padding: bool = False,
) -> Node:
    """The mean of each window, along all axes between the batch and the channels.

    Args:
        x: channels last.
        sizes: of a window.
        strides: how far the next window is; by default a window's size.
        padding: "valid" for none, "same" for as many windows as elements (divided by the stride), or numbers as in
            ``gx.conv``.
        counts_padding: whether the zeros of the padding count.

    Shapes: (batch, *sizes, channels) -> (batch, *windows, channels).
    Raises: ShapeError; AxisError; DTypeError for integers and bool.
    Source: Keras ``ops.average_pool``; https://onnx.ai/onnx/operators/onnx__AveragePool.html

    >>> import graphc as gx
    >>> gx.average_pool(gx.placeholder("x", ("n", 28, 28, 6)), 3, strides=2, padding="same")
    <average_pool: f32[n, 14, 14, 6]>
    """
    node = as_node(x)
    with explaining("average_pool", node):
        window, steps, apart, low, high = _window(node, sizes, strides, padding, 1)
        return apply(AveragePool(window, steps, apart, low, high, counts_padding), node)


def _window(
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


__all__ = [
    "AveragePool", "MaxPool", "MaxPoolPlace", "PutAtPlaces", "TakeFromPlaces", "average_pool", "max_pool",
]  # fmt: skip
