"""Attention with the heads inside the rows of its results, which is how projections read them.

Results are written with the queries' axis in front of the heads', which makes the transposition behind them a view.
Gradients that are put side by side for one projection, as those of queries, keys and values, are written there at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dims import Size, product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import Shape, TensorType
from graphc.lower.index import strides_of
from graphc.ops.attention import ScaledDotProductAttention
from graphc.ops.attention_gradients import AttentionGradients
from graphc.ops.cast import Cast
from graphc.ops.movement import Concatenate, Reshape, Transpose, reshape, transpose
from graphc.ops.slicing import Slice, take_range


class HeadsInside(Op):
    """Attention or its gradients, with the axis before the last two of each result inside that of its rows.

    Attributes:
        op: what is computed.
        inside: whether gradients are so, too; not where somebody reads all of them as one row.
        joined: the numbers of gradients, one after the other, whose rows lie side by side: for each position all heads
            of the first one, then all of the next. None, or two or three.
    """

    name = "heads_inside"
    attributes = ("op", "inside", "joined")
    op: ScaledDotProductAttention | AttentionGradients
    inside: bool
    joined: tuple[int, ...]

    def __init__(
        self, op: ScaledDotProductAttention | AttentionGradients, inside: bool = True, joined: tuple[int, ...] = ()
    ) -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "inside", inside)
        object.__setattr__(self, "joined", joined)

    @property
    def key(self) -> tuple[Any, ...]:
        return (HeadsInside, self.op.key, self.inside, self.joined)

    def infer(self, *types: TensorType) -> TensorType:
        found = self.op.infer(*types)
        if isinstance(self.op, AttentionGradients):
            return found
        return TensorType(found.dtype, _inside(found.shape))

    def gradients(self, args: Sequence[Node]) -> Gradients:
        """Where gradients lie, given the operands."""
        assert isinstance(self.op, AttentionGradients)
        return Gradients(gradients_of(self.op, args).shapes, self.inside, self.joined)


@dataclass(frozen=True)
class Gradients:
    """Where the gradients by query, key and value lie in the row that holds all three.

    Attributes:
        shapes: theirs, with the heads in front of the rows.
        inside, joined: as in :class:`HeadsInside`.
    """

    shapes: tuple[Shape, ...]
    inside: bool = False
    joined: tuple[int, ...] = ()

    def start(self, number: int) -> Size:
        """Where a gradient begins if none are joined."""
        return sum((product(shape) for shape in self.shapes[:number]), start=0)

    @property
    def block(self) -> Shape:
        """The shape of those that are joined."""
        first = self.shapes[self.joined[0]]
        return (*_inside(first)[:-2], sum((_width(self.shapes[n]) for n in self.joined), start=0))

    def column(self, number: int) -> Size:
        """Where the columns of a joined gradient begin."""
        return sum((_width(self.shapes[n]) for n in self.joined if n < number), start=0)

    def place(self, number: int) -> tuple[Size, list[Size]]:
        """Where a gradient begins, and the distances along its axes."""
        shape = self.shapes[number]
        if number not in self.joined:
            return self.start(number), distances_of(_inside(shape) if self.inside else shape, self.inside)
        *before, row, column = strides_of(self.block)
        return self.start(self.joined[0]) + self.column(number), [*before, shape[-1], row, column]

    def take(self, whole: Node, number: int) -> Node:
        """A gradient of those in a row, with its axes."""
        shape = self.shapes[number]
        if number in self.joined:
            first = self.column(number)
            found = take_range(self.take_joined(whole), len(shape) - 2, first, first + _width(shape))
        else:
            found = take_range(whole, 0, self.start(number), self.start(number + 1))
        return _outside(reshape(found, _inside(shape))) if self.inside else reshape(found, shape)

    def take_joined(self, whole: Node) -> Node:
        """All that are joined, as one array of rows."""
        start, stop = self.start(self.joined[0]), self.start(self.joined[-1] + 1)
        return reshape(take_range(whole, 0, start, stop), self.block)

    def number_of(self, op: Slice) -> int | None:
        """The gradient that a slice takes out of the row, if it takes one."""
        places = ((self.start(number), self.start(number + 1)) for number in range(len(self.shapes)))
        taken = (number for number, place in enumerate(places) if place == (op.starts[0], op.stops[0]))
        return next(taken, None) if op.steps[0] == 1 else None


def gradients_of(op: AttentionGradients, args: Sequence[Node]) -> Gradients:
    """Where gradients lie that nobody has moved."""
    operands, _, cotangent, _ = op.parts(args)
    return Gradients(tuple(op.shapes(cotangent.shape[:-2], [x.shape for x in operands])))


def distances_of(shape: Shape, inside: bool) -> list[Size]:
    """The distances along axes with heads in front of rows, of what lies in this shape, perhaps with heads inside."""
    found = list(strides_of(shape))
    if inside and len(found) > 2:
        found[-3], found[-2] = found[-2], found[-3]
    return found


def _inside(shape: Shape) -> Shape:
    """With the heads inside the rows."""
    return shape if len(shape) < 3 else (*shape[:-3], shape[-2], shape[-3], shape[-1])


def _outside(x: Node) -> Node:
    """With the heads in front of the rows again."""
    return x if x.ndim < 3 else transpose(x, _turn(x.ndim))


def _turn(ndim: int) -> tuple[int, ...]:
    return (*range(ndim - 3), ndim - 2, ndim - 3, ndim - 1)


def _width(shape: Shape) -> Size:
    """Of a row of all heads."""
    return shape[-3] * shape[-1]


def put_heads_inside(graph: Graph) -> Graph:
    """The graph with attention as items compute it."""
    if not any(isinstance(node.op, ScaledDotProductAttention | AttentionGradients) for node in graph.nodes):
        return graph
    return graph.rebuild(_Turning(graph).replace)


class _Turning:
    """A graph whose attention is replaced.

    Attributes:
        outside: results of attention as they were, rounded or not: views of those that are computed.
        rows: by the node as it was, a row of all gradients, rounded or not, and where they lie there.
        pieces: of a gradient that was sliced out of those, as a row of elements: the same with its axes.
        side_by_side: of concatenations what they hold: gradients out of a row.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.outside: set[Node] = set()
        self.rows: dict[Node, tuple[Node, Gradients]] = {}
        self.pieces: dict[Node, Node] = {}
        found = ((node, _side_by_side(node)) for node in graph.nodes if isinstance(node.op, Concatenate))
        self.side_by_side = {node: held for node, held in found if held is not None}

    def replace(self, node: Node, args: tuple[Node, ...]) -> Node | None:
        """What stands for a node, given what stands for its operands; None for the same op."""
        op, first = node.op, node.args[0] if node.args else node
        if isinstance(op, ScaledDotProductAttention):
            made = _outside(apply(HeadsInside(op), *args))
            self.outside.add(made)
            return made
        if isinstance(op, AttentionGradients):
            gradients = self._laid_out(node, op)
            made = apply(HeadsInside(op, gradients.inside, gradients.joined), *args)
            self.rows[node] = made, gradients
            return made
        if isinstance(op, Cast) and first in self.rows:
            made = apply(op, *args)
            self.rows[node] = made, self.rows[first][1]
            return made
        if isinstance(op, Cast) and args[0] in self.outside and args[0].ndim > 2:
            made = _outside(apply(op, *args[0].args))  # in the order of memory
            self.outside.add(made)
            return made
        if isinstance(op, Slice) and first in self.rows and self.rows[first][1].inside:
            whole, gradients = self.rows[first]
            number = gradients.number_of(op)
            assert number is not None  # they are taken apart
            found = gradients.take(whole, number)
            flat = reshape(found, node.shape)
            self.pieces[flat] = found
            return flat
        if isinstance(op, Reshape) and args[0] in self.pieces:
            return reshape(self.pieces[args[0]], node.shape)
        if node in self.side_by_side:
            row, numbers = self.side_by_side[node]
            whole, gradients = self.rows[row]
            return reshape(gradients.take_joined(whole), node.shape) if numbers == gradients.joined else None
        return None

    def _laid_out(self, node: Node, op: AttentionGradients) -> Gradients:
        """Where gradients are written, as whoever reads them has use for."""
        gradients, rows = gradients_of(op, node.args), [node]
        for row in rows:
            for user in self.graph.users[id(row)]:
                if isinstance(user.op, Cast):
                    rows.append(user)
                elif not isinstance(user.op, Slice) or gradients.number_of(user.op) is None:
                    return gradients
        known = set(rows)
        if known & set(self.graph.roots):
            return gradients
        wanted = [numbers for row, numbers in self.side_by_side.values() if row in known]
        return Gradients(gradients.shapes, True, max(wanted, key=len, default=()))


