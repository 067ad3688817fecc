"""Functions without an op of their own beside NumPy and the papers' formulas, special values included."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as special

import graphc as gx
from tests.ops.rows import Row, check_backend, check_gradient, check_onnx, ids

FLOATS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e308, -1.0, 2.5, 3.0])
BITS = np.array([[0, 1, -1, 5], [2**62, -(2**63), 7, 2**63 - 1]]), np.array([6, -1, 1, 2**40])
LABELS = np.eye(4)[[0, 2, 3]]


def quiet(function):
    def run(*arrays):
        with np.errstate(all="ignore"):
            return function(*arrays)

    return run


def focal(labels, p, gamma=2.0):
    """Equation 4 of Lin et al. 2017 for each class."""
    return -labels * (1 - p) ** gamma * np.log(p)


def bits(name, make, by_numpy):
    a, b = BITS
    return [
        Row(f"{name} {kind}", make, by_numpy, operands, named)
        for kind, operands, named in [
            ("of integers", (a, b), (("m", "n"), ("n",))),
            ("of bools", (a > 0, b > 0), (("m", "n"), ("n",))),
            ("of few bits", (a.astype(np.int32), b.astype(np.int32)), None),
            ("of one", (a[:1, :1], b[:1]), None),
            ("of none", (a[:0], b), None),
        ]
    ]


ROWS = [
    Row("reciprocal", gx.reciprocal, lambda x: 1 / x, ((3, 4),), (("m", "n"),)),
    Row("reciprocal of special values", gx.reciprocal, quiet(lambda x: 1 / x), (FLOATS,), smooth=False),
    Row("reciprocal of none", gx.reciprocal, lambda x: 1 / x, ((0, 4),), smooth=False),
    *bits("and", gx.bitwise_and, np.bitwise_and), *bits("or", gx.bitwise_or, np.bitwise_or),
    *bits("xor", gx.bitwise_xor, np.bitwise_xor),
    Row("not of integers", gx.bitwise_not, np.bitwise_not, (BITS[0],), (("m", "n"),)),
    Row("not of bools", gx.bitwise_not, np.bitwise_not, (BITS[0] > 0,)),
    Row("focal", lambda z: gx.categorical_focal_cross_entropy(LABELS, gx.softmax(z)),
        lambda z: focal(LABELS, special.softmax(z, -1)), ((3, 4),)),
    Row("focal of other gamma", lambda z: gx.categorical_focal_cross_entropy(LABELS, gx.softmax(z), gamma=0.5),
        lambda z: focal(LABELS, special.softmax(z, -1), 0.5), ((3, 4),)),
    Row("focal of logits", lambda z: gx.categorical_focal_cross_entropy_with_logits(LABELS, z),
        lambda z: focal(LABELS, special.softmax(z, -1)), ((3, 4),)),
    Row("focal of far logits", lambda z: gx.categorical_focal_cross_entropy_with_logits(LABELS, z),
        lambda z: -LABELS * (1 - special.softmax(z, -1)) ** 2 * special.log_softmax(z, -1),
        (np.array([[50.0, 0, -50, 1], [30, 0, -30, 2], [0, 0, 0, 0]]),), smooth=False),
]  # fmt: skip
SMOOTH = [row for row in ROWS if row.smooth and any(isinstance(given, tuple) for given in row.operands)]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_rows_are_those_of_numpy(backend, named):
    assert ids(ROWS)
    check_backend([row for row in ROWS if bool(row.named) is named], backend, named)


def test_rows_in_onnxruntime():
    check_onnx(ROWS)


@pytest.mark.parametrize("row", SMOOTH, ids=lambda row: row.name)
def test_gradients(row):
    check_gradient(row)
