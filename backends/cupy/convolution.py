"""Convolutions as kernels: which of those in convolution.cuh and depthwise.cuh compute an item, with which arguments.

A product of matrices is cut into tiles, a block each; of a few tilings those that suit the number of columns are
compiled, and the sizes decide among them. The gradient by a kernel has few tiles and a long inner axis: parts of that
have blocks of their own, and a second launch adds them up in order. Nothing is added up by several blocks at once.

What bounds a tile of 128 x 128, counted and not measured, for 64 bytes of the inner axis (1.05 MFLOP of halves, 0.52 of
32 bits) on a multiprocessor of an H100:

- *Second cache.* 16 KiB come from there: 64 operations a byte in 16 bits, 32 in TF32. At 5.5 TB/s, a figure that is
  published for it, all 132 reach 350 TFLOP/s in 16 bits and 176 in TF32. This is the bound of both; tiles of 256 x 128,
  where there are enough of them, raise it to 470 and 235, and a first cache that keeps what windows share would, too.
- *Shared memory.* 4 warps read 64 rows of each side, 32 KiB, and 16 KiB are written: 384 cycles at 128 bytes each.
- *Tensor cores.* As many multiplications from registers, at the 650 TFLOP/s that ``mma.sync`` was measured to reach in
  16 bits, take 374 cycles: as long as shared memory, so that the two together allow 630 TFLOP/s.
- *Float32.* 128 lanes take 2,048 cycles: arithmetic is the bound, at 59 TFLOP/s.
- *Registers.* A lane keeps 128 sums, 20 words of operands, and where it reads: two blocks of 128 threads have 255 each.

So by this estimate a layer of ResNet-50, 3 x 3 x 256 x 256 on 14 x 14 pixels, batch 64 (14.8 GFLOP, 196 tiles), should
take 0.042 ms in bfloat16, 0.084 in TF32 and 0.34 in float32, where 64 multiprocessors have two tiles and the rest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from graphc.backends.cupy.device import Launch
from graphc.errors import BackendError
from graphc.ir.types import DType
from graphc.lower.plan import Sought

AXES = 3
"""So many axes between batch and channels have room in arguments."""
STAGES = 3
"""Pieces of the inner axis that are in shared memory, one of them being multiplied."""
INNER_BYTES, PADDING, SPOT_BYTES = 64, 16, 16
BUSY = 132
"""So many blocks are worth larger tiles: a multiprocessor each."""
MOST_BLOCKS, SHORTEST_PART = 264, 512
"""Positions are cut into parts, none shorter than this, until there are so many blocks: two on each multiprocessor."""
MOST_PIXELS = 1 << 31
THREADS = 256
"""Of a block that has an element or some for each thread."""
LANES, ELEMENTS, WARPS = 32, 9, 8
"""What a block for the gradient of single channels takes: neighbouring filters, elements of windows, rows in turn."""


@dataclass(frozen=True)
class Tiling:
    """How a block's part of a product is cut: ``down`` x ``across`` warps, each with 16 m x 8 n elements."""

    m: int
    n: int
    down: int
    across: int

    @property
    def rows(self) -> int:
        return 16 * self.m * self.down

    @property
    def columns(self) -> int:
        return 8 * self.n * self.across

    @property
    def threads(self) -> int:
        return 32 * self.down * self.across


TALL, LARGE, MEDIUM = Tiling(4, 8, 4, 2), Tiling(4, 8, 2, 2), Tiling(4, 4, 2, 2)
"""256 x 128, 128 x 128, 128 x 64."""
NARROW, SMALL = Tiling(2, 4, 4, 1), Tiling(2, 4, 2, 2)
"""128 x 32, 64 x 64."""


