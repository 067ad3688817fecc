"""Rows of a table: written at places that are known only when a program runs, and found in sums of scattered rows.

The gradient of a table that is read by :func:`graphc.take` is zero but for the rows that were read. What such a sum
holds can be said by the rows alone: :func:`scattered_rows` takes it apart, and :func:`update_rows` writes the next
values of these rows, in the table's own memory where nobody needs the old ones afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply, topological
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.arithmetic import Abs, Add, Divide, Maximum, Minimum, Multiply, Negative, Sign, Subtract
from graphc.ops.base import (
    Array,
    BadCase,
    Case,
    Elementwise,
    Operand,
    Tangents,
    as_node,
    cast_to,
    explaining,
    op_class,
    require_dtype,
    scalar_value,
    zeros_like,
)
from graphc.ops.cast import Cast
from graphc.ops.checked import Checked, in_range
from graphc.ops.compare import where
from graphc.ops.control import Recompute, StopGradient
from graphc.ops.create import arange
from graphc.ops.cumulative import cumsum
from graphc.ops.exponential import Sqrt
from graphc.ops.indexing import INDEX_TYPES, random_rows, take
from graphc.ops.movement import BroadcastTo, broadcast_to, concatenate, reshape
from graphc.ops.scatter import ScatterAlong, TakeAdd
from graphc.ops.slicing import take_range
from graphc.ops.sorting import argsort, begins_of

f32, i64 = DType.float32, DType.int64


@op_class
class UpdateRows(Op):
    """``x`` with the rows at indices replaced; of rows for one place the last stays. Indices are moved into the axis.

    Where nobody needs ``x`` any more, such as a parameter whose next value this is, the rows are written into its
    memory, and nothing else moves.

    Shapes: rows as the axes of indices, then those of x but for the first; the result has the shape of x.
    Raises: ShapeError; DTypeError.
    Source: https://onnx.ai/onnx/operators/onnx__ScatterND.html
    """

    operands = ("x", "rows", "indices")
    onnx = "ScatterElements"
    moves = True

    def infer(self, *types: TensorType) -> TensorType:
        x, rows, indices = types
        if not x.rank:
            raise ShapeError("x is a scalar, which has no rows", remedy="give x at least one axis")
        if rows.dtype is not x.dtype:
            raise DTypeError(f"x is {x.dtype}, the rows are {rows.dtype}", remedy="convert with gx.cast")
        require_dtype(indices, INDEX_TYPES, "indices")
        if rows.shape != (*indices.shape, *x.shape[1:]):
            raise ShapeError(
                f"rows are {rows}, x is {x}, indices are {indices}",
                remedy="give one row for each index: the axes of indices, then those of x but for the first",
            )
        return x

    def reference(self, x: Array, rows: Array, indices: Array) -> Array:
        result = x.copy()
        places = np.clip(indices.astype(np.int64), 0, max(x.shape[0] - 1, 0))
        for place, row in zip(places.ravel(), rows.reshape(places.size, *x.shape[1:]), strict=True):
            result[place] = row
        return result

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, rows, indices = node.args
        gone = apply(self, cotangent, zeros_like(rows), indices)
        flat = reshape(indices, (indices.type.size,))
        number = arange(flat.shape[0])
        last = take(apply(ScatterAlong(0, x.shape[0], "max"), number, flat), flat, 0) == number
        stays = reshape(last, (*indices.shape, *(1 for _ in x.shape[1:])))
        return gone, where(stays, take(cotangent, indices, 0), 0), None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        dx, drows, _ = tangents
        if dx is None and drows is None:
            return None
        x, rows, indices = node.args
        return apply(self, zeros_like(x) if dx is None else dx, zeros_like(rows) if drows is None else drows, indices)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Indices of no, one and two axes; places that meet; no rows; rows of no and two axes; every element type."""

        def case(shape: Shape, indices: Array, dtype: DType = f32) -> Case:
            rows = TensorType(dtype, (*indices.shape, *shape[1:]))
            return Case(cls(), (TensorType(dtype, shape), rows, indices))

        rows = [
            case((5, 3), random_rows(5, 8)), case((6,), random_rows(5, 2, 4)), case((5, 2, 3), np.array(4)),
            case((3, 2), np.zeros((0,), np.int64)), case((1, 2), np.zeros((4,), np.int64)),
            case((5, 17), random_rows(5, 3, dtype="int32")), case((5, 2), random_rows(5, 3, dtype="uint32")),
        ]  # fmt: skip
        return [*rows, *(case((4, 3), np.array([2, 0]), dtype) for dtype in DType if dtype is not f32)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Rows of another type, of other sizes; a scalar; indices that are floats."""
        x, rows, at = TensorType(f32, (4, 3)), TensorType(f32, (2, 3)), TensorType(i64, (2,))
        return (
            BadCase(cls(), (TensorType(f32, ()), rows, at), ShapeError, ("scalar",)),
            BadCase(cls(), (x, TensorType(DType.float64, (2, 3)), at), DTypeError, ("float32", "float64")),
            BadCase(cls(), (x, TensorType(f32, (2, 4)), at), ShapeError, ("f32[2, 4]", "f32[4, 3]")),
            BadCase(cls(), (x, rows, TensorType(i64, (3,))), ShapeError, ("i64[3]",)),
            BadCase(cls(), (x, rows, TensorType(f32, (2,))), DTypeError, ("indices", "float32")),
        )


def update_rows(x: Operand, rows: Operand, indices: Operand) -> Node:
    """``x`` with the rows at indices replaced; ``x`` itself stays as it is. Of rows for one place the last stays.

    As the next value of a parameter, or of a loop's carry, it is written in place, which costs what the rows cost,
    however large the table is.

    Args:
        x: what is written over.
        rows: what is written.
        indices: which rows of x, along its first axis.

    Shapes: rows as the axes of indices, then those of x but for the first; the result has the shape of x.
    Raises: ShapeError; DTypeError; at run time IndexRangeError.
    Source: JAX ``x.at[indices].set(rows)``; https://onnx.ai/onnx/operators/onnx__ScatterND.html

    >>> import graphc as gx
    >>> table, ids = gx.placeholder("table", (1000, 64)), gx.placeholder("ids", ("n",), "int64")
    >>> gx.update_rows(table, gx.tanh(gx.take(table, ids)), ids)
    <update_rows: f32[1000, 64]>
    """
    node, places = as_node(x), as_node(indices)
    given = as_node(rows, node.dtype)
    with explaining("update_rows", node, given, places):
        UpdateRows().infer(node.type, given.type, places.type)
        return apply(UpdateRows(), node, given, in_range(places, node.shape[0]))


class ScatteredRows(NamedTuple):
    """What :func:`scattered_rows` returns: ``sums`` hold each row once, and ``group`` says which belongs to a place."""

    places: Node
    sums: Node
    group: Node


def scattered_rows(x: Operand) -> ScatteredRows:
    """What the gradient of a table by its rows is made of, without the rows that are zero.

    ``x`` is ``take(sums, group)`` added at ``places``, each place counted once. A place that is named several times has
    several entries in ``places``, and one row of ``sums``, in which its values are added in the order of the indices;
    rows of ``sums`` that belong to no place are zero. So the squares of x add up to those of ``sums``.

    Shapes: places and group (n,), with n the number of all indices; sums (n, ...) with the axes of x but for the first.
    Raises: GraphError: x is not made of scattered rows alone.
    Source: PyTorch ``torch.sparse_coo_tensor`` and its ``coalesce``, with a size that is known beforehand.

    >>> import graphc as gx
    >>> table, ids = gx.placeholder("table", (1000, 64)), gx.placeholder("ids", ("n",), "int64")
    >>> (g,) = gx.grad(gx.sum(gx.take(table, ids) ** 2), [table])
    >>> gx.scattered_rows(g).sums
    <take_add: f32[n, 64]>
    """
    node = as_node(x)
    with explaining("scattered_rows", node):
        leaves = scattered_leaves([node]).get(id(node))
        if not leaves:
            raise GraphError(
                f"{node.op.name} is no sum of scattered rows",
                remedy="give the gradient by a table that is read by gx.take and by nothing else",
            )
        touched = touch(leaves)
        return ScatteredRows(touched.places, touched.sums(node), touched.group)


# How a sum of scattered rows is found, and taken apart.


@dataclass(frozen=True)
class Touched:
    """The rows of tables that some :class:`TakeAdd` add to.

    Attributes:
        rows: how many rows a table has.
        places: all indices, one after another.
        group: for each of them the row of the sums that belongs to it.
        parts: of each TakeAdd, by ``id``, the sums of its own rows.
    """

    rows: Size
    places: Node
    group: Node
    parts: Mapping[int, Node]

    def sums(self, x: Node) -> Node:
        """What an elementwise function of the scattered sums is in each row of these, computed there alone."""
        return self._mapped(x, lambda leaf: leaf, None)

    def at_places(self, x: Node) -> Node:
        """What an elementwise function of the scattered sums, and of tables beside them, is at each place."""
        return self._mapped(x, lambda leaf: take(leaf, self.group, 0), self.places)

    def _mapped(self, x: Node, of_leaf: Callable[[Node], Node], places: Node | None) -> Node:
        made: dict[int, Node] = {}
        stack = [x]
        while stack:
            node = stack[-1]
            if id(node) in made:
                stack.pop()
            elif id(node) in self.parts:
                made[id(node)] = of_leaf(self.parts[id(node)])
            elif not self._has_rows(node, x):
                made[id(node)] = node
            elif not is_row_wise(node):
                if places is None:
                    raise GraphError(
                        f"{node.op.name} is no function of scattered rows", remedy="this is a defect of graphc"
                    )
                made[id(node)] = take(node, places, 0)
            elif unknown := [arg for arg in node.args if id(arg) not in made]:
                stack.extend(unknown)
            else:
                args = [made[id(arg)] for arg in node.args]
                count = self.places.shape[0]
                if isinstance(node.op, BroadcastTo):
                    made[id(node)] = broadcast_to(args[0], (count, *node.shape[1:]))
                else:
                    made[id(node)] = apply(node.op, *args)
        return made[id(x)]

    def _has_rows(self, node: Node, x: Node) -> bool:
        return node.ndim == x.ndim and node.shape[0] == self.rows


def touch(leaves: Sequence[Node]) -> Touched:
    """Put the indices of several TakeAdd of one size together, and add the rows of each where an index occurs twice."""
    flat = [reshape(cast_to(leaf.args[1], i64), (leaf.args[1].type.size,)) for leaf in leaves]
    places = flat[0] if len(flat) == 1 else concatenate(flat)
    count = places.shape[0]
    order = argsort(places)
    number = cumsum(cast_to(begins_of(take(places, order, 0), count), i64)) - 1
    group = apply(ScatterAlong(0, count), number, order)
    parts: dict[int, Node] = {}
    start: Size = 0
    for leaf, indices in zip(leaves, flat, strict=True):
        assert isinstance(leaf.op, TakeAdd)
        end = start + indices.shape[0]
        own = group if len(flat) == 1 else take_range(group, 0, start, end)
        values = reshape(leaf.args[0], (indices.shape[0], *leaf.shape[1:]))
        parts[id(leaf)] = apply(TakeAdd(0, count), values, own)
        start = end
    return Touched(leaves[0].shape[0], places, group, parts)


def is_row_wise(node: Node) -> bool:
    """Does each row of a result need only the same row of operands that have as many, whatever the number of rows?"""
    if isinstance(node.op, BroadcastTo):
        (x,) = node.args
        return x.ndim < node.ndim or x.shape[0] == 1
    return isinstance(node.op, Elementwise) and not isinstance(node.op, Checked)


def scattered_leaves(roots: Sequence[Node]) -> dict[int, tuple[Node, ...]]:
    """For each node, by ``id``, that is zero where none of some TakeAdd along the first axis adds anything: these.

    Factors and divisors count as finite: 0 times infinity is NaN.
    """
    found: dict[int, tuple[Node, ...]] = {}
    for node in topological(list(roots)):
        if isinstance(node.op, TakeAdd):
            if node.op.axis == 0:
                found[id(node)] = (node,)
            continue
        if not is_row_wise(node) or isinstance(node.op, BroadcastTo):
            continue
        given = [found.get(id(arg)) for arg in node.args]
        if any(given) and _keeps_zeros(node, [leaves is not None for leaves in given]):
            leaves = {id(leaf): leaf for known in given for leaf in known or ()}
            if all(leaf.shape == node.shape for leaf in leaves.values()):
                found[id(node)] = tuple(leaves.values())
    return found


def _keeps_zeros(node: Node, zero: Sequence[bool]) -> bool:
    """Is the result zero where those of the operands are that ``zero`` says?"""
    match node.op:
        case Add() | Subtract():
            return all(zero)
        case Multiply():
            return True
        case Divide():
            return zero[0] and not zero[1]
        case Maximum() | Minimum():
            if all(zero):
                return True
            bound = scalar_value(node.args[zero.index(False)])
            return bound is not None and (bound <= 0 if isinstance(node.op, Maximum) else bound >= 0)
        case Cast() | Negative() | Abs() | Sign() | Sqrt() | StopGradient() | Recompute():
            return True
        case _:
            return False


__all__ = ["UpdateRows", "scattered_rows", "update_rows"]
