"""A kernel as the source of one Python function that Numba compiles.

The function is ``kernel(args, lo, hi)``: ``args`` points to int64 words, the addresses of the buffers, then the
sizes, then (with checks) the address of the status cell and the number that the kernel's own check numbers are
added to. The parallel loop runs over ``range(lo, hi)``. The text depends on the kernel's structure only, so
that equal kernels are one file and are compiled once.
"""

from __future__ import annotations

import math
import textwrap
from keyword import kwlist, softkwlist

import numpy as np

from graphc.errors import BackendError
from graphc.ir.types import DType, Kind
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Const,
    Declare,
    Fail,
    For,
    If,
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
from graphc.loops.printer import ATOM, Form, Printer, call, compare, infix, prefix

# Python's precedences, from loose to tight
_NOT, _COMPARE, _BIT_OR, _BIT_XOR, _BIT_AND, _SHIFT, _SUM, _PRODUCT, _UNARY = range(1, 10)

FORMS = {
    "add": infix("+", _SUM),
    "sub": infix("-", _SUM),
    "mul": infix("*", _PRODUCT),
    "div": infix("/", _PRODUCT),
    "neg": prefix("-", _UNARY),
    "and": infix("&", _BIT_AND),
    "or": infix("|", _BIT_OR),
    "xor": infix("^", _BIT_XOR),
    "not": prefix("~", _UNARY),
    "shl": infix("<<", _SHIFT),
    "shr": infix(">>", _SHIFT),
    "eq": compare("==", _COMPARE),
    "ne": compare("!=", _COMPARE),
    "lt": compare("<", _COMPARE),
    "le": compare("<=", _COMPARE),
    "gt": compare(">", _COMPARE),
    "ge": compare(">=", _COMPARE),
}
LINE = 100
LOGICAL_NOT = Form("not {0}", _NOT, (_NOT,))
INTRINSICS = {
    "abs": "absolute",
    "sign": "sign",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "fmod": "truncated_remainder",
    "min": "minimum",
    "max": "maximum",
    "pow": "power",
    "select": "where",
    **{
        name: name
        for name in (
            "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sigmoid", "softplus",
            "erf", "erfc", "ndtr", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh",
            "asinh", "acosh", "atanh", "floor", "ceil", "rint", "trunc", "isnan", "isfinite", "threefry",
        )
    },
}  # fmt: skip
ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "and", "or", "xor", "not", "shl", "shr"})
ACCUMULATORS = {"add": "accumulate_add", "mul": "accumulate_mul", "min": "accumulate_min", "max": "accumulate_max"}


def kernel_source(kernel: Kernel) -> str:
    """The source text of a kernel.

    Raises:
        BackendError: the kernel has been mapped to a GPU: it has block or thread loops, or barriers.
    """
    return _KernelPrinter(kernel).source()


