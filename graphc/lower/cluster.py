"""Fusion: which nodes are computed together in one kernel.

A cluster is a set of nodes with one iteration space: loop variables with extents, some of which may be *inner*
variables, over which its reductions run. Each node of a cluster has the index, in these variables, at which it is
computed: a full index, or one without inner variables (a row's value, such as a maximum or a mean).

Every node begins as a cluster of its own. Two clusters merge along an edge when the consumer reads the producer at
exactly the point that it computes itself, when their inner variables agree, and when no path between them leads
through a third cluster. Edges are tried in the order of the bytes that a merge keeps out of memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphc.ir.dims import Size, evaluate, names, substitute
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Input, Node, ParameterLeaf
from graphc.ir.sweep import Part
from graphc.loops.kernel import EXPENSIVE
from graphc.lower.attention import HeadsInside
from graphc.lower.branch import BranchOp
from graphc.lower.index import Index, loop_index
from graphc.lower.loop import LoopOp
from graphc.lower.padded import PaddedWindows
from graphc.lower.patches import PatchParts
from graphc.lower.rows import RowProduct
from graphc.lower.views import broadcast_index, is_view, through_views
from graphc.ops.base import Elementwise
from graphc.ops.checked import CheckFinite, InRange
from graphc.ops.control import Recompute
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from graphc.ops.create import Iota, SizeOf
from graphc.ops.cumulative import Cumulative
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.linear import MatMul
from graphc.ops.movement import Concatenate
from graphc.ops.padding import Pad
from graphc.ops.panels import PackedPanels, PanelProduct
from graphc.ops.patches import PatchProduct
from graphc.ops.random import RandomBits
from graphc.ops.reduction import ArgMax, ArgMin, Reduce
from graphc.ops.rows import UpdateRows
from graphc.ops.scatter import ScatterAlong, TakeAdd
from graphc.ops.sorting import ArgSort
from graphc.ops.update import UpdateSlice
from graphc.ops.winograd import WinogradProduct

OPAQUE = (
    MatMul, PatchProduct, PatchParts, HeadsInside, TakeAdd, ScatterAlong, UpdateSlice, UpdateRows, Concatenate,
    Cumulative, ArgSort, LoopOp, BranchOp, Part, PackedPanels, PanelProduct, WinogradProduct, Conv, ConvTranspose,
    ConvKernelGrad,
)  # fmt: skip
"""Ops that are a kernel of their own."""

TYPICAL_SIZE = 64
"""What a symbolic size counts as when bytes are compared."""

MOST_NODES = 96
_variables = itertools.count()


@dataclass(eq=False)
class Cluster:
    """Nodes computed in one kernel.

    Attributes:
        variables: the loop variables of the iteration space, outermost first.
        inner: those over which reductions run; empty for purely elementwise work.
        extents: the extent of each variable.
        at: the index at which each node is computed, by ``id``.
        inner_at: for each reduction, the index at which it reads its operand.
    """

    nodes: list[Node]
    variables: tuple[str, ...]
    extents: dict[str, Size]
    inner: tuple[str, ...] = ()
    at: dict[int, Index] = field(default_factory=dict[int, Index])
    inner_at: dict[int, Index] = field(default_factory=dict[int, Index])

    @property
    def rows(self) -> tuple[str, ...]:
        """The variables that are not inner."""
        return tuple(v for v in self.variables if v not in self.inner)

    @property
    def is_opaque(self) -> bool:
        return isinstance(self.nodes[0].op, OPAQUE)

    @property
    def by_column(self) -> bool:
        """Do reductions run over outer variables while the innermost, contiguous one is kept?"""
        if not self.inner or self.variables[-1] in self.inner:
            return False
        return not any(isinstance(node.op, ArgMax | ArgMin) and reduces(node) for node in self.nodes)

    def is_full(self, node: Node) -> bool:
        """Is the node computed at every point, not once a row?"""
        used = {name for part in self.at[id(node)] for name in names(part)}
        return not self.inner or bool(used & set(self.inner))


_known_free: dict[int, bool] = {}
"""By uid, which is never given twice; emptied when it grows large."""


def free(node: Node) -> bool:
    """Is the node recomputed wherever it is read: a constant, a position, a size, or cheap work on only these?"""
    found = _known_free.get(node.uid)
    if found is not None:
        return found
    if len(_known_free) > 200_000:
        _known_free.clear()
    stack = [node]
    while stack:
        current = stack[-1]
        unknown = [arg for arg in current.args if arg.uid not in _known_free]
        if unknown and _passes_freedom_on(current):
            stack.extend(unknown)
            continue
        stack.pop()
        _known_free[current.uid] = _is_source_of_freedom(current) or (
            _passes_freedom_on(current) and bool(current.args) and all(_known_free[arg.uid] for arg in current.args)
        )
    return _known_free[node.uid]


def _is_source_of_freedom(node: Node) -> bool:
    if isinstance(node.op, Constant):
        return len(node.op.data) == node.dtype.itemsize
    return isinstance(node.op, Iota | SizeOf)


def _passes_freedom_on(node: Node) -> bool:
    if is_view(node):
        return True
    return isinstance(node.op, Elementwise) and not isinstance(node.op, InRange | CheckFinite)


def is_leaf(node: Node) -> bool:
    """Does the node have its value before any kernel runs?"""
    return isinstance(node.op, Input | ParameterLeaf | Constant) and not free(node)


def reduces(node: Node) -> bool:
    """Does the node combine several elements? A reduction over axes of size 1 does not."""
    if isinstance(node.op, Reduce):
        return any(node.args[0].shape[axis] != 1 for axis in node.op.axes)
    return isinstance(node.op, ArgMax | ArgMin) and node.args[0].shape[node.op.axis] != 1


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes over which a reduction runs."""
    match node.op:
        case Reduce(axes=axes):
            return axes
        case ArgMax(axis=axis) | ArgMin(axis=axis):
            return (axis,)
        case _:
            return ()


