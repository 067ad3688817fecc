"""What instructions of PTX that touch nothing but registers compute, for all threads at once.

Rounding is that of the ISA but for these: ``fma.rn.f64`` may be off by a last place where a sum is close to the middle of
two numbers or leaves the range in between, and ``fma.rn.f32`` rounds twice where the result is subnormal. Approximate
functions give the right result moved to about their documented error, up or down as the bits of the argument fall.

Source: NVIDIA, "Parallel Thread Execution ISA", instruction set; T. J. Dekker, "A floating-point technique for extending
the available precision", 1971 (products and sums with their errors).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cupy.ptx_integers import Operation, UnknownInstruction, integer_operation
from tests.cupy.ptx_text import dtype_of

Array = np.ndarray
U32, U64, F32, F64 = np.uint32, np.uint64, np.float32, np.float64


SHARE = 0.5
"""Of what an approximation may be off by its documented bound: worse than the machine's usual, better than its worst."""


def operation(opcode: str) -> Operation:
    """What an instruction does.

    Raises:
        UnknownInstruction: nothing is known about it.
    """
    name, *said = opcode.split(".")
    if name == "cvt":
        return _conversion(opcode)
    if name == "setp":
        return _comparison(opcode)
    kind = said[-1] if said else ""
    if kind in ("f32", "f64"):
        return _floating(opcode)
    if name in ("cvta", "mov"):
        raise UnknownInstruction(opcode)  # they take names, too
    return integer_operation(opcode)


# --- comparisons


_ORDERED: dict[str, Callable[..., Array]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip


def _compare(said: str, is_float: bool) -> Callable[..., Array]:
    if said == "nan":
        return lambda a, b: np.isnan(a) | np.isnan(b)
    if said == "num":
        return lambda a, b: ~(np.isnan(a) | np.isnan(b))
    if said == "ne" and is_float:
        return lambda a, b: (a != b) & ~np.isnan(a) & ~np.isnan(b)
    if said in _ORDERED:
        return _ORDERED[said]
    ordered = _ORDERED[said.removesuffix("u")]
    return lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b)


def _comparison(opcode: str) -> Operation:
    _, compared, *said, name = opcode.split(".")
    kind, truth = dtype_of(name), np.dtype(bool)
    compare = _compare(compared, kind.kind == "f")
    if "ftz" in said:
        said.remove("ftz")
        inner = compare
        compare = lambda a, b: inner(_flushed(a), _flushed(b))  # noqa: E731
    if not said:
        return Operation(truth, (kind, kind), compare)
    combine = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[said[0]]
    return Operation(truth, (kind, kind, truth), lambda a, b, p: combine(compare(a, b), p))


# --- floats


