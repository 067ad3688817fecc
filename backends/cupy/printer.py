"""Mapped kernels as CUDA C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
    Pack,
    Stmt,
    Store,
    Var,
    expressions,
    subexpressions,
    walk,
)
from graphc.loops.printer import ATOM, Form, Printer, call, infix, prefix

if TYPE_CHECKING:
    from graphc.backends.cupy.attention import Variant

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
_NATURAL = {"floordiv": infix("/", _MUL), "mod": infix("%", _MUL)}
_BITS = {
    "and": _bitwise("&", _BIT_AND),
    "or": _bitwise("|", _BIT_OR),
    "xor": _bitwise("^", _BIT_XOR),
    "not": prefix("~", _UNARY),
    "shr": _bitwise(">>", _SHIFT),
    "pow": call("power", 2),
    "fmod": call("truncated_remainder", 2),
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
    **{fn: fn for fn in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "erf", "erfc")},
    **{fn: fn for fn in ("sin", "cos", "tan", "asin", "acos", "atan", "floor", "ceil", "rint", "trunc")},
    "ndtr": "normcdf",
    **{fn: fn for fn in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    "abs": "fabs",
}
_MATH_OF_TWO = {"pow": "pow", "atan2": "atan2", "fmod": "fmod"}
_DOUBLE = {
    **_ARITHMETIC,
    "div": infix("/", _MUL),
    **{fn: call(name, 1) for fn, name in _MATH.items()},
    **{fn: call(name, 2) for fn, name in _MATH_OF_TWO.items()},
}
_FLOAT = {
    **_DOUBLE,
    **{fn: call(f"{name}f", 1) for fn, name in _MATH.items()},
    **{fn: call(f"{name}f", 2) for fn, name in _MATH_OF_TWO.items()},
}
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
PARAMETER_BYTES = 4096
POST_RESULTS = "post_results"
"""The function of the header that hands a step's results to the host."""
THIN_PRODUCT, SHORT_PRODUCT = "thin_product", "short_product"
"""The functions for products of small matrices."""
UNROLLED = 16
"""Loops of at most so many iterations are unrolled."""
AT_ONCE = 8
"""Iterations of a reduction whose loads are under way at the same time."""
_ZERO, _ONE = Const(0, DType.int64), Const(1, DType.int64)

_KEYWORDS = """
alignas alignof asm auto bool break case catch char class const constexpr const_cast continue decltype default delete
do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
namespace new noexcept nullptr operator private protected public register reinterpret_cast restrict return short
signed sizeof static static_assert static_cast struct switch template this throw true try typedef typeid typename
union unsigned using virtual void volatile wchar_t while and or not xor bitand bitor compl and_eq or_eq xor_eq not_eq
threadIdx blockIdx blockDim gridDim warpSize INFINITY NAN status main
from_float16 from_bfloat16 to_float16 to_bfloat16
absolute combine floor_divide from_lane is_finite is_nan maximum minimum modulo power reciprocal record_failure
rotate_left shift_left sigmoid sign_of softplus threefry truncated_remainder
wrapping_add wrapping_sub wrapping_mul wrapping_neg
Add Mul Min Max And Or Packed WRAPPING ORDERED fmod fmodf atan2 atan2f copysign copysignf exp log pow powf
table set halted first_check
"""


def header() -> str:
    """The device functions that printed kernels use."""
    return "\n".join(file_text(name) for name in ("instructions.cuh", "header.cuh"))


