"""The verifier: is a graph well-formed? It runs after every pass."""

from __future__ import annotations

from graphc.errors import GraphcError, VerifyError
from graphc.ir.graph import Graph
from graphc.ir.node import Input

_sound: set[int] = set()
"""Nodes that fit their operands, by uid, which is never given twice; emptied when it grows large."""


def verify(graph: Graph, after: str = "") -> None:
    """Check types, operands and signature.

    Args:
        after: the name of the pass that made the graph, for the message.

    Raises:
        VerifyError: the graph is not valid; names the node, its line and the pass.
    """
    listed = {id(node) for node in graph.inputs}
    if len(_sound) > 200_000:
        _sound.clear()
    for node in graph.nodes:
        if isinstance(node.op, Input) and id(node) not in listed:
            raise _error(f"{node!r} is not an input of the graph", after, node)
        if node.uid in _sound:  # nodes do not change, so each is looked at once
            continue
        try:
            inferred = node.op.infer(*[arg.type for arg in node.args])
        except GraphcError as error:
            raise _error(f"{node!r} does not accept its operands: {error.message}", after, node) from error
        if inferred != node.type:
            raise _error(f"{node!r} has type {node.type}, its op infers {inferred}", after, node)
        if any(arg.uid >= node.uid for arg in node.args):
            raise _error(f"{node!r} is older than an operand", after, node)
        _sound.add(node.uid)
    for target, node in graph.updates:
        if target.type != node.type:
            raise _error(f"the update of {target.label!r} is {node.type}, not {target.type}", after, node)


def _error(message: str, after: str, node: object) -> VerifyError:
    loc = getattr(node, "loc", None)
    return VerifyError(
        f"after {after}: {message}" if after else message,
        at=str(loc) if loc else None,
        remedy="this is a defect of graphc: please report it with the program's text('graph')",
    )
