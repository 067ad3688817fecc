"""Two clusters as one: whether their loops fit, and which loops the merged cluster has.

They fit when the consumer reads the producer at exactly the point that it computes itself, and when their inner
variables agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.dims import Size, names, substitute
from graphc.ir.node import Node
from graphc.loops.kernel import EXPENSIVE
from graphc.lower.cluster import Cluster, operand_indices, reduces, stages
from graphc.lower.index import Index, loop_index
from graphc.lower.rows import RowProduct
from graphc.lower.sources import free, sources_of
from graphc.lower.views import broadcast_index, is_view, through_view, through_views
from graphc.ops.base import Elementwise

MOST_NODES = 96
"""Of one cluster: much larger kernels take long to compile."""


def join(producer: Cluster, consumer: Cluster, source: Node, node: Node, position: int) -> Cluster | None:
    """Two clusters as one along the edge from ``source`` to an operand of ``node``; None where they do not fit."""
    if producer.is_opaque or consumer.is_opaque or len(producer.nodes) + len(consumer.nodes) > MOST_NODES:
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
    if len(mapping) < len(producer.variables):
        return _joined_behind_reduction(producer, consumer, mapping)
    return _joined_at_points(producer, consumer, mapping)


def join_siblings(left: Cluster, right: Cluster, one: tuple[Node, int], other: tuple[Node, int]) -> Cluster | None:
    """Two reductions as one that have an operand in common; None where they read it in other loops.

    Args:
        left, right: the clusters, neither of which needs the other.
        one, other: a node of each, and the position of its operand.
    """
    if len(left.nodes) + len(right.nodes) > MOST_NODES:
        return None
    places = {id(node): index for node, index in _read_through(left, *one)}
    pairs = ((places[id(node)], index) for node, index in _read_through(right, *other) if id(node) in places)
    found = (_plain(mine, theirs, left, right) for mine, theirs in pairs)
    mapping = next((variables for variables in found if variables is not None), None)
    if mapping is None:
        return None
    inner = {mapping.get(v) for v in left.inner}
    alike = set(mapping) == set(left.variables) and set(mapping.values()) == set(right.variables)
    if not alike or inner != set(right.inner):
        return None
    return _merged(left, right, mapping, right.variables, right.inner)


def _read_through(cluster: Cluster, node: Node, position: int) -> list[tuple[Node, Index]]:
    """An operand and what it is a view of, each with the index at which the cluster reads it."""
    index, arg = operand_indices(node, cluster)[position], node.args[position]
    if index is None:
        return []
    found = [(arg, index)]
    while is_view(arg):
        arg, index = through_view(arg, index, cluster.extents)
        found.append((arg, index))
    return found


def _plain(mine: Index, theirs: Index, left: Cluster, right: Cluster) -> dict[str, str] | None:
    """Which variable of the right cluster stands where one of the left one's does; None where others than these do."""
    mapping: dict[str, str] = {}
    for a, b in zip(mine, theirs, strict=True):
        if a == 0 and b == 0:
            continue
        ours, others = names(a), names(b)
        if len(ours) != 1 or len(others) != 1:
            return None
        (one,), (other,) = ours, others
        if a != loop_index(one[1:]) or b != loop_index(other[1:]) or left.extents[one] != right.extents[other]:
            return None
        mapping[one] = other
    return mapping


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


def _joined_at_points(producer: Cluster, consumer: Cluster, mapping: Mapping[str, str]) -> Cluster | None:
    """The consumer's loops serve both: it reads what the producer has for each combination of its variables."""
    inner = tuple(mapping[v] for v in producer.inner)
    rest = set(consumer.variables) - set(mapping.values())
    if inner and consumer.inner and set(inner) != set(consumer.inner):
        return None
    if rest and (inner or rest != set(consumer.inner)):
        return None  # what lacks some of the consumer's variables can only be the row level of its reductions
    return _merged(producer, consumer, mapping, consumer.variables, inner or consumer.inner)


def _joined_behind_reduction(producer: Cluster, consumer: Cluster, mapping: Mapping[str, str]) -> Cluster | None:
    """The consumer reads a row value: its other variables take the place of the inner ones, or it has none."""
    unmapped = [v for v in producer.variables if v not in mapping]
    image = set(mapping.values())
    rest = [v for v in consumer.variables if v not in image]
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
        return _merged(producer, consumer, mapping, consumer.variables, tuple(rest))
    if consumer.inner:
        return None
    # an epilogue: the producer's loops stay, the consumer joins them at row level
    if any(isinstance(node.op, RowProduct) for node in producer.nodes) and _is_dear(consumer):
        return None
    back = {b: a for a, b in mapping.items()}
    return _merged(consumer, producer, back, producer.variables, producer.inner)


def _merged(
    moved: Cluster,
    kept: Cluster,
    mapping: Mapping[str, str],
    variables: tuple[str, ...],
    inner: tuple[str, ...],
) -> Cluster | None:
    """The nodes of both, those of ``moved`` in the variables of ``kept``; None if a kernel cannot compute that."""
    rename = _Renaming({old: loop_index(new[1:]) for old, new in mapping.items()})
    merged = Cluster(
        moved.nodes + kept.nodes,
        variables,
        kept.extents,
        tuple(v for v in variables if v in inner),
        {**{k: rename(at) for k, at in moved.at.items()}, **kept.at},
        {**{k: rename(at) for k, at in moved.inner_at.items()}, **kept.inner_at},
    )
    if merged.by_column and not _is_single_stage(merged):
        return None
    return merged if _is_read_where_computed(moved, kept, merged) else None


def _is_dear(cluster: Cluster) -> bool:
    return any(isinstance(node.op, Elementwise) and node.op.fn in EXPENSIVE for node in cluster.nodes)


def _is_single_stage(cluster: Cluster) -> bool:
    """Does no reduction, and nothing that is computed at every point, need the result of a reduction?"""
    order = sorted(cluster.nodes, key=lambda node: node.uid)
    cluster = Cluster(order, cluster.variables, cluster.extents, cluster.inner, cluster.at, cluster.inner_at)
    stage = stages(cluster)
    for node in order:
        if stage[id(node)] > 1 or (stage[id(node)] == 1 and not reduces(node) and cluster.is_full(node)):
            return False
    return True


def _is_read_where_computed(left: Cluster, right: Cluster, merged: Cluster) -> bool:
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
