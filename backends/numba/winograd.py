"""Winograd products as items of the executor: the argument record and the units of one of them, and their memory.

A unit is a block of tiles by some panels of filters. What it transforms and multiplies goes through a slot: memory that
stays in the caches of its thread from one unit to the next, whatever launch they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.threads import CORES, MOST_THREADS, get_threads
from graphc.lower.plan import Plan, WinogradItem, size_of
from graphc.ops.winograd import PANEL, TILE

BLOCK = 56
"""Tiles of a block, at most: each element of the kernel is read once for so many."""
UNITS = 8
"""So many units are wanted, so that threads end together. Units of the same block all transform it."""
PANELS_OF_UNIT = 2
"""At least: transforming the block then takes no more than 4 % of the time."""
LINE = 64


def rows_of_tiles() -> int:
    """How many tiles a register tile of two vectors goes over, at most; see :func:`contraction.tile_rows`."""
    return 14 if vector_bytes() == 64 else 6


@dataclass(frozen=True)
class Winograd:
    """A WinogradItem with its sizes as numbers.

    Attributes:
        words: the argument record after the three addresses and the words of the slots.
        units: how many there are.
        operations: the work of all of them.
        slot_bytes: what a unit needs.
    """

    words: tuple[int, ...]
    units: int
    operations: int
    slot_bytes: int


@dataclass(frozen=True)
class Slots:
    """The memory that units of all Winograd products of a plan share.

    Attributes:
        count: how many units may be under way at once; further ones wait.
        bytes: of each.
    """

    count: int
    bytes: int


def winograd(item: WinogradItem, dims: Mapping[str, int]) -> Winograd:
    """Fix the sizes. Blocks depend on the sizes alone, so that bits do not depend on the threads."""
    width = item.dtype.itemsize
    images, height, wide, channels, high, across = (
        size_of(size, dims) for size in (item.images, *item.sizes, item.channels, *item.counts)
    )
    tiles_down, tiles_across = -(-high // 2), -(-across // 2)
    tiles = images * tiles_down * tiles_across
    blocks = -(-tiles // BLOCK)
    block = -(-tiles // blocks) if blocks else 1
    blocks = -(-tiles // block)
    panels = -(-item.filters // PANEL)
    groups = max(min(-(-UNITS // max(blocks, 1)), panels // PANELS_OF_UNIT), 1)
    # at distances of powers of two rows would drive each other out of the cache, and so would matrices
    row = _apart(width * channels)
    step, result_step = (_apart(block * bytes) for bytes in (row, width * PANEL))
    words = (
        height, wide, channels, item.filters, high, across, *item.low, tiles_down, tiles_across, tiles,
        block, blocks, groups, panels, row, step, result_step,
    )  # fmt: skip
    operations = 2 * size_of(item.multiplications, dims)
    return Winograd(words, blocks * groups, operations, TILE * (step + result_step))


def slots(plan: Plan, dims: Mapping[str, int]) -> Slots:
    """What the Winograd products of a plan need."""
    count = needed = 0
    for launch in plan.launches:
        found = [winograd(item, dims) for item in launch.items if isinstance(item, WinogradItem)]
        count = max(count, sum(one.units for one in found))
        needed = max([needed, *(one.slot_bytes for one in found)])
    return Slots(min(count, max(CORES, get_threads()), MOST_THREADS), needed)


def _apart(count: int) -> int:
    """An odd number of lines that holds so many bytes."""
    return -(-count // LINE) * LINE | LINE
