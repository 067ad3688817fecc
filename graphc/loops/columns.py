"""Reductions down columns on a GPU: a block takes a few neighbouring columns and many rows at a time.

Lowering gives an iteration up to 64 columns with an accumulator for each, and goes down the rows in order. Here a block
takes 32 of them, so that memory is read in pieces of 128 bytes, and each of its warps every 32nd row; at the end the
warps' results are brought together in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, ceildiv, index, int64, map_expressions, parallel_loop
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
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)

WIDTH = 32
"""Columns of a block."""
GROUPS = 32
"""Rows that a block takes at a time."""
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


def map_columns(kernel: Kernel) -> Kernel | None:
    """The kernel mapped so, or None if it does not reduce columns."""
    parallel = parallel_loop(kernel)
    parts = match_columns(parallel)
    if parts is None:
        return None
    names = Names(kernel)
    block, part, first, width = (Var(names.new(n), DType.int64) for n in ("block", "part", "first", "width"))
    count = ceildiv_of(parts.lanes)
    position = index("floordiv", block, int64(count)) if count > 1 else block
    body: list[Stmt] = [Let(Var(parallel.var, DType.int64), position), *parts.lets]
    body.append(Let(part, index("mod", block, int64(count)) if count > 1 else int64(0)))
    body.append(Let(first, index("mul", part, int64(WIDTH))))
    body.append(Let(width, index("min", index("sub", parts.lanes, first), int64(WIDTH))))
    shared = {a: Local(names.new(f"{a}_parts"), local.dtype, WIDTH * GROUPS, True) for a, local in parts.arrays.items()}
    body += shared.values()
    body.append(_down(parts, names, shared, first, width))
    body.append(Barrier())
    body.append(_across(parts, names, shared, first, width))
    outer = For(block.name, int64(0), index("mul", kernel.extent, int64(count)), LoopKind.BLOCK, tuple(body))
    return replace(kernel, body=(outer,), threads=WIDTH * GROUPS)


def ceildiv_of(lanes: Expr) -> int:
    """How many blocks share the columns of an iteration."""
    return -(-int(lanes.value if isinstance(lanes, Const) else 64) // WIDTH)


def _down(parts: Columns, names: Names, shared: dict[str, Local], first: Var, width: Var) -> Stmt:
    """Each thread goes down one column and leaves what it found in shared memory."""
    slot, column, group = (Var(names.new(n), DType.int64) for n in ("slot", "column", "group"))
    sums = {a: Var(names.new(f"{a}_sum"), local.dtype) for a, local in parts.arrays.items()}
    inner: list[Stmt] = [Declare(sums[a], parts.initial[a]) for a in parts.arrays]
    turn = Var(names.new("turn"), DType.int64)
    rows = parts.rows
    missing = index("sub", index("sub", rows.stop, rows.start), group)
    row = index("add", rows.start, index("add", group, index("mul", int64(GROUPS), turn)))
    body = (Let(Var(rows.var, DType.int64), row), *_unlaned(rows.body, sums, column, first))
    inner.append(For(turn.name, int64(0), ceildiv(missing, GROUPS), LoopKind.SEQ, body))
    inner += [Store(shared[a].name, slot, sums[a]) for a in parts.arrays]
    return For(
        slot.name, int64(0), int64(WIDTH * GROUPS), LoopKind.THREAD,
        (
            Let(column, index("mod", slot, int64(WIDTH))),
            Let(group, index("floordiv", slot, int64(WIDTH))),
            If(Apply("lt", (column, width), DType.bool), tuple(inner)),
        ),
    )  # fmt: skip


def _unlaned(statements: tuple[Stmt, ...], sums: dict[str, Var], column: Var, first: Var) -> tuple[Stmt, ...]:
    """The loops down the columns, with one column instead of a loop over all; Locals become scalars."""
    result: list[Stmt] = []
    for statement in statements:
        match statement:
            case For(kind=LoopKind.VECTOR):
                result.append(Let(Var(statement.var, DType.int64), index("add", first, column)))
                for inner in statement.body:
                    match inner:
                        case Store(buffer=name, value=Apply(fn=fn, args=(_, value))) if name in sums:
                            result.append(Accumulate(sums[name], fn, value))
                        case _:
                            result.append(inner)
            case For():
                result.append(replace(statement, body=_unlaned(statement.body, sums, column, first)))
            case _:
                result.append(statement)
    return tuple(result)


def _across(parts: Columns, names: Names, shared: dict[str, Local], first: Var, width: Var) -> Stmt:
    """For each column the groups' results together, and what is done with them."""
    column, group = Var(names.new("column"), DType.int64), Var(names.new("group"), DType.int64)
    totals = {a: Var(names.new(f"{a}_total"), local.dtype) for a, local in parts.arrays.items()}
    body: list[Stmt] = [Declare(totals[a], parts.initial[a]) for a in parts.arrays]
    place = index("add", index("mul", int64(WIDTH), group), column)
    loads = tuple(
        Accumulate(totals[a], parts.functions[a], Load(shared[a].name, place, local.dtype))
        for a, local in parts.arrays.items()
    )
    body.append(For(group.name, int64(0), int64(GROUPS), LoopKind.SEQ, loads))
    for loop in parts.after:
        here = Let(Var(loop.var, DType.int64), index("add", first, column))
        rest = tuple(map_expressions(s, lambda e: _with_totals(e, totals)) for s in loop.body)
        body.append(For(names.new("once"), int64(0), int64(1), LoopKind.SEQ, (here, *rest)))
    if len(parts.after) == 1:
        only = body.pop()
        assert isinstance(only, For)
        body += only.body
    return For(column.name, int64(0), width, LoopKind.THREAD, tuple(body))


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
