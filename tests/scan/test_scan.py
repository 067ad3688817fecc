"""A loop is its steps written out: values, gradients, tangents and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.interpret import run_plan
from graphc.passes import prepare, simplify_graph
from tests.scan.cells import CELLS, problem, scalar

BACKENDS = ("reference", "numba")


def run(outputs, leaves, arrays, backend):
    program = gx.compile({f"y{i}": node for i, node in enumerate(outputs)}, inputs=leaves, backend=backend)
    return [program(**arrays)[f"y{i}"] for i in range(len(outputs))]


def plan_of(outputs, leaves):
    graph = make_graph({f"y{i}": node for i, node in enumerate(outputs)}, leaves)
    return make_plan(simplify_graph(prepare(graph))[0], find_backend("numba"))


def assert_same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_is_its_steps(backend, name, reverse):
    p = problem(name, 3, reverse, seed=len(name))
    wanted = run(p.written, p.leaves, p.arrays, "reference")
    assert_same(run(p.looped, p.leaves, p.arrays, backend), wanted)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_its_gradients_are_theirs(backend, name, reverse):
    p = problem(name, 3, reverse, seed=len(name) + 1)
    wanted = run(gx.grad(scalar(p.written), p.leaves), p.leaves, p.arrays, "reference")
    assert_same(run(gx.grad(scalar(p.looped), p.leaves), p.leaves, p.arrays, backend), wanted)


@pytest.mark.parametrize("name", CELLS)
def test_its_plan_keeps_to_the_rules(name):
    """The interpreter checks every read and write of every step."""
    p = problem(name, 3, False, seed=7)
    outputs = [*p.looped, *gx.grad(scalar(p.looped), p.leaves)]
    plan = plan_of(outputs, p.leaves)
    assert plan.loops
    found = run_plan(plan, [p.arrays[leaf.name] for leaf in p.leaves], {})
    assert_same(found, run([*p.written, *gx.grad(scalar(p.written), p.leaves)], p.leaves, p.arrays, "reference"))


@pytest.mark.parametrize("name", ["rnn", "lstm", "masked", "projected"])
def test_tangents_and_second_derivatives(name):
    p = problem(name, 3, False, seed=3)
    random = np.random.default_rng(5)
    directions = [gx.constant(random.standard_normal(leaf.shape)) for leaf in p.leaves]

    def derived(values):
        tangents = gx.jvp(values, p.leaves, directions)
        return [*tangents, *gx.hessian_vector_product(scalar(values), p.leaves, directions)]

    wanted = run(derived(p.written), p.leaves, p.arrays, "reference")
    for backend in BACKENDS:
        found = run(derived(p.looped), p.leaves, p.arrays, backend)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_length_with_one_program(backend):
    """Also none: then the carry is the first one, and gradients of what was not used are zeros."""
    make, cell = CELLS["rnn"]
    w = [gx.parameter(f"w{i}", np.random.default_rng(i).uniform(-1, 1, s)) for i, s in enumerate(cell.weights)]
    x = gx.placeholder("x", ("time", "batch", 3), "float64")
    h = gx.placeholder("h", ("batch", 4), "float64")
    (last,), results = gx.scan(make(w), (h,), (x,))
    loss = gx.sum(last * last) + gx.sum(results)
    gradients = gx.grad(loss, [*w, h, x])
    outputs = {"last": last, "results": results, **{f"g{i}": g for i, g in enumerate(gradients)}}
    program = gx.compile(outputs, inputs=[x, h], backend=backend)
    oracle = gx.compile(outputs, inputs=[x, h], backend="reference")
    random = np.random.default_rng(0)
    for length, batch in ((4, 2), (1, 3), (0, 2), (5, 1)):
        arrays = {"x": random.standard_normal((length, batch, 3)), "h": random.standard_normal((batch, 4))}
        found, wanted = program(**arrays), oracle(**arrays)
        for name in outputs:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-10, atol=1e-12)
        state = arrays["h"]
        for t in range(length):
            state = np.tanh(arrays["x"][t] @ w[0].value + state @ w[1].value + w[2].value)
        np.testing.assert_allclose(found["last"], state, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_loops_within_loops(backend):
    x = gx.placeholder("x", ("n", "m", 3), "float64")
    w = gx.parameter("w", np.random.default_rng(0).uniform(-1, 1, (3, 3)))

    def row(carry, xs):
        inner, outs = gx.scan(lambda c, e: (gx.tanh(c @ w + e),) * 2, carry, xs)
        return inner, gx.sum(outs, axis=0)

    last, sums = gx.scan(row, gx.zeros((3,), "float64"), x)
    loss = gx.sum(last * last) + gx.sum(sums * sums)
    outputs = {"last": last, "sums": sums, "dw": gx.grad(loss, [w])[0], "dx": gx.grad(loss, [x])[0], "loss": loss}
    program = gx.compile(outputs, inputs=[x], backend=backend)
    value = np.random.default_rng(1).standard_normal((4, 5, 3))
    found = program(x=value)
    state, rows = np.zeros(3), []
    for i in range(4):
        rows.append(np.zeros(3))
        for j in range(5):
            state = np.tanh(state @ w.value + value[i, j])
            rows[-1] = rows[-1] + state
    np.testing.assert_allclose(found["last"], state, rtol=1e-12)
    np.testing.assert_allclose(found["sums"], np.stack(rows), rtol=1e-12)
    step = 1e-6
    for at in ((0, 0, 0), (1, 3, 2), (3, 4, 1)):
        moved = [value.copy(), value.copy()]
        moved[0][at] += step
        moved[1][at] -= step
        slope = (program(x=moved[0])["loss"] - program(x=moved[1])["loss"]) / (2 * step)
        np.testing.assert_allclose(found["dx"][at], slope, rtol=1e-6, atol=1e-8)


def test_products_leave_the_loop():
    """The input projection stands before the loop, the weights' gradients behind it."""
    make, cell = CELLS["lstm"]
    w = [gx.parameter(f"w{i}", np.zeros(shape, np.float32)) for i, shape in enumerate(cell.weights)]
    x = gx.placeholder("x", ("time", "batch", 3))
    zeros = gx.zeros(("batch", 4))
    (last, _), _ = gx.scan(make(w), (zeros, zeros), (x,))
    plan = plan_of([gx.sum(last), *gx.grad(gx.sum(last * last), w)], [x])
    assert len(plan.loops) == 2  # the forward steps once, for the value and for the derivative
    inside = [launch for loop in plan.loops for launch in plan.launches[loop.first : loop.end]]
    products = [launch for launch in inside if "matmul" in launch.label]
    assert len(products) == 2  # the recurrent one, and its transpose
    assert len(inside) == 4  # and the gates: one kernel each


