"""Mapped kernels as CUDA C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphc.backends.cupy.forms import (
    ADD,
    ANY,
    ARITHMETIC,
    BY_TYPE,
    COMBINE,
    KEYWORDS,
    MATH,
    NATURAL,
    TO_BOOL,
    TYPES,
    UNARY,
)
from graphc.errors import BackendError
from graphc.ir.types import DType, Kind
from graphc.loops.interp import evaluate_size
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
from graphc.loops.printer import ATOM, Form, Printer, call, prefix

if TYPE_CHECKING:
    from graphc.backends.cupy.attention import Variant
    from graphc.backends.cupy.convolution import Variant as Convolving

_WIDTH = 110
PARAMETER_BYTES = 4096
POST_RESULTS = "post_results"
"""The function of the header that hands a step's results to the host."""
THIN_PRODUCT, SHORT_PRODUCT = "thin_product", "short_product"
"""The functions for products of small matrices."""
STATIC_BYTES = 40 * 1024
"""Shared memory that a function declares itself; it has 48 KiB, the rest is for combining accumulators."""
UNROLLED = 16
"""Loops of at most so many iterations are unrolled."""
AT_ONCE = 8
"""Iterations of a reduction whose loads are under way at the same time."""
_ZERO, _ONE = Const(0, DType.int64), Const(1, DType.int64)


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
    kernels: Sequence[Kernel | tuple[Kernel, Entry]],
    small_products: bool = False,
    attention: Sequence[Variant] = (),
    convolution: Sequence[Convolving] = (),
) -> str:
    """One translation unit: the header, then each kernel, which must be mapped to a GPU and named differently."""
    entries = [(kernel, Entry()) if isinstance(kernel, Kernel) else kernel for kernel in kernels]
    shared = [header(), products()] if small_products else [header()]
    if attention or convolution:
        shared.append(file_text("tiles.cuh"))
    if attention:
        shared += [file_text("attention.cuh"), *(variant.source for variant in attention)]
    if convolution:
        shared += [file_text(name) for name in ("panels.cuh", "convolution.cuh", "depthwise.cuh")]
        shared += [variant.source for variant in convolution]
    return "\n".join([*shared, *(kernel_source(kernel, entry) for kernel, entry in entries)])


def kernel_source(kernel: Kernel, entry: Entry = Entry()) -> str:
    """A mapped kernel as a CUDA C function, ``extern "C"``, named :func:`function_name`.

    Its arguments are the pointers of the buffers, the sizes as ``long long``, the status cell and the number of the
    first check if it has checks, the status cell if it is guarded. A table holds for each set the number of blocks up
    to its end, then the sets. It must be launched with exactly ``kernel.block_threads`` threads in each of the blocks
    that :func:`blocks_of` counts, for all sets together, and with :func:`dynamic_bytes` of shared memory.

    Raises:
        BackendError: the kernel is not mapped to a GPU.
    """
    if not kernel.threads:
        raise BackendError(f"kernel {kernel.name} is not mapped to a GPU", remedy="map it with map_to_gpu first")
    printer = _CudaPrinter(kernel, entry)
    printer.kernel()
    return printer.text()


