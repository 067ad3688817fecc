"""Products with panels, natively: against float64, for sizes that fill no tile, and by any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.numba import backend, packed
from graphc.backends.numba.packed import packed_product
from graphc.backends.numba.threads import get_threads, set_threads
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import GemmItem, Launch, Place, Plan, PlanBuffer
from graphc.ops.panels import PackedPanels

PANEL = 32


def multiply(a: np.ndarray, b: np.ndarray, beside: int = 0, width: int = PANEL) -> np.ndarray:
    """a @ b through a plan, into memory full of NaN; rows of a lie ``beside`` further elements apart, which are NaN."""
    dtype, (m, k), n = DType(str(a.dtype)), a.shape, b.shape[1]
    whole = np.full((m, k + beside), np.nan, a.dtype)
    whole[:, :k] = a
    arrays = (whole, PackedPanels(width).reference(b), np.full((m, n), np.nan, a.dtype))
    buffers = tuple(
        PlanBuffer(i, "abc"[i], TensorType(dtype, array.shape), place, slot)
        for i, (array, place, slot) in enumerate(
            zip(arrays, (Place.INPUT, Place.INPUT, Place.OUTPUT), (0, 1, 0), strict=True)
        )
    )
    item = GemmItem(dtype, 0, 1, 2, m, n, k, k + beside, width, n, in_panels=True)
    plan = Plan(None, buffers, (Launch((item,), "product"),), commit=1)
    assert backend.compile(plan).bind({}).run(arrays[:2], arrays[2:]) is None
    return arrays[2]


SIZES = [
    (1, 1, 1), (1, 40, 300), (2, 33, 5), (3, 16, 7), (5, 17, 2), (7, 64, 9), (13, 31, 100), (29, 95, 64), (141, 48, 20),
    (300, 70, 33), (20, 40, 5000),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("beside", "width"), [(0, 32), (3, 16), (0, 5)])
def test_products_against_double_precision(dtype, beside, width):
    rng = np.random.default_rng(0)
    for m, n, k in SIZES:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        found, expected = multiply(a, b, beside, width), a.astype(np.float64) @ b.astype(np.float64)
        scale = np.abs(a).astype(np.float64) @ np.abs(b)
        assert np.all(np.abs(found - expected) <= 30 * np.finfo(dtype).eps * scale), (m, n, k)


@pytest.mark.parametrize(("m", "n", "k"), [(3, 40, 0), (1, 4, 0), (0, 40, 2), (3, 0, 2), (0, 0, 0)])
def test_empty_products_are_zero_or_nothing(m, n, k):
    np.testing.assert_array_equal(multiply(np.ones((m, k), np.float32), np.ones((k, n), np.float32)), np.zeros((m, n)))


def test_infinities_and_nan_stay_in_their_rows_and_columns():
    a, b = np.ones((3, 4), np.float32), np.ones((4, 35), np.float32)
    a[0, 1], b[2, 34] = np.inf, np.nan
    found = multiply(a, b)
    assert np.isinf(found[0, :34]).all()
    assert (found[1:, :34] == 4).all()
    assert np.isnan(found[:, 34]).all()


@pytest.mark.parametrize(("m", "n", "k"), [(1, 900, 300), (90, 400, 70), (700, 64, 100), (14, 32, 9000)])
def test_bits_do_not_depend_on_the_threads(m, n, k):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    before = get_threads()
    try:
        results = []
        for count in (1, 2, 5, 2):
            set_threads(count)
            results.append(multiply(a, b).tobytes())
    finally:
        set_threads(before)
    assert len(set(results)) == 1


@pytest.mark.parametrize("bytes_of_a_vector", [16, 32, 64])
def test_units_cover_a_product_once_on_every_machine(bytes_of_a_vector, monkeypatch):
    monkeypatch.setattr(packed, "vector_bytes", lambda: bytes_of_a_vector)
    for m, n, k in (*SIZES, (0, 5, 5), (5, 0, 5), (128, 2048, 512), (1000, 32, 32), (4096, 1024, 25088)):
        item = GemmItem(DType.float32, 0, 1, 2, m, n, k, k, PANEL, n, in_panels=True)
        known = packed_product(item, {})
        panels, block, run = known.words[6:9]
        assert (panels, known.tiles) == (-(-n // PANEL), -(-m // block) * -(-n // PANEL))
        assert 1 <= run <= packed.RUN_BYTES // (4 * PANEL)
        assert block <= packed.BLOCK
        assert 2 * known.tiles >= min(packed.UNITS, -(-m // packed.packed_rows(2)[0])) or n == 0
    assert packed.packed_rows(1)[-1] == packed.packed_rows(2)[-1] == 1
