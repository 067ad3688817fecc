"""Fusion keeps its own table of what needs what and searches it with pruning; networkx, slow and plain, is the oracle.

The truth is the graph of nodes as networkx holds it, with everything that is no cluster's bypassed and every cluster
contracted to one point. After each merge it must be free of cycles, hold every need that it held before, and be what
fusion's own table says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import Node, Parameter
from graphc.lower import lowering
from graphc.lower.cluster import Cluster
from graphc.lower.fusion import Fusion
from graphc.lower.sources import free
from graphc.passes import decompose_for, prepare, simplify_graph
from tests.autodiff.graphs import random_graph


@dataclass
class WatchedFusion(Fusion):
    """Fusion that asks networkx about every search and every merge."""

    needs: nx.DiGraph = field(default_factory=nx.DiGraph)
    points: nx.DiGraph = field(default_factory=nx.DiGraph)
    """The truth: one point for each cluster, an edge where one reads the other."""
    refused: int = 0
    merged: int = 0

    def _merge_edges(self) -> None:
        self.needs = needs_of_nodes(self.graph, {node.uid for cluster in self.clusters for node in cluster.nodes})
        self.points = self.contracted()
        self.compare_tables()
        super()._merge_edges()

    def _other_path(self, producer: Cluster, consumer: Cluster) -> bool:
        found = super()._other_path(producer, consumer)
        together = nx.contracted_nodes(self.points, producer, consumer, self_loops=False)
        assert found == (not nx.is_directed_acyclic_graph(together))
        self.refused += found
        return found

    def _replace(self, a: Cluster, b: Cluster, merged: Cluster) -> None:
        before = self.points
        super()._replace(a, b, merged)
        self.points = self.contracted()
        assert nx.is_directed_acyclic_graph(self.points)
        self.compare_tables()
        self.merged += 1
        # Whatever reached another still does if each step of the way is there.
        now = {a: merged, b: merged}
        kept = {(now.get(x, x), now.get(y, y)) for x, y in before.edges}
        assert all(x is y or self.points.has_edge(x, y) for x, y in kept)

    def contracted(self) -> nx.DiGraph:
        home = {node.uid: cluster for cluster in self.clusters for node in cluster.nodes}
        points = nx.DiGraph()
        points.add_nodes_from(self.clusters)
        points.add_edges_from((home[x], home[y]) for x, y in self.needs.edges if home[x] is not home[y])
        return points

    def compare_tables(self) -> None:
        for cluster in self.clusters:
            assert self.producers(cluster) == set(self.points.predecessors(cluster))
            assert self._consumers[id(cluster)] == set(self.points.successors(cluster))


def needs_of_nodes(graph: Graph, computed: set[int]) -> nx.DiGraph:
    """Which computed nodes need which: views, leaves and what is recomputed on the spot are bypassed."""
    needs = graph.to_networkx()
    for uid in list(nx.topological_sort(needs)):
        node = needs.nodes[uid]["node"]
        if uid in computed and not (free(node) and node.args):
            continue
        needs.add_edges_from((x, y) for x in list(needs.predecessors(uid)) for y in list(needs.successors(uid)))
        if uid in computed:  # an output that its readers compute again
            needs.remove_edges_from(list(needs.out_edges(uid)))
        else:
            needs.remove_node(uid)
    return needs


def settled(outputs: dict[str, Node], updates: dict[Parameter, Node], inputs: Iterable[Node]) -> Graph:
    graph, _ = simplify_graph(prepare(make_graph(outputs, inputs, updates), training=True))
    return decompose_for(graph, lambda op: False)


def random_step(seed: int) -> Graph:
    """A training step: a random loss, its gradients, and updates of the parameters it depends on."""
    loss, leaves, _ = random_graph(seed, steps=12)
    gradients = gx.grad(loss, leaves)
    updates = {x: x - 0.1 * g for x, g in zip(leaves, gradients, strict=True) if isinstance(x, Parameter)}
    outputs = {"loss": loss} | {f"d{i}": g for i, g in enumerate(gradients)}
    return settled(outputs, updates, [x for x in leaves if not isinstance(x, Parameter)])


def triangle() -> Graph:
    """The path through the product forbids what the other two edges would allow."""
    x, w = gx.placeholder("x", (4, 4)), gx.placeholder("w", (4, 4))
    y = gx.tanh(x)
    return settled({"y": y + y @ w}, {}, [x, w])


def watch(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> WatchedFusion:
    """Lower the graph with every step of fusion under watch."""
    seen: list[WatchedFusion] = []

    def watched(*args: object) -> WatchedFusion:
        seen.append(WatchedFusion(*args))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(lowering, "Fusion", watched)
    lowering.lower(graph)
    (fusion,) = seen
    return fusion


@pytest.mark.parametrize("seed", range(15))
def test_random_training_steps(seed, monkeypatch):
    fusion = watch(random_step(seed), monkeypatch)
    points = fusion.points
    order = fusion.order()
    place = {cluster: position for position, cluster in enumerate(order)}
    assert len(order) == len(set(order)) == len(fusion.clusters)
    assert all(place[x] < place[y] for x, y in points.edges)
    reached = nx.transitive_closure_dag(points)
    for start in fusion.clusters:
        for goal in fusion.clusters:
            if start is not goal:
                assert fusion._reaches(start, goal) == reached.has_edge(start, goal)
    assert fusion.merged > 0


def test_a_merge_that_would_close_a_cycle_is_refused(monkeypatch):
    fusion = watch(triangle(), monkeypatch)
    assert fusion.refused > 0
    assert [len(cluster.nodes) for cluster in fusion.order()] == [1, 1, 1]


def test_a_long_chain_becomes_one_cluster_quickly(monkeypatch):
    x = gx.placeholder("x", (8,))
    y = x
    for _ in range(30):
        y = gx.tanh(y) + x
    fusion = watch(settled({"y": y}, {}, [x]), monkeypatch)
    assert len(fusion.clusters) == 1
    assert fusion.merged == 59


def test_the_needs_of_the_oracle_are_those_of_a_known_graph():
    """tanh and sum are computed; the transposition is a view, the constant is recomputed."""
    x = gx.placeholder("x", (2, 3))
    y = gx.tanh(x)
    z = gx.sum(y.T * np.float32(2), axis=0)
    graph = settled({"z": z}, {}, [x])
    computed = {node.op.name: node.uid for node in graph.nodes if node.op.name in ("tanh", "multiply", "sum")}
    needs = needs_of_nodes(graph, set(computed.values()))
    assert nx.is_directed_acyclic_graph(needs)
    assert nx.has_path(needs, computed["tanh"], computed["sum"])
    assert set(needs) == set(computed.values())
