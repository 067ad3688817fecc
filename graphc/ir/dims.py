"""Symbolic sizes and indices: integer polynomials with ``//``, ``%``, ``min`` and ``max``.

A size in a shape is an ``int`` or a :class:`Dim`. A ``Dim`` is a sum of monomials; a monomial is an
integer times a product of atoms; an atom is a name (``batch``) or one of the four functions of two
sizes that a polynomial cannot hold. The form is canonical, so that equal sizes are equal objects for
``==`` and ``hash``, and a ``Dim`` that turns out to be a number *is* an ``int``::

    >>> n = Dim("batch")
    >>> (n * 2 + n) // 3 == n
    True
    >>> (n + 1) * (n - 1)
    batch**2 - 1

Kernel indices use the same polynomials with loop variables as names; ``floordiv`` and ``mod`` then take
bounds (``0 <= i < bound``) and simplify ``(i * 512 + j) // 512`` to ``i``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, Union

Size: TypeAlias = Union[int, "Dim"]
Bounds = Mapping[str, Size]
Monomial = tuple[tuple["Atom", int], ...]


@dataclass(frozen=True)
class Function:
    """An atom that is a function of two sizes: ``fn`` is one of ``//``, ``%``, ``min``, ``max``."""

    fn: str
    left: Size
    right: Size

    def __str__(self) -> str:
        if self.fn in ("min", "max"):
            return f"{self.fn}({self.left}, {self.right})"
        return f"({_grouped(self.left)} {self.fn} {_grouped(self.right)})"


Atom = str | Function


def _grouped(size: Size) -> str:
    return f"({size})" if isinstance(size, Dim) and len(size.terms) > 1 else str(size)


def _atom_key(atom: Atom) -> tuple[int, str]:
    return (0, atom) if isinstance(atom, str) else (1, str(atom))


class Dim:
    """A symbolic size. ``Dim("batch")`` is a named size; arithmetic gives further ones.

    Dims are equal by name: two ``Dim("batch")`` are the same size within a graph. The name is a Python
    identifier, since it is printed in graph text.

    Raises:
        ValueError: the name is not an identifier.
    """

    __slots__ = ("_hash", "terms")

    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.isidentifier():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"a Dim's name must be an identifier such as 'batch', not {name!r}")
        self._set(((((name, 1),), 1),))

    def _set(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "_hash", hash(terms))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Dim cannot be changed")

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __reduce__(self) -> tuple[Callable[..., Size], tuple[object, ...]]:
        return size_of_terms, (self.terms,)

    def __add__(self, other: Size) -> Size:
        if not isinstance(other, int | Dim):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        if isinstance(other, int) and not other:
            return self
        total = dict(self.terms)
        for monomial, factor in _terms(other):
            total[monomial] = total.get(monomial, 0) + factor
        return _polynomial(total)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return _polynomial({monomial: -factor for monomial, factor in self.terms})

    def __sub__(self, other: Size) -> Size:
        if not isinstance(other, int | Dim):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        return self + -other

    def __rsub__(self, other: Size) -> Size:
        return -self + other

    def __mul__(self, other: Size) -> Size:
        if not isinstance(other, int | Dim):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        if isinstance(other, int):  # the order of the terms stays
            factor = int(other)
            return size_of_terms(tuple((m, f * factor) for m, f in self.terms)) if factor else 0
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                monomial = _monomial_product(left, right)
                total[monomial] = total.get(monomial, 0) + a * b
        return _polynomial(total)

    __rmul__ = __mul__

    def __pow__(self, exponent: int) -> Size:
        result: Size = 1
        for _ in range(exponent):
            result = result * self
        return result

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return mod(self, other)

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self)

    def __bool__(self) -> bool:
        raise TypeError(f"the symbolic size {self} has no truth value until a program runs")

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, factor in self.terms:
            atoms = [str(atom) if power == 1 else f"{atom}**{power}" for atom, power in monomial]
            size = abs(factor)
            body = "*".join(([str(size)] if size != 1 or not atoms else []) + atoms)
            sign = ("-" if factor < 0 else "") if not parts else (" - " if factor < 0 else " + ")
            parts.append(sign + body)
        return "".join(parts)

    __repr__ = __str__


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(size, Dim):
        return size.terms
    return (((), int(size)),) if size else ()


def _monomial_product(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: _atom_key(item[0])))


@lru_cache(maxsize=1 << 14)
def _monomial_key(monomial: Monomial) -> tuple[int, list[tuple[tuple[int, str], int]]]:
    return -sum(power for _, power in monomial), [(_atom_key(atom), power) for atom, power in monomial]


def _polynomial(total: Mapping[Monomial, int]) -> Size:
    terms = [(m, f) for m, f in total.items() if f]
    if len(terms) > 1:
        terms.sort(key=lambda item: _monomial_key(item[0]))
    return size_of_terms(tuple(terms))


