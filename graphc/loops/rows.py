"""One block of a GPU's threads an iteration of the parallel loop.

Vector and reduce loops are dealt out to the threads, accumulators are combined across them, Locals become shared
arrays, and barriers stand exactly where one thread needs what another has stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, coefficient, int64, lets_of, parallel_loop
from graphc.loops.chunks import merge_chunks
from graphc.loops.keep import keep_row_values
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Barrier,
    Combine,
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
    Pack,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)
from graphc.loops.pack import MOST, pack_loop, pack_size
from graphc.loops.scalar import identity

WARP = 32
SHORTEST = 16
"""Rows with fewer elements are left to one thread each: memory is read in pieces of 64 bytes at least."""
TEAM_THREADS = 128
"""Threads of a block in which rows of a warp or less are side by side: 16 such blocks fill a multiprocessor."""
LARGE_BYTES = 72 * 1024
"""With more than this of shared memory a block is one of two on a multiprocessor, or has it alone."""
COMBINING_BYTES = 1024
"""What combining accumulators takes of shared memory."""
SHARED_BYTES = 40 * 1024
"""What the Locals of a row may take; a block has 48 KiB, the rest is for combining accumulators."""

_INDEPENDENT = (LoopKind.VECTOR, LoopKind.REDUCE)


def suits_rows(kernel: Kernel) -> bool:
    """Is an inner loop long enough for a warp, and along memory unless the parallel loop is not, either?"""
    parallel = parallel_loop(kernel)
    loops, lets = list(_dealt_loops(parallel.body)), lets_of(parallel)
    if all((trips := _most_trips(loop, lets)) is not None and trips < SHORTEST for loop in loops):
        return False
    local_bytes = sum(s.size * s.dtype.itemsize for s in walk(parallel.body) if isinstance(s, Local))
    if local_bytes > SHARED_BYTES:
        return False
    along_rows = any(_walks_along(statement, loop.var, lets) for loop in loops for statement in walk(loop.body))
    return along_rows or not any(_walks_along(statement, parallel.var, lets) for statement in walk(parallel.body))


def _dealt_loops(statements: tuple[Stmt, ...]) -> Iterator[For]:
    """The outermost vector and reduce loops, through loops in order and conditions."""
    for statement in statements:
        if isinstance(statement, For) and statement.kind in _INDEPENDENT:
            yield statement
        elif isinstance(statement, For | If):
            yield from _dealt_loops(statement.body)


def _most_trips(loop: For, lets: dict[str, Expr]) -> int | None:
    """A bound of the number of iterations, if one is plain to see."""
    if not isinstance(loop.start, Const):
        return None
    stop = loop.stop
    if isinstance(stop, Var):
        stop = lets.get(stop.name, stop)
    match stop:
        case Const(value=most) | Apply(fn="min", args=(Const(value=most), _) | (_, Const(value=most))):
            return int(most - loop.start.value)
        case _:
            return None


def _walks_along(statement: Stmt, var: str, lets: dict[str, Expr]) -> bool:
    """Does it touch neighbours in memory in consecutive iterations of the loop over ``var``?"""
    indices = [part.index for e in expressions(statement) for part in subexpressions(e) if isinstance(part, Load)]
    if isinstance(statement, Store):
        indices.append(statement.index)
    return any(coefficient(index, var, lets) == 1 for index in indices)


def map_rows(kernel: Kernel, threads: int, most: int, shared_bytes: int) -> Kernel:
    """A block an iteration, with about ``threads`` threads that take up to ``most`` neighbours at a time.

    ``shared_bytes``: what a block may take of shared memory where rows are long.
    """
    parallel = parallel_loop(kernel)
    parallel = replace(parallel, body=merge_chunks(parallel.body))
    parallel = keep_row_values(kernel, parallel, shared_bytes - COMBINING_BYTES)
    kept_bytes = sum(s.shared_bytes for s in parallel.body if isinstance(s, Local))
    lets = lets_of(parallel)
    trips: list[int] = []
    sizes = {1}
    for loop in _dealt_loops(parallel.body):
        count, size = _most_trips(loop, lets), pack_size(loop, lets, most)
        sizes.add(size)
        trips.append(threads if count is None else -(-count // size))
    if max(sizes) == MOST:  # a thread takes so much at once that few of them would leave memory waiting
        threads *= 2
    if kept_bytes > SHARED_BYTES:  # so few blocks share a multiprocessor that each must fill more of it
        threads = 1024 if kept_bytes > LARGE_BYTES else 512
    # no more threads than the longest loop can feed, in whole warps, or a part of a warp
    longest = max(trips, default=1)
    threads = min(threads, -(-longest // WARP) * WARP) if longest > WARP else power_of_two_from(longest)
    body = _Rows(kernel, parallel, most).block(parallel.body)
    mapped = replace(kernel, body=(replace(parallel, kind=LoopKind.BLOCK, body=body),), threads=threads)
    if threads < WARP and mapped.shared_bytes * (WARP // threads) > SHARED_BYTES:  # no room for all of a warp's teams
        return replace(mapped, threads=WARP)
    teams = 1 if threads > WARP else TEAM_THREADS // threads
    while teams > 1 and teams * threads > WARP and mapped.shared_bytes * teams > SHARED_BYTES:
        teams //= 2
    return replace(mapped, teams=teams)


def power_of_two_from(count: int) -> int:
    """The first power of two that is not less."""
    return 1 << (count - 1).bit_length()


@dataclass(frozen=True)
class _Touch:
    """An access of an array that several threads see.

    Attributes:
        threads: which thread does it: "all", "first", or the start of the loop that deals it out and how many
            neighbours each thread takes.
        index: the element as a one-to-one function of the dealt iteration, None where it is not plain to see.
    """

    array: str
    writes: bool
    threads: str | tuple[Expr, int] | None
    index: Expr | None = None

    def conflicts(self, other: _Touch) -> bool:
        """May two threads meet at one element, one of them writing?"""
        if self.array != other.array or not (self.writes or other.writes):
            return False
        if self.threads == other.threads == "first":
            return False
        return self.threads != other.threads or self.index is None or self.index != other.index


_NOTHING: frozenset[_Touch] = frozenset()
_ITERATION = Var("<iteration>", DType.int64)


class _Rows:
    """Rewrites the body of a row statement by statement.

    Attributes:
        out: the statements of the block being written.
        touches: accesses since the last barrier.
        stable: scalars that have one value for the whole row.
    """

    def __init__(self, kernel: Kernel, parallel: For, most: int) -> None:
        self.most = most
        self.lets = lets_of(parallel)
        self.names = Names(replace(kernel, body=(parallel,)))
        self.first = self.names.new("first")
        self.shared = {buffer.name for buffer in kernel.buffers if buffer.access is not Access.READ}
        self.stable = {parallel.var, *kernel.sizes}
        self.out: list[Stmt] = []
        self.touches = _NOTHING
        self.depth = 0

    def block(self, statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        outer, self.out = self.out, []
        self.depth += 1
        for statement in statements:
            self._statement(statement)
        self.depth -= 1
        result, self.out = tuple(self.out), outer
        return result

    def _statement(self, statement: Stmt) -> None:
        match statement:
            case For(kind=LoopKind.SEQ):
                self._loop_in_order(statement)
            case For():
                self._dealt_loop(statement)
            case If():
                self._synchronize(self._touches_of(statement, "all"))
                before = self.touches
                self.out.append(replace(statement, body=self.block(statement.body)))
                self.touches |= before
            case Store() | Fail():
                self._synchronize(self._touches_of(statement, "first"))
                self._append_for_first_thread(statement)
            case Local(name=name):
                self.shared.add(name)
                self.out.append(replace(statement, shared=True))
            case Let() | Declare() | Assign() | Accumulate() | Barrier() | Combine() | Pack():
                self._synchronize(self._touches_of(statement, "all"))
                self.out.append(statement)
                if isinstance(statement, Let) and self.depth == 1:
                    self.stable.add(statement.var.name)

    def _synchronize(self, new: frozenset[_Touch]) -> None:
        """A barrier before the next statement if what it touches was touched by other threads."""
        if any(touch.conflicts(earlier) for touch in new for earlier in self.touches):
            self.out.append(Barrier())
            self.touches = _NOTHING
        self.touches |= new

    def _append_for_first_thread(self, statement: Stmt) -> None:
        last = self.out[-1] if self.out else None
        if isinstance(last, For) and last.var == self.first:
            self.out[-1] = replace(last, body=(*last.body, statement))
        else:
            self.out.append(For(self.first, int64(0), int64(1), LoopKind.THREAD, (statement,)))

    def _loop_in_order(self, loop: For) -> None:
        """All threads run it together; what an iteration leaves touched stands before the next one."""
        self._synchronize(self._touches_of(loop, "all"))
        while True:
            before, taken = self.touches, set(self.names.taken)
            body = self.block(loop.body)
            if self.touches <= before:
                break
            self.touches |= before
            self.names.taken = taken
        self.touches = before
        self.out.append(replace(loop, body=body))

    def _dealt_loop(self, loop: For) -> None:
        """Deal the iterations out; each thread accumulates on its own, then the results are combined."""
        accumulated = _outer_accumulators(loop)
        partial = {var.name: replace(var, name=self.names.new(f"{var.name}_partial")) for var, _ in accumulated}
        for var, fn in accumulated:
            self.out.append(Declare(partial[var.name], Const(identity(fn, var.dtype), var.dtype)))
        self._synchronize(self._touches_of(loop, "all") | self._dealt_touches(loop))
        body = in_order(_accumulate_into(loop.body, partial))
        size = pack_size(loop, self.lets, self.most)
        dealt = replace(loop, kind=LoopKind.THREAD, body=body)
        self.out.append(pack_loop(dealt, size, self.lets, self.names) if size > 1 else dealt)
        for var, fn in accumulated:
            self.out.append(Combine(partial[var.name], fn))
            self.out.append(Accumulate(var, fn, partial[var.name]))
            self.touches = _NOTHING

    def _touches_of(self, statement: Stmt, threads: str) -> frozenset[_Touch]:
        """What a statement itself, without its body, touches."""
        return frozenset(
            _Touch(array, writes, threads) for array, writes, _ in _accesses(statement) if array in self.shared
        )

    def _dealt_touches(self, loop: For) -> frozenset[_Touch]:
        """What the body of a dealt loop touches, element by element where that is plain to see."""
        start = self._normal(loop.start, {})
        dealt = None if start is None else (start, pack_size(loop, self.lets, self.most))
        private = {s.name for s in walk(loop.body) if isinstance(s, Local)}
        lets: dict[str, Expr | None] = {loop.var: _ITERATION}
        touches: set[_Touch] = set()
        for statement in walk(loop.body):
            for array, writes, place in _accesses(statement):
                if array in self.shared and array not in private:
                    element = None if start is None else self._normal(place, lets)
                    one_to_one = element is not None and coefficient(element, _ITERATION.name, {})
                    touches.add(_Touch(array, writes, dealt, element if one_to_one else None))
            if isinstance(statement, Let):
                lets[statement.var.name] = self._normal(statement.value, lets)
        return frozenset(touches)

    def _normal(self, expression: Expr, known: dict[str, Expr | None]) -> Expr | None:
        """The expression in terms of stable scalars and of what is known; None if it has other parts."""
        match expression:
            case Const():
                return expression
            case Var(name=name):
                return known[name] if name in known else expression if name in self.stable else None
            case Apply(args=args):
                parts = [part for argument in args if (part := self._normal(argument, known)) is not None]
                return replace(expression, args=tuple(parts)) if len(parts) == len(args) else None
            case Load():
                return None


def _accesses(statement: Stmt) -> Iterator[tuple[str, bool, Expr]]:
    """Each (array, whether it is written, index) that stands directly in a statement."""
    for expression in expressions(statement):
        for part in subexpressions(expression):
            if isinstance(part, Load):
                yield part.buffer, False, part.index
    if isinstance(statement, Store):
        yield statement.buffer, True, statement.index


def _outer_accumulators(loop: For) -> list[tuple[Var, str]]:
    """The scalars declared outside a loop that it accumulates into, each with its function."""
    declared = {s.var.name for s in walk(loop.body) if isinstance(s, Declare)}
    found = {s.var: s.fn for s in walk(loop.body) if isinstance(s, Accumulate) and s.var.name not in declared}
    return list(found.items())


def _accumulate_into(statements: tuple[Stmt, ...], partial: dict[str, Var]) -> tuple[Stmt, ...]:
    result: list[Stmt] = []
    for statement in statements:
        if isinstance(statement, Accumulate) and statement.var.name in partial:
            statement = replace(statement, var=partial[statement.var.name])
        elif isinstance(statement, For | If):
            statement = replace(statement, body=_accumulate_into(statement.body, partial))
        result.append(statement)
    return tuple(result)


def in_order(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """What one thread runs by itself: its loops have no other kind left."""
    return tuple(
        replace(s, kind=LoopKind.SEQ, body=in_order(s.body))
        if isinstance(s, For)
        else replace(s, body=in_order(s.body))
        if isinstance(s, If)
        else s
        for s in statements
    )
