"""Matrices in panels of columns: the kernels that pack them, and the product that reads them."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.dims import Size, floordiv, product
from graphc.ir.node import Node
from graphc.lower.assembly import Gemm
from graphc.lower.build import Built, KernelBuilder, Target, copy_cluster
from graphc.lower.index import Index, linear
from graphc.lower.opaque import Matrix, as_matrix, batch_strides
from graphc.lower.sources import free
from graphc.ops.base import full
from graphc.ops.movement import reshape, transpose
from graphc.ops.slicing import take_range

KeyOf = Callable[[Node], Node]
CheckOf = Callable[[Node], int]


def build_panels(node: Node, key: Node, key_of: KeyOf, check_of: CheckOf) -> list[Built]:
    """The kernels that fill panels, which can run together: whole ones, the columns of the last one, and its zeros."""
    (w,) = node.args
    rows, columns = w.shape
    width = node.shape[2]
    whole = floordiv(columns, width, {})
    rest = columns - width * whole
    inside = reshape(take_range(w, 1, 0, width * whole), (rows, whole, width))

    def in_last(start: Size) -> Callable[[Index], Size]:
        return lambda index: linear((whole, index[0], index[1] + start), node.shape)

    parts: list[tuple[Node, Callable[[Index], Size]]] = [
        (transpose(inside, (1, 0, 2)), lambda index: linear(index, node.shape))
    ]
    if rest != 0:
        parts.append((take_range(w, 1, width * whole, columns), in_last(0)))
        parts.append((full((rows, width * node.shape[0] - columns), 0, node.dtype), in_last(rest)))
    built: list[Built] = []
    for part, place in parts:
        item = KernelBuilder(copy_cluster(part), [Target(part, key, place)], key_of, check_of, "pack").build()
        item.nodes = (node,)
        built.append(item)
    return built


def panel_product(node: Node, key: Node, panels: Node, key_of: KeyOf, copy_of: KeyOf) -> Gemm:
    """The product of all rows of x, which lie at one distance from each other, or else are copied so."""
    x = node.args[0]
    columns, rows = x.shape[-1], product(x.shape[:-1])
    left = as_matrix(x)
    if left is None or not _is_one_matrix(left, x):
        left = Matrix(copy_of(x), False, columns, ())
    else:
        left.key = key_of(left.key)
    right = Matrix(panels, False, node.args[1].shape[2], ())
    return Gemm(
        node.dtype, left, right, key, rows, node.shape[-1], columns, 1, (0, 0, 0), (left.offset, 0), in_panels=True
    )


def _is_one_matrix(found: Matrix, x: Node) -> bool:
    """Does a buffer hold all rows of x, at one distance?"""
    if found.transposed or free(found.key) or found.key.dtype is not x.dtype:
        return False
    batch = x.shape[:-2]
    return product(batch) == 1 or batch_strides(batch, found.batch, batch) == found.leading * x.shape[-2]
