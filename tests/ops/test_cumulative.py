"""Running results against NumPy and SciPy: both ways along every axis, and derivatives where others divide by zero."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import scipy.signal as signal

import graphc as gx
from tests.ops.table import judge_by_numpy

rng = np.random.default_rng(0)


def by_numpy(function, x, axis, reverse):
    x = np.flip(x, axis) if reverse else x
    y = function(x, axis)
    return np.flip(y, axis) if reverse else y


FUNCTIONS = {
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
    "cumlogsumexp": np.logaddexp.accumulate,
}


def test_every_function_along_every_axis_of_unknown_sizes():
    """Rows and columns of more than a vector, in one program; also of another shape, which compiles nothing."""
    x = gx.placeholder("x", ("a", "b", "c"))
    wanted = {}
    outputs = {}
    for name, function in FUNCTIONS.items():
        for axis in (0, 1, -1) if name != "cumlogsumexp" else (1,):
            for reverse in (False, True) if name in ("cumsum", "cumprod") else (axis == 0,):
                key = f"{name}{axis}{reverse}"
                outputs[key] = getattr(gx, name)(x, axis=axis, reverse=reverse)
                wanted[key] = (function, axis, reverse)
    program = gx.compile(outputs, inputs=[x], backend="numba")
    for shape in ((3, 4, 70), (2, 1, 1), (1, 130, 2), (4, 0, 3), (0, 2, 3)):
        values = rng.uniform(-1.5, 1.5, shape).astype(np.float32)
        results = program(x=values)
        for key, (function, axis, reverse) in wanted.items():
            if values.size:
                narrow, exact = (by_numpy(function, x, axis, reverse) for x in (values, values.astype(np.float64)))
            else:
                narrow = exact = values
            judge_by_numpy(results[key], narrow, exact, f"{key} {shape}")


def test_without_the_element_itself():
    x = gx.placeholder("x", (2, 4), "int64")
    values = np.array([[1, 2, 3, 4], [5, 0, -2, 7]])
    program = gx.compile(
        {
            "sum": gx.cumsum(x, exclusive=True), "product": gx.cumprod(x, exclusive=True),
            "down": gx.cumsum(x, axis=0, exclusive=True, reverse=True),
        },
        inputs=[x],
        backend="numba",
    )  # fmt: skip
    results = program(x=values)
    np.testing.assert_array_equal(results["sum"], [[0, 1, 3, 6], [0, 5, 5, 3]])
    np.testing.assert_array_equal(results["product"], [[1, 1, 2, 6], [1, 5, 0, 0]])
    np.testing.assert_array_equal(results["down"], [[5, 0, -2, 7], [0, 0, 0, 0]])


def jacobian(function, x):
    """Row k: the derivative of result k by each element, by differences of polynomials, which are exact enough."""
    step = 1e-6
    columns = [(function(x + step * e) - function(x - step * e)) / (2 * step) for e in np.eye(len(x))]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("zeros", [(), (2,), (1, 4), (0,)])
def test_the_derivative_of_a_running_product_is_right_where_factors_are_zero(zeros, reverse, exclusive):
    values = rng.uniform(0.5, 2, 6)
    values[list(zeros)] = 0
    x = gx.placeholder("x", (6,), "float64")
    g = gx.placeholder("g", (6,), "float64")
    y = gx.cumprod(x, reverse=reverse, exclusive=exclusive)
    (dx,) = gx.vjp([y], [x], [g])
    tangent = gx.jvp([y], [x], [g])[0]

    def reference(v):
        v = v[::-1] if reverse else v
        out = np.cumprod(v)
        out = np.concatenate([[1.0], out[:-1]]) if exclusive else out
        return out[::-1] if reverse else out

    weights = rng.standard_normal(6)
    results = gx.compile({"dx": dx, "dy": tangent}, inputs=[x, g], backend="numba")(x=values, g=weights)
    exact = jacobian(reference, values)
    np.testing.assert_allclose(results["dx"], weights @ exact, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(results["dy"], exact @ weights, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("zeros", [(), (2,), (1, 4)])
def test_the_derivative_of_a_product_is_right_where_factors_are_zero(zeros):
    values = rng.uniform(0.5, 2, (2, 6))
    values[0, list(zeros)] = 0
    x = gx.placeholder("x", ("n", 6), "float64")
    (dx,) = gx.grad(gx.sum(gx.prod(x, axis=1)), [x])
    found = gx.compile({"dx": dx}, inputs=[x], backend="numba")(x=values)["dx"]
    others = [[np.prod(np.delete(row, k)) for k in range(6)] for row in values]
    np.testing.assert_allclose(found, others, rtol=1e-12)


def test_equal_records_give_their_derivative_to_the_first():
    x = gx.placeholder("x", (6,))
    y = gx.cummax(x)
    (dx,) = gx.grad(gx.sum(y), [x])
    back = gx.grad(gx.sum(gx.cummin(x, reverse=True)), [x])[0]
    values = np.array([1, 3, 3, 2, 5, 5], np.float32)
    results = gx.compile({"dx": dx, "back": back}, inputs=[x], backend="numba")(x=values)
    np.testing.assert_array_equal(results["dx"], [1, 3, 0, 0, 2, 0])
    np.testing.assert_array_equal(results["back"], [1, 0, 0, 3, 0, 2])


def test_cumlogsumexp_does_not_overflow_forwards_or_backwards():
    x = gx.placeholder("x", (6,))
    g = gx.placeholder("g", (6,))
    y = gx.cumlogsumexp(x)
    (dx,) = gx.vjp([y], [x], [g])
    values = np.array([-np.inf, -1000, 1000, 1001, -500, 1001], np.float32)
    weights = np.array([7, 1, 2, 3, 4, 5], np.float32)
    results = gx.compile({"y": y, "dx": dx}, inputs=[x, g], backend="numba")(x=values, g=weights)
    wide = values.astype(np.float64)
    total = np.logaddexp.accumulate(wide)
    np.testing.assert_allclose(results["y"], total, rtol=1e-6)
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(np.tril(np.exp(np.minimum(wide[None, :] - total[:, None], 0))))
    np.testing.assert_allclose(results["dx"], weights @ shares, rtol=1e-4, atol=1e-30)  # y has a unit of 6e-5


def test_a_recurrence_is_a_filter_and_a_discounted_sum():
    x = gx.placeholder("x", ("n", 50))
    values = rng.standard_normal((3, 50)).astype(np.float32)
    outputs = {
        "average": gx.linear_recurrence(0.9, 0.1 * x),
        "returns": gx.linear_recurrence(0.99, x, reverse=True),
    }
    results = gx.compile(outputs, inputs=[x], backend="numba")(x=values)
    np.testing.assert_allclose(results["average"], signal.lfilter([0.1], [1, -0.9], values), rtol=1e-5, atol=1e-6)
    returns = signal.lfilter([1], [1, -0.99], values[:, ::-1].astype(np.float64))[:, ::-1]
    np.testing.assert_allclose(results["returns"], returns, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_file_runs_on_nothing(tmp_path, axis):
    """Onnxruntime's Scan would stop the process where it has no step to take, or nothing to transpose."""
    x = gx.placeholder("x", ("n", "m"))
    program = gx.compile({"y": gx.cumprod(x, axis), "z": gx.cummax(x, axis, reverse=True)}, inputs=[x])
    gx.onnx.export(program, tmp_path / "rows.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "rows.onnx")
    for shape in ((2, 3), (0, 3), (3, 0), (0, 0), (1, 1)):
        values = rng.uniform(1, 2, shape).astype(np.float32)
        y, z = session.run(None, {"x": values})
        np.testing.assert_allclose(y, np.cumprod(values, axis), rtol=1e-6)
        np.testing.assert_array_equal(z, np.flip(np.maximum.accumulate(np.flip(values, axis), axis), axis))


def test_a_step_that_accumulates_is_exported(tmp_path):
    """Gradients included, with a size that only the file's user knows."""
    x = gx.placeholder("x", ("n", 4))
    w = gx.parameter("w", np.array([0.5, -1.0, 2.0, 1.5], np.float32))
    y = gx.cumsum(gx.cumprod(x * w), axis=0) + gx.cummax(x * w, axis=0) + gx.cumlogsumexp(x * w, reverse=True)
    loss = gx.mean(y * y)
    (dw,) = gx.grad(loss, [w])
    step = gx.compile({"loss": loss}, inputs=[x], updates={w: w - 0.01 * dw}, backend="numba")
    gx.onnx.export(step, tmp_path / "step.onnx")
    assert gx.onnx.verify(tmp_path / "step.onnx", step).ok