def operand_of_trivial(node: Node, index: Index) -> Index:
    """Where a reduction over axes of size 1 reads its operand."""
    if len(index) == node.args[0].ndim:
        return index
    axes = reduced_axes(node)
    rest = iter(index)
    return tuple(0 if axis in axes else next(rest) for axis in range(node.args[0].ndim))


def new_cluster(node: Node) -> Cluster:
    """A node alone."""
    space = node.args[0].shape if reduces(node) else node.shape
    index: list[Size] = []
    variables: list[str] = []
    extents: dict[str, Size] = {}
    for size in space:
        if size == 1:
            index.append(0)
            continue
        name = f"%x{next(_variables)}"
        variables.append(name)
        extents[name] = size
        index.append(loop_index(name[1:]))
    cluster = Cluster([node], tuple(variables), extents)
    if reduces(node):
        axes = reduced_axes(node)
        inner = {name for axis in axes for name in names(index[axis])}
        cluster.inner = tuple(v for v in variables if v in inner)
        cluster.inner_at[id(node)] = tuple(index)
        kept = [0 if axis in axes else part for axis, part in enumerate(index)]
        keepdims = isinstance(node.op, Reduce | ArgMax | ArgMin) and node.op.keepdims
        cluster.at[id(node)] = tuple(part for axis, part in enumerate(kept) if keepdims or axis not in axes)
    else:
        cluster.at[id(node)] = tuple(index)
    return cluster


