"""Indices while kernels are built: polynomials of loop variables and sizes, and their form in the kernel IR.

Loop variables are names that begin with ``%``, which no user's Dim can have. A kernel sees sizes only as numbered
int64 arguments (``n0``, ``n1``, ...), each the value of a polynomial of the graph's Dims; so kernels of equal
structure have equal text whatever the user calls his sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from graphc.ir.dims import Dim, Function, Monomial, Size, names
from graphc.ir.dims import _from_atom as from_atom  # pyright: ignore[reportPrivateUsage]
from graphc.ir.dims import _polynomial as polynomial  # pyright: ignore[reportPrivateUsage]
from graphc.ir.types import DType, Shape
from graphc.loops.kernel import Apply, Const, Expr, Var

Index = tuple[Size, ...]


def loop_index(name: str) -> Size:
    """The loop variable of this name as a polynomial."""
    return from_atom(f"%{name}")


def is_loop_name(name: str) -> bool:
    """Is it a loop variable, not a size of the graph?"""
    return name.startswith("%")


def loop_names(size: Size) -> set[str]:
    """The loop variables in a polynomial, with their ``%``."""
    return {name for name in names(size) if is_loop_name(name)}


def strides_of(shape: Shape) -> tuple[Size, ...]:
    """Row-major strides in elements."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * size
    return tuple(reversed(strides))


def linear(index: Sequence[Size], shape: Shape) -> Size:
    """The flat position of an index tuple in a row-major array."""
    return _linear(tuple(index), tuple(shape))


@lru_cache(maxsize=1 << 14)
def _linear(index: tuple[Size, ...], shape: Shape) -> Size:
    total: Size = 0
    for position, stride in zip(index, strides_of(shape), strict=True):
        total = total + position * stride
    return recombined(total)


def recombined(position: Size) -> Size:
    """The position with ``d * (x // d) + x % d`` written as ``x``: axes that were split and lie together."""
    if isinstance(position, int):
        return position
    for monomial, factor in position.terms:
        for atom, power in monomial:
            if isinstance(atom, str) or atom.fn != "%" or power != 1:
                continue
            rest = tuple(part for part in monomial if part[0] != atom)
            quotient = from_atom(_quotient(atom.left, atom.right))
            together = position + polynomial({rest: factor}) * (atom.left - atom.right * quotient - from_atom(atom))
            if _functions(together) < _functions(position) - 1:  # the quotient is gone, too
                return recombined(together)
    return position


def _functions(size: Size) -> int:
    """How many quotients, remainders, minima and maxima there are, those within others counted, too."""
    if isinstance(size, int):
        return 0
    atoms = [atom for monomial, _ in size.terms for atom, _ in monomial if not isinstance(atom, str)]
    return sum(1 + _functions(atom.left) + _functions(atom.right) for atom in atoms)


def _quotient(left: Size, right: Size) -> Function:
    """``left // right``, where ``(x // a) // b`` is ``x // (a * b)``: the middle of three axes that were split."""
    if not isinstance(left, int) and len(left.terms) == 1:
        ((monomial, factor),) = left.terms
        if factor == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            inner = monomial[0][0]
            if isinstance(inner, Function) and inner.fn == "//":
                return Function("//", inner.left, inner.right * right)
    return Function("//", left, right)


class Argument(int):
    """A number that is an argument even though it is known, so that kernels of equal structure stay equal."""

    purpose: str

    def __new__(cls, value: int, purpose: str) -> Argument:
        made = super().__new__(cls, value)
        made.purpose = purpose
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Argument) and (int(self), self.purpose) == (int(other), other.purpose)

    def __hash__(self) -> int:
        return hash((int(self), self.purpose))


@dataclass
class SizeArguments:
    """The int64 arguments of a kernel: sizes in order of first use."""

    values: list[Size] = field(default_factory=list[Size])

    def argument(self, size: Size) -> Expr:
        """A size as a kernel expression: a literal, or an argument."""
        if isinstance(size, int):
            return Const(size, DType.int64)
        if size not in self.values:
            self.values.append(size)
        return Var(f"n{self.values.index(size)}", DType.int64)

    def never_literal(self, size: Size, purpose: str) -> Expr:
        """A size as an argument of the kernel, whether it is known or not."""
        if isinstance(size, int):
            size = Argument(size, purpose)
        if size not in self.values:
            self.values.append(size)
        return Var(f"n{self.values.index(size)}", DType.int64)

    def expression(self, size: Size) -> Expr:
        """A polynomial of loop variables and sizes as a kernel expression."""
        if isinstance(size, int) or not loop_names(size):
            return self.argument(size)
        grouped: dict[Monomial, dict[Monomial, int]] = {}
        for monomial, factor in size.terms:
            loops = tuple((atom, power) for atom, power in monomial if _has_loops(atom))
            sizes = tuple((atom, power) for atom, power in monomial if not _has_loops(atom))
            grouped.setdefault(loops, {})[sizes] = factor
        total: Expr | None = None
        for loops, factors in sorted(grouped.items(), key=lambda item: (not item[0], str(item[0]))):
            coefficient = polynomial(factors)
            term: Expr | None = None if loops and coefficient == 1 else self.argument(coefficient)
            for atom, power in loops:
                for _ in range(power):
                    part = self._atom(atom)
                    term = part if term is None else Apply("mul", (term, part), DType.int64)
            assert term is not None
            total = term if total is None else Apply("add", (total, term), DType.int64)
        assert total is not None
        return total

    def _atom(self, atom: str | Function) -> Expr:
        if isinstance(atom, str):
            return Var(atom[1:], DType.int64)
        fn = {"//": "floordiv", "%": "mod", "min": "min", "max": "max"}[atom.fn]
        return Apply(fn, (self.expression(atom.left), self.expression(atom.right)), DType.int64)


def _has_loops(atom: str | Function) -> bool:
    if isinstance(atom, str):
        return is_loop_name(atom)
    return bool(loop_names(atom.left) or loop_names(atom.right))


__all__ = ["Dim", "Index", "SizeArguments", "is_loop_name", "linear", "loop_index", "loop_names", "strides_of"]
