"""Slices move in front of elementwise work, where every reader of its result is a slice.

The gates of a recurrent cell are slices of one product after a bias was added: slicing the operands instead lets the
sum join the kernel of each slice, and the whole never goes to memory. Where products read all slices, as those of
attention read queries, keys and values, the whole has to be in memory, and is computed there by one kernel, or by what
multiplied before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphc.ir.dims import Size
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Node, apply, topological
from graphc.ops.attention_gradients import AttentionGradients
from graphc.ops.base import Elementwise
from graphc.ops.cast import Cast
from graphc.ops.checked import Checked
from graphc.ops.movement import Reshape, Transpose
from graphc.ops.slicing import Slice
from graphc.rewrite import RewriteLog


@dataclass(frozen=True)
class SelectEarly:
    """Slice the operands of elementwise work instead of its result."""

    name: str = "select_early"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        roots = graph.roots
        selected = select_early(roots)
        return graph if selected is roots else graph.with_roots(selected)


def select_early(roots: Iterable[Node]) -> tuple[Node, ...]:
    """The roots after as many rounds as there are operations in a row; the very same tuple if there are none."""
    roots = roots if isinstance(roots, tuple) else tuple(roots)
    while True:
        order = topological(roots)
        users: dict[Node, list[Node]] = {}
        for node in order:
            for arg in node.args:
                users.setdefault(arg, []).append(node)
        kept = set(roots)
        moved = {
            node
            for node in order
            if node not in kept and _is_only_sliced(node, users.get(node, [])) and not _is_multiplied(node, users)
        }
        bodies = {node: tuple(map(_selected, node.op.bodies)) for node in order if node.op.bodies}
        changed = {
            node for node, new in bodies.items() if any(a is not b for a, b in zip(new, node.op.bodies, strict=True))
        }
        if not moved and not changed:
            return roots
        roots = _round(roots, moved, {node: bodies[node] for node in changed})


def _selected(body: Graph) -> Graph:
    roots = body.roots
    new = select_early(roots)
    return body if new is roots else body.with_roots(new)


def _round(roots: tuple[Node, ...], moved: set[Node], bodies: Mapping[Node, tuple[Graph, ...]]) -> tuple[Node, ...]:
    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if node in bodies:
            return apply(node.op.with_bodies(bodies[node]), *args)
        if isinstance(node.op, Slice) and node.args[0] in moved:
            whole = args[0]
            return apply(whole.op, *(_sliced(arg, node.op, whole.ndim) for arg in whole.args))
        return None

    return rebuild(roots, replace)


def _is_only_sliced(node: Node, users: list[Node]) -> bool:
    """Is an elementwise result read by slices alone that have no element in common?

    The three gradients of attention are rounded together, which costs nothing where they can be computed rounded.
    """
    if not isinstance(node.op, Elementwise) or isinstance(node.op, Checked) or not users:
        return False
    if isinstance(node.op, Cast) and isinstance(node.args[0].op, AttentionGradients):
        return False
    ranges: list[tuple[int, int, int]] = []
    for user in set(users):
        if not isinstance(user.op, Slice):
            return False
        cut = [axis for axis, size in enumerate(node.shape) if user.shape[axis] != size]
        if len(cut) != 1 or user.op.steps[cut[0]] != 1 or node.shape[cut[0]] == 1:
            return False  # of an axis of size 1 nothing is left, but operands of size 1 stay whole
        start, stop = user.op.starts[cut[0]], user.op.stops[cut[0]]
        if not isinstance(start, int) or not isinstance(stop, int):
            return False
        ranges.append((cut[0], start, stop))
    ranges.sort()
    return all(a[0] == b[0] and a[2] <= b[1] for a, b in itertools.pairwise(ranges))


def _is_multiplied(node: Node, users: Mapping[Node, list[Node]]) -> bool:
    """Do products alone read the slices, which together are all of it?"""
    slices = set(users[node])
    taken: Size = 0
    for piece in slices:
        taken = taken + piece.type.size
    return taken == node.type.size and all(_is_factor(piece, users) for piece in slices)


def _is_factor(node: Node, users: Mapping[Node, list[Node]]) -> bool:
    stack, ends = [node], 0
    while stack:
        for user in users.get(stack.pop(), ()):
            if isinstance(user.op, Reshape | Transpose | Cast):
                stack.append(user)
            elif not user.op.factors:
                return False
            else:
                ends += 1
    return ends > 0


def _sliced(arg: Node, op: Slice, rank: int) -> Node:
    """The elements of an operand that belong to a slice of the result; axes of size 1 are repeated, so they stay."""
    missing = rank - arg.ndim
    rows = [(0, 1, 1) if size == 1 else _row(op, missing + axis) for axis, size in enumerate(arg.shape)]
    if not rows:
        return arg
    starts, stops, steps = zip(*rows, strict=True)
    return apply(Slice(starts, stops, steps), arg)


def _row(op: Slice, axis: int) -> tuple[object, object, int]:
    return op.starts[axis], op.stops[axis], op.steps[axis]
