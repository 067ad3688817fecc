"""Sums of scattered rows, taken apart: the update of rows has cases of its own."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.errors import GraphError
from graphc.ir.node import apply
from graphc.ops.scatter import TakeAdd


def test_what_is_no_sum_of_rows_is_refused():
    with pytest.raises(GraphError, match="multiply is no sum of scattered rows"):
        gx.scattered_rows(gx.placeholder("x", (4, 3)) * 2.0)


def test_rows_are_found_in_sums_and_multiples():
    ids, values = gx.placeholder("ids", ("n",), "int64"), gx.placeholder("values", ("n", 2))
    scattered = apply(TakeAdd(0, 6), values, ids)
    rows = gx.scattered_rows(-(scattered + scattered * 3.0) / 2.0)
    total = gx.sum(rows.sums, axis=0)
    x, at = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([5, 1, 5, 0])
    program = gx.compile({"sum": total, "places": rows.places}, inputs=[ids, values], backend="reference")
    found = program(ids=at, values=x)
    np.testing.assert_allclose(found["sum"], -2 * x.sum(axis=0))
    np.testing.assert_array_equal(found["places"], at)


@pytest.mark.parametrize("seed", range(3))
def test_rows_put_together_again_are_the_sum(seed):
    rng = np.random.default_rng(seed)
    table, first, second = gx.placeholder("t", (7, 3)), gx.placeholder("a", ("n", 2), "int64"), gx.placeholder(
        "b", ("m",), "int64"
    )  # fmt: skip
    loss = gx.sum(gx.take(table, first) ** 2) - gx.sum(gx.tanh(gx.take(table, second)))
    (gradient,) = gx.grad(loss, [table])
    rows = gx.scattered_rows(gradient)
    again = gx.update_rows(gx.zeros((7, 3)), gx.take(rows.sums, rows.group), rows.places)
    outputs = {"dense": gradient, "again": again, "squares": gx.sum(rows.sums**2)}
    program = gx.compile(outputs, inputs=[table, first, second], backend="reference")
    feeds = {"a": rng.integers(0, 7, (2, 2)), "b": rng.integers(0, 7, 5)}
    found = program(t=rng.standard_normal((7, 3)).astype(np.float32), **feeds)
    np.testing.assert_array_equal(found["again"], found["dense"])
    np.testing.assert_allclose(found["squares"], (found["dense"] ** 2).sum(), rtol=1e-5)
