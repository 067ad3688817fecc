"""Convolution by Winograd's products: what is done with a block of tiles, from loading x to storing results.

Elements of 4 x 4 pixels are transformed, vectors over channels, into 16 matrices of tiles by channels. Each is
multiplied by the kernel's matrix of the same number, panel by panel, and what belongs to 2 x 2 pixels transformed back.
"""

# pyright: reportCallIssue=false
# Numba passes an intrinsic's first argument, the typing context.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.intrinsics import floor_divide, minimum
from graphc.backends.numba.table import (
    WINOGRAD_BLOCK,
    WINOGRAD_BLOCKS,
    WINOGRAD_CHANNELS,
    WINOGRAD_FILTERS,
    WINOGRAD_GROUPS,
    WINOGRAD_HEIGHT,
    WINOGRAD_LEFT,
    WINOGRAD_OUT_HEIGHT,
    WINOGRAD_OUT_WIDTH,
    WINOGRAD_PANELS,
    WINOGRAD_RESULT_STEP,
    WINOGRAD_ROW,
    WINOGRAD_SLOT_BYTES,
    WINOGRAD_SLOT_COUNT,
    WINOGRAD_SLOT_FLAGS,
    WINOGRAD_SLOTS,
    WINOGRAD_STEP,
    WINOGRAD_TILES,
    WINOGRAD_TILES_ACROSS,
    WINOGRAD_TILES_DOWN,
    WINOGRAD_TOP,
    WINOGRAD_U,
    WINOGRAD_WIDTH,
    WINOGRAD_X,
    WINOGRAD_Y,
)
from graphc.backends.numba.tiles import any_tile
from graphc.backends.numba.winograd import rows_of_tiles
from graphc.ops.winograd import PANEL, TILE

I1, I32, I64 = (ir.IntType(bits) for bits in (1, 32, 64))
VOID = ir.VoidType()
Values = Sequence[ir.Value]


