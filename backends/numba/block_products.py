"""Products of small matrices in cache, in tiles of registers, and matrices turned by shuffles of vectors."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.routines import I32, I64, VOID, Code

I1 = ir.IntType(1)


def tile_rows(vectors: int) -> tuple[int, ...]:
    """The rows of tiles with so many vectors, the most first; sums and the shared vectors must fit into registers."""
    if vector_bytes() == 64:
        return {1: (12, 8, 4, 2, 1), 2: (12, 8, 4, 2, 1), 4: (6, 4, 2, 1)}[vectors]
    return {1: (8, 4, 2, 1), 2: (5, 3, 1), 4: (2, 1)}[vectors]


def product(code: Code, c: Any, cp: Any, rows: Any, columns: Any, a: Any, ap: Any, ak: Any, b: Any, bk: Any,
            steps: Any, more: Any) -> None:  # fmt: skip
    """``c[i, j] (+)= sum over k of a[i, k] * b[k, j]``, where elements of c and b lie side by side along j.

    Rows of c are ``cp`` apart, rows of a ``ap`` and its columns ``ak``, rows of b ``bk``; ``more`` adds to c.
    """
    builder, lanes = code.builder, code.lanes
    column = code.variable(I64(0))
    for vectors in (4, 2, 1):
        # as many columns of this width as fit; one vector takes what is left
        wide = I64(lanes * (vectors - 1) + (1 if vectors != 4 else 0))
        sizes = tile_rows(vectors)
        head, body, after = (builder.append_basic_block(f"{part}_{vectors}") for part in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        left = builder.sub(columns, builder.load(column))
        least = wide if vectors > 1 else I64(0)
        builder.cbranch(builder.icmp_signed(">", left, least), body, after)
        builder.position_at_end(body)
        first = builder.load(column)
        last = code.lowest(I64(lanes), builder.sub(builder.sub(columns, first), I64(lanes * (vectors - 1))))
        offset = code.multiply(first, code.width)
        row = code.variable(I64(0))
        _rows(
            code, vectors, sizes, row, rows, (c, offset, cp), (a, ap, ak), (code.add(b, offset), bk), steps, last, more
        )
        builder.store(code.add(first, lanes * vectors), column)
        builder.branch(head)
        builder.position_at_end(after)


def _rows(code: Code, vectors: int, sizes: tuple[int, ...], row: Any, rows: Any, to: Any, left: Any, right: Any,
          steps: Any, last: Any, more: Any) -> None:  # fmt: skip
    """All rows of a column of tiles. Two tiles of about the same size follow the largest ones."""
    builder = code.builder
    (c, offset, cp), (a, ap, ak), (b, bk) = to, left, right
    head, choose, done = (builder.append_basic_block(name) for name in ("rows", "choose", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    at = builder.load(row)
    missing = builder.sub(rows, at)
    builder.cbranch(builder.icmp_signed(">", missing, I64(0)), choose, done)
    builder.position_at_end(choose)
    most = sizes[0]
    half = builder.ashr(code.add(missing, 1), I64(1))
    is_two = builder.and_(
        builder.icmp_signed(">", missing, I64(most)), builder.icmp_signed("<", missing, I64(2 * most))
    )
    wanted = builder.select(is_two, half, missing)
    from_a = code.add(a, code.multiply(at, ap))
    to_c = code.add(c, offset, code.multiply(at, cp))
    for size in sizes:
        here, smaller = builder.append_basic_block(f"tile_{size}_{vectors}"), builder.append_basic_block("smaller")
        builder.cbranch(builder.icmp_signed(">=", wanted, I64(size)), here, smaller)
        builder.position_at_end(here)
        _tile(code, size, vectors, (to_c, cp), (from_a, ap, ak), (b, bk), steps, last, more)
        builder.store(code.add(at, size), row)
        builder.branch(head)
        builder.position_at_end(smaller)
    builder.branch(done)
    builder.position_at_end(done)


def _tile(
    code: Code, rows: int, vectors: int, to: Any, left: Any, right: Any, steps: Any, last: Any, more: Any
) -> None:
    """Sums that stay in registers: an element of each row of a is spread and multiplied by the vectors of b."""
    builder, lanes = code.builder, code.lanes
    (c, cp), (a, ap, ak), (b, bk) = to, left, right
    name = f"v{lanes}f{code.element.bitwidth}"
    flags = ir.VectorType(I1, lanes)
    load, store = (
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(returned, kinds), f"{routine}.{name}.p0{name}")
        for routine, returned, kinds in (
            ("llvm.masked.load", code.vector, [code.vector.as_pointer(), I32, flags, code.vector]),
            ("llvm.masked.store", VOID, [code.vector, code.vector.as_pointer(), I32, flags]),
        )
    )
    fused = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(code.vector, [code.vector] * 3), f"llvm.fmuladd.{name}"
    )
    inside = builder.icmp_signed("<", code.lane_numbers(I64), code.splat(last))
    zero = ir.Constant(code.vector, None)

    def place(address: Any, v: int) -> Any:
        return builder.inttoptr(code.add(address, v * code.vector_bytes), code.vector.as_pointer())

    def vector_at(address: Any, v: int) -> Any:
        if v < vectors - 1:
            return builder.load(place(address, v), align=code.width)
        return builder.call(load, [place(address, v), I32(code.width), inside, zero])

    sums = [[cgutils.alloca_once(builder, code.vector) for _ in range(vectors)] for _ in range(rows)]
    starts = [code.add(c, code.multiply(cp, p)) for p in range(rows)]
    with builder.if_else(builder.icmp_signed("!=", more, I64(0))) as (then, otherwise):
        with then:
            for p in range(rows):
                for v in range(vectors):
                    builder.store(vector_at(starts[p], v), sums[p][v])
        with otherwise:
            for total in (total for row in sums for total in row):
                builder.store(zero, total)
    with code.range(steps) as k:
        from_b, from_a = code.add(b, code.multiply(k, bk)), code.add(a, code.multiply(k, ak))
        shared = [vector_at(from_b, v) for v in range(vectors)]
        for p in range(rows):
            factor = code.splat(code.load(code.add(from_a, code.multiply(ap, p)), code.real))
            for v in range(vectors):
                builder.store(builder.call(fused, [factor, shared[v], builder.load(sums[p][v])]), sums[p][v])
    for p in range(rows):
        for v in range(vectors):
            value = builder.load(sums[p][v])
            if v < vectors - 1:
                builder.store(value, place(starts[p], v), align=code.width)
            else:
                builder.call(store, [value, place(starts[p], v), I32(code.width), inside])


def turn(
    code: Code, source: Any, distance: Any, rows: Any, columns: Any, target: Any, vectors: Any, scale: Any
) -> None:
    """Rows times ``scale`` as columns of the target, whose rows are ``vectors`` long; zeros where there is no row."""
    builder, lanes = code.builder, code.lanes
    kind = code.vector
    load = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind.as_pointer(), I32, ir.VectorType(I1, lanes), kind]),
        f"llvm.masked.load.v{lanes}f{code.element.bitwidth}.p0v{lanes}f{code.element.bitwidth}",
    )
    factor = code.value(code.splat(code.real_of(scale)))
    step = code.multiply(vectors, code.vector_bytes)
    numbers = code.lane_numbers(I64)
    order = [[n // 2 + (lanes if n % 2 else 0) + shift for n in range(lanes)] for shift in (0, lanes // 2)]
    low, high = (ir.Constant(ir.VectorType(I32, lanes), indices) for indices in order)
    blocks = builder.ashr(code.add(columns, lanes - 1), I64(lanes.bit_length() - 1))
    with code.range(blocks) as block, code.range(vectors) as v:
        first_column = code.multiply(block, lanes)
        first_row = code.multiply(v, lanes)
        inside = builder.icmp_signed("<", numbers, code.splat(builder.sub(columns, first_column)))
        start = code.add(source, code.multiply(first_row, distance), code.multiply(first_column, code.width))
        read: list[Any] = []
        for r in range(lanes):
            there = builder.icmp_signed("<", code.add(first_row, r), rows)
            pointer = builder.inttoptr(code.add(start, code.multiply(distance, r)), kind.as_pointer())
            mask = builder.and_(inside, code.splat(there))
            read.append(builder.call(load, [pointer, I32(code.width), mask, ir.Constant(kind, None)]))
        # a perfect shuffle of the numbers of rows, once for each of their bits
        for _ in range(lanes.bit_length() - 1):
            pairs = zip(read[: lanes // 2], read[lanes // 2 :], strict=True)
            read = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
        place = code.add(target, code.multiply(first_column, step), code.multiply(v, code.vector_bytes))
        for r, row in enumerate(read):
            code.store((code.value(row) * factor).llvm, code.add(place, code.multiply(step, r)))
