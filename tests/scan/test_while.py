"""Loops that end by themselves."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.interpret import run_plan
from tests.scan.test_scan import BACKENDS, plan_of


def collatz(most):
    n = gx.placeholder("n", (), "int64")
    last, steps = gx.while_loop(lambda v: v > 1, lambda v: gx.where(v % 2 == 0, v // 2, 3 * v + 1), n, most)
    return n, {"last": last, "steps": steps}


def counted(n, most):
    steps = 0
    while n > 1 and steps < most:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return n, steps


@pytest.mark.parametrize("most", [0, 1, 10, 200])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_condition_ends_the_loop(backend, most):
    n, outputs = collatz(most)
    program = gx.compile(outputs, inputs=[n], backend=backend)
    for value in (1, 2, 3, 7, 27, 97):
        found = program(n=np.int64(value))
        assert (int(found["last"]), int(found["steps"])) == counted(value, most)


def test_the_plan_keeps_to_the_rules():
    n, outputs = collatz(50)
    plan = plan_of(list(outputs.values()), [n])
    assert [int(value) for value in run_plan(plan, [np.array(27)], {})] == list(counted(27, 50))


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_of_steps_that_do_not_run_are_zeros(backend):
    """A greedy walk: at each step the best neighbour, until the end is reached."""
    scores = gx.parameter("scores", np.array([[0, 3, 1, 2], [1, 0, 2, 5], [0, 0, 0, 0], [2, 1, 9, 0]], np.float32))
    start = gx.placeholder("start", ("batch",), "int64")

    def step(carry, _):
        at, done = carry
        best = gx.argmax(gx.take(scores, at, axis=0), axis=1)
        token = gx.where(done, -1, best)
        return (gx.where(done, at, best), gx.logical_or(done, best == 2)), token

    init = (start, start == 2)
    (_, done), path = gx.scan(step, init, length=6, going=lambda carry: gx.logical_not(gx.all(carry[1])))
    program = gx.compile({"path": path, "done": done}, inputs=[start], backend=backend)
    found = program(start=np.array([0, 3, 2]))
    np.testing.assert_array_equal(found["path"].T, [[1, 3, 2, 0, 0, 0], [2, -1, -1, 0, 0, 0], [-1, -1, -1, 0, 0, 0]])
    assert found["done"].all()
    np.testing.assert_array_equal(program(start=np.array([2, 2]))["path"], np.zeros((6, 2)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_that_ends_inside_one_that_does_not(backend):
    x = gx.placeholder("x", ("n",), "float64")

    def row(total, value):
        halved, steps = gx.while_loop(lambda v: v > 1, lambda v: v / 2, value, most=100)
        return total + halved, steps

    total, steps = gx.scan(row, gx.constant(np.float64(0)), x)
    program = gx.compile({"total": total, "steps": steps}, inputs=[x], backend=backend)
    found = program(x=np.array([0.5, 10.0, 3.0, 1024.0]))
    assert found["steps"].tolist() == [0, 4, 2, 10]
    np.testing.assert_allclose(found["total"], 0.5 + 0.625 + 0.75 + 1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_no_step_reads_in_the_end_may_be_an_operand(backend):
    """The inner loop hands its first value on, whatever its elements are."""
    m, x = gx.placeholder("m", (4,)), gx.placeholder("x", (3, 4))

    def step(carry, e):
        h, i = carry
        (same, _), _ = gx.scan(lambda c, b: ((c[0], c[1] + 1), b), (h * 2, i), gx.stack([e, gx.tanh(m)]))
        return (h + e, i + 1), same

    (last, _), seen = gx.scan(step, (gx.zeros((4,)), gx.constant(np.int64(0))), x, going=lambda carry: carry[1] < 2)
    found = gx.compile({"last": last, "seen": seen}, inputs=[m, x], backend=backend)(
        m=np.ones(4, np.float32), x=np.ones((3, 4), np.float32)
    )
    assert found["last"].tolist() == [2] * 4
    assert found["seen"].tolist() == [[0] * 4, [2] * 4, [0] * 4]


def test_it_has_no_derivative():
    x = gx.placeholder("x", ())
    halved, _ = gx.while_loop(lambda v: v > 1, lambda v: v / 2, x, most=10)
    with pytest.raises(gx.GraphError, match="ends by itself") as caught:
        gx.grad(halved, [x])
    assert "test_while.py" in str(caught.value)
    (none,) = gx.grad(gx.stop_gradient(halved) * x, [x])
    assert none.type == x.type


def test_the_condition_is_one_bool():
    x = gx.placeholder("x", (3,))
    with pytest.raises(gx.GraphError, match="one bool"):
        gx.while_loop(lambda v: v > 1, lambda v: v / 2, x, most=10)
