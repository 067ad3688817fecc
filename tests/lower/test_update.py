"""Arrays that are updated: in place where nobody needs the old elements, in a copy where somebody does."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backend import find_backend
from graphc.driver import make_plan
from graphc.ir.graph import make_graph
from graphc.lower.interpret import run_plan
from graphc.lower.memory import item_bytes
from graphc.lower.plan import KernelItem
from graphc.passes import prepare, simplify_graph

STEPS = 4


def judge(outputs, arrays):
    """The plan, whose results by its interpreter, which sees to the order of reads and writes, are the reference's."""
    plan = make_plan(simplify_graph(prepare(make_graph(outputs, list(arrays))))[0], find_backend("numba"))
    wanted = gx.compile(outputs, inputs=list(arrays), backend="reference")(**{n.name: a for n, a in arrays.items()})
    for name, found in zip(outputs, run_plan(plan, list(arrays.values()), {}), strict=True):
        np.testing.assert_allclose(found, wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)
    return plan


def moved_in_the_loop(plan):
    """The bytes that one step of the plan's only loop moves."""
    (loop,) = plan.loops
    return sum(item_bytes(plan, i, {}) for launch in plan.launches[loop.first : loop.end] for i in launch.items)


def copies_in_the_loop(plan, size):
    """How many kernels other than updates write so many elements in a step."""
    (loop,) = plan.loops
    items = [i for launch in plan.launches[loop.first : loop.end] for i in launch.items if isinstance(i, KernelItem)]
    return sum(
        plan.buffers[index].type.size == size and item.written is None and buffer.access.value != "read"
        for item in items
        for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True)
    )


def write(cache, x, at):
    return gx.update_slice(cache, gx.expand_dims(x, 1), at, axis=1)


def old_is_not_read(cache, x, at):
    new = write(cache, gx.tanh(x), at)
    return new, x


def old_goes_into_what_is_written(cache, x, at):
    return write(cache, x + gx.sum(cache, axis=1), at), x


def new_is_read(cache, x, at):
    new = write(cache, x, at)
    return new, gx.max(new, axis=1)


def twice(cache, x, at):
    new = write(write(cache, x, at), 2 * x, at + 1)
    return new, gx.sum(new, axis=1)


def between(cache, x, at):
    once = write(cache, x, at)
    return write(once, gx.max(once, axis=1), at + 1), x


def one_element_of_the_old_decides(cache, x, at):
    before = gx.take(cache, at, axis=1)
    return write(cache, gx.where(before > 0, x, before), at), before


def old_is_read_behind_it(cache, x, at):
    new = write(cache, x, at)
    return new, gx.sum(cache * 2, axis=1) + gx.sum(new, axis=1)


def old_is_a_result(cache, x, at):
    return write(cache, x, at), cache


def written_from_itself(cache, x, at):
    return gx.update_slice(cache, cache[:, :2], at, axis=1), x


def scaled_after(cache, x, at):
    return write(cache, x, at) * 0.5, x


def two_ends(cache, x, at):
    return write(cache, x, at) + write(cache, -x, at + 1), x


IN_PLACE = (old_is_not_read, old_goes_into_what_is_written, new_is_read, twice, between, one_element_of_the_old_decides)
COPIED = (old_is_read_behind_it, old_is_a_result, written_from_itself, scaled_after, two_ends)


def looped(fn, room, ends=False):
    """A loop over a carry of (2, room, 3), written at 1, 2, ... along the middle axis."""
    cache, xs = gx.placeholder("cache", (2, room, 3)), gx.placeholder("xs", (STEPS, 2, 3))

    def step(carry, x):
        held, at = carry
        new, seen = fn(held, x, at)
        return (new, at + 1), seen

    going = (lambda carry: carry[1] < 4) if ends else None
    (last, _), seen = gx.scan(step, (cache, gx.constant(np.int64(1))), xs, going=going)
    return {"last": last, "seen": seen}, cache, xs


def given(cache, xs, seed=0):
    random = np.random.default_rng(seed)
    return {node: random.standard_normal(node.shape).astype(np.float32) for node in (cache, xs)}


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("fn", [*IN_PLACE, *COPIED])
def test_a_carry_that_is_updated(fn, ends):
    outputs, cache, xs = looped(fn, 7, ends)
    arrays = given(cache, xs)
    plan = judge(outputs, arrays)
    assert (copies_in_the_loop(plan, 2 * 7 * 3) == 0) is (fn in IN_PLACE)
    program = gx.compile(outputs, inputs=[cache, xs], backend="numba")
    found = program(**{node.name: array for node, array in arrays.items()})
    again = gx.compile(outputs, inputs=[cache, xs], backend="reference")(**{n.name: a for n, a in arrays.items()})
    for name, value in again.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_what_a_step_moves_does_not_grow_with_the_carry():
    small, large = (
        judge(outputs, given(*leaves)) for outputs, *leaves in (looped(old_is_not_read, n) for n in (8, 64))
    )
    assert moved_in_the_loop(small) == moved_in_the_loop(large) < 300
    copied = judge(*(lambda outputs, *leaves: (outputs, given(*leaves)))(*looped(old_is_a_result, 64)))
    assert moved_in_the_loop(copied) > 2 * 64 * 3 * 4


