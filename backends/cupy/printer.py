"""Mapped kernels as CUDA C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphc.errors import BackendError
from graphc.ir.types import DType, Kind
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Barrier,
    Buffer,
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
    LoopKind,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)
from graphc.loops.printer import ATOM, Form, Printer, call, infix, prefix

_CHOICE, _OR, _AND, _BIT_OR, _BIT_XOR, _BIT_AND, _EQUAL, _ORDER, _SHIFT, _ADD, _MUL, _UNARY = range(1, 13)

TYPES = {
    DType.bool: "bool",
    DType.uint32: "unsigned int",
    DType.int32: "int",
    DType.int64: "long long",
    DType.float16: "unsigned short",  # the bits: nothing is computed in these two
    DType.bfloat16: "unsigned short",
    DType.float32: "float",
    DType.float64: "double",
}


# C's precedences of the next ones surprise people: what might be misread stands in parentheses
def _comparison(symbol: str, precedence: int) -> Form:
    return Form(f"{{0}} {symbol} {{1}}", precedence, (_ADD, _ADD))


def _bitwise(symbol: str, precedence: int) -> Form:
    return Form(f"{{0}} {symbol} {{1}}", precedence, (_UNARY, _UNARY))


_ANY = {
    "eq": _comparison("==", _EQUAL),
    "ne": _comparison("!=", _EQUAL),
    "lt": _comparison("<", _ORDER),
    "le": _comparison("<=", _ORDER),
    "gt": _comparison(">", _ORDER),
    "ge": _comparison(">=", _ORDER),
    "select": Form("{0} ? {1} : {2}", _CHOICE, (_CHOICE + 1,) * 3),
    "min": call("minimum", 2),
    "max": call("maximum", 2),
    "floordiv": call("floor_divide", 2),
    "mod": call("modulo", 2),
    "sign": call("sign_of", 1),
    "isnan": call("is_nan", 1),
    "isfinite": call("is_finite", 1),
    "sigmoid": call("sigmoid", 1),
    "softplus": call("softplus", 1),
    "threefry": call("threefry", 4),
}
_ARITHMETIC = {
    "add": infix("+", _ADD),
    "sub": infix("-", _ADD),
    "mul": infix("*", _MUL),
    "neg": prefix("-", _UNARY),
}
_BITS = {
    "and": _bitwise("&", _BIT_AND),
    "or": _bitwise("|", _BIT_OR),
    "xor": _bitwise("^", _BIT_XOR),
    "not": prefix("~", _UNARY),
    "shr": _bitwise(">>", _SHIFT),
    "pow": call("power", 2),
}
_BOOL = {
    "and": infix("&&", _AND),
    "or": Form("{0} || {1}", _OR, (_AND + 1, _AND + 1)),
    "xor": _comparison("!=", _EQUAL),
    "not": prefix("!", _UNARY),
}
_UNSIGNED = {**_ARITHMETIC, **_BITS, "shl": _bitwise("<<", _SHIFT), "abs": Form("{0}", 0)}
_SIGNED = {
    **_BITS,
    "add": call("wrapping_add", 2),
    "sub": call("wrapping_sub", 2),
    "mul": call("wrapping_mul", 2),
    "neg": call("wrapping_neg", 1),
    "abs": call("absolute", 1),
    "shl": call("shift_left", 2),
}
_MATH = {
    **{fn: fn for fn in ("exp", "log", "expm1", "log1p", "sqrt", "rsqrt", "tanh", "erf", "sin", "cos")},
    **{"floor": "floor", "ceil": "ceil", "rint": "rint", "abs": "fabs"},
}
_DOUBLE = {
    **_ARITHMETIC,
    "div": infix("/", _MUL),
    **{fn: call(name, 1) for fn, name in _MATH.items()},
    "pow": call("pow", 2),
}
_FLOAT = {**_DOUBLE, **{fn: call(f"{name}f", 1) for fn, name in _MATH.items()}, "pow": call("powf", 2)}
_BY_TYPE = {
    DType.bool: _BOOL,
    DType.uint32: _UNSIGNED,
    DType.int32: _SIGNED,
    DType.int64: _SIGNED,
    DType.float32: _FLOAT,
    DType.float64: _DOUBLE,
}
_TO_BOOL = Form("{0} != 0", _EQUAL, (_EQUAL + 1,))
_COMBINE = {"add": "Add", "mul": "Mul", "min": "Min", "max": "Max", "and": "And", "or": "Or"}

_WIDTH = 110
_ZERO, _ONE = Const(0, DType.int64), Const(1, DType.int64)

_KEYWORDS = """
alignas alignof asm auto bool break case catch char class const constexpr const_cast continue decltype default delete
do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
namespace new noexcept nullptr operator private protected public register reinterpret_cast restrict return short
signed sizeof static static_assert static_cast struct switch template this throw true try typedef typeid typename
union unsigned using virtual void volatile wchar_t while and or not xor bitand bitor compl and_eq or_eq xor_eq not_eq
threadIdx blockIdx blockDim gridDim warpSize INFINITY NAN status main
from_float16 from_bfloat16 to_float16 to_bfloat16
absolute combine floor_divide from_lane is_finite is_nan maximum minimum modulo power record_failure rotate_left
shift_left sigmoid sign_of softplus threefry wrapping_add wrapping_sub wrapping_mul wrapping_neg
Add Mul Min Max And Or WRAPPING ORDERED fmod fmodf copysign copysignf exp log pow powf
"""


def header() -> str:
    """The device functions that printed kernels use."""
    return (Path(__file__).parent / "header.cuh").read_text(encoding="utf-8")


def module_source(kernels: Sequence[Kernel]) -> str:
    """One translation unit: the header, then each kernel, which must be mapped to a GPU and named differently."""
    return "\n".join([header(), *(kernel_source(kernel) for kernel in kernels)])


def kernel_source(kernel: Kernel) -> str:
    """A mapped kernel as a CUDA C function, ``extern "C"``, named :func:`function_name`.

    Its arguments are the pointers of the buffers, the sizes as ``long long``, and the status cell if it has checks;
    it must be launched with exactly ``kernel.threads`` threads in each of as many blocks as its outermost loop runs.

    Raises:
        BackendError: the kernel is not mapped to a GPU.
    """
    if not kernel.threads:
        raise BackendError(f"kernel {kernel.name} is not mapped to a GPU", remedy="map it with map_to_gpu first")
    printer = _CudaPrinter(kernel)
    printer.kernel()
    return printer.text()


def function_name(kernel: Kernel) -> str:
    """The name of the printed function. No library has a function of such a name, as it may have ``round``."""
    return f"{kernel.name}_kernel"


class _CudaPrinter(Printer):
    reserved = frozenset(_KEYWORDS.split()) | {f"{name}{f}" for name in _MATH.values() for f in ("", "f")}

    def __init__(self, source: Kernel) -> None:
        super().__init__()
        self.source = source
        self.function = self.name(function_name(source))
        # scalars made of sizes, loop variables and small literals alone: arithmetic on them never overflows
        self.indices = set(source.sizes)
        self.in_bounds: set[int] = set()

    def kernel(self) -> None:
        kernel = self.source
        outer = kernel.body[0]
        assert isinstance(outer, For)  # verified when it was mapped
        arguments = [self._argument(buffer) for buffer in kernel.buffers]
        arguments += [f"long long {self.name(size)}" for size in kernel.sizes]
        arguments += ["long long* __restrict__ status"] * kernel.has_checks
        self.line(f"// {kernel.threads} threads in each of {self.expression(outer.stop)} blocks")
        self.line(f'extern "C" __global__ void __launch_bounds__({kernel.threads})')
        signature = f"{self.function}({', '.join(arguments)}) {{"
        if len(signature) > _WIDTH:
            one_a_line = f",\n{self.indent}".join(arguments)
            signature = f"{self.function}(\n{self.indent}{one_a_line}\n) {{"
        self.line(signature)
        with self.indented():
            self.indices.add(outer.var)
            if _reads(outer.body, outer.var):
                self.line(f"const long long {self.name(outer.var)} = blockIdx.x;")
            self._statements(outer.body)
        self.line("}")

    def _argument(self, buffer: Buffer) -> str:
        const = "const " if buffer.access is Access.READ else ""
        return f"{const}{TYPES[buffer.dtype]}* __restrict__ {self.name(buffer.name)}"

    def _statements(self, statements: tuple[Stmt, ...]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: Stmt) -> None:
        match statement:
            case For():
                self._loop(statement)
            case Let(var=var, value=value):
                if self._is_index(value):
                    self.indices.add(var.name)
                self.line(f"const {TYPES[var.dtype]} {self.name(var.name)} = {self.expression(value)};")
            case Declare(var=var, initial=initial):
                self.line(f"{TYPES[var.dtype]} {self.name(var.name)} = {self.expression(initial)};")
            case Assign(var=var, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(value)};")
            case Accumulate(var=var, fn=fn, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(Apply(fn, (var, value), var.dtype))};")
            case Local(name=name, dtype=dtype, size=size, shared=shared):
                self.line(f"{'__shared__ ' * shared}{TYPES[dtype]} {self.name(name)}[{size}];")
            case Store(buffer=buffer, index=index, value=value):
                self.line(f"{self.name(buffer)}[{self._index(index)}] = {self.expression(value)};")
            case If(condition=condition, body=body):
                self._braces(f"if ({self.expression(condition)})", body)
            case Fail(condition=condition, check=check, detail=detail):
                record = f"record_failure(status, {self.expression(check)}, {self.expression(detail)})"
                self.line(f"if ({self.expression(condition)}) {record};")
            case Barrier():
                self.line("__syncthreads();")
            case Combine(var=var, fn=fn):
                name = self.name(var.name)
                self.line(f"{name} = combine<{_COMBINE[fn]}, {self.source.threads}>({name});")

    def _loop(self, loop: For) -> None:
        self.indices.add(loop.var)
        name, start, stop = self.name(loop.var), self._index(loop.start), self._index(loop.stop)
        if loop.kind is not LoopKind.THREAD:
            self._braces(f"for (long long {name} = {start}; {name} < {stop}; {name}++)", loop.body)
        elif (loop.start, loop.stop) == (_ZERO, _ONE) and not _reads(loop.body, loop.var):
            self._braces("if (threadIdx.x == 0)", loop.body)
        else:
            if loop.start == _ZERO:
                start = "threadIdx.x"
            elif isinstance(loop.start, Const):
                start = f"{self.constant(loop.start, operand=False)[0]} + threadIdx.x"
            else:
                start = f"{self._index(loop.start, _ADD)} + threadIdx.x"
            self._braces(
                f"for (long long {name} = {start}; {name} < {stop}; {name} += {self.source.threads})", loop.body
            )

    def _braces(self, head: str, body: tuple[Stmt, ...]) -> None:
        self.line(f"{head} {{")
        with self.indented():
            self._statements(body)
        self.line("}")

    def load(self, load: Load) -> str:
        return f"{self.name(load.buffer)}[{self._index(load.index)}]"

    def form(self, apply: Apply) -> Form:
        fn, dtype = apply.fn, apply.dtype
        if fn == "cast" and (dtype.is_half or apply.args[0].dtype.is_half):
            source = apply.args[0].dtype
            return Form("{0}", 0) if source is dtype else call(_conversion(source, dtype), 1)
        if fn == "cast":
            return _TO_BOOL if dtype is DType.bool else prefix(f"({TYPES[dtype]})", _UNARY)
        if fn in _ARITHMETIC and (id(apply) in self.in_bounds or self._is_index(apply)):
            return _ARITHMETIC[fn]
        return _ANY.get(fn) or _BY_TYPE[dtype][fn]

    def constant(self, constant: Const, operand: bool) -> tuple[str, int]:
        value, dtype = constant.value, constant.dtype
        if dtype is DType.bool:
            return str(value).lower(), ATOM
        if dtype.is_half:
            return f"(unsigned short){np.array(value, dtype.numpy).view(np.uint16)}", _UNARY
        if dtype.is_float:
            return _float_text(float(value), dtype)
        if dtype.kind is Kind.UINT:
            return f"{value}u", ATOM
        is_int = np.iinfo(np.int32).min < value <= np.iinfo(np.int32).max
        suffix = "" if dtype is DType.int32 or (operand and is_int) else "LL"
        if value == np.iinfo(dtype.value).min:  # C has no literal for it
            return f"{value + 1}{suffix} - 1", _ADD
        return f"{value}{suffix}", _UNARY if value < 0 else ATOM

    def _index(self, expression: Expr, least: int = 0) -> str:
        """The text of an index or bound: in bounds, so that its sums and products do not overflow."""
        self._mark_in_bounds(expression)
        return self.expression(expression, least)

    def _mark_in_bounds(self, expression: Expr) -> None:
        if isinstance(expression, Apply) and expression.fn in _ARITHMETIC:
            self.in_bounds.add(id(expression))
            for argument in expression.args:
                self._mark_in_bounds(argument)

    def _is_index(self, expression: Expr) -> bool:
        """Is it made of sizes, loop variables and small literals alone?"""
        match expression:
            case Const(value=value, dtype=dtype):
                return dtype is DType.int64 and abs(value) < 2**31
            case Var(name=name):
                return name in self.indices
            case Apply(fn="add" | "sub" | "mul" | "neg" | "floordiv" | "mod" | "min" | "max", args=args):
                return all(self._is_index(argument) for argument in args)
            case _:
                return False


def _conversion(source: DType, dtype: DType) -> str:
    return f"from_{source.value}" if source.is_half else f"to_{dtype.value}"


def _float_text(value: float, dtype: DType) -> tuple[str, int]:
    single = dtype is DType.float32
    value = float(dtype.numpy.type(value))
    sign = "-" if math.copysign(1.0, value) < 0 and not math.isnan(value) else ""
    if math.isnan(value) or math.isinf(value):
        word = "NAN" if math.isnan(value) else "INFINITY"
        return f"{sign}{word if single else f'(double){word}'}", ATOM if single and not sign else _UNARY
    text = f"{np.float32(value)!s}f" if single else repr(value)
    return text, _UNARY if sign else ATOM


def _reads(statements: tuple[Stmt, ...], name: str) -> bool:
    return any(
        isinstance(part, Var) and part.name == name
        for statement in walk(statements)
        for expression in expressions(statement)
        for part in subexpressions(expression)
    )