def operand_indices(node: Node, cluster: Cluster) -> list[Index | None]:
    """For each operand the index at which the cluster reads it; None where that depends on data or moves."""
    index = cluster.at[id(node)]
    op = node.op
    if isinstance(op, Reduce | ArgMax | ArgMin):
        return [cluster.inner_at[id(node)] if reduces(node) else operand_of_trivial(node, index)]
    if isinstance(op, Take):
        return [None, index[op.axis : op.axis + node.args[1].ndim]]
    if isinstance(op, TakeAlong):
        return [None, broadcast_index(index, node.args[1].shape)]
    if isinstance(op, Pad | PaddedWindows):
        return [None, ()]
    if isinstance(op, RandomBits):
        return [(), ()]
    if isinstance(op, Elementwise):
        return [broadcast_index(index, arg.shape) for arg in node.args]
    return [None for _ in node.args]


@dataclass
class Fusion:
    """The clusters of a graph while they merge."""

    graph: Graph
    pinned: frozenset[int] = frozenset()
    """Nodes whose value needs a buffer whatever is fused: outputs and updates."""
    updates: frozenset[int] = frozenset()
    """What only the parameters' next values need: its kernels stay elementwise, so that they can write in place, and
    so that the updates of all parameters are the same kernel."""
    home: dict[int, Cluster] = field(default_factory=dict[int, Cluster])

    _alive: dict[int, Cluster] = field(default_factory=dict[int, Cluster])
    _producers: dict[int, set[Cluster]] = field(default_factory=dict[int, set[Cluster]])
    _place: dict[int, int] = field(default_factory=dict[int, int])
    _consumers: dict[int, set[Cluster]] = field(default_factory=dict[int, set[Cluster]])
    _last: dict[int, int] = field(default_factory=dict[int, int])
    _bits: dict[int, int] = field(default_factory=dict[int, int])
    """Of each cluster the places of those that were merged into it, as bits of a number."""
    _needs: dict[int, int] = field(default_factory=dict[int, int])
    """Of each cluster the bits of all that it needs, directly or not."""

    @property
    def clusters(self) -> list[Cluster]:
        """The clusters as they are now."""
        return list(self._alive.values())

    def run(self) -> list[Cluster]:
        """Merge until nothing more is gained; clusters in an order in which they can run."""
        self._place = {id(node): place for place, node in enumerate(self.graph.nodes)}
        for node in self.graph.nodes:
            if not is_view(node) and not is_leaf(node) and (not free(node) or id(node) in self.pinned):
                cluster = new_cluster(node)
                self._alive[id(cluster)] = cluster
                self.home[id(node)] = cluster
                found = {self.home[id(source)] for source in sources(node) if id(source) in self.home}
                self._producers[id(cluster)] = found - {cluster}
                self._consumers[id(cluster)] = set()
                for producer in self._producers[id(cluster)]:
                    self._consumers[id(producer)].add(cluster)
                self._last[id(cluster)] = self._place[id(node)]
                self._bits[id(cluster)] = 1 << self._place[id(node)]
                self._needs[id(cluster)] = self._needed_by(self._producers[id(cluster)])
        self._merge_edges()
        self._merge_scalars()
        return self.order()

    def producers(self, cluster: Cluster) -> set[Cluster]:
        """The clusters whose results this one reads."""
        return self._producers[id(cluster)]

    def order(self) -> list[Cluster]:
        """Producers before consumers."""
        done: dict[int, None] = {}
        result: list[Cluster] = []
        for root in self.clusters:
            stack = [(root, False)]
            while stack:
                cluster, ready = stack.pop()
                if ready:
                    result.append(cluster)
                elif id(cluster) not in done:
                    done[id(cluster)] = None
                    stack.append((cluster, True))
                    needed = sorted(self.producers(cluster), key=lambda c: -self._last[id(c)])
                    stack.extend((p, False) for p in needed if id(p) not in done)
        return result

    def _edges(self) -> list[tuple[int, int, Node, Node, int]]:
        edges: list[tuple[int, int, Node, Node, int]] = []
        for place, node in enumerate(self.graph.nodes):
            if id(node) not in self.home:
                continue
            for position, arg in enumerate(node.args):
                if is_apart(arg):
                    continue
                source = _computed(arg)
                if id(source) in self.home:
                    edges.append((-_bytes(source), place, source, node, position))
        edges.sort(key=lambda edge: edge[:2])
        return edges

    def _merge_edges(self) -> None:
        edges = self._edges()
        changed = True
        while changed:
            changed = False
            for _, _, source, node, position in edges:
                producer, consumer = self.home[id(source)], self.home[id(node)]
                if producer is consumer:
                    continue
                merged = self._combine(producer, consumer, source, node, position)
                if merged is not None and not self._other_path(producer, consumer):
                    self._replace(producer, consumer, merged)
                    changed = True

    def _merge_scalars(self) -> None:
        """Put independent work on single numbers into one kernel: schedules, bias corrections, counters."""
        scalars = [c for c in self.clusters if not c.variables and not c.is_opaque]
        for left, right in itertools.combinations(scalars, 2):
            a, b = self.home[id(left.nodes[0])], self.home[id(right.nodes[0])]
            if a is b or self._reaches(a, b) or self._reaches(b, a):
                continue
            merged = Cluster(a.nodes + b.nodes, (), {}, (), {**a.at, **b.at}, {})
            self._replace(a, b, merged)

    def _replace(self, a: Cluster, b: Cluster, merged: Cluster) -> None:
        merged.nodes.sort(key=lambda node: self._place[id(node)])
        del self._alive[id(a)], self._alive[id(b)]
        self._alive[id(merged)] = merged
        for node in merged.nodes:
            self.home[id(node)] = merged
        self._producers[id(merged)] = (self._producers.pop(id(a)) | self._producers.pop(id(b))) - {a, b}
        self._consumers[id(merged)] = (self._consumers.pop(id(a)) | self._consumers.pop(id(b))) - {a, b}
        for consumer in self._consumers[id(merged)]:
            self._producers[id(consumer)] -= {a, b}
            self._producers[id(consumer)].add(merged)
        for producer in self._producers[id(merged)]:
            self._consumers[id(producer)] -= {a, b}
            self._consumers[id(producer)].add(merged)
        self._raise_last(merged, max(self._last.pop(id(a)), self._last.pop(id(b))))
        self._bits[id(merged)] = bits = self._bits.pop(id(a)) | self._bits.pop(id(b))
        self._needs[id(merged)] = (self._needs.pop(id(a)) | self._needs.pop(id(b))) & ~bits
        self._spread_needs(merged)

    def _needed_by(self, producers: Iterable[Cluster]) -> int:
        found = 0
        for producer in producers:
            found |= self._needs[id(producer)] | self._bits[id(producer)]
        return found

    def _spread_needs(self, start: Cluster) -> None:
        """What needs a cluster needs all that it needs."""
        stack = [start]
        while stack:
            cluster = stack.pop()
            gained = self._needs[id(cluster)] | self._bits[id(cluster)]
            for consumer in self._consumers[id(cluster)]:
                before = self._needs[id(consumer)]
                if before | gained != before:
                    self._needs[id(consumer)] = before | gained
                    stack.append(consumer)

    def _raise_last(self, start: Cluster, place: int) -> None:
        """A cluster and all that need it now depend on something as late as ``place``."""
        self._last[id(start)] = place
        stack = [start]
        while stack:
            for consumer in self._consumers[id(stack.pop())]:
                if self._last[id(consumer)] < place:
                    self._last[id(consumer)] = place
                    stack.append(consumer)

    def _reaches(self, start: Cluster, goal: Cluster, skip_direct: bool = False) -> bool:
        """Does ``goal`` need ``start``? With ``skip_direct``: other than by reading it itself?"""
        bits = self._bits[id(start)]
        if not skip_direct:
            return bool(self._needs[id(goal)] & bits)
        return any(self._needs[id(p)] & bits for p in self.producers(goal) if p is not start)

    def _other_path(self, producer: Cluster, consumer: Cluster) -> bool:
        return self._reaches(producer, consumer, skip_direct=True) or self._reaches(consumer, producer)

    def _combine(self, producer: Cluster, consumer: Cluster, source: Node, node: Node, position: int) -> Cluster | None:
        """The two clusters as one, or None where their loops do not fit."""
        if producer.is_opaque or consumer.is_opaque or len(producer.nodes) + len(consumer.nodes) > MOST_NODES:
            return None
        if (producer.inner and self._updates(consumer)) or (consumer.inner and self._updates(producer)):
            return None
        index = operand_indices(node, consumer)[position]
        if index is None:
            return None
        read, needed = through_views(node.args[position], index, consumer.extents)
        if read is not source:
            return None
        mapping = _match(producer.at[id(source)], needed, producer, consumer)
        if mapping is None:
            return None
        return self._join(producer, consumer, mapping)

    def _updates(self, cluster: Cluster) -> bool:
        return any(id(node) in self.updates for node in cluster.nodes)

    def _join(self, producer: Cluster, consumer: Cluster, mapping: dict[str, str]) -> Cluster | None:
        unmapped = [v for v in producer.variables if v not in mapping]
        image = set(mapping.values())
        rest = [v for v in consumer.variables if v not in image]
        inner = tuple(mapping[v] for v in producer.inner if v in mapping)
        if unmapped:
            # the consumer reads a reduction's row value: its other variables take the place of the inner ones
            if set(unmapped) != set(producer.inner):
                return None
            if rest:
                if len(rest) != len(unmapped):
                    return None
                if any(producer.extents[a] != consumer.extents[b] for a, b in zip(unmapped, rest, strict=True)):
                    return None
                if consumer.inner and set(consumer.inner) != set(rest):
                    return None
                mapping = {**mapping, **dict(zip(unmapped, rest, strict=True))}
                return self._checked(producer, consumer, mapping, consumer.variables, tuple(rest))
            if consumer.inner:
                return None
            # an epilogue: the producer's loops stay, the consumer joins them at row level
            if any(isinstance(node.op, RowProduct) for node in producer.nodes) and _is_dear(consumer):
                return None
            back = {b: a for a, b in mapping.items()}
            return self._checked(consumer, producer, back, producer.variables, producer.inner)
        if inner and consumer.inner and set(inner) != set(consumer.inner):
            return None
        if rest:
            # the producer lacks some of the consumer's variables: only as the row level of its reductions
            if inner or set(rest) != set(consumer.inner) or not consumer.inner:
                return None
        return self._checked(producer, consumer, mapping, consumer.variables, inner or consumer.inner)

    def _checked(
        self,
        moved: Cluster,
        kept: Cluster,
        mapping: Mapping[str, str],
        variables: tuple[str, ...],
        inner: tuple[str, ...],
    ) -> Cluster | None:
        rename = _Renaming({old: loop_index(new[1:]) for old, new in mapping.items()})
        merged = Cluster(
            moved.nodes + kept.nodes,
            variables,
            kept.extents,
            tuple(v for v in variables if v in inner),
            {**{k: rename(at) for k, at in moved.at.items()}, **kept.at},
            {**{k: rename(at) for k, at in moved.inner_at.items()}, **kept.inner_at},
        )
        if merged.by_column and not _single_stage(merged):
            return None
        return merged if _read_where_computed(moved, kept, merged) else None


