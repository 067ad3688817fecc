"""Slicing, ``x[...]``, and the small functions over movement: squeeze, expand_dims, flatten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, ceildiv, maximum, minimum, product
from graphc.ir.node import Node, apply, constant, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
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
    normalize_axis,
    op_class,
)
from graphc.ops.movement import flip, reshape


@op_class
class Slice(Op):
    """Elements ``starts[i], starts[i] + steps[i], ...`` below ``stops[i]`` along axis i.

    Bounds are counted from the front and lie within the axis; ``x[...]`` computes them from what Python allows.

    Shapes: axis i becomes (stop - start) / step, rounded up.
    Raises: AxisError for bounds outside the axis or steps below 1.
    Source: https://onnx.ai/onnx/operators/onnx__Slice.html
    """

    starts: tuple[Size, ...]
    stops: tuple[Size, ...]
    steps: tuple[int, ...]

    onnx = "Slice"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if not len(self.starts) == len(self.stops) == len(self.steps) == x.rank:
            raise AxisError(
                f"starts, stops and steps have {len(self.starts)}, {len(self.stops)} and {len(self.steps)} entries",
                remedy=f"give one for each of the {x.rank} axes",
            )
        sizes: list[Size] = []
        for axis, (start, stop, step) in enumerate(zip(self.starts, self.stops, self.steps, strict=True)):
            size = x.shape[axis]
            crossed = _surely_above(0, start) or _surely_above(start, stop) or _surely_above(stop, size)
            if step < 1 or crossed:
                raise AxisError(
                    f"{start}:{stop}:{step} does not lie in axis {axis} of size {size}",
                    remedy="take 0 <= start <= stop <= size and step >= 1",
                )
            sizes.append(ceildiv(stop - start, step))
        return TensorType(x.dtype, tuple(sizes))

    def reference(self, x: Array) -> Array:
        rows = zip(ints(self.starts), ints(self.stops), self.steps, strict=True)
        return x[tuple(slice(*row) for row in rows)]

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Slice(tuple(map(bind, self.starts)), tuple(map(bind, self.stops)), self.steps)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        from graphc.ops.padding import Pad

        (x,) = node.args
        high: list[Size] = []
        for axis, step in enumerate(self.steps):
            count = node.shape[axis]
            covered = count + maximum(count - 1, 0) * (step - 1)
            high.append(x.shape[axis] - self.starts[axis] - covered)
        pad = Pad(self.starts, tuple(high), tuple(step - 1 for step in self.steps))
        return (apply(pad, cotangent, constant(0, x.dtype)),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Parts of one axis and of several, steps, parts of size 0 and 1, every element type."""

        def case(shape: Shape, *bounds: tuple[int, int, int], dtype: DType = DType.float32) -> Case:
            starts, stops, steps = zip(*bounds, strict=True) if bounds else ((), (), ())
            return Case(cls(starts, stops, steps), (TensorType(dtype, shape),))

        rows = [
            case((7,), (2, 5, 1)), case((7,), (0, 7, 3)), case((7,), (1, 6, 2)), case((4, 6), (1, 4, 2), (0, 6, 1)),
            case((4, 6), (2, 2, 1), (3, 4, 1)), case((0, 3), (0, 0, 1), (0, 3, 2)), case(()), case((3,), (0, 3, 5)),
        ]  # fmt: skip
        return [*rows, *(case((4, 3), (1, 3, 1), (0, 3, 2), dtype=d) for d in DType if d is not DType.float32)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Bounds missing, outside the axis or crossed, a step of 0."""
        x = (TensorType(DType.float32, (4,)),)
        return (
            BadCase(cls((0, 0), (1, 1), (1, 1)), x, AxisError, ("slice", "2", "1 axes")),
            BadCase(cls((0,), (5,), (1,)), x, AxisError, ("slice", "0:5:1", "axis 0", "size 4")),
            BadCase(cls((3,), (2,), (1,)), x, AxisError, ("slice", "3:2:1")),
            BadCase(cls((0,), (4,), (0,)), x, AxisError, ("slice", "0:4:0", "step")),
        )


def _surely_above(a: Size, b: Size) -> bool:
    excess = a - b
    return isinstance(excess, int) and excess > 0


def take_range(x: Node, axis: int, start: Size, stop: Size) -> Node:
    """The elements from start to stop along one axis."""
    if start == 0 and stop == x.shape[axis]:
        return x
    starts = tuple(start if i == axis else 0 for i in range(x.ndim))
    stops = tuple(stop if i == axis else size for i, size in enumerate(x.shape))
    return apply(Slice(starts, stops, (1,) * x.ndim), x)


@dataclass(frozen=True)
class _Part:
    """What an index takes of one axis. ``reverse``: a negative step; ``drop``: an int, whose axis vanishes."""

    start: Size
    stop: Size
    step: int = 1
    reverse: bool = False
    drop: bool = False


def getitem(x: Operand, index: Any) -> Node:
    """``x[index]``: ints, slices, None, Ellipsis, arrays of integers and masks that are known, as in NumPy.

    Bounds beyond the axis are cut, as in Python; of a symbolic size they become ``min`` and ``max``. Computed indices
    count from the front; a negative one is an error while the program runs.

    Shapes: ints drop their axis, None adds one, slices take a part; arrays broadcast against each other, and their axes
    come where they stand, or first where something stands between them.
    Raises: AxisError for an int outside the axis, too many indices, a step of 0; DTypeError for other indices; at run
    time IndexRangeError.
    Source: Array API "indexing"; NumPy "advanced indexing".

    >>> import graphc as gx
    >>> gx.placeholder("x", ("n", 4, 3))[:, -1, ::2]
    <reshape: f32[n, 2]>
    """
    node = as_node(x)
    items = _as_tuple(index)
    with explaining("getitem", node):
        if any(isinstance(item, Node | np.ndarray | list) for item in items):
            return _take_arrays(node, items)
        return _take_slices(node, _expand_ellipsis(items, node.ndim))


def _take_slices(x: Node, items: list[Any]) -> Node:
    parts: list[_Part | None] = []
    axis = 0
    for item in items:
        parts.append(None if item is None else _part(item, x.shape[axis], axis))
        axis += item is not None
    return _take_parts(x, parts)


def _take_arrays(x: Node, items: tuple[Any, ...]) -> Node:
    from graphc.ops.advanced import split_index, stand_together, take_arrays, without_masks

    items = without_masks(items, x.shape)
    simple, chosen = split_index(_expand_ellipsis(items, x.ndim))
    return take_arrays(_take_slices(x, simple), chosen, stand_together(items))


def _as_tuple(index: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", index) if isinstance(index, tuple) else (index,)


def _expand_ellipsis(items: tuple[Any, ...], rank: int) -> list[Any]:
    used = sum(item is not None and item is not Ellipsis for item in items)
    dots = sum(item is Ellipsis for item in items)
    if used > rank:
        raise AxisError(f"{used} indices for {rank} axes", remedy="give at most one index for each axis")
    if dots > 1:
        raise AxisError("two Ellipsis in one index", remedy="write ... once")
    where = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    whole = [slice(None)] * (rank - used)
    return [*items[:where], *whole, *items[where + dots :]]


def _part(item: Any, size: Size, axis: int) -> _Part:
    if isinstance(item, slice):
        return _slice_part(cast("slice[Any, Any, Any]", item), size)
    place = item if isinstance(item, Dim) else as_int(item)
    if place is None:
        raise DTypeError(
            f"{item!r} cannot index axis {axis}", remedy="use ints, slices, None, ... or arrays of integers"
        )
    if isinstance(place, int) and isinstance(size, int) and not -size <= place < size:
        allowed = f"{-size} to {size - 1} are" if size else "none is"
        raise AxisError(f"index {place} is outside axis {axis} of size {size}", remedy=f"{allowed} allowed")
    start = place + size if isinstance(place, int) and place < 0 else place
    return _Part(start, start + 1, drop=True)


def _slice_part(item: slice[Any, Any, Any], size: Size) -> _Part:
    step = 1 if item.step is None else as_int(item.step)
    if step is None:
        raise DTypeError(f"the step of a slice is {item.step!r}", remedy="use an int")
    if step == 0:
        raise AxisError("the step of a slice is 0", remedy="use a step other than 0")
    if step > 0:
        start = _bound(item.start, 0, size, 0)
        stop = _bound(item.stop, size, size, 0)
        return _Part(start, stop if stop == size else maximum(start, stop), step)
    # The last element taken and the one before the first, as a forward slice of the elements that are taken.
    first = _bound(item.start, size - 1, size, -1)
    beyond = _bound(item.stop, -1, size, -1)
    count = ceildiv(maximum(first - beyond, 0), -step)
    steps_between = maximum(count - 1, 0)
    low = maximum(first - steps_between * -step, 0)  # without elements, first may be -1
    return _Part(low, low + count + steps_between * (-step - 1), -step, reverse=True)


def _bound(value: Any, default: Size, size: Size, lowest: int) -> Size:
    """A bound of a slice counted from the front and cut to the axis; ``lowest`` is -1 for negative steps."""
    if value is None:
        return default
    bound = value if isinstance(value, Dim) else as_int(value)
    if bound is None:
        raise DTypeError(f"a slice bound is {value!r}", remedy="use ints, Dims or nothing")
    if isinstance(bound, int) and bound < 0:
        return maximum(bound + size, lowest)
    return minimum(bound, size if lowest == 0 else size - 1)


def _take_parts(x: Node, parts: list[_Part | None]) -> Node:
    taken = [part for part in parts if part is not None]
    whole = all(p.start == 0 and p.step == 1 and p.stop == n for p, n in zip(taken, x.shape, strict=True))
    if not whole:
        rows = [(part.start, part.stop, part.step) for part in taken]
        starts, stops, steps = zip(*rows, strict=True)
        x = apply(Slice(starts, stops, steps), x)
    reverse = [axis for axis, part in enumerate(taken) if part.reverse]
    if reverse:
        x = flip(x, reverse)
    sizes = iter(x.shape)
    shape: list[Size] = []
    for part in parts:
        size = 1 if part is None else next(sizes)
        if part is None or not part.drop:
            shape.append(size)
    return reshape(x, tuple(shape))


def expand_dims(x: Operand, axis: int | Sequence[int]) -> Node:
    """New axes of size 1, at these places of the result.

    Shapes: one more axis for each place.
    Raises: AxisError.
    Source: Array API ``expand_dims``.

    >>> import graphc as gx
    >>> gx.expand_dims(gx.placeholder("x", ("n", 3)), axis=1)
    <reshape: f32[n, 1, 3]>
    """
    node = as_node(x)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    with explaining("expand_dims", node):
        places = normalize_axes(axis, node.ndim + count)
    sizes = iter(node.shape)
    return reshape(node, tuple(1 if place in places else next(sizes) for place in range(node.ndim + count)))


def squeeze(x: Operand, axis: Axis = None) -> Node:
    """Without axes of size 1 (None: without any of them).

    Shapes: the axes vanish.
    Raises: AxisError; ShapeError for an axis whose size is not 1.
    Source: Array API ``squeeze``.

    >>> import graphc as gx
    >>> gx.squeeze(gx.placeholder("x", ("n", 1, 3)), axis=1)
    <reshape: f32[n, 3]>
    """
    node = as_node(x)
    with explaining("squeeze", node):
        ones = tuple(place for place, size in enumerate(node.shape) if size == 1)
        places = ones if axis is None else normalize_axes(axis, node.ndim)
        for place in places:
            if node.shape[place] != 1:
                raise ShapeError(f"axis {place} has size {node.shape[place]}", remedy="only axes of size 1 can go")
    return reshape(node, tuple(size for place, size in enumerate(node.shape) if place not in places))


def flatten(x: Operand, start: int = 0) -> Node:
    """All axes from ``start`` on as one; ``start=1`` keeps the batch.

    Shapes: the sizes from start on are multiplied.
    Raises: AxisError.
    Source: https://onnx.ai/onnx/operators/onnx__Flatten.html

    >>> import graphc as gx
    >>> gx.flatten(gx.placeholder("x", ("n", 4, 3)), start=1)
    <reshape: f32[n, 12]>
    """
    node = as_node(x)
    with explaining("flatten", node):
        first = start if start == node.ndim else normalize_axis(start, node.ndim)
    return reshape(node, (*node.shape[:first], product(node.shape[first:])))


operators["getitem"] = getitem

__all__ = ["Slice", "expand_dims", "flatten", "squeeze"]
