"""What instructions of PTX on integers and bits compute, for all threads at once.

Source: NVIDIA, "Parallel Thread Execution ISA", integer, extended and logic instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.cupy.ptx_text import dtype_of

Array = np.ndarray
U32, U64 = np.uint32, np.uint64


class UnknownInstruction(NotImplementedError):
    """An instruction that this interpreter does not know."""


@dataclass(frozen=True)
class Operation:
    """What an instruction computes: a result of a type from operands of given types."""

    result: np.dtype
    operands: tuple[np.dtype, ...]
    compute: Callable[..., Array]


def _shift_left(a: Array, b: Array) -> Array:
    width = 8 * a.dtype.itemsize
    return np.where(b < width, a << np.minimum(b, width - 1).astype(a.dtype), a.dtype.type(0))


def _shift_right(a: Array, b: Array) -> Array:
    width = 8 * a.dtype.itemsize
    filled = a >> np.minimum(b, width - 1).astype(a.dtype)
    return filled if a.dtype.kind == "i" else np.where(b < width, filled, a.dtype.type(0))


def _remainder(a: Array, b: Array) -> Array:
    return np.fmod(a, np.where(b == 0, b.dtype.type(1), b))


def _quotient(a: Array, b: Array) -> Array:
    safe = np.where(b == 0, b.dtype.type(1), b)
    return (a - np.fmod(a, safe)) // safe


def _high(a: Array, b: Array) -> Array:
    """The upper half of a product."""
    if a.dtype.itemsize == 4:
        wide = np.dtype(f"{a.dtype.kind}8")
        return ((a.astype(wide) * b.astype(wide)) >> wide.type(32)).astype(a.dtype)
    x, y, low = a.view(U64), b.view(U64), U64(0xFFFFFFFF)
    xl, xh, yl, yh = x & low, x >> U64(32), y & low, y >> U64(32)
    middle = xh * yl + (xl * yl >> U64(32))
    lower = xl * yh + (middle & low)
    found = xh * yh + (middle >> U64(32)) + (lower >> U64(32))
    if a.dtype.kind == "i":
        found = found - np.where(a < 0, y, U64(0)) - np.where(b < 0, x, U64(0))
    return found.view(a.dtype)


def _funnel(left: bool, wraps: bool) -> Callable[..., Array]:
    def compute(a: Array, b: Array, c: Array) -> Array:
        count = (c & U32(31) if wraps else np.minimum(c, U32(32))).astype(U64)
        both = b.astype(U64) << U64(32) | a.astype(U64)
        return (both << count >> U64(32) if left else both >> count).astype(U32)

    return compute


def _insert(a: Array, b: Array, position: Array, length: Array) -> Array:
    width, dtype = 8 * a.dtype.itemsize, a.dtype
    shift, size = (position & U32(255)).astype(U64), (length & U32(255)).astype(U64)
    ones = np.where(size >= U64(64), ~U64(0), (U64(1) << np.minimum(size, U64(63))) - U64(1))
    mask = np.where(shift < U64(width), ones << np.minimum(shift, U64(63)), U64(0))
    moved = a.astype(U64) << np.minimum(shift, U64(63))
    return (moved & mask | b.astype(U64) & ~mask).astype(dtype)


def _extract(a: Array, position: Array, length: Array) -> Array:
    """Unsigned; of signed numbers, the sign is spread."""
    width = 8 * a.dtype.itemsize
    shift, size = (position & U32(255)).astype(np.int64), (length & U32(255)).astype(np.int64)
    size = np.minimum(size, np.maximum(width - shift, 0))
    bits = a.astype(np.int64).view(U64)
    moved = (bits >> np.minimum(shift, 63).astype(U64)) if a.dtype.kind == "u" else (a.astype(np.int64) >> shift)
    room = np.where(size > 0, 64 - size, 63)
    spread = (moved.view(np.int64) << room) >> room
    kept = spread if a.dtype.kind == "i" else (moved.view(U64) << room.astype(U64)) >> room.astype(U64)
    return np.where(size > 0, kept, 0).astype(a.dtype)


def _permute(a: Array, b: Array, selector: Array) -> Array:
    both = b.astype(U64) << U64(32) | a.astype(U64)
    result = np.zeros(np.broadcast(a, b, selector).shape, U32)
    for byte in range(4):
        which = selector >> U32(4 * byte)
        value = (both >> (U64(8) * (which & U32(7)).astype(U64)) & U64(255)).astype(U32)
        sign = np.where(value & U32(128), U32(255), U32(0))
        result |= np.where(which & U32(8), sign, value) << U32(8 * byte)
    return result


def _pairs(start: int) -> Callable[..., Array]:
    """Two halves times two bytes, and a sum."""

    def compute(a: Array, b: Array, c: Array) -> Array:
        low, high = b >> U32(start) & U32(255), b >> U32(start + 8) & U32(255)
        return (a & U32(0xFFFF)) * low + (a >> U32(16)) * high + c

    return compute


def _logic(table: int) -> Callable[..., Array]:
    def compute(a: Array, b: Array, c: Array, _: Array) -> Array:
        result = np.zeros(np.broadcast(a, b, c).shape, U32)
        for row in range(8):
            if table >> row & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return result

    return compute


def logic_operation(table: int) -> Operation:
    """``lop3.b32`` with its table."""
    word = np.dtype(U32)
    return Operation(word, (word, word, word, word), _logic(table))


def _bits_of(a: Array) -> Array:
    return np.unpackbits(a.reshape(-1, 1).view(np.uint8), axis=1, bitorder="little")


def _leading(a: Array) -> Array:
    bits = _bits_of(a)[:, ::-1]
    return np.where(bits.any(1), bits.argmax(1), bits.shape[1]).astype(U32)


def _reverse(a: Array) -> Array:
    return np.packbits(_bits_of(a)[:, ::-1], axis=1, bitorder="little").view(a.dtype).reshape(-1)


_PLAIN: dict[str, Callable[..., Array]] = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "not": np.invert, "neg": np.negative, "abs": np.abs, "min": np.minimum, "max": np.maximum,
    "div": _quotient, "rem": _remainder, "mul.lo": np.multiply, "mul.hi": _high,
    "mad.lo": lambda a, b, c: a * b + c, "mad.hi": lambda a, b, c: _high(a, b) + c,
}  # fmt: skip
_COUNTS = {"not": 1, "neg": 1, "abs": 1, "mad.lo": 3, "mad.hi": 3}


def integer_operation(opcode: str) -> Operation:
    """What an instruction on integers or bits does.

    Raises:
        UnknownInstruction: nothing is known about it.
    """
    name, *said = opcode.split(".")
    kind = dtype_of(said[-1])
    word = np.dtype(U32)
    full = ".".join([name, *said[:-1]])
    if full in _PLAIN:
        return Operation(kind, (kind,) * _COUNTS.get(full, 2), _PLAIN[full])
    if full in ("mul.wide", "mad.wide"):
        wide = np.dtype(f"{kind.kind}{2 * kind.itemsize}")
        if name == "mul":
            return Operation(wide, (kind, kind), lambda a, b: a.astype(wide) * b.astype(wide))
        return Operation(wide, (kind, kind, wide), lambda a, b, c: a.astype(wide) * b.astype(wide) + c)
    match full:
        case "shl":
            return Operation(kind, (kind, word), _shift_left)
        case "shr":
            return Operation(kind, (kind, word), _shift_right)
        case "shf.l.wrap" | "shf.l.clamp" | "shf.r.wrap" | "shf.r.clamp":
            return Operation(word, (word,) * 3, _funnel(said[0] == "l", said[1] == "wrap"))
        case "selp":
            return Operation(kind, (kind, kind, np.dtype(bool)), lambda a, b, p: np.where(p, a, b))
        case "bfi":
            return Operation(kind, (kind, kind, word, word), _insert)
        case "bfe":
            return Operation(kind, (kind, word, word), _extract)
        case "prmt":
            return Operation(word, (word,) * 3, _permute)
        case "dp2a.lo.u32" | "dp2a.hi.u32" if kind == word:
            return Operation(word, (word,) * 3, _pairs(16 if said[0] == "hi" else 0))
        case "popc":
            return Operation(word, (kind,), lambda a: _bits_of(a).sum(1).astype(U32))
        case "clz":
            return Operation(word, (kind,), _leading)
        case "brev":
            return Operation(kind, (kind,), _reverse)
    raise UnknownInstruction(opcode)
