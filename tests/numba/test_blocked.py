"""Products in blocks, natively: against float64, for sizes that fill no tile, as they lie, and by any number of threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc.backends.numba import backend, blocked
from graphc.backends.numba.blocked import blocked_product, is_blocked
from graphc.backends.numba.threads import get_threads, set_threads
from graphc.ir.dims import Dim
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import GemmItem, Launch, Place, Plan, PlanBuffer

BATCH = Dim("batch")


@pytest.fixture
def all_in_blocks(monkeypatch):
    """Products of all sizes are computed so, on every machine."""
    for limit in ("LEAST_BYTES", "LEAST_ROWS", "LEAST_COLUMNS", "READ_IN_PLACE"):
        monkeypatch.setattr(blocked, limit, -1)


def multiply(a: np.ndarray, b: np.ndarray, turns: tuple[bool, bool], beside: int = 0) -> np.ndarray:
    """Products of matrices through a plan, into memory full of NaN.

    Operands lie transposed where ``turns`` says so, with ``beside`` elements of NaN behind each row, also of results.
    """
    dtype, (count, m, k), n = DType(str(a.dtype)), a.shape, b.shape[2]

    def lying(x: np.ndarray, turned: bool) -> np.ndarray:
        x = np.ascontiguousarray(x.transpose(0, 2, 1)) if turned else x
        return np.pad(x, ((0, 0), (0, 0), (0, beside)), constant_values=np.nan)

    arrays = (lying(a, turns[0]), lying(b, turns[1]), np.full((count, m, n + beside), np.nan, a.dtype))
    buffers = tuple(
        PlanBuffer(i, "abc"[i], TensorType(dtype, array.shape), place, slot)
        for i, (array, place, slot) in enumerate(
            zip(arrays, (Place.INPUT, Place.INPUT, Place.OUTPUT), (0, 1, 0), strict=True)
        )
    )
    rows = [array.shape[2] for array in arrays]
    item = GemmItem(
        dtype, 0, 1, 2, m, n, k, *rows, *turns, count, *(array.shape[1] * array.shape[2] for array in arrays)
    )
    assert is_blocked(item, {})
    plan = Plan(None, buffers, (Launch((item,), "product"),), commit=1)
    assert backend.compile(plan).bind({}).run(arrays[:2], arrays[2:]) is None
    assert np.isnan(arrays[2][:, :, n:]).all()
    return arrays[2][:, :, :n]


SIZES = [
    (1, 1, 1), (2, 33, 5), (6, 64, 16), (7, 65, 17), (13, 31, 100), (29, 95, 64), (127, 48, 20), (300, 70, 33),
    (20, 40, 1100), (70, 300, 300), (3, 520, 40),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turns", list(itertools.product([False, True], repeat=2)))
def test_products_against_double_precision(turns, dtype, all_in_blocks):
    rng = np.random.default_rng(0)
    for number, (m, n, k) in enumerate(SIZES):
        count = 3 if number % 3 == 0 else 1
        a, b = rng.standard_normal((count, m, k)).astype(dtype), rng.standard_normal((count, k, n)).astype(dtype)
        found, expected = multiply(a, b, turns, number % 2), a.astype(np.float64) @ b.astype(np.float64)
        scale = np.abs(a).astype(np.float64) @ np.abs(b)
        assert np.all(np.abs(found - expected) <= 30 * np.finfo(dtype).eps * scale), (m, n, k)


def test_empty_products_are_zero_or_nothing(all_in_blocks):
    for m, n in ((3, 40), (0, 40), (3, 0), (0, 0)):
        a, b = np.ones((1, m, 0), np.float32), np.ones((1, 0, n), np.float32)
        np.testing.assert_array_equal(multiply(a, b, (False, False)), np.zeros((1, m, n)))


@pytest.mark.parametrize("turns", [(False, False), (False, True), (True, False)])
def test_infinities_and_nan_stay_in_their_rows_and_columns(turns, all_in_blocks):
    a, b = np.ones((1, 9, 5), np.float32), np.ones((1, 5, 67), np.float32)
    a[0, 0, 1], b[0, 2, 66] = np.inf, np.nan
    (found,) = multiply(a, b, turns, beside=3)
    assert np.isinf(found[0, :66]).all()
    assert (found[1:, :66] == 5).all()
    assert np.isnan(found[:, 66]).all()


def test_long_sums_are_sums_of_parts(all_in_blocks):
    """One after the other, 2 ** 17 terms of 0.1 would be off by 1e-3 of their sum."""
    terms = 1 << 17
    a, b = np.full((1, 16, terms), 0.1, np.float32), np.ones((1, terms, 8), np.float32)
    for turns in ((False, False), (True, False)):
        np.testing.assert_allclose(multiply(a, b, turns), np.float64(np.float32(0.1)) * terms, rtol=5e-5)


@pytest.mark.parametrize("turns", [(False, False), (False, True), (True, False)])
def test_bits_do_not_depend_on_the_threads(turns, all_in_blocks):
    rng = np.random.default_rng(2)
    before = get_threads()
    try:
        for m, n, k in ((1100, 130, 70), (100, 700, 300)):
            a, b = (rng.standard_normal((1, *shape)).astype(np.float32) for shape in ((m, k), (k, n)))
            results = set()
            for count in (1, 2, 5):
                set_threads(count)
                results.add(multiply(a, b, turns).tobytes())
            assert len(results) == 1
    finally:
        set_threads(before)


@pytest.mark.parametrize("bytes_of_a_vector", [16, 32, 64])
@pytest.mark.parametrize("down", [False, True])
def test_units_cover_a_product_once_on_every_machine(bytes_of_a_vector, down, monkeypatch):
    monkeypatch.setattr(blocked, "vector_bytes", lambda: bytes_of_a_vector)
    sizes = (*SIZES, (0, 5, 5), (5, 0, 5), (2048, 128, 512), (128, 512, 2048), (16, 4000, 256), (4096, 1024, 4096))
    for m, n, k in sizes:
        item = GemmItem(DType.float32, 0, 1, 2, m, n, k, m if down else k, n, n, down, batch=2)
        known = blocked_product(item, {})
        group, groups, part, parts, _, run = known.words[-6:]
        columns = max(blocked.blocked_rows(down)) * bytes_of_a_vector // 4
        assert known.tiles == 2 * parts * groups
        assert parts * part >= m > (parts - 1) * part or m == 0
        assert groups * group * columns >= n > (groups - 1) * group * columns or n == 0
        assert 1 <= run <= blocked.RUN_BYTES // (4 * columns)
        assert 1 <= group <= blocked.GROUP


def test_blas_has_what_it_does_in_place_and_what_leaves_tiles_empty(monkeypatch):
    monkeypatch.setattr(blocked, "vector_bytes", lambda: 64)

    def chosen(m: int, n: int, k: int, turned: bool = False) -> bool:
        item = GemmItem(DType.float32, 0, 1, 2, BATCH, n, k, k, k if turned else n, n, False, turned)
        return is_blocked(item, {"batch": m})

    assert chosen(1024, 256, 256)
    assert chosen(64, 64, 64, turned=True)
    assert not chosen(64, 64, 64)
    assert not chosen(1024, 1, 4096)
    assert not chosen(1, 4096, 4096)
    monkeypatch.setattr(blocked, "vector_bytes", lambda: 32)
    assert not chosen(1024, 256, 256)
