"""Reductions down columns on a GPU: a block takes neighbouring columns and several rows at a time.

Lowering gives an iteration up to 64 columns with an accumulator for each, and goes down the rows in order. Here a block
takes them, each thread as many neighbours as can be read at once; what is left of the threads takes other rows. At the
end the results of the rows are brought together in a fixed order. Where there are only a few rows, as in a window, a
thread goes down its columns alone, and a block has those of several iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import (
    Names,
    ceildiv,
    index,
    int64,
    is_multiple,
    lets_of,
    map_expressions,
    parallel_loop,
    rewrite,
)
from graphc.loops.kernel import (
    Accumulate,
    Apply,
    Barrier,
    Const,
    Declare,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Pack,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)
from graphc.loops.pack import pack_body, pack_size

THREADS = 256
"""Threads of a block: several blocks share a multiprocessor, so that some read while others bring sums together."""
WIDTH = 64
"""Columns of an iteration, at most."""
FEW = 16
"""Rows that a thread goes down alone."""
_REDUCTIONS = ("add", "mul", "min", "max", "and", "or")


@dataclass(frozen=True)
class Columns:
    """The parts of a kernel that reduces columns.

    Attributes:
        lets: what stands before the accumulators.
        initial: what the accumulator of each Local begins as.
        lane, lanes: the variable over columns and its stop.
        rows: the nest of loops down the columns, whose innermost body is that of a loop over columns.
        after: bodies of the loops over columns behind it.
    """

    lets: tuple[Stmt, ...]
    arrays: dict[str, Local]
    initial: dict[str, Expr]
    functions: dict[str, str]
    lanes: Expr
    rows: For
    after: tuple[For, ...]


def map_columns(kernel: Kernel, most: int) -> Kernel | None:
    """The kernel mapped so, with up to ``most`` columns a thread; None if it does not reduce columns."""
    parallel = parallel_loop(kernel)
    parts = match_columns(parallel)
    if parts is None:
        return None
    names, lets = Names(kernel), lets_of(parallel)
    lanes = _lane_loop(parts.rows)
    multiple = next((m for m in (8, 4, 2) if is_multiple(parts.lanes, m, lets)), 0)
    size = pack_size(replace(lanes, body=_accumulating(lanes, _sums(parts, names))), lets, most, multiple)
    down = _Down(parts, names, lets, size)
    if (rows := _trips(parts.rows)) is not None and rows <= FEW:
        return _map_alone(kernel, parallel.var, down)
    shared = {
        a: Local(names.new(f"{a}_parts"), local.dtype, WIDTH * down.groups, True) for a, local in parts.arrays.items()
    }
    body = (*parts.lets, *shared.values(), down.loop(shared), Barrier(), _across(parts, names, shared, down.groups))
    outer = For(parallel.var, int64(0), kernel.extent, LoopKind.BLOCK, body)
    return replace(kernel, body=(outer,), threads=THREADS)


def _trips(rows: For) -> int | None:
    """How many rows a nest of loops has, if that is a number."""
    if rows.kind is LoopKind.VECTOR:
        return 1
    inner = next(_trips(s) for s in rows.body if isinstance(s, For))
    if inner is None or not isinstance(rows.start, Const) or not isinstance(rows.stop, Const):
        return None
    return inner * int(rows.stop.value - rows.start.value)


def _map_alone(kernel: Kernel, row: str, down: _Down) -> Kernel:
    """Every thread goes down all rows for its columns; neighbouring threads have neighbouring columns."""
    parts, size = down.parts, down.size
    lanes = int(parts.lanes.value) if isinstance(parts.lanes, Const) else WIDTH
    each = int64(-(-lanes // size))
    block, thread, column = (Var(down.names.new(n), DType.int64) for n in ("block", "thread", "column"))
    here, count = Var(row, DType.int64), index("mul", kernel.extent, each)
    inner = tuple(down.alone(column))
    if not isinstance(parts.lanes, Const) or lanes % size:
        inner = (If(Apply("lt", (column, parts.lanes), DType.bool), inner),)
    first = index("mul", block, int64(THREADS))
    body = (
        Let(here, index("floordiv", thread, each)),
        Let(column, index("mul", index("sub", thread, index("mul", here, each)), int64(size))),
        *parts.lets,
        *inner,
    )
    end = index("min", count, index("add", first, int64(THREADS)))
    threads = For(thread.name, first, end, LoopKind.THREAD, body)
    outer = For(block.name, int64(0), ceildiv(count, THREADS), LoopKind.BLOCK, (threads,))
    return replace(kernel, body=(outer,), threads=THREADS)


def _lane_loop(loop: For) -> For:
    """The innermost loop of a nest, over columns."""
    (inner,) = (s for s in loop.body if isinstance(s, For))
    return inner if inner.kind is LoopKind.VECTOR else _lane_loop(inner)


def _sums(parts: Columns, names: Names) -> dict[str, Var]:
    return {a: Var(names.new(f"{a}_sum"), local.dtype) for a, local in parts.arrays.items()}


def _accumulating(lanes: For, sums: dict[str, Var]) -> tuple[Stmt, ...]:
    """The body of a loop over columns with scalars in place of the elements of Locals."""
    result: list[Stmt] = []
    for statement in lanes.body:
        match statement:
            case Store(buffer=name, value=Apply(fn=fn, args=(_, value))) if name in sums:
                result.append(Accumulate(sums[name], fn, value))
            case _:
                result.append(statement)
    return tuple(result)


@dataclass(frozen=True)
class _Down:
    """How each thread goes down its columns and leaves what it found in shared memory.

    Attributes:
        size: how many neighbouring columns a thread has.
    """

    parts: Columns
    names: Names
    lets: Mapping[str, Expr]
    size: int

    @property
    def groups(self) -> int:
        """How many rows a block takes at a time."""
        return THREADS * self.size // WIDTH

    def loop(self, shared: dict[str, Local]) -> For:
        """The loop over threads."""
        parts, names = self.parts, self.names
        thread, column, group, turn = (Var(names.new(n), DType.int64) for n in ("thread", "column", "group", "turn"))
        sums = _sums(parts, names)
        inner = self._begin(sums)
        rows = parts.rows
        missing = index("sub", index("sub", rows.stop, rows.start), group)
        row = index("add", rows.start, index("add", group, index("mul", int64(self.groups), turn)))
        body = (Let(Var(rows.var, DType.int64), row), *self._unlaned(rows.body, sums, column))
        inner.append(For(turn.name, int64(0), ceildiv(missing, self.groups), LoopKind.SEQ, body))
        inner += self._leave(sums, shared, index("add", index("mul", int64(WIDTH), group), column))
        across = index("mul", index("mod", thread, int64(WIDTH // self.size)), int64(self.size))
        return For(
            thread.name, int64(0), int64(THREADS), LoopKind.THREAD,
            (
                Let(column, across),
                Let(group, index("floordiv", thread, int64(WIDTH // self.size))),
                If(Apply("lt", (column, parts.lanes), DType.bool), tuple(inner)),
            ),
        )  # fmt: skip

    def alone(self, column: Var) -> list[Stmt]:
        """All of an iteration for the columns of a thread, which begin there."""
        parts = self.parts
        sums = _sums(parts, self.names)
        body = self._begin(sums)
        body.append(replace(parts.rows, body=self._unlaned(parts.rows.body, sums, column)))
        for loop in parts.after:
            rest = tuple(map_expressions(s, lambda e: _with_totals(e, sums)) for s in loop.body)
            if self.size == 1:
                once = (Let(Var(loop.var, DType.int64), column), *rest)
                body.append(For(self.names.new("once"), int64(0), int64(1), LoopKind.SEQ, once))
                continue
            loop = replace(loop, body=rest)
            if pack_size(loop, self.lets, self.size, self.size) == self.size:
                packed = pack_body(loop, column, self.size, self.lets, self.names)
                body += (_by_lane(s, sums) if isinstance(s, For) else s for s in packed)
                continue
            lane = Var(self.names.new("lane"), DType.int64)
            each = (Let(Var(loop.var, DType.int64), index("add", column, lane)), *rest)
            body.append(_by_lane(For(lane.name, int64(0), int64(self.size), LoopKind.SEQ, each), sums))
        return body

    def _begin(self, sums: dict[str, Var]) -> list[Stmt]:
        parts = self.parts
        if self.size == 1:
            return [Declare(sums[a], parts.initial[a]) for a in parts.arrays]
        lane = Var(self.names.new("lane"), DType.int64)
        stores = tuple(Store(sums[a].name, lane, parts.initial[a]) for a in parts.arrays)
        return [
            *(Local(sums[a].name, local.dtype, self.size) for a, local in parts.arrays.items()),
            For(lane.name, int64(0), int64(self.size), LoopKind.SEQ, stores),
        ]

    def _leave(self, sums: dict[str, Var], shared: dict[str, Local], place: Expr) -> list[Stmt]:
        if self.size == 1:
            return [Store(shared[a].name, place, sums[a]) for a in self.parts.arrays]
        return [Pack(sums[a].name, shared[a].name, place, sums[a].dtype, self.size, stores=True) for a in sums]

    def _unlaned(self, statements: tuple[Stmt, ...], sums: dict[str, Var], column: Var) -> tuple[Stmt, ...]:
        """The loops down the columns, with the thread's columns instead of a loop over all; Locals become its own."""
        result: list[Stmt] = []
        for statement in statements:
            match statement:
                case For(kind=LoopKind.VECTOR) if self.size == 1:
                    result += [Let(Var(statement.var, DType.int64), column), *_accumulating(statement, sums)]
                case For(kind=LoopKind.VECTOR):
                    loop = replace(statement, body=_accumulating(statement, sums))
                    packed = pack_body(loop, column, self.size, self.lets, self.names)
                    result += (_by_lane(s, sums) if isinstance(s, For) else s for s in packed)
                case For():
                    result.append(replace(statement, body=self._unlaned(statement.body, sums, column)))
                case _:
                    result.append(statement)
        return tuple(result)


