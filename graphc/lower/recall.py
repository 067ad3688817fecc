"""Kernels that were built before: a cluster of the same structure gets the same kernel, and nothing is built again.

A deep model repeats its layers, and each attempt of a search lowers nearly the same graph. What a kernel depends on is
the structure of its cluster: operations, types, loops, indices, and which operands and results are one buffer; not
which nodes they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphc.ir.dims import substitute
from graphc.ir.node import Node
from graphc.lower.build import Built, KernelBuilder, Target
from graphc.lower.cluster import Cluster
from graphc.lower.index import Index, loop_index
from graphc.lower.sources import free
from graphc.lower.views import is_view
from graphc.ops.checked import Checked

MOST = 4096


@dataclass(frozen=True)
class _Recipe:
    """A kernel and which of the operands of its structure are its arguments and what it writes."""

    built: Built
    keys: tuple[int, ...]
    writes: tuple[int, ...]


_known: OrderedDict[object, _Recipe] = OrderedDict()


def build_cluster(
    cluster: Cluster,
    targets: Sequence[Target],
    key_of: Callable[[Node], Node],
    check_of: Callable[[Node], int],
    label: str,
) -> Built:
    """As ``KernelBuilder(...).build()``."""
    if any(target.place is not None for target in targets):
        return KernelBuilder(cluster, targets, key_of, check_of, label).build()
    structure = _Structure(cluster, key_of, check_of)
    key = structure.key(targets, label)
    recipe = _known.get(key)
    if recipe is not None:
        keys, writes = ([structure.buffers[i] for i in chosen] for chosen in (recipe.keys, recipe.writes))
        return replace(recipe.built, keys=keys, writes=writes, nodes=tuple(cluster.nodes))
    built = KernelBuilder(cluster, targets, key_of, check_of, label).build()
    places = structure.places
    if all(id(node) in places for node in (*built.keys, *built.writes)):
        keys, writes = (tuple(places[id(node)] for node in nodes) for nodes in (built.keys, built.writes))
        _known[key] = _Recipe(replace(built, keys=[], writes=[], nodes=()), keys, writes)
        if len(_known) > MOST:
            _known.popitem(last=False)
    return built


@dataclass(eq=False)
class _Structure:
    """A cluster without the identity of its nodes: inner nodes and buffers are numbered as they are met."""

    cluster: Cluster
    key_of: Callable[[Node], Node]
    check_of: Callable[[Node], int]
    buffers: list[Node] = field(default_factory=list[Node])
    places: dict[int, int] = field(default_factory=dict[int, int])
    _inner: dict[int, int] = field(default_factory=dict[int, int])
    _seen: dict[int, object] = field(default_factory=dict[int, object])

    def key(self, targets: Sequence[Target], label: str) -> object:
        """Equal for clusters whose kernels are equal."""
        cluster = self.cluster
        self._inner = {id(node): number for number, node in enumerate(cluster.nodes)}
        self._names = {v: loop_index(f"i{position}") for position, v in enumerate(cluster.variables)}
        self._renamed: dict[Index, Index] = {}
        numbers = {v: position for position, v in enumerate(cluster.variables)}
        nodes = tuple(
            (
                node.op.key,
                node.type,
                self._at(cluster.at.get(id(node))),
                self._at(cluster.inner_at.get(id(node))),
                self.check_of(node) if isinstance(node.op, Checked) else None,
                tuple(self._operand(arg) for arg in node.args),
            )
            for node in cluster.nodes
        )
        return (
            label,
            nodes,
            tuple(cluster.extents[v] for v in cluster.variables),
            tuple(numbers[v] for v in cluster.inner),
            tuple((self._operand(t.node), self._buffer(t.key), t.key.type) for t in targets),
        )

    def _at(self, index: Index | None) -> Index | None:
        if index is None:
            return None
        found = self._renamed.get(index)
        if found is None:
            found = self._renamed[index] = tuple(substitute(part, self._names) for part in index)
        return found

    def _buffer(self, key: Node) -> int:
        if id(key) not in self.places:
            self.places[id(key)] = len(self.buffers)
            self.buffers.append(key)
        return self.places[id(key)]

    def _operand(self, arg: Node) -> object:
        """An operand as the kernel reads it: a node of the cluster, a buffer, or what is read through or computed."""
        if id(arg) in self._inner:
            return self._inner[id(arg)]
        found = self._seen.get(id(arg))
        if found is None:
            through: tuple[Any, ...] = ()
            if is_view(arg) or free(arg):
                through = tuple(self._operand(each) for each in arg.args)
                found = ("through", arg.op.key, arg.type, through)
            else:
                key = self.key_of(arg)
                found = ("buffer", self._buffer(key), key.type, arg.type)
            self._seen[id(arg)] = found
        return found
