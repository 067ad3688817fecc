"""The plan: what a backend compiles. Kernels in order, buffers with lifetimes, checks, and where state changes.

A plan is symbolic in the named sizes of the graph: everything that depends on them (extents, offsets in the
arena) is computed when a program meets a new combination of sizes, without compiling anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from graphc.ir.dims import Size, ceildiv, evaluate, product
from graphc.ir.types import DType, Shape, TensorType

if TYPE_CHECKING:
    from graphc.ir.graph import Graph
    from graphc.ir.node import Node, Parameter
    from graphc.ir.op import Op
    from graphc.loops.kernel import Kernel


class Place(Enum):
    """Where a buffer lives."""

    INPUT = "input"  # the caller's array, read only
    OUTPUT = "output"  # an array handed back to the caller
    STATE = "state"  # a parameter's own buffer
    CONSTANT = "constant"  # an array that belongs to the program
    ARENA = "arena"  # at an offset in the program's arena
    SLICE = "slice"  # inside another buffer


@dataclass(frozen=True)
class BufferPart:
    """Where a ``SLICE`` lies.

    Attributes:
        of: the buffer that it lies in; perhaps a slice itself.
        offset: where it begins, in elements; in a loop, at the first step.
        step: how far it moves from one step of the loop to the next, in elements; what begins inside ends inside.
        alternates: whether it moves back at every second step.
        loop: number of the loop that moves it in ``Plan.loops``, or None where it lies still.
    """

    of: int
    offset: Size
    step: Size = 0
    alternates: bool = False
    loop: int | None = None


@dataclass(frozen=True)
class Loop:
    """Launches ``first`` to ``end - 1`` run ``count`` times, in order; loops nest or lie apart.

    At each step the slices of the loop begin elsewhere; nothing else changes.

    Attributes:
        going: a buffer of one bool. Before each step, when the loop's slices have moved, it is read; where it is false,
            the loop is over.
        steps: a buffer of one int64 that is then set to the number of steps that ran; None where ``going`` is.
    """

    first: int
    end: int
    count: Size
    going: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class PlanBuffer:
    """A dense row-major array.

    Attributes:
        index: its position in ``Plan.buffers``.
        label: a name for reports, made here (never the user's text).
        slot: position among the inputs, outputs, ``Plan.parameters`` or ``Plan.constants``; 0 in the arena.
        nodes: the graph's nodes whose value it holds, in order of time.
        part: of a ``SLICE``: where it lies in which buffer.
    """

    index: int
    label: str
    type: TensorType
    place: Place
    slot: int = 0
    nodes: tuple[Node, ...] = ()
    part: BufferPart | None = None


@dataclass(frozen=True)
class KernelItem:
    """One application of a kernel: its buffers and sizes, in the order of the kernel's arguments."""

    kernel: Kernel
    buffers: tuple[int, ...]
    sizes: tuple[Size, ...]
    extent: Size
    grain: int = 1
    """Sub-ranges of the extent start at multiples of this, so that bits do not depend on the thread count."""
    cost: Size = 1
    """Rough number of scalar operations of one iteration; decides whether threads are worth their start."""
    check_base: int = 0
    """Added to the kernel's own check numbers: index into ``Plan.checks``."""
    written: Size | None = None
    """How many elements it writes, if that is not all of each buffer that it writes."""


@dataclass(frozen=True)
class GemmItem:
    """``c = op(a) @ op(b)``, batched: row-major ``[m, k] x [k, n]``, float32 or float64.

    ``lda`` and so on are the distances of rows in elements as stored (before transposition); matrix ``i`` of the
    batch begins at ``offset + i * stride``, stride 0 repeats one matrix.

    Attributes:
        in_panels: whether ``b`` holds panels as :class:`graphc.ops.panels.PackedPanels` makes them, ``ldb`` columns
            wide: no batch then, and nothing that is transposed.
    """

    dtype: DType
    a: int
    b: int
    c: int
    m: Size
    n: Size
    k: Size
    lda: Size
    ldb: Size
    ldc: Size
    transpose_a: bool = False
    transpose_b: bool = False
    batch: Size = 1
    stride_a: Size = 0
    stride_b: Size = 0
    stride_c: Size = 0
    offset_a: Size = 0
    offset_b: Size = 0
    in_panels: bool = False

    @property
    def buffers(self) -> tuple[int, ...]:
        return (self.a, self.b, self.c)


@dataclass(frozen=True)
class Axis:
    """How far one goes in each array from an index to the next, in elements."""

    count: Size
    a: Size = 0
    b: Size = 0
    c: Size = 0


@dataclass(frozen=True)
class ContractionItem:
    """``c[outer, rows, columns] = sum over sums of a[...] * b[...]``: products of patches as they lie in memory.

    Attributes:
        outer: three axes, the first of parts or images.
        rows: an axis of a and c.
        columns: an axis of b and c whose elements lie side by side.
        sums: three axes of a and b; along the innermost one, or along ``rows``, elements of a lie side by side.
        parts: how long the first axis of ``sums`` is altogether, where each index of the first of ``outer`` takes its
            own part of it, the last one what is left; otherwise None.
    """

    dtype: DType
    a: int
    b: int
    c: int
    outer: tuple[Axis, Axis, Axis]
    rows: Axis
    columns: Size
    sums: tuple[Axis, Axis, Axis]
    parts: Size | None = None

    @property
    def buffers(self) -> tuple[int, ...]:
        return (self.a, self.b, self.c)

    @property
    def multiplications(self) -> Size:
        """How many there are."""
        outer = product(tuple(axis.count for axis in self.outer[self.parts is not None :]))
        inner = product(tuple(axis.count for axis in self.sums[self.parts is not None :]))
        return outer * inner * self.rows.count * self.columns * (1 if self.parts is None else self.parts)


@dataclass(frozen=True)
class Lying:
    """Where a matrix of each head lies.

    Attributes:
        buffer: the buffer.
        offset: where the first one begins, in elements.
        strides: how far it is to the next along each of three leading axes, and from row to row and column to column.
        width: of an element, in bytes.
    """

    buffer: int
    offset: Size
    strides: tuple[Size, ...]
    width: int


@dataclass(frozen=True)
class AttentionItem:
    """Attention of several heads, or its gradients by query, key and value, which then are one after the other.

    Attributes:
        op: the op that says what is computed; also how, where a plan is interpreted.
        leading: the sizes of three leading axes; operands that repeat along one have a stride of 0 there.
        queries, keys, size, value_size: the sizes of matrices: queries are (queries, size), values (keys, value_size).
        seed, step: buffers of the scalars that dropout draws from, where there is any.
        cotangent: None for attention itself.
        c: the buffer of the result.
        results: where it lies there; of gradients, where each of the three does.
    """

    op: Op
    dtype: DType
    leading: tuple[Size, Size, Size]
    queries: Size
    keys: Size
    size: Size
    value_size: Size
    query: Lying
    key: Lying
    value: Lying
    mask: Lying | None
    cotangent: Lying | None
    seed: int | None
    step: int | None
    c: int
    results: tuple[Lying, ...]
    scale: float
    causal: bool
    mask_adds: bool = False
    rate: float = 0.0
    stream: int = 0

    @property
    def lying(self) -> tuple[Lying | None, ...]:
        """Query, key, value, mask, cotangent, result, and the gradients by query, key and value."""
        operands = (self.query, self.key, self.value, self.mask, self.cotangent)
        return (*operands, *((None, *self.results) if self.cotangent else (*self.results, None, None, None)))

    @property
    def reads(self) -> tuple[int, ...]:
        """The buffers that it reads."""
        operands = (self.query, self.key, self.value, self.mask, self.cotangent)
        scalars = (self.seed, self.step)
        return (*(a.buffer for a in operands if a is not None), *(s for s in scalars if s is not None))

    @property
    def buffers(self) -> tuple[int, ...]:
        return (*self.reads, self.c)

    @property
    def multiplications(self) -> Size:
        """How many there are where nothing is hidden; gradients compute the scores again."""
        each = self.size + self.value_size if self.cotangent is None else 3 * self.size + 2 * self.value_size
        return product(self.leading) * self.queries * self.keys * each

    def with_buffers(self, number: Callable[[int], int]) -> AttentionItem:
        """The same with other numbers of buffers."""

        def moved(lying: Lying) -> Lying:
            return replace(lying, buffer=number(lying.buffer))

        return replace(
            self,
            query=moved(self.query), key=moved(self.key), value=moved(self.value),
            mask=None if self.mask is None else moved(self.mask),
            cotangent=None if self.cotangent is None else moved(self.cotangent),
            seed=None if self.seed is None else number(self.seed),
            step=None if self.step is None else number(self.step),
            c=number(self.c), results=tuple(map(moved, self.results)),
        )  # fmt: skip


@dataclass(frozen=True)
class WinogradItem:
    """A convolution with a transformed kernel; see :class:`graphc.ops.winograd.WinogradProduct`.

    Attributes:
        images, sizes, channels: of a: how many images, their height and width, their channels.
        counts: height and width of results.
        low: rows and columns of zeros before the first ones of an image.
        filters: of the result.
    """

    dtype: DType
    a: int
    b: int
    c: int
    images: Size
    sizes: tuple[Size, Size]
    channels: Size
    counts: tuple[Size, Size]
    low: tuple[int, int]
    filters: int

    @property
    def buffers(self) -> tuple[int, ...]:
        return (self.a, self.b, self.c)

    @property
    def multiplications(self) -> Size:
        """How many there are, without those of columns that fill up the last panel."""
        tiles = product(tuple(ceildiv(count, 2) for count in self.counts))
        return 16 * self.images * tiles * self.channels * self.filters


class Sought(Enum):
    """Which of the three operands of a convolution is computed from the other two; see graphc/ops/convolution.py."""

    RESULT = "result"  # y of x and the kernel
    INPUT = "input"  # x of y and the kernel: also the gradient by x, and the transposed convolution
    KERNEL = "kernel"  # the kernel of x and y: the gradient by it


@dataclass(frozen=True)
class ConvolutionItem:
    """One of the three products of a convolution, for a backend that takes these whole.

    Whatever is computed, x is ``(batch, *sizes, channels)``, the kernel ``(*window, channels / groups, filters)`` and y
    ``(batch, *counts, filters)``, each dense, with channels last. An element ``o`` of y meets element
    ``o * stride + k * dilation - low`` of x in element ``k`` of a window; behind both ends of x there are zeros. Group
    ``g`` of the channels meets group ``g`` of the filters, both in order.

    Attributes:
        op: what is computed: Conv, ConvTranspose or ConvKernelGrad, which is also how a plan is interpreted.
        sought: which of the three c is; a and b are the other two: x and the kernel, y and the kernel, or x and y.
        batch, sizes, counts: how many images, the sizes of those of x, and of y.
        window, strides, dilations, low: one for each axis between the batch and the channels.
        channels, filters: of x and of y, in all groups.
    """

    op: Op
    dtype: DType
    a: int
    b: int
    c: int
    sought: Sought
    batch: Size
    sizes: tuple[Size, ...]
    counts: tuple[Size, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]
    groups: int
    channels: Size
    filters: Size

    @property
    def buffers(self) -> tuple[int, ...]:
        return (self.a, self.b, self.c)

    @property
    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Of a, b and c; their buffers hold as many elements, perhaps in another shape."""
        x, y = (self.batch, *self.sizes, self.channels), (self.batch, *self.counts, self.filters)
        kernel = (*self.window, self.channels // self.groups, self.filters)
        match self.sought:
            case Sought.RESULT:
                return x, kernel, y
            case Sought.INPUT:
                return y, kernel, x
            case Sought.KERNEL:
                return x, y, kernel

    @property
    def multiplications(self) -> Size:
        """How many there are, those with zeros around x included."""
        return self.batch * product(self.counts) * product(self.window) * (self.channels // self.groups) * self.filters


Item = KernelItem | GemmItem | ContractionItem | WinogradItem | AttentionItem | ConvolutionItem


@dataclass(frozen=True)
class Launch:
    """Items that do not depend on each other: they run together, in one parallel region.

    Attributes:
        items: the work; items with the same kernel are one kernel over several sets of buffers.
        label: a short name such as ``adam`` or ``softmax_cross_entropy``.
        nodes: the nodes of the simplified graph that it computes, for ``explain``.
    """

    items: tuple[Item, ...]
    label: str
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Check:
    """A run-time check: which node, and what the message says.

    Attributes:
        kind: ``index`` (detail is the index at fault) or ``finite`` (detail is the flat position).
        limit: for ``index``: the size of the axis.
    """

    kind: str
    node: Node
    limit: Size = 0
    what: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything a backend needs.

    Attributes:
        graph: after all passes; the reference backend executes it directly and the rest is empty.
        launches: in order. Those from ``commit`` on write state; the status cell is tested before them.
        loops: ranges of launches that run several times; outer ones before those within.
        inputs: input buffers in the order of ``graph.inputs``; outputs likewise, of ``graph.outputs``.
        tf32: may products of float32 round their operands to 10 bits of mantissa, where the hardware does?
    """

    graph: Graph
    buffers: tuple[PlanBuffer, ...] = ()
    launches: tuple[Launch, ...] = ()
    commit: int = 0
    parameters: tuple[Parameter, ...] = ()
    constants: tuple[object, ...] = ()
    checks: tuple[Check, ...] = ()
    loops: tuple[Loop, ...] = ()
    tf32: bool = False


@dataclass(frozen=True)
class ArenaLayout:
    """Where each arena buffer lies for one combination of sizes.

    Attributes:
        offsets: byte offset by buffer index, 64-byte aligned.
        peak_bytes: the size of the arena.
        naive_bytes: the sum of all arena buffers, as if each had its own memory.
        largest_live_set_bytes: the most bytes alive at one moment: no plan can need less.
    """

    offsets: Mapping[int, int]
    peak_bytes: int
    naive_bytes: int
    largest_live_set_bytes: int


def repetitions(plan: Plan, launch: int, dims: Mapping[str, int]) -> int:
    """How often a launch runs in a step of the program."""
    times = 1
    for loop in plan.loops:
        if loop.first <= launch < loop.end:
            times *= evaluate(loop.count, dims)
    return times


def size_of(size: Size, dims: Mapping[str, int]) -> int:
    """A size as a number."""
    return evaluate(size, dims)
