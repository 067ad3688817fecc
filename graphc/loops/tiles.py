"""Transposed reads on a GPU: a block takes a square of the result, and reads what lies the other way in its own order.

An elementwise kernel walks along the rows of what it writes. An operand that is read transposed has neighbours from row
to row instead. The threads of a block copy their square of it to shared memory, neighbours side by side, and meet; then
the kernel's own body finds it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import (
    Names,
    ceildiv,
    coefficient,
    index,
    int64,
    is_of_sizes,
    lets_of,
    map_expressions,
    parallel_loop,
    put,
    rewrite,
)
from graphc.loops.kernel import (
    Access,
    Apply,
    Barrier,
    Const,
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
    expressions,
    subexpressions,
)

THREADS = 256
SIDES = (64, 32)
"""Rows and columns of a square: as many as fit."""
SHORT = 16
"""With fewer neighbours than this an operand is read in its caches' lines anyway, whatever the order."""
TILE_BYTES = 40 * 1024


@dataclass(frozen=True)
class _Turned:
    """An operand that is read transposed.

    Attributes:
        load: how the kernel reads it.
        tile: where a block keeps its square.
        pitch: the distance of rows there; not a multiple of all banks, which a column would meet in one.
    """

    load: Load
    tile: Local
    pitch: int

    def place(self, down: Expr, across: Expr) -> Expr:
        """Where an element of the square is kept."""
        return index("add", index("mul", int64(self.pitch), down), across)


