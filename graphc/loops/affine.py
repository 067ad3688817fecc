"""What passes over kernels share: index arithmetic, new names, the parallel loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from graphc.ir.types import DType
from graphc.loops.kernel import (
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
    Pack,
    Stmt,
    Store,
    Var,
    subexpressions,
    walk,
)


def int64(value: int) -> Const:
    """A literal of an index."""
    return Const(value, DType.int64)


def index(fn: str, *args: Expr) -> Expr:
    """Arithmetic on indices; with literals alone, and with nothing to do, it is done at once.

    >>> index("add", int64(3), int64(4)).value
    7
    """
    match fn, args:
        case "add", (Const(value=a), Const(value=b)):
            return int64(int(a + b))
        case "mul", (Const(value=a), Const(value=b)):
            return int64(int(a * b))
        case "add" | "sub", (other, Const(value=0)):
            return other
        case "add", (Const(value=0), other):
            return other
        case "mul", (Const(value=1), other) | (other, Const(value=1)):
            return other
        case _:
            return Apply(fn, args, DType.int64)


def ceildiv(numerator: Expr, denominator: int) -> Expr:
    """Rounded up."""
    return index("floordiv", index("add", numerator, int64(denominator - 1)), int64(denominator))


def parallel_loop(kernel: Kernel) -> For:
    """The parallel loop, with what stands before it at the start of its body."""
    *leading, loop = kernel.body
    assert isinstance(loop, For)  # verified
    return replace(loop, body=(*leading, *loop.body))


def lets_of(loop: For) -> dict[str, Expr]:
    """Every Let in a loop."""
    return {s.var.name: s.value for s in walk(loop.body) if isinstance(s, Let)}


def coefficient(expression: Expr, var: str, lets: Mapping[str, Expr]) -> int | None:
    """The factor of a variable in an index; None where it is no plain number."""
    match expression:
        case Var(name=name):
            if name == var:
                return 1
            return coefficient(lets[name], var, lets) if name in lets else 0
        case Const():
            return 0
        case Apply(fn="add" | "sub" as fn, args=(a, b)):
            left, right = coefficient(a, var, lets), coefficient(b, var, lets)
            if left is None or right is None:
                return None
            return left + right if fn == "add" else left - right
        case Apply(fn="mul", args=(a, Const(value=factor)) | (Const(value=factor), a)):
            inner = coefficient(a, var, lets)
            return None if inner is None else inner * int(factor)
        case Apply(args=args):
            return 0 if all(coefficient(argument, var, lets) == 0 for argument in args) else None
        case Load():
            return None


def is_multiple(expression: Expr, of: int, lets: Mapping[str, Expr]) -> bool:
    """Is an index plainly a multiple of a number?"""
    match expression:
        case Const(value=value):
            return value % of == 0
        case Var(name=name):
            return name in lets and is_multiple(lets[name], of, lets)
        case Apply(fn="add" | "sub" | "min" | "max", args=(a, b)):
            return is_multiple(a, of, lets) and is_multiple(b, of, lets)
        case Apply(fn="mul", args=(a, b)):
            return is_multiple(a, of, lets) or is_multiple(b, of, lets)
        case _:
            return False


def is_of_sizes(expression: Expr, kernel: Kernel) -> bool:
    """Is it made of the kernel's sizes and literals?"""
    parts = list(subexpressions(expression))
    return all(p.name in kernel.sizes for p in parts if isinstance(p, Var)) and not any(
        isinstance(p, Load) for p in parts
    )


def put(expression: Expr, values: Mapping[str, Expr]) -> Expr:
    """The expression with variables replaced."""
    match expression:
        case Var(name=name):
            return values.get(name, expression)
        case Apply(fn=fn, args=args, dtype=dtype):
            changed = tuple(put(argument, values) for argument in args)
            return index(fn, *changed) if dtype is DType.int64 else replace(expression, args=changed)
        case Load():
            return replace(expression, index=put(expression.index, values))
        case Const():
            return expression


class Names:
    """New names beside those of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.taken = {buffer.name for buffer in kernel.buffers} | set(kernel.sizes)
        for statement in walk(kernel.body):
            self.taken |= defined(statement)

    def new(self, name: str) -> str:
        """This name, with a number if it is taken."""
        candidate, number = name, 1
        while candidate in self.taken:
            number += 1
            candidate = f"{name}_{number}"
        self.taken.add(candidate)
        return candidate


def defined(statement: Stmt) -> set[str]:
    """The names that a statement itself defines."""
    match statement:
        case For(var=name) | Local(name=name):
            return {name}
        case Let(var=var) | Declare(var=var):
            return {var.name}
        case _:
            return set()


def rewrite(statements: tuple[Stmt, ...], change: Mapping[str, Expr]) -> tuple[Stmt, ...]:
    """Statements with variables replaced in every expression."""
    result: list[Stmt] = []
    for statement in statements:
        match statement:
            case For():
                start, stop = put(statement.start, change), put(statement.stop, change)
                body = rewrite(statement.body, change)
                result.append(replace(statement, start=start, stop=stop, body=body))
            case If():
                condition = put(statement.condition, change)
                result.append(replace(statement, condition=condition, body=rewrite(statement.body, change)))
            case _:
                result.append(map_expressions(statement, lambda e: put(e, change)))
    return tuple(result)


def renamed(statements: tuple[Stmt, ...], names: Names) -> tuple[Stmt, ...]:
    """A second copy of statements, with Lets of its own."""
    change: dict[str, Expr] = {}
    result: list[Stmt] = []
    for statement in statements:
        (changed,) = rewrite((statement,), change)
        if isinstance(changed, Let):
            var = replace(changed.var, name=names.new(changed.var.name))
            change[changed.var.name] = var
            changed = replace(changed, var=var)
        result.append(changed)
    return tuple(result)


def map_expressions(statement: Stmt, change: Callable[[Expr], Expr]) -> Stmt:
    """A statement without a body, with its expressions changed."""
    match statement:
        case Let(value=value) | Assign(value=value) | Accumulate(value=value):
            return replace(statement, value=change(value))
        case Declare(initial=initial):
            return replace(statement, initial=change(initial))
        case Store():
            return replace(statement, index=change(statement.index), value=change(statement.value))
        case Fail():
            return replace(
                statement,
                condition=change(statement.condition),
                check=change(statement.check),
                detail=change(statement.detail),
            )
        case Pack():
            return replace(statement, index=change(statement.index))
        case For() | If() | Local() | Barrier() | Combine():
            return statement