def size_of_terms(terms: tuple[tuple[Monomial, int], ...]) -> Size:
    """The size that has these terms, in their canonical order: what ``Dim.terms`` gives back."""
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    result = object.__new__(Dim)
    Dim._set(result, terms)  # pyright: ignore[reportPrivateUsage]
    return result


def _from_atom(atom: Atom) -> Size:
    return size_of_terms(((((atom, 1),), 1),))


def _divide_monomial(monomial: Monomial, by: Monomial) -> Monomial | None:
    powers = dict(monomial)
    for atom, power in by:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        powers[atom] = left
    return tuple((atom, power) for atom, power in powers.items() if power)


def split_multiple(size: Size, divisor: Size) -> tuple[Size, Size]:
    """``(q, r)`` with ``size == q * divisor + r`` where q holds every term that divides evenly."""
    terms = _terms(divisor)
    if len(terms) != 1:
        return (1, 0) if size == divisor else (0, size)
    (by, factor) = terms[0]
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in _terms(size):
        left = _divide_monomial(monomial, by)
        if left is None:
            rest[monomial] = coefficient
            continue
        whole, remainder = divmod(coefficient, factor)
        if whole:
            quotient[left] = quotient.get(left, 0) + whole
        if remainder:
            rest[monomial] = remainder
    return _polynomial(quotient), _polynomial(rest)


def _below(size: Size, limit: Size, bounds: Bounds) -> bool:
    """Is ``0 <= size < limit`` certain, when each bounded name n lies in ``0 <= n < bounds[n]``?

    Names without a bound are sizes: at least 1.
    """
    largest = _largest(size, bounds)
    return largest is not None and least(limit - largest) > 0


def _largest(size: Size, bounds: Bounds) -> Size | None:
    """A size that ``size`` does not exceed, without bounded names; None unless it is certainly not negative."""
    total: Size = 0
    for monomial, factor in _terms(size):
        if factor < 0:
            return None
        product: Size = factor
        for atom, power in monomial:
            bound = _largest_atom(atom, bounds)
            if bound is None:
                return None
            for _ in range(power):
                product = product * bound
        total = total + product
    return total


def _largest_atom(atom: Atom, bounds: Bounds) -> Size | None:
    if isinstance(atom, str):
        return bounds[atom] - 1 if atom in bounds else _from_atom(atom)
    if atom.fn == "%":
        return None if names(atom.right) & bounds.keys() else atom.right - 1
    left, right = _largest(atom.left, bounds), _largest(atom.right, bounds)
    if left is None or right is None:
        return None
    if atom.fn == "//":
        return None if names(atom.right) & bounds.keys() else floordiv(left, atom.right)
    return minimum(left, right) if atom.fn == "min" else maximum(left, right)


def least(size: Size) -> int:
    """A lower bound of a size in which every name is at least 1 (conservative)."""
    low = 0
    for monomial, factor in _terms(size):
        if not monomial:
            low += factor
        else:
            bound = factor
            for atom, power in monomial:
                smallest = _least_atom(atom)
                if factor < 0 or (smallest < 0 and (power > 1 or len(monomial) > 1)):
                    return _UNBOUNDED
                bound *= smallest**power
            low += bound
    return low


_UNBOUNDED = -(10**18)


def _least_atom(atom: Atom) -> int:
    if isinstance(atom, str):
        return 1
    match atom.fn:
        case "min":
            return min(least(atom.left), least(atom.right))
        case "max":
            return max(least(atom.left), least(atom.right))
        case _:  # divisors are positive
            return 0 if atom.fn == "%" or least(atom.left) >= 0 else _UNBOUNDED


def floordiv(size: Size, divisor: Size, bounds: Bounds | None = None) -> Size:
    """``size // divisor`` in canonical form; ``bounds`` gives exclusive upper bounds of index names."""
    if isinstance(size, int) and isinstance(divisor, int):
        return size // divisor
    if divisor == 1:
        return size
    quotient, rest = split_multiple(size, divisor)
    if rest == 0 or _below(rest, divisor, bounds or {}):
        return quotient
    return quotient + _from_atom(Function("//", rest, divisor))


