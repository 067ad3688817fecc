"""Matrix products as items of the executor: the argument record and the tiles of one product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.backends.numba import blas
from graphc.backends.numba.threads import CORES
from graphc.ir.types import DType
from graphc.lower.plan import GemmItem, size_of

SMALL, MEDIUM, TILE_OPERATIONS = 1_000_000, 2_000_000, 32_000_000
"""Products of fewer operations than SMALL are one tile, below MEDIUM two, and from there on at least four."""
TILES_PER_CORE = 2
"""At most, of a large product: a core that others keep busy then leaves half of its share to the rest."""
OPERATIONS_PER_ELEMENT = 16
"""A product with one row or one column is bound by reading: a core does this many operations in an element's time."""
MOST_TILES = 32
ALIGNMENT = 16
"""Tiles begin at multiples of this: whole blocks of BLAS's inner kernels and whole cache lines."""


@dataclass(frozen=True)
class Product:
    """A GemmItem with its sizes as numbers.

    Attributes:
        words: the argument record after the three addresses.
        tiles: how many tiles there are, over the batch.
        operations: the work of one tile, as for :func:`_work`.
    """

    words: tuple[int, ...]
    tiles: int
    operations: int


def product(item: GemmItem, dims: Mapping[str, int]) -> Product:
    """Fix the sizes. The tiles depend on the sizes alone, so that bits do not depend on the threads."""
    m, n, k, batch = (size_of(size, dims) for size in (item.m, item.n, item.k, item.batch))
    # BLAS insists on distances of at least a row, also where there is only one row
    lda = max(size_of(item.lda, dims), m if item.transpose_a else k, 1)
    ldb = max(size_of(item.ldb, dims), k if item.transpose_b else n, 1)
    ldc = max(size_of(item.ldc, dims), n, 1)
    strides = (size_of(size, dims) for size in (item.stride_a, item.stride_b, item.stride_c))
    tile_m, tile_n = tiles(m, n, k, batch)
    tiles_m, tiles_n = (-(-m // tile_m), -(-n // tile_n))
    letter = "s" if item.dtype is DType.float32 else "d"
    words = (
        m, n, k, lda, ldb, ldc, int(item.transpose_a), int(item.transpose_b), *strides,
        tile_m, tile_n, tiles_m, tiles_n, blas.address(f"{letter}gemm"), blas.address(f"{letter}gemv"),
    )  # fmt: skip
    return Product(words, batch * tiles_m * tiles_n, _work(tile_m, tile_n, k))


def parts_wanted(operations: int) -> int:
    """Into how many parts a product of so many operations is cut."""
    if operations < MEDIUM:
        return 1 if operations < SMALL else 2
    return max(4, min(operations // TILE_OPERATIONS, TILES_PER_CORE * CORES))


def _work(m: int, n: int, k: int) -> int:
    """Operations of a product, at least those that could be done while its matrices pass through the caches."""
    return max(2 * m * n * k, OPERATIONS_PER_ELEMENT * (m * k + k * n + m * n))


def tiles(m: int, n: int, k: int, batch: int) -> tuple[int, int]:
    """The size of a tile: rows, columns.

    Each tile makes BLAS pack its operands anew. Cutting the longer side costs least: a few hundredths of the time
    for four tiles, measured from 128 x 128 x 128 to 1024 x 1024 x 1024, while two threads take half the time. Sixteen
    tiles of 1024 x 256 x 1024 take 11 to 15 % more than four. How many cores there are counts, not how many are used.
    """
    wanted = min(parts_wanted(_work(m, n, k)), MOST_TILES // max(batch, 1))
    least = 128 if wanted > 4 else 32
    long, short = max(m, n), min(m, n)
    parts = min(wanted, -(-long // least))
    if parts <= 1:
        return max(m, 1), max(n, 1)
    long = _tile(long, parts)
    short = _tile(short, max(min(wanted // parts, -(-short // least)), 1))
    return (long, short) if m >= n else (short, long)


def _tile(size: int, parts: int) -> int:
    tile = -(-size // parts)
    return max(min(-(-tile // ALIGNMENT) * ALIGNMENT, size), 1)
