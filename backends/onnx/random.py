"""How random bits are written: the counter-based generator in unsigned integer arithmetic, the same bits everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.onnx.movement import reshape
from graphc.backends.onnx.writer import Writer
from graphc.ir.dims import product
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.random import RandomBits

if TYPE_CHECKING:
    from graphc.backends.onnx.rules import Rule

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GROUPS = 5


def _random_bits(w: Writer, node: Node, seed: str, step: str) -> str:
    op = node.op
    assert isinstance(op, RandomBits)
    w.require(18, node, "BitwiseXor, BitwiseOr")
    count = product(node.shape)
    zero, one = w.constant(0, DType.int64), w.constant(1, DType.int64)
    index = w.cast(w.emit("Range", zero, w.sizes.scalar(count), one), DType.uint32)
    bits = threefry(w, seed, w.constant(op.stream, DType.uint32), step, index)
    return reshape(w, bits, (count,), node.shape)


def threefry(w: Writer, key0: str, key1: str, counter0: str, counter1: str) -> str:
    """The first word of the Threefry-2x32-20 block.

    Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011, section 4.2.
    """
    parity = w.emit("BitwiseXor", w.emit("BitwiseXor", key0, key1), w.constant(_PARITY, DType.uint32))
    keys = (key0, key1, parity)
    x, y = w.emit("Add", counter0, key0), w.emit("Add", counter1, key1)
    for group in range(1, _GROUPS + 1):
        for rotation in _ROTATIONS[(group - 1) % 2]:
            x = w.emit("Add", x, y)
            if group < _GROUPS or rotation != _ROTATIONS[0][-1]:  # the second word of the last round is not asked for
                y = w.emit("BitwiseXor", _rotate(w, y, rotation), x)
        x = w.emit("Add", x, keys[group % 3])
        if group < _GROUPS:
            y = w.emit("Add", y, w.emit("Add", keys[(group + 1) % 3], w.constant(group, DType.uint32)))
    return x


def _rotate(w: Writer, x: str, bits: int) -> str:
    left = w.emit("BitShift", x, w.constant(bits, DType.uint32), direction="LEFT")
    right = w.emit("BitShift", x, w.constant(32 - bits, DType.uint32), direction="RIGHT")
    return w.emit("BitwiseOr", left, right)


RULES: dict[type, Rule] = {RandomBits: _random_bits}
