"""float16 and bfloat16 from and to float32, by arithmetic on bits.

Every step is an operation on 32-bit lanes without a branch, so that loops vectorize on every processor and no call to a
run-time library remains, as LLVM makes them for ``half`` where the processor has no such conversion. Rounding is to the
nearest, ties to even; subnormals are exact, infinities and NaN stay what they are, and a NaN comes out quiet.
"""

from __future__ import annotations

from graphc.backends.numba.values import Value, absolute, where

_SIGN = 0x8000
_INFINITY = 0x7F800000  # of float32
_QUIET = 0x00400000
_SMALLEST_NORMAL = 0x38800000  # 2**-14, the smallest normal float16, as float32
_OVERFLOW = 0x47800000  # 2**16: from here on, and by rounding from 65520 on, a float16 is infinite
_EXPONENT_SHIFT = (127 - 15) << 23  # between the exponents of float32 and float16


def from_bfloat16(bits: Value) -> Value:
    """A bfloat16 is the upper half of a float32."""
    return (bits.zero_extended(32) << 16).as_float()


def to_bfloat16(x: Value) -> Value:
    """The upper half, after adding just less than half a unit, or half of one to an odd number."""
    bits = x.as_integer()
    odd = bits.logical_shift_right(16) & 1
    rounded = bits + odd + 0x7FFF
    return where(x.is_nan(), bits | _QUIET, rounded).logical_shift_right(16).truncated(16)


def from_float16(bits: Value) -> Value:
    """Shifted into place and scaled by a power of two, which makes subnormals right and loses nothing."""
    wide = bits.zero_extended(32)
    scale = wide.constant(0x77800000).as_float()  # 2**112
    finite = ((wide & 0x7FFF) << 13).as_float().exact() * scale
    magnitude = finite.as_integer()
    special = ((wide & 0x3FF) << 13) | _INFINITY
    magnitude = where((wide & 0x7C00).equals(0x7C00), special, magnitude)
    return (magnitude | ((wide & _SIGN) << 16)).as_float()


def to_float16(x: Value) -> Value:
    """Three results of which one is chosen: for subnormals a sum rounds, for others an addition to the bits."""
    sign = x.as_integer().logical_shift_right(16) & _SIGN
    magnitude = absolute(x)
    bits = magnitude.as_integer()
    odd = bits.logical_shift_right(13) & 1
    normal = (bits - _EXPONENT_SHIFT + odd + 0x0FFF).logical_shift_right(13)
    # 0.5 + x has its last place where a subnormal float16 has it
    subnormal = (magnitude.exact() + 0.5).as_integer() - 0x3F000000
    finite = where(bits < _SMALLEST_NORMAL, subnormal, normal)
    infinite = where(bits < _OVERFLOW, finite, 0x7C00)
    payload = bits.logical_shift_right(13) & 0x3FF
    return (where(x.is_nan(), payload | 0x7E00, infinite) | sign).truncated(16)
