"""Convolutions by fewer multiplications where the kernel does not change from step to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType
from graphc.ops.base import scalar_value
from graphc.ops.padding import Pad
from graphc.ops.patches import PatchProduct
from graphc.ops.winograd import PANEL, WinogradProduct, winograd_kernel
from graphc.passes.fixed import FixedValues
from graphc.rewrite import RewriteLog

FEWEST_CHANNELS = 16
"""With fewer the additions of the transforms take longer than what they save."""
WORTH = 0.75
"""The largest part of the multiplications that may remain."""


@dataclass(frozen=True)
class UseWinograd:
    """Take 16 multiplications for four results, instead of 36, where the transformed kernel can be kept.

    It depends on constants and on parameters that the program does not update, and is computed once for many steps.

    Attributes:
        takes: says of an op whether the backend executes it whole.
    """

    takes: Callable[[Op], bool]
    name: str = "use_winograd"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        if not graph.inputs or not any(isinstance(node.op, PatchProduct) for node in graph.nodes):
            return graph
        fixed = FixedValues(target for target, _ in graph.updates)

        def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
            if not isinstance(node.op, PatchProduct) or not fixed.holds(node.args[1]):
                return None
            return self._product(node, *args)

        return graph.rebuild(replace)

    def _product(self, node: Node, x: Node, kernel: Node) -> Node | None:
        """The convolution in its new form, if it has one that is worth it."""
        if kernel.shape[:2] != (3, 3) or kernel.ndim != 4 or node.dtype is not DType.float32:
            return None
        channels, filters = kernel.shape[2:]
        if not isinstance(channels, int) or not isinstance(filters, int) or channels < FEWEST_CHANNELS:
            return None
        assert isinstance(node.op, PatchProduct)
        if max(*node.op.strides, *node.op.dilations) > 1:
            return None
        before = after = 1.0
        for size in node.shape[1:3]:  # of a size that is not known the last tile does not count
            before, after = before * (3 * size if isinstance(size, int) else 3), after * _elements(size)
        if not before or after * -(-filters // PANEL) * PANEL > WORTH * before * filters:
            return None
        x, low, high = _without_zeros(x)
        op = WinogradProduct(low, high, filters)
        return apply(op, x, winograd_kernel(kernel)) if self.takes(op) else None


def _elements(size: object) -> int:
    """Of tiles along an axis of results."""
    return 4 * -(-size // 2) if isinstance(size, int) else 2


def _without_zeros(x: Node) -> tuple[Node, tuple[int, int], tuple[int, int]]:
    """What lies between zeros, and how many there are before and after it."""
    none = (0, 0)
    if not isinstance(x.op, Pad) or any(x.op.interior) or scalar_value(x.args[1]) != 0:
        return x, none, none
    low, high = x.op.low, x.op.high
    if any(count != 0 for count in (low[0], high[0], low[3], high[3])):
        return x, none, none
    match (*low[1:3], *high[1:3]):
        case (int() as top, int() as left, int() as bottom, int() as right):
            return x.args[0], (top, left), (bottom, right)
        case _:
            return x, none, none
