"""Rows of a product that lie further apart than they are long.

A tile reads the same place of several rows at a time. Where rows are a multiple of 4 KiB long, these places share the
few lines that the first cache has for them, and drive each other out. Whoever computes such rows, or else a copy,
writes them with a line between them.
"""

from __future__ import annotations

from graphc.ir.dims import product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.types import TensorType
from graphc.ops.movement import Concatenate, Reshape, reshape
from graphc.ops.panels import PanelProduct
from graphc.ops.slicing import take_range

SET_BYTES = 4096
"""Places that are a multiple of this apart share lines."""
ROWS_AT_ONCE = 8
"""So many rows have a line each."""
BESIDE = 16
"""Elements between rows."""


class RowsApart(Concatenate):
    """The operand, with elements behind each row that nobody writes or reads."""

    name = "rows_apart"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        return TensorType(x.dtype, (*x.shape[:-1], x.shape[-1] + BESIDE))


def lay_rows_apart(graph: Graph) -> Graph:
    """The graph whose products with panels read rows that are apart, where it matters."""
    if not any(_share_lines(node) for node in graph.nodes):
        return graph

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if not _share_lines(node):
            return None
        x, panels = args
        rows = x
        while isinstance(rows.op, Reshape) and rows.args[0].shape[-1:] == x.shape[-1:]:
            rows = rows.args[0]
        apart = apply(RowsApart(rows.ndim - 1), rows)
        apart = reshape(apart, (*x.shape[:-1], apart.shape[-1]))
        return apply(node.op, take_range(apart, x.ndim - 1, 0, x.shape[-1]), panels)

    return graph.rebuild(replace)


def _share_lines(node: Node) -> bool:
    if not isinstance(node.op, PanelProduct):
        return False
    x = node.args[0]
    rows, terms = product(x.shape[:-1]), x.shape[-1]
    few = isinstance(rows, int) and rows <= ROWS_AT_ONCE
    return not few and isinstance(terms, int) and terms > 0 and terms * x.dtype.itemsize % SET_BYTES == 0