def _by_lane(loop: For, sums: dict[str, Var]) -> For:
    """A loop over the columns of a thread with an accumulator for each."""
    lane = Var(loop.var, DType.int64)
    each: dict[str, Expr] = {var.name: Load(var.name, lane, var.dtype) for var in sums.values()}
    body: list[Stmt] = []
    for statement in rewrite(loop.body, each):
        if isinstance(statement, Accumulate):
            name, dtype = statement.var.name, statement.var.dtype
            value = Apply(statement.fn, (Load(name, lane, dtype), statement.value), dtype)
            statement = Store(name, lane, value)
        body.append(statement)
    return replace(loop, body=tuple(body))


def _across(parts: Columns, names: Names, shared: dict[str, Local], groups: int) -> Stmt:
    """For each column the groups' results together, and what is done with them."""
    column, group = Var(names.new("column"), DType.int64), Var(names.new("group"), DType.int64)
    totals = {a: Var(names.new(f"{a}_total"), local.dtype) for a, local in parts.arrays.items()}
    body: list[Stmt] = [Declare(totals[a], parts.initial[a]) for a in parts.arrays]
    place = index("add", index("mul", int64(WIDTH), group), column)
    loads = tuple(
        Accumulate(totals[a], parts.functions[a], Load(shared[a].name, place, local.dtype))
        for a, local in parts.arrays.items()
    )
    body.append(For(group.name, int64(0), int64(groups), LoopKind.SEQ, loads))
    for loop in parts.after:
        here = Let(Var(loop.var, DType.int64), column)
        rest = tuple(map_expressions(s, lambda e: _with_totals(e, totals)) for s in loop.body)
        body.append(For(names.new("once"), int64(0), int64(1), LoopKind.SEQ, (here, *rest)))
    if len(parts.after) == 1:
        only = body.pop()
        assert isinstance(only, For)
        body += only.body
    return For(column.name, int64(0), parts.lanes, LoopKind.THREAD, tuple(body))


