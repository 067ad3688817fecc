"""The native code of every step, written for Numba: the executor, its worker, and matrix products.

Compiled once and kept in the cache like the kernels. This module imports Numba: it is only loaded when the cache
does not have its object code.
"""

# pyright: reportCallIssue=false
# Numba passes an intrinsic's first argument, the typing context.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_process_triple
from numba import float32, float64, int64
from numba.core import types
from numba.core.extending import intrinsic

from graphc.backends.numba.attention_kernels import attend, attend_back
from graphc.backends.numba.blocked_tiles import products_in_blocks
from graphc.backends.numba.intrinsics import ADDRESS, I64, floor_divide, minimum
from graphc.backends.numba.packed_tiles import products_with_panels
from graphc.backends.numba.table import (
    ARRAY_DATA,
    ARRAYS_OVERLAP,
    CHECK_FAILED,
    COMMIT,
    COUNTER_STRIDE,
    COUNTERS,
    CURRENT_LAUNCH,
    DONE,
    GEMM_A,
    GEMM_B,
    GEMM_C,
    GEMM_K,
    GEMM_LDA,
    GEMM_LDB,
    GEMM_LDC,
    GEMM_M,
    GEMM_N,
    GEMM_ROUTINE,
    GEMM_STRIDE_A,
    GEMM_STRIDE_B,
    GEMM_STRIDE_C,
    GEMM_TILE_M,
    GEMM_TILE_N,
    GEMM_TILES_M,
    GEMM_TILES_N,
    GEMM_TRANSPOSE_A,
    GEMM_TRANSPOSE_B,
    GEMV_ROUTINE,
    GUARDED_RANGES,
    INPUT_PATCH_COUNT,
    INPUT_PATCHES,
    ITEM_ARGS,
    ITEM_CHUNK,
    ITEM_END_UNIT,
    ITEM_EXTENT,
    ITEM_FIRST_UNIT,
    ITEM_KERNEL,
    ITEM_WORDS,
    ITEMS,
    LAUNCH_COUNT,
    LAUNCH_END_ITEM,
    LAUNCH_FIRST_ITEM,
    LAUNCH_LOOP,
    LAUNCH_PARALLEL,
    LAUNCH_UNITS,
    LAUNCH_WORDS,
    LAUNCHES,
    LOOP_BEGIN,
    LOOP_COUNT,
    LOOP_END,
    LOOP_GOING,
    LOOP_MOVE_COUNT,
    LOOP_MOVES,
    LOOP_STEP,
    LOOP_STEPS,
    MOST_SHARES,
    MOVE_ALTERNATES,
    MOVE_BASE,
    MOVE_START,
    MOVE_STEP,
    MOVE_WORD,
    MOVE_WORDS,
    OUTPUT_PATCH_COUNT,
    OUTPUT_PATCHES,
    OUTPUT_RANGES,
    PATCH_SLOT,
    PATCH_WORD,
    PATCH_WORDS,
    POOL,
    POOL_ACTIVE,
    POOL_JOB,
    POOL_OWNER,
    POOL_READ,
    POOL_READ_END,
    POOL_SEQUENCE,
    POOL_SLEEPERS,
    POOL_SPINS,
    POOL_STOPPING,
    POOL_WORDS,
    POOL_WRITE,
    POOL_WRITE_END,
    POOL_YIELD,
    RANGE_BYTES,
    RANGE_COUNT,
    RANGE_WORD,
    RANGE_WORDS,
    RANGES,
    SHARES,
    STATE_RANGES,
    STATUS_CHECK,
    THREAD_COUNT,
    TUPLE_ITEMS,
    WORK,
)
from graphc.backends.numba.tiles import products_of_patches
from graphc.backends.numba.winograd_tiles import winograd_products

VOID, I32, WORD_POINTER = ir.VoidType(), ir.IntType(32), I64.as_pointer()
SPINS_BEFORE_YIELD = 200
MOST_FAILED_READS = 1000
"""A worker ends after as many: signals interrupt some, but all fail where the program has closed the pipe."""