def test_a_carry_that_rows_change_places_in_is_written_before_it_moves():
    """As in a beam search: one copy a step, that of the rows."""
    cache, xs, rows = (gx.placeholder("cache", (3, 8, 2)), gx.placeholder("xs", (STEPS, 3, 2)), gx.placeholder(
        "rows", (STEPS, 3), "int64"
    ))  # fmt: skip

    def step(carry, x):
        held, at = carry
        return (gx.take(write(held, x[0], at), x[1], axis=0), at + 1), None

    (last, _), _ = gx.scan(step, (cache, gx.constant(np.int64(0))), (xs, rows))
    random = np.random.default_rng(1)
    arrays = given(cache, xs) | {rows: random.integers(0, 3, rows.shape)}
    plan = judge({"last": last}, arrays)
    assert copies_in_the_loop(plan, 3 * 8 * 2) == 1


def test_all_values_of_a_carry_stay_what_they_were():
    cache, xs = gx.placeholder("cache", (6,)), gx.placeholder("xs", (STEPS,))

    def step(carry, x):
        held, at = carry
        new = gx.update_slice(held, gx.expand_dims(x * held[0], 0), at)
        return (new, at + 1), gx.sum(new**2)

    (last, _), sums = gx.scan(step, (cache, gx.constant(np.int64(1))), xs)
    loss = gx.sum(sums) + gx.sum(last * last)
    judge({"loss": loss, "dc": gx.grad(loss, [cache])[0], "dx": gx.grad(loss, [xs])[0]}, given(cache, xs))


def test_a_loop_in_a_loop_updates_the_outer_carry_in_place():
    cache, xs = gx.placeholder("cache", (4, 5)), gx.placeholder("xs", (4, 5))

    def row(carry, x):
        held, i = carry

        def element(inner, y):
            line, j = inner
            return (gx.update_slice(line, gx.expand_dims(y, 0), j), j + 1), None

        (line, _), _ = gx.scan(element, (gx.take(held, i, axis=0), gx.constant(np.int64(0))), x)
        return (gx.update_slice(held, gx.expand_dims(line * 3, 0), i), i + 1), gx.sum(line)

    (last, _), sums = gx.scan(row, (cache, gx.constant(np.int64(0))), xs)
    judge({"last": last, "sums": sums}, given(cache, xs))


def test_without_a_loop_what_nobody_reads_again_is_overwritten():
    x, v, at = gx.placeholder("x", (16, 3)), gx.placeholder("v", (2, 3)), gx.placeholder("at", (), "int64")
    arrays = given(x, v) | {at: np.array(9)}
    once = gx.update_slice(gx.exp(x), v, at)
    plan = judge({"y": gx.sum(once, axis=0)}, arrays)
    assert [launch.label for launch in plan.launches] == ["exp + in_range", "update_slice", "sum"]
    judge({"y": once, "z": gx.update_slice(once, v * 2, at - 1)}, arrays)
    judge({"y": gx.update_slice(x, v, at), "x": x * 2}, arrays)
    judge({"y": gx.update_slice(gx.zeros((16, 3)), v, at)}, arrays)


def test_a_parameter_is_updated_at_a_place():
    table, v, at = gx.parameter("table", np.ones((8, 2), np.float32)), gx.placeholder("v", (1, 2)), gx.placeholder(
        "at", (), "int64"
    )  # fmt: skip
    program = gx.compile(
        {"before": gx.sum(table)}, inputs=[v, at], updates={table: gx.update_slice(table, v, at)}, backend="numba"
    )
    assert program(v=np.full((1, 2), 5, np.float32), at=np.array(3))["before"] == 16
    assert table.value.tolist() == [[1, 1]] * 3 + [[5, 5]] + [[1, 1]] * 4


@pytest.mark.parametrize("at", [-1, 5])
def test_a_place_outside_is_named(at):
    cache, xs = gx.placeholder("cache", (2, 4, 3)), gx.placeholder("xs", (STEPS, 2, 3))
    first = gx.placeholder("first", (), "int64")
    (last, _), _ = gx.scan(lambda c, x: ((write(c[0], x, c[1]), c[1] + 1), None), (cache, first), xs)
    program = gx.compile({"last": last}, inputs=[cache, xs, first], backend="numba")
    with pytest.raises(gx.errors.IndexRangeError, match=rf"{max(at, -1)}.*size 4"):
        program(**{node.name: array for node, array in given(cache, xs).items()}, first=np.int64(at))
