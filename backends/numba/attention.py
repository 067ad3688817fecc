"""Attention as items of the executor: the argument record, and the kernels that go through blocks of scores.

A unit of the forward kernel is a block of queries of one head, which meets one block of keys after the other (online
softmax). A unit of the backward kernel is a head: its blocks of queries add to the gradients of keys and values. What
causal attention hides is not computed, but for the block on the diagonal. Memory beside operands and results is one
block of scores a thread, on its stack.

Source: Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithms 1 and 4, with blocks turned.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphc.backends.numba.contraction import vector_bytes
from graphc.ir.types import DType
from graphc.lower.plan import AttentionItem, Lying, size_of

SCORES_BYTES, PULLED_BYTES = 64 * 1024, 256 * 1024
"""Blocks of scores are at most this large, forward and backward, where there are up to three of them: the second cache
holds what a unit reads. Backward, all keys of a query in one block save two of seven products."""
MOST_VECTORS = 4
"""Of queries in a block. Causal attention takes one: of narrow blocks less is hidden, on the diagonal."""
STATES = 4
ADDRESSES = 8
"""Words of a record before its numbers: query, key, value, mask, cotangent, seed, step, result."""


@dataclass(frozen=True)
class Attention:
    """An AttentionItem with its sizes as numbers.

    Attributes:
        words: the argument record after the addresses.
        units: how many there are.
        operations: the work of one of them.
    """

    words: tuple[int, ...]
    units: int
    operations: int


def attention(item: AttentionItem, dims: Mapping[str, int]) -> Attention:
    """Fix the sizes. Blocks depend on the sizes alone, so that bits do not depend on the threads."""
    width = item.dtype.itemsize
    lanes = vector_bytes() // width
    queries, keys, size, value_size = (
        size_of(extent, dims) for extent in (item.queries, item.keys, item.size, item.value_size)
    )
    leading = [size_of(extent, dims) for extent in item.leading]
    heads = math.prod(leading)
    backward = item.cotangent is not None
    room = PULLED_BYTES if backward else SCORES_BYTES
    vectors = _vectors(queries, keys, lanes, item.causal, room if backward else 0)
    blocks = -(-queries // (vectors * lanes))
    row = vectors * vector_bytes()
    held = max(min(keys, room // row), 1)
    scores = held * row
    lengths = (
        _whole(size, lanes) * row,
        _whole(value_size, lanes) * row if backward else 0,
        scores,
        scores if backward else 0,
        scores if backward and item.rate else 0,
        STATES * row,
    )
    places = [sum(lengths[:end]) for end in range(len(lengths))]
    words = (
        *(word for lying in item.lying for word in _distances(lying, dims)),
        *leading[1:], queries, keys, size, value_size, _bits(item.scale), int(item.causal),
        0 if item.mask is None else 1 + int(item.mask_adds),
        vectors, blocks, held, *places, sum(lengths),
        int(item.rate > 0), _kept(item.rate), _bits(1 / (1 - item.rate)), item.stream,
    )  # fmt: skip
    seen = keys if not item.causal else max(min(keys, queries) // 2, 1)
    products = 3 * size + 2 * value_size if backward else size + value_size
    each = queries if backward else min(vectors * lanes, queries)
    return Attention(words, heads if backward else heads * blocks, 2 * each * seen * (products + 8))


def _vectors(queries: int, keys: int, lanes: int, causal: bool, room: int) -> int:
    """How many vectors of queries a block has; ``room`` is how many bytes shall hold all keys, if they can."""
    most = 1 if causal else MOST_VECTORS
    while most > 1 and most * keys * vector_bytes() > room >= keys * vector_bytes():
        most //= 2
    blocks = max(-(-queries // (most * lanes)), 1)
    return max(-(-queries // (blocks * lanes)), 1)


def _distances(lying: Lying | None, dims: Mapping[str, int]) -> tuple[int, ...]:
    """Offset, and how far apart what follows along each leading axis, rows and columns are; in bytes."""
    if lying is None:
        return (0,) * 6
    return tuple(lying.width * size_of(size, dims) for size in (lying.offset, *lying.strides))


def _whole(size: int, lanes: int) -> int:
    return -(-size // lanes) * lanes


def _bits(number: float) -> int:
    """The bits of a float64."""
    return struct.unpack("<q", struct.pack("<d", number))[0]


def _kept(rate: float) -> int:
    """24 random bits below this are kept, as those that Bernoulli draws for float32's probability."""
    return math.ceil(float(np.float32(1 - rate)) * 2**24)


FUNCTIONS = {
    ("forward", DType.float32): "attention_float32",
    ("forward", DType.float64): "attention_float64",
    ("backward", DType.float32): "attention_gradients_float32",
    ("backward", DType.float64): "attention_gradients_float64",
}


def function_of(item: AttentionItem) -> str:
    """The name of the native function that computes an item."""
    return FUNCTIONS["forward" if item.cotangent is None else "backward", item.dtype]
