"""What a graph goes through before its nodes become clusters: sums are split, scans and conds become loops."""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.dims import Size
from graphc.ir.graph import Graph, substitute_nodes
from graphc.ir.node import Node, apply
from graphc.ir.sweep import Part
from graphc.ir.types import TupleType
from graphc.lower.apart import lay_rows_apart
from graphc.lower.branch import branch
from graphc.lower.heads import put_heads_inside
from graphc.lower.loop import LoopOp, stand_in
from graphc.lower.padded import fuse_paddings
from graphc.lower.patches import split_gradients
from graphc.lower.rows import has_one_row, sum_row_products
from graphc.lower.split import split_full_reductions
from graphc.lower.update import stays_in_place, updates_in_place
from graphc.ops.compare import equal, where
from graphc.ops.cond import Cond
from graphc.ops.division import remainder
from graphc.ops.movement import Transpose, reshape
from graphc.ops.scan import Scan
from graphc.ops.slicing import Slice


def prepare(graph: Graph) -> Graph:
    """The graph as lowering takes it."""
    graph = split_gradients(put_heads_inside(graph))
    graph = fuse_paddings(_replace_bodies(split_full_reductions(sum_row_products(graph))))
    return lay_rows_apart(graph)


def owned_carries(scan: Scan, body: Graph) -> frozenset[int]:
    """The inputs of a step, by ``id``, whose memory it may change: the values of carries that nobody asks for."""
    return frozenset(id(node) for node, keep in zip(body.inputs, scan.keep, strict=False) if not keep)


def _replace_bodies(graph: Graph) -> Graph:
    """The graph with loops for scans and conds; the last value of a carry is read out of its ring."""
    if not any(isinstance(node.op, Scan | Cond) for node in graph.nodes):
        return graph

    def written(node: Node, args: tuple[Node, ...]) -> Node | None:
        if isinstance(node.op, Scan):
            scan, args = _with_transposes(node.op, args)
            return apply(_loop(scan), *args)
        if isinstance(node.op, Cond):
            return branch(node.op, [prepare(body) for body in node.op.bodies], args)
        if isinstance(node.op, Part) and isinstance(args[0].op, LoopOp):
            loop, part = args[0].op, apply(node.op, *args)
            scan, index = loop.scan, node.op.index
            if index >= scan.carries or scan.keep[index] or loop.still[index]:
                return part
            # the value after step t lies at (t + 1) % 2
            if scan.stops:
                assert isinstance(args[0].type, TupleType)
                steps = apply(Part(len(args[0].type.parts) - 1), args[0])
                return where(equal(remainder(steps, 2), 0), _at(part, 0), _at(part, 1))
            return _at(part, scan.length % 2)
        return None

    return graph.rebuild(written)


def _with_transposes(scan: Scan, args: tuple[Node, ...]) -> tuple[Scan, tuple[Node, ...]]:
    """The scan with matrices inside that only products of one row read transposed: as they lie, and not as a copy."""
    body, taken = scan.body, list(args)
    inputs = list(body.inputs)
    inside: dict[Node, Node] = {}
    roots = {id(node) for node in body.roots}
    for position in range(scan.carries + scan.sequences, len(args)):
        arg, given = args[position], inputs[position]
        users = body.users.get(id(given), [])
        turned = isinstance(arg.op, Transpose) and arg.ndim == 2
        if turned and id(given) not in roots and users and all(has_one_row(user) for user in users):
            taken[position] = arg.args[0]
            inputs[position] = stand_in(arg.args[0].type)
            inside[given] = apply(arg.op, inputs[position])
    if not inside:
        return scan, args
    names = [name for name, _ in body.outputs]
    changed = Graph(tuple(inputs), tuple(zip(names, substitute_nodes(body.roots, inside), strict=True)))
    return replace(scan, body=changed), tuple(taken)


def _loop(scan: Scan) -> LoopOp:
    body = prepare(scan.body)
    in_place = updates_in_place(body, owned_carries(scan, body))
    still = tuple(not keep and stays_in_place(body, i, in_place) for i, keep in enumerate(scan.keep))
    return LoopOp(scan, body, still)


def _at(ring: Node, place: Size) -> Node:
    rest = ring.shape[1:]
    op = Slice((place, *[0] * len(rest)), (place + 1, *rest), (1,) * ring.ndim)
    return reshape(apply(op, ring), rest)
