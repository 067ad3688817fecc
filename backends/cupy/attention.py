"""Attention as kernels: which of the kernels in attention.cuh computes an item, and with which arguments.

Forward is one launch. Gradients are three: the products of results and cotangents, then the gradients of keys and
values by blocks of keys, then those of queries by blocks of queries. Nothing is added up by several blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np

from graphc.backends.cupy.device import Launch
from graphc.ir.types import DType

WIDTHS = (16, 32, 64, 96, 128)
"""Sizes of heads that there are kernels for; others are filled up with zeros."""
WARPS, WARP, DELTA_WARPS = 4, 32, 8
PADDING = 16
"""Bytes between the rows of a tile."""
HALF = 2
"""Bytes of a 16-bit float."""


class Part(Enum):
    """What a kernel computes."""

    FORWARD = "forward"
    DELTAS = "deltas"
    KEYS = "keys"
    QUERIES = "queries"


@dataclass(frozen=True)
class Tiling:
    """How the work of a block is cut.

    Attributes:
        m: a warp has 16 times as many rows of what stays.
        n: a tile of what passes has 8 times as many rows.
        stages: tiles of what passes that have room, for gradients.
    """

    m: int
    n: int
    stages: int = 2


@dataclass(frozen=True)
class Variant:
    """One kernel: an instantiation of a template.

    Attributes:
        kind: the structure in tiles.cuh that says how elements are stored and multiplied.
        width: of :data:`WIDTHS`.
        mask: ``NO_MASK``, ``ALLOWING`` or ``ADDED``.
    """

    part: Part
    kind: str
    width: int = 0
    causal: bool = False
    mask: str = "NO_MASK"
    dropout: bool = False

    structure: ClassVar[str] = "Attention"
    """That of the arguments."""

    @property
    def name(self) -> str:
        """Of the function."""
        parts = ["attention", self.part.value, self.kind.lower()]
        parts += [str(self.width)] * bool(self.width) + ["causal"] * self.causal
        parts += [self.mask.lower()] * (self.mask != "NO_MASK") + ["dropout"] * self.dropout
        return "_".join(parts)

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * (DELTA_WARPS if self.part is Part.DELTAS else WARPS)

    @property
    def tiling(self) -> Tiling:
        """What leaves no value without a register, with two blocks on each multiprocessor at least."""
        halves, small, plain = self.kind in ("Bfloat16", "Float16"), self.width <= 64, not self.dropout
        if self.part is Part.FORWARD:
            if halves:
                return Tiling(2, 8 if plain and self.mask == "NO_MASK" else 4) if small else Tiling(1, 8)
            return Tiling(2 if plain and small else 1, 4)
        if halves:
            crowded = self.part is Part.KEYS and self.mask != "NO_MASK"
            return Tiling(2 if plain and small and not crowded else 1, 2 if crowded and not small else 4)
        return Tiling(1, 4) if small else Tiling(1, 2, 2 if self.width < 128 else 1)

    @property
    def rows(self) -> int:
        """How many rows a block keeps, each warp a part of them."""
        return DELTA_WARPS if self.part is Part.DELTAS else 16 * self.tiling.m * WARPS

    @property
    def shared_bytes(self) -> int:
        """Memory that the threads of a block share."""
        if self.part is Part.DELTAS:
            return 0
        pitch = self.width * (2 if self.kind in ("Bfloat16", "Float16") else 4) + PADDING
        passing = 8 * self.tiling.n
        if self.part is Part.FORWARD:
            return (self.rows + 2 * passing) * pitch
        return 2 * self.rows * pitch + self.tiling.stages * 2 * passing * (pitch + 4)

    @property
    def source(self) -> str:
        """The function."""
        if self.part is Part.DELTAS:
            call = f"attention_deltas<{self.kind}, {DELTA_WARPS}>"
        else:
            said = [self.kind, self.width, self.tiling.m, self.tiling.n, WARPS]
            said += [] if self.part is Part.FORWARD else [self.tiling.stages, _c(self.part is Part.KEYS)]
            said += [_c(self.causal), self.mask, _c(self.dropout)]
            template = "forward" if self.part is Part.FORWARD else "gradient"
            call = f"attention_{template}<{', '.join(map(str, said))}>"
        blocks = 1 if self.part is Part.DELTAS else 2
        return (
            f'extern "C" __global__ void __launch_bounds__({self.threads}, {blocks})\n'
            f"{self.name}(const __grid_constant__ Attention arguments) {{\n    {call}(arguments);\n}}\n"
        )


def _c(value: bool) -> str:
    return "true" if value else "false"


def variants(
    element: DType, tf32: bool, width: int, causal: bool, mask: str, dropout: bool, parts: Sequence[Part]
) -> dict[Part, Variant]:
    """The kernels for operands of an element type, of which the widest has so many columns."""
    kind = {DType.bfloat16: "Bfloat16", DType.float16: "Float16"}.get(element, "Tf32" if tf32 else "Float32")
    filled = next(known for known in WIDTHS if known >= width)
    return {
        part: Variant(part, kind) if part is Part.DELTAS else Variant(part, kind, filled, causal, mask, dropout)
        for part in parts
    }


@dataclass(frozen=True)
class Placed:
    """Where matrices lie.

    Attributes:
        address: of the first; 0 where there is nothing.
        steps: in elements, how far apart what follows along the three leading axes, rows and columns are.
    """

    address: int = 0
    steps: tuple[int, ...] = (0,) * 5
    itemsize: int = 1

    def span(self, sizes: Sequence[int]) -> tuple[int, int]:
        """Where the first element of arrays of these sizes begins, and where the last one ends."""
        if not min(sizes):
            return self.address, self.address
        last = sum(step * (size - 1) for step, size in zip(self.steps, sizes, strict=True))
        return self.address, self.address + (last + 1) * self.itemsize

    def is_aligned(self, width: int, unit: int) -> bool:
        """Do rows of ``width`` begin and end at multiples of ``unit`` bytes, with columns side by side?"""
        *others, column = self.steps
        sizes = (self.address, *(self.itemsize * step for step in (*others, width)))
        return column == 1 and not any(size % unit for size in sizes)


@dataclass(frozen=True)
class Call:
    """Attention of known sizes at known places.

    Attributes:
        gradients: by query, key and value.
        statistics, deltas, seed, step: addresses, or 0.
        leading: the sizes of the three leading axes.
        sizes: how many queries and keys, and how wide keys and values.
    """

    query: Placed
    key: Placed
    value: Placed
    mask: Placed
    cotangent: Placed
    result: Placed
    gradients: tuple[Placed, Placed, Placed]
    statistics: int
    deltas: int
    seed: int
    step: int
    leading: tuple[int, int, int]
    sizes: tuple[int, int, int, int]
    scale: float
    rate: float = 0.0
    stream: int = 0

    @property
    def words(self) -> tuple[int, ...]:
        """The structure ``Attention`` of attention.cuh."""
        _, _, width, value_width = self.sizes
        widths = (width, width, value_width)
        read = [*zip((self.query, self.key, self.value), widths, strict=True), (self.cotangent, value_width)]
        written = [(self.result, value_width), *zip(self.gradients, widths, strict=True)]
        aligned = all(placed.is_aligned(columns, 16) for placed, columns in read if placed.address)
        aligned = aligned and all(a.is_aligned(columns, 2 * a.itemsize) for a, columns in written if a.address)
        operands = (self.query, self.key, self.value, self.mask, self.cotangent)
        places = [word for a in (*operands, self.result, *self.gradients) for word in (a.address, *a.steps)]
        numbers = (self.statistics, self.deltas, self.seed, self.step, self.stream, *self.leading, *self.sizes)
        # the part that is kept is compared with random floats, and so a float itself
        narrow = (int(self.result.itemsize == HALF), int(self.gradients[0].itemsize == HALF))
        return (*places, *numbers, int(aligned), *narrow, _bits(self.scale), _bits(float(np.float32(1 - self.rate))))

    @property
    def gradient_spans(self) -> list[tuple[int, int]]:
        """The memory of each gradient, from its first element to its last: perhaps with another one's between."""
        rows, columns, width, value_width = self.sizes
        matrices = ((rows, width), (columns, width), (columns, value_width))
        return [placed.span((*self.leading, *matrix)) for placed, matrix in zip(self.gradients, matrices, strict=True)]

    def launch(self, variant: Variant) -> Launch | None:
        """The launch of one kernel; None if there is nothing to do."""
        heads = self.leading[0] * self.leading[1] * self.leading[2]
        rows, columns, *_ = self.sizes
        if variant.part is Part.DELTAS:
            blocks = -(-heads * rows // variant.rows)
        else:
            blocks = heads * -(-(columns if variant.part is Part.KEYS else rows) // variant.rows)
        return Launch(variant.name, blocks, variant.threads, self.words, True, variant.shared_bytes) if blocks else None


def _bits(number: float) -> int:
    """The bits of a float64."""
    return struct.unpack("<q", struct.pack("<d", number))[0]
