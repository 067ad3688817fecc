"""Pooling over windows with the channels last: the largest element.

The gradient of a largest element goes to one place, the first that holds it. Which one that is, is found once, as an
integer; to take values from these places and to put them there are each other's derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
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
from graphc.ops.logic import logical_or
from graphc.ops.pooled import CASES, Pool, Row, at_windows, bad_cases_of, cases_of, window_of
from graphc.ops.reduction import Max, Min, Reduce, Sum
from graphc.ops.windows import FoldWindows, spread_windows

f32 = DType.float32
i32 = DType.int32


_TIES = ((1, 1, 0, 2), (1, 0, 2, 2), (0, 1, -np.inf, -np.inf), (0, 3, -np.inf, -np.inf))
_IN_SPACE: Row = ((2, 3, 4, 3, 2), (2, 2, 2), (1, 2, 1), (1, 1, 1), (0, 0, 1), (0, 0, 0))


@op_class
class MaxPool(Pool):
    """The largest element of each window; NaN wins. Its gradient goes to the first place that holds it.

    Attributes:
        sizes, strides, dilations, low, high: see :class:`Pool`. No padding is the largest, unless all is padding.

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
        others = [cases_of(cls, dtype)[2] for dtype in (*INTEGERS, DType.bfloat16)]
        x, *row = _IN_SPACE
        space = Case(cls(*row), (TensorType(f32, x),))  # pyright: ignore[reportArgumentType]
        return [*cases_of(cls), space, *others, Case(tied.op, tied.operands, differentiable=False)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A window that does not fit, axes too few, attributes missing, bools."""
        op, bools = cls((2,), (1,), (1,), (0,), (0,)), TensorType(DType.bool, (2, 5, 3))
        return [*bad_cases_of(cls), BadCase(op, (bools,), DTypeError, ("max_pool", "bool", "float32"))]


@op_class
class MaxPoolPlace(Pool):
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
        whole = [cases_of(cls, dtype)[2] for dtype in (DType.int64, DType.bfloat16)]
        tied = np.array([*_TIES, (1, np.nan, 0, 5), (2, np.nan, np.nan, 5)], np.float32).reshape(1, 6, 4, 1)
        return [*cases_of(cls), *whole, Case(cls((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), (tied,))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A window that does not fit, axes too few, attributes missing."""
        return bad_cases_of(cls)


@op_class
class TakeFromPlaces(Pool):
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
        hit = equal(at_windows(place, len(self.sizes)), self.numbers(elements.shape))
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
        for case in cases_of(cls):
            op = case.op
            assert isinstance(op, Pool)
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
class PutAtPlaces(Pool):
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
            hit = equal(at_windows(place, count), self.numbers(shape))
            parts = where(hit, at_windows(g, count), 0)
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
        for x, *row in CASES:
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


def _places(op: Pool, shape: Shape) -> Array:
    sizes = ints(shape)
    return (np.arange(int(np.prod(sizes))).reshape(sizes) * 7 % op.elements).astype(np.int32)


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
        return apply(MaxPool(*window_of(node, sizes, strides, padding, dilations)), node)


__all__ = ["MaxPool", "MaxPoolPlace", "PutAtPlaces", "TakeFromPlaces", "max_pool"]
