"""Kernels on matrices whose rows lie further apart than they are long.

An index is taken apart into a row and a column, which must be seen to lie inside the row. A kernel that walks through
all elements in one loop walks through rows then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.backends.cupy.meaning import linear, spelled
from graphc.ir.types import DType
from graphc.loops.affine import Names, index, int64, rewrite
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
    LoopKind,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
)

Terms = dict[Expr | None, int]


class NotRows(Exception):
    """A place is not seen to be in a row."""


@dataclass(frozen=True)
class Rows:
    """Rows that are ``length`` long, and begin ``apart`` elements from each other."""

    length: int
    apart: int


def in_rows(kernel: Kernel, rows: Mapping[str, Rows], sizes: Mapping[str, int]) -> Kernel | None:
    """The kernel with some of its buffers in rows that are apart; None if an index cannot be taken apart.

    Args:
        kernel: not mapped to a GPU.
        rows: by names of buffers that lay close together so far.
        sizes: the arguments that are known.
    """
    try:
        return replace(kernel, body=_Changing(rows, sizes).block(kernel.body))
    except NotRows:
        return None


def walk_rows(kernel: Kernel, length: int) -> Kernel | None:
    """A kernel that walks through all elements in one loop as one that walks through rows.

    Its size is the number of rows then. None for other kernels.
    """
    match kernel:
        case Kernel(sizes=(size,), extent=Var(name=extent), body=(*leading, For(var=var) as loop)) if size == extent:
            pass
        case _:
            return None
    inside = [part for s in (*leading, *loop.body) for e in expressions(s) for part in subexpressions(e)]
    nested = any(not isinstance(s, Let | Store) for s in (*leading, *loop.body))
    if nested or kernel.has_checks or any(isinstance(part, Var) and part.name == size for part in inside):
        return None
    column = Var(Names(kernel).new("i1"), DType.int64)
    place = index("add", index("mul", int64(length), Var(var, DType.int64)), column)
    body = rewrite(loop.body, {var: place})
    inner = For(column.name, int64(0), int64(length), LoopKind.VECTOR, body)
    return replace(kernel, body=(*leading, replace(loop, body=(inner,))))


@dataclass
class _Changing:
    """Rewrites the indices of some buffers."""

    rows: Mapping[str, Rows]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        self.indices: dict[str, Expr] = {}
        self.loops: dict[str, tuple[int, Expr, Expr]] = {}

    def block(self, statements: Sequence[Stmt]) -> tuple[Stmt, ...]:
        """The statements of a block."""
        return tuple(map(self.statement, statements))

    def statement(self, statement: Stmt) -> Stmt:
        """One of them, and what it holds."""
        match statement:
            case For(var=var, start=start, stop=stop):
                self.loops[var] = (len(self.loops), self._spelled(start), self._spelled(stop))
                return replace(statement, body=self.block(statement.body))
            case If(condition=condition):
                return replace(statement, condition=self.value(condition), body=self.block(statement.body))
            case Let(var=var, value=value):
                if var.dtype is DType.int64 and not any(isinstance(part, Load) for part in subexpressions(value)):
                    self.indices[var.name] = self._spelled(value)
                return replace(statement, value=self.value(value))
            case Store(buffer=buffer, index=at, value=value):
                return replace(statement, index=self.place(buffer, at), value=self.value(value))
            case Assign(value=value) | Accumulate(value=value):
                return replace(statement, value=self.value(value))
            case Declare(initial=initial):
                return replace(statement, initial=self.value(initial))
            case Fail(condition=condition, check=check, detail=detail):
                values = map(self.value, (condition, check, detail))
                return Fail(*values)
            case _:
                return statement

    def value(self, expression: Expr) -> Expr:
        """An expression that loads from rows that are apart."""
        match expression:
            case Load(buffer=buffer, index=at):
                return replace(expression, index=self.place(buffer, at))
            case Apply(args=args):
                return replace(expression, args=tuple(map(self.value, args)))
            case _:
                return expression

    def place(self, buffer: str, at: Expr) -> Expr:
        """Where an element of a buffer is now."""
        if buffer not in self.rows:
            return self.value(at)
        rows = self.rows[buffer]
        terms = linear(self._spelled(at))
        number = terms.pop(None, 0)
        across = {atom: factor // rows.length for atom, factor in terms.items() if factor % rows.length == 0}
        along: Terms = {atom: factor for atom, factor in terms.items() if factor and atom not in across}
        along[None] = number % rows.length
        if not self._is_positive(along) or not self._is_below(along, rows.length):
            raise NotRows
        found = {atom: factor * rows.apart for atom, factor in across.items()} | along
        return _sum_of({**found, None: number // rows.length * rows.apart + number % rows.length})

    def _spelled(self, at: Expr) -> Expr:
        return spelled(at, self.indices)

    def _is_positive(self, terms: Terms) -> bool:
        """Is a sum plainly not below zero?"""
        return all(factor >= 0 and (atom is None or self._starts_positive(atom)) for atom, factor in terms.items())

    def _starts_positive(self, atom: Expr) -> bool:
        match atom:
            case Var(name=name) if name in self.loops:
                return self._is_positive(linear(self.loops[name][1]))
            case Var(name=name):
                return name in self.sizes
            case Apply(fn="mod", args=(_, Const(value=divisor))):
                return divisor > 0
            case _:
                return False

    def _is_below(self, terms: Terms, limit: int) -> bool:
        """Is a sum plainly less than a number? Inner loops end where outer ones say, so they are put at their ends."""
        loops = [
            (self.loops[atom.name][0], atom)
            for atom, factor in terms.items()
            if isinstance(atom, Var) and atom.name in self.loops and factor > 0
        ]
        if loops:
            _, var = max(loops, key=lambda found: found[0])
            stop = self.loops[var.name][2]
            ends = stop.args if isinstance(stop, Apply) and stop.fn == "min" else (stop,)
            return any(self._is_below(self._with(terms, var, end), limit) for end in ends)
        total = 0
        for atom, factor in terms.items():
            match atom:
                case None:
                    total += factor
                case Var(name=name) if name in self.sizes:
                    total += factor * self.sizes[name]
                case Apply(fn="mod", args=(_, Const(value=divisor))) if factor > 0:
                    total += factor * (int(divisor) - 1)
                case _:
                    if factor > 0 or (factor < 0 and not self._starts_positive(atom)):
                        return False
        return total < limit

    def _with(self, terms: Terms, var: Var, end: Expr) -> Terms:
        """A sum with a loop's variable at its end."""
        factor = terms[var]
        found = {atom: own for atom, own in terms.items() if atom != var}
        for atom, own in {**linear(end), None: linear(end).get(None, 0) - 1}.items():
            found[atom] = found.get(atom, 0) + factor * own
        return {atom: own for atom, own in found.items() if own or atom is None}


def _sum_of(terms: Terms) -> Expr:
    total: Expr = int64(0)
    for atom, factor in terms.items():
        if atom is not None and factor:
            total = index("add", total, index("mul", int64(factor), atom))
    return index("add", total, int64(terms.get(None, 0)))
