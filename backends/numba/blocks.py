"""What attention does with blocks of scores, as LLVM functions on vectors.

A block holds the scores of some queries with some keys, turned: a row for each key, in it a lane for each query. So
maxima and sums over the keys are vectors that walk down the block, nothing is added up across a vector, and how many
keys there are does not matter. Queries fill whole vectors; what is beyond the last one is computed and never stored.

Every routine is one function of the module that calls it. Its arguments are integers: addresses, distances in bytes,
counts; ``vectors`` is how many vectors of queries there are, and a row of a block is as long as all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from graphc.backends.numba import math
from graphc.backends.numba.attention import STATES
from graphc.backends.numba.block_products import product, turn
from graphc.backends.numba.routines import I8, I32, I64, Code, Write, routine
from graphc.backends.numba.values import Value, absolute, polynomial, where

INFINITY = float("inf")
MAXIMA, TOTALS, FACTORS, MEANS = range(4)
"""Rows of the state of a block's queries: of their scores the maximum, of their weights the sum, by what earlier sums
are to be multiplied (at last, what makes the sum of weights 1), and the mean of the weights' cotangents."""
LOWEST = {32: -87.0, 64: -708.0}
"""e to the power of less is taken for 0, beside a largest weight of 1."""


def begin(code: Code, states: Any, vectors: Any) -> None:
    """The state before the first key."""
    step = code.multiply(vectors, code.vector_bytes)
    with code.columns(vectors) as v:
        for row, number in ((MAXIMA, -INFINITY), (TOTALS, 0.0), (MEANS, 0.0)):
            code.store(code.constant(number).llvm, code.add(states, code.multiply(step, row), v))


def hide(code: Code, block: Any, keys: Any, vectors: Any, query: Any, key: Any) -> None:
    """Queries do not see later keys: ``query`` and ``key`` are the numbers of the first ones."""
    builder = code.builder
    step = code.multiply(vectors, code.vector_bytes)
    first = builder.sub(query, key)  # keys up to this one are seen by all queries
    begins = builder.select(builder.icmp_signed(">", first, I64(0)), first, I64(0))
    late = builder.sub(keys, begins)
    with builder.if_then(builder.icmp_signed(">", late, I64(0))), code.columns(vectors) as v, code.range(late) as j:
        row = code.add(j, begins)
        address = code.add(block, code.multiply(row, step), v)
        number = code.add(builder.sdiv(v, I64(code.width)), first)
        queries = builder.add(code.lane_numbers(I64), code.splat(number))
        seen = code.value(builder.icmp_signed(">=", queries, code.splat(row)))
        code.store(where(seen, code.vector_at(address), -INFINITY).llvm, address)


def mask(code: Code, block: Any, keys: Any, queries: Any, vectors: Any, marks: Any, down: Any, along: Any,
         adds: Any) -> None:  # fmt: skip
    """A mask: ``marks`` is where that of the first query and key is, queries are ``down``, keys ``along`` apart.

    It is added if ``adds`` is 1, else it is a bool that says which keys count.
    """
    builder = code.builder
    step = code.multiply(vectors, code.vector_bytes)
    same = builder.icmp_signed("==", down, I64(0))
    adding = builder.icmp_signed("!=", adds, I64(0))
    with builder.if_else(same) as (for_all, for_each):
        with for_all, code.range(keys) as j:
            row = code.add(block, code.multiply(j, step))
            place = code.add(marks, code.multiply(j, along))
            with builder.if_else(adding) as (add, choose):
                with add:
                    bias = code.value(code.splat(code.load(place, code.real)))
                    with code.columns(vectors) as v:
                        address = code.add(row, v)
                        code.store((code.vector_at(address) + bias).llvm, address)
                with choose:
                    hidden = builder.icmp_signed("==", code.load(place, I8), I8(0))
                    with builder.if_then(hidden), code.columns(vectors) as v:
                        code.store(code.constant(-INFINITY).llvm, code.add(row, v))
        with for_each, code.range(queries) as i:
            column = code.add(block, code.multiply(i, code.width))
            marked = code.add(marks, code.multiply(i, down))
            with builder.if_else(adding) as (add, choose):
                with add, code.range(keys) as j:
                    address = code.add(column, code.multiply(j, step))
                    bias = code.load(code.add(marked, code.multiply(j, along)), code.real)
                    code.store((code.value(code.load(address, code.real)) + code.value(bias)).llvm, address)
                with choose, code.range(keys) as j:
                    address = code.add(column, code.multiply(j, step))
                    seen = code.load(code.add(marked, code.multiply(j, along)), I8)
                    score = code.load(address, code.real)
                    lowest = ir.Constant(code.real, -INFINITY)
                    code.store(builder.select(builder.icmp_signed("!=", seen, I8(0)), score, lowest), address)


