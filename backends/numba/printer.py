"""A kernel as the source of one Python function that Numba compiles.

The function is ``kernel(args, lo, hi)``: ``args`` points to int64 words, the addresses of the buffers, then the
sizes, then (with checks) the address of the status cell and the number that the kernel's own check numbers are
added to. The parallel loop runs over ``range(lo, hi)``. The text depends on the kernel's structure only, so
that equal kernels are one file and are compiled once.
"""

from __future__ import annotations

import keyword
import math

from graphc.ir.types import DType, Kind
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Barrier,
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
    LoopKind,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)

# Python's precedences, from loose to tight
COMPARE, BIT_OR, BIT_XOR, BIT_AND, SHIFT, SUM, PRODUCT, UNARY, ATOM = range(9)
NEGATION = -1  # `not x`, looser than a comparison

INFIX = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "and": ("&", BIT_AND),
    "or": ("|", BIT_OR),
    "xor": ("^", BIT_XOR),
    "shl": ("<<", SHIFT),
    "shr": (">>", SHIFT),
}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
CALLS = {
    "abs": "absolute",
    "sign": "sign",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "min": "minimum",
    "max": "maximum",
    "pow": "power",
    "select": "where",
    **{
        name: name
        for name in (
            "exp", "log", "expm1", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "softplus", "erf", "sin", "cos",
            "floor", "ceil", "rint", "isnan", "isfinite", "threefry",
        )
    },
}  # fmt: skip
ACCUMULATE = {
    "add": "accumulate_add",
    "mul": "accumulate_mul",
    "min": "accumulate_min",
    "max": "accumulate_max",
}
WRAPPING = frozenset({"add", "sub", "mul", "neg"})
"""Functions of integers whose result modulo 2**32 depends on their arguments modulo 2**32 only."""

TYPE_NAMES = frozenset(dtype.value for dtype in DType)
RESERVED = (
    TYPE_NAMES
    | frozenset(CALLS.values())
    | frozenset(ACCUMULATE.values())
    | frozenset(f"{name}_{kind}" for name in TYPE_NAMES for kind in ("buffer", "local"))
    | frozenset({"args", "lo", "hi", "kernel", "size", "fail", "status", "first_check", "inf", "nan", "range"})
)


def kernel_source(kernel: Kernel) -> str:
    """The source text of a kernel.

    Raises:
        ValueError: the kernel has been mapped to a GPU: it has block or thread loops, or barriers.
    """
    return _Printer(kernel).source()


def dump(kernel: Kernel, source: str) -> str:
    """The source with a heading for people who read it."""
    return f"# {kernel.name}\n{source}"


