"""Scans on their way to a plan: where carries, elements and results of a loop lie.

The steps of a scan are lowered to a plan of their own, whose launches stand in the outer plan between the marks of a
``Loop``. Nothing is copied from step to step: an element of a sequence is the outer buffer at an address that moves,
and so is the place of a result. A carry lies in a ring of two, or, where all its values are wanted, in an array of
``length + 1``; a step reads one of them and writes the next. Only a carry that is updated in place lies still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import Input, Node
from graphc.ir.op import Op
from graphc.ir.types import TensorType, TupleType
from graphc.lower.index import strides_of
from graphc.lower.plan import Plan
from graphc.lower.views import distances
from graphc.ops.scan import Scan


class LoopOp(Op):
    """A scan whose carries lie as the plan wants them: of each that is not kept, the last two values are a result.

    Attributes:
        body: the step as lowering takes it.
        still: for each carry, whether it is updated in place: then one buffer holds it, and the last value is a result.
    """

    name = "loop"
    attributes = ("scan",)
    scan: Scan
    body: Graph
    still: tuple[bool, ...]

    def __init__(self, scan: Scan, body: Graph, still: tuple[bool, ...]) -> None:
        object.__setattr__(self, "scan", scan)
        object.__setattr__(self, "body", body)
        object.__setattr__(self, "still", still)

    @property
    def key(self) -> tuple[Any, ...]:
        return (LoopOp, self.scan.key)

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return self.scan.bodies

    def infer(self, *types: TensorType) -> TensorType:
        whole = self.scan.infer(*types)
        assert isinstance(whole, TupleType)
        lying = [keep or still for keep, still in zip(self.scan.keep, self.still, strict=True)]
        kept = [*lying, *[True] * (len(whole.parts) - self.scan.carries)]  # results lie as they are
        return TupleType.of(
            part if keep else TensorType(part.dtype, (2, *part.shape))
            for part, keep in zip(whole.parts, kept, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Moving:
    """A part of a buffer, as an array of its own.

    Attributes:
        of: the node whose buffer it lies in.
        offset: where it begins, in elements; in a loop, at the first step.
        step: how far it moves from each step to the next, in elements.
        alternates: whether it moves back at every second step.
    """

    of: Node
    offset: Size
    step: Size = 0
    alternates: bool = False


def stand_in(type: TensorType) -> Node:
    """A key for a buffer that is no node's."""
    return Node(Input("buffer", type), (), type, None)


def slab(node: Node, leading: bool) -> tuple[Node, Size, Size] | None:
    """Where an operand lies densely, read through its views: (the node with the buffer, offset, stride).

    Args:
        node: the operand.
        leading: whether it is a sequence, whose elements are dense, and ``stride`` elements apart.
    """
    lying = distances(node)
    if lying is None:
        return None
    source, found, offset = lying
    inner = list(zip(found, strides_of(node.shape), node.shape, strict=True))[int(leading) :]
    if any(distance != dense and size != 1 for distance, dense, size in inner):
        return None
    return source, offset, found[0] if leading else 0


@dataclass(eq=False)
class Steps:
    """A loop before buffers have numbers.

    Attributes:
        plan: that of one step.
        inputs, outputs: for each input and output of the step the key of its buffer.
        first_check: the number of the step's first check in the outer plan.
        steps: of a loop that ends by itself, the key of the number of its steps.
        going: of such a loop, the key of the bool that says whether there is a next one.
    """

    plan: Plan
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    count: Size
    first_check: int
    steps: Node | None = None
    going: Node | None = None


def storage(node: Node, parts: Sequence[Node | None]) -> list[Node]:
    """The node whose buffer holds each result: the ``Part`` that someone reads, or a stand-in."""
    assert isinstance(node.type, TupleType)
    return [stand_in(type) if part is None else part for type, part in zip(node.type.parts, parts, strict=True)]


def carry_places(loop: LoopOp, position: int, stored: Node) -> tuple[Moving, Moving, Size]:
    """Where a step reads a carry and where it writes the next one, and the offset of the first value."""
    op = loop.scan
    size = TensorType(stored.dtype, stored.shape[1:]).size
    if loop.still[position]:
        return Moving(stored, 0), Moving(stored, 0), 0
    if not op.keep[position]:
        return Moving(stored, 0, size, True), Moving(stored, size, -size, True), 0
    if op.reverse:
        return Moving(stored, op.length * size, -size), Moving(stored, (op.length - 1) * size, -size), op.length * size
    return Moving(stored, 0, size), Moving(stored, size, size), 0


def element_place(op: Scan, source: Node, offset: Size, stride: Size) -> Moving:
    """Where the element of a step lies in a sequence."""
    if op.reverse:
        return Moving(source, offset + (op.length - 1) * stride, -stride)
    return Moving(source, offset, stride)
