"""Sorting, and what is made of orders, beside NumPy; NaN, equal elements, empty and long rows, named sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gx
from tests.ops.rows import Row, check_backend, check_gradient, check_onnx, ids
from tests.ops.table import evaluate

TIES = np.array([[2, 1, 2, 0, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0], [6, 5, 4, 3, 2, 1, 0]])
WITH_NAN = np.array([3.0, np.nan, -np.inf, 0.0, np.nan, np.inf, -0.0, 3.0])
EDGES = np.array([-1.0, 0.0, 0.0, 0.5, 2.0])
LABELS = np.array([[3, 1, 2, 3], [3, 1, 7, 7]])


def descending(x, axis=-1):
    """NumPy's stable order from the largest to the smallest, NaN last."""
    missing = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    by_value = np.argsort(-np.where(missing, -np.inf, x.astype(np.float64)), axis, kind="stable")
    flags = np.take_along_axis(missing, by_value, axis)
    return np.take_along_axis(by_value, np.argsort(flags, axis, kind="stable"), axis)


def top(x, k, axis=-1, largest=True):
    order = descending(x, axis) if largest else np.argsort(x, axis, kind="stable")
    order = np.take(order, range(k), axis)
    return np.take_along_axis(x, order, axis), order


def unique(x, size, fill):
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    kept = min(size, values.size)
    filled = np.full(size, fill, x.dtype)
    filled[:kept] = values[:kept]
    occurrences = np.zeros(size, np.int64)
    occurrences[:kept] = counts[:kept]
    return filled, np.array(values.size), np.minimum(inverse.reshape(x.shape), size), occurrences


def stable(x):
    return np.argsort(x, -1, kind="stable")


ROWS = [
    Row("argsort", gx.argsort, stable, ((3, 17),), (("m", "n"),)),
    Row("argsort of ties", gx.argsort, stable, (TIES,), ((3, "n"),)),
    Row("argsort down", lambda x: gx.argsort(x, descending=True), descending, (TIES,)),
    Row("argsort axis", lambda x: gx.argsort(x, 0), lambda x: np.argsort(x, 0, kind="stable"), ((5, 3),), (("n", 3),)),
    Row("sort", gx.sort, np.sort, ((4, 9),), (("m", "n"),)),
    Row("sort axis", lambda x: gx.sort(x, axis=1), lambda x: np.sort(x, 1), ((2, 6, 3),), (("m", "n", 3),)),
    Row("sort down", lambda x: gx.sort(x, descending=True), lambda x: -np.sort(-x), ((4, 5),)),
    Row("sort NaN", gx.sort, np.sort, (WITH_NAN,), (("n",),), False),
    Row("sort none", gx.sort, np.sort, ((3, 0),)),
    Row("sort no rows", gx.sort, np.sort, ((0, 3),), (("n", 3),)),
    Row("sort bools", gx.sort, np.sort, (TIES % 2 == 0,)),
    Row("sort a view", lambda x: gx.sort(x.T[::-1, 1:]), lambda x: np.sort(x.T[::-1, 1:]), ((5, 4),)),
    Row("top 3", lambda x: tuple(gx.top_k(x, 3)), lambda x: top(x, 3), ((4, 9),), (("m", "n"),)),
    Row("top 2 axis", lambda x: tuple(gx.top_k(x, 2, axis=0)), lambda x: top(x, 2, 0), ((4, 3),), (("m", "n"),)),
    Row("least 2", lambda x: tuple(gx.top_k(x, 2, largest=False)), lambda x: top(x, 2, -1, False), ((4, 5),)),
    Row("top of ties", lambda x: tuple(gx.top_k(x, 4)), lambda x: top(x, 4), (TIES,)),
    Row("top of NaN", lambda x: tuple(gx.top_k(x, 7)), lambda x: top(x, 7), (WITH_NAN,), None, False),
    Row("top 0", lambda x: tuple(gx.top_k(x, 0)), lambda x: top(x, 0), ((2, 3),)),
    Row("searchsorted", gx.searchsorted, np.searchsorted, (EDGES, np.array([[-2, -1, 0, 0.2], [0.5, 1, 2, 3]]))),
    Row("searchsorted right", lambda a, v: gx.searchsorted(a, v, "right"), lambda a, v: np.searchsorted(a, v, "right"),
        (EDGES, np.array([-2, -1, 0, 0.2, 0.5, 1, 2, 3])), (("n",), ("m",))),
    Row("searchsorted NaN", gx.searchsorted, np.searchsorted, (np.sort(WITH_NAN), WITH_NAN), (("n",), ("n",)), False),
    Row("searchsorted NaN right", lambda a, v: gx.searchsorted(a, v, side="right"),
        lambda a, v: np.searchsorted(a, v, "right"), (np.sort(WITH_NAN), WITH_NAN), (("n",), ("n",)), False),
    Row("searchsorted none", gx.searchsorted, np.searchsorted, (np.zeros(0), np.array([1.0, 2.0]))),
    Row("searchsorted ints", gx.searchsorted, np.searchsorted, (np.arange(16), np.array([3, 15, 16, -1, 0]))),
    Row("unique", lambda x: tuple(gx.unique(x, 6, -1)), lambda x: unique(x, 6, -1), (LABELS,), (("m", "n"),)),
    Row("unique, more", lambda x: tuple(gx.unique(x, 2, -1)), lambda x: unique(x, 2, -1), (LABELS,)),
    Row("unique, longer than x", lambda x: tuple(gx.unique(x, 20)), lambda x: unique(x, 20, 0), (LABELS,)),
    Row("unique NaN", lambda x: tuple(gx.unique(x, 8)), lambda x: unique(x, 8, 0), (WITH_NAN,), (("n",),), False),
    Row("unique of nothing", lambda x: tuple(gx.unique(x, 3, 9)), lambda x: unique(x, 3, 9), (np.zeros(0, int),),
        (("n",),)),
    Row("unique of a named bound", lambda x: tuple(gx.unique(x, x.shape[0])), lambda x: unique(x, x.size, 0),
        (LABELS[0],), (("n",),)),
]  # fmt: skip
SMOOTH = [row for row in ROWS if row.smooth and row.name in (
    "sort", "sort axis", "sort down", "sort a view", "top 3", "top 2 axis", "least 2")]  # fmt: skip