def _flushed(a: Array) -> Array:
    """Subnormal numbers as zeros of their sign."""
    return np.where(np.abs(a) < np.finfo(a.dtype).tiny, np.copysign(a.dtype.type(0), a), a)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """A sum, and what it leaves out."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    p = a * b
    ca, cb = a * 134217729.0, b * 134217729.0
    ah, bh = ca - (ca - a), cb - (cb - b)
    al, bl = a - ah, b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _fused64(a: Array, b: Array, c: Array) -> Array:
    p, e = _two_product(a, b)
    s, t = two_sum(p, c)
    found = s + (t + e)
    return np.where(np.isfinite(found) & np.isfinite(e), found, a * b + c)


def _fused32(a: Array, b: Array, c: Array) -> Array:
    product = a.astype(F64) * b.astype(F64)  # exact
    total = product + c.astype(F64)
    middle = (total.view(U64) & U64(0x1FFFFFFF)) == U64(0x10000000)  # between two float32: rounded twice
    if middle.any():
        total = np.where(middle, _odd(*two_sum(product, c.astype(F64))), total)
    return total.astype(F32)


def _odd(total: Array, left: Array) -> Array:
    """A sum rounded to odd, so that it can be rounded again."""
    bits = total.view(np.int64)
    nudge = np.where((left > 0) == (total > 0), 1, -1)
    return np.where((left != 0) & np.isfinite(total), bits + nudge, bits).view(F64)


def narrowed(total: Array, left: Array | float, mode: str) -> Array:
    """float32 of ``total + left``, where left is far smaller: rounded to nearest, to zero, down or up."""
    near = total.astype(F32)
    if mode == "rn":
        return near
    wide = near.astype(F64)
    above, below = (wide > total) | (wide == total) & (left < 0), (wide < total) | (wide == total) & (left > 0)
    lower, upper = np.nextafter(near, F32(-np.inf)), np.nextafter(near, F32(np.inf))
    down, up = np.where(above, lower, near), np.where(below, upper, near)
    found = {"rm": down, "rp": up, "rz": np.where(total > 0, down, up)}[mode]
    return np.where(np.isfinite(total), found, near)


def _directed(name: str, mode: str) -> Callable[..., Array]:
    def compute(a: Array, b: Array, c: Array | None = None) -> Array:
        x, y = a.astype(F64), b.astype(F64)
        if name == "mul":
            return narrowed(x * y, 0.0, mode)
        if c is None:
            return narrowed(*two_sum(x, y if name == "add" else -y), mode)
        return narrowed(*two_sum(x * y, c.astype(F64)), mode)

    return compute


def _moved(value: Array, argument: Array, relative: float, absolute: float = 0.0) -> Array:
    """A right result, off by a share of what an approximation may be, up or down as bits of the argument fall."""
    bits = np.ascontiguousarray(argument).view(U32)
    bits = (bits ^ bits >> U32(15)) * U32(0x2C1B3C6D)
    sign = np.where(bits & U32(0x10000), 1.0, -1.0)
    moved = (value * (1 + SHARE * relative * sign) + absolute * SHARE * sign).astype(F32)
    near = value.astype(F32)  # of powers of two, zeros and infinities each is right: the device library counts on it
    plain = near.view(U32) & U32(0x7FFFFF) == 0
    return np.where(plain & (near == value), near, moved)


def _approximate(name: str) -> Callable[..., Array]:
    def compute(a: Array, b: Array | None = None) -> Array:
        x = a.astype(F64)
        match name:
            case "ex2":
                return _moved(np.exp2(x), a, 2.0**-22.5)
            case "lg2":
                return _moved(np.log2(x), a, 2.0**-23, 2.0**-23)
            case "rcp":
                return _moved(1 / x, a, 2.0**-23.5)
            case "rsqrt":
                return _moved(1 / np.sqrt(x), a, 2.0**-22.9)
            case "sqrt":
                return _moved(np.sqrt(x), a, 2.0**-23)
            case "sin":
                return _moved(np.sin(x), a, 0.0, 2.0**-20.9)
            case "cos":
                return _moved(np.cos(x), a, 0.0, 2.0**-20.9)
            case "tanh":
                return _moved(np.tanh(x), a, 2.0**-11)
            case "div":
                assert b is not None
                huge = np.abs(b.astype(F64)) >= 2.0**126  # its reciprocal is flushed
                found = _moved(x / b.astype(F64), a, 2.0**-22.5)
                flushed = np.where(np.isinf(a), F32(np.nan), np.copysign(F32(0), found))
                return np.where(huge & ~np.isnan(b), flushed, found)
        raise UnknownInstruction(f"{name}.approx.f32")

    return compute


def _coarse(function: Callable[[Array], Array]) -> Callable[..., Array]:
    """Of float64: 20 bits of mantissa, from the upper half of the argument."""
    upper = U64(0xFFFFFFFF00000000)

    def compute(a: Array) -> Array:
        return (function(_flushed((a.view(U64) & upper).view(F64))).view(U64) & upper).view(F64)

    return compute


def _sign(a: Array, b: Array) -> Array:
    return np.copysign(b, a)


_FLOATS: dict[str, tuple[int, Callable[..., Array]]] = {
    "add": (2, np.add), "sub": (2, np.subtract), "mul": (2, np.multiply), "div": (2, np.divide), "neg": (1, np.negative),
    "abs": (1, np.abs), "min": (2, np.fmin), "max": (2, np.fmax), "sqrt": (1, np.sqrt), "rcp": (1, lambda a: 1 / a),
    "copysign": (2, _sign),
}  # fmt: skip


def _floating(opcode: str) -> Operation:
    name, *said, last = opcode.split(".")
    kind = dtype_of(last)
    flushes = "ftz" in said
    if flushes:
        said.remove("ftz")
    if name == "selp":
        return Operation(kind, (kind, kind, np.dtype(bool)), lambda a, b, p: np.where(p, a, b))
    saturates = "sat" in said
    if saturates:
        said.remove("sat")
    mode = said[0] if said else "rn"
    count, compute = _FLOATS.get(name, (1, None))
    if name in ("fma", "mad"):
        count, compute = 3, _fused32 if kind.itemsize == 4 else _fused64
    if name in ("min", "max") and mode == "NaN":
        compute, mode = (np.minimum if name == "min" else np.maximum), "rn"
    if mode == "approx" and kind.itemsize == 8:
        function: Any = {"rcp": lambda x: 1 / x, "rsqrt": lambda x: 1 / np.sqrt(x)}[name]
        # a square root's reciprocal that is not flushed is done in software, to the last place
        compute, flushes = _coarse(function) if flushes else function, False
    elif mode in ("approx", "full"):
        count, compute = 2 if name == "div" else 1, _approximate(name)
    elif mode in ("rz", "rm", "rp") and kind.itemsize == 4 and name in ("add", "sub", "mul", "fma"):
        compute = _directed(name, mode)
    elif mode != "rn" or compute is None or len(said) > 1:
        raise UnknownInstruction(opcode)
    if flushes or saturates:
        compute = _finished(compute, flushes, saturates)
    return Operation(kind, (kind,) * count, compute)


def _finished(compute: Callable[..., Array], flushes: bool, saturates: bool) -> Callable[..., Array]:
    def finished(*given: Array) -> Array:
        found = _flushed(compute(*map(_flushed, given))) if flushes else compute(*given)
        return np.fmin(np.fmax(found, found.dtype.type(0)), found.dtype.type(1)) if saturates else found

    return finished


# --- conversions


_ROUNDINGS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def to_bfloat16(a: Array) -> Array:
    """The bits of bfloat16, to nearest, ties to even; NaN is 0x7fff."""
    bits = np.ascontiguousarray(a, F32).view(U32)
    rounded = (bits + U32(0x7FFF) + (bits >> U32(16) & U32(1))) >> U32(16)
    return np.where(np.isnan(a), U32(0x7FFF), rounded).astype(np.uint16)


def to_float16(a: Array) -> Array:
    """The bits of float16, to nearest, ties to even; NaN is 0x7fff."""
    return np.where(np.isnan(a), np.uint16(0x7FFF), a.astype(np.float16).view(np.uint16))


def from_bfloat16(bits: Array) -> Array:
    """float32."""
    return (bits.astype(U32) << U32(16)).view(F32)


def from_float16(bits: Array) -> Array:
    """float32."""
    return np.ascontiguousarray(bits, np.uint16).view(np.float16).astype(F32)


def to_tf32(a: Array) -> Array:
    """The bits of a float32 rounded to 10 bits of mantissa, ties away from zero."""
    bits = np.ascontiguousarray(a, F32).view(U32)
    rounded = (bits + U32(0x1000)) & U32(0xFFFFE000)
    return np.where(np.isfinite(a), rounded, np.where(np.isnan(a), U32(0x7FFFFFFF), bits))


_NARROW = {"bf16": to_bfloat16, "f16": to_float16}


def _conversion(opcode: str) -> Operation:
    _, *said, to, of = opcode.split(".")
    single, word = np.dtype(F32), np.dtype(U32)
    if to in ("bf16x2", "f16x2"):
        narrow = _NARROW[to[:-2]]
        if said != ["rn"]:
            raise UnknownInstruction(opcode)
        pack: Callable[..., Array] = lambda a, b: narrow(a).astype(U32) << U32(16) | narrow(b).astype(U32)  # noqa: E731
        return Operation(word, (single, single), pack)
    if to == "tf32" and said == ["rna"]:
        return Operation(word, (single,), to_tf32)
    if to in _NARROW and of == "f32" and said == ["rn"]:
        return Operation(np.dtype(np.uint16), (single,), _NARROW[to])
    if of in _NARROW and to == "f32" and not said:
        return Operation(single, (np.dtype(np.uint16),), from_bfloat16 if of == "bf16" else from_float16)
    if "f16" in (to, of) or "bf16" in (to, of):
        raise UnknownInstruction(opcode)
    return _between(opcode, said, dtype_of(to), dtype_of(of))


def _between(opcode: str, said: list[str], to: np.dtype, of: np.dtype) -> Operation:
    rounding = next((word for word in said if word in _ROUNDINGS), None)
    if to.kind == "f" and of.kind == "f":
        if rounding:
            compute: Callable[..., Array] = _ROUNDINGS[rounding]
        elif to == of or to.itemsize > of.itemsize or "rn" in said:
            compute = lambda a: a.astype(to)  # noqa: E731
        else:
            raise UnknownInstruction(opcode)
        if "ftz" in said or "sat" in said:
            compute = _finished(compute, "ftz" in said, "sat" in said)
        return Operation(to, (of,), compute)
    if of.kind == "f":
        if rounding is None:
            raise UnknownInstruction(opcode)
        return Operation(to, (of,), _to_integer(_ROUNDINGS[rounding], of, to, "ftz" in said))
    if to.kind == "f":
        if said != ["rn"] and not (said and to.itemsize == 8):
            return Operation(to, (of,), _from_integer(opcode, said, to))
        return Operation(to, (of,), lambda a: a.astype(to))
    if "sat" in said:
        low, high = np.iinfo(to).min, np.iinfo(to).max
        kept = max(low, int(np.iinfo(of).min)), min(high, int(np.iinfo(of).max))
        return Operation(to, (of,), lambda a: np.clip(a, *map(of.type, kept)).astype(to))
    return Operation(to, (of,), lambda a: a.astype(to))


def _from_integer(opcode: str, said: list[str], to: np.dtype) -> Callable[..., Array]:
    if to.itemsize == 4 and said in (["rz"], ["rm"], ["rp"]):
        return lambda a: narrowed(a.astype(F64), 0.0, said[0])
    raise UnknownInstruction(opcode)


def _to_integer(round_: Callable[[Array], Array], of: np.dtype, to: np.dtype, flushes: bool) -> Callable[..., Array]:
    """What is out of range goes to its end; NaN to 0, or to the upper bit alone where 64 bits are on a side."""
    low, high = int(np.iinfo(to).min), int(np.iinfo(to).max)
    wide = of.itemsize == 8 or to.itemsize == 8
    bit = np.array([1 << (8 * to.itemsize - 1)], f"u{to.itemsize}").view(to)[0]

    def compute(a: Array) -> Array:
        whole = round_(_flushed(a) if flushes else a).astype(F64)
        over, under = whole >= float(high) + (high < 1 << 53), whole < float(low)
        inside = np.where(over | under | np.isnan(whole), 0.0, whole).astype(to)
        found = np.where(over, to.type(high), np.where(under, to.type(low), inside))
        return np.where(np.isnan(whole), bit if wide else to.type(0), found)

    return compute
