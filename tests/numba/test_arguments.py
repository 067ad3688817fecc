"""Arrays that native code must not see as they are: overlapping ones, and subclasses that tell a wrong shape."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.numba import objects

DATA = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)


class Lying(np.ndarray):
    """An array that claims to be longer than its memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        return 6000, 6


class Shy(np.ndarray):
    """An array of two elements that claims to hold six."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (6,)


@pytest.fixture(params=["addresses from objects", "addresses asked for"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[gx.Program, gx.Parameter]:
    """y = x transposed + w and z = sum of y over rows; then w += mean of x over rows, and v = 2 x transposed."""
    if request.param == "addresses asked for":
        monkeypatch.setattr(objects, "LAYOUT", None)
    w = gx.parameter("w", np.ones(6, np.float32))
    v = gx.parameter("v", np.zeros((6, 6), np.float32))
    x = gx.placeholder("x", (6, 6))
    y = gx.transpose(x) + w
    updates = {w: w + gx.mean(x, axis=0), v: gx.transpose(x) * 2}
    return gx.compile({"y": y, "z": gx.sum(y, axis=0)}, inputs=[x], updates=updates, backend="numba"), w


def expected(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y = x.T + w
    return y, y.sum(0), w + x.mean(0)


def test_an_output_may_take_the_place_of_an_input(program):
    step, w = program
    x, z, before = DATA.copy(), np.empty(6, np.float32), w.value
    step(x=x, out={"y": x, "z": z})
    for found, wanted in zip((x, z, w.value), expected(DATA, before), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_outputs_may_share_memory(program):
    step, w = program
    y, before = np.empty((6, 6), np.float32), w.value
    step(x=DATA, out={"y": y, "z": y[2]})
    all_y, z, _ = expected(DATA, before)
    np.testing.assert_allclose(y[2], z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y[:2], all_y[:2], rtol=1e-4, atol=1e-5)


def test_an_output_in_a_parameter_is_written_after_the_step(program):
    step, w = program
    y, before = np.empty((6, 6), np.float32), w.value
    step(x=DATA, out={"y": y, "z": w.array})
    all_y, z, _ = expected(DATA, before)
    np.testing.assert_allclose(y, all_y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(w.value, z, rtol=1e-4, atol=1e-5)


def test_an_input_may_be_a_parameter_that_is_updated(program):
    step, w = program
    v = next(p for p in step.parameters if p.label == "v")
    v.value, before = DATA, w.value
    found = step(x=v.array)
    for array, wanted in zip((found["y"], found["z"], w.value), expected(DATA, before), strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(v.value, 2 * DATA.T, rtol=1e-4, atol=1e-5)


def test_neighbours_in_one_array_run_in_place(program, monkeypatch):
    step, w = program
    whole, before = np.empty((8, 6), np.float32), w.value
    monkeypatch.setattr("graphc.backends.numba.executable.NumbaBound._run_apart", None)
    step(x=DATA, out={"y": whole[1:7], "z": whole[7]})
    np.testing.assert_allclose(whole[7], expected(DATA, before)[1], rtol=1e-4, atol=1e-5)


def test_a_subclass_is_taken_at_the_size_of_its_memory(program):
    step, w = program
    before = w.value
    np.testing.assert_allclose(step(x=DATA.view(Lying))["y"], expected(DATA, before)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(gx.ShapeError, match=r"out\['z'\].*\(6,\)"):
        step(x=DATA, out={"y": np.empty((6, 6), np.float32), "z": np.empty(2, np.float32).view(Shy)})