def _side_by_side(node: Node) -> tuple[Node, tuple[int, ...]] | None:
    """The row of gradients, and the numbers of those whose rows a concatenation puts side by side."""
    found = [_gradient_in(arg) for arg in node.args]
    known = [pair for pair in found if pair is not None]
    if node.op != Concatenate(node.ndim - 1) or len(known) < max(len(found), 2):
        return None
    (row, first), numbers = known[0], tuple(number for _, number in known)
    alike = {_gradients_in(row).shapes[number][:-1] for number in numbers}
    follow = numbers == tuple(range(first, first + len(numbers)))
    return (row, numbers) if follow and len(alike) == 1 and all(other is row for other, _ in known) else None


def _gradient_in(x: Node) -> tuple[Node, int] | None:
    """The row of gradients and the number of that one of which an operand is all rows, with heads side by side."""
    path: list[Node] = []
    for kind in (Reshape, Transpose, Reshape, Slice):
        if not isinstance(x.op, kind):
            return None
        path.append(x)
        x = x.args[0]
    joined, turned, gradient, piece = path
    if not isinstance(_computed(x).op, AttentionGradients):
        return None
    gradients = _gradients_in(x)
    number = gradients.number_of(piece.op)  # pyright: ignore[reportArgumentType]
    if number is None or gradient.shape != gradients.shapes[number] or gradient.ndim < 3:
        return None
    rows = turned.op == Transpose(_turn(gradient.ndim)) and joined.shape[-1] == _width(gradient.shape)
    return (x, number) if rows else None


def _computed(row: Node) -> Node:
    """What is rounded in a row, if anything is."""
    while isinstance(row.op, Cast):
        row = row.args[0]
    return row


def _gradients_in(row: Node) -> Gradients:
    node = _computed(row)
    assert isinstance(node.op, AttentionGradients)
    return gradients_of(node.op, node.args)
