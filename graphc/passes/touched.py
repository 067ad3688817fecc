"""Steps of large tables: a next value that differs in the rows that were read is computed and written there alone.

The gradient of a table that is read by indices is zero in all other rows. Where the rule of an optimizer then leaves a
row as it is to the last bit, as plain gradient descent and Adagrad do, walking the table is lost time: the rows that
occur are taken out, updated by the very same operations, and put back by :class:`~graphc.ops.rows.UpdateRows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from graphc.ir.dims import Size, evaluate, names
from graphc.ir.graph import Graph, substitute_nodes
from graphc.ir.node import Node, Parameter, apply
from graphc.ir.op import Op
from graphc.ops.arithmetic import Add, Subtract
from graphc.ops.cast import Cast
from graphc.ops.reduction import Sum
from graphc.ops.rows import Touched, UpdateRows, is_row_wise, scattered_leaves, touch
from graphc.ops.scatter import TakeAdd
from graphc.rewrite import RewriteLog

TYPICAL_SIZE = 64
"""What a symbolic size counts as when a table is compared with the indices into it."""
LEAST_BYTES = 2 << 20
"""A smaller table is walked: it stays in cache."""
ROWS_FOR_AN_INDEX = 8
"""To take a row out, update it and put it back takes about as long as walking so many, and more with many threads."""
BYTES_TO_SORT = 256
"""To sort an index takes as long as its row would if it had so many bytes more."""

Leaves = Mapping[int, tuple[Node, ...]]


@dataclass(frozen=True)
class UpdateTouchedRows:
    """Update the rows of large tables that a step reads, where all others keep their values exactly.

    Attributes:
        takes: says of :class:`UpdateRows` whether on the backend that is faster than walking the table. A GPU walks
            many rows at once, while indices are sorted by few threads; there only tables that say so are sparse.
    """

    takes: Callable[[Op], bool]
    name: str = "update_touched_rows"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        large = [node for node in graph.nodes if isinstance(node.op, TakeAdd) and is_large(node)]
        if not large or not graph.updates or not self.takes(UpdateRows()):
            return graph
        leaves = scattered_leaves(graph.roots)
        chosen = [(p, node, leaves_of_update(p, node, leaves)) for p, node in graph.updates]
        dense: set[int] = set()
        while True:
            taken = {
                p: (node, found)
                for p, node, found in chosen
                if found and all(is_large(leaf) and id(leaf) not in dense for leaf in found)
            }
            if not taken:
                return graph
            changed = graph.with_roots(_roots(graph, taken, leaves))
            left = {id(node) for node in changed.nodes} & {id(leaf) for _, found in taken.values() for leaf in found}
            if not left:
                return changed
            dense |= left  # somebody else needs all of it


def is_large(node: Node) -> bool:
    """Has a sum of scattered rows so many more rows than indices that it is faster not to walk them?"""
    assert isinstance(node.op, TakeAdd)
    if node.op.axis:
        return False
    total = _typical(node.type.size) * node.dtype.itemsize
    row = total // max(_typical(node.shape[0]), 1)
    walked = ROWS_FOR_AN_INDEX * _typical(node.args[1].type.size) * (row + BYTES_TO_SORT)
    return total >= max(LEAST_BYTES, walked)


def _typical(size: Size) -> int:
    return evaluate(size, dict.fromkeys(names(size), TYPICAL_SIZE))


def leaves_of_update(parameter: Parameter, node: Node, leaves: Leaves) -> tuple[Node, ...]:
    """The sums of scattered rows without which a next value would be the parameter's own; none if it is not so."""
    found: dict[int, Node] = {}
    while node is not parameter:
        match node.op:
            case Cast() if node.dtype is parameter.dtype and _is_wider(node.args[0], parameter):
                (node,) = node.args
            case Cast() if node.args[0] is parameter and _is_wider(node, parameter):
                node = parameter
            case Add() | Subtract():
                kept, change = node.args
                if isinstance(node.op, Add) and id(change) not in leaves:
                    kept, change = change, kept
                if id(change) not in leaves or kept.shape != parameter.shape:
                    return ()
                found.update((id(leaf), leaf) for leaf in leaves[id(change)])
                node = kept
            case _:
                return ()
    return tuple(found.values())


def _is_wider(node: Node, parameter: Parameter) -> bool:
    """Does an element type hold all values of the parameter's?"""
    return node.dtype.is_float and parameter.dtype.is_float and node.dtype.itemsize > parameter.dtype.itemsize


def _roots(graph: Graph, taken: Mapping[Parameter, tuple[Node, tuple[Node, ...]]], leaves: Leaves) -> tuple[Node, ...]:
    """The graph's roots with these next values made of the rows that are touched."""
    touched = _touched_by_leaf(found for _, found in taken.values())
    totals: dict[Node, Node] = {}
    for node in graph.nodes:
        known = leaves.get(id(node.args[0]), ()) if isinstance(node.op, Sum) else ()
        if isinstance(node.op, Sum) and len(node.op.axes) == node.args[0].ndim and known:
            rows = touched.get(id(known[0]))
            if rows is not None and all(touched.get(id(leaf)) is rows for leaf in known):
                if _needs_scattered_alone(node.args[0], rows):
                    totals[node] = apply(node.op, rows.sums(node.args[0]))
    roots: list[Node] = [node for _, node in graph.outputs]
    for parameter, node in graph.updates:
        if parameter in taken:
            rows = touched[id(taken[parameter][1][0])]
            node = apply(UpdateRows(), parameter, rows.at_places(node), rows.places)
        roots.append(node)
    return substitute_nodes(roots, totals)


def _touched_by_leaf(groups: Iterable[tuple[Node, ...]]) -> dict[int, Touched]:
    """The rows that each TakeAdd touches, together with those of others that meet it in one update."""
    joined: dict[int, list[Node]] = {}
    for leaves in groups:
        merged = {id(leaf): leaf for leaf in leaves}
        for leaf in leaves:
            merged.update((id(other), other) for other in joined.get(id(leaf), ()))
        members = list(merged.values())
        joined.update((id(leaf), members) for leaf in members)
    made = {id(members): touch(members) for members in joined.values()}
    return {leaf: made[id(members)] for leaf, members in joined.items()}


def _needs_scattered_alone(x: Node, rows: Touched) -> bool:
    """Is ``x`` made of scattered sums and of what all rows share?"""
    stack, seen = [x], set[int]()
    while stack:
        node = stack.pop()
        if id(node) in seen or id(node) in rows.parts or node.ndim != x.ndim or node.shape[0] != rows.rows:
            continue
        seen.add(id(node))
        if not is_row_wise(node):
            return False
        stack.extend(node.args)
    return True
