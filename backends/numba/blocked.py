"""Matrix products in blocks as items of the executor: when BLAS is left, the argument record and the units.

BLAS packs both operands at each call, for each tile, and its loops take 93 to 97 of the 117 GFLOP/s that a core of the
kind measured (Zen 4) can do. Here the second operand is packed by the unit that multiplies with it, into panels as wide
as register tiles, and the first one is read where it lies. That is 99 to 110, and more for few rows.

- Where sums go along rows of the first operand, tiles are six rows by four vectors: rows that lie a multiple of 4 KiB
  apart share lines of the first cache, which has room for eight.
- Where they go down columns, as in gradients by weights, tiles are two vectors wide, and take what they need of a row
  from one or two lines. These are asked for early, since no hardware foresees them.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.gemm import Product, parts_wanted, tiles
from graphc.lower.plan import GemmItem, size_of

BLOCK = 126
"""Rows of the first operand that stay in the second cache while panel after panel goes by."""
RUN_BYTES = 64 * 1024
"""A panel that is larger is gone through in runs."""
GROUP = 4
"""Panels of a unit, at most."""
PART = 512
"""Rows of a unit, at least, where there are others: packing takes two hundredths of their time."""
LEAST_BYTES = 64
"""Of a vector: processors with shorter ones have 16 registers, too few for tiles that BLAS's would be slower than."""
LEAST_ROWS, LEAST_COLUMNS = 16, 8
"""Of fewer rows packing takes too long, and fewer columns leave more than half of a vector empty."""
READ_IN_PLACE = 1_000_000
"""Multiplications up to which BLAS reads the operands of a tile in place, too, unless the second one is transposed."""


def is_blocked(item: GemmItem, dims: Mapping[str, int]) -> bool:
    """Is a product computed in blocks?"""
    if item.in_panels or vector_bytes() < LEAST_BYTES:
        return False
    m, n, k, batch = (size_of(size, dims) for size in (item.m, item.n, item.k, item.batch))
    if m < LEAST_ROWS or n < LEAST_COLUMNS:
        return False
    rows, columns = tiles(m, n, k, batch)
    return item.transpose_b or rows * columns * k > READ_IN_PLACE


def blocked_rows(down: bool) -> dict[int, tuple[int, ...]]:
    """By the number of vectors of a tile, the most last, how many rows it has, the most first; the last is 1."""
    if down:
        return {1: (8, 2, 1), 2: (14, 8, 4, 2, 1)}
    return {1: (8, 2, 1), 2: (8, 2, 1), 4: (6, 2, 1)}


def blocked_product(item: GemmItem, dims: Mapping[str, int]) -> Product:
    """Fix the sizes. Units depend on the sizes alone, and bits not even on units."""
    width = item.dtype.itemsize
    m, n, k, batch = (size_of(size, dims) for size in (item.m, item.n, item.k, item.batch))
    distances = (item.lda, item.ldb, item.ldc, item.stride_a, item.stride_b, item.stride_c)
    row_bytes = vector_bytes() * max(blocked_rows(item.transpose_a))
    panels = -(-n * width // row_bytes)
    wanted = -(-parts_wanted(2 * m * n * k) // max(batch, 1))
    # all panels of a group read the rows once from far away; each part of the rows packs its panels
    parts = max(min(wanted, m // PART), 1)
    group = max(min(panels * parts // wanted, GROUP), 1)
    groups = -(-panels // group)
    parts = max(parts, min(-(-wanted // max(groups, 1)), m // LEAST_ROWS))
    part = -(-m // parts)
    run = RUN_BYTES // row_bytes
    run = -(-k // max(-(-k // run), 1)) or 1  # runs of about the same length
    words = (
        m, n, k, *(width * size_of(size, dims) for size in distances),
        int(item.transpose_b), group, groups, part, parts, BLOCK, run,
    )  # fmt: skip
    units = batch * parts * groups
    return Product(words, units, 2 * m * n * k * batch // max(units, 1))
