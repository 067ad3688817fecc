"""Cond: one of two graphs, chosen when the program runs. The other one is not computed.

Both branches take the same operands and give results of the same types. Derivatives are conds on the same predicate:
they compute the branch that was taken again, so that nothing is kept for the one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.ir.graph import Graph, substitute_nodes
from graphc.ir.node import Node, apply, topological
from graphc.ir.op import Op
from graphc.ir.sweep import Part, pull, push
from graphc.ir.types import DType, TensorType, TupleType
from graphc.ops.base import Array, BadCase, Operand, Tangents, as_node, op_class, user_line, zeros_like
from graphc.ops.bodies import Nest, flatten, form_of, like_nest, run_body
from graphc.ops.scan import free_nodes, stand_in

FLAG = TensorType(DType.bool, ())


@op_class
class Cond(Op):
    """The results of one of two graphs.

    Operands: whether it is the first one; then what both take.

    Attributes:
        true, false: the branches; their inputs are the other operands.

    Shapes: the predicate is a scalar; operands those of the branches' inputs; the results of both have the same types.
    Raises: ShapeError, DTypeError: an operand is not of its input's type, or the branches differ in a result.
    Source: https://onnx.ai/onnx/operators/onnx__If.html
    """

    true: Graph
    false: Graph

    operands = ("predicate", "operand")

    def infer(self, *types: TensorType) -> TensorType:
        predicate, *given = types
        if predicate.dtype is not DType.bool:
            raise DTypeError(f"the predicate is {predicate}", remedy="make it one bool, for example x > 0")
        if predicate.shape != ():
            raise ShapeError(f"the predicate is {predicate}", remedy="make it one bool, for example gx.any(...)")
        for body in self.bodies:
            if len(body.inputs) != len(given):
                raise ShapeError(
                    f"{len(given)} operands for {len(body.inputs)} inputs of a branch", remedy="give one for each"
                )
            for type, node in zip(given, body.inputs, strict=True):
                _require(type, node.type)
        if len(self.true.outputs) != len(self.false.outputs):
            raise ShapeError("the branches differ in the number of their results", remedy="return as many from both")
        for (_, one), (_, other) in zip(self.true.outputs, self.false.outputs, strict=True):
            _require(other.type, one.type)
        return TupleType.of(node.type for _, node in self.true.outputs)

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity: the very nodes of the branches."""
        parts = [part for body in self.bodies for part in (*map(id, body.inputs), "roots", *map(id, body.roots))]
        return (Cond, *parts)

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.true, self.false)

    def with_bodies(self, bodies: Sequence[Graph]) -> Cond:
        return replace(self, true=bodies[0], false=bodies[1])

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        bound = replace(self)
        ops = [[(node, node.op.with_sizes(bind)) for node in body.nodes] for body in self.bodies]
        object.__setattr__(bound, "_ops", ops)
        return bound

    def reference(self, predicate: Array, *args: Array) -> list[Array]:
        """The branch that is taken. Where a check in it fails, :class:`~graphc.ops.bodies.CheckFault` is raised."""
        number = 0 if predicate else 1
        body = self.bodies[number]
        bound: list[list[tuple[Node, Op]]] | None = self.__dict__.get("_ops")
        ops = [(node, node.op) for node in body.nodes] if bound is None else bound[number]
        return [np.array(value) for value in run_body(body, ops, args)]

    def vjp_parts(self, node: Node, cotangents: Sequence[Node | None]) -> Sequence[Node | None]:
        arriving = {i: g for i, g in enumerate(cotangents) if g is not None}
        seeds = {i: stand_in(f"g{i}", g.type) for i, g in arriving.items()}
        tables: list[list[Node | None]] = []
        for body in self.bodies:
            wanted = [leaf for leaf in body.inputs if leaf.dtype.is_float]
            table = pull(body.roots, [seeds.get(i) for i in range(len(body.roots))], wanted)
            tables.append([table.get(leaf) if leaf.dtype.is_float else None for leaf in body.inputs])
        given = [j for j, pair in enumerate(zip(*tables, strict=True)) if any(found is not None for found in pair)]
        back: list[Node | None] = [None] * len(node.args)
        branches = [
            ([*body.inputs, *seeds.values()], [_or_zeros(table[j], body.inputs[j]) for j in given])
            for body, table in zip(self.bodies, tables, strict=True)
        ]
        made = make_cond(node.args[0], branches, [*node.args[1:], *arriving.values()])
        for position, j in enumerate(given):
            back[1 + j] = apply(Part(position), made)
        return back

    def jvp_parts(self, node: Node, tangents: Tangents) -> Sequence[Node | None]:
        moving = {j: t for j, t in enumerate(tangents[1:]) if t is not None}
        given = {j: stand_in(f"t{j}", t.type) for j, t in moving.items()}
        tables = [push(body.roots, {body.inputs[j]: leaf for j, leaf in given.items()}) for body in self.bodies]
        count = len(self.true.roots)
        moved = [
            i for i in range(count) if any(b.roots[i] in table for b, table in zip(self.bodies, tables, strict=True))
        ]
        branches = [
            ([*body.inputs, *given.values()], [_or_zeros(table.get(body.roots[i]), body.roots[i]) for i in moved])
            for body, table in zip(self.bodies, tables, strict=True)
        ]
        made = make_cond(node.args[0], branches, [*node.args[1:], *moving.values()])
        back: list[Node | None] = [None] * count
        for position, i in enumerate(moved):
            back[i] = apply(Part(position), made)
        return back

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """See the tests of cond: a case needs branches."""
        return ()


