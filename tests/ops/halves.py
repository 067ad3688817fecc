"""Values that show whether a conversion from or to a float of 16 bits is right."""

from __future__ import annotations

import numpy as np

from graphc.ir.types import DType

HALVES = (DType.float16, DType.bfloat16)


def every_half(dtype: DType) -> np.ndarray:
    """All 65,536 bit patterns."""
    return np.arange(65536, dtype=np.uint16).view(dtype.numpy)


def floats_around(dtype: DType, random: int) -> np.ndarray:
    """Every half, the middle between each two, its neighbours, the largest ones, and random patterns of bits."""
    exact = every_half(dtype).astype(np.float32)
    finite = np.unique(exact[np.isfinite(exact)])
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    beyond = finite[-1] + (finite[-1] - finite[-2]) / np.float32(2)  # from here on halves are infinite
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2**32, random, dtype=np.uint32).view(np.float32)
    scale = np.exp2(rng.uniform(-30, 18, random)) * rng.uniform(-1, 1, random)
    edges = np.float32([beyond, -beyond, np.finfo(np.float32).max, 1e-45, -1e-45])
    values = np.concatenate([middle, edges])
    with np.errstate(all="ignore"):
        near = [values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))]
    return np.concatenate([exact, *near, patterns, scale.astype(np.float32)])


def same_bits(result: np.ndarray, wanted: np.ndarray) -> None:
    """Equal bit by bit, but that one NaN is as good as another."""
    nan = np.isnan(wanted)
    unsigned = f"u{wanted.dtype.itemsize}"
    assert result.dtype == wanted.dtype
    np.testing.assert_array_equal(np.isnan(result), nan)
    np.testing.assert_array_equal(result.view(unsigned)[~nan], wanted.view(unsigned)[~nan])