def _is_dear(cluster: Cluster) -> bool:
    return any(isinstance(node.op, Elementwise) and node.op.fn in EXPENSIVE for node in cluster.nodes)


def _read_where_computed(left: Cluster, right: Cluster, merged: Cluster) -> bool:
    """Does each of two clusters read the other's values only at the points at which they are computed?

    A value that is read at two indices belongs to another kernel: here it would be computed twice, or, behind a
    reduction, not be known at all.
    """
    for readers, others in ((left.nodes, right), (right.nodes, left)):
        theirs = {id(node) for node in others.nodes}
        for node in readers:
            indices: list[Index | None] | None = None
            for position, arg in enumerate(node.args):
                if not any(id(source) in theirs for source in sources_of(arg)):
                    continue
                indices = indices or operand_indices(node, merged)
                index = indices[position]
                if index is None or not _is_own_point(arg, index, merged, theirs):
                    return False
    return True


def _is_own_point(node: Node, index: Index, cluster: Cluster, computed: set[int]) -> bool:
    """Is every computed node that is read for an element of ``node`` read where the cluster computes it?"""
    stack = [(node, index)]
    while stack:
        node, index = through_views(*stack.pop(), cluster.extents)
        if id(node) in computed:
            if cluster.at[id(node)] != index:
                return False
        elif free(node):
            stack.extend((arg, broadcast_index(index, arg.shape)) for arg in node.args)
    return True


