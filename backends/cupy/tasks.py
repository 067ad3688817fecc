"""From a plan with its sizes and addresses to tasks for a device, with what each one has to wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphc.backends.cupy.attended import KeptAttention
from graphc.backends.cupy.attention import Part
from graphc.backends.cupy.convolved import PlannedConvolution
from graphc.backends.cupy.device import Clear, Launch, Product, Task, Work
from graphc.backends.cupy.epilogues import FinishedGemm
from graphc.backends.cupy.module import Group, is_long, may_be_small
from graphc.backends.cupy.places import Addresses, Places
from graphc.backends.cupy.printer import (
    POST_RESULTS,
    blocks_of,
    dynamic_bytes,
    function_name,
    table_capacity,
)
from graphc.backends.cupy.products import finish, small_product
from graphc.backends.cupy.touched import Span, Touched
from graphc.loops.kernel import Access, Kernel
from graphc.lower.plan import GemmItem, KernelItem

if TYPE_CHECKING:
    from graphc.backends.cupy.executable import GpuExecutable

STATUS_BYTES = 64
SMALL_BYTES = 4096
CELL_BYTES = STATUS_BYTES + SMALL_BYTES
SMALL_PRODUCT = 1 << 20
"""Multiplications of a product with a narrow side that a library's kernel is not worth its start for."""
SLOTS = 64
"""Steps whose results may wait to be read."""


@dataclass(frozen=True)
class While:
    """A loop that ends by itself: before each step the host reads on the device whether there is one.

    Attributes:
        count: the most steps.
        going: where the bool lies that is read before a step of this number.
        body: what a step of this number does.
        steps: where the number of steps that ran is put, as an int64.
    """

    count: int
    going: Callable[[int], int]
    body: Callable[[int], list[Segment]]
    steps: int


Segment = tuple[Task, ...] | While
"""Tasks without a decision of the host's among them, or a loop of such."""


def make_segments(executable: GpuExecutable, dims: Mapping[str, int], addresses: Addresses) -> list[Segment]:
    """The tasks of one step of the program, in order; loops are written out, but for those that end by themselves."""
    places = Places(executable.plan, executable.unit.scratch, dims, addresses)
    builder = _Builder(executable, places, [0] * len(executable.plan.loops))
    builder.launches(0, len(executable.plan.launches), 0)
    if addresses.posted:
        builder.post(executable.ring.ctypes.data, executable.turn.address)
    return builder.cut()


