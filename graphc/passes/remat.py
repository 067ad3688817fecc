"""Rematerialization: which values of the forward pass the backward pass reads, and which it computes again.

A value that is computed early and read late lies in memory in between. A minimum cut decides: from the source, which
stands for work, to the sink, which stands for what the backward pass needs, run two edges for each value. Cutting
the first means to compute it again, which costs its work; cutting the second means to keep it, which costs its bytes
times a price in work. What would have to be computed before it is computed or kept, too, since edges from operand
to result cannot be cut. A high price of memory gives a small memory.

If everything were computed again at once, all of it would be alive at once. So the forward pass is divided into
segments at places where few values cross; these are kept, and each segment is computed again when the backward pass
comes to it.

What is computed again is built on ``recompute`` of what is kept. Nothing takes these for the forward pass's own
nodes, and lowering neither fuses across them nor runs them before they are needed. Random bits are a function of seed,
step and position: the same bits come again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from graphc.ir.dims import Size, evaluate, names
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Input, Node, ParameterLeaf, intern
from graphc.ir.types import TupleType
from graphc.ops.attention import ScaledDotProductAttention
from graphc.ops.base import Elementwise
from graphc.ops.cast import Cast
from graphc.ops.checked import Checked
from graphc.ops.control import Recompute
from graphc.ops.create import Iota, SizeOf
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.linear import MatMul
from graphc.ops.movement import BroadcastTo, Concatenate, Flip, Reshape, Transpose
from graphc.ops.padding import Pad
from graphc.ops.random import RandomBits
from graphc.ops.reduction import Reduce
from graphc.ops.slicing import Slice
from graphc.ops.windows import ShiftWindows, Windows
from graphc.rewrite import RewriteLog

RENAMED = (Reshape, Transpose, BroadcastTo, Slice, Flip, Windows, ShiftWindows, Recompute)
"""Ops whose result is read in their operand's memory: they are built again wherever they are needed."""
UNKNOWN_SIZE = 32
"""What a symbolic size counts as where nothing is said of it."""
SMALL_BYTES = 4096
"""Values of fewer bytes mark no boundary: numbers, and what a normalization knows of each row."""
LARGE_BYTES = 32 << 20
"""From here on what is kept leaves the caches before it is read."""
FEW = 16
"""Fewer elements are always kept: steps, seeds, means."""
NEXT_TO_NOTHING = 0.1
"""A price at which elementwise work alone is done again: to read and write a byte of memory costs as much."""
UNIT = 1000
"""Capacities are whole numbers of picoseconds, so that equal graphs are cut alike on every machine."""