class _Renaming:
    """Indices with other loop variables. Most nodes of a cluster share a few indices."""

    def __init__(self, values: Mapping[str, Size]) -> None:
        self._values = values
        self._known: dict[Index, Index] = {}

    def __call__(self, index: Index) -> Index:
        found = self._known.get(index)
        if found is None:
            found = self._known[index] = tuple(substitute(part, self._values) for part in index)
        return found


def _match(at: Index, needed: Index, producer: Cluster, consumer: Cluster) -> dict[str, str] | None:
    """Which consumer variable each variable of the producer's index is, or None if the reads are elsewhere."""
    mapping: dict[str, str] = {}
    if len(at) != len(needed):
        return None
    for mine, theirs in zip(at, needed, strict=True):
        if mine == 0:
            if theirs != 0:
                return None
            continue
        (variable,) = names(mine)
        found = names(theirs)
        if len(found) != 1:
            return None
        (other,) = found
        if theirs != loop_index(other[1:]) or other in mapping.values():
            return None
        if producer.extents[variable] != consumer.extents.get(other):
            return None
        mapping[variable] = other
    return mapping


def stages(cluster: Cluster) -> dict[int, int]:
    """For each node the number of reductions, one after another, that must be finished before it is known."""
    stage: dict[int, int] = {}
    inside = {id(node) for node in cluster.nodes}
    for node in cluster.nodes:
        before = max((stage[id(s)] for s in sources(node) if id(s) in inside), default=0)
        stage[id(node)] = before + (1 if reduces(node) else 0)
    return stage


