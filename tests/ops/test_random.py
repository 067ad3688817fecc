"""Random numbers: the published vectors, what the bits depend on, and whether they look random."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ops.random import threefry2x32
from tests.ops.table import evaluate

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_published_vectors(counter, key, wanted):
    """Random123's kat_vectors for threefry2x32 with 20 rounds."""
    assert tuple(int(word) for word in threefry2x32(key, counter)) == wanted


def bits(shape, seed=0, step=0, stream=0):
    return evaluate([gx.random.bits(shape, seed, step, stream)], {})[0]


def test_bits_are_the_block_function_of_key_and_counter():
    found = bits((2, 3), seed=5, step=7, stream=9)
    for element in range(6):
        assert found.ravel()[element] == threefry2x32((5, 9), (7, element))[0]


def test_bits_depend_on_seed_stream_step_and_element_alone():
    base = bits((6,))
    np.testing.assert_array_equal(bits((2, 3)).ravel(), base)
    np.testing.assert_array_equal(bits((4,)), base[:4])
    for other in (bits((6,), seed=1), bits((6,), step=1), bits((6,), stream=1)):
        assert not (other == base).any()
    assert len(np.unique(bits((1000,)))) == 1000


def test_symbolic_shape_draws_the_same_bits():
    x = gx.placeholder("x", ("n", 3))
    drawn = gx.random.bits((x.shape[0], 3), seed=2)
    (found,) = evaluate([drawn], {x: np.zeros((4, 3), np.float32)})
    np.testing.assert_array_equal(found, bits((4, 3), seed=2))


def test_uniform_is_the_documented_function_of_the_bits():
    words = bits((50,), seed=3)
    (single, double) = evaluate([gx.random.uniform((50,), 3), gx.random.uniform((50,), 3, dtype="float64")], {})
    np.testing.assert_array_equal(single, (words >> 8) * np.float32(2**-24))
    np.testing.assert_array_equal(double, words * 2.0**-32)


def test_uniform_is_uniform():
    (u,) = evaluate([gx.random.uniform((20000,), 11)], {})
    assert u.min() >= 0
    assert u.max() < 1
    counts, _ = np.histogram(u, bins=20, range=(0, 1))
    assert np.sum((counts - 1000.0) ** 2 / 1000) < 43.8  # chi-squared with 19 degrees, 0.1 percent
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.025


def test_bernoulli_keeps_its_probability():
    (never, third, always) = evaluate([gx.random.bernoulli((9000,), p, 1) for p in (0.0, 1 / 3, 1.0)], {})
    assert not never.any()
    assert always.all()
    assert abs(third.mean() - 1 / 3) < 0.02


def test_dropout_keeps_the_mean_and_uses_one_mask_in_both_directions():
    x = gx.placeholder("x", (8000,))
    y = gx.dropout(x, 0.25, seed=4, step=2, stream=6)
    (slope,) = gx.grad(gx.sum(y), [x])
    values = np.ones(8000, np.float32)
    found, mask = evaluate([y, slope], {x: values})
    np.testing.assert_array_equal(found, mask)
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(found.mean() - 1) < 0.03


def test_dropout_by_nodes_draws_anew_each_step():
    x, step = gx.placeholder("x", (64,)), gx.placeholder("step", (), "uint32")
    y = gx.dropout(x, 0.5, seed=0, step=step)
    values = np.ones(64, np.float32)
    first, again, later = (evaluate([y], {x: values, step: np.array(n, np.uint32)})[0] for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != later).any()


def test_seeds_that_do_not_fit_are_refused():
    with pytest.raises(gx.DTypeError, match="-1 does not fit in uint32"):
        gx.random.bits((3,), seed=-1)
    with pytest.raises(gx.AxisError, match="32 bits"):
        gx.random.uniform((3,), 0, stream=2**32)