DEAR = frozenset({
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sigmoid", "softplus", "erf", "erfc", "sin", "cos",
    "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh", "atanh", "pow", "fmod", "ndtr",
})  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What is kept for the backward pass and what it computes again.

    Attributes:
        kept, recomputed: values of the forward pass.
        work_ns: a rough figure for what is computed again.
        at_once: what of the backward pass runs with the forward pass, since its result is less than its operands.
        columns: what of it is read by sums of columns alone. It does not share what is computed again with others,
            whose kernels go row by row and would have to store it.
    """

    kept: tuple[Node, ...]
    recomputed: tuple[Node, ...]
    work_ns: float
    at_once: frozenset[Node] = frozenset()
    columns: frozenset[Node] = frozenset()


@dataclass(frozen=True)
class Rematerialize:
    """Compute again what is cheaper to compute than to keep.

    Attributes:
        price: nanoseconds of work that are worth a byte of memory; 0 keeps everything.
        segments: into how many parts the forward pass is divided, at most.
        first: to how many of them the price applies; in the rest only what is next to nothing is computed again.
        dims: sizes that bytes are counted for.
    """

    price: float
    segments: int = 16
    first: int = 1 << 30
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    name: str = "rematerialize"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        joint = JointGraph(graph, self.segments, dict(self.dims))
        return joint.rebuilt(joint.choose(self.price, self.first))


@dataclass(frozen=True)
class KeepLess:
    """Compute again what costs nothing in the kernels that read it, where the backward pass keeps much.

    Masks and normalized rows are not written by the forward pass then, but made from their operands when they are read.
    Where everything stays in the caches there is nothing to gain, and the graph stays as it is.

    Attributes:
        any_function: whether all elementwise work costs less than a read from memory, exponentials too. Then what the
            forward pass has in memory in any case is kept for that longer than it would be.
    """

    any_function: bool = False
    name: str = "keep_less"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        joint = JointGraph(graph, 1, {})
        if not graph.updates or sum(map(joint.nbytes, graph.nodes)) < LARGE_BYTES:
            return graph
        return joint.rebuilt(joint.choose_free(self.any_function)) if joint.needed_bytes >= LARGE_BYTES else graph


@dataclass(eq=False)
class JointGraph:
    """A graph of a forward and a backward pass: outputs belong to the first, what only updates need to the second."""

    graph: Graph
    segments: int
    dims: dict[str, int]

    def nbytes(self, node: Node) -> int:
        """The bytes of a value."""
        return 0 if _is_several(node) else self._size(node.type.size) * node.dtype.itemsize

    def _size(self, size: Size) -> int:
        return evaluate(size, {name: self.dims.get(name, UNKNOWN_SIZE) for name in names(size)})

    def work_ns(self, node: Node) -> float:
        """About what computing a value takes on one core, its operands given; infinite where it must not run again."""
        op, elements = node.op, self.nbytes(node) / node.dtype.itemsize
        if elements < FEW:
            return math.inf
        match op:
            case MatMul():
                return 2 * elements * self._size(node.args[0].shape[-1]) / 100
            case ScaledDotProductAttention():
                keys, size = node.args[1].shape[-2:]
                return (
                    2 * elements * self._size(keys) * (1 + self._size(size) / max(self._size(node.shape[-1]), 1)) / 100
                )
            case RandomBits():
                return elements
            case Checked():
                return math.inf
            case Elementwise():
                return elements * (0.4 if op.fn in DEAR else 0.05)
            case Reduce():
                return 0.05 * self.nbytes(node.args[0]) / node.args[0].dtype.itemsize
            case Take() | TakeAlong() | Concatenate() | Pad():
                return 0.2 * elements
            case _:
                return math.inf

    @cached_property
    def _free(self) -> set[Node]:
        """What is computed wherever it is read, since it depends on nothing but sizes and constants."""
        found: set[Node] = set()
        for node in self.graph.nodes:
            if isinstance(node.op, Constant):
                if len(node.op.data) == node.dtype.itemsize:
                    found.add(node)
            elif isinstance(node.op, Iota | SizeOf):
                found.add(node)
            elif node.args and isinstance(node.op, (Elementwise, *RENAMED)) and not isinstance(node.op, Checked):
                if all(arg in found for arg in node.args):
                    found.add(node)
        return found

    def _is_computed(self, node: Node) -> bool:
        if isinstance(node.op, (Input, ParameterLeaf, Constant, *RENAMED)) or node in self._free:
            return False
        return not _is_several(node)

    def _sources(self, node: Node) -> list[Node]:
        """The computed nodes that a node reads, through what is only renamed."""
        found: dict[Node, None] = {}
        stack = list(reversed(node.args))
        while stack:
            arg = stack.pop()
            if self._is_computed(arg):
                found[arg] = None
            elif isinstance(arg.op, RENAMED) or arg in self._free or _is_several(arg):
                stack.extend(reversed(arg.args))
        return list(found)

    def _sources_of(self, arg: Node) -> set[Node]:
        return {arg} if self._is_computed(arg) else set(self._sources(arg))

    @cached_property
    def _reads(self) -> dict[Node, list[Node]]:
        return {node: self._sources(node) for node in self.graph.nodes if self._is_computed(node)}

    @cached_property
    def forward(self) -> tuple[Node, ...]:
        """All that outputs need, operands first."""
        needed: set[Node] = set()
        stack = [node for _, node in self.graph.outputs]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.args)
        return tuple(node for node in self.graph.nodes if node in needed)

    @cached_property
    def _depth(self) -> dict[Node, int]:
        """How many computed values stand before a node, one after another."""
        found: dict[Node, int] = {}
        for node in self.graph.nodes:
            before = max((found[arg] for arg in node.args), default=0)
            found[node] = before + (1 if self._is_computed(node) else 0)
        return found

    @cached_property
    def _when(self) -> dict[Node, int]:
        """The depth at which a node of the backward pass runs: right before its first reader; new state at once.

        The slope of an activation reads the forward pass alone, but is not needed before the cotangent arrives.
        """
        inside = set(self.forward)
        roots = {node for _, node in self.graph.updates}
        found: dict[Node, int] = {}
        for node in reversed(self.graph.nodes):
            if node not in inside:
                readers = [found[user] for user in self.graph.users[id(node)]]
                first = min(readers, default=self._depth[node])
                if self._is_computed(node):
                    first = self._depth[node] if node in roots else max(first - 1, self._depth[node])
                found[node] = first
        return found

    @cached_property
    def _needed(self) -> dict[Node, None]:
        """Values of the forward pass that the backward pass reads: not shortly after they are computed, but late."""
        inside = set(self.forward)
        found: dict[Node, None] = {}
        for node in self.graph.nodes:
            if node not in inside and (self._is_computed(node) or _is_several(node)):
                for source in self._sources(node):
                    if source in inside and self._is_late(node, source):
                        found[source] = None
        return found

    @cached_property
    def _end(self) -> int:
        return max((self._depth[node] for node in self.forward), default=0)

    @cached_property
    def _order(self) -> list[Node]:
        """The computed values of the forward pass, each as late as the first that reads it allows: masks where used."""
        due: dict[Node, int] = {}
        for node in reversed(self.forward):
            due.setdefault(node, self._end)
            mine = due[node] - (1 if self._is_computed(node) else 0)
            for arg in node.args:
                due[arg] = min(due.get(arg, self._end), mine)
        return sorted((node for node in self.forward if self._is_computed(node)), key=lambda node: due[node])

    @cached_property
    def boundaries(self) -> tuple[Node, ...]:
        """Values that are kept in any case: those that cross from one segment of the forward pass to the next.

        A segment ends where fewest bytes cross, once it holds its share of the work and before it holds twice as much.
        """
        order = self._order
        last = {node: number for number, node in enumerate(order)}
        for number, node in enumerate(order):
            last.update(dict.fromkeys(self._reads[node], number))
        work = [0.0 if self.work_ns(node) == math.inf else self.work_ns(node) for node in order]
        share = sum(work) / self.segments
        chosen: dict[Node, None] = {}
        begin = 0
        while True:
            done, best, least, end = 0.0, None, math.inf, begin
            for end in range(begin, len(order)):
                done += work[end]
                if done >= 2 * share and best is not None:
                    break
                if done >= share:
                    crossing = [n for n in order[: end + 1] if last[n] > end and n not in chosen]
                    nbytes = sum(map(self.nbytes, crossing))
                    if nbytes < least and crossing:
                        best, least = (end, crossing), nbytes
            else:
                return tuple(chosen)
            begin = best[0] + 1
            chosen.update(dict.fromkeys(node for node in best[1] if self.nbytes(node) >= SMALL_BYTES))

    def choose(self, price: float, first: int = 1 << 30) -> Choice:
        """The cheapest choice where a kept byte of the ``first`` segments costs ``price`` nanoseconds of work."""
        if not self._needed or price == 0:
            return Choice(tuple(self._needed), (), 0.0)
        import networkx

        order = self._order
        fixed = set(self.boundaries)
        behind = self._behind_all(order)
        flow: networkx.DiGraph[object] = networkx.DiGraph()
        flow.add_nodes_from(("work", "need"))
        number = {node: index for index, node in enumerate(order)}
        for node in order:
            index = number[node]
            work = math.inf if node in fixed or node in behind else self.work_ns(node)
            if work < math.inf:
                flow.add_edge("work", 2 * index, capacity=int(work * UNIT) + 1)
            else:
                flow.add_edge("work", 2 * index)  # an edge without capacity cannot be cut
            worth = price if self._segment[node] < first else min(price, NEXT_TO_NOTHING)
            flow.add_edge(2 * index, 2 * index + 1, capacity=int(self.nbytes(node) * worth * UNIT) + 1)
            for source in self._reads[node]:
                flow.add_edge(2 * number[source] + 1, 2 * index)
        for node in self._needed:
            flow.add_edge(2 * number[node] + 1, "need")
        minimum_cut: Any = networkx.minimum_cut  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        early: set[object] = minimum_cut(flow, "work", "need")[1][0]
        again = [node for node in order if 2 * number[node] not in early]
        kept = [node for node in order if 2 * number[node] in early and 2 * number[node] + 1 not in early]
        return Choice(tuple(kept), tuple(again), sum(map(self.work_ns, again)))

    @cached_property
    def _segment(self) -> dict[Node, int]:
        """The number of boundaries before each value."""
        fixed, count = set(self.boundaries), 0
        found: dict[Node, int] = {}
        for node in self._order:
            found[node] = count
            count += node in fixed
        return found

    @property
    def needed_bytes(self) -> int:
        """The bytes of all that the backward pass reads of the forward pass."""
        return sum(map(self.nbytes, self._needed))

    def choose_free(self, any_function: bool = False) -> Choice:
        """What is computed again where it is read, from what is kept in any case, for less than a read from memory.

        That is elementwise work on values that the backward pass reads too, if only elementwise work and reductions
        read it: they do it in their own kernels. With ``any_function`` it may be work of any kind, on all that the
        forward pass stores in any case, if that has no more bytes.
        """
        slight = self._is_elementwise if any_function else self._is_slight
        stored = self._stored if any_function else set[Node]()
        behind = [node for node in self.graph.nodes if node not in self._inside]
        behind = [node for node in behind if self._is_computed(node) or _is_several(node)]
        must = {s for node in behind if not self._is_deferred(node) for s in self._late_sources(node)}
        anew: dict[Node, set[Node]] = {}  # what could be made in the backward pass, of what
        for node in self._order if any_function else ():
            if node not in stored and slight(node):
                sources = [s for s in self._reads[node] if not self._is_few(s, node)]
                of = {leaf for s in sources for leaf in anew.get(s, (s,))}
                if of <= stored and sum(map(self.nbytes, of)) <= self.nbytes(node):
                    anew[node] = of
        waits: set[Node] = set()
        for node in behind:
            if self._is_deferred(node) and slight(node):
                known = must | waits | anew.keys()
                if all(s in known or self._is_few(s, node) for s in self._sources(node)):
                    waits.add(node)
        at_once = frozenset(node for node in behind if self._is_deferred(node) and node not in waits)
        readers: dict[Node, list[Node]] = {}
        for node in behind:
            for source in () if node in at_once else self._late_sources(node):
                readers.setdefault(source, []).append(node)
        again: dict[Node, None] = {}
        for node in self._order:
            if node in readers and slight(node) and self.nbytes(node) >= SMALL_BYTES and node not in stored:
                fused = all(isinstance(reader.op, Elementwise | Reduce) for reader in readers[node])
                sources = self._reads[node]
                kept = all((s in must and s not in again) or self._is_few(s, node) for s in sources)
                if fused and (kept or node in anew):
                    again[node] = None
        for node in reversed(self._order):
            if node in again:
                again.update((s, None) for s in self._reads[node] if s in anew and not self._is_few(s, node))
        again = {node: None for node in self._order if node in again}
        kept_for_it = [node for node in self._needed if node not in again]
        columns = self._columns if any_function else frozenset[Node]()
        return Choice(tuple(kept_for_it), tuple(again), sum(map(self.work_ns, again)), at_once, columns)

    @cached_property
    def _columns(self) -> frozenset[Node]:
        """Elementwise work of the backward pass that sums of columns alone read, and these."""
        found: set[Node] = set()
        for node in reversed(self.graph.nodes):
            users = self.graph.users[id(node)]
            if isinstance(node.op, Reduce):
                if node.op.axes and node.args[0].ndim - 1 not in node.op.axes:
                    found.add(node)
            elif isinstance(node.op, (Elementwise, *RENAMED)) and users and all(user in found for user in users):
                found.add(node)
        return frozenset(found - self._inside - set(self.graph.roots))

    def _is_few(self, source: Node, node: Node) -> bool:
        """Has a value few bytes beside another one?"""
        return self.nbytes(source) <= self.nbytes(node) // 16

    @cached_property
    def _stored(self) -> set[Node]:
        """Values that the forward pass has in memory: results of products, and what is read before one and behind it.

        One is behind a product that has more of them before it.
        """
        products: dict[Node, int] = {}
        for node in self.forward:
            before = max((products[arg] for arg in node.args), default=0)
            products[node] = before + (1 if node.op.factors else 0)
        found: set[Node] = set()
        for node in self.forward:
            if self._is_computed(node):
                result = node.op.factors or (isinstance(node.op, Cast) and node.args[0].op.factors)
                found |= {node} if result else set()
                found |= {s for s in self._reads[node] if products[s] < products[node]}
        return found

    def _late_sources(self, node: Node) -> list[Node]:
        """The values of the forward pass that a node of the backward pass reads late."""
        inside = self._inside
        return [source for source in self._sources(node) if source in inside and self._is_late(node, source)]

    @cached_property
    def _inside(self) -> set[Node]:
        return set(self.forward)

    def _is_elementwise(self, node: Node) -> bool:
        return isinstance(node.op, Elementwise) and not isinstance(node.op, Checked)

    def _is_slight(self, node: Node) -> bool:
        """Is it elementwise work of a few instructions?"""
        return isinstance(node.op, Elementwise) and not isinstance(node.op, Checked) and node.op.fn not in DEAR

    def _behind_all(self, order: Sequence[Node]) -> set[Node]:
        """What comes after the last boundary is read again at once: nothing is gained by computing it twice."""
        places = [number for number, node in enumerate(order) if node in set(self.boundaries)]
        return set(order[max(places, default=0) :])

    def rebuilt(self, choice: Choice) -> Graph:
        """The graph whose backward pass reads what is kept and computes the rest again."""
        inside, again = set(self.forward), set(choice.recomputed)
        soon: dict[Node, Node] = {}  # as nodes read it that run soon after the forward pass has computed it
        late: dict[Node, Node] = {}
        twice: dict[Node, Node] = {}  # as sums of columns read it
        for node in self.graph.nodes:
            computed = self._is_computed(node) or _is_several(node)
            if node in again:
                pairs = list(zip(node.args, (late[arg] for arg in node.args), strict=True))
                soon[node], late[node] = node, _with_args(node, [_apart(a) if a is b else b for a, b in pairs])
                twice[node] = _with_args(node, [_apart(a, 1) if a is b else twice[a] for a, b in pairs])
            elif node in inside and computed:
                soon[node] = late[node] = node
            elif computed:
                wait = node not in choice.at_once
                args = [(late if wait and self._is_late(node, arg) else soon)[arg] for arg in node.args]
                if node in choice.columns:
                    args = [twice.get(a, b) if b is late[a] else b for a, b in zip(node.args, args, strict=True)]
                if wait and self._is_deferred(node):
                    pairs = zip(node.args, args, strict=True)
                    args = [_apart(a) if a is b and self._sources_of(a) <= inside else b for a, b in pairs]
                soon[node] = late[node] = _with_args(node, args)
            else:
                soon[node] = _with_args(node, [soon[arg] for arg in node.args])
                late[node] = _with_args(node, [late[arg] for arg in node.args])
                if any(arg in twice for arg in node.args):
                    twice[node] = _with_args(node, [twice.get(arg, late[arg]) for arg in node.args])
        return self.graph.with_roots(soon[node] for node in self.graph.roots)

    def _is_late(self, reader: Node, value: Node) -> bool:
        """Does a node outside of the forward pass read a value nearer to the pass's end than to the value?"""
        return 2 * self._when[reader] > self._depth[value] + self._end

    def _is_deferred(self, node: Node) -> bool:
        """Could a node of the backward pass run much earlier than it is needed?"""
        return 2 * self._when[node] > self._depth[node] + self._end and self._depth[node] < self._end


def _is_several(node: Node) -> bool:
    """Has it several results, which are values of their own?"""
    return isinstance(node.type, TupleType)


def _apart(node: Node, k: int = 0) -> Node:
    """A value that something computed again reads: kept apart from the same value as the forward pass reads it.

    All results of a loop together are no value: each of them is kept apart where it is read.
    """
    return node if _is_several(node) else intern(Recompute(k), (node,), node.type, node.loc)


def _with_args(node: Node, args: Sequence[Node]) -> Node:
    if all(new is old for new, old in zip(args, node.args, strict=True)):
        return node
    return intern(node.op, tuple(args), node.type, node.loc)
