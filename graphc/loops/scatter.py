"""Scattered sums on a GPU: the rows that are added to are dealt out to blocks, each of which looks at every index.

Lowering adds up in order, so that the same bits come out at every run, with one iteration for all rows. Here each of
several blocks takes a range of the rows and adds what falls into it. Its threads look at a tile of the indices
together: each counts its own that fall into the range, and then lists them behind those of the threads before it. What
is listed is added column by column, in the order of the list, which is the same at every run: some values are read at
once, and while the row stays the same its sum stays with the thread, so that a row that most indices name is not read
and written each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, ceildiv, index, int64, put, rewrite
from graphc.loops.kernel import (
    Accumulate,
    Apply,
    Assign,
    Const,
    Declare,
    Expr,
    Fail,
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
    subexpressions,
    walk,
)

PARTS = 256
"""Ranges of rows, at most."""
ROWS = 4
"""Rows of a range, at least."""
LOOKERS = 64
"""Threads that look at indices."""
EACH = 16
"""Indices of a tile that each of them looks at."""
TILE = LOOKERS * EACH
AT_ONCE = 16
"""Values that a thread reads before it adds the first of them."""


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
    scattered = _match(add, rows)
    if scattered is None:
        return kernel
    step = -(-rows // parts)
    body: tuple[Stmt, ...] = (
        Let(Var(parallel.var, DType.int64), index("floordiv", whole, int64(parts))),
        Let(part, index("mod", whole, int64(parts))),
        Let(first, index("mul", part, int64(step))),
        Let(end, index("min", index("add", first, int64(step)), int64(rows))),
        *parallel.body[: loops[0]],
        _inside_out(replace(fill, start=first, stop=end)),
        *_Tiles(scattered, names, first, end).statements(),
    )
    extent = index("mul", kernel.extent, int64(parts))
    outer = For(whole.name, int64(0), extent, LoopKind.PARALLEL, body)
    return replace(kernel, extent=extent, body=(*leading, outer))


def _inside_out(loop: For) -> For:
    """A loop in order with one over columns in it the other way round, so that a thread keeps to its column."""
    *lets, inner = loop.body
    if not isinstance(inner, For) or inner.kind is not LoopKind.VECTOR or not all(isinstance(s, Let) for s in lets):
        return loop
    if any(isinstance(s, Let) and Var(s.var.name, DType.int64) in subexpressions(inner.stop) for s in lets):
        return loop
    return replace(inner, body=(replace(loop, body=(*lets, *inner.body)),))


@dataclass(frozen=True)
class _Scattered:
    """The parts of loops that add to the rows that indices name.

    Attributes:
        loops: the nest over indices, from the outermost.
        lets: what leads to the row, and those that only matter for what is added.
        row: the last of them, the row.
        fails: checks of the index.
        adding: what is done with the row.
    """

    loops: tuple[For, ...]
    lets: tuple[Let, ...]
    row: Var
    fails: tuple[Fail, ...]
    adding: tuple[Stmt, ...]


def _match(loop: For, rows: int) -> _Scattered | None:
    loops, lets = [loop], list[Let]()
    while inner := [s for s in loops[-1].body if isinstance(s, For) and s.kind is LoopKind.SEQ]:
        outer = [s for s in loops[-1].body if isinstance(s, Let)]
        if len(loops[-1].body) != len(outer) + 1:
            return None
        lets += outer
        loops.append(inner[0])
    body = loops[-1].body
    position = next((i for i, s in enumerate(body) if isinstance(s, Let) and _is_clamped(s.value, rows)), -1)
    clamp = body[position]
    before, after = body[:position], body[position + 1 :]
    if position < 0 or not isinstance(clamp, Let) or not all(isinstance(s, Let | Fail) for s in before):
        return None
    own = {loop.var for loop in loops} | {let.var.name for let in lets}
    for nested in loops:  # stops that do not depend on other loops of the nest
        if nested.start != int64(0) or not isinstance(nested.stop, Const | Var) or nested.kind is not LoopKind.SEQ:
            return None
        if isinstance(nested.stop, Var) and nested.stop.name in own:
            return None
    if any(isinstance(s, Fail | Let) for s in after):
        return None
    lets += [s for s in before if isinstance(s, Let)]
    fails = tuple(s for s in before if isinstance(s, Fail))
    return _Scattered(tuple(loops), (*lets, clamp), clamp.var, fails, after)


@dataclass(frozen=True)
class _Tiles:
    """Writes the loops over tiles of indices for a range of rows."""

    parts: _Scattered
    names: Names
    first: Var
    end: Var

    def statements(self) -> tuple[Stmt, ...]:
        """All of them, with the arrays they need."""
        total: Expr = int64(1)
        for loop in self.parts.loops:
            total = index("mul", total, loop.stop)
        count, listed = (self._new(n, DType.int64) for n in ("indices", "listed"))
        counts = Local(self.names.new("counts"), DType.int32, LOOKERS)
        found = Local(self.names.new("found"), DType.int32, TILE)
        tile, start = self._new("tile", DType.int64), self._new("start", DType.int64)
        looker = self._new("looker", DType.int64)
        summed = Accumulate(listed, "add", _cast(Load(counts.name, looker, DType.int32), DType.int64))
        body: tuple[Stmt, ...] = (
            Let(start, index("mul", tile, int64(TILE))),
            self._counting(start, count, counts),
            Declare(listed, int64(0)),
            For(looker.name, int64(0), int64(LOOKERS), LoopKind.REDUCE, (summed,)),
            self._listing(start, count, counts, found),
            *self._adding(start, listed, found),
        )
        loop = For(tile.name, int64(0), ceildiv(count, TILE), LoopKind.SEQ, body)
        return (Let(count, total), counts, found, loop)

    def _counting(self, start: Var, count: Var, counts: Local) -> For:
        """How many of its indices each thread finds in the range."""
        looker, turn, at = (self._new(n, DType.int64) for n in ("looker", "turn", "at"))
        number = self._new("number", DType.int32)
        place = index("add", start, index("add", index("mul", int64(LOOKERS), turn), looker))
        # the last index stands for those behind it, so that nothing waits for a condition
        lets, row = self._row(at)
        hit = Apply("and", (Apply("lt", (place, count), DType.bool), self._within(row)), DType.bool)
        one = Apply("select", (hit, Const(1, DType.int32), Const(0, DType.int32)), DType.int32)
        last = index("min", place, index("sub", count, int64(1)))
        looking = (Let(at, last), *lets, Accumulate(number, "add", one))
        body = (
            Declare(number, Const(0, DType.int32)),
            For(turn.name, int64(0), int64(EACH), LoopKind.SEQ, looking),
            Store(counts.name, looker, number),
        )
        return For(looker.name, int64(0), int64(LOOKERS), LoopKind.VECTOR, body)

    def _listing(self, start: Var, count: Var, counts: Local, found: Local) -> For:
        """Each thread lists what it found, where those before it end."""
        looker, other, turn, at = (self._new(n, DType.int64) for n in ("looker", "other", "turn", "at"))
        slot = self._new("slot", DType.int32)
        earlier = Apply("lt", (other, looker), DType.bool)
        before = Apply("select", (earlier, Load(counts.name, other, DType.int32), Const(0, DType.int32)), DType.int32)
        inside = index("add", index("mul", int64(LOOKERS), turn), looker)
        lets, row = self._row(at)
        change = self._change(at)
        change |= {let.var.name: own.var for let, own in zip(self.parts.lets, lets, strict=True)}
        noting = (
            *rewrite(self.parts.fails, change),
            Store(found.name, _cast(slot, DType.int64), _cast(inside, DType.int32)),
            Assign(slot, Apply("add", (slot, Const(1, DType.int32)), DType.int32)),
        )
        looking = (Let(at, index("add", start, inside)), *lets, If(self._within(row), noting))
        # only where there is something to list: most threads find nothing
        some = Apply("lt", (Const(0, DType.int32), Load(counts.name, looker, DType.int32)), DType.bool)
        place = index("add", start, inside)
        guarded = If(Apply("lt", (place, count), DType.bool), looking)
        body = (
            Declare(slot, Const(0, DType.int32)),
            For(other.name, int64(0), int64(LOOKERS), LoopKind.SEQ, (Accumulate(slot, "add", before),)),
            For(turn.name, int64(0), int64(EACH), LoopKind.SEQ, (guarded,)),
        )
        return For(looker.name, int64(0), int64(LOOKERS), LoopKind.VECTOR, (If(some, body),))

    def _adding(self, start: Var, listed: Var, found: Local) -> tuple[Stmt, ...]:
        """What is listed, added in the order of the list."""
        entry, at = self._new("entry", DType.int64), self._new("at", DType.int64)
        place = index("add", start, _cast(Load(found.name, entry, DType.int32), DType.int64))
        lets, _ = self._row(at)
        change = self._change(at)
        change |= {let.var.name: own.var for let, own in zip(self.parts.lets, lets, strict=True)}
        adding = rewrite(self.parts.adding, change)
        sums = _Sums.of(adding, lets[-1].var)
        if sums is not None:
            return (self._summing(sums, lets, at, start, listed, found),)
        loop = For(entry.name, int64(0), listed, LoopKind.SEQ, (Let(at, place), *lets, *adding))
        return (_inside_out(loop),)

    def _summing(self, sums: _Sums, lets: tuple[Let, ...], at: Var, start: Var, listed: Var, found: Local) -> For:
        """For each column the listed values, some of them read at once, with the sum of a row in a variable."""
        group, entry, turn = (self._new(n, DType.int64) for n in ("group", "entry", "turn"))
        current = self._new("current", DType.int64)
        dtype = sums.store.value.dtype
        total, next_row = self._new("total", dtype), self._new("next_row", DType.int64)
        rows = Local(self.names.new("rows"), DType.int32, AT_ONCE)
        values = Local(self.names.new("values"), dtype, AT_ONCE)
        first = index("mul", int64(AT_ONCE), group)
        last = index("sub", listed, int64(1))
        named = _cast(Load(found.name, index("min", index("add", first, entry), last), DType.int32), DType.int64)
        reading = (
            Let(at, index("add", start, named)),
            *lets,
            *sums.lets,
            Store(rows.name, entry, _cast(lets[-1].var, DType.int32)),
            Store(values.name, entry, sums.value),
        )
        leave = Store(sums.store.buffer, sums.place(current), total)
        change = (
            leave,
            Assign(current, next_row),
            Assign(total, Load(sums.store.buffer, sums.place(current), dtype)),
        )
        summing = (
            Let(next_row, _cast(Load(rows.name, turn, DType.int32), DType.int64)),
            If(Apply("ne", (next_row, current), DType.bool), change),
            Assign(total, Apply(sums.fn, (total, Load(values.name, turn, dtype)), dtype)),
        )
        there = Apply("lt", (index("add", first, turn), listed), DType.bool)
        groups = (
            rows,
            values,
            For(entry.name, int64(0), int64(AT_ONCE), LoopKind.SEQ, reading),
            For(turn.name, int64(0), int64(AT_ONCE), LoopKind.SEQ, (If(there, summing),)),
        )
        column = (
            Declare(current, self.first),
            Declare(total, Load(sums.store.buffer, sums.place(self.first), dtype)),
            For(group.name, int64(0), ceildiv(listed, AT_ONCE), LoopKind.SEQ, groups),
            leave,
        )
        some = Apply("lt", (int64(0), listed), DType.bool)
        return replace(sums.columns, body=(If(some, column),))

    def _row(self, at: Var) -> tuple[tuple[Let, ...], Var]:
        """What leads to the row of the index at a position of all, and the row."""
        change = self._change(at)
        lets: list[Let] = []
        for let in self.parts.lets:
            var = replace(let.var, name=self.names.new(let.var.name))
            lets.append(Let(var, _joined(put(let.value, change))))
            change[let.var.name] = var
        return tuple(lets), lets[-1].var

    def _change(self, at: Var) -> dict[str, Expr]:
        """The variables of the nest of loops at a position of all."""
        change: dict[str, Expr] = {}
        rest: Expr = at
        for loop in reversed(self.parts.loops[1:]):
            change[loop.var] = index("mod", rest, loop.stop)
            rest = index("floordiv", rest, loop.stop)
        change[self.parts.loops[0].var] = rest
        return change

    def _within(self, row: Expr) -> Expr:
        above, below = (Apply(fn, (a, b), DType.bool) for fn, a, b in (("le", self.first, row), ("lt", row, self.end)))
        return Apply("and", (above, below), DType.bool)

    def _new(self, name: str, dtype: DType) -> Var:
        return Var(self.names.new(name), dtype)


@dataclass(frozen=True)
class _Sums:
    """A loop over the columns of a row, each of which takes one value.

    Attributes:
        lets: what leads to the value.
        value: what is brought together with the element of the row, by ``fn``.
        at: the element, in terms of the row and of what stands outside.
    """

    columns: For
    lets: tuple[Let, ...]
    store: Store
    fn: str
    value: Expr
    row: Var
    at: Expr

    @staticmethod
    def of(adding: tuple[Stmt, ...], row: Var) -> _Sums | None:
        """The parts of what is done with a row; None if it is something else."""
        match adding:
            case (For(kind=LoopKind.VECTOR, body=(*lets, Store() as store)) as columns,):
                pass
            case _:
                return None
        match store.value:
            case Apply(fn=fn, args=(Load(buffer=same, index=at), value)) if same == store.buffer and at == store.index:
                pass
            case _:
                return None
        known = {s.var.name: s.value for s in lets if isinstance(s, Let)}
        while any(isinstance(p, Var) and p.name in known for p in subexpressions(at)):
            at = put(at, known)
        reads = [p.buffer for e in (at, value, *known.values()) for p in subexpressions(e) if isinstance(p, Load)]
        if len(known) != len(lets) or store.buffer in reads or any(isinstance(p, Load) for p in subexpressions(at)):
            return None
        return _Sums(columns, tuple(s for s in lets if isinstance(s, Let)), store, fn, value, row, at)

    def place(self, row: Var) -> Expr:
        """Where the column of a row lies."""
        return put(self.at, {self.row.name: row})


def _joined(expression: Expr) -> Expr:
    """Quotients put together with their remainders again: where a nest goes through its indices as they lie."""
    match expression:
        case Apply(args=args):
            joined = replace(expression, args=tuple(_joined(argument) for argument in args))
            match joined:
                case Apply(
                    fn="add",
                    args=(
                        Apply(fn="mul", args=(size, Apply(fn="floordiv", args=(whole, by))))
                        | Apply(fn="mul", args=(Apply(fn="floordiv", args=(whole, by)), size)),
                        Apply(fn="mod", args=(rest, other)),
                    ),
                ) if size == by == other and whole == rest:
                    return whole
                case _:
                    return joined
        case Load():
            return replace(expression, index=_joined(expression.index))
        case _:
            return expression


def _cast(value: Expr, dtype: DType) -> Expr:
    return Apply("cast", (value,), dtype)


def _is_clamped(value: Expr, rows: int) -> bool:
    """Is it an index brought into the range of the rows?"""
    match value:
        case Apply(fn="max", args=(Apply(fn="min", args=(_, Const(value=last))), Const(value=0))):
            return last == rows - 1
        case _:
            return False
