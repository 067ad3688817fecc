"""Which run-time checks a graph has, in the order in which a failure names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.lower.plan import Check
from graphc.ops.cast import Cast
from graphc.ops.checked import Checked, CheckFinite, InRange
from graphc.ops.movement import BroadcastTo, Flip, Reshape, Transpose
from graphc.ops.slicing import Slice

if TYPE_CHECKING:
    from graphc.ir.graph import Graph
    from graphc.ir.node import Node


def find_checks(graph: Graph) -> tuple[Check, ...]:
    """One check for each node that can fail at run time, in the order of ``graph.nodes``, then those of the bodies.

    Lowering and the reference backend number their failures by this.
    """
    own = tuple(
        Check(node.op.check, node, node.op.limit(*[arg.type for arg in node.args]), _what(node))
        for node in graph.nodes
        if isinstance(node.op, Checked)
    )
    return own + tuple(check for node in graph.nodes for body in node.op.bodies for check in find_checks(body))


def _what(node: Node) -> str:
    """The value that is checked, for the message."""
    if isinstance(node.op, CheckFinite):
        return node.op.label or _name_of(node.args[0]) or "a value"
    position = 0 if isinstance(node.op, InRange) else node.op.operands.index(_index_operand(node))
    return _name_of(node.args[position]) or ("indices" if isinstance(node.op, InRange) else node.op.operands[position])


def _name_of(node: Node) -> str | None:
    """The user's name of a value, also where its elements were moved or converted."""
    while node.name is None and isinstance(node.op, Cast | Reshape | Transpose | BroadcastTo | Slice | Flip):
        node = node.args[0]
    return node.name


def _index_operand(node: Node) -> str:
    return next(name for name in ("indices", "labels") if name in node.op.operands)
