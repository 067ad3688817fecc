"""What the launches of a program on a GPU read, write and multiply, from its plan."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import prod

from graphc.backends.cupy.attended import KeptAttention
from graphc.backends.cupy.attention import Part
from graphc.backends.cupy.convolved import PlannedConvolution
from graphc.backends.cupy.epilogues import FinishedGemm
from graphc.backends.cupy.executable import GpuExecutable
from graphc.backends.cupy.module import Group, Work, is_long
from graphc.ir.types import DType
from graphc.loops.affine import put
from graphc.loops.interp import evaluate_size
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
    subexpressions,
    walk,
)
from graphc.lower.plan import GemmItem, Launch, Lying, repetitions, size_of
from graphc.program import Program

COPY_BYTES_PER_S = 3029e9
FLOPS = {"bf16": 793e12, "tf32": 407e12, "fp32": 51e12}
"""Of products, as measured on an H100; a multiply-add is two operations."""
ALL = 1 << 40
MOST_COUNTED = 1 << 12
"""Steps of loops that are gone through to find out how many others have."""
KERNEL, COPY, PRODUCT, ATTENTION, CONVOLUTION = "kernels", "copies", "products", "attention", "convolution"


@dataclass(frozen=True)
class Cost:
    """One task, or several that do an item together.

    Attributes:
        kind: of task.
        type: of products.
        read, written: bytes, each element once a launch.
        times: how often it runs in a step.
        line: the user's.
    """

    what: str
    kind: str
    read: int
    written: int
    launches: int = 1
    multiply_adds: int = 0
    type: str = ""
    times: int = 1
    line: str = ""

    @property
    def seconds(self) -> float:
        """The least that all runs of it take."""
        products = 2 * self.multiply_adds / FLOPS[self.type] if self.type else 0.0
        return self.times * max((self.read + self.written) / COPY_BYTES_PER_S, products)


def costs_of(program: Program, dims: Mapping[str, int]) -> tuple[Cost, ...]:
    """Of all that a step launches, but for what hands results to the host."""
    executable = program.executable
    assert isinstance(executable, GpuExecutable)
    counter, found = _Counter(executable, dims), list[Cost]()
    for position, works in enumerate(executable.unit.work):
        times = repetitions(executable.plan, position, dims)
        line = _line(program.plan.launches[position])
        found += [replace(cost, times=times, line=line) for work in works for cost in counter.costs(work)]
    return tuple(found)


def _line(launch: Launch) -> str:
    loc = next((node.loc for node in launch.nodes if node.loc is not None), None)
    return "" if loc is None else f"{os.path.basename(loc.file)}:{loc.line} {loc.text}"


@dataclass(frozen=True)
class _Counter:
    executable: GpuExecutable
    dims: Mapping[str, int]

    def costs(self, work: Work) -> Iterator[Cost]:
        match work:
            case Group():
                yield from self._group(work)
            case KeptAttention():
                yield from self._attention(work)
            case PlannedConvolution():
                yield self._convolution(work)
            case GemmItem():
                yield self._product(work)

    def _dtype(self, index: int) -> DType:
        return self.executable.plan.buffers[index].type.dtype

    def _elements(self, index: int) -> int:
        buffers = self.executable.plan.buffers
        if index >= len(buffers):
            return self.executable.unit.scratch[index - len(buffers)].count(self.dims)
        return size_of(buffers[index].type.size, self.dims)

    def _type(self, dtype: DType) -> str:
        return "bf16" if dtype.is_half else "tf32" if self.executable.tf32 and dtype is DType.float32 else "fp32"

    def _group(self, group: Group) -> Iterator[Cost]:
        if group.halves is not None and is_long(group.halves.split, group.items[0], self.dims):
            yield from self._group(group.halves.first)
            yield from self._group(group.halves.second)
            return
        read = written = 0
        for item in group.items:
            sizes = {n: size_of(s, self.dims) for n, s in zip(item.kernel.sizes, item.sizes, strict=True)}
            touched = Traffic(sizes).of(item.kernel)
            for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True):
                most, itemsize = self._elements(index), buffer.dtype.itemsize
                read += min(touched[Access.READ].get(buffer.name, 0), most) * itemsize
                if buffer.access is Access.WRITE and item.written is not None:
                    most = size_of(item.written, self.dims)
                written += min(touched[Access.WRITE].get(buffer.name, 0), most) * itemsize
        count, moves = len(group.items), all(only_moves(item.kernel) for item in group.items)
        name = group.kernel.name + (f" x {count}" if count > 1 else "")
        yield Cost(name, COPY if moves else KERNEL, read, written)

    def _product(self, item: GemmItem) -> Cost:
        m, n, k, batch = (size_of(size, self.dims) for size in (item.m, item.n, item.k, item.batch))
        a, b = (1 if size_of(stride, self.dims) == 0 else batch for stride in (item.stride_a, item.stride_b))
        dtype, result = self._dtype(item.a), self._dtype(item.c)
        read = (m * k * a + k * n * b) * dtype.itemsize
        what = f"{m} x {n} x {k}" + (f" x {batch}" if batch > 1 else "")
        if isinstance(item, FinishedGemm):
            read += (n * (item.bias is not None) + m * n * batch * (item.addend is not None)) * result.itemsize
            more = ["bias"] * (item.bias is not None) + ["sum"] * (item.addend is not None)
            what += " + " + ", ".join([*more, *[item.activation.value] * (item.activation.value != "none")])
        what += f" {dtype} to {result}"
        return Cost(what, PRODUCT, read, m * n * batch * result.itemsize, 1, m * n * k * batch, self._type(dtype))

    def _attention(self, item: KeptAttention) -> Iterator[Cost]:
        rows, columns, size, value_size = (
            size_of(s, self.dims) for s in (item.queries, item.keys, item.size, item.value_size)
        )
        heads = prod(size_of(s, self.dims) for s in item.leading)

        def nbytes(lying: Lying | None, rows: int, width: int) -> int:
            if lying is None:
                return 0
            count = prod(
                size_of(s, self.dims)
                for s, stride in zip(item.leading, lying.strides, strict=False)
                if size_of(stride, self.dims)
            )
            return count * rows * width * lying.width

        query, key = nbytes(item.query, rows, size), nbytes(item.key, columns, size)
        value, mask = nbytes(item.value, columns, value_size), nbytes(item.mask, rows, columns)
        result, cotangent = nbytes(item.result, rows, value_size), nbytes(item.cotangent, rows, value_size)
        numbers = 4 * heads * rows
        operands = query + key + value + mask
        pairs = heads * rows * columns // (2 if item.causal else 1)
        kept = numbers if item.statistics is not None else 0
        for part in item.variants(self.executable.tf32):
            match part:
                case Part.FORWARD:
                    read, written, each = operands, result + kept, size + value_size
                case Part.DELTAS:
                    read, written, each = result + cotangent, numbers, 0
                case Part.KEYS:
                    read, each = operands + cotangent + 2 * numbers, 2 * (size + value_size)
                    written = nbytes(item.results[1], columns, size) + nbytes(item.results[2], columns, value_size)
                case Part.QUERIES:
                    read, each = operands + cotangent + 2 * numbers, 2 * size + value_size
                    written = nbytes(item.results[0], rows, size)
            what = f"attention {part.value} {heads} x {rows} x {columns}"
            yield Cost(what, ATTENTION, read, written, 1, pairs * each, self._type(item.element))

    def _convolution(self, item: PlannedConvolution) -> Cost:
        executable, sizes = self.executable, item.at(self.dims)
        way = executable.convolvers.way(item, sizes, self._dtype(item.c))
        read, written = (
            sum(self._elements(index) * self._dtype(index).itemsize for index in indices)
            for indices in ((item.a, item.b), (item.c,))
        )
        scratch, steps = way.scratch(), len(list(way.work([0, 0, 0], 0)))
        what = f"{item.sought.value} of a convolution, {'x'.join(map(str, item.window))}, {self._dtype(item.c)}"
        adds = size_of(item.multiplications, self.dims)
        return Cost(what, CONVOLUTION, read + scratch, written + scratch, steps, adds, self._type(item.element))


@cache
def only_moves(kernel: Kernel) -> bool:
    """Does it compute nothing, but for other types of the same numbers?

    Indices are no numbers: what is selected by them is moved.
    """
    lets = {s.var.name: s.value for s in walk(kernel.body) if isinstance(s, Let)}

    def moves(value: Expr) -> bool:
        match value:
            case Const() | Load():
                return True
            case Var(name=name):
                return name in lets and moves(lets[name])
            case Apply(fn="cast", args=(inner,)):
                return moves(inner)
            case Apply(fn="select", args=(_, yes, no)):
                return moves(yes) and moves(no)
            case _:
                return False

    found = list(walk(kernel.body))
    return not any(isinstance(s, Accumulate | Assign) for s in found) and all(
        moves(s.value) for s in found if isinstance(s, Store)
    )


class Traffic:
    """How many elements of its arrays a kernel reads and writes: each place once, however many loops come back to it.

    A place is an index as an expression of loops; two loops of as many steps inside the same loops are one. Places
    that data decide count as if all were different. No more elements are counted than an array has, by who asks.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.numbers: dict[object, int] = {}  # expressions by what they are made of
        self.loops: dict[int, float] = {}  # of the number of a loop: its steps
        self.ranges: dict[str, range] = {}  # of loops that do not depend on others
        self.lets: dict[str, Expr] = {}
        self.names: dict[str, tuple[int, frozenset[int]]] = {}  # the number of a name's value, and the loops it takes
        self.places: dict[tuple[Access, str, int], int] = {}

    def of(self, kernel: Kernel) -> dict[Access, dict[str, int]]:
        """Elements by what is done to them and the name of the array."""
        self.arrays = {buffer.name for buffer in kernel.buffers}
        self._block(kernel.body, ())
        found: dict[Access, dict[str, int]] = {Access.READ: {}, Access.WRITE: {}}
        for (way, name, _), steps in self.places.items():
            found[way][name] = found[way].get(name, 0) + steps
        return found

    def _block(self, statements: tuple[Stmt, ...], around: tuple[int, ...]) -> None:
        for statement in statements:
            for expression in expressions(statement):
                for part in subexpressions(expression):
                    if isinstance(part, Load) and part.buffer in self.arrays:
                        self._touch(Access.READ, part.buffer, part.index)
            match statement:
                case For(var=var):
                    steps, (start, loops) = self._steps(statement), self._value(statement.start)
                    number = self._number(("loop", around, steps, start))
                    self.loops[number] = steps
                    self.names[var] = (number, loops | {number})  # parts begin elsewhere in each loop around them
                    self._block(statement.body, (*around, number))
                case If():
                    self._block(statement.body, around)
                case Let(var=var, value=value):
                    self.names[var.name] = self._value(value)
                    if var.dtype is DType.int64:
                        self.lets[var.name] = put(value, self.lets)
                case Declare(var=var) | Assign(var=var) | Accumulate(var=var):
                    self.names[var.name] = (self._number((var.name, around)), frozenset(around))
                case Store(buffer=name, index=index) if name in self.arrays:
                    self._touch(Access.WRITE, name, index)
                case _:
                    pass

    def _steps(self, loop: For) -> float:
        """How many there are; where that changes with loops around it, on an average."""
        ends = [put(end, self.lets) for end in (loop.start, loop.stop)]
        parts = [part for end in ends for part in subexpressions(end)]
        around = sorted({part.name for part in parts if isinstance(part, Var) and part.name not in self.sizes})
        ranges = [self.ranges.get(name, range(MOST_COUNTED)) for name in around]
        if prod(map(len, ranges)) >= MOST_COUNTED or any(isinstance(part, Load) for part in parts):
            return ALL
        counts: list[int] = []
        for values in itertools.product(*ranges):
            start, stop = (evaluate_size(end, {**self.sizes, **dict(zip(around, values, strict=True))}) for end in ends)
            counts.append(max(0, stop - start))
            if not around:
                self.ranges[loop.var] = range(start, max(start, stop))
        return sum(counts) / max(len(counts), 1)

    def _touch(self, way: Access, name: str, index: Expr) -> None:
        number, loops = self._value(index)
        self.places[way, name, number] = round(prod(self.loops[loop] for loop in loops))

    def _number(self, key: object) -> int:
        return self.numbers.setdefault(key, len(self.numbers))

    def _value(self, expression: Expr) -> tuple[int, frozenset[int]]:
        """The number of what an expression is, and the loops that it changes with."""
        match expression:
            case Const(value=value):
                return self._number(("const", value)), frozenset()
            case Var(name=name):
                return self.names.get(name) or (self._number(("size", name)), frozenset())
            case Load(buffer=name, index=index):
                inner = [self._value(index)]
                key: object = ("load", name)
            case Apply(fn=fn, args=args, dtype=dtype):
                inner = [self._value(argument) for argument in args]
                key = (fn, dtype)
        numbers = tuple(number for number, _ in inner)
        return self._number((key, numbers)), frozenset().union(*(loops for _, loops in inner))
