"""The kernel of products with packed panels: tiles of a few rows and a part of a panel, which stay in registers.

This module imports Numba, so it is only loaded to compile what is not in the cache.
"""

from __future__ import annotations

from collections.abc import Callable

from numba.core import types

from graphc.backends.numba.intrinsics import floor_divide, minimum
from graphc.backends.numba.packed import VECTORS, packed_rows
from graphc.backends.numba.table import (
    PANELS_A,
    PANELS_B,
    PANELS_BLOCK,
    PANELS_C,
    PANELS_COUNT,
    PANELS_K,
    PANELS_LANES,
    PANELS_LDA,
    PANELS_LDC,
    PANELS_M,
    PANELS_N,
    PANELS_RUN,
    PANELS_WIDTH,
)
from graphc.backends.numba.tiles import any_tile


def products_with_panels(element: types.Float) -> Callable[..., None]:
    """The kernel of a GemmItem in panels: units ``lo`` to ``hi``, each some rows by a panel, panels innermost."""
    width = element.bitwidth // 8
    sizes = {vectors: packed_rows(vectors) for vectors in range(1, VECTORS + 1)}
    tile = any_tile(element, sizes)
    tallest = max(sizes[VECTORS][0], sizes[1][0])
    fitting = {
        vectors: tuple(max(size for size in known if size <= max(left, 1)) for left in range(tallest + 1))
        for vectors, known in sizes.items()
    }
    one, two = fitting[1], fitting[2]

    def multiply(args, lo, hi):
        lanes, columns = args[PANELS_LANES], args[PANELS_WIDTH]
        for unit in range(lo, hi):
            number = floor_divide(unit, args[PANELS_COUNT])
            panel = unit - number * args[PANELS_COUNT]
            start = number * args[PANELS_BLOCK]
            stop = minimum(start + args[PANELS_BLOCK], args[PANELS_M])
            end = minimum(columns * (panel + 1), args[PANELS_N])
            from_b = args[PANELS_B] + width * columns * panel * args[PANELS_K]
            k = 0
            while k == 0 or k < args[PANELS_K]:
                terms = minimum(args[PANELS_RUN], args[PANELS_K] - k)
                column = columns * panel
                while column < end:
                    vectors = 2 if end - column > lanes else 1
                    last = minimum(lanes, end - column - (vectors - 1) * lanes)
                    b = from_b + width * (columns * k + column - columns * panel)
                    row = start
                    while row < stop:
                        left = minimum(stop - row, tallest)
                        rows = two[left] if vectors == 2 else one[left]
                        tile(
                            rows, vectors,
                            args[PANELS_C] + row * args[PANELS_LDC] + width * column, args[PANELS_LDC],
                            args[PANELS_A] + row * args[PANELS_LDA] + width * k, args[PANELS_LDA], b,
                            1, 0, 0, 1, 0, 0, terms, width, width * columns, last, k,
                        )  # fmt: skip
                        row += rows
                    column += vectors * lanes
                k += args[PANELS_RUN]

    return multiply
