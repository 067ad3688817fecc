"""Fusion: which nodes are computed together in one kernel.

Every node begins as a cluster of its own. Two clusters merge along an edge when their loops fit each other, and when no
path between them leads through a third cluster. Edges are tried in the order of the bytes that a merge keeps out of
memory. At last sums of columns that read the same values become one cluster.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from graphc.ir.dims import evaluate, names
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.lower.cluster import Cluster, new_cluster
from graphc.lower.join import join, join_siblings
from graphc.lower.sources import free, is_apart, is_leaf, sources
from graphc.lower.views import behind_views, is_view

FEW = 16
"""Values of a row are so many times fewer bytes than the row, at least."""
TYPICAL_SIZE = 64
"""What a symbolic size counts as when bytes are compared."""

_Edge = tuple[int, Node, Node, int]
"""The place of a node in the graph, what it reads, itself, and the position of that operand."""


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
        self._merge_siblings()
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
                    needed = sorted(self.producers(cluster), key=self._place_in_order, reverse=True)
                    stack.extend((p, False) for p in needed if id(p) not in done)
        return result

    def _place_in_order(self, cluster: Cluster) -> tuple[int, int]:
        """Those that need what comes late come late; the second number makes plans equal from run to run."""
        return self._last[id(cluster)], self._place[id(cluster.nodes[0])]

    def _edges(self) -> list[_Edge]:
        edges: list[_Edge] = []
        readers: dict[int, set[int]] = {}
        for place, node in enumerate(self.graph.nodes):
            if id(node) not in self.home:
                continue
            for position, arg in enumerate(node.args):
                source = behind_views(arg)
                readers.setdefault(id(source), set()).add(place)
                if id(source) in self.home and not is_apart(arg):
                    edges.append((place, source, node, position))

        def saved(edge: _Edge) -> tuple[int, bool, int]:
            """What need not be read. What is made for a sum of columns alone is best made where that is taken."""
            place, source, node, _ = edge
            alone = len(readers[id(source)]) == 1 and id(source) not in self.pinned
            return -_bytes(source), not (alone and self.home[id(node)].by_column), place

        return sorted(edges, key=saved)

    def _merge_edges(self) -> None:
        edges = self._edges()
        changed = True
        while changed:
            changed = False
            for _, source, node, position in edges:
                producer, consumer = self.home[id(source)], self.home[id(node)]
                if producer is consumer:
                    continue
                merged = self._combine(producer, consumer, source, node, position)
                if merged is not None and self._other_path(producer, consumer):
                    producer = self._with_rows_between(producer, consumer, _bytes(source) // FEW)
                    merged = self._combine(producer, consumer, source, node, position)
                if merged is not None and not self._other_path(producer, consumer):
                    self._replace(producer, consumer, merged)
                    changed = True

    def _with_rows_between(self, producer: Cluster, consumer: Cluster, few_bytes: int) -> Cluster:
        """The producer with what is made of its rows' values and needed by the consumer: a mean, a variance."""
        while True:
            between = [c for c in self._consumers[id(producer)] if c is not consumer and self._reaches(c, consumer)]
            merged = None
            for cluster in sorted(between, key=self._place_in_order):
                if all(_bytes(node) <= few_bytes for node in cluster.nodes):
                    merged = self._merged_with(producer, cluster)
                    if merged is not None:
                        self._replace(producer, cluster, merged)
                        producer = merged
                        break
            if merged is None:
                return producer

    def _merged_with(self, producer: Cluster, consumer: Cluster) -> Cluster | None:
        """Both as one along any edge between them."""
        if self._other_path(producer, consumer):
            return None
        for node in consumer.nodes:
            for position, arg in enumerate(node.args):
                source = behind_views(arg)
                if self.home.get(id(source)) is producer and not is_apart(arg):
                    merged = self._combine(producer, consumer, source, node, position)
                    if merged is not None:
                        return merged
        return None

    def _merge_siblings(self) -> None:
        """Put sums of columns into one kernel that read the same values, and do not need each other."""
        readers: dict[int, list[tuple[Node, int]]] = {}
        for node in self.graph.nodes:
            if id(node) in self.home and self.home[id(node)].by_column:
                for position, arg in enumerate(node.args):
                    readers.setdefault(id(behind_views(arg)), []).append((node, position))
        for some in readers.values():
            for one, other in itertools.combinations(some, 2):
                left, right = self.home[id(one[0])], self.home[id(other[0])]
                if left is right or self._reaches(left, right) or self._reaches(right, left):
                    continue
                if self._updates(left) or self._updates(right):
                    continue
                merged = join_siblings(left, right, one, other)
                if merged is not None:
                    self._replace(left, right, merged)

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
        if (producer.inner and self._updates(consumer)) or (consumer.inner and self._updates(producer)):
            return None
        return join(producer, consumer, source, node, position)

    def _updates(self, cluster: Cluster) -> bool:
        return any(id(node) in self.updates for node in cluster.nodes)


def _bytes(node: Node) -> int:
    known = {name: TYPICAL_SIZE for part in node.shape for name in names(part)}
    return evaluate(node.type.size, known) * node.dtype.itemsize
