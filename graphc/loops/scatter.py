"""Scattered sums on a GPU: the rows that are added to are dealt out to blocks, each of which looks at every index.

Lowering adds up in order, so that the same bits come out at every run, with one iteration for all rows. Here each of
several blocks takes a range of the rows and adds what falls into it, still in order.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, index, int64
from graphc.loops.kernel import Apply, Const, Expr, Fail, For, If, Kernel, Let, LoopKind, Stmt, Store, Var, walk

PARTS = 64
"""Ranges of rows, at most."""
ROWS = 4
"""Rows of a range, at least."""


def partition_scatter(kernel: Kernel) -> Kernel:
    """The kernel with its rows in ranges; itself if it does not scatter into a fixed number of rows."""
    *leading, parallel = kernel.body
    assert isinstance(parallel, For)  # verified
    loops = [i for i, s in enumerate(parallel.body) if isinstance(s, For)]
    if len(loops) != 2 or not all(isinstance(s, Let) for s in (*leading, *parallel.body[: loops[0]])):
        return kernel
    fill, add = (parallel.body[i] for i in loops)
    assert isinstance(fill, For)
    assert isinstance(add, For)
    if fill.kind is not LoopKind.SEQ or fill.start != int64(0) or not isinstance(fill.stop, Const):
        return kernel
    rows = int(fill.stop.value)
    stored = {s.buffer for s in walk(fill.body) if isinstance(s, Store)}
    parts = min(PARTS, rows // ROWS)
    if parts < 2 or len(stored) != 1 or {s.buffer for s in walk(add.body) if isinstance(s, Store)} != stored:
        return kernel
    names = Names(kernel)
    whole, part, first, end = (Var(names.new(n), DType.int64) for n in ("whole", "part", "first", "end"))
    guarded = _guarded(add, rows, part, first, end)
    if guarded is None:
        return kernel
    step = -(-rows // parts)
    body: tuple[Stmt, ...] = (
        Let(Var(parallel.var, DType.int64), index("floordiv", whole, int64(parts))),
        Let(part, index("mod", whole, int64(parts))),
        Let(first, index("mul", part, int64(step))),
        Let(end, index("min", index("add", first, int64(step)), int64(rows))),
        *parallel.body[: loops[0]],
        replace(fill, start=first, stop=end),
        guarded,
    )
    extent = index("mul", kernel.extent, int64(parts))
    outer = For(whole.name, int64(0), extent, LoopKind.PARALLEL, body)
    return replace(kernel, extent=extent, body=(*leading, outer))


def _guarded(loop: For, rows: int, part: Var, first: Var, end: Var) -> For | None:
    """The loops over indices, adding only where the row is in range; only the first range's block reports failures."""
    body: list[Stmt] = []
    row: Var | None = None
    adds = 0
    for statement in loop.body:
        match statement:
            case Let(var=var, value=value):
                row = var if _is_clamped(value, rows) else row
                body.append(statement)
            case Fail(condition=condition):
                once = Apply("eq", (part, int64(0)), DType.bool)
                body.append(replace(statement, condition=Apply("and", (once, condition), DType.bool)))
            case For(kind=LoopKind.SEQ):
                inner = _guarded(statement, rows, part, first, end)
                if inner is None:
                    return None
                body.append(inner)
                adds += 1
            case For() | Store() if row is not None:
                within = Apply(
                    "and", (Apply("le", (first, row), DType.bool), Apply("lt", (row, end), DType.bool)), DType.bool
                )
                body.append(If(within, (statement,)))
                adds += 1
            case _:
                return None
    return replace(loop, body=tuple(body)) if adds == 1 else None


def _is_clamped(value: Expr, rows: int) -> bool:
    """Is it an index brought into the range of the rows?"""
    match value:
        case Apply(fn="max", args=(Apply(fn="min", args=(_, Const(value=last))), Const(value=0))):
            return last == rows - 1
        case _:
            return False
