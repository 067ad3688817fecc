"""Scattered sums on a GPU: the rows that are added to are dealt out to blocks, each of which looks at every index.

Lowering adds up in order, so that the same bits come out at every run, with one iteration for all rows. Here each of
several blocks takes a range of the rows and adds what falls into it, still in order. Its threads look at some indices
together first, and pass over those of which none falls into the range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, ceildiv, index, int64, put
from graphc.loops.kernel import (
    Accumulate,
    Apply,
    Const,
    Declare,
    Expr,
    Fail,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Stmt,
    Store,
    Var,
    walk,
)

PARTS = 256
"""Ranges of rows, at most."""
ROWS = 4
"""Rows of a range, at least."""
AT_ONCE = 64
"""Indices that are looked at together."""


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
    guarded = _Scatter(names, rows, first, end).guarded(add)
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


@dataclass(frozen=True)
class _Scatter:
    """Rewrites the loops over indices for a range of rows."""

    names: Names
    rows: int
    first: Var
    end: Var

    def guarded(self, loop: For) -> For | None:
        """The loops, adding only where the row is in range."""
        inner = [s for s in loop.body if isinstance(s, For) and s.kind is LoopKind.SEQ]
        if not inner:
            return self._chunks(loop)
        changed = [self.guarded(s) for s in inner]
        lets = tuple(s for s in loop.body if isinstance(s, Let))
        if len(changed) != 1 or changed[0] is None or len(loop.body) != len(lets) + 1:
            return None
        return replace(loop, body=(*lets, changed[0]))

    def _chunks(self, loop: For) -> For | None:
        """The innermost loop in chunks, each of which is passed over if no row of it is in range."""
        position = next(
            (i for i, s in enumerate(loop.body) if isinstance(s, Let) and _is_clamped(s.value, self.rows)), -1
        )
        clamp = loop.body[position]
        before, after = loop.body[:position], loop.body[position + 1 :]
        if position < 0 or not isinstance(clamp, Let) or not all(isinstance(s, Let | Fail) for s in before):
            return None
        if loop.start != int64(0) or any(isinstance(s, Fail | Let) for s in after):
            return None
        chunk, hits = Var(self.names.new("chunk"), DType.int64), Var(self.names.new("hits"), DType.int64)
        start = index("mul", chunk, int64(AT_ONCE))
        stop = index("min", loop.stop, index("add", start, int64(AT_ONCE)))
        lets = tuple(s for s in before if isinstance(s, Let))
        fails = tuple(s for s in before if isinstance(s, Fail))
        look = self._look(replace(loop, start=start, stop=stop), (*lets, clamp), hits)
        adding = If(self._within(clamp.var), (*fails, *after))
        again = replace(loop, start=start, stop=stop, body=(*lets, clamp, adding))
        some = If(Apply("lt", (int64(0), hits), DType.bool), (again,))
        return For(
            chunk.name, int64(0), ceildiv(loop.stop, AT_ONCE), LoopKind.SEQ, (Declare(hits, int64(0)), look, some)
        )

    def _look(self, loop: For, lets: tuple[Let, ...], hits: Var) -> For:
        """How many of the indices are in range: a loop that is dealt out."""
        change: dict[str, Expr] = {loop.var: Var(self.names.new(loop.var), DType.int64)}
        body: list[Stmt] = []
        for let in lets:
            var = replace(let.var, name=self.names.new(let.var.name))
            body.append(Let(var, put(let.value, change)))
            change[let.var.name] = var
        row = change[lets[-1].var.name]
        one = Apply("select", (self._within(row), int64(1), int64(0)), DType.int64)
        var = change[loop.var]
        assert isinstance(var, Var)
        return replace(loop, var=var.name, kind=LoopKind.REDUCE, body=(*body, Accumulate(hits, "add", one)))

    def _within(self, row: Expr) -> Expr:
        above, below = (Apply(fn, (a, b), DType.bool) for fn, a, b in (("le", self.first, row), ("lt", row, self.end)))
        return Apply("and", (above, below), DType.bool)


def _is_clamped(value: Expr, rows: int) -> bool:
    """Is it an index brought into the range of the rows?"""
    match value:
        case Apply(fn="max", args=(Apply(fn="min", args=(_, Const(value=last))), Const(value=0))):
            return last == rows - 1
        case _:
            return False