class _KernelPrinter(Printer):
    reserved = frozenset(
        {*kwlist, *softkwlist, "args", "lo", "hi", "kernel", "size", "fail", "status", "first_check", "inf", "nan"}
        | {"range", "boolean", *(dtype.value for dtype in DType), *INTRINSICS.values(), *ACCUMULATORS.values()}
        | {f"{dtype.value}_{kind}" for dtype in DType for kind in ("buffer", "local")}
        | {f"{way}_{dtype.value}" for dtype in DType if dtype.is_half for way in ("from", "to")}
        | {"uint16"}
    )

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self._imports: dict[str, set[str]] = {"math": set(), "numba": set(), "graphc.backends.numba.intrinsics": set()}
        self._kinds: dict[str, str] = {}  # name in the text -> what it holds, which Numba wants to be one type
        self._locals = 0

    def source(self) -> str:
        self.line("def kernel(args, lo, hi):")
        with self.indented():
            self._arguments()
            for statement in self.kernel.body:
                self._statement(statement, in_reduce=False)
        imports = [_import(module, sorted(names)) for module, names in self._imports.items() if names]
        return "\n".join([*imports, "", "", ""]) + self.text()

    def _arguments(self) -> None:
        kernel, used = self.kernel, _names_used(self.kernel)
        for number, buffer in enumerate(kernel.buffers):
            if buffer.name in used:
                name = self._define(buffer.name, f"{buffer.dtype.value} buffer")
                access = "" if buffer.access is Access.READ else f"  # {buffer.access.value}"
                self.line(f"{name} = {self._intrinsic(f'{buffer.dtype.value}_buffer')}(args, {number}){access}")
        number = len(kernel.buffers)
        for size in kernel.sizes:
            if size in used:
                self.line(f"{self._define(size, 'int64')} = {self._intrinsic('size')}(args, {number})")
            number += 1
        if kernel.has_checks:
            self.line(f"status = args[{number}]")
            self.line(f"first_check = args[{number + 1}]")

    def _intrinsic(self, name: str) -> str:
        self._imports["graphc.backends.numba.intrinsics"].add(name)
        return name

    def _type(self, dtype: DType) -> str:
        name = "boolean" if dtype is DType.bool else dtype.value
        self._imports["numba"].add(name)
        return name

    def _define(self, name: str, kind: str) -> str:
        """The identifier of a new variable; not one that held another type in an earlier scope."""
        text = self.name(name)
        while self._kinds.setdefault(text, kind) != kind:
            self._names[f"{name} before"] = self._names.pop(name)  # it stays taken
            text = self.name(name)
        return text

    def _block(self, statements: tuple[Stmt, ...], in_reduce: bool) -> None:
        with self.indented():
            if not statements:
                self.line("pass")
            for statement in statements:
                self._statement(statement, in_reduce)

    def _statement(self, statement: Stmt, in_reduce: bool) -> None:
        match statement:
            case For():
                self._loop(statement)
            case Let(var=var, value=value) | Declare(var=var, initial=value):
                text = self.expression(value)
                self.line(f"{self._define(var.name, var.dtype.value)} = {text}")
            case Assign(var=var, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(value)}")
            case Accumulate():
                self._accumulate(statement, in_reduce)
            case Local(name=name, dtype=dtype, size=size):
                text = self._define(name, f"{dtype.value} local {self._locals}")
                self.line(f"{text} = {self._intrinsic(f'{dtype.value}_local')}({size}, {self._locals})")
                self._locals += 1
            case Store(buffer=buffer, index=index, value=value):
                self.line(f"{self.name(buffer)}[{self.expression(index)}] = {self.expression(value)}")
            case If(condition=condition, body=body):
                self.line(f"if {self.expression(condition)}:")
                self._block(body, in_reduce)
            case Fail(condition=condition, check=check, detail=detail):
                number = self.expression(check, _SUM + 1)
                self.line(f"if {self.expression(condition)}:")
                with self.indented():
                    self.line(f"{self._intrinsic('fail')}(status, first_check + {number}, {self.expression(detail)})")
            case _:
                raise self._mapped(type(statement).__name__)

    def _mapped(self, what: str) -> BackendError:
        return BackendError(
            f"kernel {self.kernel.name} has a {what}, which belongs to a GPU",
            remedy="compile the kernel as it was before it was mapped to a GPU",
        )

    def _loop(self, loop: For) -> None:
        if loop.kind in (LoopKind.BLOCK, LoopKind.THREAD):
            raise self._mapped(f"{loop.kind.value} loop")
        if loop.kind is LoopKind.PARALLEL:
            bounds = "lo, hi"
        else:
            start, stop = self.expression(loop.start), self.expression(loop.stop)
            bounds = stop if start == "0" else f"{start}, {stop}"
        self.line(f"for {self._define(loop.var, 'int64')} in range({bounds}):")
        self._block(loop.body, loop.kind is LoopKind.REDUCE)

    def _accumulate(self, statement: Accumulate, in_reduce: bool) -> None:
        var, fn = statement.var, statement.fn
        name = self.name(var.name)
        if in_reduce and var.dtype.is_float:
            text = f"{self._intrinsic(ACCUMULATORS[fn])}({name}, {self.expression(statement.value)})"
        else:
            text = self.expression(Apply(fn, (var, statement.value), var.dtype))
        self.line(f"{name} = {text}")

    def form(self, apply: Apply) -> Form:
        fn, dtype = apply.fn, apply.dtype
        if fn == "cast":
            return self._cast(apply.args[0].dtype, dtype)
        if fn in INTRINSICS:
            return call(self._intrinsic(INTRINSICS[fn]), len(apply.args))
        if fn == "not" and dtype is DType.bool:
            return LOGICAL_NOT
        form = FORMS[fn]
        if fn in ARITHMETIC and dtype in (DType.int32, DType.uint32):
            # Numba computes with 64 bits; the result is cut off
            return Form(f"{self._type(dtype)}({form.template})", ATOM, form.operands)
        return form

    def _cast(self, source: DType, dtype: DType) -> Form:
        if source is dtype:
            return Form("{0}", _NOT, (_NOT,))
        if source.is_half or dtype.is_half:
            return call(self._intrinsic(f"from_{source.value}" if source.is_half else f"to_{dtype.value}"), 1)
        if dtype is DType.bool:
            zero, _ = self.constant(Const(0.0 if source.is_float else 0, source), False)
            return Form(f"{{0}} != {zero}", _COMPARE, (_COMPARE + 1,))
        if source.is_float and dtype.kind is Kind.UINT:
            # by way of int64, since a negative float converted to unsigned is undefined
            return Form(f"{self._type(dtype)}({self._type(DType.int64)}({{0}}))")
        return call(self._type(dtype), 1)

    def constant(self, constant: Const, operand: bool) -> tuple[str, int]:
        value, dtype = constant.value, constant.dtype
        if dtype is DType.bool:
            return str(bool(value)), ATOM
        if dtype is DType.int64:
            if value == -(1 << 63):
                return "-9223372036854775807 - 1", _SUM  # 1 << 63 is no int64
            return str(int(value)), ATOM if value >= 0 else _UNARY
        if dtype.is_half:
            self._imports["numba"].add("uint16")
            return f"uint16({np.array(value, dtype.numpy).view(np.uint16)})", ATOM
        if not dtype.is_float:
            return f"{self._type(dtype)}({int(value)})", ATOM
        if math.isfinite(value):
            return f"{self._type(dtype)}({_shortest(float(value), dtype)})", ATOM
        name = "nan" if math.isnan(value) else "inf"
        self._imports["math"].add(name)
        return f"{self._type(dtype)}({'-' if value < 0 else ''}{name})", ATOM


def _import(module: str, names: list[str]) -> str:
    """An import on one line, or on several where there are many names."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= LINE:
        return line
    return "\n".join(
        [
            f"from {module} import (",
            *textwrap.wrap(", ".join(names) + ",", LINE, initial_indent="    ", subsequent_indent="    "),
            ")",
        ]
    )


def _shortest(value: float, dtype: DType) -> str:
    """The fewest digits that give the same number once it is rounded to the type: 0.1, not 0.10000000149011612."""
    if dtype is DType.float32:
        short = str(np.float32(value))
        if np.float32(float(short)) == np.float32(value):
            return short
    return repr(value)


def _names_used(kernel: Kernel) -> set[str]:
    """Buffers and scalars that the text mentions; the extent is not among them."""
    names: set[str] = set()
    for statement in walk(kernel.body):
        if isinstance(statement, Store):
            names.add(statement.buffer)
        if isinstance(statement, For) and statement.kind is LoopKind.PARALLEL:
            continue
        for expression in expressions(statement):
            for part in subexpressions(expression):
                if isinstance(part, Var):
                    names.add(part.name)
                elif isinstance(part, Load):
                    names.add(part.buffer)
    return names
