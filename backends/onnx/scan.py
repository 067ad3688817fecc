"""Loops: a scan becomes an ONNX Scan, one that ends by itself a Loop.

Their bodies read what does not change from the graph around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx import ValueInfoProto, helper

from graphc.backends.onnx.writer import ONNX_TYPE, Writer
from graphc.errors import ExportError
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Node, apply
from graphc.ir.types import DType
from graphc.ops.scan import Scan

BACKWARD = 1

WriteOperations = Callable[[Writer, Graph, dict[int, str], Sequence[tuple[str, Node]]], None]
ValueInfo = Callable[[str, Node], ValueInfoProto]


def write_scan(
    w: Writer, node: Node, args: Sequence[str], write_operations: WriteOperations, value_info: ValueInfo
) -> tuple[str, ...]:
    """Write a loop and return the values of its results.

    Args:
        args: the values of the operands.
        write_operations: writes the operations of a graph, given the values of its leaves and names for its results.
        value_info: the type of a value.
    """
    op = node.op
    assert isinstance(op, Scan)
    if op.stops:
        return _write_loop(w, op, args, write_operations, value_info)
    used = w.names.unique
    label = used("scan")
    changing = op.carries + op.sequences
    inner = w.within()
    names, values = _leaves(w, op, label, args)
    roots = [root for _, root in op.body.outputs]
    results = [(used(f"{label}/next_{i}" if i < op.carries else f"{label}/result"), n) for i, n in enumerate(roots)]
    write_operations(inner, op.body, values, results)
    # all values of a carry: what each step begins with, and what the last one leaves
    kept = {i: used(f"{label}/before_{i}") for i in range(op.carries) if op.keep[i]}
    for i, name in kept.items():
        inner.emit_named(name, "Identity", names[i])
    body = helper.make_graph(
        inner.nodes,
        f"{label}/step",
        [value_info(name, leaf) for name, leaf in zip(names, op.body.inputs, strict=False)],
        [
            *(value_info(name, root) for name, root in results),
            *(value_info(name, op.body.inputs[i]) for i, name in kept.items()),
        ],
    )
    outputs = [used(f"{label}/{i}") for i in range(len(roots))]
    histories = {i: used(f"{label}/history_{i}") for i in kept}
    direction = BACKWARD if op.reverse else 0
    taken = list(args[:changing])
    if not op.sequences:  # the number of steps is the length of a sequence
        numbers = (w.constant(value, DType.int64) for value in (0, 1))
        taken.append(w.emit("Range", next(numbers), w.sizes.scalar(op.length), next(numbers)))
        body.input.append(helper.make_tensor_value_info(used(f"{label}/number"), ONNX_TYPE[DType.int64], []))
    made = helper.make_node(
        "Scan",
        taken,
        [*outputs, *histories.values()],
        name=label,
        doc_string=w.doc or None,
        body=body,
        num_scan_inputs=len(taken) - op.carries,
        scan_input_directions=[direction] * (len(taken) - op.carries),
    )
    if results[op.carries :] or kept:
        directions = [direction] * (len(results) - op.carries + len(kept))
        made.attribute.append(helper.make_attribute("scan_output_directions", directions))
    w.nodes.append(made)
    for i, history in histories.items():
        last = w.emit("Unsqueeze", outputs[i], w.ints([0]))
        outputs[i] = w.emit("Concat", *((last, history) if op.reverse else (history, last)), axis=0)
    return tuple(outputs)


def _leaves(w: Writer, op: Scan, label: str, args: Sequence[str]) -> tuple[list[str], dict[int, str]]:
    """The names of what changes from step to step, and the values of all leaves of the body."""
    changing = op.carries + op.sequences
    names = [w.names.unique(f"{label}/{leaf.name}") for leaf in op.body.inputs[:changing]]
    values = {id(leaf): name for leaf, name in zip(op.body.inputs, (*names, *args[changing:]), strict=True)}
    for leaf in op.body.nodes:
        if isinstance(leaf.op, Constant):
            values[id(leaf)] = w.constant(leaf.op.array)
    return names, values


def _write_loop(
    w: Writer, op: Scan, args: Sequence[str], write_operations: WriteOperations, value_info: ValueInfo
) -> tuple[str, ...]:
    """The first carry is the condition, which ONNX asks before each step; the number of steps is one carry more."""
    if op.reverse or any(op.keep):
        raise ExportError(
            "a loop that ends by itself has no form in the file if it runs backwards",
            remedy="flip its sequences and results with gx.flip",
        )
    used = w.names.unique
    label = used("loop")
    inner = w.within()
    names, values = _leaves(w, op, label, args)
    number, going, next_number = (used(f"{label}/{name}") for name in ("number", "going", "next_number"))
    for name, sequence in zip(names[op.carries :], args[op.carries : op.carries + op.sequences], strict=True):
        inner.emit_named(name, "Gather", sequence, number, axis=0)
    results = [(used(f"{label}/next_{i}"), root) for i, (_, root) in enumerate(op.body.outputs)]
    write_operations(inner, op.body, values, results)
    inner.emit_named(next_number, "Add", number, w.constant(1, DType.int64))
    inner.emit_named(going, "Identity", results[0][0])
    typed = helper.make_tensor_value_info
    infos = [value_info(name, root) for name, root in results]
    body = helper.make_graph(
        inner.nodes,
        f"{label}/step",
        [
            typed(number, ONNX_TYPE[DType.int64], []),
            typed(used(f"{label}/asked"), ONNX_TYPE[DType.bool], []),
            *(value_info(name, leaf) for name, leaf in zip(names[: op.carries], op.body.inputs, strict=False)),
            typed(used(f"{label}/steps"), ONNX_TYPE[DType.int64], []),
        ],
        [
            typed(going, ONNX_TYPE[DType.bool], []),
            *infos[: op.carries],
            typed(next_number, ONNX_TYPE[DType.int64], []),
            *infos[op.carries :],
        ],
    )
    carried = [used(f"{label}/{i}") for i in range(op.carries + 1)]
    stacked = [used(f"{label}/result_{i}") for i in range(len(results) - op.carries)]
    length = w.sizes.scalar(op.length)
    taken = [length, args[0], *args[: op.carries], w.constant(0, DType.int64)]
    w.nodes.append(
        helper.make_node("Loop", taken, [*carried, *stacked], name=label, doc_string=w.doc or None, body=body)
    )
    *last, steps = carried
    rest = w.emit("Unsqueeze", w.emit("Sub", length, steps), w.ints([0])) if stacked else ""
    whole: list[str] = []
    for (_, root), result in zip(results[op.carries :], stacked, strict=True):
        sizes = [rest, w.sizes.shape(root.shape)] if root.shape else [rest]
        zeros = w.emit("Expand", w.constant(0, root.dtype), w.emit("Concat", *sizes, axis=0))
        whole.append(w.emit("Concat", result, zeros, axis=0))
    return (*last, *whole, steps)


def rebuild_deep(graph: Graph, replace: Callable[[Node, tuple[Node, ...]], Node | None]) -> Graph:
    """:meth:`Graph.rebuild` that reaches into the steps of loops."""

    def deeply(node: Node, args: tuple[Node, ...]) -> Node | None:
        if node.op.bodies:
            return apply(node.op.with_bodies([rebuild_deep(body, replace) for body in node.op.bodies]), *args)
        return replace(node, args)

    return graph.rebuild(deeply)


def all_nodes(graph: Graph) -> list[Node]:
    """The nodes of a graph and of the steps of its loops."""
    return [*graph.nodes, *(inner for node in graph.nodes for body in node.op.bodies for inner in all_nodes(body))]
