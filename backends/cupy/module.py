"""The translation unit of a plan: its kernels mapped to a GPU, each in the forms in which the plan launches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from graphc.backends.cupy.alternatives import transposition
from graphc.backends.cupy.attended import KeptAttention
from graphc.backends.cupy.attention import Variant
from graphc.backends.cupy.convolution import Variant as Convolving
from graphc.backends.cupy.convolved import PlannedConvolution
from graphc.backends.cupy.epilogues import FinishedGemm
from graphc.backends.cupy.printer import (
    POST_RESULTS,
    Entry,
    dynamic_bytes,
    function_name,
    module_source,
    table_capacity,
)
from graphc.backends.cupy.products import FUNCTIONS, NARROW
from graphc.ir.types import DType
from graphc.loops.gpu import LEAST_SHARED_BYTES, map_to_gpu
from graphc.loops.interp import evaluate_size
from graphc.loops.kernel import Kernel, Pack, walk
from graphc.loops.split import Split, split_reduction
from graphc.lower.plan import GemmItem, KernelItem, Launch, Place, Plan, size_of

FEWEST_PIECES, MOST_WHOLE = 4, 512
"""A reduction is cut into pieces if there are as many, and if no more results than this keep blocks busy."""
KERNELS_OF_A_PART = 8
"""So many are compiled together: each part reads the header again, which takes as long as one small kernel."""


@dataclass(frozen=True)
class Group:
    """Items of one launch that are one launch of a kernel.

    Attributes:
        kernel: mapped, with a name that is its own in the module.
        unaligned: the same without vectors, for arrays that begin anywhere; None if all begin where vectors may.
        guarded: does it write state that must stay as it is once a check has failed?
        table: are its arguments a table of several sets?
        halves: two groups that do the same in pieces, where the sizes ask for that.
    """

    kernel: Kernel
    unaligned: Kernel | None
    items: tuple[KernelItem, ...]
    guarded: bool
    table: bool
    halves: Halves | None = None

    @property
    def entry(self) -> Entry:
        """What is printed for it."""
        return Entry(self.table, self.guarded)


@dataclass(frozen=True)
class Halves:
    """A reduction in two steps; see :mod:`graphc.loops.split`.

    Attributes:
        scratch: indices of the buffers between them, which follow those of the plan.
    """

    split: Split
    first: Group
    second: Group
    scratch: tuple[int, ...]


Work = Group | GemmItem | KeptAttention | PlannedConvolution


@dataclass(frozen=True)
class Scratch:
    """Memory between two kernels that do the work of an item."""

    dtype: DType
    split: Split
    item: KernelItem

    def count(self, dims: Mapping[str, int]) -> int:
        """The number of elements; none where the reduction is not cut."""
        return (
            evaluate_size(self.split.elements, _sizes(self.item, dims)) if is_long(self.split, self.item, dims) else 0
        )


@dataclass(frozen=True)
class Part:
    """CUDA C that is compiled on its own, and the functions in it that are launched."""

    source: str
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """A plan's launches as groups and products, and what is printed for their kernels.

    Attributes:
        turns: kernels that transpose matrices, for each type of which a library may convolve.
        checks: may a step fail?
    """

    work: tuple[tuple[Work, ...], ...]
    entries: tuple[tuple[Kernel, Entry], ...]
    small_products: bool = False
    scratch: tuple[Scratch, ...] = ()
    attention: tuple[Variant, ...] = ()
    convolution: tuple[Convolving, ...] = ()
    turns: tuple[tuple[DType, Kernel], ...] = ()
    checks: bool = False

    @property
    def source(self) -> str:
        """All of it as one translation unit."""
        return module_source(self.entries, self.small_products, self.attention, self.convolution)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The same in pieces that can be compiled side by side.

        A kernel of attention or convolution is one of its own: the next program that needs it finds it compiled.
        """
        found = [Part(module_source((), attention=(variant,)), (variant.name,)) for variant in self.attention]
        found += [Part(module_source((), convolution=(variant,)), (variant.name,)) for variant in self.convolution]
        if self.small_products:
            found.append(Part(module_source((), small_products=True), FUNCTIONS))
        for first in range(0, max(len(self.entries), 1), KERNELS_OF_A_PART):
            some = self.entries[first : first + KERNELS_OF_A_PART]
            header = () if first else (POST_RESULTS,)
            found.append(Part(module_source(some), (*header, *(function_name(*entry) for entry in some))))
        return tuple(found)

    @property
    def shared_bytes(self) -> dict[str, int]:
        """What launches bring of shared memory, by function, where they bring any."""
        found = {variant.name: variant.shared_bytes for variant in (*self.attention, *self.convolution)}
        found |= {function_name(kernel, entry): dynamic_bytes(kernel) for kernel, entry in self.entries}
        return {name: nbytes for name, nbytes in found.items() if nbytes}

    @property
    def functions(self) -> tuple[str, ...]:
        """What it defines for launches."""
        return tuple(name for part in self.parts for name in part.functions)


