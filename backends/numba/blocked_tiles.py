"""The kernel of products in blocks: panels of the second operand are packed, and multiplied in register tiles.

This module imports Numba, so it is only loaded to compile what is not in the cache.
"""

# pyright: reportCallIssue=false
# Numba passes an intrinsic's first argument, the typing context.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from graphc.backends.numba.attention_kernels import ONE, scratch
from graphc.backends.numba.block_products import turn
from graphc.backends.numba.blocked import blocked_rows
from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.intrinsics import floor_divide, minimum
from graphc.backends.numba.routines import I32, I64, Code, Write, routine
from graphc.backends.numba.table import (
    BLOCKED_A,
    BLOCKED_A_ROW,
    BLOCKED_B,
    BLOCKED_B_ROW,
    BLOCKED_BLOCK,
    BLOCKED_C,
    BLOCKED_C_ROW,
    BLOCKED_GROUP,
    BLOCKED_GROUPS,
    BLOCKED_K,
    BLOCKED_M,
    BLOCKED_N,
    BLOCKED_PART,
    BLOCKED_PARTS,
    BLOCKED_RUN,
    BLOCKED_STRIDE_A,
    BLOCKED_STRIDE_B,
    BLOCKED_STRIDE_C,
    BLOCKED_TURNED,
)
from graphc.backends.numba.tiles import any_tile


def copy_rows(vectors: int) -> Write:
    """Rows as they are, ``vectors`` long in the target; what is behind the last column is not read."""

    def write(code: Code, source: Any, distance: Any, rows: Any, columns: Any, target: Any) -> None:
        builder, kind = code.builder, code.vector
        name = f"v{code.lanes}f{code.element.bitwidth}"
        load = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [kind.as_pointer(), I32, ir.VectorType(ir.IntType(1), code.lanes), kind]),
            f"llvm.masked.load.{name}.p0{name}",
        )
        inside = [
            builder.icmp_signed("<", code.lane_numbers(I64), code.splat(builder.sub(columns, I64(v * code.lanes))))
            for v in range(vectors)
        ]
        with code.range(rows) as r:
            row, to = code.add(source, code.multiply(r, distance)), code.multiply(r, vectors * code.vector_bytes)
            for v in range(vectors):
                place = builder.inttoptr(code.add(row, v * code.vector_bytes), kind.as_pointer())
                read = builder.call(load, [place, I32(code.width), inside[v], ir.Constant(kind, None)])
                code.store(read, code.add(target, to, v * code.vector_bytes))

    return write


def products_in_blocks(element: types.Float, down: bool) -> Callable[..., None]:
    """The kernel of a GemmItem in blocks: units ``lo`` to ``hi``, each a part of the rows by a group of panels.

    ``down`` says that sums go down columns of the first operand.
    """
    width = element.bitwidth // 8
    known = blocked_rows(down)
    vectors = max(known)
    lanes = vector_bytes() // width
    columns, row_bytes = vectors * lanes, vectors * vector_bytes()
    tile = any_tile(element, known, rows_ahead=down)
    tallest = max(rows for sizes in known.values() for rows in sizes)
    one, two, four = (
        tuple(max(size for size in known.get(count, (1,)) if size <= max(left, 1)) for left in range(tallest + 1))
        for count in (1, 2, 4)
    )
    copy = routine(f"copy_rows_{element}", 5, element, copy_rows(vectors))
    turned = routine(f"turn_{element}", 7, element, turn)

    def multiply(args, lo, hi):
        run, down_a = args[BLOCKED_RUN], args[BLOCKED_A_ROW]
        # one distance is known here: a tile's elements, or its steps, are at fixed offsets from one address
        a_row, a_step = (width, down_a) if down else (down_a, width)
        panel_bytes = floor_divide(run + lanes - 1, lanes) * lanes * row_bytes  # turning fills whole vectors
        packed = scratch(args[BLOCKED_GROUP] * panel_bytes)
        for unit in range(lo, hi):
            rest = floor_divide(unit, args[BLOCKED_GROUPS])
            batch = floor_divide(rest, args[BLOCKED_PARTS])
            top = (rest - batch * args[BLOCKED_PARTS]) * args[BLOCKED_PART]
            bottom = minimum(top + args[BLOCKED_PART], args[BLOCKED_M])
            first = (unit - rest * args[BLOCKED_GROUPS]) * args[BLOCKED_GROUP] * columns
            end = minimum(first + args[BLOCKED_GROUP] * columns, args[BLOCKED_N])
            k = 0
            while k == 0 or k < args[BLOCKED_K]:
                terms = minimum(run, args[BLOCKED_K] - k)
                from_b = args[BLOCKED_B] + batch * args[BLOCKED_STRIDE_B]
                panel, column = packed, first
                while column < end:
                    wide = minimum(columns, end - column)
                    if args[BLOCKED_TURNED] != 0:
                        b = from_b + column * args[BLOCKED_B_ROW] + width * k
                        turned(b, args[BLOCKED_B_ROW], wide, terms, panel, vectors, ONE)
                    else:
                        b = from_b + k * args[BLOCKED_B_ROW] + width * column
                        copy(b, args[BLOCKED_B_ROW], terms, wide, panel)
                    panel += panel_bytes
                    column += columns
                from_a = args[BLOCKED_A] + batch * args[BLOCKED_STRIDE_A] + k * a_step
                start = top
                while start < bottom:
                    stop = minimum(start + args[BLOCKED_BLOCK], bottom)
                    panel, column = packed, first
                    while column < end:
                        wide = minimum(columns, end - column)
                        done = 0
                        while done < wide:
                            left = wide - done
                            count = 4 if vectors == 4 and left > 3 * lanes else 2 if left > lanes else 1
                            last = minimum(lanes, left - (count - 1) * lanes)
                            to = args[BLOCKED_C] + batch * args[BLOCKED_STRIDE_C] + width * (column + done)
                            row = start
                            while row < stop:
                                left = minimum(stop - row, tallest)
                                rows = four[left] if count == 4 else two[left] if count == 2 else one[left]
                                tile(
                                    rows, count, to + row * args[BLOCKED_C_ROW], args[BLOCKED_C_ROW],
                                    from_a + row * a_row, a_row, panel + width * done,
                                    1, 0, 0, 1, 0, 0, terms, a_step, row_bytes, last, k,
                                )  # fmt: skip
                                row += rows
                            done += count * lanes
                        panel += panel_bytes
                        column += columns
                    start = stop
                k += run

    return multiply
