"""From a cluster to a kernel: its loops, in one of three shapes.

*Map*: every point on its own. The innermost loop is a vector loop, the outer ones together the parallel loop.
*Row*: each parallel iteration runs the inner variables once for each stage of reductions (softmax: maximum, sum,
division), values that are dear to compute are kept in a private array between stages.
*Column*: reductions over outer variables. A parallel iteration takes up to 64 neighbouring columns and keeps one
accumulator for each, so that memory is still read along rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import GraphError
from graphc.ir.dims import Size, ceildiv, coefficient, product, substitute
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.loops.kernel import (
    EXPENSIVE,
    Accumulate,
    Apply,
    Assign,
    Const,
    Declare,
    Expr,
    For,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Store,
    Var,
)
from graphc.lower.canonical import canonical_kernel
from graphc.lower.cluster import Cluster, reduces, stages
from graphc.lower.emit import Emitter, Merge
from graphc.lower.index import Index, linear, loop_index
from graphc.lower.sources import sources
from graphc.ops.base import Elementwise
from graphc.ops.random import RandomBits
from graphc.ops.reduction import ArgMax, ArgMin, Reduce

I64 = DType.int64
LANES = 64
CHUNK = 4096
MAP_GRAIN = 1024
ROW_CACHE_BYTES = 32 * 1024
"""What the kept values of a row may take together: a first cache, or most of what a block of a GPU's threads shares."""
ZERO = Const(0, I64)


@dataclass
class Built:
    """A kernel with what it is applied to.

    Attributes:
        keys: the nodes whose buffers are its arguments, in order.
        writes: of these, the ones it writes.
        written: how many elements it writes, if that is not all of a buffer.
    """

    kernel: Kernel
    keys: list[Node]
    writes: list[Node]
    sizes: list[Size]
    extent: Size
    grain: int
    cost: Size
    nodes: tuple[Node, ...] = ()
    written: Size | None = None


@dataclass
class Target:
    """A value to store: which node, into whose buffer, and where (default: at the node's own position)."""

    node: Node
    key: Node
    place: Callable[[Index], Size] | None = None


