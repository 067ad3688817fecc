"""Kernels on narrower buffers: float32 whose values are those of 16-bit floats, stored as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from graphc.ir.types import DType
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Const,
    Declare,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Stmt,
    Store,
    Var,
    expressions,
    walk,
)

f32 = DType.float32


def narrow_kernel(kernel: Kernel, types: Mapping[str, DType]) -> Kernel:
    """The kernel with buffers of float32 by these names turned into 16-bit floats.

    What is loaded is widened, what is stored is rounded; a value that is widened only to be rounded again is left.
    """
    buffers = tuple(replace(b, dtype=types[b.name]) if b.name in types else b for b in kernel.buffers)
    return replace(kernel, buffers=buffers, body=_Narrower(types).block(kernel.body))


def stored_types(kernel: Kernel, name: str, known: Mapping[str, DType]) -> set[DType]:
    """The types of which everything is that a kernel stores in a buffer of float32; zeros are of any type.

    Args:
        kernel: not mapped to a GPU.
        name: the buffer's.
        known: buffers of float32 that hold nothing but values of a 16-bit type.
    """
    defined = _definitions(kernel)
    found: set[DType] = set()
    for statement in walk(kernel.body):
        if isinstance(statement, Store) and statement.buffer == name:
            found |= _types(statement.value, defined, known)
    return found


def rounded_type(kernel: Kernel, name: str) -> DType | None:
    """The 16-bit type to which everything is rounded that a kernel loads from a buffer of float32; None if none is."""
    defined = _definitions(kernel)
    aliases = {var for var, value in defined.items() if isinstance(value, Load) and value.buffer == name}
    found: set[DType | None] = set()

    def look(expression: Expr, under: DType | None) -> None:
        if (isinstance(expression, Load) and expression.buffer == name) or (
            isinstance(expression, Var) and expression.name in aliases
        ):
            found.add(under)
        elif isinstance(expression, Apply):
            target = expression.dtype if expression.fn == "cast" and expression.dtype.is_half else None
            for argument in expression.args:
                look(argument, target)

    for statement in walk(kernel.body):
        if isinstance(statement, Let) and statement.var.name in aliases:
            continue
        for expression in expressions(statement):
            look(expression, None)
    return next(iter(found)) if len(found) == 1 else None


def copies(kernel: Kernel) -> bool:
    """Does a kernel do nothing but put each element of its first buffer at the same place in its second, as it is?"""
    if len(kernel.buffers) != 2 or kernel.buffers[0].dtype is not kernel.buffers[1].dtype or kernel.has_checks:
        return False
    source, target = kernel.buffers
    stores = [s for s in walk(kernel.body) if isinstance(s, Store)]
    if len(stores) != 1 or stores[0].buffer != target.name:
        return False
    if not all(isinstance(s, For | Let | Store) for s in walk(kernel.body)):
        return False
    value, defined = stores[0].value, _definitions(kernel)
    while isinstance(value, Var) and value.name in defined:
        value = defined[value.name]
    return isinstance(value, Load) and value.buffer == source.name and value.index == stores[0].index


def copied(kernel: Kernel) -> list[tuple[str, str]]:
    """Buffers of 16-bit floats that a kernel fills, beside its work, with what it reads at the same places of others.

    Each is named behind the one that it is a copy of.
    """
    if kernel.has_checks or any(isinstance(s, If) for s in walk(kernel.body)):
        return []
    types = {buffer.name: buffer.dtype for buffer in kernel.buffers if buffer.dtype.is_half}
    written = {buffer.name for buffer in kernel.buffers if buffer.access is Access.WRITE}
    stores = [s for s in walk(kernel.body) if isinstance(s, Store) and s.buffer in types.keys() & written]
    defined, found = _definitions(kernel), list[tuple[str, str]]()
    for store in stores:
        value = store.value
        while isinstance(value, Var) and value.name in defined:
            value = defined[value.name]
        if isinstance(value, Load) and value.index == store.index and value.buffer not in written:
            alone = sum(other.buffer == store.buffer for other in stores) == 1
            if alone and types.get(value.buffer) is types[store.buffer]:
                found.append((value.buffer, store.buffer))
    return found


def without_store(kernel: Kernel, name: str) -> Kernel:
    """The kernel without what it does for a buffer that it only writes."""

    def kept(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        rest = (s for s in body if not (isinstance(s, Store) and s.buffer == name))
        return tuple(replace(s, body=kept(s.body)) if isinstance(s, For) else s for s in rest)

    return replace(kernel, buffers=tuple(b for b in kernel.buffers if b.name != name), body=kept(kernel.body))


def _definitions(kernel: Kernel) -> dict[str, Expr]:
    return {s.var.name: s.value for s in walk(kernel.body) if isinstance(s, Let)}


def _types(value: Expr, defined: Mapping[str, Expr], known: Mapping[str, DType]) -> set[DType]:
    """The 16-bit types that the value of an expression has; float32 where that is not known."""
    match value:
        case Var(name=name) if name in defined:
            return _types(defined[name], defined, known)
        case Apply(fn="cast", args=(inner,)) if inner.dtype.is_half:
            return {inner.dtype}
        case Apply(fn="select", args=(_, one, other)):
            return _types(one, defined, known) | _types(other, defined, known)
        case Const(value=number) if number == 0:
            return set()
        case Load(buffer=buffer) if buffer in known:
            return {known[buffer]}
        case _:
            return {f32}


@dataclass
class _Narrower:
    """Rewrites statements.

    Attributes:
        narrow: by name of a float32 that was widened: the variable before that.
    """

    types: Mapping[str, DType]
    narrow: dict[str, Var] = field(default_factory=dict[str, Var])

    def block(self, statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """The statements of a block."""
        return tuple(new for statement in statements for new in self.statement(statement))

    def statement(self, statement: Stmt) -> list[Stmt]:
        """A statement, after what it needs."""
        match statement:
            case Let(var=var, value=Load(buffer=buffer)) if buffer in self.types:
                half = Var(f"{var.name}n", self.types[buffer])
                self.narrow[var.name] = half
                load = replace(statement.value, dtype=half.dtype)
                return [Let(half, load), Let(var, Apply("cast", (half,), f32))]
            case Let(var=var, value=value):
                new = self.value(value)
                match new:
                    case Apply(fn="cast", args=(Var() as inner,)) if var.dtype is f32 and inner.dtype.is_half:
                        self.narrow[var.name] = inner
                    case _:
                        pass
                return [Let(var, new)]
            case Store(buffer=buffer, value=value) if buffer in self.types:
                return [replace(statement, value=self.rounded(self.value(value), self.types[buffer]))]
            case Store(value=value):
                return [replace(statement, value=self.value(value))]
            case For() | If():
                return [replace(statement, body=self.block(statement.body), **self._heads(statement))]
            case Assign(value=value) | Accumulate(value=value):
                return [replace(statement, value=self.value(value))]
            case Declare(initial=initial):
                return [replace(statement, initial=self.value(initial))]
            case _:
                return [statement]

    def _heads(self, statement: For | If) -> dict[str, Expr]:
        return {"condition": self.value(statement.condition)} if isinstance(statement, If) else {}

    def value(self, expression: Expr) -> Expr:
        """An expression on the new buffers."""
        match expression:
            case Load(buffer=buffer) if buffer in self.types:
                return Apply("cast", (replace(expression, dtype=self.types[buffer]),), f32)
            case Apply(fn="cast", args=(inner,)) if expression.dtype.is_half and inner.dtype is f32:
                return self.rounded(self.value(inner), expression.dtype)
            case Apply(args=args):
                return replace(expression, args=tuple(map(self.value, args)))
            case _:
                return expression

    def rounded(self, value: Expr, dtype: DType) -> Expr:
        """A float32 rounded to 16 bits, or what it was before it was widened."""
        if isinstance(value, Var) and value.name in self.narrow and self.narrow[value.name].dtype is dtype:
            return self.narrow[value.name]
        if isinstance(value, Apply) and value.fn == "cast" and value.args[0].dtype is dtype:
            return value.args[0]
        if value.dtype is dtype:
            return value
        return Apply("cast", (value,), dtype)


__all__ = ["copies", "narrow_kernel", "rounded_type", "stored_types"]
