"""Padding: by a value, before, after and between the elements, or by what the axis holds itself.

Padding by a value is a primitive; the other modes take elements of the axis again, as ``numpy.pad`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, maximum
from graphc.ir.node import Constant, Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    add_tangents,
    as_int,
    as_node,
    explaining,
    ints,
    op_class,
    zeros_like,
)
from graphc.ops.movement import broadcast_to, each, shown
from graphc.ops.slicing import Slice

f32 = DType.float32

MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


@op_class
class Pad(Op):
    """``x`` with ``low[i]`` elements before, ``high[i]`` after and ``interior[i]`` between those of axis i.

    Shapes: x of any shape, value a scalar of the same element type; axis i grows to
    low + n + max(n - 1, 0) * interior + high.
    Raises: AxisError for counts that are negative or not one for each axis; ShapeError; DTypeError.
    Source: https://openxla.org/stablehlo/spec#pad
    """

    low: tuple[Size, ...]
    high: tuple[Size, ...]
    interior: tuple[int, ...]

    operands = ("x", "value")
    onnx = "Pad"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        x, value = types
        for name in ("low", "high", "interior"):
            counts: tuple[Size, ...] = getattr(self, name)
            if len(counts) != x.rank:
                raise AxisError(f"{name} has {len(counts)} counts", remedy=f"give one for each of the {x.rank} axes")
            if not all(isinstance(count, Dim) or as_int(count) is not None for count in counts):
                raise AxisError(f"{name} holds something that is no count: {counts}", remedy="give ints")
            if any(isinstance(count, int) and count < 0 for count in counts):
                raise AxisError(f"{name} has a negative count: {counts}", remedy="give 0 or more; cut with x[...]")
        if value.rank:
            raise ShapeError(f"the value has shape {shown(value.shape)}", remedy="give a scalar")
        if value.dtype is not x.dtype:
            raise DTypeError(f"x is {x.dtype}, the value {value.dtype}", remedy="convert with gx.cast(x, dtype)")
        rows = zip(x.shape, self.low, self.high, self.interior, strict=True)
        return TensorType(x.dtype, tuple(low + _stretched(n, inner) + high for n, low, high, inner in rows))

    def reference(self, x: Array, value: Array) -> Array:
        low, high = ints(self.low), ints(self.high)
        grown = ints(_stretched(n, inner) for n, inner in zip(x.shape, self.interior, strict=True))
        padded = np.full(np.add(np.add(low, grown), high), value, x.dtype)
        rows = zip(low, grown, self.interior, strict=True)
        inside = tuple(slice(start, start + size, inner + 1) for start, size, inner in rows)
        padded[inside] = x
        return padded

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Pad(tuple(map(bind, self.low)), tuple(map(bind, self.high)), self.interior)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        from graphc.ops.compare import where
        from graphc.ops.reduction import sum

        x, value = node.args
        stops = tuple(
            low + _stretched(n, inner) for n, low, inner in zip(x.shape, self.low, self.interior, strict=True)
        )
        dx = apply(Slice(self.low, stops, tuple(inner + 1 for inner in self.interior)), cotangent)
        if isinstance(value.op, Constant):
            return (dx, None)
        inside = apply(self, broadcast_to(constant(True), x.shape), constant(False))
        return (dx, sum(where(inside, 0.0, cotangent)))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        dx, dvalue = tangents
        if dx is None and dvalue is None:
            return None
        x = node.args[0]
        zero = constant(0, x.dtype)
        return add_tangents(
            [
                None if dx is None else apply(self, dx, zero),
                None if dvalue is None else apply(self, zeros_like(x), dvalue),
            ]
        )

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Each of the three kinds, together, on axes of size 0 and 1, and every element type."""

        def case(shape: Shape, low: Shape, high: Shape, interior: tuple[int, ...], dtype: DType = f32) -> Case:
            return Case(cls(low, high, interior), (TensorType(dtype, shape), TensorType(dtype, ())))

        rows = [
            case((3, 4), (1, 0), (0, 2), (0, 0)), case((3, 4), (0, 0), (0, 0), (2, 1)), case((3,), (1,), (2,), (1,)),
            case((0, 2), (1, 1), (0, 0), (3, 0)), case((1, 2), (0, 0), (0, 0), (5, 0)),
            case((2, 2), (0, 0), (0, 0), (0, 0)), case((), (), (), ()),
        ]  # fmt: skip
        return [*rows, *(case((2, 3), (1, 0), (0, 1), (0, 1), dtype) for dtype in DType if dtype is not f32)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Counts missing or negative, a value with axes or of another element type."""
        x, scalar = TensorType(f32, (2, 3)), TensorType(f32, ())
        good = cls((0, 0), (0, 0), (0, 0))
        return (
            BadCase(cls((0,), (0, 0), (0, 0)), (x, scalar), AxisError, ("pad", "low", "2 axes")),
            BadCase(cls((0, -1), (0, 0), (0, 0)), (x, scalar), AxisError, ("pad", "negative", "-1")),
            BadCase(good, (x, x), ShapeError, ("pad", "(2, 3)", "scalar")),
            BadCase(good, (x, TensorType(DType.float64, ())), DTypeError, ("pad", "float32", "float64")),
        )


def _stretched(size: Size, interior: int) -> Size:
    """The size of an axis with ``interior`` elements put between its own."""
    return size + maximum(size - 1, 0) * interior if interior else size


def pad(
    x: Operand,
    low: Sequence[Size],
    high: Sequence[Size],
    interior: Sequence[int] | None = None,
    value: Operand = 0,
    mode: str = "constant",
) -> Node:
    """``x`` with elements added before, after and between its own; a negative count takes elements away.

    ``mode`` says what is added: ``constant`` the value, ``edge`` the outermost element, ``reflect`` and ``symmetric``
    the axis mirrored at (behind) its outermost element, ``wrap`` the axis repeated.

    Shapes: one count for each axis of x; axis i grows to low + n + (n - 1) * interior + high.
    Raises: AxisError; ShapeError for more than there is; DTypeError.
    Source: StableHLO ``pad``; NumPy ``pad``.

    >>> import graphc as gx
    >>> gx.pad(gx.placeholder("x", ("n", 3)), (0, 1), (0, 1))
    <pad: f32[n, 5]>
    >>> gx.pad(gx.placeholder("x", ("n", 3)), (0, 2), (0, -1), mode="reflect")
    <take: f32[n, 4]>
    """
    node = as_node(x)
    with explaining("pad", node):
        filler = as_node(value, node.dtype) if not isinstance(value, bool | int) else constant(value, node.dtype)
        between = (0,) * node.ndim if interior is None else each("interior", interior, node.ndim)
        before, after = each("low", low, node.ndim), each("high", high, node.ndim)
        if mode not in MODES:
            raise DTypeError(f"there is no mode {mode!r}", remedy=f"use one of {', '.join(MODES)}")
        if mode != "constant":
            return _pad_by_itself(node, before, after, between, mode)
        added = [tuple(0 if _is_negative(count) else count for count in counts) for counts in (before, after)]
        padded = apply(Pad(added[0], added[1], between), node, filler)
        return _cut(padded, before, after)


def _is_negative(count: object) -> bool:
    number = as_int(count)
    return number is not None and number < 0


def _cut(x: Node, low: Sequence[Size], high: Sequence[Size]) -> Node:
    """Without as many elements as the negative counts say."""
    from graphc.ops.slicing import take_range

    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        start = -before if _is_negative(before) else 0
        taken = -after if _is_negative(after) else 0
        x = take_range(x, axis, start, x.shape[axis] - taken)
    return x


def _pad_by_itself(x: Node, low: Sequence[Size], high: Sequence[Size], interior: Sequence[int], mode: str) -> Node:
    from graphc.ops.indexing import take

    if any(interior):
        raise DTypeError(f"interior counts do not go with mode {mode!r}", remedy="pad in two steps")
    x = _cut(x, low, high)
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        counts = [0 if _is_negative(count) else count for count in (before, after)]
        if counts == [0, 0]:
            continue
        if x.shape[axis] == 0:
            raise ShapeError(f"axis {axis} has no elements to pad by", remedy="use mode='constant'")
        x = take(x, _sources(x.shape[axis], counts[0], counts[1], mode), axis)
    return x


def _sources(size: Size, low: Size, high: Size, mode: str) -> Node:
    """Which element of the axis stands at each place."""
    from graphc.ops.arithmetic import abs, minimum
    from graphc.ops.arithmetic import maximum as larger
    from graphc.ops.create import arange, size_of
    from graphc.ops.division import remainder

    if isinstance(size, int) and isinstance(low, int) and isinstance(high, int):
        numpy_mode: Literal["edge", "reflect", "symmetric", "wrap"] = mode  # pyright: ignore[reportAssignmentType]
        return constant(np.pad(np.arange(size, dtype=np.int64), (low, high), numpy_mode))
    place = arange(low + size + high) - size_of(low)
    last = size_of(size) - 1
    match mode:
        case "wrap":
            return remainder(place, size_of(size))
        case "edge":
            return minimum(larger(place, 0), last)
        case "reflect":  # there and back is 2 * (size - 1) steps; a single element is all there is
            period = larger(last * 2, 1)
            return minimum(last - abs(remainder(place, period) - last), last)
        case _:
            back = last * 2 + 1 - remainder(place, last * 2 + 2)
            return minimum(remainder(place, last * 2 + 2), back)


__all__ = ["Pad", "pad"]
