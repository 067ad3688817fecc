from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc.backends.numba import backend, blas, gemm
from graphc.backends.numba.threads import get_threads, set_threads
from graphc.errors import BackendError
from graphc.ir.dims import Dim
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import GemmItem, Launch, Place, Plan, PlanBuffer
from tests.loops.builders import F32


@pytest.fixture
def threads():
    before = get_threads()
    yield set_threads
    set_threads(before)


def plan_of(item: GemmItem, types: tuple[TensorType, ...]) -> Plan:
    places = (Place.INPUT, Place.INPUT, Place.OUTPUT)
    slots = (0, 1, 0)
    buffers = tuple(PlanBuffer(i, "abc"[i], types[i], places[i], slots[i]) for i in range(3))
    return Plan(None, buffers, (Launch((item,), "product"),), commit=1)


def multiply(a, b, transpose_a=False, transpose_b=False, batch=1, a_repeats=False, dims=None):
    """c = op(a) @ op(b) through a plan, into memory full of NaN."""
    dtype = DType(str(a.dtype))
    m, k = a.shape[-2:][::-1] if transpose_a else a.shape[-2:]
    n = b.shape[-2] if transpose_b else b.shape[-1]
    item = GemmItem(
        dtype, 0, 1, 2, m, n, k, a.shape[-1], b.shape[-1], n, transpose_a, transpose_b,
        batch, 0 if a_repeats else m * k, k * n, m * n,
    )  # fmt: skip
    c = np.full((batch, m, n), np.nan, a.dtype)
    types = tuple(TensorType(dtype, x.shape) for x in (a, b, c))
    assert backend.compile(plan_of(item, types)).bind(dims or {}).run((a, b), (c,)) is None
    return c


SIZES = [(1, 1, 1), (2, 3, 4), (1, 7, 5), (7, 1, 5), (1, 1, 9), (3, 4, 1), (8, 8, 8), (33, 65, 17), (1, 300, 40)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), list(itertools.product([False, True], repeat=2)))
def test_products(transpose_a, transpose_b, dtype):
    rng = np.random.default_rng(0)
    for m, n, k in SIZES:
        a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
        expected = (a.T if transpose_a else a).astype(float) @ (b.T if transpose_b else b).astype(float)
        found = multiply(a, b, transpose_a, transpose_b)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=50 * np.finfo(dtype).eps, err_msg=f"{m, n, k}")


@pytest.mark.parametrize(("m", "n", "k"), [(3, 4, 0), (1, 4, 0), (0, 4, 2), (3, 0, 2), (0, 0, 0)])
def test_empty_products_are_zero_or_nothing(m, n, k):
    c = multiply(np.ones((m, k), np.float32), np.ones((k, n), np.float32))
    np.testing.assert_array_equal(c, np.zeros((1, m, n)))


@pytest.mark.parametrize("a_repeats", [False, True])
def test_batches(a_repeats):
    rng = np.random.default_rng(1)
    a = rng.standard_normal((1 if a_repeats else 5, 6, 4)).astype(np.float32)
    b = rng.standard_normal((5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(multiply(a, b, batch=5, a_repeats=a_repeats), a @ b, rtol=1e-5, atol=1e-5)


def test_infinities_and_nan_of_the_operands_arrive():
    a, b = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32)
    a[0, 0] = np.inf
    assert np.isinf(multiply(a, b)[0, 0]).all()
    assert (multiply(a, b)[0, 1] == 2).all()


@pytest.mark.parametrize(
    ("m", "n", "k", "batch"),
    [(700, 300, 100, 1), (90, 1900, 70, 1), (64, 64, 64, 40), (1, 5000, 900, 1), (1, 1, 10**6, 1)],
)
def test_bits_do_not_depend_on_the_threads(m, n, k, batch, threads):
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((batch, *shape)).astype(np.float32) for shape in ((m, k), (k, n)))
    results = []
    for count in (1, 2, 5, 2):
        threads(count)
        results.append(multiply(a, b, batch=batch).tobytes())
    assert len(set(results)) == 1
    np.testing.assert_allclose(multiply(a, b, batch=batch), a @ b, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "size", [(1000, 1000, 1000), (4096, 8, 900), (8, 4096, 900), (65, 65, 10**5), (1, 1, 1), (0, 5, 5)]
)
def test_tiles_cover_the_product_once(size):
    m, n, k = size
    tile_m, tile_n = gemm.tiles(m, n, k, 1)
    assert 1 <= tile_m <= max(m, 1)
    assert 1 <= tile_n <= max(n, 1)
    assert tile_m % gemm.ALIGNMENT == 0 or tile_m >= m
    assert tile_n % gemm.ALIGNMENT == 0 or tile_n >= n
    assert -(-m // tile_m) * -(-n // tile_n) <= gemm.MOST_TILES


def test_sizes_may_have_names():
    batch = Dim("batch")
    item = GemmItem(F32, 0, 1, 2, batch, 3, 4, 4, 3, 3)
    types = (TensorType(F32, (batch, 4)), TensorType(F32, (4, 3)), TensorType(F32, (batch, 3)))
    executable = backend.compile(plan_of(item, types))
    b = np.ones((4, 3), np.float32)
    for n in (1, 5, 2, 5):
        a, c = np.full((n, 4), n, np.float32), np.zeros((n, 3), np.float32)
        executable.bind({"batch": n}).run((a, b), (c,))
        np.testing.assert_array_equal(c, np.full((n, 3), 4 * n))
    assert executable.bind({"batch": 5}) is executable.bind({"batch": 5})


def test_without_openblas_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(blas, "library_path", lambda: None)
    monkeypatch.setattr(blas, "_library", blas._library.__wrapped__)
    with pytest.raises(BackendError, match="pip install scipy-openblas64"):
        multiply(np.ones((2, 2)), np.ones((2, 2)))
    assert "pip install scipy-openblas64" in (backend.available() or "")