def _subtracted(maxima: Value) -> Value:
    """What is subtracted from scores: their maximum where it is finite."""
    return where(math.isfinite(maxima), maxima, 0.0)


def _exp(x: Value) -> Value:
    """e to the x of what is not above 0, within 1.1 ulp; 0 where that is no normal number.

    Half of the instructions of :func:`graphc.backends.numba.math.exp`. Above 0 is only what has an infinite maximum;
    that query's weights become NaN in any case.
    """
    form = math.format_of(x)
    shifted, r = math.reduce_exp(x)
    power = math.power_of_two(shifted - _magic_bits(form))
    return where(x < LOWEST[x.bits], 0.0, (polynomial(r, form.exp) * (r * r) + r + 1.0) * power)


def _magic_bits(form: math.Format) -> int:
    """The bits of what :func:`graphc.backends.numba.math.reduce_exp` adds to an integer."""
    return (form.bias + form.mantissa << form.mantissa) + (1 << form.mantissa - 1)


def _largest(code: Code, first: Any, step: Any, count: Any, known: Value) -> Value:
    """The maximum of a column of vectors and of what is known, in four strands."""
    builder = code.builder
    strands = [code.variable(known.llvm) for _ in range(4)]

    def take(strand: Any, row: Any) -> None:
        score, before = code.vector_at(code.add(first, code.multiply(row, step))), code.value(builder.load(strand))
        builder.store(where(score <= before, before, score).llvm, strand)

    groups = builder.ashr(count, I64(2))
    with code.range(groups) as group:
        for number, strand in enumerate(strands):
            take(strand, code.add(code.multiply(group, 4), number))
    done = code.multiply(groups, 4)
    with code.range(builder.sub(count, done)) as rest:
        take(strands[0], code.add(done, rest))
    found = [code.value(builder.load(strand)) for strand in strands]
    while len(found) > 1:
        a, b, *found = found
        found.append(where(b <= a, a, b))
    return found[0]


def weigh(code: Code, block: Any, keys: Any, vectors: Any, states: Any) -> None:
    """Scores become weights, of which the largest so far is 1; maxima, sums and factors of earlier sums follow."""
    builder = code.builder
    step = code.multiply(vectors, code.vector_bytes)
    with code.columns(vectors) as v:
        rows = [code.add(states, code.multiply(step, row), v) for row in range(STATES)]
        before = code.vector_at(rows[MAXIMA])
        maxima = _largest(code, code.add(block, v), step, keys, before)
        code.store(maxima.llvm, rows[MAXIMA])
        subtracted = _subtracted(maxima)
        factors = where(before.equals(-INFINITY), 0.0, _exp(_subtracted(before) - subtracted))
        code.store(factors.llvm, rows[FACTORS])
        code.store((code.vector_at(rows[MEANS]) * factors).llvm, rows[MEANS])
        total = code.variable((code.vector_at(rows[TOTALS]) * factors).llvm)
        with code.range(keys) as j:
            address = code.add(block, code.multiply(j, step), v)
            weight = _exp(code.vector_at(address) - subtracted)
            code.store(weight.llvm, address)
            builder.store((code.value(builder.load(total)) + weight).llvm, total)
        code.store(builder.load(total), rows[TOTALS])