def blocks_of(kernel: Kernel, sizes: Sequence[int]) -> int:
    """How many blocks one set of arguments takes."""
    outer = kernel.body[0]
    assert isinstance(outer, For)  # it is mapped
    rows = evaluate_size(outer.stop, dict(zip(kernel.sizes, sizes, strict=True)))
    return -(-rows // kernel.teams)


def function_name(kernel: Kernel, entry: Entry = Entry()) -> str:
    """The name of the printed function. No library has a function of such a name, as it may have ``round``."""
    return f"{kernel.name}{'_guarded' * entry.guarded}_{'table' if entry.table else 'kernel'}"


def dynamic_bytes(kernel: Kernel) -> int:
    """What a launch of a kernel brings of shared memory: none where the function declares its arrays itself."""
    return kernel.shared_bytes if kernel.shared_bytes > STATIC_BYTES else 0


def table_capacity(kernel: Kernel) -> int:
    """How many sets of arguments fit a table: the arguments of a launch take at most 4 KB."""
    words = 1 + len(kernel.buffers) + len(kernel.sizes) + 3
    return max(1, min(64, PARAMETER_BYTES // (8 * words)))


class _CudaPrinter(Printer):
    reserved = frozenset(KEYWORDS.split()) | {f"{name}{f}" for name in MATH.values() for f in ("", "f")}

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
        self.only_written = {buffer.name for buffer in source.buffers} - _loaded(source.body)
        self.thread = "threadIdx.x" if source.teams == 1 else "member"
        # where the next shared array begins, if launches bring them
        self.dynamic = 0 if dynamic_bytes(source) else None

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
        self.line(f"// {self._threads()} {self.expression(outer.stop)} {'rows' if kernel.teams > 1 else 'blocks'}")
        if self.entry.table:
            self._table_head(declared)
        else:
            self._head([f"{kind}{name}" for kind, name in declared])
        with self.indented():
            if self.entry.guarded:
                self.line("if (*halted) return;")
            self.indices.add(outer.var)
            self.natural.add(outer.var)
            first = " - (set ? table.ends[set - 1] : 0)" if self.entry.table else ""
            if kernel.teams > 1:
                self._team(outer, f"(blockIdx.x{first})" if first else "blockIdx.x")
            elif _reads(outer.body, outer.var):
                self.line(f"const long long {self.name(outer.var)} = blockIdx.x{first};")
            self._statements(outer.body)
        self.line("}")

    def _threads(self) -> str:
        """The beginning of a sentence on who runs what."""
        kernel = self.source
        if kernel.teams == 1:
            return f"{kernel.threads} threads in each of"
        return f"{kernel.teams} teams of {kernel.threads} threads a block, a team for each of"

    def _team(self, outer: For, block: str) -> None:
        """Which iteration the threads of a team run; a block's last teams may have none."""
        threads, teams, name = self.source.threads, self.source.teams, self.name(outer.var)
        self.line(f"const int team = threadIdx.x / {threads}, member = threadIdx.x % {threads};")
        self.line(f"const long long {name} = {block} * {teams}LL + team;")
        self.line(f"if ({name} >= {self._index(outer.stop)}) return;")

    def _head(self, arguments: list[str]) -> None:
        self.line(f'extern "C" __global__ void __launch_bounds__({self.source.block_threads})')
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
                # blocks beside each other may use one name for different things
                (self.indices.add if self._is_index(value) else self.indices.discard)(var.name)
                (self.natural.add if self._is_natural(value) else self.natural.discard)(var.name)
                self.line(f"const {TYPES[var.dtype]} {self.name(var.name)} = {self.expression(value)};")
            case Declare(var=var, initial=initial):
                self.line(f"{TYPES[var.dtype]} {self.name(var.name)} = {self.expression(initial)};")
            case Assign(var=var, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(value)};")
            case Accumulate(var=var, fn=fn, value=value):
                self.line(f"{self.name(var.name)} = {self.expression(Apply(fn, (var, value), var.dtype))};")
            case Local(name=name, dtype=dtype, size=size) if name in self.packed:
                self.line(f"{_packed(dtype, size)} {self.name(name)};")
            case Local(shared=True):
                self._shared_array(statement)
            case Local(name=name, dtype=dtype, size=size):
                self.line(f"{TYPES[dtype]} {self.name(name)}[{size}];")
            case Pack():
                self._pack(statement)
            case Store(buffer=buffer, index=index, value=value):
                self.line(f"{self.name(buffer)}[{self._index(index)}] = {self.expression(value)};")
            case If(condition=condition, body=body):
                self._braces(f"if ({self.expression(condition)})", body)
            case Fail(condition=condition, check=check, detail=detail):
                number = f"first_check + {self._index(check, ADD + 1)}"
                record = f"record_failure(status, {number}, {self.expression(detail)})"
                self.line(f"if ({self.expression(condition)}) {record};")
            case Barrier():
                self.line("__syncthreads();" if self.source.teams == 1 else f"meet<{self.source.threads}>();")
            case Combine(var=var, fn=fn):
                name = self.name(var.name)
                self.line(f"{name} = combine<{COMBINE[fn]}, {self.source.threads}>({name});")

    def _shared_array(self, local: Local) -> None:
        kind, name, teams = TYPES[local.dtype], self.name(local.name), self.source.teams
        if self.dynamic is not None:
            self.line(f"{kind}* const {name} = ({kind}*)(shared_bytes() + {self.dynamic});")
            self.dynamic += local.shared_bytes
        elif teams == 1:
            self.line(f"__shared__ __align__(16) {kind} {name}[{local.size}];")
        else:
            length = local.shared_bytes // local.dtype.itemsize
            self.line(f"__shared__ __align__(16) {kind} {name}_of[{teams}][{length}];")
            self.line(f"{kind}* const {name} = {name}_of[team];")

    def _loop(self, loop: For) -> None:
        self.indices.add(loop.var)
        (self.natural.add if self._is_natural(loop.start) else self.natural.discard)(loop.var)
        if loop.kind is LoopKind.THREAD:
            self._thread_loop(loop)
            return
        if isinstance(loop.start, Const) and isinstance(loop.stop, Const):
            if 1 < loop.stop.value - loop.start.value <= UNROLLED:
                self.line("#pragma unroll")
        elif at_once := _at_once(loop):
            self.line(f"#pragma unroll {at_once}")
        name, start, stop = self.name(loop.var), self._index(loop.start), self._index(loop.stop)
        self._braces(f"for (long long {name} = {start}; {name} < {stop}; {name}++)", loop.body)

    def _thread_loop(self, loop: For) -> None:
        name, threads = self.name(loop.var), self.source.threads
        if (loop.start, loop.stop) == (_ZERO, _ONE) and not _reads(loop.body, loop.var):
            self._braces(f"if ({self.thread} == 0)", loop.body)
            return
        start = self.thread
        if isinstance(loop.start, Const) and loop.start != _ZERO:
            start = f"{self.constant(loop.start, operand=False)[0]} + {self.thread}"
        elif loop.start != _ZERO:
            start = f"{self._index(loop.start, ADD)} + {self.thread}"
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
        if pack.stores and pack.array in self.only_written:
            self.line(f"store_packed({array} + {self._index(pack.index, ADD + 1)}, {local});")
            return
        const = "" if pack.stores else "const "
        place = f"*({const}{_packed(pack.dtype, pack.size)}*)({array} + {self._index(pack.index, ADD + 1)})"
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
            return TO_BOOL if dtype is DType.bool else prefix(f"({TYPES[dtype]})", UNARY)
        if fn in NATURAL and dtype is DType.int64 and all(self._is_natural(argument) for argument in apply.args):
            if isinstance(apply.args[1], Const) and apply.args[1].value:
                return NATURAL[fn]
            return call("quotient" if fn == "floordiv" else "remainder", 2)
        if fn in ARITHMETIC and (id(apply) in self.in_bounds or self._is_index(apply)):
            return ARITHMETIC[fn]
        return ANY.get(fn) or BY_TYPE[dtype][fn]

    def constant(self, constant: Const, operand: bool) -> tuple[str, int]:
        value, dtype = constant.value, constant.dtype
        if dtype is DType.bool:
            return str(value).lower(), ATOM
        if dtype.is_half:
            return f"(unsigned short){np.array(value, dtype.numpy).view(np.uint16)}", UNARY
        if dtype.is_float:
            return _float_text(float(value), dtype)
        if dtype.kind is Kind.UINT:
            return f"{value}u", ATOM
        is_int = np.iinfo(np.int32).min < value <= np.iinfo(np.int32).max
        suffix = "" if dtype is DType.int32 or (operand and is_int) else "LL"
        if value == np.iinfo(dtype.value).min:  # C has no literal for it
            return f"{value + 1}{suffix} - 1", ADD
        return f"{value}{suffix}", UNARY if value < 0 else ATOM

    def _index(self, expression: Expr, least: int = 0) -> str:
        """The text of an index or bound: in bounds, so that its sums and products do not overflow."""
        self._mark_in_bounds(expression)
        return self.expression(expression, least)

    def _mark_in_bounds(self, expression: Expr) -> None:
        if isinstance(expression, Apply) and expression.fn in ARITHMETIC:
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


def _at_once(loop: For) -> int:
    """How many iterations begin together, where a loop reduces or looks at data first, and would wait each time."""
    packs = [s.size for s in loop.body if isinstance(s, Pack) and not s.stores]
    if packs:
        return max(2, 2 * AT_ONCE // max(packs))
    if any(isinstance(s, For) for s in loop.body):
        return 0
    return AT_ONCE if any(isinstance(s, Accumulate | If) for s in loop.body) else 0


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
        return f"{sign}{word if single else f'(double){word}'}", ATOM if single and not sign else UNARY
    text = f"{np.float32(value)!s}f" if single else repr(value)
    return text, UNARY if sign else ATOM


def _loaded(statements: tuple[Stmt, ...]) -> set[str]:
    """The arrays that statements load from."""
    packs = {s.array for s in walk(statements) if isinstance(s, Pack) and not s.stores}
    parts = (p for s in walk(statements) for e in expressions(s) for p in subexpressions(e))
    return packs | {part.buffer for part in parts if isinstance(part, Load)}


def _reads(statements: tuple[Stmt, ...], name: str) -> bool:
    return any(
        isinstance(part, Var) and part.name == name
        for statement in walk(statements)
        for expression in expressions(statement)
        for part in subexpressions(expression)
    )
