"""Sparsemax against the paper: its closed form for two scores, Algorithm 1, its Jacobian; and softmin."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special

import graphc as gx
from tests.ops.table import judge_by_numpy

rng = np.random.default_rng(0)


def algorithm_1(z):
    """Martins and Astudillo 2016, Algorithm 1, for one row."""
    ordered = np.sort(z)[::-1]
    k = np.arange(1, len(z) + 1)
    support = k[1 + k * ordered > np.cumsum(ordered)].max()
    threshold = (ordered[:support].sum() - 1) / support
    return np.maximum(z - threshold, 0)


@pytest.fixture(scope="module")
def program():
    x, g = gx.placeholder("x", ("n", "k")), gx.placeholder("g", ("n", "k"))
    y = gx.sparsemax(x)
    outputs = {"y": y, "dx": gx.vjp([y], [x], [g])[0], "dy": gx.jvp([y], [x], [g])[0], "min": gx.softmin(x, axis=0)}
    return gx.compile(outputs, inputs=[x, g], backend="numba")


@pytest.mark.parametrize("scale", [0.1, 1, 5, 1e4])
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_values_are_those_of_algorithm_1(program, size, scale):
    x = (scale * rng.standard_normal((6, size))).astype(np.float32)
    y = program(x=x, g=x)["y"]
    np.testing.assert_allclose(y, [algorithm_1(row) for row in x.astype(np.float64)], rtol=0, atol=3e-7)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)


def test_two_scores_have_a_closed_form(program):
    """Section 2.2 of the paper: (t, 0) gives 0 below -1, 1 above 1, and a straight line between."""
    t = np.linspace(-2, 2, 41, dtype=np.float32)
    y = program(x=np.stack([t, 0 * t], axis=1), g=np.zeros((41, 2), np.float32))["y"]
    np.testing.assert_allclose(y[:, 0], np.clip((t + 1) / 2, 0, 1), atol=1e-7)


def test_the_jacobian_is_that_of_the_paper(program):
    """Equation 12: Diag(s) - s s' / |S|, the same both ways."""
    x = rng.standard_normal((8, 9)).astype(np.float32)
    g = rng.standard_normal((8, 9)).astype(np.float32)
    results = program(x=x, g=g)
    for row, weights, dx, dy in zip(results["y"], g.astype(float), results["dx"], results["dy"], strict=True):
        s = (row > 0).astype(float)
        jacobian = np.diag(s) - np.outer(s, s) / s.sum()
        np.testing.assert_allclose(dx, jacobian @ weights, atol=1e-6)
        np.testing.assert_allclose(dy, jacobian @ weights, atol=1e-6)


def test_masked_and_equal_scores(program):
    inf = np.inf
    x = np.array([[-inf, 0, 0, 0.5], [3, 3, 3, -inf], [1e30, 0, -1e30, 0], [-inf] * 4], np.float32)
    y = program(x=x, g=np.zeros_like(x))["y"]
    third = 1 / 3
    np.testing.assert_allclose(y[:3], [[0, 1 / 6, 1 / 6, 2 / 3], [third] * 3 + [0], [1, 0, 0, 0]], atol=1e-7)
    assert np.isnan(y[3]).all()


def test_softmin_is_softmax_of_the_negative(program):
    x = 50 * rng.standard_normal((5, 3)).astype(np.float32)
    found = program(x=x, g=x)["min"]
    judge_by_numpy(found, special.softmax(-x, axis=0), special.softmax(-x.astype(np.float64), axis=0))


def test_sparsemax_along_another_axis_is_exported(tmp_path):
    x = gx.placeholder("x", (3, "n", 4))
    w = gx.parameter("w", rng.standard_normal((3, 1, 4)).astype(np.float32))
    loss = gx.sum(gx.square(gx.sparsemax(x * w, axis=1)))
    step = gx.compile({"loss": loss}, inputs=[x], updates={w: w - gx.grad(loss, [w])[0]}, backend="numba")
    gx.onnx.export(step, tmp_path / "step.onnx")
    assert gx.onnx.verify(tmp_path / "step.onnx", step).ok