class _Printer:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.numba_names: set[str] = set()
        self.intrinsics: set[str] = set()
        self.math_names: set[str] = set()
        self.scope: dict[str, str] = {}  # name in the kernel -> name in the text
        self.taken: dict[str, str] = {}  # name in the text -> its type
        self.locals = 0

    def source(self) -> str:
        kernel = self.kernel
        used = {
            part.name if isinstance(part, Var) else part.buffer
            for statement in walk(kernel.body)
            for expression in expressions(statement)
            for part in subexpressions(expression)
            if isinstance(part, Var | Load)
        } | {statement.buffer for statement in walk(kernel.body) if isinstance(statement, Store)}
        for number, buffer in enumerate(kernel.buffers):
            if buffer.name in used:
                name = self._declare(buffer.name, f"{buffer.dtype.value} buffer")
                access = "" if buffer.access is Access.READ else f"  # {buffer.access.value}"
                self._emit(1, f"{name} = {self._intrinsic(f'{buffer.dtype.value}_buffer')}(args, {number}){access}")
        first = len(kernel.buffers)
        for number, size in enumerate(kernel.sizes, first):
            if size in used:
                name = self._declare(size, "int64")
                self._emit(1, f"{name} = {self._intrinsic('size')}(args, {number})")
        if kernel.has_checks:
            status = first + len(kernel.sizes)
            self._emit(1, f"status = args[{status}]")
            self._emit(1, f"first_check = args[{status + 1}]")
        self._block(kernel.body, 1, in_reduce=False)
        imports = [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in (
                ("math", self.math_names),
                ("numba", self.numba_names),
                ("graphc.backends.numba.intrinsics", self.intrinsics),
            )
            if names
        ]
        return "\n".join([*imports, "", "", "def kernel(args, lo, hi):", *self.lines]) + "\n"

    def _emit(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _intrinsic(self, name: str) -> str:
        self.intrinsics.add(name)
        return name

    def _type(self, dtype: DType) -> str:
        name = "boolean" if dtype is DType.bool else dtype.value
        self.numba_names.add(name)
        return name

    def _declare(self, name: str, kind: str) -> str:
        """A name for a new variable: not one in scope, and not one that had another type elsewhere."""
        base = name if name.isidentifier() and not keyword.iskeyword(name) else "v"
        if base in RESERVED:
            base += "_"
        text, number = base, 1
        while text in self.scope.values() or self.taken.get(text, kind) != kind:
            number += 1
            text = f"{base}_{number}"
        self.taken[text] = kind
        self.scope[name] = text
        return text

    def _block(self, statements: tuple[Stmt, ...], depth: int, in_reduce: bool) -> None:
        outer = dict(self.scope)
        if not statements:
            self._emit(depth, "pass")
        for statement in statements:
            self._statement(statement, depth, in_reduce)
        self.scope = outer

    def _statement(self, statement: Stmt, depth: int, in_reduce: bool) -> None:
        match statement:
            case For(var=var, kind=kind, body=body):
                if kind in (LoopKind.BLOCK, LoopKind.THREAD):
                    raise ValueError(f"a {kind.value} loop belongs to a GPU kernel, not to {self.kernel.name}")
                bounds = "lo, hi"
                if kind is not LoopKind.PARALLEL:
                    start, stop = self._text(statement.start), self._text(statement.stop)
                    bounds = stop if start == "0" else f"{start}, {stop}"
                outer = dict(self.scope)
                name = self._declare(var, "int64")
                self._emit(depth, f"for {name} in range({bounds}):")
                self._block(body, depth + 1, kind is LoopKind.REDUCE)
                self.scope = outer
            case Let(var=var, value=value) | Declare(var=var, initial=value):
                text = self._text(value)
                self._emit(depth, f"{self._declare(var.name, var.dtype.value)} = {text}")
            case Assign(var=var, value=value):
                self._emit(depth, f"{self.scope[var.name]} = {self._text(value)}")
            case Accumulate():
                self._accumulate(statement, depth, in_reduce)
            case Local(name=name, dtype=dtype, size=size):
                text = self._declare(name, f"{dtype.value} local")
                self._emit(depth, f"{text} = {self._intrinsic(f'{dtype.value}_local')}({size}, {self.locals})")
                self.locals += 1
            case Store(buffer=buffer, index=index, value=value):
                self._emit(depth, f"{self.scope[buffer]}[{self._text(index)}] = {self._text(value)}")
            case If(condition=condition, body=body):
                self._emit(depth, f"if {self._text(condition)}:")
                self._block(body, depth + 1, in_reduce)
            case Fail(condition=condition, check=check, detail=detail):
                self._emit(depth, f"if {self._text(condition)}:")
                number = self._text(check, SUM + 1)
                self._emit(depth + 1, f"{self._intrinsic('fail')}(status, first_check + {number}, {self._text(detail)})")
            case Barrier():
                raise ValueError(f"a barrier belongs to a GPU kernel, not to {self.kernel.name}")

    def _accumulate(self, statement: Accumulate, depth: int, in_reduce: bool) -> None:
        var, fn = statement.var, statement.fn
        name = self.scope[var.name]
        if fn in ("min", "max") or (in_reduce and var.dtype.is_float):
            function = ACCUMULATE[fn] if in_reduce else CALLS[fn]
            value = f"{self._intrinsic(function)}({name}, {self._text(statement.value)})"
        else:
            value = self._text(Apply(fn, (var, statement.value), var.dtype))
        self._emit(depth, f"{name} = {value}")

    def _text(self, expression: Expr, needs: int = NEGATION, wraps: bool = False) -> str:
        """The expression, in parentheses if it binds looser than ``needs``.

        With ``wraps`` the caller takes the result modulo 2**32 anyway.
        """
        text, precedence = self._print(expression, wraps)
        return text if precedence >= needs else f"({text})"

    def _print(self, expression: Expr, wraps: bool) -> tuple[str, int]:
        match expression:
            case Const(value=value, dtype=dtype):
                return self._literal(value, dtype)
            case Var(name=name):
                return self.scope[name], ATOM
            case Load(buffer=buffer, index=index):
                return f"{self.scope[buffer]}[{self._text(index)}]", ATOM
            case Apply(fn="cast", args=(argument,), dtype=dtype):
                return self._cast(argument, dtype)
            case Apply():
                return self._apply(expression, wraps)

    def _literal(self, value: bool | int | float, dtype: DType) -> tuple[str, int]:
        if dtype is DType.bool:
            return str(bool(value)), ATOM
        if dtype is DType.int64:
            # the literal of the lowest int64 would be a negated uint64
            if int(value) == -(1 << 63):
                return "-9223372036854775807 - 1", SUM
            return str(int(value)), ATOM if value >= 0 else UNARY
        if dtype.is_float:
            number = float(value)
            if math.isfinite(number):
                text = repr(number)
            else:
                text = "nan" if math.isnan(number) else ("inf" if number > 0 else "-inf")
                self.math_names.add(text.lstrip("-"))
            return f"{self._type(dtype)}({text})", ATOM
        return f"{self._type(dtype)}({int(value)})", ATOM

    def _cast(self, argument: Expr, dtype: DType) -> tuple[str, int]:
        source = argument.dtype
        if source is dtype:
            return self._print(argument, False)
        if dtype is DType.bool:
            zero, _ = self._literal(0, source)
            return f"{self._text(argument, COMPARE + 1)} != {zero}", COMPARE
        text = self._text(argument)
        if source.is_float and dtype.kind is Kind.UINT:
            text = f"{self._type(DType.int64)}({text})"  # a negative float would be undefined
        return f"{self._type(dtype)}({text})", ATOM

    def _apply(self, expression: Apply, wraps: bool) -> tuple[str, int]:
        fn, args, dtype = expression.fn, expression.args, expression.dtype
        if fn in COMPARISONS:
            left, right = (self._text(argument, COMPARE + 1) for argument in args)
            return f"{left} {COMPARISONS[fn]} {right}", COMPARE
        if fn == "not" and dtype is DType.bool:
            return f"not {self._text(args[0], NEGATION)}", NEGATION
        # Numba computes with 64 bits: a 32-bit result has to be cut off, the arguments of + - * need not be
        narrow = dtype in (DType.int32, DType.uint32)
        inner = narrow and fn in WRAPPING
        if fn in ("neg", "not"):
            operator = "-" if fn == "neg" else "~"
            text, precedence = f"{operator}{self._text(args[0], UNARY, inner)}", UNARY
        elif fn in INFIX:
            operator, precedence = INFIX[fn]
            left = self._text(args[0], precedence, inner)
            right = self._text(args[1], precedence + 1, inner)
            text = f"{left} {operator} {right}"
        else:
            values = ", ".join(self._text(argument) for argument in args)
            return f"{self._intrinsic(CALLS[fn])}({values})", ATOM
        if narrow and not (wraps and fn in WRAPPING):
            return f"{self._type(dtype)}({text})", ATOM
        return text, precedence