@dataclass
class KernelBuilder:
    """Builds the kernel of one cluster."""

    cluster: Cluster
    targets: Sequence[Target]
    key_of: Callable[[Node], Node]
    check_of: Callable[[Node], int]
    name: str = "kernel"
    stage: dict[int, int] = field(default_factory=dict[int, int])

    def build(self) -> Built:
        """Two passes: the first one learns every access, so that the second can merge loops."""
        self.cluster = canonical(self.cluster)
        self.stage = stages(self.cluster)
        emitter = self._emit(())[0]
        groups = self._merge(emitter.positions)
        return self._finish(*self._emit(groups))

    def _emit(self, merges: tuple[Merge, ...]) -> tuple[Emitter, Size, Expr, int, Size]:
        cluster = self.cluster
        emitter = Emitter(
            frozenset(id(node) for node in cluster.nodes), self.key_of, self.check_of, dict(cluster.extents), merges
        )
        extents = dict(cluster.extents)
        order = list(cluster.variables)
        for merge in merges:
            extents[merge.merged] = extents[merge.outer] * extents[merge.inner]
            order[order.index(merge.inner)] = merge.merged
            order.remove(merge.outer)
        emitter.bounds.update(extents)
        merged_inner = {m.merged for m in merges if m.inner in cluster.inner or _is_inner(m, merges, cluster)}
        inner = [v for v in order if v in cluster.inner or v in merged_inner]
        rows = [v for v in order if v not in inner]
        if not cluster.inner:
            extent, grain, cost = self._map(emitter, rows, extents)
        elif cluster.by_column:
            extent, grain, cost = self._column(emitter, rows, inner, extents)
        else:
            extent, grain, cost = self._row(emitter, rows, inner, extents)
        return emitter, extent, self._bound(emitter, extent), grain, cost

    def _bound(self, emitter: Emitter, extent: Size) -> Expr:
        """The end of the parallel loop: never part of the kernel's text, so that one kernel serves every length."""
        return emitter.sizes.never_literal(extent, "extent")

    def _finish(self, emitter: Emitter, extent: Size, bound: Expr, grain: int, cost: Size) -> Built:
        body = tuple(emitter.blocks[0])
        top = [s for s in body if not (isinstance(s, For) and s.kind is LoopKind.PARALLEL)]
        loop = [s for s in body if isinstance(s, For) and s.kind is LoopKind.PARALLEL]
        kernel = Kernel(
            self.name,
            emitter.buffers(),
            tuple(f"n{i}" for i in range(len(emitter.sizes.values))),
            bound,
            (*top, *loop),
            emitter.has_checks,
        )
        writes: list[Node] = []
        for target in self.targets:
            if not any(target.key is known for known in writes):
                writes.append(target.key)
        nodes = tuple(self.cluster.nodes)
        return Built(
            canonical_kernel(kernel), emitter.keys, writes, list(emitter.sizes.values), extent, grain, cost, nodes
        )

    # merging loops

    def _merge(self, positions: Sequence[Size]) -> tuple[Merge, ...]:
        cluster = self.cluster
        merges: list[Merge] = []
        extents = dict(cluster.extents)
        accesses = list(positions)
        groups = [cluster.rows, cluster.inner]
        if cluster.by_column:  # the last row variable runs over lanes and stays alone
            groups = [cluster.rows[:-1], cluster.inner]
        for group in groups:
            current: str | None = None
            previous: str | None = None
            for variable in reversed(group):
                adjacent = previous is not None and _adjacent(cluster.variables, variable, previous)
                if current is not None and adjacent and _fits(accesses, variable, current, extents[current]):
                    merged = f"%m{len(merges)}{current[1:]}"
                    extents[merged] = extents[variable] * extents[current]
                    accesses = [_replace(p, variable, current, merged) for p in accesses]
                    merges.append(Merge(variable, current, merged))
                    current = merged
                else:
                    current = variable
                previous = variable
        return tuple(merges)

    # the three shapes

    def _map(self, emitter: Emitter, variables: list[str], extents: dict[str, Size]) -> tuple[Size, int, Size]:
        outer, innermost = variables[:-1], variables[-1:]
        inner_extent = extents[innermost[0]] if innermost else 1
        if not outer:
            name = innermost[0] if innermost else "%once"
            emitter.floor = 0 if innermost else 1
            emitter.open(name)
            self._stores(emitter, list(self.targets))
            body = emitter.close()
            emitter.add(For(name[1:], ZERO, self._bound(emitter, inner_extent), LoopKind.PARALLEL, body))
            return inner_extent, MAP_GRAIN, _weight(emitter, 1)
        total = product(tuple(extents[v] for v in outer))
        self._open_rows(emitter, outer, extents)
        emitter.open(innermost[0])
        self._stores(emitter, list(self.targets))
        body = emitter.close()
        emitter.add(For(innermost[0][1:], ZERO, emitter.sizes.argument(inner_extent), LoopKind.VECTOR, body))
        self._close_rows(emitter, total)
        return total, _row_grain(inner_extent), _weight(emitter, inner_extent)

    def _open_rows(self, emitter: Emitter, rows: list[str], extents: dict[str, Size]) -> None:
        """Begin the parallel loop over the product of the rows and say which row it is."""
        if len(rows) == 1:
            emitter.open(rows[0])
            self._parallel = rows[0][1:]
            return
        self._parallel = "p"
        emitter.open("p")
        rest: Expr = Var("p", I64)
        for position in range(len(rows) - 1, -1, -1):
            size = emitter.sizes.argument(extents[rows[position]])
            name = rows[position][1:]
            value = rest if position == 0 else Apply("mod", (rest, size), I64)
            emitter.depth_of[name] = len(emitter.blocks) - 1
            emitter.add(Let(Var(name, I64), value))
            if position:
                rest = emitter.let(Apply("floordiv", (rest, size), I64))

    def _close_rows(self, emitter: Emitter, total: Size) -> None:
        body = emitter.close()
        emitter.add(For(self._parallel, ZERO, self._bound(emitter, total), LoopKind.PARALLEL, body))

    def _stores(self, emitter: Emitter, targets: Sequence[Target]) -> None:
        values = [(t, emitter.value(t.node, self.cluster.at[id(t.node)])) for t in targets]
        used = {id(source) for node in self.cluster.nodes for source in sources(node)}
        for node in self.cluster.nodes:
            if id(node) not in used and not any(t.node is node for t in targets) and not self.cluster.inner:
                emitter.value(node, self.cluster.at[id(node)])  # a check whose value nobody reads
        for target, value in values:
            index = self.cluster.at[id(target.node)]
            place = target.place(index) if target.place else linear(index, target.node.shape)
            emitter.store(target.key, place, value)

    def _row(
        self, emitter: Emitter, rows: list[str], inner: list[str], extents: dict[str, Size]
    ) -> tuple[Size, int, Size]:
        cluster = self.cluster
        total = product(tuple(extents[v] for v in rows))
        if rows:
            self._open_rows(emitter, rows, extents)
        else:
            emitter.open("%once")
            self._parallel = "once"
        inner_size = product(tuple(extents[v] for v in inner))
        cache = self._row_cache(inner_size)
        for node in cache:
            emitter.add(Local(cache[node], _node(cluster, node).dtype, int(inner_size)))  # pyright: ignore[reportArgumentType]
            emitter.depth_of[cache[node]] = len(emitter.blocks) - 1
        full = [t for t in self.targets if cluster.is_full(t.node)]
        cached: set[int] = set()
        for stage in range(max(self.stage.values(), default=0) + 2):
            reductions = [node for node in cluster.nodes if reduces(node) and self.stage[id(node)] == stage + 1]
            stores = [t for t in full if self.stage[id(t.node)] == stage]
            if reductions or stores:
                self._inner_loops(emitter, inner, extents, reductions, stores, cache, cached)
        self._stores(emitter, [t for t in self.targets if not cluster.is_full(t.node)])
        self._close_rows(emitter, total)
        return total, 1, _weight(emitter, inner_size)

    def _row_cache(self, inner_size: Size) -> dict[int, str]:
        """Names of private arrays for values that several stages read and that are dear to compute.

        What is kept is the last value before a reduction, not the dear one in it: less is read and computed again.
        """
        if not isinstance(inner_size, int) or inner_size <= 0:
            return {}
        cluster, room = self.cluster, ROW_CACHE_BYTES
        reads: dict[int, set[int]] = {id(node): set() for node in cluster.nodes}
        for node in cluster.nodes:
            for source in sources(node):
                if id(source) in reads:
                    reads[id(source)].add(self.stage[id(node)] - (1 if reduces(node) else 0))
        for target in self.targets:
            reads[id(target.node)].add(self.stage[id(target.node)])
        dear: set[int] = set()
        found: dict[int, str] = {}
        for node in sorted(cluster.nodes, key=lambda node: node.uid):
            if reduces(node) or not cluster.is_full(node):
                continue
            is_dear = isinstance(node.op, RandomBits) or (isinstance(node.op, Elementwise) and node.op.fn in EXPENSIVE)
            if not is_dear and not any(id(source) in dear for source in sources(node)):
                continue
            nbytes = inner_size * node.dtype.itemsize
            if len(reads[id(node)]) > 1 and nbytes <= room:
                found[id(node)] = f"row{len(found)}"
                room -= nbytes
            else:
                dear.add(id(node))
        return found

    def _inner_loops(
        self,
        emitter: Emitter,
        inner: list[str],
        extents: dict[str, Size],
        reductions: Sequence[Node],
        stores: Sequence[Target],
        cache: dict[int, str],
        cached: set[int],
    ) -> None:
        accumulators = [self._declare(emitter, node) for node in reductions]
        ordered = any(isinstance(node.op, ArgMax | ArgMin) for node in reductions)
        last = inner[-1]
        length = extents[last]
        long = not isinstance(length, int) or length > CHUNK
        sums = [i for i, node in enumerate(reductions) if isinstance(node.op, Reduce) and node.op.fn == "add"]
        chunked = bool(sums) and (long or self._is_whole(inner)) and not ordered
        for variable in inner[:-1]:
            emitter.open(variable)
        parts: dict[int, Var] = {}
        if chunked:
            emitter.open("%chunk")
            for i in sums:
                parts[i] = Var(emitter.fresh("part"), reductions[i].dtype)
                emitter.add(Declare(parts[i], _const(0, reductions[i].dtype)))
        emitter.open(last)
        position = self._inner_position(inner, extents)
        for node_id, array in cache.items():
            if node_id in cached:
                node = _node(self.cluster, node_id)
                kept = Load(array, emitter.index(position), node.dtype)
                emitter.remember(node, self.cluster.at[node_id], emitter.let(kept))
        for i, (node, variables) in enumerate(zip(reductions, accumulators, strict=True)):
            value = emitter.value(node.args[0], self.cluster.inner_at[id(node)])
            self._combine(emitter, node, variables, value, parts.get(i), inner, extents)
        self._stores(emitter, stores) if stores else None
        for node_id, array in cache.items():
            node = _node(self.cluster, node_id)
            key = (node_id, self.cluster.at[node_id])
            known = next((m[key] for m in emitter.memo if key in m), None)
            if node_id not in cached and known is not None:
                emitter.add(Store(array, emitter.index(position), known))
                cached.add(node_id)
        kind = LoopKind.SEQ if ordered else LoopKind.REDUCE if reductions else LoopKind.VECTOR
        self._close_inner(emitter, inner, extents, kind, parts, accumulators, chunked)
        for node, variables in zip(reductions, accumulators, strict=True):
            result: Expr = variables[-1]
            depth = len(emitter.blocks) - 1
            for variable in variables:
                emitter.depth_of[variable.name] = depth
            emitter.remember(node, self.cluster.at[id(node)], result)

    def _is_whole(self, inner: Sequence[str]) -> bool:
        """Does the kernel reduce a whole vector? Its length is an argument then: vectors of all lengths share it."""
        return not self.cluster.rows and len(inner) == 1

    def _inner_position(self, inner: list[str], extents: dict[str, Size]) -> Size:
        return linear(tuple(loop_index(v[1:]) for v in inner), tuple(extents[v] for v in inner))

    def _close_inner(
        self,
        emitter: Emitter,
        inner: list[str],
        extents: dict[str, Size],
        kind: LoopKind,
        parts: dict[int, Var],
        accumulators: list[tuple[Var, ...]],
        chunked: bool,
    ) -> None:
        last = inner[-1]
        size = extents[last]
        body = emitter.close()
        count = ceildiv(size, CHUNK)
        if self._is_whole(inner):
            length = emitter.sizes.never_literal(size, "length")
            chunks = emitter.sizes.never_literal(count, "chunks") if chunked else ZERO
        else:
            length, chunks = emitter.sizes.argument(size), emitter.sizes.argument(count) if chunked else ZERO
        if chunked:
            chunk = loop_index("chunk")
            start = emitter.sizes.expression(chunk * CHUNK)
            stop = Apply("min", (emitter.sizes.expression(chunk * CHUNK + CHUNK), length), I64)
            emitter.add(For(last[1:], start, stop, kind, body))
            for i, part in parts.items():
                (total,) = accumulators[i]
                emitter.add(Assign(total, Apply("add", (total, part), total.dtype)))
            body = emitter.close()
            emitter.add(For("chunk", ZERO, chunks, LoopKind.SEQ, body))
        else:
            emitter.add(For(last[1:], ZERO, length, kind, body))
        for variable in reversed(inner[:-1]):
            body = emitter.close()
            emitter.add(For(variable[1:], ZERO, emitter.sizes.argument(extents[variable]), LoopKind.SEQ, body))

    def _declare(self, emitter: Emitter, node: Node) -> tuple[Var, ...]:
        if isinstance(node.op, ArgMax | ArgMin):
            best = Var(emitter.fresh("best"), node.args[0].dtype)
            where = Var(emitter.fresh("where"), I64)
            emitter.add(Declare(best, _const(0, best.dtype)))
            emitter.add(Declare(where, Const(-1, I64)))
            return best, where
        total = Var(emitter.fresh("total"), node.dtype)
        emitter.add(Declare(total, _identity(node)))
        return (total,)

    def _combine(
        self,
        emitter: Emitter,
        node: Node,
        variables: tuple[Var, ...],
        value: Expr,
        part: Var | None,
        inner: list[str],
        extents: dict[str, Size],
    ) -> None:
        if isinstance(node.op, Reduce):
            emitter.add(Accumulate(part or variables[0], node.op.fn, value))
            return
        best, where = variables
        fn = "gt" if isinstance(node.op, ArgMax) else "lt"
        better: Expr = Apply(fn, (value, best), DType.bool)
        if value.dtype.is_float:
            is_nan, was_nan = (Apply("isnan", (v,), DType.bool) for v in (value, best))
            first_nan = Apply("and", (is_nan, Apply("not", (was_nan,), DType.bool)), DType.bool)
            better = Apply("or", (better, first_nan), DType.bool)
        better = Apply("or", (Apply("lt", (where, ZERO), DType.bool), better), DType.bool)
        chosen = Var(emitter.fresh("better"), DType.bool)
        emitter.add(Let(chosen, better))
        place = emitter.sizes.expression(self._inner_position(inner, extents))
        emitter.add(Assign(where, Apply("select", (chosen, place, where), I64)))
        emitter.add(Assign(best, Apply("select", (chosen, value, best), best.dtype)))

    def _column(
        self, emitter: Emitter, rows: list[str], inner: list[str], extents: dict[str, Size]
    ) -> tuple[Size, int, Size]:
        cluster = self.cluster
        *outer, column = rows
        width = extents[column]
        blocks = ceildiv(width, LANES)
        emitter.open("p")
        self._parallel = "p"
        rest: Expr = Var("p", I64)
        first: Expr = ZERO
        lanes: Expr = emitter.sizes.argument(width)
        if not isinstance(width, int) or width > LANES:
            block = rest
            if outer:
                block = emitter.let(Apply("mod", (rest, emitter.sizes.argument(blocks)), I64))
                rest = emitter.let(Apply("floordiv", (rest, emitter.sizes.argument(blocks)), I64))
            first = emitter.let(Apply("mul", (block, Const(LANES, I64)), I64))
            left = Apply("sub", (emitter.sizes.argument(width), first), I64)
            even = isinstance(width, int) and width % LANES == 0
            lanes = Const(LANES, I64) if even else emitter.let(Apply("min", (left, Const(LANES, I64)), I64))
        for position in range(len(outer) - 1, -1, -1):
            size = emitter.sizes.argument(extents[outer[position]])
            value = rest if position == 0 else Apply("mod", (rest, size), I64)
            emitter.depth_of[outer[position][1:]] = 1
            emitter.add(Let(Var(outer[position][1:], I64), value))
            if position:
                rest = emitter.let(Apply("floordiv", (rest, size), I64))
        reductions = [node for node in cluster.nodes if reduces(node)]
        arrays = [emitter.fresh("sums") for _ in reductions]
        for node, array in zip(reductions, arrays, strict=True):
            emitter.add(Local(array, node.dtype, LANES))
        emitter.add(
            For(
                "lane", ZERO, lanes, LoopKind.VECTOR,
                tuple(Store(a, Var("lane", I64), _identity(n)) for n, a in zip(reductions, arrays, strict=True)),
            )
        )  # fmt: skip
        for variable in inner:
            emitter.open(variable)
        self._open_lanes(emitter, column, first)
        lane = Var("lane", I64)
        values = [emitter.value(node.args[0], cluster.inner_at[id(node)]) for node in reductions]
        self._stores(emitter, [t for t in self.targets if cluster.is_full(t.node)])
        for node, array, value in zip(reductions, arrays, values, strict=True):
            before = Load(array, lane, node.dtype)
            emitter.add(Store(array, lane, Apply(node.op.fn, (before, value), node.dtype)))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
        body = emitter.close()
        emitter.add(For("lane", ZERO, lanes, LoopKind.VECTOR, body))
        for variable in reversed(inner):
            body = emitter.close()
            emitter.add(For(variable[1:], ZERO, emitter.sizes.argument(extents[variable]), LoopKind.SEQ, body))
        self._open_lanes(emitter, column, first)
        for node, array in zip(reductions, arrays, strict=True):
            emitter.depth_of[array] = len(emitter.blocks) - 1
            emitter.remember(node, cluster.at[id(node)], emitter.let(Load(array, lane, node.dtype)))
        self._stores(emitter, [t for t in self.targets if not cluster.is_full(t.node)])
        body = emitter.close()
        emitter.add(For("lane", ZERO, lanes, LoopKind.VECTOR, body))
        total = product(tuple(extents[v] for v in outer)) * blocks
        self._close_rows(emitter, total)
        return total, 1, _weight(emitter, product(tuple(extents[v] for v in inner)) * LANES)

    def _open_lanes(self, emitter: Emitter, column: str, first: Expr) -> None:
        emitter.open("lane", column)
        place: Expr = Var("lane", I64)
        if first != ZERO:
            place = Apply("add", (first, place), I64)
        emitter.add(Let(Var(column[1:], I64), place))


