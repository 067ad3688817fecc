"""What a node really reads: values in memory, behind views and behind work that is done again wherever it is read."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.ir.node import Constant, Input, Node, ParameterLeaf
from graphc.lower.views import is_view
from graphc.ops.base import Elementwise
from graphc.ops.checked import CheckFinite, InRange
from graphc.ops.control import Recompute
from graphc.ops.create import Iota, SizeOf

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