def _with_totals(expression: Expr, totals: dict[str, Var]) -> Expr:
    match expression:
        case Load(buffer=name) if name in totals:
            return totals[name]
        case Load():
            return replace(expression, index=_with_totals(expression.index, totals))
        case Apply(args=args):
            return replace(expression, args=tuple(_with_totals(argument, totals) for argument in args))
        case _:
            return expression


def match_columns(parallel: For) -> Columns | None:
    """The parts of a parallel loop that reduces columns as lowering writes it; None if it is something else."""
    body = parallel.body
    start = next((i for i, s in enumerate(body) if not isinstance(s, Let)), len(body))
    end = next((i for i in range(start, len(body)) if not isinstance(body[i], Local)), len(body))
    arrays = {s.name: s for s in body[start:end] if isinstance(s, Local)}
    rest = body[end:]
    if not arrays or len(rest) < 3 or not all(isinstance(s, For) for s in rest):
        return None
    init, rows, *after = (s for s in rest if isinstance(s, For))
    initial = {s.buffer: s.value for s in init.body if isinstance(s, Store)}
    if not _is_lane_loop(init, init.stop) or initial.keys() != arrays.keys() or len(init.body) != len(arrays):
        return None
    if not all(isinstance(value, Const) for value in initial.values()) or rows.kind is not LoopKind.SEQ:
        return None
    functions = _functions(rows, arrays, init.stop)
    fits = all(_is_lane_loop(loop, init.stop) and _reads_own_lane(loop, arrays) for loop in after)
    if functions is None or functions.keys() != arrays.keys() or not fits:
        return None
    return Columns(body[:start], arrays, initial, functions, init.stop, rows, tuple(after))