def file_text(name: str) -> str:
    """A file of CUDA C that lies beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Entry:
    """In which form a kernel is launched.

    Attributes:
        table: for several sets of arguments at once, which come as one structure.
        guarded: it does nothing once a check has failed.
    """

    table: bool = False
    guarded: bool = False


def products() -> str:
    """The functions :data:`THIN_PRODUCT` and :data:`SHORT_PRODUCT`."""
    return file_text("products.cuh")


def module_source(
    kernels: Sequence[Kernel | tuple[Kernel, Entry]], small_products: bool = False, attention: Sequence[Variant] = ()
) -> str:
    """One translation unit: the header, then each kernel, which must be mapped to a GPU and named differently."""
    entries = [(kernel, Entry()) if isinstance(kernel, Kernel) else kernel for kernel in kernels]
    shared = [header(), products()] if small_products else [header()]
    if attention:
        shared += [file_text("tiles.cuh"), file_text("attention.cuh"), *(variant.source for variant in attention)]
    return "\n".join([*shared, *(kernel_source(kernel, entry) for kernel, entry in entries)])


def kernel_source(kernel: Kernel, entry: Entry = Entry()) -> str:
    """A mapped kernel as a CUDA C function, ``extern "C"``, named :func:`function_name`.

    Its arguments are the pointers of the buffers, the sizes as ``long long``, the status cell and the number of the
    first check if it has checks, the status cell if it is guarded. A table holds for each set the number of blocks up
    to its end, then the sets. It must be launched with exactly ``kernel.threads`` threads in each of as many blocks as
    its outermost loop runs, for all sets together.

    Raises:
        BackendError: the kernel is not mapped to a GPU.
    """
    if not kernel.threads:
        raise BackendError(f"kernel {kernel.name} is not mapped to a GPU", remedy="map it with map_to_gpu first")
    printer = _CudaPrinter(kernel, entry)
    printer.kernel()
    return printer.text()


def function_name(kernel: Kernel, entry: Entry = Entry()) -> str:
    """The name of the printed function. No library has a function of such a name, as it may have ``round``."""
    return f"{kernel.name}{'_guarded' * entry.guarded}_{'table' if entry.table else 'kernel'}"


def table_capacity(kernel: Kernel) -> int:
    """How many sets of arguments fit a table: the arguments of a launch take at most 4 KB."""
    words = 1 + len(kernel.buffers) + len(kernel.sizes) + 3
    return max(1, min(64, PARAMETER_BYTES // (8 * words)))


class _CudaPrinter(Printer):
    reserved = frozenset(_KEYWORDS.split()) | {f"{name}{f}" for name in _MATH.values() for f in ("", "f")}

    def __init__(self, source: Kernel, entry: Entry) -> None:
        super().__init__()
        self.source = source
        self.entry = entry
        self.function = self.name(function_name(source, entry))
        # scalars made of sizes, loop variables and small literals alone: arithmetic on them never overflows
        self.indices = set(source.sizes)
        self.in_bounds: set[int] = set()
        # those of them that are never negative, so that C's division rounds as ours
        self.natural = set(source.sizes)
        self.packed = {s.local for s in walk(source.body) if isinstance(s, Pack)}

    def kernel(self) -> None:
        kernel = self.source
        outer = kernel.body[0]
        assert isinstance(outer, For)  # verified when it was mapped
        declared = [(self._pointer(buffer), self.name(buffer.name)) for buffer in kernel.buffers]
        declared += [("long long ", self.name(size)) for size in kernel.sizes]
        if kernel.has_checks:
            declared += [("long long* __restrict__ ", "status"), ("long long ", "first_check")]
        if self.entry.guarded:
            declared.append(("const long long* __restrict__ ", "halted"))
        self.line(f"// {kernel.threads} threads in each of {self.expression(outer.stop)} blocks")
        if self.entry.table:
            self._table_head(declared)
        else:
            self._head([f"{kind}{name}" for kind, name in declared])
        with self.indented():
            if self.entry.guarded:
                self.line("if (*halted) return;")
            self.indices.add(outer.var)
            self.natural.add(outer.var)
            if _reads(outer.body, outer.var):
                first = " - (set ? table.ends[set - 1] : 0)" if self.entry.table else ""
                self.line(f"const long long {self.name(outer.var)} = blockIdx.x{first};")
            self._statements(outer.body)
        self.line("}")

    def _head(self, arguments: list[str]) -> None:
        self.line(f'extern "C" __global__ void __launch_bounds__({self.source.threads})')
        signature = f"{self.function}({', '.join(arguments)}) {{"
        if len(signature) > _WIDTH:
            one_a_line = f",\n{self.indent}".join(arguments)
            signature = f"{self.function}(\n{self.indent}{one_a_line}\n) {{"
        self.line(signature)

    def _table_head(self, declared: list[tuple[str, str]]) -> None:
        """The structure of the arguments; a block finds its set by where the blocks of each set end."""
        table, capacity = f"{self.function}_arguments", table_capacity(self.source)
        self.line(f"struct {table} {{")
        with self.indented():
            self.line(f"long long ends[{capacity}];")
            self.line("struct {")
            with self.indented():
                for kind, name in declared:
                    self.line(f"{kind.replace(' __restrict__', '')}{name};")
            self.line(f"}} sets[{capacity}];")
        self.line("};")
        self._head([f"const __grid_constant__ {table} table"])
        with self.indented():
            self.line("int set = 0;")
            self.line("while (blockIdx.x >= table.ends[set]) set++;")
            for kind, name in declared:
                const = "" if "*" in kind else "const "
                self.line(f"{const}{kind}{name} = table.sets[set].{name};")

    def _pointer(self, buffer: Buffer) -> str:
        const = "const " if buffer.access is Access.READ else ""
        return f"{const}{TYPES[buffer.dtype]}* __restrict__ "

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
                if self._is_natural(value):
                    self.natural.add(var.name)
                self.line(f"const {TYPES[var.dtype]} {self.name(var.name)} = {self.expression(value)};")
            case Declare(var=var, initial=initial):
                self.line(f"{TYPES[var.dtype]} {self.name(var.name)} = {self.expression(initial)};")
            case Assign(var=var, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(value)};")
            case Accumulate(var=var, fn=fn, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(Apply(fn, (var, value), var.dtype))};")
            case Local(name=name, dtype=dtype, size=size) if name in self.packed:
                self.line(f"{_packed(dtype, size)} {self.name(name)};")
            case Local(name=name, dtype=dtype, size=size, shared=shared):
                place = "__shared__ __align__(16) " * shared
                self.line(f"{place}{TYPES[dtype]} {self.name(name)}[{size}];")
            case Pack():
                self._pack(statement)
            case Store(buffer=buffer, index=index, value=value):
                self.line(f"{self.name(buffer)}[{self._index(index)}] = {self.expression(value)};")
            case If(condition=condition, body=body):
                self._braces(f"if ({self.expression(condition)})", body)
            case Fail(condition=condition, check=check, detail=detail):
                number = f"first_check + {self._index(check, _ADD + 1)}"
                record = f"record_failure(status, {number}, {self.expression(detail)})"
                self.line(f"if ({self.expression(condition)}) {record};")
            case Barrier():
                self.line("__syncthreads();")
            case Combine(var=var, fn=fn):
                name = self.name(var.name)
                self.line(f"{name} = combine<{_COMBINE[fn]}, {self.source.threads}>({name});")

    def _loop(self, loop: For) -> None:
        self.indices.add(loop.var)
        if self._is_natural(loop.start):
            self.natural.add(loop.var)
        if loop.kind is LoopKind.THREAD:
            self._thread_loop(loop)
            return
        if isinstance(loop.start, Const) and isinstance(loop.stop, Const):
            if 1 < loop.stop.value - loop.start.value <= UNROLLED:
                self.line("#pragma unroll")
        elif _is_worth_unrolling(loop):
            self.line(f"#pragma unroll {AT_ONCE}")
        name, start, stop = self.name(loop.var), self._index(loop.start), self._index(loop.stop)
        self._braces(f"for (long long {name} = {start}; {name} < {stop}; {name}++)", loop.body)

    def _thread_loop(self, loop: For) -> None:
        name, threads = self.name(loop.var), self.source.threads
        if (loop.start, loop.stop) == (_ZERO, _ONE) and not _reads(loop.body, loop.var):
            self._braces("if (threadIdx.x == 0)", loop.body)
            return
        start = "threadIdx.x"
        if isinstance(loop.start, Const) and loop.start != _ZERO:
            start = f"{self.constant(loop.start, operand=False)[0]} + threadIdx.x"
        elif loop.start != _ZERO:
            start = f"{self._index(loop.start, _ADD)} + threadIdx.x"
        match loop.stop:
            case Apply(fn="min", args=(stop, Apply(fn="add", args=(first, Const(value=most))))) if (
                first == loop.start and most == threads
            ):
                self._once(name, start, self._index(stop), loop)
            case Const(value=stop) if loop.start == _ZERO and stop <= threads:
                self._once(name, start, None if stop == threads else f"{stop}", loop)
            case _:
                step = f"{name} < {self._index(loop.stop)}; {name} += {threads}"
                self._braces(f"for (long long {name} = {start}; {step})", loop.body)

    def _once(self, name: str, start: str, stop: str | None, loop: For) -> None:
        """A loop of which each thread runs one iteration at most; exactly one if there is no stop."""
        if stop is not None:
            self._braces(f"if (const long long {name} = {start}; {name} < {stop})", loop.body)
            return
        self.line("{")
        with self.indented():
            self.line(f"const long long {name} = {start};")
            self._statements(loop.body)
        self.line("}")

    def _pack(self, pack: Pack) -> None:
        local, array = self.name(pack.local), self.name(pack.array)
        const = "" if pack.stores else "const "
        place = f"*({const}{_packed(pack.dtype, pack.size)}*)({array} + {self._index(pack.index, _ADD + 1)})"
        self.line(f"{place} = {local};" if pack.stores else f"{local} = {place};")

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
        if fn in _NATURAL and dtype is DType.int64 and all(self._is_natural(argument) for argument in apply.args):
            if isinstance(apply.args[1], Const) and apply.args[1].value:
                return _NATURAL[fn]
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

    def _is_natural(self, expression: Expr) -> bool:
        """Is it made of what is never negative, in a way that never is?"""
        match expression:
            case Const(value=value, dtype=dtype):
                return dtype is DType.int64 and 0 <= value < 2**31
            case Var(name=name):
                return name in self.natural
            case Apply(fn="add" | "mul" | "floordiv" | "mod" | "min" | "max", args=args):
                return all(self._is_natural(argument) for argument in args)
            case _:
                return False

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


def _is_worth_unrolling(loop: For) -> bool:
    """Does a loop reduce, or look at data before it does something, so that it waits for memory each time?"""
    if any(isinstance(s, For) for s in loop.body):
        return False
    return any(isinstance(s, Accumulate | If) for s in loop.body)


def _packed(dtype: DType, size: int) -> str:
    return f"Packed<{TYPES[dtype]}, {size}>"


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
