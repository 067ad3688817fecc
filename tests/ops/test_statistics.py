"""Statistics and norms against NumPy and SciPy, at the edges too: nothing, one element, equal elements, extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg as linalg

import graphc as gx

rng = np.random.default_rng(0)
X = gx.placeholder("x", ("n", 5))
ORDERS = (1, 2, 3, 1.5, math.inf, -math.inf)


@pytest.fixture(scope="module")
def program():
    w = gx.placeholder("w", (5,))
    outputs = {}
    for axis in (0, 1, None):
        for correction in (0, 1, 0.5):
            outputs[f"std {axis} {correction}"] = gx.std(X, axis=axis, correction=correction)
            outputs[f"var {axis} {correction}"] = gx.var(X, axis=axis, correction=correction)
        for order in ORDERS:
            outputs[f"norm {axis} {order}"] = gx.norm(X, order, axis=axis)
        outputs[f"count {axis}"] = gx.count_nonzero(X, axis=axis)
    outputs["average"] = gx.average(X, axis=1, weights=w)
    outputs["bare"] = gx.average(X, axis=0)
    outputs["true"] = gx.count_nonzero(X > 0, axis=1, keepdims=True)
    return gx.compile(outputs, inputs=[X, w], backend="numba")


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_all_of_them_for_rows_of_any_number(program, rows):
    x = rng.standard_normal((rows, 5)).astype(np.float32)
    x[:, 2] = 0
    w = np.array([1, 2, 0, 3, 0.5], np.float32)
    results = program(x=x, w=w)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        for axis in (0, 1, None):
            for correction in (0, 1, 0.5):
                if rows == 1 and axis == 0 and correction == 1:
                    assert np.isnan(results[f"var {axis} 1"]).all()
                    continue
                for name, function in (("std", np.std), ("var", np.var)):
                    expected = function(wide, axis=axis, ddof=correction)
                    np.testing.assert_allclose(results[f"{name} {axis} {correction}"], expected, rtol=3e-6, atol=1e-7)
            for order in ORDERS:
                expected = np.linalg.norm(wide if axis is not None else wide.ravel(), order, axis=axis)
                np.testing.assert_allclose(results[f"norm {axis} {order}"], expected, rtol=3e-6)
            np.testing.assert_array_equal(results[f"count {axis}"], np.count_nonzero(x, axis=axis))
    np.testing.assert_allclose(results["average"], np.average(wide, axis=1, weights=w), rtol=3e-6, atol=1e-7)
    np.testing.assert_allclose(results["bare"], wide.mean(0), rtol=3e-6, atol=1e-7)
    np.testing.assert_array_equal(results["true"], np.count_nonzero(x > 0, axis=1, keepdims=True))


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_medians(rows):
    outputs = {"rows": gx.median(X, axis=1), "columns": gx.median(X, 0, True), "all": gx.median(X, keepdims=True)}
    outputs["slope"] = gx.grad(gx.sum(gx.median(X, axis=0)), [X])[0]
    x = rng.standard_normal((rows, 5)).astype(np.float32)
    x[0, 4] = np.nan
    results = gx.compile(outputs, inputs=[X], backend="numba")(x=x)
    np.testing.assert_allclose(results["rows"], np.median(x, axis=1), rtol=1e-6)
    np.testing.assert_allclose(results["columns"], np.median(x, axis=0, keepdims=True), rtol=1e-6)
    assert results["all"].shape == (1, 1)
    assert np.isnan(results["all"]).all()
    hit = results["slope"][:, 0]
    assert sorted(hit[hit != 0]) == ([1.0] if rows % 2 else [0.5, 0.5])


def test_frobenius():
    x = rng.standard_normal((4, 3, 5)).astype(np.float32)
    node = gx.placeholder("x", x.shape)
    outputs = {"each": gx.norm(node, "fro", axis=(1, 2)), "all": gx.norm(node, keepdims=True)}
    results = gx.compile(outputs, inputs=[node], backend="numba")(x=x)
    np.testing.assert_allclose(results["each"], [linalg.norm(matrix) for matrix in x.astype(float)], rtol=1e-6)
    assert results["all"].shape == (1, 1, 1)
    np.testing.assert_allclose(results["all"].item(), linalg.norm(x.astype(float)), rtol=1e-6)


def test_norms_of_what_cannot_be_squared():
    x = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0]], np.float32)
    node = gx.placeholder("x", x.shape)
    y = gx.norm(node, axis=1)
    (dx,) = gx.grad(gx.sum(y), [node])
    results = gx.compile({"y": y, "dx": dx}, inputs=[node], backend="numba")(x=x)
    np.testing.assert_allclose(results["y"], [5e30, 5e-30, 0], rtol=1e-6)
    np.testing.assert_allclose(results["dx"], [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)


def test_derivatives_where_a_root_has_none():
    """Equal elements have no spread and zeros no length: the derivative there is 0, not NaN."""
    x = gx.placeholder("x", (2, 3))
    outputs = {
        "std": gx.grad(gx.sum(gx.std(x, axis=1)), [x])[0],
        **{f"{order}": gx.grad(gx.sum(gx.norm(x, order, axis=1)), [x])[0] for order in (1, 2, 3, math.inf)},
    }
    values = np.array([[2, 2, 2], [0, 0, 0]], np.float32)
    results = gx.compile(outputs, inputs=[x], backend="numba")(x=values)
    np.testing.assert_array_equal(results["std"], 0)
    for order in ("1", "2", "3", "inf"):
        np.testing.assert_array_equal(results[order][1], 0)
    np.testing.assert_allclose(results["inf"][0], 1 / 3, rtol=1e-6)


def test_unknown_orders_and_weights_that_do_not_fit_are_refused():
    with pytest.raises(gx.AxisError, match="no norm of order 'nuc'"):
        gx.norm(X, "nuc")
    with pytest.raises(gx.AxisError, match="no norm of order 0"):
        gx.norm(X, 0)
    with pytest.raises(gx.ShapeError):
        gx.average(X, axis=0, weights=gx.placeholder("w", (4,)))
