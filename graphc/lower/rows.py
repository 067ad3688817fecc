"""Products of one row with a matrix that is stored by columns: sums of the columns' elements, each read in its order.

Nothing is reused in such a product, so its time is that of reading the matrix, and a kernel that reads it from first
to last is as fast as memory is. As sums it is a kernel like others: a bias, or what is added, is part of
it.
"""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ops.linear import MatMul
from graphc.ops.movement import Reshape, Transpose, reshape
from graphc.ops.reduction import Sum

SHORTEST = 64
"""Of shorter columns a library does several at a time."""


class RowProduct(Sum):
    """The sums of a product of one row: what is dear to compute of each is better computed of many at a time."""

    name = "row_product"


def sum_row_products(graph: Graph) -> Graph:
    """The graph with products of one row as sums, where the matrix lies in the order in which they read it."""
    if not any(_stored_by_columns(node) is not None for node in graph.nodes):
        return graph

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if _stored_by_columns(node) is None:
            return None
        row, columns = args[0], args[1].args[0]
        products = reshape(row, (1, columns.shape[1])) * columns
        return reshape(apply(RowProduct((1,), False), products), node.shape)

    return graph.rebuild(replace)


def has_one_row(node: Node) -> bool:
    """Is it a product of one row, and not a short one, with one matrix?"""
    if not isinstance(node.op, MatMul):
        return False
    row, matrix = node.args
    length = row.shape[-1]
    return (
        all(size == 1 for size in row.shape[:-1])
        and matrix.ndim == 2
        and isinstance(length, int)
        and length >= SHORTEST
    )


def _stored_by_columns(node: Node) -> Node | None:
    """The matrix as it is stored, if the node is such a product."""
    if not has_one_row(node):
        return None
    matrix = node.args[1]
    if not isinstance(matrix.op, Transpose) or matrix.op.axes != (1, 0):
        return None
    columns = matrix.args[0]
    while isinstance(columns.op, Reshape):
        columns = columns.args[0]
    return columns if columns.dtype is node.dtype else None
