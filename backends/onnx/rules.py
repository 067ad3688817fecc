"""The table of rules: how each op becomes ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.backends.onnx import composites, cumulative, elementwise, indexing, movement, random, reductions, sorting
from graphc.backends.onnx.conv import RULES as CONVOLUTIONS
from graphc.backends.onnx.conv import is_operator
from graphc.backends.onnx.functions import RULES as FUNCTIONS
from graphc.backends.onnx.sampling import RULES as SAMPLING
from graphc.backends.onnx.sampling import is_operator as is_grid_sample
from graphc.backends.onnx.scan import all_nodes, rebuild_deep
from graphc.backends.onnx.windows import RULES as WINDOWS
from graphc.backends.onnx.writer import Writer
from graphc.errors import ExportError
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import Op
from graphc.ops.checked import CheckFinite, InRange
from graphc.ops.control import CustomVjp, Recompute, StopGradient, WhenTraining

Rule = Callable[..., str]
"""``rule(writer, node, *args)`` writes a node whose operands are the values ``args`` and returns its value."""


def _same(w: Writer, node: Node, x: str) -> str:
    return x


RULES: Mapping[type[Op], Rule] = {
    **elementwise.RULES,
    **FUNCTIONS,
    **reductions.RULES,
    **cumulative.RULES,
    **movement.RULES,
    **WINDOWS,
    **indexing.RULES,
    **sorting.RULES,
    **random.RULES,
    **composites.RULES,
    **CONVOLUTIONS,
    **SAMPLING,
    InRange: _same,
    CheckFinite: _same,
}


def write_node(w: Writer, node: Node, args: tuple[str, ...]) -> str:
    """Write one node and return its value: by its rule, else as the operator that its class names.

    Raises:
        ExportError: the op has neither.
    """
    rule = RULES.get(type(node.op))
    if rule is not None:
        return rule(w, node, *args)
    if isinstance(node.op.onnx, str) and not node.op.attributes:
        return w.emit(node.op.onnx, *args)
    raise ExportError(
        f"{node.op.name} has no ONNX form",
        at=node.user_line,
        remedy="use other operations, or give its class `decompose` or, as `onnx`, the name of an ONNX operator",
    )


def is_whole(node: Node, opset: int) -> bool:
    """Is this composite op written as it is, not taken apart?"""
    if type(node.op) in CONVOLUTIONS:
        return is_operator(node)
    if type(node.op) in SAMPLING:
        return is_grid_sample(node)
    return composites.is_written_whole(node, opset)


def decomposed(graph: Graph, is_whole: Callable[[Node], bool]) -> Graph:
    """The graph with every composite op taken apart that is not to stay whole."""

    def is_to_go(node: Node) -> bool:
        return node.op.composite and not is_whole(node)

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        return node.op.decompose(*args) if is_to_go(node) else None

    while any(map(is_to_go, all_nodes(graph))):
        graph = rebuild_deep(graph, replace)
    return graph


def forward_only(graph: Graph, training: bool) -> Graph:
    """The graph without what steers the compiler: phases are chosen; ops about derivatives become their operand."""

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if isinstance(node.op, WhenTraining):
            return args[0 if training else 1]
        return args[0] if isinstance(node.op, StopGradient | Recompute | CustomVjp) else None

    return rebuild_deep(graph, replace)
