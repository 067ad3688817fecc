"""Windows of padded values, without the padding in memory: readers ask for each element whether it lies inside."""

from __future__ import annotations

from typing import Any

from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import TensorType
from graphc.ops.base import Elementwise
from graphc.ops.padding import Pad
from graphc.ops.reduction import Reduce
from graphc.ops.windows import ShiftWindows, Windows


class PaddedWindows(Op):
    """The elements that ``view`` names of what ``pad`` makes; computed where they are read, as a pad is."""

    name = "padded_windows"
    operands = ("x", "value")
    attributes = ("pad", "view")
    pad: Pad
    view: Windows | ShiftWindows

    def __init__(self, pad: Pad, view: Windows | ShiftWindows) -> None:
        object.__setattr__(self, "pad", pad)
        object.__setattr__(self, "view", view)

    @property
    def key(self) -> tuple[Any, ...]:
        return (PaddedWindows, self.pad.key, self.view.key)

    def infer(self, *types: TensorType) -> TensorType:
        return self.view.infer(self.pad.infer(*types))


def fuse_paddings(graph: Graph) -> Graph:
    """The graph without padded buffers that only windows read which are summed up or compared.

    A product reads its windows out of memory as a copy, which is faster without a question for each element.
    """

    def is_fused(node: Node) -> bool:
        users = graph.users[id(node)]
        return bool(users) and all(isinstance(user.op, Elementwise | Reduce) for user in users)

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if isinstance(node.op, Windows | ShiftWindows) and isinstance(args[0].op, Pad) and is_fused(node):
            return apply(PaddedWindows(args[0].op, node.op), *args[0].args)
        return None

    if not any(isinstance(node.op, Windows | ShiftWindows) for node in graph.nodes):
        return graph
    return graph.rebuild(replace)
