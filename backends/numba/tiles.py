"""Register tiles: the innermost loops of products of patches.

A tile is ``rows`` by ``vectors`` sums that stay in registers. At each step a row's element is spread over a vector and
multiplied by the ``vectors`` that all rows share::

    c[p, q] (+)= sum over i < n1, j < n2, k < n3 of a[i, j, k, p] * b[i, j, k, q]

Only the last vector may hold fewer elements than the others; a mask says which of its lanes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from graphc.backends.numba.contraction import NARROW_TILE, VECTORS_OF_TILES, tile_rows, vector_bytes
from graphc.backends.numba.intrinsics import floor_divide, minimum
from graphc.backends.numba.table import (
    AT_ONCE,
    BLOCK,
    BLOCKS,
    COLUMNS,
    LANES,
    NARROW,
    OUTER_1,
    OUTER_1_A,
    OUTER_1_B,
    OUTER_1_C,
    OUTER_2,
    OUTER_2_A,
    OUTER_2_B,
    OUTER_2_C,
    OUTER_3,
    OUTER_3_A,
    OUTER_3_B,
    OUTER_3_C,
    PANELS,
    PANELS_FIRST,
    PARTS,
    PATCH_A,
    PATCH_B,
    PATCH_C,
    ROW_SIZES,
    ROWS,
    ROWS_A,
    ROWS_C,
    RUN,
    SUM_1,
    SUM_1_A,
    SUM_1_B,
    SUM_2,
    SUM_2_A,
    SUM_2_B,
    SUM_3,
    SUM_3_A,
    SUM_3_B,
    TILE_ROWS,
    VECTORS,
)

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
VOID = ir.VoidType()
STEPS_AHEAD = 16
"""How early shared vectors are asked for: many come from the second cache or from memory, a line at a time."""


def any_tile(
    element: types.Float, sizes: Mapping[int, Sequence[int]] | None = None, rows_ahead: bool = False
) -> Callable[..., Any]:
    """An intrinsic that computes a tile; all distances are in bytes.

    ``sizes`` says which there are: of so many vectors, tiles of these numbers of rows. With ``rows_ahead`` elements of
    rows are asked for early, too, as they lie where all rows of a step are side by side.

    Its arguments are the tile's rows and vectors, or NARROW_TILE for one vector of half the width; its place in c and
    the distance of rows there; its first row in a and the distance of rows there; the place of shared elements in b; of
    each sum the count, and the distances in a and b; how many lanes of the last vector there are; and whether to add to
    what is there.
    """
    lanes = vector_bytes() * 8 // element.bitwidth
    known = {vectors: tile_rows(vectors) for vectors in VECTORS_OF_TILES} if sizes is None else sizes
    bodies = {
        (rows, vectors): _tile(element, lanes, rows, vectors, rows_ahead)
        for vectors in known
        for rows in known[vectors]
    }
    if sizes is None:
        bodies |= {(rows, NARROW_TILE): _tile(element, lanes // 2, rows, 1) for rows in tile_rows(1)}

    @intrinsic
    def tile(typingctx, rows, vectors, c, cp, a, ap, b, n1, a1, b1, n2, a2, b2, n3, a3, b3, last, more):
        def codegen(context, builder, sig, values):
            end = builder.append_basic_block("end")
            wanted = builder.add(builder.mul(values[0], I64(8)), values[1])
            choice = builder.switch(wanted, end)
            for (count, width), body in bodies.items():
                block = builder.append_basic_block(f"tile_{count}_{width}")
                choice.add_case(I64(8 * count + width), block)
                builder.position_at_end(block)
                body(builder, values[2:])
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 18), codegen

    return tile


def _tile(
    element: types.Float, lanes: int, rows: int, vectors: int, rows_ahead: bool = False
) -> Callable[[ir.IRBuilder, Sequence[ir.Value]], None]:
    """What writes the code of a tile of one size."""
    real = ir.FloatType() if element is types.float32 else ir.DoubleType()
    width = element.bitwidth // 8
    vector, flags, numbers = (ir.VectorType(kind, lanes) for kind in (real, I1, I64))
    suffix = f"v{lanes}f{element.bitwidth}"
    pick_first = ir.Constant(ir.VectorType(I32, lanes), None)

    def write(builder: ir.IRBuilder, values: Sequence[ir.Value]) -> None:
        c, cp, a, ap, b, n1, a1, b1, n2, a2, b2, n3, a3, b3, last, more = values
        load, store, multiply_add, prefetch = (
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(returned, kinds), name)
            for name, returned, kinds in (
                (f"llvm.masked.load.{suffix}.p0{suffix}", vector, [vector.as_pointer(), I32, flags, vector]),
                (f"llvm.masked.store.{suffix}.p0{suffix}", VOID, [vector, vector.as_pointer(), I32, flags]),
                (f"llvm.fmuladd.{suffix}", vector, [vector] * 3),
                ("llvm.prefetch.p0i8", VOID, [I8.as_pointer(), I32, I32, I32]),
            )
        )
        zero = ir.Constant(vector, None)

        def spread(value, kind):
            single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
            return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), pick_first)

        mask = builder.icmp_signed("<", ir.Constant(numbers, list(range(lanes))), spread(last, numbers))

        def place(address, v):
            return builder.inttoptr(builder.add(address, I64(v * lanes * width)), vector.as_pointer())

        def vector_at(address, v):
            if v < vectors - 1:
                return builder.load(place(address, v), align=width)
            return builder.call(load, [place(address, v), I32(width), mask, zero])

        sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(rows)]
        starts = [builder.add(c, builder.mul(cp, I64(p))) for p in range(rows)]
        for row in sums:
            for total in row:
                builder.store(zero, total)

        def step(at_a, at_b):
            shared = [vector_at(at_b, v) for v in range(vectors)]
            ahead = builder.add(at_b, builder.mul(b3, I64(STEPS_AHEAD)))
            wanted = [builder.add(ahead, I64(v * lanes * width)) for v in range(vectors)]
            if rows_ahead:
                ahead = builder.add(at_a, builder.mul(a3, I64(STEPS_AHEAD)))
                wanted += [builder.add(ahead, I64(p * width)) for p in sorted({0, rows - 1})]
            for early in wanted:
                builder.call(prefetch, [builder.inttoptr(early, I8.as_pointer()), I32(0), I32(3), I32(1)])
            for p in range(rows):
                address = builder.inttoptr(builder.add(at_a, builder.mul(ap, I64(p))), real.as_pointer())
                factor = spread(builder.load(address), vector)
                for v in range(vectors):
                    total = builder.call(multiply_add, [factor, shared[v], builder.load(sums[p][v])])
                    builder.store(total, sums[p][v])

        with cgutils.for_range(builder, n1, intp=I64) as first, cgutils.for_range(builder, n2, intp=I64) as second:
            row_a = builder.add(builder.mul(first.index, a1), builder.mul(second.index, a2))
            row_b = builder.add(builder.mul(first.index, b1), builder.mul(second.index, b2))
            row_a, row_b = builder.add(a, row_a), builder.add(b, row_b)
            with cgutils.for_range(builder, n3, intp=I64) as third:
                at_a = builder.add(row_a, builder.mul(third.index, a3))
                step(at_a, builder.add(row_b, builder.mul(third.index, b3)))
        # sums of parts are more exact than one sum that goes on from what is there
        with builder.if_then(builder.icmp_signed("!=", more, I64(0))):
            for p in range(rows):
                for v in range(vectors):
                    builder.store(builder.fadd(builder.load(sums[p][v]), vector_at(starts[p], v)), sums[p][v])
        for p in range(rows):
            for v in range(vectors):
                value = builder.load(sums[p][v])
                if v < vectors - 1:
                    builder.store(value, place(starts[p], v), align=width)
                else:
                    builder.call(store, [value, place(starts[p], v), I32(width), mask])

    return write


def products_of_patches(element: types.Float) -> Callable[..., None]:
    """The kernel of a ContractionItem: units ``lo`` to ``hi``, each a panel of columns of some rows."""
    width = element.bitwidth // 8
    tile = any_tile(element)

    def contract(args, lo, hi):
        lanes = args[LANES]
        panel_columns = args[VECTORS] * lanes
        for unit in range(lo, hi):
            if args[PANELS_FIRST] != 0:
                panel = floor_divide(unit, args[OUTER_1] * args[BLOCKS])
                rest = unit - panel * args[OUTER_1] * args[BLOCKS]
            else:
                rest = floor_divide(unit, args[PANELS])
                panel = unit - rest * args[PANELS]
            first = floor_divide(rest, args[BLOCKS])
            start = (rest - first * args[BLOCKS]) * args[BLOCK]
            stop = minimum(start + args[BLOCK], args[OUTER_2])
            n1, n2, n3 = minimum(args[SUM_1], args[PARTS] - first * args[SUM_1]), args[SUM_2], args[SUM_3]
            whole = args[AT_ONCE] != 0
            column = panel * panel_columns
            end = minimum(column + panel_columns, args[COLUMNS])
            while column < end:
                vectors, sizes = 1, TILE_ROWS
                if end - column > lanes and args[VECTORS] > 1:
                    vectors, sizes = 2, TILE_ROWS + ROW_SIZES
                    if end - column > 3 * lanes and args[VECTORS] > 2:
                        vectors, sizes = 4, TILE_ROWS + 2 * ROW_SIZES
                last = minimum(lanes, end - column - (vectors - 1) * lanes)
                for i in range(1 if whole else n1):
                    for j in range(1 if whole else n2):
                        for run in range(1 if whole else floor_divide(n3 + args[RUN] - 1, args[RUN])):
                            k = run * args[RUN]
                            more = 1 if i + j + k > 0 else 0
                            from_a = args[PATCH_A] + first * args[OUTER_1_A]
                            from_a += i * args[SUM_1_A] + j * args[SUM_2_A] + k * args[SUM_3_A]
                            from_b = args[PATCH_B] + first * args[OUTER_1_B] + width * column
                            from_b += i * args[SUM_1_B] + j * args[SUM_2_B] + k * args[SUM_3_B]
                            for second in range(start, stop):
                                for third in range(args[OUTER_3]):
                                    a = from_a + second * args[OUTER_2_A] + third * args[OUTER_3_A]
                                    b = from_b + second * args[OUTER_2_B] + third * args[OUTER_3_B]
                                    c = args[PATCH_C] + first * args[OUTER_1_C] + width * column
                                    c += second * args[OUTER_2_C] + third * args[OUTER_3_C]
                                    left, size = args[ROWS], sizes
                                    while left > 0:
                                        while args[size] > left:
                                            size += 1
                                        rows = args[size]
                                        tile(
                                            rows, NARROW_TILE if args[NARROW] != 0 else vectors,
                                            c, args[ROWS_C], a, args[ROWS_A], b,
                                            n1 if whole else 1, args[SUM_1_A], args[SUM_1_B],
                                            n2 if whole else 1, args[SUM_2_A], args[SUM_2_B],
                                            n3 if whole else minimum(args[RUN], n3 - k), args[SUM_3_A], args[SUM_3_B],
                                            last, more,
                                        )  # fmt: skip
                                        a += rows * args[ROWS_A]
                                        c += rows * args[ROWS_C]
                                        left -= rows
                column += vectors * lanes

    return contract