class _Builder:
    """Adds tasks one after another; later ones wait for those whose memory they touch."""

    def __init__(self, executable: GpuExecutable, places: Places, steps: list[int]) -> None:
        self.executable = executable
        self.plan = executable.plan
        self.unit = executable.unit
        self.tf32 = executable.tf32
        self.places = places
        self.addresses = places.addresses
        self.segments: list[Segment] = []
        self._steps = steps
        self._begin()

    def _begin(self) -> None:
        self.tasks: list[Task] = []
        self.touched = Touched()
        self._checking: list[int] = []

    def cut(self) -> list[Segment]:
        """End the present segment: what follows runs after all of it. All segments so far."""
        if self.tasks:
            self.segments.append(tuple(self.tasks))
            self._begin()
        return self.segments

    def launches(self, first: int, end: int, loop: int) -> None:
        """Launches ``first`` to ``end - 1``, with the loops from number ``loop`` on that lie among them."""
        loops, position = self.plan.loops, first
        while position < end:
            while loop < len(loops) and loops[loop].end <= position:
                loop += 1
            if loop < len(loops) and loops[loop].first == position:
                if loops[loop].going is not None:
                    self.cut().append(self._while(loop))
                    position = loops[loop].end
                    continue
                for step in range(self.places.size(loops[loop].count)):
                    self._steps[loop] = step
                    self.launches(position, loops[loop].end, loop + 1)
                position = loops[loop].end
                continue
            for work in self.unit.work[position]:
                if isinstance(work, Group):
                    self.group(work)
                elif isinstance(work, KeptAttention):
                    self.attention(work)
                elif isinstance(work, PlannedConvolution):
                    self.convolution(work)
                else:
                    self.product(work)
            position += 1

    def _while(self, loop: int) -> While:
        found = self.plan.loops[loop]
        going, steps_at = found.going, found.steps
        assert going is not None
        assert steps_at is not None  # both are there, or neither

        def at(step: int) -> _Builder:
            return _Builder(self.executable, self.places, [*steps[:loop], step, *steps[loop + 1 :]])

        def body(step: int) -> list[Segment]:
            builder = at(step)
            builder.launches(found.first, found.end, loop + 1)
            return builder.cut()

        steps = tuple(self._steps)
        place = self._address(steps_at)
        return While(self.places.size(found.count), lambda step: at(step)._address(going), body, place)

    def group(self, group: Group) -> None:
        """One launch of a kernel on one or several sets of arguments."""
        items = [item for item in group.items if self.places.blocks(group.kernel, item)]
        if not items:
            return
        if group.halves is not None and is_long(group.halves.split, items[0], self.places.dims):
            self.group(group.halves.first)
            self.group(group.halves.second)
            return
        kernel = group.kernel
        if group.unaligned is not None and not all(self._is_aligned(kernel, item) for item in items):
            kernel = group.unaligned
        reads: list[Span] = []
        writes: list[Span] = []
        sets: list[tuple[int, list[int]]] = []
        for item in items:
            for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True):
                (reads if buffer.access is Access.READ else writes).append(self._span(index))
            sets.append((self.places.blocks(kernel, item), self._words(group, item)))
        total = sum(blocks for blocks, _ in sets)
        words = _table(kernel, sets) if group.table else sets[0][1]
        after = self.touched.by(reads, writes)
        if group.guarded:
            after |= set(self._checking)
        if kernel.has_checks:
            self._checking.append(len(self.tasks))
        name, shared = function_name(kernel, group.entry), dynamic_bytes(kernel)
        launch = Launch(name, total, kernel.block_threads, tuple(words), group.table, shared)
        self._add(launch, after, reads, writes)

    def product(self, item: GemmItem) -> None:
        """A matrix product."""
        m, n, k, batch = (self.places.size(size) for size in (item.m, item.n, item.k, item.batch))
        if not m * n * batch:
            return
        finished = item if isinstance(item, FinishedGemm) else None
        more = () if finished is None else finished.more
        reads, writes = [self._span(index) for index in (item.a, item.b, *more)], [self._span(item.c)]
        after = self.touched.by(reads, writes)
        dtype = self.plan.buffers[item.a].type.dtype
        strides = (self.places.size(item.stride_a), self.places.size(item.stride_b), self.places.size(item.stride_c))
        lda, ldb, ldc = (max(self.places.size(size), 1) for size in (item.lda, item.ldb, item.ldc))
        a, b, c = (self._address(index) for index in (item.a, item.b, item.c))
        a += self.places.size(item.offset_a) * dtype.itemsize
        b += self.places.size(item.offset_b) * dtype.itemsize
        work = Product(
            dtype, self.plan.buffers[item.c].type.dtype, a, b, c, m, n, k, lda, ldb, ldc,
            item.transpose_a, item.transpose_b, batch, strides, self.tf32,
        )  # fmt: skip
        if finished is not None:
            bias, addend = (0 if index is None else self._address(index) for index in (finished.bias, finished.addend))
            work = replace(work, bias=bias, addend=addend, activation=finished.activation)
        if not k:  # an empty sum
            (start, end), *_ = writes
            self._add(Clear(start, end - start), after, [], writes)
        elif may_be_small(item) and m * n * k <= SMALL_PRODUCT:
            self._add(small_product(work), after, reads, writes)
            return
        elif work.is_plain or self.executable.device.finishes(work):
            self._add(work, after, reads, writes)
            return
        else:
            self._add(work.plain, after, reads, writes)
        if not work.is_plain:
            self._add(finish(work), self.touched.by(reads, writes), reads, writes)

    def attention(self, item: KeptAttention) -> None:
        """The launches of attention or its gradients, each as soon as what it reads is there."""
        call = item.call(self.places.dims, self._address)
        operands, between = [self._span(index) for index in item.reads], [self._span(index) for index in item.between]
        deltas = [] if item.deltas is None else [self._span(item.deltas)]
        gradients = call.gradient_spans
        for part, variant in item.variants(self.tf32).items():
            launch = call.launch(variant)
            match part:
                case Part.FORWARD:
                    reads, writes = operands, between if item.fresh else [self._span(item.c), *between]
                case Part.DELTAS:
                    reads, writes = [*operands, *between], deltas
                case Part.KEYS:
                    reads, writes = [*operands, *between, *deltas], gradients[1:]
                case Part.QUERIES:
                    reads, writes = [*operands, *between, *deltas], gradients[:1]
            if launch is not None:
                self._add(launch, self.touched.by(reads, writes), reads, writes)

    def convolution(self, item: PlannedConvolution) -> None:
        """A convolution in that one of several ways that is taken: its steps have scratch memory between them."""
        sizes, result = item.at(self.places.dims), self.plan.buffers[item.c].type.dtype
        if not sizes.results:
            return
        way = self.executable.convolvers.way(item, sizes, result)
        nbytes = way.scratch()
        scratch = (0, 0) if item.scratch is None else self._span(item.scratch)
        if scratch[1] - scratch[0] < nbytes:
            scratch = self.executable.convolvers.workspace(nbytes)
        between = [scratch] if nbytes else []
        operands = [self._address(index) for index in (item.a, item.b, item.c)]
        reads, writes = [self._span(item.a), self._span(item.b)], [self._span(item.c)]
        *steps, last = way.work(operands, scratch[0])
        for step in steps:
            self._add(step, self.touched.by(reads, between), reads, between)
        writes += between
        self._add(last, self.touched.by(reads, writes), reads, writes)

    def post(self, ring: int, turn: int) -> None:
        """Hand the cell to the host."""
        reads = [(self.addresses.status, self.addresses.status + self.addresses.posted)]
        after = self.touched.by(reads, []) | set(self._checking)
        words = (self.addresses.status, ring, turn, self.addresses.posted // 4, CELL_BYTES // 4, SLOTS)
        self._add(Launch(POST_RESULTS, 1, 128, words), after, reads, [])

    def _words(self, group: Group, item: KernelItem) -> list[int]:
        words = [self._address(index) for index in item.buffers]
        words += self.places.sizes(item)
        if group.kernel.has_checks:
            words += [self.addresses.status, item.check_base]
        if group.guarded:
            words.append(self.addresses.status)
        return words

    def _span(self, index: int) -> Span:
        return self.places.span(index, self._steps)

    def _address(self, index: int) -> int:
        return self.places.address(index, self._steps)

    def _is_aligned(self, kernel: Kernel, item: KernelItem) -> bool:
        """Does every array that is moved in vectors begin where vectors may?"""
        return all(self._address(item.buffers[at]) % nbytes == 0 for at, nbytes in self.places.vectors(kernel))

    def _add(self, work: Work, after: set[int], reads: Iterable[Span], writes: Iterable[Span]) -> None:
        position = len(self.tasks)
        self.tasks.append(Task(work, tuple(sorted(after))))
        self.touched.add(position, reads, writes)


def turning(kernel: Kernel) -> Callable[[int, int, int, int], Launch]:
    """The launches of a kernel that transposes; see :func:`graphc.backends.cupy.alternatives.transposition`."""

    def launch(source: int, target: int, rows: int, columns: int) -> Launch:
        blocks, name = blocks_of(kernel, (columns, rows)), function_name(kernel)
        return Launch(
            name, blocks, kernel.block_threads, (source, target, columns, rows), shared_bytes=dynamic_bytes(kernel)
        )

    return launch


def _table(kernel: Kernel, sets: list[tuple[int, list[int]]]) -> list[int]:
    """The words of a table: where the blocks of each set end, then the sets, both filled up to the table's length."""
    capacity = table_capacity(kernel)
    ends: list[int] = []
    for blocks, _ in sets:
        ends.append(blocks + (ends[-1] if ends else 0))
    ends += [ends[-1]] * (capacity - len(sets))
    words = [word for _, row in sets for word in row]
    return ends + words + [0] * (len(sets[0][1]) * (capacity - len(sets)))
