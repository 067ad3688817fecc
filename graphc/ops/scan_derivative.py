"""The derivatives of a scan, reverse and forward: scans again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphc.ir.dims import Size
from graphc.ir.graph import Graph, substitute_nodes
from graphc.ir.node import Node, apply
from graphc.ir.sweep import Part, pull, push
from graphc.loops.kernel import EXPENSIVE
from graphc.ops.arithmetic import add
from graphc.ops.base import Elementwise, Tangents, zeros_like
from graphc.ops.checked import Checked
from graphc.ops.movement import BroadcastTo, Reshape, Transpose, reshape
from graphc.ops.reduction import sum
from graphc.ops.scan import Scan, free_nodes, make_scan, stand_in
from graphc.ops.slicing import Slice


def _elements(sequence: Node, start: Size, count: Size) -> Node:
    """``count`` elements of a sequence from ``start``."""
    rest = sequence.shape[1:]
    op = Slice((start, *[0] * len(rest)), (start + count, *rest), (1,) * sequence.ndim)
    return apply(op, sequence)


class Reverse:
    """The reverse derivative of a scan: a scan over the same steps in the other direction.

    Its carries are the cotangents of the carries. What the derivative of a step needs of the step itself is kept by the
    forward scan: an element or an unchanging operand is there already, a carry's values are kept, all else becomes a
    further result.
    """

    def __init__(self, node: Node, cotangents: Sequence[Node | None]) -> None:
        op = node.op
        assert isinstance(op, Scan)
        self.op = op
        self.node = node
        self.cotangents = cotangents
        self.inputs = op.body.inputs
        self.outputs = [root for _, root in op.body.outputs]
        self.first_constant = op.carries + op.sequences

    def run(self) -> list[Node | None]:
        op = self.op
        carried = [i for i in range(op.carries) if self.inputs[i].dtype.is_float]
        incoming = {i: stand_in(f"d{i}", self.inputs[i].type) for i in carried}
        results = [i for i in range(op.carries, len(self.outputs)) if self.cotangents[i] is not None]
        arriving = {i: stand_in(f"g{i}", self.outputs[i].type) for i in results}
        # a carry of which all values are a result gets a cotangent at every step, too
        kept = [i for i in carried if op.keep[i] and self.cotangents[i] is not None]
        along = {i: stand_in(f"h{i}", self.inputs[i].type) for i in kept}
        seeds: list[Node | None] = []
        for i in range(len(self.outputs)):
            seed = incoming.get(i) if i < op.carries else arriving.get(i)
            if seed is not None and i in along:
                seed = add(seed, along[i])
            seeds.append(seed)
        wanted = [node for node in self.inputs if node.dtype.is_float]
        table = pull(self.outputs, seeds, wanted)
        found = {i: table.get(node) for i, node in enumerate(self.inputs)}
        following = [_or_zeros(found[i], self.inputs[i]) for i in carried]
        given = [i for i in range(op.carries, len(self.inputs)) if found[i] is not None]
        produced = [_or_zeros(found[i], self.inputs[i]) for i in given]
        taken = [incoming[i] for i in carried]
        elements = [*arriving.values(), *along.values()]
        sequences = [self._cotangent(i) for i in results]
        sequences += [_elements(self._cotangent(i), 0 if op.reverse else 1, op.length) for i in along]
        roots, more, stored = self._residuals([*following, *produced], {*taken, *elements})
        whole = make_scan(
            taken, [*elements, *more], roots[: len(taken)], roots[len(taken) :],
            [self._last(i) for i in carried], [*sequences, *stored], op.length, not op.reverse, whole=op.whole,
        )  # fmt: skip
        back: list[Node | None] = [None] * len(self.inputs)
        for position, i in enumerate(carried):
            back[i] = apply(Part(position), whole)
            if i in along:
                start = _elements(self._cotangent(i), op.length if op.reverse else 0, 1)
                back[i] = add(apply(Part(position), whole), reshape(start, self.inputs[i].shape))
        for position, i in enumerate(given, len(taken)):
            steps = apply(Part(position), whole)
            back[i] = steps if i < self.first_constant else sum(steps, axis=0)
        return back

    def _cotangent(self, i: int) -> Node:
        found = self.cotangents[i]
        assert found is not None
        return found

    def _last(self, i: int) -> Node:
        """The cotangent of a carry's last value, beyond what its kept values get step by step."""
        if self.cotangents[i] is None or self.op.keep[i]:
            return zeros_like(self.inputs[i])
        return self._cotangent(i)

    def _residuals(self, roots: list[Node], own: set[Node]) -> tuple[tuple[Node, ...], list[Node], list[Node]]:
        """The derivative's roots over placeholders for what the forward scan keeps; these; the sequences."""
        op = self.op
        needed = _frontier(roots, own, op.body.nodes, self.inputs)
        place: dict[Node, int] = {node: i for i, node in enumerate(self.inputs)}
        extra = {node: i for i, node in enumerate((n for n in needed if n not in place), len(op.body.outputs))}
        outputs = (*op.body.outputs, *((f"r{i}", node) for i, node in enumerate(extra)))
        kept = tuple(op.keep[i] or any(node is self.inputs[i] for node in needed) for i in range(op.carries))
        forward = apply(replace(op, body=Graph(op.body.inputs, outputs), keep=kept), *self.node.args)
        replaced: dict[Node, Node] = {}
        placeholders: list[Node] = []
        stored: list[Node] = []
        for node in needed:
            position = place.get(node)
            if position is not None and position >= self.first_constant:
                replaced[node] = self.node.args[position]  # becomes an operand of the new scan by itself
                continue
            if position is None:
                sequence = apply(Part(extra[node]), forward)
            elif position >= op.carries:
                sequence = self.node.args[position]
            else:
                sequence = _elements(apply(Part(position), forward), 1 if op.reverse else 0, op.length)
            replaced[node] = stand_in(f"r{len(stored)}", node.type)
            placeholders.append(replaced[node])
            stored.append(sequence)
        return substitute_nodes(roots, replaced), placeholders, stored


