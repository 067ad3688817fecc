"""Kernels as pseudo-code, for people and for golden files."""

from __future__ import annotations

from graphc.loops.kernel import (
    Accumulate,
    Apply,
    Assign,
    Barrier,
    Combine,
    Const,
    Declare,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Local,
    Pack,
    Stmt,
    Store,
)
from graphc.loops.printer import ATOM, Form, Printer, call, compare, infix, prefix

_OR, _AND, _COMPARE, _XOR, _SHIFT, _ADD, _MUL, _UNARY = range(10, 90, 10)

_FORMS = {
    "or": infix("or", _OR),
    "and": infix("and", _AND),
    "xor": infix("xor", _XOR),
    **{
        fn: compare(symbol, _COMPARE)
        for fn, symbol in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items()
    },
    "shl": infix("<<", _SHIFT),
    "shr": infix(">>", _SHIFT),
    "add": infix("+", _ADD),
    "sub": infix("-", _ADD),
    "mul": infix("*", _MUL),
    "div": infix("/", _MUL),
    "floordiv": infix("//", _MUL),
    "mod": infix("%", _MUL),
    "neg": prefix("-", _UNARY),
    "not": prefix("not ", _UNARY),
}


def kernel_text(kernel: Kernel) -> str:
    """A kernel as readable pseudo-code.

    One line a statement; types stand where a name is introduced. ``m max= v`` is an Accumulate, ``m := v``
    an Assign, ``y[i] = v`` a Store.
    """
    printer = _TextPrinter()
    printer.kernel(kernel)
    return printer.text()


class _TextPrinter(Printer):
    def kernel(self, kernel: Kernel) -> None:
        arguments = [f"{b.access.value} {self.name(b.name)}: {b.dtype.short}" for b in kernel.buffers]
        sizes = "".join(f", size {self.name(size)}" for size in kernel.sizes)
        notes = " with checks" if kernel.has_checks else ""
        notes += f" in blocks of {kernel.threads} threads" if kernel.threads else ""
        notes += f", {kernel.teams} side by side" if kernel.teams > 1 else ""
        self.line(f"kernel {kernel.name}({', '.join(arguments)}{sizes}){notes}")
        self._block(kernel.body)

    def form(self, apply: Apply) -> Form:
        if apply.fn == "cast":
            return call(apply.dtype.short, 1)
        return _FORMS.get(apply.fn) or call(apply.fn, len(apply.args))

    def constant(self, constant: Const, operand: bool) -> tuple[str, int]:
        value, dtype = constant.value, constant.dtype
        text = str(dtype.numpy.type(value)) if dtype.is_float else repr(value)  # 0.1 in float32 as 0.1
        return text, _UNARY if text.startswith("-") else ATOM

    def _block(self, statements: tuple[Stmt, ...]) -> None:
        with self.indented():
            for statement in statements:
                self._statement(statement)

    def _statement(self, statement: Stmt) -> None:
        match statement:
            case For(var=var, start=start, stop=stop, kind=kind, body=body):
                bounds = f"{self.expression(start)} .. {self.expression(stop)}"
                self.line(f"{kind.value} {self.name(var)} in {bounds}:")
                self._block(body)
            case Let(var=var, value=value):
                self.line(f"let {self.name(var.name)}: {var.dtype.short} = {self.expression(value)}")
            case Declare(var=var, initial=initial):
                self.line(f"var {self.name(var.name)}: {var.dtype.short} = {self.expression(initial)}")
            case Assign(var=var, value=value):
                self.line(f"{self.name(var.name)} := {self.expression(value)}")
            case Accumulate(var=var, fn=fn, value=value):
                self.line(f"{self.name(var.name)} {fn}= {self.expression(value)}")
            case Local(name=name, dtype=dtype, size=size, shared=shared):
                self.line(f"{'shared' if shared else 'local'} {self.name(name)}: {dtype.short}[{size}]")
            case Store(buffer=buffer, index=index, value=value):
                self.line(f"{self.name(buffer)}[{self.expression(index)}] = {self.expression(value)}")
            case If(condition=condition, body=body):
                self.line(f"if {self.expression(condition)}:")
                self._block(body)
            case Fail(condition=condition, check=check, detail=detail):
                record = f"{self.expression(check)}, {self.expression(detail)}"
                self.line(f"fail({record}) if {self.expression(condition)}")
            case Barrier():
                self.line("barrier")
            case Combine(var=var, fn=fn):
                self.line(f"combine {self.name(var.name)} by {fn}")
            case Pack(local=local, array=array, index=index, size=size, stores=stores):
                neighbours = f"{self.name(array)}[{self.expression(index)} ..+ {size}]"
                pair = (neighbours, self.name(local)) if stores else (self.name(local), neighbours)
                self.line(" = ".join(pair))