def make_unit(plan: Plan, tf32: bool = False, shared_bytes: int = LEAST_SHARED_BYTES, library: bool = False) -> Unit:
    """Map the kernels of a plan to a device whose blocks may have so much shared memory.

    Args:
        plan: what is computed.
        tf32: may operands of float32 be rounded to 10 bits of mantissa?
        shared_bytes: what a block may have.
        library: may a library convolve?
    """
    mapper = _Mapper(plan, shared_bytes)
    # a plan from the disk has checks in its kernels alone
    kernels = (item.kernel for launch in plan.launches for item in launch.items if isinstance(item, KernelItem))
    checks = any(kernel.has_checks for kernel in kernels)
    work: list[tuple[Work, ...]] = []
    for position, launch in enumerate(plan.launches):
        work.append(mapper.works(launch, checks and position >= plan.commit))
    entries: dict[tuple[Kernel, Entry], None] = {}
    for outer in (group for works in work for group in works if isinstance(group, Group)):
        for group in (outer, *((outer.halves.first, outer.halves.second) if outer.halves else ())):
            entries[group.kernel, group.entry] = None
            if group.unaligned is not None:
                entries[group.unaligned, group.entry] = None
    small = any(isinstance(item, FinishedGemm) or may_be_small(item) for works in work for item in works)
    attention = (item for works in work for item in works if isinstance(item, KeptAttention))
    variants = dict.fromkeys(variant for item in attention for variant in item.variants(tf32).values())
    convolution = [item for works in work for item in works if isinstance(item, PlannedConvolution)]
    convolving = dict.fromkeys(variant for item in convolution for variant in item.variants(tf32))
    types = dict.fromkeys(item.element for item in convolution if library)
    turns = tuple((dtype, mapper.map(transposition(dtype), vectors=True)) for dtype in types)
    entries |= {(kernel, Entry()): None for _, kernel in turns}
    scratch = tuple(mapper.scratch)
    return Unit(tuple(work), tuple(entries), small, scratch, tuple(variants), tuple(convolving), turns, checks)


def is_long(split: Split, item: KernelItem, dims: Mapping[str, int]) -> bool:
    """Is a reduction long, and are its results too few for all of a GPU?"""
    pieces = evaluate_size(split.pieces, _sizes(item, dims))
    return pieces >= FEWEST_PIECES and size_of(item.extent, dims) < MOST_WHOLE


def _sizes(item: KernelItem, dims: Mapping[str, int]) -> dict[str, int]:
    return {name: size_of(size, dims) for name, size in zip(item.kernel.sizes, item.sizes, strict=True)}


def may_be_small(work: Work) -> bool:
    """Is it a product with a narrow side, which may turn out to be small as a whole?"""
    if not isinstance(work, GemmItem) or work.dtype is not DType.float32 or work.batch != 1:
        return False
    return any(isinstance(size, int) and size <= NARROW for size in (work.n, work.k))


class _Mapper:
    """Maps each kernel of a plan once."""

    def __init__(self, plan: Plan, shared_bytes: int) -> None:
        self.plan = plan
        self.shared_bytes = shared_bytes
        self.mapped: dict[tuple[Kernel, bool], Kernel] = {}
        self.names: set[str] = set()
        self.scratch: list[Scratch] = []

    def works(self, launch: Launch, guarded: bool) -> tuple[Work, ...]:
        """The items of a launch, those with the same kernel as one group."""
        found: list[Work] = [
            item for item in launch.items if isinstance(item, GemmItem | KeptAttention | PlannedConvolution)
        ]
        by_kernel: dict[tuple[Kernel, bool], list[KernelItem]] = {}
        for item in launch.items:
            if isinstance(item, KernelItem):
                lies_inside = any(self.plan.buffers[index].place is Place.SLICE for index in item.buffers)
                by_kernel.setdefault((item.kernel, lies_inside), []).append(item)
        for (kernel, lies_inside), items in by_kernel.items():
            mapped = self.map(kernel, vectors=True)
            has_vectors = any(isinstance(s, Pack) for s in walk(mapped.body))
            unaligned = self.map(kernel, vectors=False) if lies_inside and has_vectors else None
            most = table_capacity(mapped)
            for first in range(0, len(items), most):
                some = tuple(items[first : first + most])
                halves = self._halves(kernel, some[0], guarded) if len(some) == 1 and not lies_inside else None
                found.append(Group(mapped, unaligned, some, guarded, len(some) > 1, halves))
        return tuple(found)

    def _halves(self, kernel: Kernel, item: KernelItem, guarded: bool) -> Halves | None:
        split = split_reduction(kernel)
        if split is None:
            return None
        first = len(self.plan.buffers) + len(self.scratch)
        self.scratch += [Scratch(dtype, split, item) for dtype in split.scratch]
        scratch = tuple(range(first, first + len(split.scratch)))
        places = {buffer.name: place for buffer, place in zip(kernel.buffers, item.buffers, strict=True)}
        groups: list[Group] = []
        for half in (split.first, split.second):
            own = half.buffers[: len(half.buffers) - len(scratch)]
            part = replace(item, kernel=half, buffers=(*(places[buffer.name] for buffer in own), *scratch))
            groups.append(Group(self.map(half, vectors=True), None, (part,), guarded, False))
        return Halves(split, groups[0], groups[1], scratch)

    def map(self, kernel: Kernel, vectors: bool) -> Kernel:
        """The kernel mapped, under a name of its own."""
        if (kernel, vectors) not in self.mapped:
            mapped = map_to_gpu(kernel, vectors=vectors, shared_bytes=self.shared_bytes)
            self.mapped[kernel, vectors] = _named(mapped, self.names)
        return self.mapped[kernel, vectors]


def _named(kernel: Kernel, names: set[str]) -> Kernel:
    """The kernel under a name that no other kernel of the module has."""
    name, number = kernel.name, 1
    while name in names:
        number += 1
        name = f"{kernel.name}_{number}"
    names.add(name)
    return replace(kernel, name=name)
