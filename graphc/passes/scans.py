"""What is done to scans: equal ones become one, idle parts go, and large products leave the loop.

A product that does not depend on a carry is computed for all steps at once, before the loop (the input projection of a
recurrent layer); one that no carry depends on is computed after it (the gradient of its weights, a projection of its
results). Both are one large product instead of many small ones. Elementwise work stays inside, where it is fused.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphc.ir import location
from graphc.ir.dims import Size
from graphc.ir.graph import Graph, rebuild, substitute_nodes
from graphc.ir.node import Node, apply, topological
from graphc.ir.op import Op
from graphc.ir.sweep import Part
from graphc.ops.linear import MatMul
from graphc.ops.movement import broadcast_to, reshape
from graphc.ops.reduction import Reduce
from graphc.ops.scan import Scan, free_nodes, stand_in
from graphc.ops.slicing import Slice
from graphc.passes.stacking import MOVES, can_stack, stack


def improve_scans(roots: Iterable[Node]) -> tuple[Node, ...]:
    """The roots with every scan they need in its best form."""
    roots = tuple(roots)
    order = topological(roots)
    if not any(node.op.bodies for node in order):
        return roots
    used: dict[Node, set[int]] = {node: set() for node in order if isinstance(node.op, Scan)}
    for node in order:
        if isinstance(node.op, Part) and node.args[0] in used:
            used[node.args[0]].add(node.op.index)
    made: dict[Node, dict[int, Node]] = {}

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if isinstance(node.op, Scan):
            if node.op.stops or node.op.whole:  # how many steps there are may depend on every one of them
                return _with_better_bodies(node.op, args)
            made[node] = _Working(node.op, args).improved(used[node])
            return None
        if node.op.bodies:
            return _with_better_bodies(node.op, args)
        if isinstance(node.op, Part) and node.args[0] in made:
            return made[node.args[0]][node.op.index]
        return None

    return rebuild(roots, replace)


def _with_better_bodies(op: Op, args: tuple[Node, ...]) -> Node:
    return apply(op.with_bodies([body.with_roots(improve_scans(body.roots)) for body in op.bodies]), *args)


_stand_ins: weakref.WeakValueDictionary[tuple[str, int], Node] = weakref.WeakValueDictionary()


def _lasting_stand_in(node: Node, purpose: str) -> Node:
    """A placeholder for a node of a step; the same one whenever the same node is asked for.

    So a scan that is improved twice, once on its own and once with more results for its derivative, stays one scan.
    """
    found = _stand_ins.get((purpose, node.uid))
    if found is None:
        found = _stand_ins[purpose, node.uid] = stand_in(purpose, node.type)
    return found


@dataclass(frozen=True)
class _Places:
    """Where carries, by their numbers, and results stand among the parts of a scan."""

    carries: dict[int, int]
    results: dict[Node, int]


@dataclass
class _Working:
    """A scan while it changes: placeholders of the step with what stands for them outside."""

    op: Scan
    operands: tuple[Node, ...]
    carries: list[Node] = field(default_factory=list[Node])
    following: list[Node] = field(default_factory=list[Node])
    results: list[Node] = field(default_factory=list[Node])
    sequences: dict[Node, Node] = field(default_factory=dict[Node, Node])
    constants: dict[Node, Node] = field(default_factory=dict[Node, Node])

    def __post_init__(self) -> None:
        op, inputs = self.op, self.op.body.inputs
        middle = op.carries + op.sequences
        roots = improve_scans(node for _, node in op.body.outputs)
        self.carries = list(inputs[: op.carries])
        self.following, self.results = list(roots[: op.carries]), list(roots[op.carries :])
        self.sequences = dict(zip(inputs[op.carries : middle], self.operands[op.carries : middle], strict=True))
        self.constants = dict(zip(inputs[middle:], self.operands[middle:], strict=True))

    @property
    def length(self) -> Size:
        return self.op.length

    @cached_property
    def _carry_number(self) -> dict[Node, int]:
        return {node: i for i, node in enumerate(self.carries) if node not in self.constants}

    @cached_property
    def _following_number(self) -> dict[Node, int]:
        """Of the next values of carries, once products are hoisted."""
        return {node: i for i, node in enumerate(self.following) if self.carries[i] not in self.constants}

    def improved(self, used: set[int]) -> dict[int, Node]:
        """The values of the results that are used."""
        self._fix_idle_carries()
        self._hoist()
        wanted = sorted(index - self.op.carries for index in used if index >= self.op.carries)
        plans = {position: self._plan_of(self.results[position]) for position in wanted}
        there = {node for plan in plans.values() for node in plan}
        for position in wanted:  # a sum of what is there anyway is made behind the loop, too
            result = self.results[position]
            if isinstance(result.op, Reduce) and (source := _through_moves(result.args[0])) in there:
                plans[position] = [source]
        cuts = dict.fromkeys(node for plan in plans.values() for node in plan)
        kept = {i for i in range(self.op.carries) if self.op.keep[i]}
        kept |= {
            table[node] for table in (self._carry_number, self._following_number) for node in cuts if node in table
        }
        emitted = [node for node in cuts if not self._is_at_hand(node)]
        needed = self._needed_carries(emitted, {i for i in used if i < self.op.carries} | kept)
        whole, place = self._pack(needed, emitted, kept)
        values: dict[Node, tuple[Node, bool]] = {node: (outer, False) for node, outer in self.constants.items()}
        values |= {node: (outer, True) for node, outer in self.sequences.items()}
        for node in cuts:
            if node not in values:
                values[node] = (self._trace(node, whole, place), True)
        found: dict[int, Node] = {}
        for index in used:
            if index < self.op.carries:
                found[index] = self._carry(index, whole, place, kept)
            else:
                with location.at(self.results[index - self.op.carries].loc):
                    (found[index],) = stack([self.results[index - self.op.carries]], values, self.length)
        return found

    # what a carry that never changes is

    def _fix_idle_carries(self) -> None:
        """A carry whose next value is itself does not change: for the step it is an operand."""
        for position, (carry, following) in enumerate(zip(self.carries, self.following, strict=True)):
            if carry is following:
                self.constants[carry] = self.operands[position]

    # before the loop

    def _hoist(self) -> None:
        """Products that depend on no carry become sequences."""
        roots = (*self.following, *self.results)
        order = topological(roots)
        moving = {carry for carry in self.carries if carry not in self.constants}
        fixed: set[Node] = set()  # depends on no carry, and can be computed for all steps at once
        early: list[Node] = []
        for node in order:
            if node in moving:
                continue
            outside = node in self.sequences or node in self.constants
            if outside or (can_stack(node, self.constants) and all(arg in fixed for arg in node.args)):
                fixed.add(node)
                if isinstance(node.op, MatMul) and _depends(node, self.sequences):
                    early.append(node)
        if not early or not moving:
            return
        values = {node: (outer, False) for node, outer in self.constants.items()}
        values |= {node: (outer, True) for node, outer in self.sequences.items()}
        taken = {node: _lasting_stand_in(node, "hoisted") for node in early}
        new = substitute_nodes(roots, taken)
        reached = set(topological(new))
        for node, placeholder in taken.items():
            if placeholder in reached:
                with location.at(node.loc):
                    (self.sequences[placeholder],) = stack([node], values, self.length)
        self.following, self.results = list(new[: len(self.following)]), list(new[len(self.following) :])

    # behind the loop

    def _plan_of(self, result: Node) -> list[Node]:
        """The nodes of the step of which a result is made behind the loop; itself where it is made inside."""
        late = self._late
        heavy: dict[Node, bool] = {}
        for node in topological((result,)):
            inside = node in late and can_stack(node, self.constants)
            heavy[node] = inside and (isinstance(node.op, MatMul) or any(heavy[arg] for arg in node.args))
        if not heavy[result]:
            return [result] if not (result in late and self._is_moved(result)) else [_through_moves(result)]
        free = free_nodes(topological((result,)))
        cuts: dict[Node, None] = {}
        seen: set[Node] = set()
        stack_ = [result]
        while stack_:
            node = stack_.pop()
            if node in seen or node in free or node in self.constants:
                continue
            seen.add(node)
            if heavy[node] or (isinstance(node.op, MOVES) and node in late):
                stack_.extend(reversed(node.args))
            else:
                cuts[node] = None
        return list(cuts)

    def _is_moved(self, node: Node) -> bool:
        return isinstance(node.op, MOVES) and self._is_at_hand(_through_moves(node))

    @cached_property
    def _late(self) -> set[Node]:
        """The nodes of which no carry is made, once products are hoisted."""
        early = set(topological(self.following))
        return {node for node in topological(self.results) if node not in early}

    def _is_at_hand(self, node: Node) -> bool:
        """Are its values at all steps there without a result of their own?"""
        tables = (self.sequences, self.constants, self._carry_number, self._following_number)
        return any(node in table for table in tables)

    def _trace(self, node: Node, whole: Node, place: _Places) -> Node:
        """The values of a node at all steps."""
        before = node in self._carry_number
        if before or node in self._following_number:
            position = (self._carry_number if before else self._following_number)[node]
            history = apply(Part(place.carries[position]), whole)
            start = int(before == self.op.reverse)
            rest = history.shape[1:]
            bounds = ((start, *[0] * len(rest)), (self.length + start, *rest), (1,) * history.ndim)
            return apply(Slice(*bounds), history)
        return apply(Part(place.results[node]), whole)

    def _carry(self, index: int, whole: Node, place: _Places, kept: set[int]) -> Node:
        """The last value of a carry, or all of them."""
        if self.carries[index] in self.constants:
            value = self.operands[index]
            return broadcast_to(value, (self.length + 1, *value.shape)) if self.op.keep[index] else value
        part = apply(Part(place.carries[index]), whole)
        if index not in kept or self.op.keep[index]:
            return part
        return _last_value(part, self.op)

    # packing

    def _needed_carries(self, emitted: Sequence[Node], wanted: set[int]) -> list[int]:
        """The carries that results or other needed carries depend on."""
        needed = {i for i in wanted if self.carries[i] not in self.constants}
        while True:
            reached = set(topological([*emitted, *(self.following[i] for i in sorted(needed))]))
            more = {i for i, carry in enumerate(self.carries) if carry in reached and carry not in self.constants}
            if more <= needed:
                return sorted(needed)
            needed |= more

    def _pack(self, needed: list[int], emitted: Sequence[Node], kept: set[int]) -> tuple[Node, _Places]:
        """The scan of these carries and results, and where they stand among its parts."""
        roots = [*(self.following[i] for i in needed), *emitted]
        reached = set(topological(roots))
        carries = [self.carries[i] for i in needed]
        sequences = [node for node in self.sequences if node in reached]
        constants = [node for node in self.constants if node in reached]
        body = Graph((*carries, *sequences, *constants), tuple((f"y{i}", root) for i, root in enumerate(roots)))
        keep = tuple(i in kept for i in needed)
        op = Scan(body, len(carries), len(sequences), self.length, self.op.reverse, keep)
        operands = [
            *(self.operands[i] for i in needed),
            *(self.sequences[node] for node in sequences),
            *(self.constants[node] for node in constants),
        ]
        place = _Places(
            {i: position for position, i in enumerate(needed)},
            {node: position for position, node in enumerate(emitted, len(needed))},
        )
        return apply(op, *operands), place


def _last_value(history: Node, op: Scan) -> Node:
    """A carry's value after the last step."""
    last = 0 if op.reverse else op.length
    rest = history.shape[1:]
    return reshape(apply(Slice((last, *[0] * len(rest)), (last + 1, *rest), (1,) * history.ndim), history), rest)


