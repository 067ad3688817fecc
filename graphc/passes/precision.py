"""Mixed precision: products of 16-bit floats in a program whose state and everything else is float32.

What an op multiplies and sums up stands in its class (``Op.factors``): matrix products, convolutions, attention. Their
operands are rounded to 16 bits and their sums are taken in float32. All other arithmetic stays in float32, in the
registers of the kernels that compute it: what changes is what lies in memory between them.

- A value that a product reads is rounded where it is made, and whoever reads it reads the rounded one: memory holds 16
  bits. Parameters, inputs and constants are not changed, products read rounded copies of them.
- The result of a product is rounded where another product reads what comes of it. So gradients of weights stay as
  they were summed, and so do scores whose largest is subtracted before their exponentials are taken.
- What does not change in a loop is rounded before it; a carry that products read is carried in 16 bits too.

A rounded value is ``cast(cast(x, 16 bits), float32)``. A backend without products of 16-bit floats multiplies what the
outer conversion gives, another one reads what is under it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

from graphc.ir import location
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Input, Node, ParameterLeaf, apply, topological
from graphc.ir.op import Op
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType
from graphc.ops.base import Elementwise, cast_to
from graphc.ops.cast import Cast
from graphc.ops.cond import Cond
from graphc.ops.movement import BroadcastTo, Concatenate, Flip, Reshape, Transpose
from graphc.ops.padding import Pad
from graphc.ops.reduction import Max
from graphc.ops.scan import Scan, stand_in
from graphc.ops.slicing import Slice
from graphc.ops.update import UpdateSlice
from graphc.ops.windows import ShiftWindows, Windows
from graphc.rewrite import RewriteLog

f32 = DType.float32
_LEAVES = (Input, ParameterLeaf, Constant)
_RENAMES = (Reshape, Transpose)
"""What a product reads in its operand's memory."""
_SLICES = (*_RENAMES, Slice)
"""What reads nothing but values that are rounded if those of its operand are."""
_COPIES = (BroadcastTo, Concatenate, Flip, Pad, ShiftWindows, UpdateSlice, Windows)
"""What moves elements to where products read them: 16 bits rather than 32."""


@dataclass(frozen=True)
class MixedPrecision:
    """Round what products read, and of what they give what other products read.

    Attributes:
        dtype: to what.
        results: whether results are rounded, too. Inside of a decomposed operation they are not.
    """

    dtype: DType
    results: bool = True
    name: str = "mixed_precision"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        if not any(_multiplies(node) for node in _with_bodies(graph.roots)):
            return graph
        leading = _Leading()
        leading.visit(graph.roots, [False] * len(graph.roots))
        roots = _Level(self, leading).run(graph.roots)
        return graph.with_roots(roots)


def _with_bodies(roots: tuple[Node, ...]) -> list[Node]:
    found = list(topological(roots))
    return found + [inner for node in found for body in node.op.bodies for inner in _with_bodies(body.roots)]


def _factors(node: Node) -> tuple[int, ...]:
    """The places of the operands that an op multiplies, where they are float32."""
    op = node.op
    if not op.factors or node.dtype is not f32:
        return ()
    places = tuple(op.operands.index(name) for name in op.factors)
    return places if all(node.args[place].dtype is f32 for place in places) else ()


def _multiplies(node: Node) -> bool:
    return bool(node.op.factors) and bool(_factors(node))


# which results are worth rounding


@dataclass
class _Leading:
    """Finds the values of which something comes that a product reads.

    Attributes:
        nodes: these values, in bodies too.
    """

    nodes: set[int] = field(default_factory=set[int])

    def visit(self, roots: tuple[Node, ...], lead: Sequence[bool]) -> None:
        """Look through a graph, given which of its roots lead to a product outside of it."""
        self.nodes |= {id(root) for root, leads in zip(roots, lead, strict=True) if leads}
        parts: dict[int, set[int]] = {}
        for node in reversed(topological(roots)):
            if isinstance(node.op, Part):
                if id(node) in self.nodes:
                    parts.setdefault(id(node.args[0]), set()).add(node.op.index)
            elif node.op.bodies:
                self._through(node, parts.get(id(node), set()))
            elif _multiplies(node) or (id(node) in self.nodes and node.dtype.is_float):
                self.nodes |= {id(arg) for arg in node.args}

    def _through(self, node: Node, parts: set[int]) -> None:
        first = 0 if isinstance(node.op, Scan) else 1
        for body in node.op.bodies:
            self._body(node.op, body, parts)
            pairs = zip(node.args[first:], body.inputs, strict=True)
            self.nodes |= {id(outer) for outer, inner in pairs if id(inner) in self.nodes}

    def _body(self, op: Op, body: Graph, parts: set[int]) -> None:
        """A body, again and again until what its carries lead to is known."""
        carries = op.carries if isinstance(op, Scan) else 0
        known = -1
        while known != len(parts):
            known = len(parts)
            self.visit(body.roots, [number in parts for number in range(len(body.roots))])
            parts = parts | {number for number in range(carries) if id(body.inputs[number]) in self.nodes}