def _is_lane_loop(loop: For, lanes: Expr) -> bool:
    simple = all(isinstance(s, Let | Store) for s in loop.body)
    return loop.kind is LoopKind.VECTOR and loop.start == int64(0) and loop.stop == lanes and simple


def _functions(rows: For, arrays: dict[str, Local], lanes: Expr) -> dict[str, str] | None:
    """By what each array is reduced in a nest of loops around one over columns; None if there is anything else."""
    nested = [s for s in rows.body if isinstance(s, For)]
    if len(nested) != 1 or not all(isinstance(s, For | Let) for s in rows.body):
        return None
    (inner,) = nested
    if inner.kind is LoopKind.SEQ:
        return _functions(inner, arrays, lanes)
    if not _is_lane_loop(inner, lanes):
        return None
    lane = Var(inner.var, DType.int64)
    found: dict[str, str] = {}
    for statement in inner.body:
        match statement:
            case Store(buffer=name, index=place, value=Apply(fn=fn, args=(Load(buffer=same, index=at), value))) if (
                name in arrays and name == same and place == at == lane and fn in _REDUCTIONS and name not in found
            ):
                if _mentions(value, arrays):
                    return None
                found[name] = fn
            case _:
                if any(_mentions(e, arrays) for e in expressions(statement)):
                    return None
                if isinstance(statement, Store) and statement.buffer in arrays:
                    return None
    return found


def _mentions(expression: Expr, arrays: dict[str, Local]) -> bool:
    return any(isinstance(part, Load) and part.buffer in arrays for part in subexpressions(expression))


def _reads_own_lane(loop: For, arrays: dict[str, Local]) -> bool:
    """Does a loop read of the arrays only what belongs to its own column, and write none of them?"""
    lane = Var(loop.var, DType.int64)
    loads = [p for s in walk(loop.body) for e in expressions(s) for p in subexpressions(e) if isinstance(p, Load)]
    stores = [s for s in loop.body if isinstance(s, Store)]
    return all(p.index == lane for p in loads if p.buffer in arrays) and not any(s.buffer in arrays for s in stores)