def test_a_longer_sequence_needs_no_other_plan():
    make, cell = CELLS["rnn"]
    w = [gx.parameter(f"w{i}", np.zeros(shape, np.float32)) for i, shape in enumerate(cell.weights)]
    x = gx.placeholder("x", ("time", "batch", 3))
    _, results = gx.scan(make(w), (gx.zeros(("batch", 4)),), (x,))
    program = gx.compile({"y": results}, inputs=[x], backend="numba")
    before = program.source()
    for length in (1, 7, 300):
        assert program(x=np.ones((length, 2, 3), np.float32))["y"].shape == (length, 2, 4)
    assert program.source() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_check_inside_fails_with_the_users_line(backend):
    table = gx.parameter("table", np.arange(10.0).reshape(5, 2))
    ids = gx.placeholder("ids", ("time", 3), "int64")
    total, _ = gx.scan(lambda c, i: (c + gx.take(table, i, axis=0), None), gx.zeros((3, 2), "float64"), ids)
    program = gx.compile({"y": total}, inputs=[ids], updates={table: table + gx.sum(total)}, backend=backend)
    before = table.value
    with pytest.raises(gx.IndexRangeError, match=r"7.*\n?.*test_scan\.py|test_scan\.py") as caught:
        program(ids=np.array([[0, 1, 2], [3, 7, 1]]))
    assert "7" in str(caught.value)
    np.testing.assert_array_equal(table.value, before)
    assert program(ids=np.array([[0, 1, 2], [3, 4, 1]]))["y"].tolist() == [[6, 8], [10, 12], [6, 8]]


@pytest.mark.parametrize("branches", [False, True])
def test_a_check_inside_comes_before_state_that_the_kernel_of_an_operand_could_write(branches):
    w, ids = gx.parameter("w", np.ones(4)), gx.placeholder("ids", ("n",), "int64")
    h = gx.tanh(w)
    if branches:
        y = gx.cond(gx.any(ids > 0), lambda v, i: gx.max(gx.take(v, i)), lambda v, i: gx.sum(v), h, ids)
    else:
        y, _ = gx.scan(lambda c, i: (c + gx.take(h, i), None), gx.zeros((), "float64"), ids)
    program = gx.compile({"y": y}, inputs=[ids], updates={w: h * 2}, backend="numba")
    with pytest.raises(gx.IndexRangeError):
        program(ids=np.array([2, 9]))
    np.testing.assert_array_equal(w.value, np.ones(4))
    program(ids=np.array([2, 3]))
    np.testing.assert_allclose(w.value, 2 * np.tanh(np.ones(4)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: gx.scan(lambda c, e: (c, e), gx.zeros((3,))), "no sequence and no length"),
        (lambda x: gx.scan(lambda c, e: (c, e), x[0], (x, x[:2])), "differ in length"),
        (lambda x: gx.scan(lambda c, e: c + e, x[0], x), "no pair"),
        (lambda x: gx.scan(lambda c, e: (gx.sum(c), e), x[0], x), "carry 0"),
        (lambda x: gx.scan(lambda c, e: ((c, c), e), x[0], x), "form"),
        (lambda x: gx.scan(lambda c, e: (c, e), x[0], gx.constant(1.0)), "no axis"),
    ],
)
def test_mistakes_are_explained(call, says):
    with pytest.raises(gx.GraphcError, match=says) as caught:
        call(gx.placeholder("x", (4, 3)))
    assert "test_scan.py" in str(caught.value)
    assert "to do: " in str(caught.value)