def _single_stage(cluster: Cluster) -> bool:
    order = sorted(cluster.nodes, key=lambda node: node.uid)
    cluster = Cluster(order, cluster.variables, cluster.extents, cluster.inner, cluster.at, cluster.inner_at)
    stage = stages(cluster)
    for node in order:
        if stage[id(node)] > 1 or (stage[id(node)] == 1 and not reduces(node) and cluster.is_full(node)):
            return False
    return True


def sources(node: Node) -> Iterable[Node]:
    """The computed nodes that a node reads, through views and through what is recomputed on the spot."""
    return (source for arg in node.args for source in sources_of(arg))


def sources_of(node: Node) -> Iterable[Node]:
    """The computed nodes behind an operand: itself, unless it is a view or recomputed on the spot."""
    stack = [node]
    while stack:
        arg = stack.pop()
        if is_view(arg) or (free(arg) and arg.args):
            stack.extend(reversed(arg.args))
        else:
            yield arg


def is_apart(node: Node) -> bool:
    """Is an operand read by what computes a value again? Fused with what computed it first, that would run early."""
    while is_view(node):
        if isinstance(node.op, Recompute):
            return True
        node = node.args[0]
    return False


def _computed(node: Node) -> Node:
    while is_view(node):
        node = node.args[0]
    return node


def _bytes(node: Node) -> int:
    known = {name: TYPICAL_SIZE for part in node.shape for name in names(part)}
    return evaluate(node.type.size, known) * node.dtype.itemsize