def _through_moves(node: Node) -> Node:
    while isinstance(node.op, MOVES):
        node = node.args[0]
    return node


def _depends(node: Node, leaves: Iterable[Node]) -> bool:
    wanted = set(leaves)
    return any(found in wanted for found in topological((node,)))


# equal scans


def merge_scans(roots: tuple[Node, ...]) -> tuple[Node, ...]:
    """Scans over the same carries with the same steps become one with the results of all.

    One group after another, operands first: what two scans read may become the same by what was merged before.
    """
    while True:
        scans = [node for node in topological(roots) if isinstance(node.op, Scan) and not node.op.stops]
        groups: dict[tuple[object, ...], list[Node]] = {}
        for node in scans:
            groups.setdefault(_identity(node), []).append(node)
        group = next((group for group in groups.values() if len(group) > 1 and _are_apart(group)), None)
        if group is None:
            return roots
        parts = _together(group)

        def replace(node: Node, args: tuple[Node, ...], parts: dict[Node, dict[int, Node]] = parts) -> Node | None:
            if isinstance(node.op, Part) and node.args[0] in parts:
                return parts[node.args[0]][node.op.index]
            return None

        roots = rebuild(roots, replace)


def _are_apart(group: Sequence[Node]) -> bool:
    """Does none of them read what another one gives?"""
    members = set(group)
    return not any(node in members for node in topological([arg for member in group for arg in member.args]))


