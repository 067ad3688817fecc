"""What ops that run graphs share: structures of nodes, and a graph computed by NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import Op
from graphc.ir.sweep import Part
from graphc.ir.types import TupleType
from graphc.ops.base import Operand
from graphc.ops.checked import Checked
from graphc.ops.halves import reference_of

Nest = Any
"""A node, or lists, tuples and dicts of nodes, or None."""


class CheckFault(Exception):
    """A check inside a body failed: at which node, with which detail."""

    def __init__(self, node: Node, detail: int) -> None:
        super().__init__(f"{node!r}: {detail}")
        self.node = node
        self.detail = detail


def run_body(body: Graph, ops: Sequence[tuple[Node, Op]], args: Sequence[Any]) -> list[Any]:
    """The results of a body by NumPy.

    Args:
        body: the graph.
        ops: its nodes in order, each with its op, whose sizes are numbers.
        args: a value for each input.

    Raises:
        CheckFault: a check failed.
    """
    values: dict[int, Any] = {id(node): np.asarray(value) for node, value in zip(body.inputs, args, strict=True)}
    for node, op in ops:
        if id(node) not in values:
            operands = [values[id(arg)] for arg in node.args]
            if isinstance(op, Checked) and (detail := op.fault(*operands)) is not None:
                raise CheckFault(node, detail)
            whole = isinstance(node.type, TupleType) or isinstance(op, Part)
            values[id(node)] = op.reference(*operands) if whole else reference_of(op, operands, node.dtype)
    return [values[id(root)] for root in body.roots]


def flatten(nest: Nest) -> list[Operand]:
    """The leaves in order; those of dicts in the order of their keys, whatever order they were entered in."""
    if nest is None:
        return []
    if isinstance(nest, tuple | list):
        return [leaf for item in nest for leaf in flatten(item)]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(nest, Mapping):
        return [leaf for name in _ordered(nest) for leaf in flatten(nest[name])]  # pyright: ignore[reportUnknownArgumentType]
    return [nest]


def like_nest(nest: Nest, leaves: Any) -> Nest:
    """A structure of the same form, of leaves that an iterator gives in the order of :func:`flatten`."""
    if nest is None:
        return None
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):  # pyright: ignore[reportUnknownArgumentType]
        return type(nest)(*(like_nest(item, leaves) for item in nest))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(nest, tuple | list):
        return type(nest)(like_nest(item, leaves) for item in nest)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(nest, Mapping):
        made = {name: like_nest(nest[name], leaves) for name in _ordered(nest)}  # pyright: ignore[reportUnknownArgumentType]
        return {name: made[name] for name in nest}  # pyright: ignore[reportUnknownVariableType]
    return next(leaves)


def form_of(nest: Nest) -> Any:
    """The structure with ``"*"`` for each leaf."""
    if isinstance(nest, tuple | list):
        return tuple(form_of(item) for item in nest)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(nest, Mapping):
        return {name: form_of(item) for name, item in nest.items()}  # pyright: ignore[reportUnknownVariableType]
    return None if nest is None else "*"


def _ordered(nest: Mapping[Any, Any]) -> list[Any]:
    return sorted(nest, key=str)


__all__: list[str] = []
