"""The kernels of AttentionItems, written for Numba; see attention.py for what their units are."""

# pyright: reportCallIssue=false
# Numba passes an intrinsic's first argument, the typing context.

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from graphc.backends.numba.attention import ADDRESSES
from graphc.backends.numba.blocks import routines
from graphc.backends.numba.contraction import vector_bytes
from graphc.backends.numba.intrinsics import floor_divide, maximum, minimum

I64 = ir.IntType(64)
QUERY, KEY, VALUE, MASK, COTANGENT, SEED, STEP, RESULT = range(ADDRESSES)
# offset, distances along three leading axes, of rows and of columns
(
    QUERY_AT, KEY_AT, VALUE_AT, MASK_AT, COTANGENT_AT, RESULT_AT, QUERY_RESULT_AT, KEY_RESULT_AT, VALUE_RESULT_AT,
) = range(ADDRESSES, ADDRESSES + 9 * 6, 6)  # fmt: skip
ROW, COLUMN = 4, 5
(
    LEADING_2, LEADING_3, QUERIES, KEYS, SIZE, VALUE_SIZE, SCALE, CAUSAL, MASKING, VECTORS, BLOCKS, HELD,
    TURNED_QUERY, TURNED_COTANGENT, SCORES, PULLED, LEFT, STATES_AT, SCRATCH,
    DROPPING, KEPT, KEPT_SCALE, STREAM,
) = range(ADDRESSES + 9 * 6, ADDRESSES + 9 * 6 + 23)  # fmt: skip
ONE = 0x3FF0000000000000
"""The bits of the float64 1."""


@intrinsic
def scratch(typingctx, size):
    """The address of so many bytes on the stack, at a cache line."""

    def codegen(context, builder, sig, values):
        room = builder.alloca(ir.IntType(8), size=values[0])
        room.align = 64
        return builder.ptrtoint(room, I64)

    return types.int64(types.int64), codegen


@intrinsic
def place(typingctx, args, base, at, first, second, third):
    """The address of a head's matrix: of the operand in word ``base``, whose distances begin at word ``at``."""

    def codegen(context, builder, sig, values):
        words, base, at, *numbers = values

        def word(position):
            return builder.load(builder.gep(words, [position], source_etype=I64), typ=I64)

        address = builder.add(word(base), word(at))
        for axis, number in enumerate(numbers, 1):
            address = builder.add(address, builder.mul(number, word(builder.add(at, I64(axis)))))
        return address

    return types.int64(types.CPointer(types.int64), *[types.int64] * 5), codegen


def attend(element: types.Float) -> Callable[..., None]:
    """The kernel of attention: blocks of queries ``lo`` to ``hi``."""
    known = routines(element)
    product, turn, begin, hide, mask = (known[name] for name in ("product", "turn", "begin", "hide", "mask"))
    weigh, finish, scale_rows, drop, keep = (known[name] for name in ("weigh", "finish", "scale_rows", "drop", "keep"))
    width = element.bitwidth // 8
    vector = vector_bytes()

    def forward(args, lo, hi):
        memory = scratch(args[SCRATCH])
        turned, scores, states = memory + args[TURNED_QUERY], memory + args[SCORES], memory + args[STATES_AT]
        vectors = args[VECTORS]
        row = vectors * vector
        span = floor_divide(row, width)
        for unit in range(lo, hi):
            head = floor_divide(unit, args[BLOCKS])
            query = (unit - head * args[BLOCKS]) * span
            outer = floor_divide(head, args[LEADING_3])
            third = head - outer * args[LEADING_3]
            first = floor_divide(outer, args[LEADING_2])
            second = outer - first * args[LEADING_2]
            queries = minimum(span, args[QUERIES] - query)
            end = minimum(args[KEYS], query + queries) if args[CAUSAL] != 0 else args[KEYS]
            q = place(args, QUERY, QUERY_AT, first, second, third) + query * args[QUERY_AT + ROW]
            k = place(args, KEY, KEY_AT, first, second, third)
            v = place(args, VALUE, VALUE_AT, first, second, third)
            y = place(args, RESULT, RESULT_AT, first, second, third) + query * args[RESULT_AT + ROW]
            marks = place(args, MASK, MASK_AT, first, second, third) + query * args[MASK_AT + ROW]
            turn(q, args[QUERY_AT + ROW], queries, args[SIZE], turned, vectors, args[SCALE])
            begin(states, vectors)
            for block in range(maximum(floor_divide(end + args[HELD] - 1, args[HELD]), 1)):
                key = block * args[HELD]
                keys = minimum(args[HELD], end - key)
                product(
                    scores, row, keys, span, k + key * args[KEY_AT + ROW], args[KEY_AT + ROW], width, turned, row,
                    args[SIZE], 0,
                )  # fmt: skip
                if args[MASKING] != 0:
                    mask(
                        scores, keys, queries, vectors, marks + key * args[MASK_AT + COLUMN], args[MASK_AT + ROW],
                        args[MASK_AT + COLUMN], args[MASKING] - 1,
                    )  # fmt: skip
                if args[CAUSAL] != 0:
                    hide(scores, keys, vectors, query, key)
                weigh(scores, keys, vectors, states)
                if args[DROPPING] != 0:
                    number = (head * args[QUERIES] + query) * args[KEYS] + key
                    drop(scores, keys, vectors, number, args[KEYS], args[SEED], args[STREAM], args[STEP], args[KEPT])
                    keep(scores, scores, keys, vectors, args[KEPT_SCALE])
                if block > 0:
                    scale_rows(y, args[RESULT_AT + ROW], queries, args[VALUE_SIZE], states, vectors)
                product(
                    y, args[RESULT_AT + ROW], queries, args[VALUE_SIZE], scores, width, row,
                    v + key * args[VALUE_AT + ROW], args[VALUE_AT + ROW], keys, 1 if block > 0 else 0,
                )  # fmt: skip
            finish(states, vectors)
            scale_rows(y, args[RESULT_AT + ROW], queries, args[VALUE_SIZE], states, vectors)

    return forward