def _identity(node: Node) -> tuple[object, ...]:
    """Equal for scans that step alike: the same carries with the same first and next values."""
    op = node.op
    assert isinstance(op, Scan)
    outside = {id(inner): id(outer) for inner, outer in zip(op.body.inputs, node.args, strict=True)}
    following = [root for _, root in op.body.outputs[: op.carries]]
    read = [outside.get(id(leaf)) for leaf in topological(following) if not leaf.args]
    return (
        tuple(id(inner) for inner in op.body.inputs[: op.carries]), tuple(map(id, node.args[: op.carries])),
        tuple(map(id, following)), tuple(read), op.length, op.reverse,
    )  # fmt: skip


def _together(group: Sequence[Node]) -> dict[Node, dict[int, Node]]:
    """One scan for several that step alike; for each of them its parts."""
    first = group[0].op
    assert isinstance(first, Scan)
    count = first.carries
    sequences: dict[Node, Node] = {}
    constants: dict[Node, Node] = {}
    results: dict[Node, None] = {}
    keep = [False] * count
    for node in group:
        op = node.op
        assert isinstance(op, Scan)
        for position, inner in enumerate(op.body.inputs):
            if position >= count:
                (sequences if position < count + op.sequences else constants)[inner] = node.args[position]
        results.update(dict.fromkeys(root for _, root in op.body.outputs[count:]))
        keep = [a or b for a, b in zip(keep, op.keep, strict=True)]
    roots = [*(root for _, root in first.body.outputs[:count]), *results]
    inputs = (*first.body.inputs[:count], *sequences, *constants)
    body = Graph(inputs, tuple((f"y{i}", root) for i, root in enumerate(roots)))
    op = Scan(body, count, len(sequences), first.length, first.reverse, tuple(keep))
    whole = apply(op, *group[0].args[:count], *sequences.values(), *constants.values())
    order = {root: position for position, root in enumerate(results, count)}
    found: dict[Node, dict[int, Node]] = {}
    for node in group:
        mine = node.op
        assert isinstance(mine, Scan)
        parts = {i: apply(Part(order[root]), whole) for i, (_, root) in enumerate(mine.body.outputs) if i >= count}
        for i in range(count):
            parts[i] = apply(Part(i), whole)
            if keep[i] and not mine.keep[i]:
                parts[i] = _last_value(parts[i], first)
        found[node] = parts
    return found
