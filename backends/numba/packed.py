"""Products with packed panels as items of the executor: the argument record and the units of one of them."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.gemm import Product
from graphc.lower.plan import GemmItem, size_of

VECTORS = 2
"""The width of tiles."""
BLOCK = 140
"""Rows of a unit, about: they stay in cache while panel after panel goes by."""
UNITS = 16
"""So many units are wanted at least, so that threads end together."""
RUN_BYTES = 256 * 1024
"""A panel that is larger is gone through in runs, which stay in the second cache while all rows of a unit pass by."""


def packed_rows(vectors: int) -> tuple[int, ...]:
    """How many rows tiles of so many vectors have, the most first; the last is 1.

    Two rows are enough to hide half of what a multiplication waits for its sum, four to hide all.
    """
    if vector_bytes() == 64:
        return {1: (8, 2, 1), 2: (14, 8, 4, 2, 1)}[vectors]
    return {1: (8, 2, 1), 2: (6, 4, 2, 1)}[vectors]


def packed_product(item: GemmItem, dims: Mapping[str, int]) -> Product:
    """Fix the sizes. The units depend on the sizes alone, so that bits do not depend on the threads."""
    width = item.dtype.itemsize
    m, n, k, columns = (size_of(size, dims) for size in (item.m, item.n, item.k, item.ldb))
    panels = -(-n // columns)
    tallest = packed_rows(VECTORS)[0]
    blocks = max(-(-m // BLOCK), min(-(-UNITS // max(panels, 1)), -(-m // tallest)), 1)
    block = -(-m // (blocks * tallest)) * tallest or tallest
    blocks = -(-m // block)
    run = max(RUN_BYTES // (columns * width), 1)
    run = -(-k // max(-(-k // run), 1)) or 1  # runs of about the same length
    words = (
        m, n, k, width * size_of(item.lda, dims), width * size_of(item.ldc, dims),
        columns, panels, block, run, vector_bytes() // width,
    )  # fmt: skip
    units = blocks * panels
    return Product(words, units, 2 * m * n * k // max(units, 1))
