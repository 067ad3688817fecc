"""Views: ops that only move indices. A view is never computed; whoever reads it reads its source elsewhere."""

from __future__ import annotations

from functools import cache

from graphc.ir.dims import Bounds, Size, coefficient, floordiv, mod
from graphc.ir.node import Node
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape
from graphc.lower.index import Index, linear, loop_index, loop_names, strides_of
from graphc.ops.cast import Cast
from graphc.ops.control import CustomVjp, Recompute, StopGradient
from graphc.ops.movement import BroadcastTo, Flip, Reshape, Transpose
from graphc.ops.slicing import Slice
from graphc.ops.windows import ShiftWindows, Windows

VIEWS = (Reshape, Transpose, BroadcastTo, Slice, Flip, Windows, ShiftWindows, StopGradient, Recompute, CustomVjp)


def is_view(node: Node) -> bool:
    """Does the node only rename elements of its operand, or read 16-bit floats as float32?

    Such a conversion costs nothing beside the read, and memory holds the 16 bits: whoever reads it converts.
    """
    kind = node.op.__class__
    if kind is Cast:
        return node.dtype is DType.float32 and node.args[0].dtype.is_half
    return _renames(kind)


@cache
def _renames(kind: type[Op]) -> bool:
    return issubclass(kind, VIEWS)


def through_views(node: Node, index: Index, bounds: Bounds) -> tuple[Node, Index]:
    """The node that computes an element of a view, and the index of that element there.

    Its element type is another one where a conversion is on the way.
    """
    while is_view(node):
        node, index = through_view(node, index, bounds)
    return node, index


def behind_views(node: Node) -> Node:
    """The node that computes what a view shows: itself, unless it is a view."""
    while is_view(node):
        node = node.args[0]
    return node


def broadcast_index(index: Index, shape: Shape) -> Index:
    """The index of an operand of this shape under broadcasting: trailing axes aligned, 0 on axes of size 1."""
    tail = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else position for position, size in zip(tail, shape, strict=True))


def through_view(node: Node, index: Index, bounds: Bounds) -> tuple[Node, Index]:
    """The operand of a view, and where an element of the view lies there."""
    source = node.args[0]
    match node.op:
        case Reshape():
            return source, reshape_index(index, node.shape, source.shape, bounds)
        case Transpose(axes=axes):
            moved: list[Size] = [0] * len(axes)
            for position, axis in zip(index, axes, strict=True):
                moved[axis] = position
            return source, tuple(moved)
        case BroadcastTo():
            return source, broadcast_index(index, source.shape)
        case Slice(starts=starts, steps=steps):
            return source, tuple(a + i * s for i, a, s in zip(index, starts, steps, strict=True))
        case Flip(axes=axes):
            return source, tuple(source.shape[axis] - 1 - i if axis in axes else i for axis, i in enumerate(index))
        case Windows() | ShiftWindows():
            return source, window_index(node.op, index, source.shape)
        case _:  # StopGradient, Recompute, CustomVjp, Cast: the same elements
            return source, index


def window_index(op: Windows | ShiftWindows, index: Index, shape: Shape) -> Index:
    """The index, in a source of this shape, of the element at ``index`` of its windows."""
    axis, count = op.axis, len(op.dilations)
    rows, elements = index[axis : axis + count], index[axis + count : axis + 2 * count]
    if isinstance(op, Windows):
        places = zip(rows, elements, op.strides, op.dilations, strict=True)
        moved = tuple(o * stride + k * dilation for o, k, stride, dilation in places)
        return (*index[:axis], *moved, *index[axis + 2 * count :])
    sizes = shape[axis + count : axis + 2 * count]
    far = [size - 1 - k if op.back else k for k, size in zip(elements, sizes, strict=True)]
    moved = tuple(i + f * dilation for i, f, dilation in zip(rows, far, op.dilations, strict=True))
    return (*index[:axis], *moved, *index[axis + count :])


def reshape_index(index: Index, shape: Shape, source: Shape, bounds: Bounds) -> Index:
    """The index in ``source`` of the element at ``index`` in ``shape``; both hold the same elements in order."""
    result: list[Size] = []
    i = j = 0
    while i < len(shape) or j < len(source):
        # the smallest runs of axes on both sides that hold the same number of elements
        left, right = i, j
        size_left: Size = 1
        size_right: Size = 1
        if i < len(shape):
            size_left, i = shape[i], i + 1
        if j < len(source):
            size_right, j = source[j], j + 1
        while size_left != size_right and (i < len(shape) or j < len(source)):
            if isinstance(size_left, int) and isinstance(size_right, int):
                grow_left = size_left < size_right
            else:
                grow_left = (len(shape) - i) >= (len(source) - j)
            if (grow_left and i < len(shape)) or j == len(source):
                size_left, i = size_left * shape[i], i + 1
            else:
                size_right, j = size_right * source[j], j + 1
        result.extend(_unflatten(linear(index[left:i], shape[left:i]), source[right:j], bounds))
    return tuple(result)


def _unflatten(position: Size, shape: Shape, bounds: Bounds) -> Index:
    result: list[Size] = []
    for axis, (size, stride) in enumerate(zip(shape, strides_of(shape), strict=True)):
        if size == 1:
            result.append(0)
            continue
        if size == 0 or stride == 0:  # there is no element; the index must still belong to the loops that never run
            result.append(position)
            continue
        part = floordiv(position, stride, bounds)
        result.append(part if axis == 0 else mod(part, size, bounds))
    return tuple(result)


def distances(node: Node, through_conversions: bool = False) -> tuple[Node, list[Size], Size] | None:
    """How a node lies in memory, read through its views: the node with the buffer, distances along axes, the offset.

    None where it does not lie at such distances, or is converted on the way, if that is not looked through.
    """
    index = tuple(loop_index(f"i{a}") for a in range(node.ndim))
    bounds = {f"%i{a}": size for a, size in enumerate(node.shape)}
    source, place = through_views(node, index, bounds) if is_view(node) else (node, index)
    if source.dtype is not node.dtype and not through_conversions:
        return None
    rest = linear(place, source.shape)
    found: list[Size] = []
    for axis in range(node.ndim):
        distance = coefficient(rest, f"%i{axis}")
        if distance is None:
            return None
        found.append(distance)
        rest = rest - distance * index[axis]
    return None if loop_names(rest) else (source, found, rest)


def is_most_of(node: Node, source: Node) -> bool:
    """Has a node so large a part of the elements that it reads, a quarter at least, that all of them may be converted?

    Others that read them share the conversion.
    """
    return any(2 * source.type.size == halves * node.type.size for halves in range(2, 9))
