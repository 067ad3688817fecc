"""Branches: a cond becomes an ONNX If, whose branches read what they take from the graph around them."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import helper

from graphc.backends.onnx.scan import ValueInfo, WriteOperations
from graphc.backends.onnx.writer import Writer
from graphc.ir.node import Constant, Node
from graphc.ops.cond import Cond


def write_cond(
    w: Writer, node: Node, args: Sequence[str], write_operations: WriteOperations, value_info: ValueInfo
) -> tuple[str, ...]:
    """Write a cond and return the values of its results; see :func:`~graphc.backends.onnx.scan.write_scan`."""
    op = node.op
    assert isinstance(op, Cond)
    used = w.names.unique
    label = used("if")
    predicate, *operands = args
    graphs = {}
    for name, body in (("then", op.true), ("else", op.false)):
        inner = w.within()
        values = {id(leaf): value for leaf, value in zip(body.inputs, operands, strict=True)}
        for leaf in body.nodes:
            if isinstance(leaf.op, Constant):
                values[id(leaf)] = w.constant(leaf.op.array)
        results = [(used(f"{label}/{name}_{i}"), root) for i, root in enumerate(body.roots)]
        write_operations(inner, body, values, results)
        outputs = [value_info(result, root) for result, root in results]
        graphs[f"{name}_branch"] = helper.make_graph(inner.nodes, f"{label}/{name}", [], outputs)
    found = [used(f"{label}/{i}") for i in range(len(op.true.roots))]
    w.nodes.append(helper.make_node("If", [predicate], found, name=label, doc_string=w.doc or None, **graphs))
    return tuple(found)
