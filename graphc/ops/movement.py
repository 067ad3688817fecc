"""Movement: the same elements in other places. Reshape, transpose, broadcast, flip, concatenate.

Slices stand in ``slicing``, pads in ``padding``. Names and meaning are those of the Array API standard,
https://data-apis.org/array-api/latest/API_specification, section "manipulation functions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size, product, split_multiple
from graphc.ir.node import Node, apply, operators
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType, as_shape, broadcast_shapes
from graphc.ops.base import (
    Array,
    Axis,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    as_operands,
    explaining,
    ints,
    normalize_axes,
    normalize_axis,
    op_class,
    sum_to,
    zeros_like,
)
from graphc.ops.create import ShapeLike

f32 = DType.float32


def _each_dtype(op: Op, shape: Shape) -> list[Case]:
    return [Case(op, (TensorType(dtype, shape),)) for dtype in DType if dtype is not f32]


@op_class
class Reshape(Op):
    """The same elements, in row-major order, in another shape.

    Shapes: as many elements as before; with symbolic sizes the products must be equal as formulas.
    Raises: ShapeError.
    Source: https://onnx.ai/onnx/operators/onnx__Reshape.html
    """

    shape: Shape

    onnx = "Reshape"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        result = TensorType(x.dtype, self.shape)
        if result.size != x.size:
            raise ShapeError(
                f"{x.size} elements do not fit in shape {shown(self.shape)}, which has {result.size}",
                remedy="give a shape with the same number of elements, or -1 for one size",
            )
        return result

    def reference(self, x: Array) -> Array:
        return x.reshape(ints(self.shape))

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Reshape(tuple(map(bind, self.shape)))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (reshape(cotangent, node.args[0].shape),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else reshape(tangents[0], self.shape)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Axes merged, split, added and removed; scalars; no elements."""
        pairs = (
            ((4, 6), (24,)), ((24,), (2, 3, 4)), ((2, 3, 4), (4, 6)), ((3,), (1, 3, 1)), ((1, 1), ()), ((0, 3), (5, 0)),
        )  # fmt: skip
        rows = [Case(cls(new), (TensorType(f32, old),)) for old, new in pairs]
        return [*rows, *_each_dtype(cls((6,)), (2, 3))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Another number of elements, also a symbolic one."""
        n = Dim("n")
        return (
            BadCase(cls((5, 2)), (TensorType(f32, (3, 4)),), ShapeError, ("reshape", "12 elements", "(5, 2)", "10")),
            BadCase(cls((n,)), (TensorType(f32, (n, 2)),), ShapeError, ("reshape", "2*n elements", "(n)")),
        )


def shown(shape: Iterable[object]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def each(name: str, given: Any, rank: int) -> tuple[Any, ...]:
    """An argument that has an entry for each axis, as a tuple."""
    if not isinstance(given, tuple | list | range):
        raise AxisError(f"{name} is {given!r}", remedy=f"give a tuple with an entry for each of the {rank} axes")
    return tuple(cast("Sequence[Any]", given))


def reshape(x: Operand, shape: ShapeLike) -> Node:
    """The same elements in another shape; one size may be -1 and is computed.

    Shapes: as many elements as before.
    Raises: ShapeError.
    Source: Array API ``reshape``.

    >>> import graphc as gx
    >>> gx.reshape(gx.placeholder("x", ("n", 4, 3)), (-1, 6))
    <reshape: f32[2*n, 6]>
    """
    node = as_node(x)
    with explaining("reshape", node):
        given = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else (shape,)
        sizes = _fill_in(node.type, given)
    return node if sizes == node.shape else apply(Reshape(sizes), node)


def _fill_in(type: TensorType, shape: tuple[int | str | Dim, ...]) -> Shape:
    """The shape with -1 replaced by what is left."""
    unknown = [axis for axis, size in enumerate(shape) if isinstance(size, int | np.integer) and size == -1]
    if not unknown:
        return as_shape(shape)
    if len(unknown) > 1:
        raise ShapeError(f"-1 stands twice in {shown(shape)}", remedy="leave one size open, name the others")
    axis = unknown[0]
    before, after = as_shape(shape[:axis]), as_shape(shape[axis + 1 :])
    others = product((*before, *after))
    quotient, rest = split_multiple(type.size, others) if others != 0 else (0, 1)
    if rest != 0:
        raise ShapeError(
            f"{type.size} elements do not divide by the {others} of {shown(shape)}",
            remedy="give sizes whose product divides the number of elements",
        )
    return (*before, quotient, *after)


@op_class
class Transpose(Op):
    """The axes in another order: axis i of the result is axis ``axes[i]`` of x.

    Shapes: the sizes of x in that order.
    Raises: AxisError: not a permutation.
    Source: https://onnx.ai/onnx/operators/onnx__Transpose.html
    """

    axes: tuple[int, ...]

    onnx = "Transpose"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if sorted(self.axes) != list(range(x.rank)):
            raise AxisError(f"{self.axes} is not an order of {x.rank} axes", remedy="name each axis from 0 on once")
        return TensorType(x.dtype, tuple(x.shape[axis] for axis in self.axes))

    def reference(self, x: Array) -> Array:
        return np.transpose(x, self.axes)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (transpose(cotangent, tuple(self.axes.index(axis) for axis in range(len(self.axes)))),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else transpose(tangents[0], self.axes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Orders that are and are not their own inverse, sizes of 0 and 1."""
        pairs = (
            ((3, 4), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 2, 1)), ((2, 1, 3, 2), (3, 1, 0, 2)),
            ((0, 3), (1, 0)),
        )  # fmt: skip
        rows = [Case(cls(axes), (TensorType(f32, shape),)) for shape, axes in pairs]
        return [*rows, *_each_dtype(cls((1, 0)), (2, 3))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Too few axes, an axis twice."""
        x = (TensorType(f32, (2, 3, 4)),)
        return (
            BadCase(cls((1, 0)), x, AxisError, ("transpose", "(1, 0)", "3 axes")),
            BadCase(cls((0, 1, 1)), x, AxisError, ("transpose", "(0, 1, 1)", "once")),
        )


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Node:
    """The axes in another order; by default reversed.

    Shapes: the sizes of x in that order.
    Raises: AxisError: not a permutation of the axes.
    Source: Array API ``permute_dims``, NumPy ``transpose``.

    >>> import graphc as gx
    >>> gx.transpose(gx.placeholder("x", ("n", 4, 3)), (0, 2, 1))
    <transpose: f32[n, 3, 4]>
    """
    node = as_node(x)
    with explaining("transpose", node):
        given = range(node.ndim)[::-1] if axes is None else each("axes", axes, node.ndim)
        order = [normalize_axis(axis, node.ndim) for axis in given]
    return node if order == list(range(node.ndim)) else apply(Transpose(tuple(order)), node)


@op_class
class BroadcastTo(Op):
    """Repeated along axes of size 1 and new leading axes.

    Shapes: x broadcasts to the attribute's shape.
    Raises: ShapeError where it does not.
    Source: https://onnx.ai/onnx/operators/onnx__Expand.html
    """

    shape: Shape

    onnx = "Expand"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if len(x.shape) > len(self.shape) or broadcast_shapes(x.shape, self.shape) != self.shape:
            raise ShapeError(
                f"shape {shown(x.shape)} does not broadcast to {shown(self.shape)}",
                remedy="sizes must be equal or 1, counted from the last axis",
            )
        return TensorType(x.dtype, self.shape)

    def reference(self, x: Array) -> Array:
        return np.broadcast_to(x, ints(self.shape))

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return BroadcastTo(tuple(map(bind, self.shape)))

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (sum_to(cotangent, node.args[0].shape),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else broadcast_to(tangents[0], self.shape)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Axes repeated and added, sizes of 0 and 1."""
        pairs = (((3,), (2, 3)), ((2, 1), (2, 3)), ((), (4,)), ((1, 3, 1), (2, 3, 4)), ((1, 3), (0, 3)), ((1,), (1,)))
        rows = [Case(cls(new), (TensorType(f32, old),)) for old, new in pairs]
        return [*rows, *_each_dtype(cls((2, 3)), (2, 1))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Sizes that differ, fewer axes than before, a size that would shrink."""
        x = (TensorType(f32, (2, 3)),)
        return (
            BadCase(cls((2, 4)), x, ShapeError, ("broadcast_to", "3", "4")),
            BadCase(cls((3,)), x, ShapeError, ("broadcast_to", "(2, 3)", "(3)")),
            BadCase(cls((1, 3)), x, ShapeError, ("broadcast_to", "(2, 3)", "(1, 3)")),
        )


def broadcast_to(x: Operand, shape: ShapeLike) -> Node:
    """Repeated along axes of size 1 and new leading axes.

    Shapes: x broadcasts to shape.
    Raises: ShapeError where it does not.
    Source: Array API ``broadcast_to``.

    >>> import graphc as gx
    >>> gx.broadcast_to(gx.placeholder("x", (3,)), ("n", 3))
    <broadcast_to: f32[n, 3]>
    """
    node = as_node(x)
    with explaining("broadcast_to", node):
        sizes = as_shape(shape)
    return node if sizes == node.shape else apply(BroadcastTo(sizes), node)


@op_class
class Flip(Op):
    """The elements in reverse order along axes.

    Shapes: that of x.
    Raises: AxisError.
    Source: Array API ``flip``.
    """

    axes: tuple[int, ...]

    onnx = "Slice"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        from graphc.ops.reduction import check_axes

        (x,) = types
        check_axes(self.axes, x.rank)
        return x

    def reference(self, x: Array) -> Array:
        return np.flip(x, self.axes)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return (apply(self, cotangent),)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """One axis, several, none; sizes of 0 and 1."""
        pairs = (((4, 3), (0,)), ((4, 3), (0, 1)), ((2, 3, 4), (0, 2)), ((2,), ()), ((0, 3), (1,)), ((1, 3), (0,)))
        rows = [Case(cls(axes), (TensorType(f32, shape),)) for shape, axes in pairs]
        return [*rows, *_each_dtype(cls((1,)), (2, 3))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, one that stands twice."""
        x = (TensorType(f32, (2, 3)),)
        return (
            BadCase(cls((2,)), x, AxisError, ("flip", "axis 2", "2 axes")),
            BadCase(cls((0, 0)), x, AxisError, ("flip", "once")),
        )


def flip(x: Operand, axis: Axis = None) -> Node:
    """The elements in reverse order along axes (None: all).

    Shapes: that of x.
    Raises: AxisError.
    Source: Array API ``flip``.

    >>> import graphc as gx
    >>> gx.flip(gx.placeholder("x", ("n", 3)), axis=1)
    <flip: f32[n, 3]>
    """
    node = as_node(x)
    with explaining("flip", node):
        axes = normalize_axes(axis, node.ndim)
    return apply(Flip(axes), node) if axes else node


@op_class
class Concatenate(Op):
    """Operands one after the other along an axis.

    Shapes: all of one rank, equal but for the axis, whose sizes add up.
    Raises: AxisError; ShapeError where other sizes differ; DTypeError for a mix of element types.
    Source: https://onnx.ai/onnx/operators/onnx__Concat.html
    """

    axis: int

    operands = ("part",)
    onnx = "Concat"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        if not types:
            raise ShapeError("there is nothing to join", remedy="give at least one operand")
        first = types[0]
        if not 0 <= self.axis < first.rank:
            raise AxisError(f"axis {self.axis} does not exist", remedy=f"the operands have {first.rank} axes")
        total: Size = 0
        for position, type in enumerate(types):
            if type.dtype is not first.dtype:
                raise DTypeError(
                    f"operand 0 is {first.dtype}, operand {position} {type.dtype}",
                    remedy="convert with gx.cast(x, dtype)",
                )
            if _without(type.shape, self.axis) != _without(first.shape, self.axis):
                raise ShapeError(
                    f"operand 0 is {first}, operand {position} {type}: they differ off axis {self.axis}",
                    remedy=f"make all sizes but that of axis {self.axis} equal",
                )
            total = total + type.shape[self.axis]
        return TensorType(first.dtype, (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]))

    def reference(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=self.axis)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        from graphc.ops.slicing import take_range

        found: list[Node | None] = []
        start: Size = 0
        for part in node.args:
            stop = start + part.shape[self.axis]
            found.append(take_range(cotangent, self.axis, start, stop))
            start = stop
        return found

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        if all(tangent is None for tangent in tangents):
            return None
        parts = [zeros_like(x) if dx is None else dx for x, dx in zip(node.args, tangents, strict=True)]
        return apply(self, *parts)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """One, two and three operands; parts of size 0 and 1; every element type."""
        rows = [
            Case(cls(axis), tuple(TensorType(f32, shape) for shape in shapes))
            for axis, shapes in (
                (0, ((2, 3), (4, 3))), (1, ((2, 3), (2, 1), (2, 0))), (1, ((2, 3, 2), (2, 5, 2))), (0, ((4,),)),
                (0, ((0,), (0,))),
            )
        ]  # fmt: skip
        rows += [Case(cls(0), (TensorType(dtype, (3,)),) * 2) for dtype in DType if dtype is not f32]
        return rows

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """An axis that does not exist, sizes that differ off the axis, a mix of element types, nothing."""
        x = TensorType(f32, (2, 3))
        return (
            BadCase(cls(2), (x, x), AxisError, ("concatenate", "axis 2", "2 axes")),
            BadCase(cls(0), (x, TensorType(f32, (2, 4))), ShapeError, ("f32[2, 3]", "f32[2, 4]", "axis 0")),
            BadCase(cls(0), (x, TensorType(DType.int32, (2, 3))), DTypeError, ("float32", "int32", "gx.cast")),
            BadCase(cls(0), (), ShapeError, ("concatenate", "nothing")),
        )


def _without(shape: Shape, axis: int) -> tuple[object, ...]:
    return (*shape[:axis], None, *shape[axis + 1 :])


def concatenate(parts: Sequence[Operand], axis: int = 0) -> Node:
    """Values one after the other along an axis.

    Shapes: all of one rank, equal but for the axis, whose sizes add up.
    Raises: AxisError; ShapeError; DTypeError for a mix that does not promote.
    Source: Array API ``concat``.

    >>> import graphc as gx
    >>> gx.concatenate([gx.placeholder("x", ("n", 3)), gx.placeholder("y", ("n", 4))], axis=-1)
    <concatenate: f32[n, 7]>
    """
    with explaining("concatenate"):
        if not isinstance(parts, tuple | list):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DTypeError(f"{type(parts).__name__} is not a list of values", remedy="write concatenate([x, y])")
        nodes = as_operands(*parts)
        rank = nodes[0].ndim if nodes else 1
        place = normalize_axis(axis, rank)
    return apply(Concatenate(place), *nodes)


operators.update({"reshape": reshape, "transpose": transpose})

__all__ = [
    "BroadcastTo", "Concatenate", "Flip", "Reshape", "Transpose", "broadcast_to", "concatenate", "flip", "reshape",
    "transpose",
]  # fmt: skip
