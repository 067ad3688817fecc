"""Values of parameters and constants alone that are worth preparing: computed once, and not at every call.

What is chosen are the last values before something that differs from call to call reads them: a transformed kernel, a
weight that a product would read as a copy, the factor of a normalization. What lowering reads through for free, such
as a transpose or a repetition, is not chosen, nor what is computed in passing where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphc.ir.graph import Graph, substitute_nodes
from graphc.ir.node import Constant, Node, Parameter
from graphc.ir.types import TensorType, TupleType
from graphc.lower.loop import slab
from graphc.lower.opaque import as_matrix
from graphc.lower.sources import free
from graphc.lower.views import behind_views, is_view
from graphc.ops.base import Elementwise
from graphc.ops.cast import Cast
from graphc.ops.cumulative import Cumulative
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.linear import MatMul
from graphc.ops.movement import Concatenate, Transpose
from graphc.ops.reduction import ArgMax, ArgMin, Reduce
from graphc.ops.scatter import ScatterAlong, TakeAdd
from graphc.ops.sorting import ArgSort
from graphc.ops.update import UpdateSlice
from graphc.passes.fixed import FixedValues
from graphc.passes.remat import DEAR

SMALL = 1 << 16
"""Elements of a value that is prepared even to save a few cheap operations on each."""
GROWTH, ALWAYS = 2, 4096
"""Elements for each one of the parameters, and elements, beyond which a repeated value is computed where it is read."""

_IN_PASSING = (
    Elementwise, Reduce, ArgMax, ArgMin, Take, TakeAlong, TakeAdd, ScatterAlong, UpdateSlice, Concatenate, Cumulative,
    ArgSort,
)  # fmt: skip
"""Ops whose kernels compute elementwise operands themselves; all others read operands out of memory."""


def worth_preparing(graph: Graph, halves: bool = False) -> tuple[Node, ...]:
    """The values, of a graph as a backend takes it, that should be parameters for it.

    A program without inputs has none: it is called because parameters have changed.

    Args:
        graph: with its composites decomposed.
        halves: does the backend multiply 16-bit floats as they are, so that no copies of them are to be widened?
    """
    if not graph.inputs:
        return ()
    search = _Search(FixedValues(parameter for parameter, _ in graph.updates), halves)
    for node in graph.nodes:
        if not search.fixed.holds(node):
            for arg in node.args:
                search.look_at(arg, node)
    for root in graph.roots:
        search.look_at(root, None)
    return tuple(node for node in graph.nodes if node in search.chosen)


def with_prepared(graph: Graph, prepared: Iterable[tuple[Node, Parameter]]) -> Graph:
    """The graph that reads these parameters instead of computing the nodes."""
    table: dict[Node, Node] = dict(prepared)
    return graph.with_roots(substitute_nodes(graph.roots, table))


@dataclass(frozen=True)
class _Cone:
    """What a fixed value is made of.

    Attributes:
        leaves: parameters, and constants of more than one element.
        is_simple: is everything elementwise?
        is_dear: do some operations take long?
    """

    leaves: frozenset[Node]
    is_simple: bool
    is_dear: bool

    @property
    def elements(self) -> int:
        """How many elements the leaves have."""
        return sum(_elements(leaf.type) for leaf in self.leaves)


@dataclass
class _Search:
    """Which fixed values have been chosen so far."""

    fixed: FixedValues
    halves: bool
    chosen: set[Node] = field(default_factory=set[Node])
    _cones: dict[Node, _Cone] = field(default_factory=dict[Node, _Cone])

    def look_at(self, node: Node, reader: Node | None) -> None:
        """Choose what is worth it among what a reader, or an output, needs of an operand."""
        pending = [(node, reader)]
        while pending:
            node, reader = pending.pop()
            if not self.fixed.holds(node):
                continue
            if self._needs_copy(node, reader):
                self.chosen.add(node)
                continue
            source = behind_views(node)
            if source.args and source not in self.chosen:
                if self._is_worth(source, reader):
                    self.chosen.add(source)
                else:
                    pending += [(arg, source) for arg in source.args]

    def _is_worth(self, node: Node, reader: Node | None) -> bool:
        if isinstance(node.type, TupleType):
            return False  # several results: whatever takes one of them has been looked at
        cone = self._cone(node)
        if not cone.leaves or free(node):
            return False
        count = _elements(node.type)
        if isinstance(node.op, Elementwise) and count > max(ALWAYS, GROWTH * cone.elements):
            return False
        if not cone.is_simple:
            return True
        if count == 1 or reader is None:
            return False
        if not isinstance(reader.op, _IN_PASSING) or count <= SMALL:
            return True
        return cone.is_dear and not isinstance(reader.op, Take | TakeAlong)

    def _needs_copy(self, node: Node, reader: Node | None) -> bool:
        """Is it a view that the reader cannot walk, so that each call would copy it?"""
        if reader is None or not is_view(node) or isinstance(reader.op, _IN_PASSING) or is_view(reader) or free(node):
            return False
        cone = self._cone(node)
        if not cone.leaves or _elements(node.type) > GROWTH * cone.elements:
            return False
        if isinstance(reader.op, MatMul):
            return as_matrix(node) is None and not (self.halves and _widens(node))
        if reader.op.bodies and isinstance(node.op, Transpose) and node.ndim == 2:
            return False  # products of one row within take it as it lies
        return slab(node, False) is None and not (reader.op.bodies and slab(node, True) is not None)

    def _cone(self, node: Node) -> _Cone:
        stack = [node]
        while stack:
            current = stack[-1]
            unknown = [arg for arg in current.args if arg not in self._cones]
            if unknown:
                stack.extend(unknown)
                continue
            stack.pop()
            if current not in self._cones:
                self._cones[current] = _joined(current, [self._cones[arg] for arg in current.args])
        return self._cones[node]


def _widens(node: Node) -> bool:
    """Is it a view of 16-bit floats as float32?"""
    while is_view(node):
        if isinstance(node.op, Cast):
            return True
        node = node.args[0]
    return False


def _joined(node: Node, parts: Sequence[_Cone]) -> _Cone:
    op = node.op
    if isinstance(node, Parameter) or (isinstance(op, Constant) and len(op.data) > node.dtype.itemsize):
        return _Cone(frozenset((node,)), True, False)
    simple = not node.args or is_view(node) or isinstance(op, Elementwise)
    dear = isinstance(op, Elementwise) and op.fn in DEAR
    return _Cone(
        frozenset[Node]().union(*(part.leaves for part in parts)),
        simple and all(part.is_simple for part in parts),
        dear or any(part.is_dear for part in parts),
    )


def _elements(type: TensorType) -> int:
    size = type.size
    assert isinstance(size, int)  # fixed values have no size that a call decides
    return size
