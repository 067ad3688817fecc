"""Values of a row that several loops compute are computed once and kept in an array.

A normalization reads its row three times and computes what is normalized each time, which a CPU does from its cache
faster than it would store it. The threads of a block keep their elements in shared memory instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from graphc.loops.affine import Names
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Const,
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


def keep_row_values(kernel: Kernel, loop: For, room_bytes: int) -> For:
    """The parallel loop with values kept that its first inner loop computes and later ones compute again.

    ``room_bytes``: what the kept arrays may take together.
    """
    positions = [i for i, s in enumerate(loop.body) if _is_candidate(s)]
    if len(positions) < 2:
        return loop
    first = loop.body[positions[0]]
    assert isinstance(first, For)
    positions = [i for i in positions if loop.body[i].stop == first.stop]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    keys = _Keys(kernel, loop)
    known = {key: let for let, key in keys.of_loop(first).items() if key is not None}
    roots: dict[int, Var] = {}
    for position in positions[1:]:
        later = loop.body[position]
        assert isinstance(later, For)
        roots |= {key: known[key] for key in _roots(later, keys, known)}
    assert isinstance(first.stop, Const)
    names, arrays = Names(kernel), dict[int, Local]()
    for key, var in roots.items():
        nbytes = int(first.stop.value) * var.dtype.itemsize
        if nbytes <= room_bytes:
            room_bytes -= nbytes
            arrays[key] = Local(names.new(f"{var.name}_kept"), var.dtype, int(first.stop.value))
    if not arrays:
        return loop
    body = list(loop.body)
    stored = {roots[key].name: local for key, local in arrays.items()}
    body[positions[0]] = replace(first, body=_storing(first, stored))
    for position in positions[1:]:
        later = body[position]
        assert isinstance(later, For)
        body[position] = replace(later, body=_loading(later, keys, arrays))
    body[positions[0] : positions[0]] = arrays.values()
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


@dataclass
class _Keys:
    """A number for each value of an iteration: equal numbers are equal values, whichever loop computes them."""

    kernel: Kernel
    loop: For
    _numbers: dict[object, int] = field(default_factory=dict[object, int])
    _moving: set[int] = field(default_factory=set[int])  # those that depend on the iteration

    def of_loop(self, loop: For) -> dict[Var, int | None]:
        """The number of each Let of an inner loop."""
        env: dict[str, int | None] = {loop.var: self._number(("iteration",), True)}
        found: dict[Var, int | None] = {}
        for statement in loop.body:
            if isinstance(statement, Let):
                key = self._key(statement.value, env)
                env[statement.var.name] = key
                found[statement.var] = key if key in self._moving else None
        return found

    def _key(self, expression: Expr, env: Mapping[str, int | None]) -> int | None:
        match expression:
            case Const(value=value, dtype=dtype):
                return self._number((repr(value), dtype), False)
            case Var(name=name):
                if name in env:
                    return env[name]
                return self._number(("outer", name), False) if name in self._stable else None
            case Load(buffer=buffer, index=index):
                key = self._key(index, env)
                if key is None or buffer not in self._read_only:
                    return None
                return self._number(("load", buffer, key), key in self._moving)
            case Apply(fn=fn, args=args, dtype=dtype):
                keys = [self._key(argument, env) for argument in args]
                if None in keys:
                    return None
                return self._number((fn, dtype, *keys), any(key in self._moving for key in keys))

    def _number(self, parts: tuple[object, ...], moving: bool) -> int:
        number = self._numbers.setdefault(parts, len(self._numbers))
        if moving:
            self._moving.add(number)
        return number

    @property
    def _stable(self) -> set[str]:
        """Scalars that never change in a row."""
        lets = {s.var.name for s in self.loop.body if isinstance(s, Let)}
        changing = {s.var.name for s in walk(self.loop.body) if isinstance(s, Assign | Accumulate)}
        return (lets | {self.loop.var} | set(self.kernel.sizes)) - changing

    @property
    def _read_only(self) -> set[str]:
        return {buffer.name for buffer in self.kernel.buffers if buffer.access is Access.READ}


def _roots(loop: For, keys: _Keys, known: Mapping[int, Var]) -> list[int]:
    """The known values that a loop uses for what is not known; loads of one element alone are left as they are."""
    numbers = {let.name: key for let, key in keys.of_loop(loop).items() if key in known}
    loads = {s.var.name for s in loop.body if isinstance(s, Let) and isinstance(s.value, Load)}
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


def _storing(loop: For, stored: Mapping[str, Local]) -> tuple[Stmt, ...]:
    result: list[Stmt] = []
    for statement in loop.body:
        result.append(statement)
        if isinstance(statement, Let) and statement.var.name in stored:
            local = stored[statement.var.name]
            result.append(Store(local.name, _position(loop), statement.var))
    return tuple(result)


def _loading(loop: For, keys: _Keys, arrays: Mapping[int, Local]) -> tuple[Stmt, ...]:
    """The loop's body with kept values loaded, and without what only they needed."""
    numbers = keys.of_loop(loop)
    body: list[Stmt] = []
    for statement in loop.body:
        key = numbers.get(statement.var) if isinstance(statement, Let) else None
        if isinstance(statement, Let) and key is not None and key in arrays:
            statement = Let(statement.var, Load(arrays[key].name, _position(loop), statement.var.dtype))
        body.append(statement)
    needed: set[str] = set()
    result: list[Stmt] = []
    for statement in reversed(body):
        if isinstance(statement, Let) and statement.var.name not in needed:
            continue
        needed |= {p.name for e in expressions(statement) for p in subexpressions(e) if isinstance(p, Var)}
        result.append(statement)
    return tuple(reversed(result))


def _position(loop: For) -> Var:
    return Var(loop.var, loop.start.dtype)
