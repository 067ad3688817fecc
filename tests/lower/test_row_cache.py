"""What a normalization reads of a row is computed once, however many times the row is gone through."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.build import ROW_CACHE_BYTES


def normalized(x: gx.Node) -> gx.Node:
    centred = x - gx.mean(x, axis=-1, keepdims=True)
    return centred * gx.rsqrt(gx.mean(gx.square(centred), axis=-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("width", [7, 1024])
def test_gelu_and_random_bits_before_a_norm_are_computed_once(width):
    x, r = gx.placeholder("x", ("n", width)), gx.placeholder("r", ("n", width))
    y = normalized(gx.dropout(gx.gelu(x * 2.0), 0.5, np.uint32(3)) + r)
    step = gx.compile({"y": y}, inputs=[x, r], backend="numba")
    text = step.text("kernels")
    assert text.count("ndtr(") == 1
    assert text.count("threefry(") == 1
    assert text.count(f"f32[{width}]") == 1  # the sum with r, and nothing before it
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal((3, width), np.float32) for name in "xr"}
    expected = gx.compile({"y": y}, inputs=[x, r], backend="reference")(**feed)["y"]
    np.testing.assert_allclose(step(**feed)["y"], expected, rtol=2e-5, atol=2e-5)


def test_a_row_that_is_too_long_is_computed_again():
    x = gx.placeholder("x", ("n", ROW_CACHE_BYTES // 4 + 1))
    step = gx.compile({"y": normalized(gx.gelu(x))}, inputs=[x], backend="numba")
    assert "local" not in step.text("kernels")
