"""Matrices that stay the same from call to call are packed, and products read them as they are multiplied.

BLAS packs both operands at every call. A weight that is used for a hundred rows is read, written in another order and
read again for the work of a few hundred multiplications an element; packed once, it is read only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.dims import product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ops.linear import MatMul
from graphc.ops.panels import PackedPanels, PanelProduct
from graphc.passes.fixed import FixedValues
from graphc.rewrite import RewriteLog

FEWEST = 2
"""Rows of a product for which a matrix is packed: one row is bound by reading, in whatever order."""
LEAST_TERMS, LEAST_ELEMENTS = 32, 1 << 15
"""Of a matrix that is packed: BLAS does as well with small ones."""
LINES = 128
"""Bytes of a row of a panel: two lines of the cache, which tiles of two of the widest vectors read at once."""
LARGEST_BYTES = 128 * 1024 * 1024
"""The panels of a larger matrix would take too much memory beside it."""


@dataclass(frozen=True)
class PackWeights:
    """Multiply by packed panels where a matrix depends on parameters alone that the program does not update.

    Attributes:
        takes: says of a composite op whether the backend executes it whole.
    """

    takes: Callable[[Op], bool]
    name: str = "pack_weights"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        if not self.takes(PanelProduct(1)) or not graph.inputs:  # else it is called because parameters changed
            return graph
        if not any(isinstance(node.op, MatMul) for node in graph.nodes):
            return graph
        fixed = FixedValues(parameter for parameter, _ in graph.updates)

        def pack(node: Node, args: tuple[Node, ...]) -> Node | None:
            if not isinstance(node.op, MatMul) or fixed.holds(node) or not fixed.holds(node.args[1]):
                return None
            x, w = args
            rows = product(x.shape[:-1])
            if not _pays(w) or (isinstance(rows, int) and rows < FEWEST):
                return None
            columns = w.shape[1]
            assert isinstance(columns, int)
            return apply(PanelProduct(columns), x, apply(PackedPanels(LINES // w.dtype.itemsize), w))

        return graph.rebuild(pack)


def _pays(w: Node) -> bool:
    """Is it a matrix of a size that is multiplied faster in panels?"""
    if w.ndim != 2:
        return False
    terms, columns = w.shape
    if not isinstance(terms, int) or not isinstance(columns, int) or min(terms, columns) < LEAST_TERMS:
        return False
    return terms * columns >= LEAST_ELEMENTS and terms * columns * w.dtype.itemsize <= LARGEST_BYTES