def weigh_again(code: Code, block: Any, keys: Any, vectors: Any, states: Any) -> None:
    """Scores become weights whose maxima are known."""
    step = code.multiply(vectors, code.vector_bytes)
    with code.columns(vectors) as v:
        subtracted = _subtracted(code.vector_at(code.add(states, code.multiply(step, MAXIMA), v)))
        with code.range(keys) as j:
            address = code.add(block, code.multiply(j, step), v)
            code.store(_exp(code.vector_at(address) - subtracted).llvm, address)


def finish(code: Code, states: Any, vectors: Any) -> None:
    """After the last key: factors that make sums of weights 1, where there are weights; means of these weights."""
    step = code.multiply(vectors, code.vector_bytes)
    with code.columns(vectors) as v:
        rows = [code.add(states, code.multiply(step, row), v) for row in range(STATES)]
        total = code.vector_at(rows[TOTALS])
        factors = 1.0 / where(total > 0.0, total, 1.0)
        code.store(factors.llvm, rows[FACTORS])
        code.store((code.vector_at(rows[MEANS]) * factors).llvm, rows[MEANS])


def scale_rows(code: Code, rows: Any, distance: Any, count: Any, columns: Any, states: Any, vectors: Any) -> None:
    """Each query's row of the result times its factor."""
    builder = code.builder
    step = code.multiply(vectors, code.vector_bytes)
    whole = builder.sdiv(columns, I64(code.lanes))
    with code.range(count) as i:
        row = code.add(rows, code.multiply(i, distance))
        place = code.add(states, code.multiply(step, FACTORS), code.multiply(i, code.width))
        factor = code.load(place, code.real)
        spread = code.value(code.splat(factor))
        with code.columns(whole) as v:
            address = code.add(row, v)
            code.store((code.vector_at(address) * spread).llvm, address)
        done = code.multiply(whole, code.lanes)
        with code.range(builder.sub(columns, done)) as rest:
            address = code.add(row, code.multiply(code.add(done, rest), code.width))
            code.store((code.value(code.load(address, code.real)) * code.value(factor)).llvm, address)


def drop(code: Code, block: Any, keys: Any, vectors: Any, first: Any, distance: Any, seed: Any, stream: Any,
         time: Any, kept: Any) -> None:  # fmt: skip
    """Weights that fall get their sign bit set: those whose random bits, as Dropout draws them, are not below ``kept``.

    ``first`` is the number of the first query's weight of the first key among all weights, ``distance`` that from a
    query to the next; ``seed`` and ``time`` are addresses.
    """
    builder = code.builder
    step = code.multiply(vectors, code.vector_bytes)
    signs = ir.IntType(code.element.bitwidth)
    key = [code.value(code.splat(word)) for word in (code.load(seed, I32), builder.trunc(stream, I32))]
    clock = code.value(code.splat(code.load(time, I32)))
    limit = code.value(code.splat(builder.trunc(kept, I32)))
    with code.columns(vectors) as v:
        query = builder.sdiv(v, I64(code.width))
        numbers = builder.add(code.lane_numbers(I32), code.splat(builder.trunc(query, I32)))
        start = code.splat(builder.trunc(first, I32))
        begins = builder.add(start, builder.mul(numbers, code.splat(builder.trunc(distance, I32))))
        with code.range(keys) as j:
            address = code.add(block, code.multiply(j, step), v)
            element = code.value(builder.add(begins, code.splat(builder.trunc(j, I32))))
            bits, _ = math.threefry2x32((key[0], key[1]), (clock, element))
            falls = ~bits.logical_shift_right(8).is_below(limit)
            sign = builder.select(
                falls.llvm, ir.Constant(ir.VectorType(signs, code.lanes), [1 << (signs.width - 1)] * code.lanes),
                ir.Constant(ir.VectorType(signs, code.lanes), None),
            )  # fmt: skip
            marked = code.vector_at(address).as_integer() | code.value(sign)
            code.store(marked.as_float().llvm, address)