@dataclass(frozen=True)
class Variant:
    """One kernel: an instantiation of a template.

    Attributes:
        kind: the structure in tiles.cuh that says how elements are stored and multiplied.
        sought: which operand is computed; None for the sum of parts.
        axes: how many of them have more than one element, at least 2.
        tiling: of a product of matrices; None for what is computed channel by channel.
        wide: are the left and the right operand brought 16 bytes at a time?
        vector: how many neighbours a thread computes, where there is no tiling.
    """

    kind: str
    sought: Sought | None
    axes: int = 2
    tiling: Tiling | None = None
    wide: tuple[bool, bool] = (True, True)
    vector: int = 1

    structure: ClassVar[str] = "Convolution"
    """That of the arguments."""

    @property
    def name(self) -> str:
        """Of the function."""
        if self.sought is None:
            return f"convolution_total_{self.kind.lower()}"
        if self.tiling is None:
            return f"depthwise_{self.sought.value}_{self.kind.lower()}_{self.vector}"
        said = f"{self.tiling.rows}x{self.tiling.columns}_{self.axes}d"
        odd = "".join(f"_odd_{side}" for side, wide in zip(("a", "b"), self.wide, strict=True) if not wide)
        return f"convolution_{self.sought.value}_{self.kind.lower()}_{said}{odd}"

    @property
    def threads(self) -> int:
        """Of a block."""
        return THREADS if self.tiling is None else self.tiling.threads

    @property
    def blocks(self) -> int:
        """For so many a multiprocessor has registers. A thread keeps 4 m n sums, and words of operands beside them."""
        if self.tiling is None:
            return 2
        each = self.tiling.m * self.tiling.n
        return 256 // self.threads if each > 16 else {16: 3, 8: 4}[each] - (self.kind == "Float32")

    @property
    def shared_bytes(self) -> int:
        """Memory that the threads of a block share, as much as the launch asks for."""
        if self.tiling is None or self.sought is None:
            return 0
        element = 2 if self.kind in ("Bfloat16", "Float16") else 4
        inner = INNER_BYTES // element

        def panel(length: int, turned: bool) -> int:
            pitch = length * element + PADDING * element // 2
            return inner * pitch if turned else length * INNER_BYTES

        of_kernel = self.sought is Sought.KERNEL
        stage = panel(self.tiling.rows, of_kernel) + panel(self.tiling.columns, self.sought is not Sought.INPUT)
        spots = 2 * inner if of_kernel else 0 if self.wide[0] else self.tiling.rows
        return STAGES * stage + spots * SPOT_BYTES

    @property
    def source(self) -> str:
        """The function."""
        if self.sought is None:
            call = f"convolution_total<{self.kind}>"
        elif self.tiling is None:
            more = f", {ELEMENTS}, {WARPS}" if self.sought is Sought.KERNEL else ""
            call = f"depthwise_{self.sought.value}<{self.kind}, {self.vector}{more}>"
        else:
            t = self.tiling
            cut = f"{t.m}, {t.n}, {t.down}, {t.across}, {STAGES}"
            wide = ", ".join(str(wide).lower() for wide in self.wide)
            call = f"convolve<{self.kind}, {self.sought.name}, {self.axes}, {cut}, {wide}>"
        return (
            f'extern "C" __global__ void __launch_bounds__({self.threads}, {self.blocks})\n'
            f"{self.name}(const __grid_constant__ Convolution arguments) {{\n    {call}(arguments);\n}}\n"
        )


@dataclass(frozen=True)
class Axis:
    """One axis between the batch and the channels, as ``ConvolutionAxis`` of convolution.cuh."""

    size: int = 1
    count: int = 1
    window: int = 1
    stride: int = 1
    dilation: int = 1
    low: int = 0


