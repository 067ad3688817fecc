"""Which next values of parameters the kernels that compute them can write straight into the parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from graphc.ir.graph import Graph
from graphc.ir.node import Node, Parameter
from graphc.lower.checks import find_checks
from graphc.lower.cluster import Cluster, operand_indices
from graphc.lower.fusion import Fusion
from graphc.lower.sources import sources
from graphc.lower.views import is_view, through_views
from graphc.ops.checked import Checked
from graphc.ops.control import Recompute, StopGradient
from graphc.ops.movement import Reshape
from graphc.ops.panels import PackedPanels


@dataclass
class InPlace:
    """The choice for one graph."""

    graph: Graph
    fusion: Fusion
    clusters: list[Cluster]

    def choose(self, placed: Collection[int]) -> dict[int, Parameter]:
        """By ``id`` of the next value: the parameter.

        The kernel must be elementwise and read the parameter only at the element that it writes; nobody else may read
        the new value, another update included; and every other reader of the old value, as well as every run-time
        check, must come earlier.

        Args:
            placed: nodes, by ``id``, that have a place already.
        """
        chosen: dict[int, Parameter] = {}
        readers = self._readers()
        by_cluster: dict[int, list[tuple[Parameter, Node]]] = {}
        count = Counter(id(stored_node(node)) for _, node in self.graph.updates)
        for target, node in self.graph.updates:
            stored = stored_node(node)
            cluster = self.fusion.home.get(id(stored))
            taken = id(stored) in placed or count[id(stored)] > 1
            if cluster is None or taken or cluster.inner or stored.type.dtype is not target.dtype:
                continue
            if cluster.is_opaque and not isinstance(stored.op, PackedPanels):
                continue
            used_elsewhere = any(home is not cluster for home in readers.get(id(stored), []))
            if used_elsewhere or any(isinstance(n.op, Checked) for n in cluster.nodes):
                continue
            if not _reads_only_own_element(cluster, target, stored):
                continue
            chosen[id(stored)] = target
            by_cluster.setdefault(id(cluster), []).append((target, stored))
        self._drop_conflicts(by_cluster, readers, chosen)
        return chosen

    def _readers(self) -> dict[int, list[Cluster | None]]:
        readers: dict[int, list[Cluster | None]] = {}
        for cluster in self.clusters:
            for node in cluster.nodes:
                for source in sources(node):
                    readers.setdefault(id(source), []).append(cluster)
        for _, node in (*self.graph.outputs, *self.graph.updates):
            if id(stored_node(node)) not in self.fusion.home:  # a copy reads it
                for source in read_leaves_of(node):
                    readers.setdefault(id(source), []).append(None)
        return readers

    def _drop_conflicts(
        self,
        by_cluster: dict[int, list[tuple[Parameter, Node]]],
        readers: dict[int, list[Cluster | None]],
        chosen: dict[int, Parameter],
    ) -> None:
        """Keep only those for which an order of all kernels exists."""
        needs = {id(c): {id(p) for p in self.fusion.producers(c)} for c in self.clusters}
        known = {id(c): c for c in self.clusters}
        for cluster_id, pairs in by_cluster.items():
            before = {
                id(reader)
                for target, _ in pairs
                for reader in readers.get(id(target), [])
                if reader is not None and id(reader) != cluster_id
            }
            copied = any(reader is None for target, _ in pairs for reader in readers.get(id(target), []))
            after = _closure(needs, cluster_id)
            checked = any(any(map(_may_fail, known[c].nodes)) for c in after if c in known)
            if copied or checked or before & after:
                for _, stored in pairs:
                    del chosen[id(stored)]
                continue
            needs[cluster_id] = needs[cluster_id] | before


def stored_node(node: Node) -> Node:
    """The node whose dense value is this node's: through reshapes and identities."""
    while isinstance(node.op, Reshape | StopGradient | Recompute):
        node = node.args[0]
    return node


def read_leaves_of(node: Node) -> list[Node]:
    """What has a buffer and is read where a node's value is wanted: the node, or what it is a view of."""
    return list(sources(node)) if is_view(node) else [node]


def _reads_only_own_element(cluster: Cluster, target: Parameter, stored: Node) -> bool:
    own = cluster.at[id(stored)]
    if stored.shape != target.shape:
        return False
    for node in cluster.nodes:
        indices = operand_indices(node, cluster)
        for arg, index in zip(node.args, indices, strict=True):
            if not any(source is target for source in read_leaves_of(arg)):
                continue
            if index is None:
                return False
            source, place = through_views(arg, index, cluster.extents)
            if source is not target or place != own:
                return False
    return True


def _may_fail(node: Node) -> bool:
    """Does it check something when it runs, perhaps in a loop or a branch?"""
    return isinstance(node.op, Checked) or any(map(find_checks, node.op.bodies))


def _closure(needs: dict[int, set[int]], start: int) -> set[int]:
    """Everything that needs ``start``, directly or not."""
    users: dict[int, list[int]] = {}
    for user, found in needs.items():
        for need in found:
            users.setdefault(need, []).append(user)
    seen: set[int] = set()
    stack = list(users.get(start, []))
    while stack:
        item = stack.pop()
        if item not in seen:
            seen.add(item)
            stack.extend(users.get(item, []))
    return seen