def attend_back(element: types.Float) -> Callable[..., None]:
    """The kernel of the gradients by query, key and value: heads ``lo`` to ``hi``."""
    known = routines(element)
    product, turn, begin, hide, mask = (known[name] for name in ("product", "turn", "begin", "hide", "mask"))
    weigh, weigh_again, finish = (known[name] for name in ("weigh", "weigh_again", "finish"))
    drop, keep, average, slope, clear = (known[name] for name in ("drop", "keep", "average", "slope", "clear"))
    width = element.bitwidth // 8
    vector = vector_bytes()

    def backward(args, lo, hi):
        memory = scratch(args[SCRATCH])
        turned, scores, states = memory + args[TURNED_QUERY], memory + args[SCORES], memory + args[STATES_AT]
        turned_back, pulled, left = memory + args[TURNED_COTANGENT], memory + args[PULLED], memory + args[LEFT]
        vectors, size, value_size, held = args[VECTORS], args[SIZE], args[VALUE_SIZE], args[HELD]
        row = vectors * vector
        span = floor_divide(row, width)
        down_q, down_k, down_v, down_g = (
            args[QUERY_AT + ROW], args[KEY_AT + ROW], args[VALUE_AT + ROW], args[COTANGENT_AT + ROW],
        )  # fmt: skip
        down_dq, down_dk, down_dv = (
            args[QUERY_RESULT_AT + ROW], args[KEY_RESULT_AT + ROW], args[VALUE_RESULT_AT + ROW]
        )  # fmt: skip
        for head in range(lo, hi):
            outer = floor_divide(head, args[LEADING_3])
            third = head - outer * args[LEADING_3]
            first = floor_divide(outer, args[LEADING_2])
            second = outer - first * args[LEADING_2]
            k = place(args, KEY, KEY_AT, first, second, third)
            v = place(args, VALUE, VALUE_AT, first, second, third)
            dk = place(args, RESULT, KEY_RESULT_AT, first, second, third)
            dv = place(args, RESULT, VALUE_RESULT_AT, first, second, third)
            alone = args[BLOCKS] == 1 and args[CAUSAL] == 0
            if not alone:
                clear(dk, down_dk, args[KEYS], size)
                clear(dv, down_dv, args[KEYS], value_size)
            for block in range(args[BLOCKS]):
                query = block * span
                queries = minimum(span, args[QUERIES] - query)
                end = minimum(args[KEYS], query + queries) if args[CAUSAL] != 0 else args[KEYS]
                q = place(args, QUERY, QUERY_AT, first, second, third) + query * down_q
                g = place(args, COTANGENT, COTANGENT_AT, first, second, third) + query * down_g
                dq = place(args, RESULT, QUERY_RESULT_AT, first, second, third) + query * down_dq
                marks = place(args, MASK, MASK_AT, first, second, third) + query * args[MASK_AT + ROW]
                turn(q, down_q, queries, size, turned, vectors, args[SCALE])
                turn(g, down_g, queries, value_size, turned_back, vectors, ONE)
                begin(states, vectors)
                blocks = maximum(floor_divide(end + held - 1, held), 1)
                # once for what sums say of all keys, then for gradients; one block of keys stays where it is
                for again in range(2):
                    if again == 1:
                        finish(states, vectors)
                    for part in range(blocks):
                        key = part * held
                        keys = minimum(held, end - key)
                        if again == 0 or blocks > 1:
                            product(scores, row, keys, span, k + key * down_k, down_k, width, turned, row, size, 0)
                            if args[MASKING] != 0:
                                mask(
                                    scores, keys, queries, vectors, marks + key * args[MASK_AT + COLUMN],
                                    args[MASK_AT + ROW], args[MASK_AT + COLUMN], args[MASKING] - 1,
                                )  # fmt: skip
                            if args[CAUSAL] != 0:
                                hide(scores, keys, vectors, query, key)
                            if again == 0:
                                weigh(scores, keys, vectors, states)
                            else:
                                weigh_again(scores, keys, vectors, states)
                            if args[DROPPING] != 0:
                                number = (head * args[QUERIES] + query) * args[KEYS] + key
                                drop(
                                    scores, keys, vectors, number, args[KEYS], args[SEED], args[STREAM], args[STEP],
                                    args[KEPT],
                                )  # fmt: skip
                            product(
                                pulled, row, keys, span, v + key * down_v, down_v, width, turned_back, row,
                                value_size, 0,
                            )  # fmt: skip
                            average(scores, pulled, keys, vectors, states, args[DROPPING], args[KEPT_SCALE], 1 - again)
                        if again == 1:
                            slope(scores, pulled, keys, vectors, states, args[SCALE])
                            weights = scores
                            if args[DROPPING] != 0:
                                keep(scores, left, keys, vectors, args[KEPT_SCALE])
                                weights = left
                            more = 0 if alone else 1
                            product(
                                dv + key * down_dv, down_dv, keys, value_size, weights, row, width, g, down_g,
                                queries, more,
                            )  # fmt: skip
                            product(
                                dq, down_dq, queries, size, pulled, width, row, k + key * down_k, down_k, keys,
                                1 if part > 0 else 0,
                            )  # fmt: skip
                            product(
                                dk + key * down_dk, down_dk, keys, size, pulled, row, width, q, down_q, queries, more
                            )

    return backward