def _require(given: TensorType, wanted: TensorType) -> None:
    if given.dtype is not wanted.dtype:
        raise DTypeError(f"{given} stands where a branch has {wanted}", remedy="convert it with gx.cast")
    if given.shape != wanted.shape:
        raise ShapeError(f"{given} stands where a branch has {wanted}", remedy="make the shapes equal")


def _or_zeros(found: Node | None, like: Node) -> Node:
    return zeros_like(like) if found is None else found


Branch = tuple[Sequence[Node], Sequence[Node]]
"""Inputs and results."""


def make_cond(predicate: Node, branches: Sequence[Branch], operands: Sequence[Node]) -> Node:
    """A cond of two branches over the same operands; those that neither branch reads are left out."""
    reached = [set(topological(list(roots))) for _, roots in branches]
    kept = [
        j for j in range(len(operands)) if any(inputs[j] in r for (inputs, _), r in zip(branches, reached, strict=True))
    ]
    true, false = (
        Graph(tuple(inputs[j] for j in kept), tuple((f"y{i}", root) for i, root in enumerate(roots)))
        for inputs, roots in branches
    )
    return apply(Cond(true, false), predicate, *(operands[j] for j in kept))


def cond(predicate: Operand, true_fn: Callable[..., Nest], false_fn: Callable[..., Nest], *operands: Nest) -> Nest:
    """What one of two functions builds: the first where the predicate is true. The other one's is not computed.

    Args:
        predicate: one bool, known when the program runs.
        true_fn, false_fn: functions of the operands that build a branch each. Both are called once. Nodes from outside
            that they use are computed in any case; what they make themselves only if the branch is taken.
        operands: nodes, or lists, tuples and dicts of nodes.

    Returns:
        what the functions return, in their form.

    Shapes: predicate: a scalar. Results of both branches have the same shapes and element types.
    Raises: GraphError: the functions return other forms, or nothing; ShapeError, DTypeError: their results differ in
        type, or the predicate is not one bool.
    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.cond.html

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("n",))
    >>> gx.cond(gx.sum(x) > 0, gx.sqrt, lambda v: v * 0, x)
    <part: f32[n]>
    """
    at = user_line()
    for branch in (true_fn, false_fn):
        if not callable(branch):
            raise GraphError(
                f"cond: a branch is {type(branch).__name__}, not a function",
                at=at,
                remedy="write cond(predicate, lambda x: x + 1, lambda x: x - 1, x), or gx.where(predicate, a, b)",
            )
    flag = as_node(predicate)
    if flag.type != FLAG:
        kind = ShapeError if flag.dtype is DType.bool else DTypeError
        raise kind(f"cond: the predicate is {flag.type}", at=at, remedy="make it one bool, for example gx.any(...)")
    leaves = [as_node(leaf) for leaf in flatten(operands)]
    taken = [[stand_in(f"x{i}", leaf.type) for i, leaf in enumerate(leaves)] for _ in range(2)]
    newest = stand_in("newest", FLAG).uid
    given = [fn(*like_nest(operands, iter(own))) for fn, own in zip((true_fn, false_fn), taken, strict=True)]
    roots = _matched(given, at)
    outside = _captured([*roots[0], *roots[1]], [*taken[0], *taken[1]], newest)
    branches: list[Branch] = []
    for own, mine in zip(taken, roots, strict=True):
        captured = [stand_in(f"k{i}", node.type) for i, node in enumerate(outside)]
        closed = substitute_nodes(mine, dict(zip(outside, captured, strict=True)))
        branches.append(([*own, *captured], closed))
    made = make_cond(flag, branches, [*leaves, *outside])
    return like_nest(given[0], iter([apply(Part(i), made) for i in range(len(roots[0]))]))