def mod(size: Size, divisor: Size, bounds: Bounds | None = None) -> Size:
    """``size % divisor`` in canonical form; see :func:`floordiv`."""
    if isinstance(size, int) and isinstance(divisor, int):
        return size % divisor
    if divisor == 1:
        return 0
    _, rest = split_multiple(size, divisor)
    if rest == 0 or _below(rest, divisor, bounds or {}):
        return rest
    if isinstance(rest, int) and isinstance(divisor, int):
        return rest % divisor
    return _from_atom(Function("%", rest, divisor))


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two sizes, symbolic when that is not known; a named size is at least 1."""
    return _extreme("min", min, a, b)


def maximum(a: Size, b: Size) -> Size:
    """The larger of two sizes, symbolic when that is not known; a named size is at least 1."""
    return _extreme("max", max, a, b)


def _extreme(fn: str, exact: Callable[[int, int], int], a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return exact(a, b)
    if a == b:
        return a
    if least(a - b) >= 0:
        return b if fn == "min" else a
    if least(b - a) >= 0:
        return a if fn == "min" else b
    left, right = sorted((a, b), key=str)
    return _from_atom(Function(fn, left, right))


def ceildiv(size: Size, divisor: Size) -> Size:
    """``size / divisor`` rounded up."""
    return floordiv(size + divisor - 1, divisor)


def names(size: Size) -> set[str]:
    """All names that occur in a size.

    >>> sorted(names(Dim("a") * 2 + Dim("b") // 3))
    ['a', 'b']
    """
    return set(_names(size)) if isinstance(size, Dim) else set()


@lru_cache(maxsize=1 << 14)
def _names(size: Dim) -> frozenset[str]:
    found: set[str] = set()
    for monomial, _ in size.terms:
        for atom, _ in monomial:
            found |= {atom} if isinstance(atom, str) else names(atom.left) | names(atom.right)
    return frozenset(found)


def substitute(size: Size, values: Mapping[str, Size], bounds: Bounds | None = None) -> Size:
    """Replace names by sizes; the result is an int when every name is given an int."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, factor in size.terms:
        product: Size = factor
        for atom, power in monomial:
            value = _substitute_atom(atom, values, bounds)
            for _ in range(power):
                product = product * value
        total = total + product
    return total


def _substitute_atom(atom: Atom, values: Mapping[str, Size], bounds: Bounds | None) -> Size:
    if isinstance(atom, str):
        return values[atom] if atom in values else _from_atom(atom)
    left, right = substitute(atom.left, values, bounds), substitute(atom.right, values, bounds)
    if atom.fn == "//":
        return floordiv(left, right, bounds)
    if atom.fn == "%":
        return mod(left, right, bounds)
    return minimum(left, right) if atom.fn == "min" else maximum(left, right)


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The number that a size has when every name has a value.

    Raises:
        KeyError: a name has no value.
    """
    if isinstance(size, int):
        return size
    total = 0
    for monomial, factor in size.terms:
        product = factor
        for atom, power in monomial:
            product *= _evaluate_atom(atom, values) ** power
        total += product
    return total


def _evaluate_atom(atom: Atom, values: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        return values[atom]
    left, right = evaluate(atom.left, values), evaluate(atom.right, values)
    if atom.fn == "//":
        return left // right
    if atom.fn == "%":
        return left % right
    return min(left, right) if atom.fn == "min" else max(left, right)


def coefficient(size: Size, name: str) -> Size | None:
    """The factor of ``name`` when ``size`` is affine in it, else None.

    >>> i, n = Dim("i"), Dim("n")
    >>> coefficient(i * n + 3, "i")
    n
    """
    total: dict[Monomial, int] = {}
    for monomial, factor in _terms(size):
        for atom, power in monomial:
            if atom == name:
                if power != 1:
                    return None
                rest = _divide_monomial(monomial, ((name, 1),))
                if rest is None or any(name in _atom_names(a) for a, _ in rest):
                    return None
                total[rest] = total.get(rest, 0) + factor
            elif not isinstance(atom, str) and name in _atom_names(atom):
                return None
    return _polynomial(total)


def _atom_names(atom: Atom) -> set[str]:
    return {atom} if isinstance(atom, str) else names(atom.left) | names(atom.right)


def product(sizes: tuple[Size, ...]) -> Size:
    """The number of elements of a shape.

    >>> product((2, Dim("n"), 3))
    6*n
    """
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def parse_size(text: str) -> Size:
    """Read back what ``str(size)`` prints.

    >>> parse_size("2*n + (m // 3) - 1") == 2 * Dim("n") + Dim("m") // 3 - 1
    True
    """
    import ast

    def read(node: ast.expr) -> Size:
        match node:
            case ast.Constant(value=int() as value):
                return value
            case ast.Name(id=name):
                return Dim(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -read(operand)
            case ast.Call(func=ast.Name(id="min"), args=[a, b]):
                return minimum(read(a), read(b))
            case ast.Call(func=ast.Name(id="max"), args=[a, b]):
                return maximum(read(a), read(b))
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)):
                return Dim.__pow__(base, power) if isinstance(base := read(left), Dim) else base**power
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATIONS[type(op)](read(left), read(right))
            case _:
                raise ValueError(f"not a size: {text!r}")

    try:
        return read(ast.parse(text, mode="eval").body)
    except (SyntaxError, KeyError) as error:
        raise ValueError(f"not a size: {text!r}") from error


def _operations() -> dict[type, Callable[[Size, Size], Size]]:
    import ast

    return {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.FloorDiv: lambda a, b: a // b,
        ast.Mod: lambda a, b: a % b,
    }


_OPERATIONS = _operations()
