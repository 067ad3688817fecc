"""Large tables: where all rows but those that occur keep their values, these alone are computed and written."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.backends.cupy import backend as cupy
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.interpret import CheckFailed, run_plan
from graphc.lower.plan import size_of
from graphc.optimizers import SGD, Adagrad, Adam, Lion
from graphc.passes import decompose_for, prepare, simplify_graph
from graphc.passes.touched import is_large

ROWS, WIDTH = 1 << 17, 4


def graph_of(optimizer, rows=ROWS, readers=(), tables=1, extra=None, dtype="float32"):
    """A training step that reads some rows of a table (or of several, by the same indices); its parameters."""
    ids, goal = gx.placeholder("ids", ("batch",), "int64"), gx.placeholder("goal", ("batch", WIDTH), dtype)
    made = [gx.parameter(f"table{i}", np.zeros((rows, WIDTH), dtype)) for i in range(tables)]
    loss = gx.sum((sum(gx.take(table, ids) for table in made) - goal) ** 2)
    if extra is not None:
        loss = loss + extra(made[0])
    gradients = gx.grad(loss, made)
    outputs = {"loss": loss, **{f"more{i}": read(gradients[0]) for i, read in enumerate(readers)}}
    return make_graph(outputs, [ids, goal], optimizer.updates(made, gradients)), made


def lowered(graph):
    """What a backend gets that writes rows faster than it walks tables."""
    return decompose_for(simplify_graph(prepare(graph))[0], find_backend("numba").takes)


def by_rows(graph, made):
    """How many parameters are updated in rows, and whether anything still has as many rows as a table."""
    final = lowered(graph)
    count = sum(node.op.name == "update_rows" for _, node in final.updates)
    dense = [n for n in final.nodes if n.shape[:1] == (ROWS,) and n.op.name not in ("parameter", "update_rows")]
    return count, [node.op.name for node in dense]


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: SGD(0.1), 1), (lambda: Adagrad(0.1), 2), (lambda: SGD(0.1, clipvalue=0.1), 1),
        (lambda: SGD(0.1, global_clipnorm=1.0), 1), (lambda: SGD(0.1, clipnorm=1.0), 1),
        (lambda: SGD(0.1, loss_scale_factor=8.0), 1),
    ],
)  # fmt: skip
def test_rules_that_leave_rows_without_gradient_alone_touch_only_the_others(make, count):
    assert by_rows(*graph_of(make())) == (count, [])


def test_two_tables_share_the_order_of_their_indices():
    graph, made = graph_of(SGD(0.1), tables=2)
    assert by_rows(graph, made) == (2, [])
    assert sum(node.op.name == "argsort" for node in lowered(graph).nodes) == 1


def test_halves_are_widened_in_the_rows_alone():
    assert by_rows(*graph_of(SGD(0.1), rows=2 * ROWS, dtype="float16"))[0] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(0.1, momentum=0.9), lambda: Adam(0.1), lambda: Lion(0.1), lambda: SGD(0.1, weight_decay=0.1),
        lambda: SGD(0.1, use_ema=True), lambda: SGD(0.1, gradient_accumulation_steps=2),
    ],
)  # fmt: skip
def test_rules_that_move_every_row_walk_the_table(make):
    assert by_rows(*graph_of(make()))[0] == 0


@pytest.mark.parametrize(
    ("rows", "width", "shape", "large"),
    [
        (100_000, 128, ("batch", "time"), True), (40_000, 64, ("batch", "time"), False),
        (40_000, 64, ("batch",), True), (10_000, 128, ("batch",), True), (1_000, 128, ("batch",), False),
        (100_000, 128, (32, 20), True), (100_000, 128, (64, 400), False),
    ],
)  # fmt: skip
def test_what_counts_as_large(rows, width, shape, large):
    table, ids = gx.placeholder("table", (rows, width)), gx.placeholder("ids", shape, "int64")
    (gradient,) = gx.grad(gx.sum(gx.take(table, ids) ** 2), [table])
    assert is_large(gradient) is large


def test_small_tables_and_needed_gradients_and_penalties_are_dense():
    assert by_rows(*graph_of(SGD(0.1), rows=256))[0] == 0
    assert by_rows(*graph_of(SGD(0.1), readers=[lambda g: g]))[0] == 0
    assert by_rows(*graph_of(SGD(0.1), readers=[lambda g: gx.max(g)]))[0] == 0
    assert by_rows(*graph_of(SGD(0.1), extra=lambda w: 0.1 * gx.sum(w**2)))[0] == 0
    assert by_rows(*graph_of(SGD(0.1), readers=[lambda g: gx.sum(g * g)])) == (1, [])


def test_a_gpu_walks_tables_that_do_not_say_that_they_are_sparse():
    final = decompose_for(simplify_graph(prepare(graph_of(SGD(0.1))[0]))[0], cupy.takes)
    assert not any(node.op.name == "update_rows" for node in final.nodes)


def plan_of(graph):
    return make_plan(simplify_graph(prepare(graph))[0], find_backend("numba"))


@pytest.mark.parametrize("make", [lambda: SGD(0.25), lambda: Adagrad(0.25, initial_accumulator_value=1.0, epsilon=0.0)])
def test_the_plan_moves_rows_and_nothing_else_and_changes_nothing_when_it_fails(make):
    """By the interpreter, which sees to the order of reads, writes and checks; squares of these numbers are exact."""
    graph, (table,) = graph_of(make())
    plan = plan_of(graph)
    ids, goal = np.array([7, 3, 7, ROWS - 1]), np.arange(16, dtype=np.float32).reshape(4, 4)
    run_plan(plan, [ids, goal], {"batch": 4})
    gradient = np.zeros((ROWS, WIDTH), np.float32)
    np.add.at(gradient, ids, -2 * goal)
    divisor = 1.0 if isinstance(make(), SGD) else np.sqrt(1 + gradient**2)
    np.testing.assert_allclose(table.value, -0.25 * gradient / divisor, rtol=1e-6)
    before = table.value
    for wrong in (ROWS, -3):
        with pytest.raises(CheckFailed) as caught:
            run_plan(plan, [np.array([1, 2, wrong, 3]), goal], {"batch": 4})
        assert caught.value.failure.detail == wrong
    np.testing.assert_array_equal(table.value, before)


def test_the_work_of_a_step_does_not_grow_with_the_table():
    def work(rows):
        plan = plan_of(graph_of(Adagrad(0.1), rows=rows)[0])
        items = [item for launch in plan.launches for item in launch.items]
        return sum(size_of(item.extent, {"batch": 100}) * size_of(item.cost, {"batch": 100}) for item in items)

    assert work(ROWS) == work(8 * ROWS) < ROWS
