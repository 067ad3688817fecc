"""Large results: memory comes back to the program that gave it out, never while somebody holds it."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.recycled import LARGE_BYTES, MOST

SIZE = LARGE_BYTES // 4


@pytest.fixture(scope="module")
def doubled():
    x = gx.placeholder("x", ("n",))
    return gx.compile({"y": x * 2.0}, inputs=[x], backend="numba")


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_result_that_nobody_holds_is_given_out_again(doubled):
    x = np.ones(SIZE, np.float32)
    first = address(doubled(x=x)["y"])
    assert address(doubled(x=x)["y"]) == first


@pytest.mark.parametrize("hold", [lambda y: y, lambda y: y[3:4], memoryview, lambda y: y.reshape(2, -1).T])
def test_what_is_held_stays_as_it_is(doubled, hold):
    held = [hold(doubled(x=np.full(SIZE, k, np.float32))["y"]) for k in range(MOST + 2)]
    assert [float(np.asarray(part).ravel()[0]) for part in held] == [2.0 * k for k in range(MOST + 2)]


def test_a_result_that_was_made_read_only_or_changed_its_shape_is_not_given_out(doubled):
    x = np.ones(SIZE, np.float32)
    doubled(x=x)["y"].flags.writeable = False
    doubled(x=x)["y"].shape = (2, SIZE // 2)
    y = doubled(x=x)["y"]
    assert y.shape == (SIZE,)
    assert y.flags.writeable
    assert (y == 2).all()


def test_results_of_other_sizes(doubled):
    for size in (SIZE, SIZE + 1, 3, SIZE):
        assert doubled(x=np.ones(size, np.float32))["y"].shape == (size,)