def canonical(cluster: Cluster) -> Cluster:
    """The cluster with its loop variables named by position, so that equal work gives equal kernels."""
    new = {old: f"%i{position}" for position, old in enumerate(cluster.variables)}
    values = {old: loop_index(name[1:]) for old, name in new.items()}
    return Cluster(
        cluster.nodes,
        tuple(new.values()),
        {new[old]: extent for old, extent in cluster.extents.items() if old in new},
        tuple(new[old] for old in cluster.inner),
        {key: tuple(substitute(part, values) for part in at) for key, at in cluster.at.items()},
        {key: tuple(substitute(part, values) for part in at) for key, at in cluster.inner_at.items()},
    )


def copy_cluster(node: Node) -> Cluster:
    """A cluster that computes nothing: its kernel only moves the elements of a node."""
    variables = tuple(f"%i{axis}" for axis, size in enumerate(node.shape) if size != 1)
    extents = {f"%i{axis}": size for axis, size in enumerate(node.shape) if size != 1}
    at = tuple(0 if size == 1 else loop_index(f"i{axis}") for axis, size in enumerate(node.shape))
    return Cluster([], variables, extents, (), {id(node): at}, {})


def _is_inner(merge: Merge, merges: Sequence[Merge], cluster: Cluster) -> bool:
    name = merge.inner
    by_name = {m.merged: m for m in merges}
    while name in by_name:
        name = by_name[name].inner
    return name in cluster.inner


