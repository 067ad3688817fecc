"""What a kernel stores, element by element: sums of what it reads, and functions of these by their values at points.

So it does not matter how a kernel is written, and rounding in between does not, either: what is made of its meaning
rounds once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.cupy.device import Activation
from graphc.ir.types import DType
from graphc.loops.kernel import Apply, Const, Expr, For, Kernel, Let, Load, LoopKind, Store, Var, walk
from graphc.loops.scalar import apply_scalar

COMPUTED = frozenset({DType.float32, DType.float16, DType.bfloat16})
"""Types whose elements are computed with in float32."""
MOST_STATEMENTS = 48

Points = NDArray[Any]
_FINITE = np.linspace(-12, 12, 193, dtype=np.float32)
_POINTS = np.concatenate([_FINITE, np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30, -1e-30], np.float32)])


@dataclass(frozen=True)
class Sum:
    """A sum of elements of different buffers, each read at one index."""

    terms: frozenset[tuple[str, Expr]]


@dataclass(frozen=True)
class Function:
    """A function of a sum, by its values at some points; of nothing if it is the same everywhere."""

    of: Sum | None
    values: Points


Meaning = Sum | Function | None


@dataclass(frozen=True)
class Stored:
    """What a kernel stores in a buffer, and where."""

    index: Expr
    meaning: Meaning


def stored_by(kernel: Kernel) -> dict[str, Stored] | None:
    """What a kernel stores in each buffer that it writes; None if it does anything but that, element by element."""
    statements = list(walk(kernel.body))
    if kernel.has_checks or len(statements) > MOST_STATEMENTS:
        return None
    known: dict[str, Meaning] = {}
    indices: dict[str, Expr] = {}
    found: dict[str, Stored] = {}
    for statement in statements:
        match statement:
            case For(kind=LoopKind.PARALLEL | LoopKind.VECTOR):
                pass
            case Let(var=var, value=value):
                known[var.name] = _meaning(value, known, indices)
                if var.dtype is DType.int64:
                    indices[var.name] = spelled(value, indices)
            case Store(buffer=buffer, index=index, value=value) if buffer not in found:
                found[buffer] = Stored(spelled(index, indices), _meaning(value, known, indices))
            case _:
                return None
    return found


def spelled(index: Expr, indices: Mapping[str, Expr]) -> Expr:
    """An index without names that stand for others."""
    match index:
        case Var(name=name):
            return indices.get(name, index)
        case Apply(args=args):
            return replace(index, args=tuple(spelled(argument, indices) for argument in args))
        case _:
            return index


def _meaning(value: Expr, known: dict[str, Meaning], indices: dict[str, Expr]) -> Meaning:
    match value:
        case Var(name=name):
            return known.get(name)
        case Const(value=number, dtype=dtype):
            return Function(None, np.full(_POINTS.shape, number, dtype.wide.numpy)) if dtype in COMPUTED else None
        case Load(buffer=buffer, index=index, dtype=dtype):
            return Sum(frozenset([(buffer, spelled(index, indices))])) if dtype in COMPUTED else None
        case Apply(fn="cast", args=(inner,), dtype=dtype) if dtype in COMPUTED and inner.dtype in COMPUTED:
            return _meaning(inner, known, indices)  # there is one rounding, at the end
        case Apply(fn=fn, args=args, dtype=dtype):
            return _applied(fn, [_meaning(argument, known, indices) for argument in args], dtype)


def _applied(fn: str, meanings: list[Meaning], dtype: DType) -> Meaning:
    match meanings:
        case [Sum(terms=a), Sum(terms=b)] if fn == "add" and not a & b:
            return Sum(a | b)
        case _:
            pass
    sums: set[Sum] = set()
    points: list[Points] = []
    for meaning in meanings:
        if meaning is None:
            return None
        of = meaning if isinstance(meaning, Sum) else meaning.of
        sums |= set() if of is None else {of}
        points.append(_POINTS if isinstance(meaning, Sum) else meaning.values)
    if len(sums) > 1 or fn in ("cast", "threefry"):
        return None
    return Function(sums.pop() if sums else None, apply_scalar(fn, tuple(points), dtype))


def activation_of(meaning: Meaning) -> tuple[Sum, Activation] | None:
    """Which activation of which sum it is; None if it is something else."""
    match meaning:
        case Sum():
            return meaning, Activation.NONE
        case Function(of=Sum() as of, values=values) if values.dtype == np.float32:
            for activation in (Activation.RELU, Activation.GELU):
                if np.allclose(values, activation.of(_POINTS), rtol=1e-5, atol=2e-6, equal_nan=True):
                    return of, activation
        case _:
            pass
    return None


def is_positive(meaning: Meaning, of: Sum) -> bool:
    """Does it say where a sum, or its relu, is above zero?"""
    match meaning:
        case Function(of=found, values=values) if found == of and values.dtype == np.bool_:
            return bool(np.array_equal(values, _POINTS > 0))
        case _:
            return False


def is_same_modulo(a: Expr, b: Expr, of: int) -> bool:
    """Do two indices, without names for others, plainly differ by a multiple of a number?

    >>> from graphc.loops.affine import index, int64
    >>> i, j = Var("i", DType.int64), Var("j", DType.int64)
    >>> row = index("add", index("mul", int64(8), i), j)
    >>> is_same_modulo(row, j, 8), is_same_modulo(row, j, 3)
    (True, False)
    """
    left, right = linear(a, of), linear(b, of)
    atoms = left.keys() | right.keys()
    return all((left.get(atom, 0) - right.get(atom, 0)) % of == 0 for atom in atoms)


def linear(index: Expr, of: int = 0) -> dict[Expr | None, int]:
    """The factors of what an index is a sum of; None: the number in it.

    Args:
        index: without names that stand for others.
        of: multiples of it do not matter, unless it is 0.
    """
    match index:
        case Const(value=value):
            return {None: int(value)}
        case Apply(fn="add" | "sub" as fn, args=(a, b)):
            found, sign = linear(a, of), 1 if fn == "add" else -1
            for atom, factor in linear(b, of).items():
                found[atom] = found.get(atom, 0) + sign * factor
            return found
        case Apply(fn="mul", args=(a, Const(value=factor)) | (Const(value=factor), a)):
            return {atom: int(factor) * own for atom, own in linear(a, of).items()}
        case Apply(fn="mod", args=(a, Const(value=divisor))) if of and divisor and int(divisor) % of == 0:
            return linear(a, of)
        case _:
            return {index: 1}