@intrinsic
def word_at(typingctx, address):
    """The int64 at an address."""

    def codegen(context, builder, sig, values):
        return builder.load(builder.inttoptr(values[0], I64.as_pointer()), typ=I64)

    return types.int64(types.int64), codegen


@intrinsic
def address_of(typingctx, words, offset):
    """The address of a word."""

    def codegen(context, builder, sig, values):
        return builder.ptrtoint(builder.gep(values[0], [values[1]], source_etype=I64), I64)

    return types.int64(ADDRESS, types.int64), codegen


@intrinsic
def call_kernel(typingctx, kernel, args, lo, hi):
    """Call the kernel at an address."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(VOID, [I64, I64, I64])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def call_work(typingctx, work, words, share):
    """Call :func:`work` at its address."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(VOID, [WORD_POINTER, I64])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, ADDRESS, types.int64), codegen


@intrinsic
def call_transfer(typingctx, function, end, address):
    """``read`` or ``write`` of one byte at one end of a pipe; the number of bytes."""

    def codegen(context, builder, sig, values):
        kind = ir.FunctionType(I64, [I32, I64, I64])
        callee = builder.inttoptr(values[0], kind.as_pointer())
        return builder.call(callee, [builder.trunc(values[1], I32), values[2], I64(1)])

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_yield(typingctx, function):
    """``sched_yield()``: let other threads of this CPU run."""

    def codegen(context, builder, sig, values):
        callee = builder.inttoptr(values[0], ir.FunctionType(I32, []).as_pointer())
        builder.call(callee, [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the CPU that this is a loop that waits."""

    def codegen(context, builder, sig, values):
        triple = get_process_triple()
        name, arguments = "llvm.x86.sse2.pause", []
        if not triple.startswith(("x86", "i686")):
            name, arguments = "llvm.aarch64.hint", [I32(1)]
            if not triple.startswith(("aarch64", "arm64")):
                return context.get_dummy_value()
        kind = ir.FunctionType(VOID, [argument.type for argument in arguments])
        callee = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(callee, arguments)
        return context.get_dummy_value()

    return types.void(), codegen


def _word(builder, values):
    return builder.gep(values[0], [values[1]], source_etype=I64)


@intrinsic
def atomic_load(typingctx, words, offset):
    """A word that other threads write; sequentially consistent, as all that follows."""

    def codegen(context, builder, sig, values):
        return builder.load_atomic(_word(builder, values), "seq_cst", 8, typ=I64)

    return types.int64(ADDRESS, types.int64), codegen


@intrinsic
def atomic_store(typingctx, words, offset, value):
    """Write a word that other threads read."""

    def codegen(context, builder, sig, values):
        builder.store_atomic(values[2], _word(builder, values), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(ADDRESS, types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx, words, offset, value):
    """Add to a word; what it was before."""

    def codegen(context, builder, sig, values):
        return builder.atomic_rmw("add", _word(builder, values), values[2], "seq_cst")

    return types.int64(ADDRESS, types.int64, types.int64), codegen


@intrinsic
def atomic_exchange(typingctx, words, offset, value):
    """Replace a word; what it was before."""

    def codegen(context, builder, sig, values):
        return builder.atomic_rmw("xchg", _word(builder, values), values[2], "seq_cst")

    return types.int64(ADDRESS, types.int64, types.int64), codegen


@intrinsic
def atomic_replace(typingctx, words, offset, expected, value):
    """Replace a word if it is what is expected; whether it was."""

    def codegen(context, builder, sig, values):
        result = builder.cmpxchg(_word(builder, values), values[2], values[3], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(ADDRESS, types.int64, types.int64, types.int64), codegen


@intrinsic
def words_at(typingctx, address):
    """An address as a pointer to words."""

    def codegen(context, builder, sig, values):
        return builder.inttoptr(values[0], WORD_POINTER)

    return ADDRESS(types.int64), codegen


@intrinsic
def take_next(typingctx, words, offset):
    """The value of a counter, which goes up by one; atomic."""

    def codegen(context, builder, sig, values):
        pointer = builder.gep(values[0], [values[1]], source_etype=I64)
        return builder.atomic_rmw("add", pointer, I64(1), "monotonic")

    return types.int64(ADDRESS, types.int64), codegen


def execute(words, inputs, outputs):
    """Run one step: DONE, or CHECK_FAILED before the commit, or ARRAYS_OVERLAP before all.

    ``inputs`` and ``outputs`` are the addresses of tuples of arrays, or 0 where the caller filled in the words.
    """
    if inputs != 0:
        patch = words[INPUT_PATCHES]
        for _ in range(words[INPUT_PATCH_COUNT]):
            array = word_at(inputs + words[TUPLE_ITEMS] + 8 * words[patch + PATCH_SLOT])
            words[words[patch + PATCH_WORD]] = word_at(array + words[ARRAY_DATA])
            patch += PATCH_WORDS
        patch = words[OUTPUT_PATCHES]
        for _ in range(words[OUTPUT_PATCH_COUNT]):
            array = word_at(outputs + words[TUPLE_ITEMS] + 8 * words[patch + PATCH_SLOT])
            words[words[patch + PATCH_WORD]] = word_at(array + words[ARRAY_DATA])
            patch += PATCH_WORDS
    # kernels are compiled for arrays that share no memory
    for number in range(words[GUARDED_RANGES]):
        record = words[RANGES] + RANGE_WORDS * number
        start = words[words[record + RANGE_WORD]]
        stop = start + words[record + RANGE_BYTES]
        first = number + 1 if number < words[OUTPUT_RANGES] else words[STATE_RANGES]
        record = words[RANGES] + RANGE_WORDS * first
        for _ in range(first, words[RANGE_COUNT]):
            other = words[words[record + RANGE_WORD]]
            if other < stop and start < other + words[record + RANGE_BYTES]:
                return ARRAYS_OVERLAP
            record += RANGE_WORDS
    words[STATUS_CHECK] = 0
    threads = word_at(words[THREAD_COUNT])
    pool = words_at(words[POOL])
    commit = words[COMMIT]
    launches = words[LAUNCHES]
    count = words[LAUNCH_COUNT]
    number = 0
    while number < count:
        if number == commit and words[STATUS_CHECK] != 0:
            return CHECK_FAILED
        launch = launches + LAUNCH_WORDS * number
        loop = words[launch + LAUNCH_LOOP]
        if loop != 0:
            # a loop begins, or goes on to its next step: the addresses of its elements move
            begins = number == words[loop + LOOP_BEGIN]
            step = 0 if begins else words[loop + LOOP_STEP] + 1
            going = step < words[loop + LOOP_COUNT]
            words[loop + LOOP_STEP] = step
            move = words[loop + LOOP_MOVES]
            for _ in range(words[loop + LOOP_MOVE_COUNT] if going else 0):
                word = words[move + MOVE_WORD]
                if begins:
                    words[word] = words[words[move + MOVE_BASE]] + words[move + MOVE_START]
                elif words[move + MOVE_ALTERNATES] != 0 and step & 1 == 0:
                    words[word] -= words[move + MOVE_STEP]
                else:
                    words[word] += words[move + MOVE_STEP]
                move += MOVE_WORDS
            if words[loop + LOOP_GOING] != 0:
                going = going and word_at(words[words[loop + LOOP_GOING]]) & 255 != 0
                if not going:
                    words_at(words[words[loop + LOOP_STEPS]])[0] = step
            number = words[loop + LOOP_BEGIN] + 1 if going else words[loop + LOOP_END]
            continue
        units = words[launch + LAUNCH_UNITS]
        # another executor may have the pool: then this one does its work alone
        if threads > 1 and words[launch + LAUNCH_PARALLEL] != 0 and atomic_exchange(pool, POOL_OWNER, 1) == 0:
            shares = minimum(minimum(threads, units), MOST_SHARES)
            words[CURRENT_LAUNCH] = launch
            words[SHARES] = shares
            for share in range(shares):
                words[COUNTERS + COUNTER_STRIDE * share] = floor_divide(units * share, shares)
            atomic_store(pool, POOL_JOB, address_of(words, 0))
            atomic_add(pool, POOL_SEQUENCE, 1)
            if atomic_load(pool, POOL_SLEEPERS) > 0:
                for _ in range(atomic_exchange(pool, POOL_SLEEPERS, 0)):
                    call_transfer(pool[POOL_WRITE], pool[POOL_WRITE_END], address_of(words, SHARES))
            call_work(words[WORK], words, 0)
            # all units are taken. A worker that comes late finds the job closed: nobody waits for it
            atomic_add(pool, POOL_SEQUENCE, 1)
            waited = 0
            while atomic_load(pool, POOL_ACTIVE) != 0:
                pause()
                waited += 1
                if waited > SPINS_BEFORE_YIELD:
                    call_yield(pool[POOL_YIELD])
            atomic_store(pool, POOL_OWNER, 0)
        else:
            item = words[ITEMS] + ITEM_WORDS * words[launch + LAUNCH_FIRST_ITEM]
            for _ in range(words[launch + LAUNCH_FIRST_ITEM], words[launch + LAUNCH_END_ITEM]):
                args = address_of(words, words[item + ITEM_ARGS])
                call_kernel(words[item + ITEM_KERNEL], args, 0, words[item + ITEM_EXTENT])
                item += ITEM_WORDS
        number += 1
    if words[STATUS_CHECK] != 0:
        return CHECK_FAILED
    return DONE


def serve(pool, number):
    """The life of a worker, number 1 or more: enter the jobs that are opened; between them spin, then sleep."""
    seen = 0
    byte = address_of(pool, POOL_WORDS + number)
    while True:
        spins = 0
        while True:
            if atomic_load(pool, POOL_STOPPING) != 0:
                return
            sequence = atomic_load(pool, POOL_SEQUENCE)
            if sequence != seen and sequence & 1 == 1:
                break
            pause()
            spins += 1
            if spins > pool[POOL_SPINS]:
                spins = 0
                atomic_add(pool, POOL_SLEEPERS, 1)
                asleep = True
                if atomic_load(pool, POOL_SEQUENCE) != sequence or atomic_load(pool, POOL_STOPPING) != 0:
                    # a job was opened just now: stay awake, unless a byte is on its way already
                    sleepers = atomic_load(pool, POOL_SLEEPERS)
                    while sleepers > 0 and asleep:
                        if atomic_replace(pool, POOL_SLEEPERS, sleepers, sleepers - 1):
                            asleep = False
                        else:
                            sleepers = atomic_load(pool, POOL_SLEEPERS)
                failures = 0
                while asleep:
                    if call_transfer(pool[POOL_READ], pool[POOL_READ_END], byte) == 1:
                        asleep = False
                    elif atomic_load(pool, POOL_STOPPING) != 0 or failures > MOST_FAILED_READS:
                        return
                    failures += 1
        seen = sequence
        atomic_add(pool, POOL_ACTIVE, 1)
        if atomic_load(pool, POOL_SEQUENCE) == sequence:
            job = words_at(atomic_load(pool, POOL_JOB))
            if number < job[SHARES]:
                call_work(job[WORK], job, number)
        atomic_add(pool, POOL_ACTIVE, -1)


def work(words, share):
    """One thread's part of a parallel launch: its own share of the units, then what is left of the others'."""
    shares = words[SHARES]
    launch = words[CURRENT_LAUNCH]
    units = words[launch + LAUNCH_UNITS]
    first = words[ITEMS] + ITEM_WORDS * words[launch + LAUNCH_FIRST_ITEM]
    for _ in range(shares):
        if share >= shares:
            share -= shares
        end = floor_divide(units * (share + 1), shares)
        item = first
        unit = take_next(words, COUNTERS + COUNTER_STRIDE * share)
        while unit < end:
            while unit >= words[item + ITEM_END_UNIT]:
                item += ITEM_WORDS
            chunk = words[item + ITEM_CHUNK]
            lo = (unit - words[item + ITEM_FIRST_UNIT]) * chunk
            hi = minimum(lo + chunk, words[item + ITEM_EXTENT])
            call_kernel(words[item + ITEM_KERNEL], address_of(words, words[item + ITEM_ARGS]), lo, hi)
            unit = take_next(words, COUNTERS + COUNTER_STRIDE * share)
        share += 1


def _blas_call(element: types.Float) -> Any:
    """Intrinsics that call CBLAS's gemm and gemv, row-major, with alpha 1 and beta 0."""
    real = ir.FloatType() if element is float32 else ir.DoubleType()
    row_major = I32(101)

    @intrinsic
    def gemm(typingctx, routine, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc):
        def codegen(context, builder, sig, values):
            routine, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc = values
            kinds = [I32, I32, I32, I64, I64, I64, real, I64, I64, I64, I64, real, I64, I64]
            callee = builder.inttoptr(routine, ir.FunctionType(VOID, kinds).as_pointer())
            flags = [builder.trunc(flag, I32) for flag in (transpose_a, transpose_b)]
            builder.call(callee, [row_major, *flags, m, n, k, real(1.0), a, lda, b, ldb, real(0.0), c, ldc])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    @intrinsic
    def gemv(typingctx, routine, transpose, rows, columns, matrix, ld, x, x_step, y, y_step):
        def codegen(context, builder, sig, values):
            routine, transpose, rows, columns, matrix, ld, x, x_step, y, y_step = values
            kinds = [I32, I32, I64, I64, real, I64, I64, I64, I64, real, I64, I64]
            callee = builder.inttoptr(routine, ir.FunctionType(VOID, kinds).as_pointer())
            transpose = builder.trunc(transpose, I32)
            builder.call(
                callee, [row_major, transpose, rows, columns, real(1.0), matrix, ld, x, x_step, real(0.0), y, y_step]
            )
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return gemm, gemv


@intrinsic
def store_zero(typingctx, address, element):
    """Write 0 of the second argument's type at an address."""
    real = ir.FloatType() if element is float32 else ir.DoubleType()

    def codegen(context, builder, sig, values):
        builder.store(real(0.0), builder.inttoptr(values[0], real.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, element), codegen


NO_TRANSPOSE, TRANSPOSE = 111, 112


def matrix_product(element: types.Float) -> Callable[..., None]:
    """The kernel of a GemmItem: tiles ``lo`` to ``hi`` of the batch's products, in the order batch, rows, columns."""
    width = element.bitwidth // 8
    call_gemm, call_gemv = _blas_call(element)
    zero = element(0.0)

    def gemm(args, lo, hi):
        m, n, k = args[GEMM_M], args[GEMM_N], args[GEMM_K]
        lda, ldb, ldc = args[GEMM_LDA], args[GEMM_LDB], args[GEMM_LDC]
        transpose_a, transpose_b = args[GEMM_TRANSPOSE_A], args[GEMM_TRANSPOSE_B]
        for tile in range(lo, hi):
            row_tile = floor_divide(tile, args[GEMM_TILES_N])
            batch = floor_divide(row_tile, args[GEMM_TILES_M])
            first_column = (tile - row_tile * args[GEMM_TILES_N]) * args[GEMM_TILE_N]
            first_row = (row_tile - batch * args[GEMM_TILES_M]) * args[GEMM_TILE_M]
            rows = minimum(args[GEMM_TILE_M], m - first_row)
            columns = minimum(args[GEMM_TILE_N], n - first_column)
            c = args[GEMM_C] + width * (batch * args[GEMM_STRIDE_C] + first_row * ldc + first_column)
            if k == 0:
                for row in range(rows):
                    for column in range(columns):
                        store_zero(c + width * (row * ldc + column), zero)
                continue
            a = args[GEMM_A] + width * (batch * args[GEMM_STRIDE_A])
            b = args[GEMM_B] + width * (batch * args[GEMM_STRIDE_B])
            a += width * first_row * (1 if transpose_a != 0 else lda)
            b += width * first_column * (ldb if transpose_b != 0 else 1)
            code_a = TRANSPOSE if transpose_a != 0 else NO_TRANSPOSE
            code_b = TRANSPOSE if transpose_b != 0 else NO_TRANSPOSE
            if m == 1:
                # c = b' a: a row of a, whose step is lda when it is stored as a column
                step = lda if transpose_a != 0 else 1
                if transpose_b != 0:
                    call_gemv(args[GEMV_ROUTINE], NO_TRANSPOSE, columns, k, b, ldb, a, step, c, 1)
                else:
                    call_gemv(args[GEMV_ROUTINE], TRANSPOSE, k, columns, b, ldb, a, step, c, 1)
            elif n == 1:
                step = 1 if transpose_b != 0 else ldb
                if transpose_a != 0:
                    call_gemv(args[GEMV_ROUTINE], TRANSPOSE, k, rows, a, lda, b, step, c, ldc)
                else:
                    call_gemv(args[GEMV_ROUTINE], NO_TRANSPOSE, rows, k, a, lda, b, step, c, ldc)
            else:
                call_gemm(args[GEMM_ROUTINE], code_a, code_b, rows, columns, k, a, lda, b, ldb, c, ldc)

    return gemm


WORDS = types.CPointer(types.int64)
FUNCTIONS: dict[str, tuple[Callable[..., object], tuple[types.Type, ...], types.Type]] = {
    "execute": (execute, (WORDS, int64, int64), int64),
    "work": (work, (WORDS, int64), types.void),
    "serve": (serve, (WORDS, int64), types.void),
    "gemm_float32": (matrix_product(float32), (WORDS, int64, int64), types.void),
    "gemm_float64": (matrix_product(float64), (WORDS, int64, int64), types.void),
    "blocks_float32": (products_in_blocks(float32, False), (WORDS, int64, int64), types.void),
    "blocks_float64": (products_in_blocks(float64, False), (WORDS, int64, int64), types.void),
    "blocks_down_float32": (products_in_blocks(float32, True), (WORDS, int64, int64), types.void),
    "blocks_down_float64": (products_in_blocks(float64, True), (WORDS, int64, int64), types.void),
    "panels_float32": (products_with_panels(float32), (WORDS, int64, int64), types.void),
    "panels_float64": (products_with_panels(float64), (WORDS, int64, int64), types.void),
    "patches_float32": (products_of_patches(float32), (WORDS, int64, int64), types.void),
    "patches_float64": (products_of_patches(float64), (WORDS, int64, int64), types.void),
    "attention_float32": (attend(float32), (WORDS, int64, int64), types.void),
    "attention_float64": (attend(float64), (WORDS, int64, int64), types.void),
    "attention_gradients_float32": (attend_back(float32), (WORDS, int64, int64), types.void),
    "attention_gradients_float64": (attend_back(float64), (WORDS, int64, int64), types.void),
    "winograd_float32": (winograd_products(float32), (WORDS, int64, int64), types.void),
    "winograd_float64": (winograd_products(float64), (WORDS, int64, int64), types.void),
}
"""By symbol: the function, its argument types, its result type."""
WIDE_ENOUGH = frozenset(name for name in FUNCTIONS if name.startswith(("attention", "blocks")))
"""Functions whose loops are written as wide as they shall be: LLVM unrolling them takes longer and gains nothing."""