def _adjacent(variables: Sequence[str], outer: str, inner: str) -> bool:
    return variables.index(inner) - variables.index(outer) == 1


def _fits(accesses: Sequence[Size], outer: str, inner: str, extent: Size) -> bool:
    for place in accesses:
        a, b = coefficient(place, outer), coefficient(place, inner)
        if a is None or b is None or a != b * extent:
            return False
    return True


def _replace(place: Size, outer: str, inner: str, merged: str) -> Size:
    a, b = coefficient(place, outer), coefficient(place, inner)
    assert a is not None
    assert b is not None
    return place - a * loop_index(outer[1:]) - b * loop_index(inner[1:]) + b * loop_index(merged[1:])


def _row_grain(inner: Size) -> int:
    return max(1, MAP_GRAIN // inner) if isinstance(inner, int) and inner > 0 else 1


def _weight(emitter: Emitter, inner: Size) -> Size:
    return max(emitter.weight, 1) * inner


def _node(cluster: Cluster, node_id: int) -> Node:
    return next(node for node in cluster.nodes if id(node) == node_id)


def _const(value: Any, dtype: DType) -> Const:
    if dtype.is_float:
        return Const(float(value), dtype)
    return Const(bool(value) if dtype is DType.bool else int(value), dtype)


def _identity(node: Node) -> Const:
    """What an empty reduction gives."""
    op, dtype = node.op, node.dtype
    if not isinstance(op, Reduce):
        raise GraphError(f"{op.name} has no identity", remedy="this is a defect of graphc")
    if op.fn in ("min", "max"):
        sign = 1 if op.fn == "min" else -1
        if dtype.is_float:
            return Const(sign * float("inf"), dtype)
        if dtype is DType.bool:
            return Const(op.fn == "min", dtype)
        limits = np.iinfo(dtype.numpy)
        return Const(int(limits.max if sign > 0 else limits.min), dtype)
    return _const({"add": 0, "mul": 1, "and": 1, "or": 0}[op.fn], dtype)


__all__ = ["Built", "KernelBuilder", "Target", "canonical", "copy_cluster"]
