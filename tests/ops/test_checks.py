"""Run-time checks: which there are, how they are numbered, and that a failed step changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.reference import backend
from graphc.ir.graph import make_graph
from graphc.ir.op import registry
from graphc.lower.checks import find_checks
from graphc.lower.plan import Plan
from graphc.ops.checked import Checked
from tests.ops.table import by_numpy

X, INDICES = gx.placeholder("x", (4, 3)), gx.placeholder("i", (2,), "int64")
TOKENS = np.array([1, 7])


def run(graph, *arrays):
    outputs = [np.zeros(node.shape, node.dtype.numpy) for _, node in graph.outputs]
    return backend.compile(Plan(graph)).bind({}).run(list(arrays), outputs)


def test_all_ops_that_can_fail_are_found():
    assert {name for name, op in registry.items() if issubclass(op, Checked)} == {
        "take", "take_add", "take_along", "scatter_along", "in_range", "check_finite", "sparse_softmax_cross_entropy",
        "sparse_categorical_cross_entropy",
    }  # fmt: skip


def test_checks_stand_in_the_order_of_the_nodes():
    n = gx.Dim("n")
    z = gx.placeholder("z", ("b", n))
    labels = gx.placeholder("labels", ("b",), "int64")
    loss = gx.check_finite(gx.mean(gx.sparse_softmax_cross_entropy(labels, z)), "the loss")
    rows = gx.take(z, gx.in_range(gx.placeholder("k", (), "int32"), n), axis=1)
    graph = make_graph({"rows": rows, "loss": loss}, [z, labels, rows.args[1].args[0]])
    checks = find_checks(graph)
    assert [check.node for check in checks] == [node for node in graph.nodes if isinstance(node.op, Checked)]
    assert [(check.kind, check.limit, check.what) for check in checks] == [
        ("index", n, "k"), ("index", n, "indices"), ("index", n, "labels"), ("finite", 0, "the loss"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "rows", "detail"),
    [
        (lambda i: gx.take(X, i), [0, 4], 4),
        (lambda i: gx.take(X, i), [-1, 9], -1),
        (lambda i: gx.take(X, i, axis=1), [2, 3], 3),
        (lambda i: gx.take_along(X, gx.broadcast_to(i[:, None], (2, 3)), axis=0), [1, 4], 4),
        (lambda i: gx.grad(gx.sum(gx.take(X, i)), [X])[0], [5, 0], 5),
        (lambda i: gx.in_range(i, 2), [1, 2], 2),
        (lambda i: gx.sparse_softmax_cross_entropy(i, X[:2]), [0, 3], 3),
        (lambda i: gx.sparse_categorical_cross_entropy(i, X[:2]), [-2, 0], -2),
        (lambda i: gx.grad(gx.sum(gx.sparse_softmax_cross_entropy(i, X[:2])), [X])[0], [0, 3], 3),
    ],
)
def test_indices_outside_are_found(build, rows, detail):
    node = build(INDICES)
    graph = make_graph({"y": node}, [X, INDICES])
    values = np.zeros((4, 3), np.float32)
    failure = run(graph, values, np.array(rows))
    assert failure.detail == detail
    assert find_checks(graph)[failure.check].kind == "index"
    assert run(graph, values, np.array([0, 1])) is None


def test_the_first_check_that_fails_is_reported():
    graph = make_graph({"y": gx.check_finite(gx.take(gx.check_finite(X, "x"), INDICES), "rows")}, [X, INDICES])
    values = np.full((4, 3), np.nan, np.float32)
    failure = run(graph, values, TOKENS)
    assert (failure.check, failure.detail) == (0, 0)
    values[:] = 0
    failure = run(graph, values, TOKENS)
    assert (failure.check, failure.detail) == (1, 7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_at_its_place(bad):
    graph = make_graph({"y": gx.check_finite(X)}, [X])
    values = np.zeros((4, 3), np.float32)
    values[2, 1] = bad
    assert run(graph, values).detail == 7


def test_a_failed_step_changes_no_state():
    w, count = gx.parameter("w", np.ones((4, 3), np.float32)), gx.parameter("count", np.int64(3))
    graph = make_graph({"y": gx.take(w, INDICES)}, [INDICES], {w: w * 2.0, count: count + 1})
    assert run(graph, TOKENS) is not None
    np.testing.assert_array_equal(w.value, 1)
    assert count.value == 3
    assert run(graph, np.array([0, 3])) is None
    np.testing.assert_array_equal(w.value, 2)
    assert count.value == 4


def test_a_reference_called_alone_raises_too():
    op = gx.take(X, INDICES).op
    with pytest.raises(gx.IndexRangeError, match="index 7 is outside an axis of size 4"):
        by_numpy(op, [np.zeros((4, 3)), TOKENS])
    with pytest.raises(gx.NonFiniteError, match="element 1 of the loss is nan"):
        by_numpy(gx.check_finite(X, "the loss").op, [np.array([0, np.nan])])
