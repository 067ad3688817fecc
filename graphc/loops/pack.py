"""Neighbouring elements 16 bytes at a time: loops whose threads each take several neighbours at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.ir.types import DType
from graphc.loops.affine import Names, coefficient, index, int64, is_multiple, map_expressions, put
from graphc.loops.kernel import (
    Accumulate,
    Apply,
    Const,
    Expr,
    Fail,
    For,
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
)

BYTES = 16
MOST = 8
"""Elements of a pack, at most."""


@dataclass(frozen=True)
class _Access:
    """Where an array is touched: the index as a function of the loop's variable and of what stands outside."""

    array: str
    index: Expr
    dtype: DType


def pack_size(loop: For, outer: Mapping[str, Expr], most: int = MOST, multiple: int = 0) -> int:
    """How many neighbours a thread can take at a time in a loop whose iterations are independent; 1 if not several.

    Args:
        loop: the loop.
        outer: what Lets outside of it stand for.
        most: no more than this.
        multiple: the number of iterations is a multiple of this, where the loop's own stop does not say.
    """
    if not all(isinstance(s, Let | Store | Accumulate | Fail) for s in loop.body):
        return 1
    if isinstance(loop.stop, Const) and isinstance(loop.start, Const):
        multiple = int(loop.stop.value) if loop.start.value == 0 else 0
    if not multiple:
        return 1
    size = most
    while size > 1:
        if multiple % size == 0:
            packed = _packable(loop, outer, size)
            widths = [access.dtype.itemsize for access in packed or () if access.dtype.itemsize > 1]
            if packed and size <= (BYTES // min(widths) if widths else MOST):
                return size
        size //= 2
    return 1


def _packable(loop: For, outer: Mapping[str, Expr], size: int) -> list[_Access] | None:
    """The accesses that neighbours make to neighbours; None where the order of accesses would change."""
    inner = {s.var.name: s.value for s in loop.body if isinstance(s, Let)}
    stored: set[str] = set()
    found: list[_Access] = []
    seen: dict[str, set[Expr]] = {}
    for statement in loop.body:
        for expression in expressions(statement):
            for part in subexpressions(expression):
                if isinstance(part, Load):
                    if part.buffer in stored:
                        return None
                    place = _inlined(part.index, inner)
                    seen.setdefault(part.buffer, set()).add(part.index if place is None else place)
                    if place is not None and _follows(place, loop.var, outer, size):
                        found.append(_Access(part.buffer, place, part.dtype))
        if isinstance(statement, Store):
            if statement.buffer in stored:
                return None
            stored.add(statement.buffer)
            place = _inlined(statement.index, inner)
            others = seen.get(statement.buffer, set())
            if others and (place is None or others != {place}):
                return None
            if place is not None and _follows(place, loop.var, outer, size):
                found.append(_Access(statement.buffer, place, statement.value.dtype))
    return list(dict.fromkeys(found))


def _inlined(expression: Expr, inner: Mapping[str, Expr]) -> Expr | None:
    """An index in terms of what stands outside the loop; None if it is loaded."""
    while any(isinstance(p, Var) and p.name in inner for p in subexpressions(expression)):
        expression = put(expression, inner)
    return None if any(isinstance(p, Load) for p in subexpressions(expression)) else expression


def _follows(place: Expr, var: str, outer: Mapping[str, Expr], size: int) -> bool:
    first = put(place, {var: int64(0)})
    return coefficient(place, var, {}) == 1 and is_multiple(first, size, outer)


def pack_body(loop: For, base: Expr, size: int, outer: Mapping[str, Expr], names: Names) -> tuple[Stmt, ...]:
    """The iterations ``base`` to ``base + size`` of a loop at once; ``base`` is a multiple of ``size``."""
    inner = {s.var.name: s.value for s in loop.body if isinstance(s, Let)}
    accesses = _packable(loop, outer, size) or []
    locals_ = {access: names.new(f"{access.array}_pack") for access in accesses}
    stored = {s.buffer for s in loop.body if isinstance(s, Store)}
    loaded = {p.buffer for s in loop.body for e in expressions(s) for p in subexpressions(e) if isinstance(p, Load)}
    before: list[Stmt] = [Local(name, access.dtype, size) for access, name in locals_.items()]
    after: list[Stmt] = []
    for access, name in locals_.items():
        place = put(access.index, {loop.var: base})
        if access.array in loaded:
            before.append(Pack(name, access.array, place, access.dtype, size))
        if access.array in stored:
            after.append(Pack(name, access.array, place, access.dtype, size, stores=True))
    lane = Var(names.new("lane"), DType.int64)

    def packed(expression: Expr) -> Expr:
        match expression:
            case Load(buffer=buffer, index=place, dtype=dtype):
                found = _inlined(place, inner)
                name = None if found is None else locals_.get(_Access(buffer, found, dtype))
                return replace(expression, index=packed(place)) if name is None else Load(name, lane, dtype)
            case Apply(args=args):
                return replace(expression, args=tuple(packed(argument) for argument in args))
            case _:
                return expression

    body: list[Stmt] = [Let(Var(loop.var, DType.int64), index("add", base, lane))]
    for statement in loop.body:
        changed = map_expressions(statement, packed)
        if isinstance(statement, Store) and isinstance(changed, Store):
            found = _inlined(statement.index, inner)
            name = None if found is None else locals_.get(_Access(statement.buffer, found, statement.value.dtype))
            if name is not None:
                changed = Store(name, lane, changed.value)
        body.append(changed)
    lanes = For(lane.name, int64(0), int64(size), LoopKind.SEQ, tuple(body))
    return (*before, lanes, *after)


def pack_loop(loop: For, size: int, outer: Mapping[str, Expr], names: Names) -> For:
    """A loop from 0 that is dealt out to threads, with ``size`` neighbours to a thread at a time."""
    pack = Var(names.new("pack"), DType.int64)
    base = Var(names.new("base"), DType.int64)
    stop = index("floordiv", loop.stop, int64(size))
    if isinstance(loop.stop, Const):
        stop = int64(int(loop.stop.value) // size)
    body = (Let(base, index("mul", pack, int64(size))), *pack_body(loop, base, size, outer, names))
    return For(pack.name, int64(0), stop, LoopKind.THREAD, body)
