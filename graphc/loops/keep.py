"""Values of a row that several loops compute are computed once and kept in an array.

A normalization reads its row three times and computes what is normalized each time, which a CPU does from its cache
faster than it would store it. The threads of a block keep their elements in shared memory instead: what is computed,
and of rows that are too long for a multiprocessor's cache all that would be read again. An array that no later loop
reads takes what is kept next. Of a row that does not fit the front is kept, and the rest is computed each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, index, int64, renamed, rewrite
from graphc.loops.kernel import (
    EXPENSIVE,
    Access,
    Accumulate,
    Apply,
    Assign,
    Const,
    Declare,
    Expr,
    Fail,
    For,
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

SHORT_ROW_BYTES = 40 * 1024
"""What rows of float32 may take, and what is kept of them, so that several blocks share a multiprocessor."""
FRONT = 1024
"""The part of a row that is kept is a multiple of so many elements."""


def keep_row_values(kernel: Kernel, loop: For, shared_bytes: int) -> For:
    """The parallel loop with values kept that several of its inner loops compute.

    ``shared_bytes``: what the arrays of a block may take together, where rows are long.
    """
    positions = [i for i, s in enumerate(loop.body) if _is_candidate(s)]
    if len(positions) < 2:
        return loop
    loops = [s for i, s in enumerate(loop.body) if i in positions and isinstance(s, For)]
    positions = [i for i, inner in zip(positions, loops, strict=True) if inner.stop == loops[0].stop]
    loops = [inner for inner in loops if inner.stop == loops[0].stop]
    length = _length(loops[0])
    is_long = length * DType.float32.itemsize > SHORT_ROW_BYTES
    held = sum(s.shared_bytes for s in walk(loop.body) if isinstance(s, Local))
    room = (shared_bytes if is_long else SHORT_ROW_BYTES) - held
    keys = _Keys(kernel, loop)
    kept = _kept(loops, keys, is_long)
    names = Names(kernel)
    if not is_long:
        kept = _as_fits(kept, length, room)
    arrays = _arrays(kept, names)
    each = sum(array.dtype.itemsize for array in {array.name: array for array in arrays.values()}.values())
    front = length
    if each * length > room:
        front = room // each // FRONT * FRONT
    if not arrays or front <= 0:
        return loop
    arrays = {key: replace(array, size=front) for key, array in arrays.items()}
    body: list[Stmt] = list(dict.fromkeys(arrays.values()))
    for position, statement in enumerate(loop.body):
        if position not in positions:
            body.append(statement)
            continue
        assert isinstance(statement, For)
        number = positions.index(position)
        stored = {value.var.name: arrays[value.key] for value in kept if value.first == number and value.key in arrays}
        loaded = {v.key: arrays[v.key] for v in kept if v.first < number <= v.last and v.key in arrays}
        inner = _storing(_loading(statement, keys, loaded, stored), statement, stored)
        body.append(replace(statement, stop=int64(front), body=inner))
        if front < length:
            body.append(_rest(statement, front, length, names))
    return replace(loop, body=tuple(body))


def _is_candidate(statement: Stmt) -> bool:
    """Does a loop run over a fixed row, with nothing nested in it?"""
    return (
        isinstance(statement, For)
        and statement.kind in (LoopKind.VECTOR, LoopKind.REDUCE)
        and isinstance(statement.start, Const)
        and statement.start.value == 0
        and isinstance(statement.stop, Const)
        and all(isinstance(s, Let | Store | Accumulate | Fail) for s in statement.body)
    )


def _length(loop: For) -> int:
    assert isinstance(loop.stop, Const)
    return int(loop.stop.value)


@dataclass(frozen=True)
class _Kept:
    """A value that is kept: its name in the loop that computes it, the numbers of that loop and of its last reader."""

    key: int
    var: Var
    first: int
    last: int


def _kept(loops: Sequence[For], keys: _Keys, with_loads: bool) -> list[_Kept]:
    """The values that loops use for what no earlier loop has computed, in the order in which they are computed."""
    known: dict[int, tuple[Var, int]] = {}
    last: dict[int, int] = {}
    for number, loop in enumerate(loops):
        for key in _roots(loop, keys, known, with_loads):
            if keys.is_dear(key):
                last[key] = number
        for var, key in keys.of_loop(loop).items():
            if key is not None:
                known.setdefault(key, (var, number))
    found = [_Kept(key, known[key][0], known[key][1], number) for key, number in last.items()]
    return sorted(found, key=lambda value: (value.first, value.last))


def _as_fits(kept: Sequence[_Kept], length: int, room: int) -> list[_Kept]:
    """The first of them that fit side by side."""
    fitting: list[_Kept] = []
    for value in kept:
        nbytes = length * value.var.dtype.itemsize
        if nbytes <= room:
            room -= nbytes
            fitting.append(value)
    return fitting


def _arrays(kept: Sequence[_Kept], names: Names) -> dict[int, Local]:
    """An array for each value; one that was read for the last time is taken again, in the very loop that reads it."""
    free: list[tuple[int, Local]] = []
    arrays: dict[int, Local] = {}
    for value in kept:
        old = next((f for f in free if f[0] <= value.first and f[1].dtype is value.var.dtype), None)
        if old is not None:
            free.remove(old)
        array = old[1] if old else Local(names.new(f"{value.var.name}_kept"), value.var.dtype, 1)
        arrays[value.key] = array
        free.append((value.last, array))
    return arrays


class _Keys:
    """A number for each value of an iteration: equal numbers are equal values, whichever loop computes them."""

    def __init__(self, kernel: Kernel, loop: For) -> None:
        self._read_only = {buffer.name for buffer in kernel.buffers if buffer.access is Access.READ}
        self._stable = {loop.var, *kernel.sizes} | {s.var.name for s in loop.body if isinstance(s, Let | Declare)}
        self._changed = [
            (id(s), {c.var.name for c in walk((s,)) if isinstance(c, Assign | Accumulate)}) for s in loop.body
        ]
        self._numbers: dict[object, int] = {}
        self._moving: set[int] = set()  # those that depend on the iteration
        self._dear: set[int] = set()  # those that are loaded, or take more than a few instructions

    def of_loop(self, loop: For) -> dict[Var, int | None]:
        """The number of each Let of an inner loop."""
        at = next(i for i, (statement, _) in enumerate(self._changed) if statement == id(loop))
        versions = [name for _, names in self._changed[:at] for name in names]
        outer = {n: self._number(("outer", n, versions.count(n)), False) for n in self._stable - self._changed[at][1]}
        env: dict[str, int | None] = {**outer, loop.var: self._number(("iteration",), True)}
        found: dict[Var, int | None] = {}
        for statement in loop.body:
            if isinstance(statement, Let):
                key = self._key(statement.value, env)
                env[statement.var.name] = key
                found[statement.var] = key if key in self._moving else None
        return found

    def is_dear(self, key: int) -> bool:
        """Is a value worth an array? A comparison of where it stands is not."""
        return key in self._dear

    def _key(self, expression: Expr, env: Mapping[str, int | None]) -> int | None:
        match expression:
            case Const(value=value, dtype=dtype):
                return self._number((repr(value), dtype), False)
            case Var(name=name):
                return env.get(name)
            case Load(buffer=buffer, index=place):
                key = self._key(place, env)
                if key is None or buffer not in self._read_only:
                    return None
                number = self._number(("load", buffer, key), key in self._moving)
                self._dear.add(number)
                return number
            case Apply(fn=fn, args=args, dtype=dtype):
                keys = [self._key(argument, env) for argument in args]
                if None in keys:
                    return None
                number = self._number((fn, dtype, *keys), any(key in self._moving for key in keys))
                if fn in EXPENSIVE or any(key in self._dear for key in keys):
                    self._dear.add(number)
                return number

    def _number(self, parts: tuple[object, ...], moving: bool) -> int:
        number = self._numbers.setdefault(parts, len(self._numbers))
        if moving:
            self._moving.add(number)
        return number


def _roots(loop: For, keys: _Keys, known: Mapping[int, object], with_loads: bool) -> list[int]:
    """The known values that a loop uses for what is not known; loads of one element alone only if asked for."""
    numbers = {let.name: key for let, key in keys.of_loop(loop).items() if key in known}
    loads = {s.var.name for s in loop.body if isinstance(s, Let) and isinstance(s.value, Load) and not with_loads}
    found: list[int] = []
    for statement in loop.body:
        if isinstance(statement, Let) and statement.var.name in numbers:
            continue
        for expression in expressions(statement):
            for part in subexpressions(expression):
                if isinstance(part, Var) and part.name in numbers and part.name not in loads:
                    key = numbers[part.name]
                    assert key is not None
                    found.append(key)
    return list(dict.fromkeys(found))


def _storing(body: tuple[Stmt, ...], loop: For, stored: Mapping[str, Local]) -> tuple[Stmt, ...]:
    """The body, and then what is kept of it: behind all that reads what an array held before."""
    return (*body, *(Store(array.name, _position(loop), Var(name, array.dtype)) for name, array in stored.items()))


def _loading(loop: For, keys: _Keys, arrays: Mapping[int, Local], stored: Mapping[str, Local]) -> tuple[Stmt, ...]:
    """The loop's body with kept values loaded, without what only they needed, but with what is stored."""
    numbers = keys.of_loop(loop)
    body: list[Stmt] = []
    for statement in loop.body:
        key = numbers.get(statement.var) if isinstance(statement, Let) else None
        if isinstance(statement, Let) and key is not None and key in arrays:
            statement = Let(statement.var, Load(arrays[key].name, _position(loop), statement.var.dtype))
        body.append(statement)
    needed = set(stored)
    result: list[Stmt] = []
    for statement in reversed(body):
        if isinstance(statement, Let) and statement.var.name not in needed:
            continue
        needed |= {p.name for e in expressions(statement) for p in subexpressions(e) if isinstance(p, Var)}
        result.append(statement)
    return tuple(reversed(result))


def _rest(loop: For, front: int, length: int, names: Names) -> For:
    """The iterations behind the front of a row, as they were."""
    var = Var(names.new(loop.var), DType.int64)
    body = rewrite(renamed(loop.body, names), {loop.var: index("add", int64(front), var)})
    return replace(loop, var=var.name, stop=int64(length - front), body=body)


def _position(loop: For) -> Var:
    return Var(loop.var, loop.start.dtype)