def keep(code: Code, block: Any, target: Any, keys: Any, vectors: Any, scale: Any) -> None:
    """What is left of weights after dropout: those without a sign times ``scale``."""
    factor = code.value(code.splat(code.real_of(scale)))
    with code.range(code.multiply(keys, vectors)) as v:
        distance = code.multiply(v, code.vector_bytes)
        weight = code.vector_at(code.add(block, distance))
        left = where(weight.as_integer() < 0, 0.0, weight * factor)
        code.store(left.llvm, code.add(target, distance))


def average(code: Code, block: Any, pulled: Any, keys: Any, vectors: Any, states: Any, dropping: Any, scale: Any,
            adding: Any) -> None:  # fmt: skip
    """Cotangents of weights that fell become 0; then, where ``adding``, all go into the means by their weights."""
    builder = code.builder
    step = code.multiply(vectors, code.vector_bytes)
    factor = code.value(code.splat(code.real_of(scale)))
    with code.columns(vectors) as v:
        place = code.add(states, code.multiply(step, MEANS), v)
        total = code.variable(code.load(place))
        with builder.if_then(builder.icmp_signed("!=", dropping, I64(0))), code.range(keys) as j:
            offset = code.add(code.multiply(j, step), v)
            address = code.add(pulled, offset)
            falls = code.vector_at(code.add(block, offset)).as_integer() < 0
            code.store(where(falls, 0.0, code.vector_at(address) * factor).llvm, address)
        with builder.if_then(builder.icmp_signed("!=", adding, I64(0))), code.range(keys) as j:
            offset = code.add(code.multiply(j, step), v)
            weight = absolute(code.vector_at(code.add(block, offset)))
            term = weight * code.vector_at(code.add(pulled, offset))
            builder.store((code.value(builder.load(total)) + term).llvm, total)
        code.store(builder.load(total), place)


def slope(code: Code, block: Any, pulled: Any, keys: Any, vectors: Any, states: Any, scale: Any) -> None:
    """Weights times their factors, and the cotangents of scores, times ``scale``, in the place of those of weights."""
    step = code.multiply(vectors, code.vector_bytes)
    factor = code.value(code.splat(code.real_of(scale)))
    with code.columns(vectors) as v:
        mean, normal = (code.vector_at(code.add(states, code.multiply(step, row), v)) for row in (MEANS, FACTORS))
        with code.range(keys) as j:
            offset = code.add(code.multiply(j, step), v)
            address = code.add(pulled, offset)
            weight = code.vector_at(code.add(block, offset)) * normal
            code.store(weight.llvm, code.add(block, offset))
            code.store((absolute(weight) * (code.vector_at(address) - mean) * factor).llvm, address)


def clear(code: Code, rows: Any, distance: Any, count: Any, columns: Any) -> None:
    """Zeros."""
    builder = code.builder
    whole = builder.sdiv(columns, I64(code.lanes))
    with code.range(count) as i:
        row = code.add(rows, code.multiply(i, distance))
        with code.columns(whole) as v:
            code.store(ir.Constant(code.vector, None), code.add(row, v))
        done = code.multiply(whole, code.lanes)
        with code.range(builder.sub(columns, done)) as rest:
            code.store(ir.Constant(code.real, 0.0), code.add(row, code.multiply(code.add(done, rest), code.width)))


ROUTINES: dict[Write, int] = {
    product: 11, turn: 7, begin: 2, hide: 5, mask: 8, weigh: 4, weigh_again: 4, finish: 2, scale_rows: 6, drop: 9,
    keep: 5, average: 8, slope: 6, clear: 4,
}  # fmt: skip
"""How many arguments each has."""


def routines(element: types.Float) -> dict[str, Callable[..., Any]]:
    """All of them for an element type, by name."""
    return {write.__name__: routine(write.__name__, count, element, write) for write, count in ROUTINES.items()}