def _matched(given: Sequence[Nest], at: str | None) -> list[list[Node]]:
    """The results of both branches as nodes of the same types."""
    forms = [form_of(nest) for nest in given]
    if forms[0] != forms[1]:
        lines = tuple(
            f"{name} returns {form}{_line(nest)}"
            for name, form, nest in zip(("true_fn", "false_fn"), forms, given, strict=True)
        )
        raise GraphError(
            "cond: the branches return other forms", details=lines, at=at, remedy="return the same form from both"
        )
    pairs = list(zip(flatten(given[0]), flatten(given[1]), strict=True))
    if not pairs:
        raise GraphError("cond: the branches return nothing", at=at, remedy="return the nodes that are wanted")
    found: list[list[Node]] = [[], []]
    for number, pair in enumerate(pairs):
        nodes = [as_node(value, _dtype_of(pair[1 - k])) for k, value in enumerate(pair)]
        one, other = nodes
        if one.type != other.type:
            kind = DTypeError if one.dtype is not other.dtype else ShapeError
            lines = tuple(
                f"{name}: {node.type}{_line(node)}" for name, node in zip(("true_fn", "false_fn"), nodes, strict=True)
            )
            raise kind(
                f"cond: the branches differ in result {number}: {one.type} and {other.type}",
                details=lines,
                at=at,
                remedy="convert with gx.cast" if kind is DTypeError else "make the shapes equal",
            )
        for k in range(2):
            found[k].append(nodes[k])
    return found


def _dtype_of(value: Operand) -> DType | None:
    return value.dtype if isinstance(value, Node) else None


def _line(nest: Nest) -> str:
    """Where the first node of a result was made."""
    loc = next((leaf.loc for leaf in flatten(nest) if isinstance(leaf, Node)), None)
    return f"   {loc}" if loc else ""


def _captured(roots: Sequence[Node], taken: Sequence[Node], newest: int) -> list[Node]:
    """What the branches read from outside: nodes that were there before they were built, and leaves."""
    order = topological(list(roots))
    free, own = free_nodes(order), set(taken)
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node in seen or node in own or node in free:
            continue
        seen.add(node)
        if node.uid < newest or not node.args:
            found[node] = None
        else:
            stack.extend(reversed(node.args))
    return list(found)


__all__ = ["Cond", "cond"]
