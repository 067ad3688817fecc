"""Products of patches as items of the executor: the argument record and the units of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from graphc.backends.numba.machine import cpu_features
from graphc.backends.numba.table import ROW_SIZES
from graphc.lower.plan import Axis, ContractionItem, size_of

VECTORS_OF_TILES = (1, 2, 4)
NARROW_TILE = 3
"""Stands for one vector of half the width."""
UNITS = 16
"""So many units are wanted at least, so that threads end together."""
PANEL_BYTES = 192 * 1024
"""A panel of shared elements that is larger is gone through in runs, which stay in the second cache meanwhile."""
RUN_BYTES = 96 * 1024
SMALL_BYTES = 256 * 1024
"""Shared elements that are more than this in all are gone through panel by panel, each for all images."""
LATENCY = 4
"""So many sums must be under way for one multiplication a cycle."""
NO_PARTS = 1 << 40


@cache
def vector_bytes() -> int:
    """The width of this machine's vectors."""
    features = cpu_features().split(",")
    return 64 if "+avx512f" in features else 32 if "+avx2" in features else 16


def tile_rows(vectors: int) -> tuple[int, ...]:
    """How many rows tiles of so many vectors have, the most first; the last is 1.

    Sums and the shared vectors must fit into the registers: 32 with AVX-512, else 16 are reckoned with.
    """
    if vector_bytes() == 64:
        return {1: (16, 14, 8, 4, 1), 2: (14, 8, 4, 1), 4: (7, 4, 1)}[vectors]
    return {1: (8, 4, 1), 2: (6, 4, 1), 4: (2, 1)}[vectors]


@dataclass(frozen=True)
class Contraction:
    """A ContractionItem with its sizes as numbers.

    Attributes:
        words: the argument record after the three addresses.
        units: how many there are.
        operations: the work of all of them.
    """

    words: tuple[int, ...]
    units: int
    operations: int


def contraction(item: ContractionItem, dims: Mapping[str, int]) -> Contraction:
    """Fix the sizes. Tiles and units depend on the sizes alone, so that bits do not depend on the threads."""
    width = item.dtype.itemsize

    def numbers(axis: Axis) -> tuple[int, int, int, int]:
        a, b, c = (width * size_of(size, dims) for size in (axis.a, axis.b, axis.c))
        return size_of(axis.count, dims), a, b, c

    outer, sums = [numbers(axis) for axis in item.outer], [numbers(axis) for axis in item.sums]
    rows, columns = numbers(item.rows), size_of(item.columns, dims)
    full = vector_bytes() // width
    narrow = columns <= full // 2
    lanes = full // 2 if narrow else full
    fixed = item.parts is not None
    tiling = Tiling(rows[0], columns, lanes, fixed)
    vectors = tiling.vectors
    panels = -(-columns // (vectors * lanes))
    (images, *_), (across, *_), _ = outer
    terms = sums[0][0] * sums[1][0] * sums[2][0]
    blocks = across if fixed else min(across, -(-UNITS // max(images * panels, 1)))
    block = -(-across // max(blocks, 1)) or 1
    blocks = -(-across // block)
    shared = width * vectors * lanes
    at_once = fixed or terms * shared <= PANEL_BYTES
    run = max(RUN_BYTES // shared, 1)
    run = -(-sums[2][0] // max(-(-sums[2][0] // run), 1)) or 1  # runs of about the same length
    sizes = [size for count in VECTORS_OF_TILES for size in tiling.sizes(count)]
    words = (
        *(word for axis in outer for word in axis),
        rows[0], rows[1], rows[3], columns,
        *(word for axis in sums for word in axis[:3]),
        NO_PARTS if item.parts is None else size_of(item.parts, dims),
        lanes, int(narrow), vectors, block, blocks, panels,
        int(not fixed and terms * width * columns > SMALL_BYTES), int(at_once), run, *sizes,
    )  # fmt: skip
    return Contraction(words, images * blocks * panels, 2 * size_of(item.multiplications, dims))


@dataclass(frozen=True)
class Tiling:
    """Which tiles take the fewest cycles, as reckoned for a step of the sum.

    Attributes:
        rows, columns: of all tiles together.
        lanes: elements of a vector.
        streams: whether no tile finds in the first cache what it reads.
    """

    rows: int
    columns: int
    lanes: int
    streams: bool

    @property
    def vectors(self) -> int:
        """The width of tiles."""
        return min(VECTORS_OF_TILES, key=lambda count: (self._cost(count), -count))

    def sizes(self, vectors: int) -> tuple[int, ...]:
        """The sizes of tiles that are tried in turn, for ROW_SIZES words: the best to begin with, and smaller ones."""
        known = tile_rows(vectors)
        best = min((known[first:] for first in range(len(known))), key=lambda order: self._down(order, vectors))
        return (*best, *(1,) * (ROW_SIZES - len(best)))

    def _cost(self, vectors: int) -> float:
        """Cycles for all rows and columns."""
        left, cost = -(-self.columns // self.lanes), 0.0
        while left > 0:
            count = max(size for size in VECTORS_OF_TILES if size <= min(vectors, left))
            cost += self._down(self.sizes(count), count)
            left -= count
        return cost

    def _down(self, sizes: tuple[int, ...], vectors: int) -> float:
        """Cycles for all rows of one column of tiles."""
        left, cost = self.rows, 0.0
        for size in sizes:
            cost += left // size * self._tile(size, vectors)
            left %= size
        return cost

    def _tile(self, rows: int, vectors: int) -> float:
        """Multiplications, one a cycle, or loads, two a cycle; the loop; and lines from the second cache."""
        cycles = max(rows * vectors, (rows + 2 * vectors) / 2, LATENCY) + 0.5
        return cycles + (vectors + 1 if self.streams else 0)
