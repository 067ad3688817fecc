"""Derivatives through a graph: cotangents from the outputs back, tangents from the inputs on.

This is the accumulation alone. ``graphc.autodiff`` checks, simplifies and calls it; ops that hold graphs of their own,
such as a scan, call it for these.

A node with several results has a tuple of cotangents, one for each result that someone takes with ``Part``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.errors import GraphcError, VerifyError
from graphc.ir import location
from graphc.ir.node import Node, operators, topological
from graphc.ir.op import Absent, Op, op_class
from graphc.ir.types import TensorType, TupleType


@op_class
class Part(Op):
    """One result of a node that has several.

    Shapes: that of the result.
    Raises: VerifyError: there is no such result.
    Source: none, this is graphc's own.
    """

    index: int

    onnx = Absent.RESOLVED_EARLIER

    def infer(self, *types: TensorType) -> TensorType:
        (whole,) = types
        if not isinstance(whole, TupleType) or not 0 <= self.index < len(whole.parts):
            raise VerifyError(f"{whole} has no result {self.index}", remedy="this is a defect of graphc")
        return whole.parts[self.index]

    def reference(self, whole: Sequence[object]) -> object:
        return whole[self.index]


def active_nodes(order: Iterable[Node], wanted: Iterable[Node]) -> set[Node]:
    """The nodes through which a derivative flows from a wanted node."""
    active = set(wanted)
    for node in order:
        floating = node.dtype.is_float or isinstance(node.type, TupleType)
        if floating and node.op.no_vjp is None and any(arg in active for arg in node.args):
            active.add(node)
    return active


def pull(outputs: Sequence[Node], cotangents: Sequence[Node | None], wanted: Iterable[Node]) -> dict[Node, Node]:
    """Reverse mode: the accumulated cotangent of every node between the outputs and the wanted nodes.

    Args:
        outputs: where the cotangents belong; None where there is none.
        cotangents: one for each output, of its type.
        wanted: the nodes whose cotangents are asked for; only what leads to them is differentiated.
    """
    order = topological(tuple(outputs))
    active = active_nodes(order, wanted)
    terms: dict[Node, list[Node]] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None:
            terms.setdefault(output, []).append(cotangent)
    results: dict[Node, dict[int, Node]] = {}  # of nodes with several results: cotangents by index
    table: dict[Node, Node] = {}
    for node in reversed(order):
        if node not in active or not (node in terms or node in results):
            continue
        with location.at(node.loc):
            if node in results:
                found = results.pop(node)
                assert isinstance(node.type, TupleType)
                parts = node.op.vjp_parts(node, [found.get(i) for i in range(len(node.type.parts))])
            else:
                total = table[node] = _sum(terms.pop(node))
                if isinstance(node.op, Part):
                    results.setdefault(node.args[0], {})[node.op.index] = total
                    continue
                if not any(arg in active for arg in node.args):
                    continue
                parts = node.op.vjp(node, total)
            for arg, part in zip(node.args, parts, strict=True):
                if part is not None and arg in active:
                    check_derivative(node, "vjp", part, arg)
                    terms.setdefault(arg, []).append(part)
    return table


def push(outputs: Sequence[Node], given: Mapping[Node, Node]) -> dict[Node, Node]:
    """Forward mode: the tangent of every node that depends on the given ones, from their tangents."""
    table: dict[Node, Node] = {}
    results: dict[Node, Sequence[Node | None]] = {}
    order = topological(tuple(outputs))
    active = active_nodes(order, given)
    for node in order:
        if node not in active:
            continue
        tangent = given.get(node)
        incoming = [table.get(arg) for arg in node.args]
        with location.at(node.loc):
            if isinstance(node.op, Part):
                tangent = results.get(node.args[0], {node.op.index: None})[node.op.index]
            elif isinstance(node.type, TupleType):
                if any(item is not None for item in incoming):
                    results[node] = node.op.jvp_parts(node, incoming)
                continue
            elif any(item is not None for item in incoming):
                moved = node.op.jvp(node, incoming)
                if moved is not None:
                    check_derivative(node, "jvp", moved, node)
                    tangent = moved if tangent is None else operators["add"](tangent, moved)
        if tangent is not None:
            table[node] = tangent
    return table


def _sum(terms: list[Node]) -> Node:
    total = terms[0]
    for term in terms[1:]:
        total = operators["add"](total, term)
    return total


def check_derivative(node: Node, rule: str, derivative: Node, primal: Node) -> None:
    """Raise unless a derivative has the type of what it belongs to."""
    if derivative.type != primal.type:
        error: GraphcError = VerifyError(
            f"{rule} of {node.op!r} gives {derivative.type} for a value of type {primal.type}",
            at=node.user_line,
            remedy=f"correct {rule} in the op's class",
        )
        raise error
