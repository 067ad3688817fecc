"""Rows that are written into tables: in the memory of a parameter or a carry where nobody needs the old ones."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.interpret import run_plan
from graphc.lower.plan import KernelItem
from graphc.passes import prepare, simplify_graph

SHAPE = (6, 5)


def swapped(p, q, ids, x):
    """Each gets rows of the other, as they were before the step."""
    return {p: gx.update_rows(p, gx.take(q, ids), ids), q: gx.update_rows(q, gx.take(p, ids), ids)}, gx.sum(p * q)


def from_itself(p, q, ids, x):
    return {p: gx.update_rows(p, gx.take(p, ids) * 2 + x, ids)}, gx.sum(p) + gx.sum(q)


def beside_a_dense_update_that_reads_it(p, q, ids, x):
    return {p: gx.update_rows(p, x, ids), q: q - 0.5 * p}, gx.sum(p)


def whole_rows_of_a_parameter(p, q, ids, x):
    """What is written lies in q, which is overwritten by what reads p."""
    return {p: gx.update_rows(p, q[:3], ids), q: q - 0.5 * p}, gx.sum(p)


def seen_afterwards(p, q, ids, x):
    new = gx.update_rows(p, x, ids)
    return {p: new, q: q * 2}, gx.sum(new) - gx.sum(p)


def of_another_parameter(p, q, ids, x):
    return {p: gx.update_rows(q, x, ids)}, gx.sum(q)


def for_two_parameters(p, q, ids, x):
    new = gx.update_rows(p, x, ids)
    return {p: new, q: new}, gx.sum(p)


def twice(p, q, ids, x):
    return {p: gx.update_rows(gx.update_rows(p, x, ids), x * 2, ids[::-1])}, gx.sum(p)


IN_PLACE = (swapped, from_itself, beside_a_dense_update_that_reads_it)
COPIED = (whole_rows_of_a_parameter, seen_afterwards, of_another_parameter, for_two_parameters, twice)


def program_of(fn):
    """What a function updates and returns, as outputs and updates over fresh parameters."""
    rng = np.random.default_rng(3)
    p, q = (gx.parameter(name, rng.standard_normal(SHAPE).astype(np.float32)) for name in "pq")
    ids, x = gx.placeholder("ids", (3,), "int64"), gx.placeholder("x", (3, SHAPE[1]))
    updates, seen = fn(p, q, ids, x)
    return {"seen": seen}, [ids, x], updates, (p, q)


@pytest.mark.parametrize("fn", [*IN_PLACE, *COPIED])
def test_next_values_of_parameters(fn):
    """By the interpreter, which sees to the order of reads and writes, and by native code."""
    feeds = [np.array([4, 1, 4]), np.random.default_rng(1).standard_normal((3, SHAPE[1])).astype(np.float32)]
    results = []
    for run in ("reference", "numba", "plan"):
        outputs, inputs, updates, parameters = program_of(fn)
        if run == "plan":
            plan = make_plan(simplify_graph(prepare(make_graph(outputs, inputs, updates)))[0], find_backend("numba"))
            seen = run_plan(plan, feeds, {})
            tables = sum(
                plan.buffers[index].type.shape == SHAPE
                for launch in plan.launches
                for item in launch.items
                if isinstance(item, KernelItem) and item.kernel.name in ("copy", "update")
                for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True)
                if buffer.access.value != "read"
            )
            assert (tables == 0) is (fn in IN_PLACE)
        else:
            seen = gx.compile(outputs, inputs, updates, backend=run).call(feeds)
        results.append([*seen, *(parameter.value for parameter in parameters)])
    wanted, *others = results
    for found in others:
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_carry_gets_rows_in_its_own_memory():
    table, ids, xs = gx.placeholder("t", SHAPE), gx.placeholder("ids", (4, 2), "int64"), gx.placeholder("xs", (4, 2, 5))

    def step(carry, x):
        at, rows = x
        return gx.update_rows(carry, gx.take(carry, at) + rows, at), gx.sum(rows)

    last, _ = gx.scan(step, table, (ids, xs))
    loss = gx.sum(last**2)
    outputs = {"last": last, "dt": gx.grad(loss, [table])[0], "dx": gx.grad(loss, [xs])[0]}
    rng = np.random.default_rng(2)
    t, x = (rng.standard_normal(node.shape).astype(np.float32) for node in (table, xs))
    at = np.array([[0, 3], [3, 3], [5, 1], [2, 0]])
    found, wanted = (
        gx.compile(outputs, [table, ids, xs], backend=b)(t=t, ids=at, xs=x) for b in ("numba", "reference")
    )
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    plan = make_plan(simplify_graph(prepare(make_graph({"last": last}, [table, ids, xs])))[0], find_backend("numba"))
    (loop,) = plan.loops
    for launch in plan.launches[loop.first : loop.end]:
        assert all(item.kernel.name != "copy" for item in launch.items)


def test_the_last_of_several_rows_stays_whatever_the_number_of_threads():
    from graphc.backends import numba

    x, ids, rows = gx.placeholder("x", (9, 40)), gx.placeholder("ids", ("n",), "int64"), gx.placeholder("r", ("n", 40))
    program = gx.compile({"y": gx.update_rows(x, rows, ids)}, [x, ids, rows], backend="numba")
    at = np.random.default_rng(0).integers(0, 9, 500)
    values = np.random.default_rng(1).standard_normal((500, 40)).astype(np.float32)
    wanted = np.zeros((9, 40), np.float32)
    wanted[at] = values
    before = numba.get_threads()
    try:
        for threads in (1, 2):
            numba.set_threads(threads)
            np.testing.assert_array_equal(program(x=np.zeros((9, 40), np.float32), ids=at, r=values)["y"], wanted)
    finally:
        numba.set_threads(before)


@pytest.mark.parametrize("at", [-1, 9])
def test_a_row_outside_is_named(at):
    x, ids = gx.placeholder("x", (9, 2)), gx.placeholder("ids", (2,), "int64")
    program = gx.compile({"y": gx.update_rows(x, gx.zeros((2, 2)), ids)}, [x, ids], backend="numba")
    with pytest.raises(gx.errors.IndexRangeError, match=f"ids.*{at}.*size 9"):
        program(x=np.zeros((9, 2), np.float32), ids=np.array([3, at]))
