"""Gathers and scatters in all forms beside NumPy's assignments: places that meet, gradients, indices out of range."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from tests.ops.rows import Row, check_backend, check_gradient, check_onnx, ids
from tests.ops.table import evaluate

ALONG = np.array([[0, 2, 0], [4, 4, 4], [1, 0, 3]])
PAIRS = np.array([[0, 1], [3, 2], [0, 1], [2, 0], [3, 2]])
BATCHED = np.array([[[1], [0]], [[3], [3]]])
UFUNCS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def assign(x, index, values, mode):
    """``x[index] = values``, or what ``numpy.add.at`` and its like do; the last of equal places wins."""
    result = x.copy()
    if mode == "set":
        result[index] = values
    else:
        UFUNCS[mode].at(result, index, values)
    return result


def along(indices, axis, mode):
    def by_numpy(x, values):
        places = list(np.indices(indices.shape))
        places[axis] = indices
        return assign(x, tuple(places), np.broadcast_to(values, indices.shape), mode)

    return by_numpy


def row_along(mode, axis, x, indices, values, named=None, name=""):
    return Row(
        f"along {mode} {axis} {name}".strip(),
        lambda x, v: gx.put_along_axis(x, indices, v, axis, mode),
        along(indices, axis, mode),
        (x, values),
        named,
    )


def row_nd(mode, x, indices, values, name=""):
    index = tuple(np.moveaxis(indices, -1, 0))
    return Row(
        f"nd {mode} {name}".strip(),
        lambda x, v: gx.scatter_nd(x, indices, v, mode),
        lambda x, v: assign(x, index, v, mode),
        (x, values),
        None,
    )


def batched(x, updates, mode):
    rows = np.arange(2)[:, None] + 0 * BATCHED[..., 0]
    return assign(x, (rows, BATCHED[..., 0]), updates, mode)


def row_update(name, index, mode, x=(4, 5)):
    values = np.zeros(x)[index].shape
    return Row(
        f"update {name} {mode}",
        lambda x, v: gx.index_update(x, index, v, mode),
        lambda x, v: assign(x, index, v, mode),
        (x, values),
        (("n", 5), values) if name == "named" else None,
    )


def embed(x, i):
    return np.take_along_axis(x, i, 1)


ROWS = [
    *(row_along(mode, 1, (3, 5), ALONG, (3, 3)) for mode in ("set", *UFUNCS)),
    *(row_along(mode, 0, (5, 3), ALONG, (3, 3)) for mode in ("set", "max")),
    row_along("set", 1, (3, 5), ALONG[:, :0], (3, 0), name="of nothing"),
    row_along("add", 1, (3, 5), ALONG, (3, 1), name="broadcast"),
    row_along("set", 1, np.arange(15).reshape(3, 5), ALONG, np.arange(9).reshape(3, 3), name="ints"),
    row_along("mul", 1, np.arange(15).reshape(3, 5), ALONG, np.arange(9).reshape(3, 3), name="ints"),
    row_along("set", 1, np.zeros((3, 5), bool), ALONG, np.ones((3, 3), bool), name="bools"),
    *(row_nd(mode, (4, 3), PAIRS, (5,)) for mode in ("set", *UFUNCS)),
    *(row_nd(mode, (4, 3, 2), PAIRS, (5, 2), "slices") for mode in ("set", *UFUNCS)),
    row_nd("set", (4, 3), PAIRS[:, :1], (3,), "rows, broadcast"),
    row_nd("set", (4, 3), PAIRS.reshape(5, 1, 2), (5, 1), "of two axes"),
    row_nd("set", (4, 3), PAIRS[:0], (0,), "of nothing"),
    Row("nd of batches", lambda x, v: gx.scatter_nd(x, BATCHED, v, "add", batch_dims=1),
        lambda x, v: batched(x, v, "add"), ((2, 4, 3), (2, 2, 3))),
    Row("nd set of batches", lambda x, v: gx.scatter_nd(x, BATCHED, v, batch_dims=1),
        lambda x, v: batched(x, v, "set"), ((2, 4, 3), (2, 2, 3)), ((2, "n", "m"), (2, 2, "m"))),
    Row("nd of named indices", lambda x, i, v: gx.scatter_nd(x, i, v), lambda x, i, v: assign(x, tuple(i.T), v, "set"),
        ((4, 3, 2), PAIRS, (5, 2)), ((4, 3, "m"), ("n", 2), ("n", "m"))),
    Row("nd of no named indices", lambda x, i, v: gx.scatter_nd(x, i, v), lambda x, i, v: x,
        ((4, 3), PAIRS[:0], (0,)), ((4, 3), ("n", 2), ("n",))),
    Row("along, indices of a program", lambda x, i, v: gx.put_along_axis(x, i, v),
        lambda x, i, v: along(i, 1, "set")(x, v), ((3, 5), ALONG, (3, 3)), (("m", "n"), ("m", "k"), ("m", "k"))),
    *(row_update(name, index, mode) for mode in ("set", "add") for name, index in (
        ("number", 1), ("slice", slice(1, 3)), ("backwards", (slice(None), slice(None, None, -2))), ("both", (2, -1)),
        ("rows", ([2, 0, 2],)), ("points", ([0, 3, 0], [1, 1, 1])), ("mixed", (slice(1, 4), [0, 0, 4])),
        ("mask", (np.array([True, False, True, False]),)), ("named", -1))),
    Row("bincount", lambda: gx.bincount(gx.constant(np.array([0, 5, 5, 2])), 7),
        lambda: np.bincount([0, 5, 5, 2], minlength=7), ()),
    Row("bincount weighed", lambda i, w: gx.bincount(i, 6, w), lambda i, w: np.bincount(i, w, 6),
        (np.array([0, 5, 5, 2]), (4,)), (("n",), ("n",))),
    Row("take of all", lambda x: gx.take(x, [[0, 7], [3, 3]], None), lambda x: np.take(x, [[0, 7], [3, 3]]), ((4, 3),)),
    Row("take_along broadcasts", lambda x: gx.take_along_axis(x, ALONG[:, :1], 1),
        lambda x: np.take_along_axis(x, ALONG[:, :1], 1), ((1, 5),)),
    Row("gather_nd", lambda x: gx.gather_nd(x, PAIRS), lambda x: x[PAIRS[:, 0], PAIRS[:, 1]], ((4, 3, 2),)),
    Row("gather_nd all axes", lambda x, i: gx.gather_nd(x, i), lambda x, i: x[i[:, 0], i[:, 1]], ((4, 3), PAIRS),
        (("a", "b"), ("n", 2))),
    Row("gather_nd batches", lambda x: gx.gather_nd(x, BATCHED, 1), lambda x: embed(x, BATCHED), ((2, 4, 3),)),
    Row("gather_nd rows", lambda x: gx.gather_nd(x, PAIRS[..., :1]), lambda x: x[PAIRS[:, 0]], ((4, 3),), (("a", "b"),)),
    Row("gather_nd of nothing", lambda x: gx.gather_nd(x, PAIRS[:0]), lambda x: x[PAIRS[:0, 0], PAIRS[:0, 1]],
        ((4, 3),)),
]  # fmt: skip
SMOOTH = [row for row in ROWS if row.smooth and any(isinstance(given, tuple) for given in row.operands)]


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
    """Where places meet, the last value that was set gets all, and what was overwritten nothing."""
    check_gradient(row)


def test_of_equal_extremes_each_gets_its_share():
    x, v = gx.placeholder("x", (2,), "float64"), gx.placeholder("v", (3,), "float64")
    y = gx.put_along_axis(x, np.array([0, 0, 0]), v, mode="max")
    feeds = {x: np.array([0.0, 5.0]), v: np.array([3.0, 1.0, 3.0])}
    dx, dv = evaluate(gx.grad(gx.sum(y), [x, v]), feeds)
    np.testing.assert_array_equal(dx, [0, 1])
    np.testing.assert_array_equal(dv, [0.5, 0, 0.5])


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda x, i: gx.put_along_axis(x, i, 1.0), [[0], [7]]),
        (lambda x, i: gx.put_along_axis(x, i, 1.0, mode="max"), [[-1], [0]]),
        (lambda x, i: gx.scatter_nd(x, i, 1.0), [[0], [2]]),
        (lambda x, i: gx.gather_nd(x, i), [[1], [-3]]),
        (lambda x, i: x[i, 1], [[1], [9]]),
        (lambda x, i: gx.index_update(x, (slice(None), i), 0.0), [[1], [9]]),
        (lambda x, i: gx.bincount(i, 2), [[1], [2]]),
    ],
    ids=["along", "extreme", "scatter_nd", "gather_nd", "points", "update", "bincount"],
)
def test_an_index_out_of_range_is_told_with_its_line(make, wrong, backend):
    x, i = gx.placeholder("x", (2, 4)), gx.placeholder("i", (2, 1), "int64")
    program = gx.compile({"y": make(x, i), "x": x}, inputs=[x, i], backend=backend)
    with pytest.raises(gx.IndexRangeError) as caught:
        program(x=np.zeros((2, 4), np.float32), i=np.array(wrong))
    assert "test_scattering.py" in str(caught.value)
    program(x=np.zeros((2, 4), np.float32), i=np.array([[0], [1]]))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda x, i: gx.put_along_axis(x, i, 1.0, mode="average"), gx.DTypeError, "'average'"),
        (lambda x, i: gx.put_along_axis(x, i, 1.5, mode="or"), gx.DTypeError, "no mode 'or'"),
        (lambda x, i: gx.put_along_axis(x, i[0], 1.0), gx.ShapeError, "x has 2 axes"),
        (lambda x, i: gx.put_along_axis(x, i, gx.zeros((5,))), gx.ShapeError, "broadcast"),
        (lambda x, i: gx.scatter_nd(x, i[:, :0, None] + gx.zeros((2, 1, 3), "int64"), 1.0), gx.ShapeError, "more axes"),
        (lambda x, i: gx.gather_nd(x, i, batch_dims=2), gx.ShapeError, "more axes"),
        (lambda x, i: gx.gather_nd(x, gx.cast(i, "float32")), gx.DTypeError, "indices"),
        (lambda x, i: gx.gather_nd(x[:, :1], i[:1], batch_dims=1), gx.ShapeError, "batch axes"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make(gx.placeholder("x", (2, 4)), gx.placeholder("i", (2, 1), "int64"))
    assert "test_scattering.py" in str(caught.value)
    assert "to do: " in str(caught.value)