class _Vectors:
    """Vectors of an element type: how they are loaded and stored in an LLVM function."""

    def __init__(self, element: types.Float) -> None:
        self.lanes = vector_bytes() * 8 // element.bitwidth
        self.width = element.bitwidth // 8
        self.kind = ir.VectorType(ir.FloatType() if element is types.float32 else ir.DoubleType(), self.lanes)
        self.flags = ir.VectorType(I1, self.lanes)
        self.suffix = f"v{self.lanes}f{element.bitwidth}"

    def load(self, builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        return builder.load(self._pointer(builder, address), align=self.width)

    def store(self, builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
        builder.store(value, self._pointer(builder, address), align=self.width)

    def load_some(self, builder: ir.IRBuilder, address: ir.Value, mask: ir.Value) -> ir.Value:
        """The lanes of the mask, and 0 in all others, whose memory is not touched."""
        arguments = [self.kind.as_pointer(), I32, self.flags, self.kind]
        function = self._declared(builder, "load", ir.FunctionType(self.kind, arguments))
        zero = ir.Constant(self.kind, None)
        return builder.call(function, [self._pointer(builder, address), I32(self.width), mask, zero])

    def store_some(self, builder: ir.IRBuilder, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        """The lanes of the mask."""
        arguments = [self.kind, self.kind.as_pointer(), I32, self.flags]
        function = self._declared(builder, "store", ir.FunctionType(VOID, arguments))
        builder.call(function, [value, self._pointer(builder, address), I32(self.width), mask])

    def first(self, builder: ir.IRBuilder, count: ir.Value) -> Any:
        """The mask of the first lanes."""
        numbers = ir.VectorType(I64, self.lanes)
        nothing = ir.Constant(numbers, ir.Undefined)
        single = builder.insert_element(nothing, count, I32(0))
        every = builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(I32, self.lanes), None))
        return builder.icmp_signed("<", ir.Constant(numbers, list(range(self.lanes))), every)

    def _declared(self, builder: ir.IRBuilder, what: str, type: ir.FunctionType) -> ir.Function:
        return cgutils.get_or_insert_function(builder.module, type, f"llvm.masked.{what}.{self.suffix}.p0{self.suffix}")

    def _pointer(self, builder: ir.IRBuilder, address: ir.Value) -> Any:
        return builder.inttoptr(address, self.kind.as_pointer())


def _both_ways(part: Callable[[Values], Values], grid: Sequence[Values]) -> list[Values]:
    """A transform of columns, then of rows."""
    columns = [part(column) for column in zip(*grid, strict=True)]
    return [part(row) for row in zip(*columns, strict=True)]


def _place(builder: ir.IRBuilder, start: ir.Value, down: ir.Value, right: ir.Value, i: int, j: int) -> Any:
    return builder.add(start, builder.add(builder.mul(down, I64(i)), builder.mul(right, I64(j))))


def transform_of_input(vectors: _Vectors) -> Callable[..., Any]:
    """An intrinsic for a vector of channels of a tile; distances are in bytes.

    Its arguments are the place of the tile's first pixel, the distances of rows and of pixels, the number of its first
    row and how many there are, likewise of columns, how many channels are left, the place of the result in the first
    matrix, and the distance of matrices. What lies outside is 0.
    """

    @intrinsic
    def transform(typingctx, x, down, right, top, height, left, width, channels, v, step):
        def codegen(context, builder, sig, values):
            x, down, right, top, height, left, width, channels, v, step = values

            def along(d: Values) -> Values:
                return (
                    builder.fsub(d[0], d[2]), builder.fadd(d[1], d[2]),
                    builder.fsub(d[2], d[1]), builder.fsub(d[1], d[3]),
                )  # fmt: skip

            def finish(load: Callable[[int, int], ir.Value]) -> None:
                found = _both_ways(along, [[load(i, j) for j in range(4)] for i in range(4)])
                for place, value in enumerate(value for row in found for value in row):
                    vectors.store(builder, value, builder.add(v, builder.mul(step, I64(place))))

            def inside(first: ir.Value, size: ir.Value, offset: int) -> ir.Value:
                return builder.icmp_unsigned("<", builder.add(first, I64(offset)), size)

            def at(i: int, j: int) -> ir.Value:
                return _place(builder, x, down, right, i, j)

            whole = builder.icmp_signed(">=", channels, I64(vectors.lanes))
            for first, size in ((top, height), (left, width)):
                for offset in (0, 3):
                    whole = builder.and_(whole, inside(first, size, offset))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    finish(lambda i, j: vectors.load(builder, at(i, j)))
                with otherwise:
                    lanes, none = vectors.first(builder, channels), ir.Constant(vectors.flags, None)

                    def some(i: int, j: int) -> ir.Value:
                        is_inside = builder.and_(inside(top, height, i), inside(left, width, j))
                        return vectors.load_some(builder, at(i, j), builder.select(is_inside, lanes, none))

                    finish(some)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return transform


def transform_of_output(vectors: _Vectors) -> Callable[..., Any]:
    """An intrinsic for a vector of filters of a tile; distances are in bytes.

    Its arguments are the place of the products in the first matrix and the distance of matrices, the place of the first
    result, the distances of rows and of pixels, how many rows, columns and filters are left.
    """

    @intrinsic
    def transform(typingctx, m, step, y, down, right, rows, columns, filters):
        def codegen(context, builder, sig, values):
            m, step, y, down, right, rows, columns, filters = values

            def along(d: Values) -> Values:
                return builder.fadd(builder.fadd(d[0], d[1]), d[2]), builder.fsub(builder.fsub(d[1], d[2]), d[3])

            def product(i: int, j: int) -> ir.Value:
                return vectors.load(builder, builder.add(m, builder.mul(step, I64(4 * i + j))))

            found = _both_ways(along, [[product(i, j) for j in range(4)] for i in range(4)])
            lanes = vectors.first(builder, filters)
            for i, row in enumerate(found):
                for j, value in enumerate(row):
                    left = (builder.icmp_signed(">", count, I64(at)) for count, at in ((rows, i), (columns, j)))
                    with builder.if_then(builder.and_(*left)):
                        vectors.store_some(builder, value, _place(builder, y, down, right, i, j), lanes)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return transform


@intrinsic
def enter(typingctx, flags, count):
    """The number of a slot that nobody else is in, from now on."""

    def codegen(context, builder, sig, values):
        flags, count = values
        found = cgutils.alloca_once_value(builder, I64(0))
        start, end = builder.append_basic_block("try"), builder.append_basic_block("entered")
        taken = builder.append_basic_block("taken")
        builder.branch(start)
        builder.position_at_end(start)
        number = builder.load(found)
        flag = builder.inttoptr(builder.add(flags, builder.mul(number, I64(8))), I64.as_pointer())
        before = builder.atomic_rmw("xchg", flag, I64(1), "acquire")
        builder.cbranch(builder.icmp_signed("==", before, I64(0)), end, taken)
        builder.position_at_end(taken)
        following = builder.add(number, I64(1))
        builder.store(builder.select(builder.icmp_signed("<", following, count), following, I64(0)), found)
        builder.branch(start)
        builder.position_at_end(end)
        return builder.load(found)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def leave(typingctx, flags, number):
    """Let others into the slot."""

    def codegen(context, builder, sig, values):
        flag = builder.inttoptr(builder.add(values[0], builder.mul(values[1], I64(8))), I64.as_pointer())
        builder.store_atomic(I64(0), flag, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def winograd_products(element: types.Float) -> Callable[..., None]:
    """The kernel of a WinogradItem: units ``lo`` to ``hi``, each some panels of filters of a block of tiles."""
    vectors = _Vectors(element)
    width, lanes, most_rows = vectors.width, vectors.lanes, rows_of_tiles()
    panel_row = width * PANEL
    transform_input, transform_output = transform_of_input(vectors), transform_of_output(vectors)
    tile = any_tile(element, {2: range(1, most_rows + 1)})

    def convolve(args, lo, hi):
        if hi <= lo:  # there is no slot, either
            return
        channels, filters, across = args[WINOGRAD_CHANNELS], args[WINOGRAD_FILTERS], args[WINOGRAD_TILES_ACROSS]
        pixel, line = width * channels, width * channels * args[WINOGRAD_WIDTH]
        out_pixel, out_line = width * filters, width * filters * args[WINOGRAD_OUT_WIDTH]
        of_image = args[WINOGRAD_TILES_DOWN] * across
        row, step, result_step = args[WINOGRAD_ROW], args[WINOGRAD_STEP], args[WINOGRAD_RESULT_STEP]
        slot = enter(args[WINOGRAD_SLOT_FLAGS], args[WINOGRAD_SLOT_COUNT])
        v = args[WINOGRAD_SLOTS] + slot * args[WINOGRAD_SLOT_BYTES]
        m = v + TILE * step
        for unit in range(lo, hi):
            group = floor_divide(unit, args[WINOGRAD_BLOCKS])
            start = (unit - group * args[WINOGRAD_BLOCKS]) * args[WINOGRAD_BLOCK]
            count = minimum(args[WINOGRAD_BLOCK], args[WINOGRAD_TILES] - start)
            for number in range(count):
                image = floor_divide(start + number, of_image)
                down = floor_divide(start + number - image * of_image, across)
                right = start + number - image * of_image - down * across
                top, left = 2 * down - args[WINOGRAD_TOP], 2 * right - args[WINOGRAD_LEFT]
                x = args[WINOGRAD_X] + (image * args[WINOGRAD_HEIGHT] + top) * line + left * pixel
                for c in range(0, channels, lanes):
                    transform_input(
                        x + width * c, line, pixel, top, args[WINOGRAD_HEIGHT], left, args[WINOGRAD_WIDTH],
                        channels - c, v + number * row + width * c, step,
                    )  # fmt: skip
            first = floor_divide(args[WINOGRAD_PANELS] * group, args[WINOGRAD_GROUPS])
            end = floor_divide(args[WINOGRAD_PANELS] * (group + 1), args[WINOGRAD_GROUPS])
            for panel in range(first, end):
                for place in range(TILE):
                    b = args[WINOGRAD_U] + (panel * TILE + place) * channels * panel_row
                    done, parts = 0, floor_divide(count + most_rows - 1, most_rows)
                    while parts > 0:  # of about the same number of rows
                        rows = floor_divide(count - done + parts - 1, parts)
                        a = v + place * step + done * row
                        c = m + place * result_step + done * panel_row
                        for column in range(0, PANEL, 2 * lanes):
                            tile(
                                rows, 2, c + width * column, panel_row, a, row, b + width * column,
                                1, 0, 0, 1, 0, 0, channels, width, panel_row, lanes, 0,
                            )  # fmt: skip
                        done += rows
                        parts -= 1
                for number in range(count):
                    image = floor_divide(start + number, of_image)
                    down = floor_divide(start + number - image * of_image, across)
                    right = start + number - image * of_image - down * across
                    y = args[WINOGRAD_Y] + (image * args[WINOGRAD_OUT_HEIGHT] + 2 * down) * out_line
                    y += 2 * right * out_pixel + width * PANEL * panel
                    for column in range(0, minimum(PANEL, filters - PANEL * panel), lanes):
                        transform_output(
                            m + number * panel_row + width * column, result_step, y + width * column, out_line,
                            out_pixel, args[WINOGRAD_OUT_HEIGHT] - 2 * down, args[WINOGRAD_OUT_WIDTH] - 2 * right,
                            filters - PANEL * panel - column,
                        )  # fmt: skip
        leave(args[WINOGRAD_SLOT_FLAGS], slot)

    return convolve