def _compared(order: Sequence[Node]) -> set[int]:
    """The values whose maximum is taken of what is computed of them element by element."""
    found: set[int] = set()
    for node in reversed(order):
        through = isinstance(node.op, Elementwise) or node.op.moves
        if isinstance(node.op, Max) or (through and id(node) in found and not _multiplies(node)):
            found |= {id(arg) for arg in node.args}
    return found


# the rewriting


@dataclass
class _Level:
    """A graph or the body of a loop while it is rewritten.

    Attributes:
        inputs: of a loop's body: its inputs with their numbers.
        given: those whose values are rounded already.
        taken: the rounded ones among the new inputs, by the number of the input whose values they have.
    """

    policy: MixedPrecision
    leading: _Leading
    inputs: dict[int, int] = field(default_factory=dict[int, int])
    given: set[int] = field(default_factory=set[int])
    carries: int = 0
    taken: dict[int, Node] = field(default_factory=dict[int, Node])
    made: dict[int, Node] = field(default_factory=dict[int, Node])
    moved: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def run(self, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        """The roots with rounded factors."""
        order = topological(roots)
        rounded = self._to_be_rounded(order, roots)
        for node in order:
            args = tuple(self.made[id(arg)] for arg in node.args)
            with location.at(node.loc):
                new = self._rebuilt(node, args)
                self.made[id(node)] = self.rounded(new) if id(node) in rounded else new
        return tuple(self.made[id(root)] for root in roots)

    def _to_be_rounded(self, order: Sequence[Node], roots: tuple[Node, ...]) -> set[int]:
        found: set[int] = set()
        products = [node for node in order if _multiplies(node)]
        multiplied, copies = _multiplied_alone(order, roots), dict[int, list[Node]]()
        for node in products:
            for place in _factors(node):
                found |= {id(source) for source in _sources(node.args[place], multiplied, copies)}
        if self.policy.results:
            compared = _compared(order)
            found |= {id(p) for p in products if id(p) in self.leading.nodes and id(p) not in compared}
        found -= self._rounded_by_all(order, found)
        chosen = {id(n) for n in order if id(n) in found and not isinstance(n.op, _LEAVES) and not self._is_rounded(n)}
        # what is copied to where a product reads it is rounded for all who read the copy
        return chosen | {copy for copy, sources in copies.items() if {id(source) for source in sources} <= chosen}

    def _rounded_by_all(self, order: Sequence[Node], found: set[int]) -> set[int]:
        """The values that whoever reads them rounds."""
        users = {key: [True] for key in found}
        for node in order:
            narrows = isinstance(node.op, Cast) and node.dtype is self.policy.dtype
            for arg in node.args:
                if id(arg) in users:
                    users[id(arg)].append(narrows)
        return {key for key, narrow in users.items() if len(narrow) > 1 and all(narrow)}

    def _rebuilt(self, node: Node, args: tuple[Node, ...]) -> Node:
        if isinstance(node.op, Scan):
            return self._scan(node, node.op, args)
        if isinstance(node.op, Cond):
            bodies = [body.with_roots(_Level(self.policy, self.leading).run(body.roots)) for body in node.op.bodies]
            return apply(node.op.with_bodies(bodies), *args)
        if isinstance(node.op, Part) and id(node.args[0]) in self.moved:
            first, by = self.moved[id(node.args[0])]
            return apply(Part(node.op.index + (by if node.op.index >= first else 0)), *args)
        if _multiplies(node):
            places = _factors(node)
            return apply(node.op, *(self.rounded(a) if i in places else a for i, a in enumerate(args)))
        return node if all(a is b for a, b in zip(args, node.args, strict=True)) else apply(node.op, *args)

    # rounding

    def rounded(self, x: Node) -> Node:
        """The values of a float32 node with as many bits as the policy says."""
        if self._is_rounded(x):
            return x
        if isinstance(x.op, _RENAMES):
            return apply(x.op, self.rounded(x.args[0]))
        number = self.inputs.get(id(x))
        if number is not None and number >= self.carries:
            return self._taken(number, x, f32)
        return cast_to(self.narrow(x), f32)

    def narrow(self, x: Node) -> Node:
        """The same in 16 bits."""
        if isinstance(x.op, Cast) and x.args[0].dtype is self.policy.dtype:
            return x.args[0]
        moved = isinstance(x.op, (*_RENAMES, *_COPIES)) or (isinstance(x.op, Slice) and self._is_rounded(x))
        if moved:
            return apply(x.op, *(self.narrow(arg) if arg.dtype is f32 else arg for arg in x.args))
        number = self.inputs.get(id(x))
        if number is None or number >= self.carries:
            return cast_to(x, self.policy.dtype)
        return self._taken(number, x, self.policy.dtype)

    def _is_rounded(self, x: Node) -> bool:
        while isinstance(x.op, _SLICES):
            (x,) = x.args
        if id(x) in self.given:
            return True
        return isinstance(x.op, Cast) and x.dtype is f32 and x.args[0].dtype is self.policy.dtype

    # loops

    def _taken(self, number: int, x: Node, dtype: DType) -> Node:
        """A further input of the body for the rounded values of one that it has."""
        if number not in self.taken:
            made = self.taken[number] = stand_in("rounded", TensorType(dtype, x.shape))
            self.given.add(id(made))
        return self.taken[number]

    def _scan(self, node: Node, op: Scan, args: tuple[Node, ...]) -> Node:
        """The scan with rounded operands: beside the carries, and for what does not change or comes step by step."""
        inputs = op.body.inputs
        kept = {id(inner) for inner, outer in zip(inputs, args, strict=True) if self._is_rounded(outer)}
        numbers = {id(inner): number for number, inner in enumerate(inputs) if inner.dtype is f32}
        given = kept - {id(inner) for inner in inputs[: op.carries]}
        inside = _Level(self.policy, self.leading, numbers, given, op.carries)
        roots = inside.run(op.body.roots)
        following: dict[int, Node] = {}
        while added := [number for number in sorted(inside.taken) if number < op.carries and number not in following]:
            following.update({number: inside.narrow(roots[number]) for number in added})
        added = list(following)
        new_roots = (*roots[: op.carries], *following.values(), *roots[op.carries :])
        reached = set(map(id, topological(new_roots)))
        outer = {number: self.narrow(args[number]) for number in added}
        carried = [(inputs[i], args[i]) for i in range(op.carries)]
        carried += [(inside.taken[number], outer[number]) for number in added]
        last = op.carries + op.sequences
        sequences = self._passed(range(op.carries, last), inputs, args, inside.taken, reached)
        constants = self._passed(range(last, len(inputs)), inputs, args, inside.taken, reached)
        taken = [*carried, *sequences, *constants]
        names = [f"y{position}" for position in range(len(new_roots))]
        body = Graph(tuple(inner for inner, _ in taken), tuple(zip(names, new_roots, strict=True)))
        keep = (*op.keep, *(False for _ in added))
        made = replace(op, body=body, carries=op.carries + len(added), sequences=len(sequences), keep=keep)
        if added:
            self.moved[id(node)] = (op.carries, len(added))
        return apply(made, *(operand for _, operand in taken))

    def _passed(
        self, numbers: range, inputs: Sequence[Node], args: Sequence[Node], taken: dict[int, Node], reached: set[int]
    ) -> list[tuple[Node, Node]]:
        """The inputs that the body still reads, and the rounded ones, each with its operand."""
        pairs = [(inputs[number], args[number]) for number in numbers if id(inputs[number]) in reached]
        for number in numbers:
            if number in taken:
                pairs.append((taken[number], self.rounded(args[number])))
        return pairs


def _sources(x: Node, multiplied: Container[int], copies: dict[int, list[Node]]) -> list[Node]:
    """What computes the elements that a product reads; the copies on the way join ``copies`` with theirs.

    Args:
        x: an operand.
        multiplied: by ``id``, what nobody but products reads, all of it or slices of it.
    """
    sliced = isinstance(x.op, Slice) and id(x.args[0]) in multiplied
    if not sliced and not isinstance(x.op, (*_RENAMES, *_COPIES)):
        return [x]
    found = [s for arg in x.args if arg.dtype is f32 for s in _sources(arg, multiplied, copies)]
    if isinstance(x.op, _COPIES):
        copies[id(x)] = found
    return found


def _multiplied_alone(order: Sequence[Node], roots: tuple[Node, ...]) -> set[int]:
    """The values that nobody but products reads, as they are or slices of them."""
    others = {id(root) for root in roots}
    for node in reversed(order):
        passes = isinstance(node.op, _SLICES) and id(node) not in others
        factors = {id(node.args[place]) for place in _factors(node)}
        others |= {id(arg) for arg in node.args if not passes and id(arg) not in factors}
    return {id(node) for node in order} - others