def map_tiles(kernel: Kernel) -> Kernel | None:
    """An elementwise kernel with its transposed reads in order; None if it is none, or has none."""
    *_, outer = kernel.body
    assert isinstance(outer, For)  # verified
    *lets, loop = outer.body
    if not isinstance(loop, For) or loop.kind is not LoopKind.VECTOR or not all(isinstance(s, Let) for s in lets):
        return None
    if loop.start != int64(0) or not all(isinstance(s, Let | Store | Fail) for s in loop.body):
        return None
    if not all(is_of_sizes(size, kernel) and _is_long(size) for size in (loop.stop, kernel.extent)):
        return None
    known = lets_of(parallel_loop(kernel))
    if any(isinstance(s, Store) and coefficient(s.index, loop.var, known) != 1 for s in loop.body):
        return None
    loads = list(dict.fromkeys(_turned_loads(kernel, outer, loop, known)))
    if not loads:
        return None
    side = next((s for s in SIDES if sum(_tile_bytes(load.dtype, s) for load in loads) <= TILE_BYTES), SIDES[-1])
    if isinstance(loop.stop, Const) and loop.stop.value < side:
        side = SIDES[-1]
    return _Tiles(kernel, outer, loop, side).mapped(loads[: TILE_BYTES // _tile_bytes(DType.int64, side)])


def _is_long(size: Expr) -> bool:
    return not isinstance(size, Const) or size.value >= SHORT


def _pitch(dtype: DType, side: int) -> int:
    return side + max(1, 4 // dtype.itemsize)


def _tile_bytes(dtype: DType, side: int) -> int:
    return side * _pitch(dtype, side) * dtype.itemsize


def _turned_loads(kernel: Kernel, outer: For, loop: For, known: Mapping[str, Expr]) -> Iterator[Load]:
    constant = {buffer.name for buffer in kernel.buffers if buffer.access is Access.READ}
    for statement in loop.body:
        for expression in expressions(statement):
            for part in subexpressions(expression):
                if isinstance(part, Load) and part.buffer in constant:
                    along = _step(part.index, outer.var, known)
                    if along == 1 and _step(part.index, loop.var, known) not in (-1, 0, 1):
                        yield part


def _step(place: Expr, var: str, lets: Mapping[str, Expr]) -> int | None:
    """How far an index moves from an iteration to the next, but for a few of them; None if that is no plain number."""
    match place:
        case Var(name=name):
            return 1 if name == var else _step(lets[name], var, lets) if name in lets else 0
        case Const():
            return 0
        case Load(index=inner):
            return 0 if _step(inner, var, lets) == 0 else None
        case Apply(fn=fn, args=args):
            steps = [_step(argument, var, lets) for argument in args]
            if all(step == 0 for step in steps):
                return 0
            if None in steps:
                return None
            first, *rest = (step or 0 for step in steps)
            if fn in ("add", "sub"):
                return first + rest[0] if fn == "add" else first - rest[0]
            if fn == "mul":
                factors = [
                    a.value * s for a, s in zip(reversed(args), steps, strict=True) if isinstance(a, Const) and s
                ]
                return int(factors[0]) if factors else None
            if fn in ("mod", "floordiv") and rest == [0] and _is_long(args[1]):
                return first if fn == "mod" else 0 if abs(first) == 1 else None
            return None


class _Tiles:
    """Writes the mapped kernel."""

    def __init__(self, kernel: Kernel, outer: For, loop: For, side: int) -> None:
        self.kernel = kernel
        self.outer = outer
        self.loop = loop
        self.side = side
        self.names = Names(kernel)
        self.top, self.left = self._new("top"), self._new("left")
        self.lets = tuple(s for s in outer.body if isinstance(s, Let))

    def mapped(self, loads: list[Load]) -> Kernel:
        """The kernel with these loads from squares in shared memory."""
        side, kernel = self.side, self.kernel
        turned: list[_Turned] = []
        for load in loads:
            pitch = _pitch(load.dtype, side)
            turned.append(_Turned(load, Local(self.names.new("tile"), load.dtype, side * pitch, True), pitch))
        block = self._new("block")
        rows, columns = ceildiv(kernel.extent, side), self._ceildiv(self.loop.stop)
        one = columns == int64(1)
        bottom, right = (index("add", var, int64(side)) for var in (self.top, self.left))
        inside = [Apply("le", pair, DType.bool) for pair in ((bottom, kernel.extent), (right, self.loop.stop))]
        whole = Var(self.names.new("whole"), DType.bool)
        body: tuple[Stmt, ...] = (
            *kernel.body[:-1],
            Let(self.top, index("mul", block if one else index("floordiv", block, columns), int64(side))),
            Let(self.left, int64(0) if one else index("mul", index("mod", block, columns), int64(side))),
            *(t.tile for t in turned),
            self._copying(turned),
            Barrier(),
            Let(whole, Apply("and", (inside[0], inside[1]), DType.bool)),
            If(whole, (self._computing(turned, True),)),
            If(Apply("not", (whole,), DType.bool), (self._computing(turned, False),)),
        )
        blocks = For(block.name, int64(0), index("mul", rows, columns), LoopKind.BLOCK, body)
        return replace(kernel, body=(blocks,), threads=THREADS)

    def _ceildiv(self, size: Expr) -> Expr:
        return int64(-(-int(size.value) // self.side)) if isinstance(size, Const) else ceildiv(size, self.side)

    def _copying(self, turned: list[_Turned]) -> For:
        """Neighbouring threads copy neighbours, which belong to different rows; behind the last ones, these again."""
        thread, down, first, turn, across = (self._new(n) for n in ("thread", "down", "first", "turn", "across"))
        row, column = self._new(self.outer.var), self._new(self.loop.var)
        change: dict[str, Expr] = {self.outer.var: row, self.loop.var: column}
        lets = self._copies(self._needed(self.lets, turned), change)
        inner = self._copies(self._needed(tuple(s for s in self.loop.body if isinstance(s, Let)), turned), change)
        copies = tuple(Store(t.tile.name, t.place(down, across), put(t.load, change)) for t in turned)
        each = (
            Let(across, index("add", first, index("mul", int64(THREADS // self.side), turn))),
            Let(column, self._at_most(index("add", self.left, across), self.loop.stop)),
            *inner,
            *copies,
        )
        body = (
            Let(down, index("mod", thread, int64(self.side))),
            Let(first, index("floordiv", thread, int64(self.side))),
            Let(row, self._at_most(index("add", self.top, down), self.kernel.extent)),
            *lets,
            For(turn.name, int64(0), int64(self.side * self.side // THREADS), LoopKind.SEQ, each),
        )
        return For(thread.name, int64(0), int64(THREADS), LoopKind.THREAD, body)

    def _at_most(self, place: Expr, size: Expr) -> Expr:
        return index(
            "min", place, int64(int(size.value) - 1) if isinstance(size, Const) else index("sub", size, int64(1))
        )

    def _computing(self, turned: list[_Turned], whole: bool) -> For:
        """The kernel's own loops; conditions stand only where a square is not whole, since each would wait alone."""
        thread, down, first, turn, across = (self._new(n) for n in ("thread", "down", "first", "turn", "across"))
        row, column = self._new(self.outer.var), self._new(self.loop.var)
        tiles = {t.load: Load(t.tile.name, t.place(down, across), t.load.dtype) for t in turned}
        change: dict[str, Expr] = {self.outer.var: row, self.loop.var: column}
        lets = self._copies(self.lets, change)
        body: list[Stmt] = []
        for statement in self.loop.body:
            (changed,) = rewrite((map_expressions(statement, lambda e: _replaced(e, tiles)),), change)
            if isinstance(changed, Let):
                change[changed.var.name] = var = replace(changed.var, name=self.names.new(changed.var.name))
                changed = replace(changed, var=var)
            body.append(changed)
        inside = (*lets, *_without_unused(tuple(body)))
        guarded = inside if whole else (If(Apply("lt", (row, self.kernel.extent), DType.bool), inside),)
        each = (
            Let(down, index("add", first, index("mul", int64(THREADS // self.side), turn))),
            Let(row, index("add", self.top, down)),
            *guarded,
        )
        loop = For(turn.name, int64(0), int64(self.side * self.side // THREADS), LoopKind.SEQ, each)
        return For(
            thread.name, int64(0), int64(THREADS), LoopKind.THREAD,
            (
                Let(across, index("mod", thread, int64(self.side))),
                Let(first, index("floordiv", thread, int64(self.side))),
                Let(column, index("add", self.left, across)),
                loop if whole else If(Apply("lt", (column, self.loop.stop), DType.bool), (loop,)),
            ),
        )  # fmt: skip

    def _needed(self, lets: tuple[Let, ...], turned: list[_Turned]) -> tuple[Let, ...]:
        """Those of the Lets that lead to the places of what is copied."""
        values = {s.var.name: s.value for s in (*self.lets, *self.loop.body) if isinstance(s, Let)}
        found: set[str] = set()
        waiting = [p.name for t in turned for p in subexpressions(t.load.index) if isinstance(p, Var)]
        while waiting:
            name = waiting.pop()
            if name in values and name not in found:
                found.add(name)
                waiting += [p.name for p in subexpressions(values[name]) if isinstance(p, Var)]
        return tuple(let for let in lets if let.var.name in found)

    def _copies(self, lets: tuple[Let, ...], change: dict[str, Expr]) -> tuple[Let, ...]:
        """The Lets under new names, which ``change`` learns."""
        copies: list[Let] = []
        for let in lets:
            var = replace(let.var, name=self.names.new(let.var.name))
            copies.append(Let(var, put(let.value, change)))
            change[let.var.name] = var
        return tuple(copies)

    def _new(self, name: str) -> Var:
        return Var(self.names.new(name), DType.int64)


def _replaced(expression: Expr, loads: Mapping[Load, Load]) -> Expr:
    match expression:
        case Load():
            return loads.get(expression) or replace(expression, index=_replaced(expression.index, loads))
        case Apply(args=args):
            return replace(expression, args=tuple(_replaced(argument, loads) for argument in args))
        case _:
            return expression


def _without_unused(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Without Lets that nothing needs: those of places that are not read any more."""
    needed: set[str] = set()
    kept: list[Stmt] = []
    for statement in reversed(statements):
        if isinstance(statement, Let) and statement.var.name not in needed:
            continue
        needed |= {p.name for e in expressions(statement) for p in subexpressions(e) if isinstance(p, Var)}
        kept.append(statement)
    return tuple(reversed(kept))
