"""Names by position: kernels that do the same work become equal, so that they are compiled once and run as one."""

from __future__ import annotations

from dataclasses import replace

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
)


def canonical_kernel(kernel: Kernel) -> Kernel:
    """The kernel with loop variables, values and private arrays renamed in order of appearance."""
    return replace(kernel, body=_Names(kernel).block(kernel.body))


class _Names:
    def __init__(self, kernel: Kernel) -> None:
        kept = [*kernel.sizes, *(buffer.name for buffer in kernel.buffers)]
        self.new: dict[str, str] = {name: name for name in kept}
        self.count: dict[str, int] = {}

    def define(self, name: str, prefix: str) -> str:
        number = self.count.get(prefix, 0)
        self.count[prefix] = number + 1
        self.new[name] = f"{prefix}{number}"
        return self.new[name]

    def block(self, statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(self.statement(statement) for statement in statements)

    def var(self, var: Var) -> Var:
        return Var(self.new[var.name], var.dtype)

    def statement(self, statement: Stmt) -> Stmt:
        match statement:
            case For(var=var, start=start, stop=stop, kind=kind, body=body):
                first, last = self.expr(start), self.expr(stop)
                return For(self.define(var, "i"), first, last, kind, self.block(body))
            case Let(var=var, value=value):
                new = self.expr(value)
                return Let(Var(self.define(var.name, "v"), var.dtype), new)
            case Declare(var=var, initial=initial):
                new = self.expr(initial)
                return Declare(Var(self.define(var.name, "t"), var.dtype), new)
            case Assign(var=var, value=value):
                return Assign(self.var(var), self.expr(value))
            case Accumulate(var=var, fn=fn, value=value):
                return Accumulate(self.var(var), fn, self.expr(value))
            case Local(name=name, dtype=dtype, size=size):
                return Local(self.define(name, "a"), dtype, size)
            case Store(buffer=buffer, index=index, value=value):
                return Store(self.new[buffer], self.expr(index), self.expr(value))
            case If(condition=condition, body=body):
                return If(self.expr(condition), self.block(body))
            case Fail(condition=condition, check=check, detail=detail):
                return Fail(self.expr(condition), self.expr(check), self.expr(detail))
            case Barrier() | Combine() | Pack():  # only after mapping to a GPU
                return statement

    def expr(self, expression: Expr) -> Expr:
        match expression:
            case Const():
                return expression
            case Var():
                return self.var(expression)
            case Load(buffer=buffer, index=index, dtype=dtype):
                return Load(self.new[buffer], self.expr(index), dtype)
            case Apply(fn=fn, args=args, dtype=dtype):
                return Apply(fn, tuple(self.expr(arg) for arg in args), dtype)