def _or_zeros(found: Node | None, like: Node) -> Node:
    return zeros_like(like) if found is None else found


def _frontier(roots: Iterable[Node], own: set[Node], primal: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
    """The nodes of the step that its derivative reads and that are kept for it.

    Cheap work on what is there anyway is done again: on elements, operands, and carries.
    """
    free = free_nodes(primal)
    cheap = {*free, *inputs}
    for node in primal:
        light = isinstance(node.op, Elementwise) and node.op.fn not in EXPENSIVE and not isinstance(node.op, Checked)
        moved = isinstance(node.op, Reshape | Transpose | BroadcastTo | Slice)
        if node.args and (light or moved) and all(arg in cheap for arg in node.args):
            cheap.add(node)
    known, given = set(primal), set(inputs)
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen or node in own or node in free:
            continue
        seen.add(node)
        passed = isinstance(node.op, Reshape | Transpose | BroadcastTo)  # what it repeats or moves is no larger
        if node in given or (node in known and node not in cheap and not passed):
            found[node] = None
        else:
            stack.extend(node.args)
    return sorted(found, key=lambda node: node.uid)


def forward(node: Node, tangents: Tangents) -> list[Node | None]:
    """The forward derivative: the same scan with the tangents of the carries as further carries."""
    op = node.op
    assert isinstance(op, Scan)
    inputs = op.body.inputs
    outputs = [root for _, root in op.body.outputs]
    moving = {i for i, tangent in enumerate(tangents) if tangent is not None}
    # a carry moves if its next value does: find all that do
    while True:
        given = {inputs[i]: stand_in(f"t{i}", inputs[i].type) for i in sorted(moving)}
        table = push(outputs, given)
        more = {i for i in range(op.carries) if outputs[i] in table} - moving
        if not more:
            break
        moving |= more
    carried = [i for i in range(op.carries) if i in moving]
    elements = [i for i in range(op.carries, op.carries + op.sequences) if i in moving]
    constant = [i for i in range(op.carries + op.sequences, len(inputs)) if i in moving]
    results = [i for i in range(op.carries, len(outputs)) if outputs[i] in table]
    taken = [*inputs[: op.carries], *(given[inputs[i]] for i in carried)]
    stepped = [*inputs[op.carries : op.carries + op.sequences], *(given[inputs[i]] for i in elements)]
    following = [*outputs[: op.carries], *(_or_zeros(table.get(outputs[i]), outputs[i]) for i in carried)]
    produced = [_or_zeros(table.get(outputs[i]), outputs[i]) for i in results]
    # operands that do not change take the place of their placeholders
    fixed = {inputs[i]: node.args[i] for i in range(op.carries + op.sequences, len(inputs))}
    fixed |= {given[inputs[i]]: _tangent(tangents, i, inputs) for i in constant}
    roots = substitute_nodes((*following, *produced), fixed)
    whole = make_scan(
        taken, stepped, roots[: len(taken)], roots[len(taken) :],
        [*node.args[: op.carries], *(_tangent(tangents, i, inputs) for i in carried)],
        [*node.args[op.carries : op.carries + op.sequences], *(_tangent(tangents, i, inputs) for i in elements)],
        op.length, op.reverse, [*op.keep, *(op.keep[i] for i in carried)], whole=op.whole,
    )  # fmt: skip
    back: list[Node | None] = [None] * len(outputs)
    for position, i in enumerate(carried, op.carries):
        back[i] = apply(Part(position), whole)
    for position, i in enumerate(results, len(taken)):
        back[i] = apply(Part(position), whole)
    return back


def _tangent(tangents: Tangents, i: int, inputs: Sequence[Node]) -> Node:
    found = tangents[i]
    return zeros_like(inputs[i]) if found is None else found


__all__: list[str] = []