@pytest.mark.parametrize("named", [False, True], ids=["fixed", "named"])
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_rows_are_those_of_numpy(backend, named):
    assert ids(ROWS)
    check_backend([row for row in ROWS if bool(row.named) is named], backend, named)


@pytest.mark.parametrize("named", [False, True], ids=["fixed", "named"])
def test_rows_in_onnxruntime(named):
    check_onnx([row for row in ROWS if row.named or not named], named)


@pytest.mark.parametrize("row", SMOOTH, ids=ids(SMOOTH))
def test_gradients(row):
    check_gradient(row)


@given(st.integers(0, 300), st.integers(1, 9), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_any_length_natively(length, values, down, seed):
    """Many equal elements, so that an unstable order shows, of one program for every length."""
    x = np.random.default_rng(seed).integers(0, values, (2, length)).astype(np.float32)
    x[:, ::7] = np.nan
    found = _program(down)(x=x)["order"]
    np.testing.assert_array_equal(found, descending(x) if down else stable(x))


_PROGRAMS = {}


def _program(down):
    if down not in _PROGRAMS:
        x = gx.placeholder("x", ("m", "n"))
        _PROGRAMS[down] = gx.compile({"order": gx.argsort(x, descending=down)}, inputs=[x], backend="numba")
    return _PROGRAMS[down]


def test_equal_elements_share_no_gradient():
    """Sorting is a permutation: each element gets the gradient of its own place."""
    x = gx.placeholder("x", (4,), "float64")
    (g,) = gx.grad(gx.sum(gx.sort(x) * gx.constant(np.array([1.0, 2, 3, 4]))), [x])
    (found,) = evaluate([g], {x: np.array([5.0, 1.0, 5.0, 5.0])})
    np.testing.assert_array_equal(found, [2, 1, 3, 4])


def test_one_kernel_sorts_all_lengths():
    """Scratch memory is the plan's, and its size is that of the row."""
    program = _program(False)
    assert program.source().count("def kernel") == 1
    assert program.memory(m=2, n=1000).peak_bytes >= 2 * 1000 * (4 + 4 + 8)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda x: gx.argsort(x, 2), gx.AxisError, "axis 2"),
        (lambda x: gx.top_k(x, 4), gx.ShapeError, "k is 4, axis 1 has size 3"),
        (lambda x: gx.searchsorted(x, 1.0), gx.ShapeError, "a has 2 axes"),
        (lambda x: gx.searchsorted(x[0], 1.0, "middle"), gx.DTypeError, "'middle'"),
        (lambda x: gx.sort(gx.sum(x)), gx.AxisError, "axis -1"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make(gx.placeholder("x", (2, 3)))
    assert "test_sorting.py" in str(caught.value)
    assert "to do: " in str(caught.value)