@dataclass(frozen=True)
class Sizes:
    """A convolution of known sizes, which mean what they do in :class:`graphc.lower.plan.ConvolutionItem`."""

    sought: Sought
    batch: int
    axes: tuple[Axis, ...]
    channels: int
    filters: int
    groups: int

    @property
    def elements(self) -> int:
        """Of a window."""
        return prod(axis.window for axis in self.axes)

    @property
    def positions(self) -> int:
        """Of y."""
        return self.batch * prod(axis.count for axis in self.axes)

    @property
    def weights(self) -> int:
        """Elements of the kernel."""
        return self.elements * (self.channels // self.groups) * self.filters

    @property
    def results(self) -> int:
        """Elements of what is sought."""
        match self.sought:
            case Sought.RESULT:
                return self.positions * self.filters
            case Sought.INPUT:
                return self.batch * prod(axis.size for axis in self.axes) * self.channels
            case Sought.KERNEL:
                return self.weights

    def tiles(self, variant: Variant) -> int:
        """How many blocks there are, but for parts of positions."""
        if variant.tiling is None:
            if self.sought is not Sought.KERNEL:
                return -(-self.results // (variant.vector * THREADS))
            return -(-self.filters // (LANES * variant.vector)) * -(-self.elements // ELEMENTS)
        columns = (self.channels if self.sought is Sought.INPUT else self.filters) // self.groups
        match self.sought:
            case Sought.RESULT:
                rows, phases = self.positions, 1
            case Sought.INPUT:  # phases of positions have blocks of their own, as many as the longest takes
                rows = self.batch * prod(-(-axis.size // axis.stride) for axis in self.axes)
                phases = prod(axis.stride for axis in self.axes)
            case Sought.KERNEL:
                rows, phases = self.elements * self.channels // self.groups, 1
        return -(-rows // variant.tiling.rows) * phases * self.groups * -(-columns // variant.tiling.columns)

    def parts(self, variant: Variant) -> int:
        """Into how many parts positions are cut."""
        if self.sought is not Sought.KERNEL:
            return 1
        return max(1, min(-(-self.positions // SHORTEST_PART), most_parts(self.tiles(variant))))

    def scratch_bytes(self, variant: Variant) -> int:
        """Memory for sums of parts."""
        parts = self.parts(variant)
        return parts * self.weights * DType.float32.itemsize if parts > 1 else 0

    def chosen(self, variants: Sequence[Variant]) -> Variant:
        """That one of the variants, larger tiles first, that keeps a GPU busy; the last one if none does."""
        enough = (variant for variant in variants if self.tiles(variant) * self.parts(variant) >= BUSY)
        return next(enough, variants[-1])

    def launches(
        self, variant: Variant, operands: tuple[int, int, int], scratch: int, narrow: bool
    ) -> Iterator[Launch]:
        """The launches of a variant, one after the other.

        Args:
            variant: computes it, or the first step of it.
            operands: the addresses of a, b and c, as the item has them.
            scratch: the address of as many bytes as :meth:`scratch_bytes` says.
            narrow: has c the element type of a and b? Else it is float32.
        """
        if not self.results:
            return
        pixels = self.batch * max(prod(axis.size for axis in self.axes), prod(axis.count for axis in self.axes))
        if pixels >= MOST_PIXELS:
            raise BackendError(
                f"a convolution of {pixels:,} pixels has more than the {MOST_PIXELS - 1:,} that its kernels count",
                remedy="take a smaller batch",
            )
        parts = self.parts(variant)
        length = -(-self.positions // parts)
        itemsize = 2 if narrow else 4
        columns = self.channels if self.sought is Sought.INPUT else self.filters
        pairs = not (operands[2] % (2 * itemsize) or columns // self.groups % 2)
        numbers = (self.batch, self.channels, self.filters, self.groups, parts, max(length, 1), narrow, pairs)
        filled = (*(Axis(),) * (AXES - len(self.axes)), *self.axes)
        axes = (n for a in filled for n in (a.size, a.count, a.window, a.stride, a.dilation, a.low))
        words = (*operands, scratch, *map(int, numbers), *axes)
        yield Launch(variant.name, self.tiles(variant) * parts, variant.threads, words, True, variant.shared_bytes)
        if parts > 1:
            total = Variant(variant.kind, None)
            yield Launch(total.name, -(-self.weights // THREADS), THREADS, words, True)


def most_parts(tiles: int) -> int:
    """Into how many parts positions are cut at most, where one of them takes so many blocks."""
    return max(1, MOST_BLOCKS // max(tiles, 1))


def kind_of(element: DType, tf32: bool) -> str:
    """The structure in tiles.cuh for operands of this type."""
    return {DType.bfloat16: "Bfloat16", DType.float16: "Float16"}.get(element, "Tf32" if tf32 else "Float32")


def variants(
    sought: Sought, kind: str, window: Sequence[int], channels: int, filters: int, groups: int, aligned: bool = True
) -> tuple[Variant, ...]:
    """The kernels that compute a convolution, those with larger tiles first; the sizes choose one.

    Args:
        aligned: do the operands begin at multiples of 16 bytes?
    """
    if groups > 1 and groups == channels:
        vector = 4 if aligned and filters == channels and channels % 4 == 0 else 1
        return (Variant("Float32" if kind == "Tf32" else kind, sought, vector=vector),)
    chunk = 8 if kind in ("Bfloat16", "Float16") else 4
    own, theirs = channels // groups, filters // groups
    wide_x, wide_y = (aligned and not (own_size % chunk) for own_size in (own, theirs))
    wide = {Sought.RESULT: (wide_x, wide_y), Sought.INPUT: (wide_y, wide_y), Sought.KERNEL: (wide_x, wide_y)}[sought]
    axes = 3 if len(window) == AXES else 2
    rows, columns = prod(window) * own, own if sought is Sought.INPUT else theirs
    if columns <= NARROW.columns:
        tilings = (NARROW,)
    elif sought is Sought.KERNEL:
        tilings = (SMALL if rows <= SMALL.rows else MEDIUM if columns <= MEDIUM.columns else LARGE,)
    else:
        tilings = (MEDIUM, SMALL) if columns <= MEDIUM.columns else (TALL, LARGE, SMALL)
    return tuple(Variant(kind, sought, axes, tiling, wide) for tiling in tilings)
