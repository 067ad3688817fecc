from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.ir.dims import Dim
from graphc.ir.node import Parameter
from graphc.ir.types import TensorType
from graphc.loops.kernel import Fail, Kernel, Load, Store
from graphc.lower.interpret import CheckFailed, run_plan
from graphc.lower.plan import GemmItem, KernelItem, Launch, Place, Plan, PlanBuffer
from tests.loops.builders import F32, I, N, apply, const, parallel, read, update, write

BATCH = Dim("batch")


def f32(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


ACTIVATE = Kernel(
    "activate",
    (read("x", F32), write("y", F32)),
    ("n",),
    N,
    parallel(N, Store("y", I, apply("tanh", Load("x", I, F32)))),
)
CHECK = Kernel(
    "check",
    (read("x", F32),),
    ("n",),
    N,
    parallel(N, Fail(apply("not", apply("isfinite", Load("x", I, F32))), const(1), I)),
    has_checks=True,
)
DESCEND = Kernel(
    "descend",
    (read("g", F32), update("w", F32)),
    ("n",),
    N,
    parallel(N, Store("w", I, apply("sub", Load("w", I, F32), Load("g", I, F32)))),
)


def buffer(index: int, place: Place, *shape, slot: int = 0) -> PlanBuffer:
    return PlanBuffer(index, f"b{index}", TensorType(F32, shape), place, slot)


def step() -> Plan:
    """``y = tanh(x @ w)``, checked for NaN, and ``w -= x.T @ y``."""
    w = Parameter("w", f32(3, 4))
    buffers = (
        buffer(0, Place.INPUT, BATCH, 3),
        buffer(1, Place.STATE, 3, 4),
        buffer(2, Place.ARENA, BATCH, 4),
        buffer(3, Place.OUTPUT, BATCH, 4),
        buffer(4, Place.ARENA, 3, 4),
    )
    forward = GemmItem(F32, 0, 1, 2, m=BATCH, n=4, k=3, lda=3, ldb=4, ldc=4)
    backward = GemmItem(F32, 0, 3, 4, m=3, n=4, k=BATCH, lda=3, ldb=4, ldc=4, transpose_a=True)
    launches = (
        Launch((forward,), "product"),
        Launch((KernelItem(ACTIVATE, (2, 3), (BATCH * 4,), BATCH * 4),), "tanh"),
        Launch((KernelItem(CHECK, (3,), (BATCH * 4,), BATCH * 4, check_base=5), backward), "check"),
        Launch((KernelItem(DESCEND, (4, 1), (12,), 12),), "descend"),
    )
    return Plan(graph=None, buffers=buffers, launches=launches, commit=3, parameters=(w,))


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_a_step_computes_and_commits(batch):
    plan = step()
    (w,), x = plan.parameters, f32(batch, 3)
    before = w.value
    (y,) = run_plan(plan, [x], {"batch": batch})
    np.testing.assert_allclose(y, np.tanh(x @ before), rtol=1e-6)
    np.testing.assert_allclose(w.value, before - x.T @ y, rtol=1e-5, atol=1e-6)


def test_nothing_is_committed_after_a_failed_check():
    plan = step()
    before, x = plan.parameters[0].value, f32(2, 3)
    x[1, 1] = np.nan
    with pytest.raises(CheckFailed, match="check 6 failed with 4") as caught:
        run_plan(plan, [x], {"batch": 2})
    assert (caught.value.failure.check, caught.value.failure.detail) == (6, 4)
    assert np.array_equal(plan.parameters[0].value, before)


def test_batched_products_follow_their_strides():
    a, b = f32(2, 3, 4), f32(5, 4)  # the same b, transposed, for each matrix of a
    buffers = (buffer(0, Place.INPUT, 2, 3, 4), buffer(1, Place.INPUT, 5, 4, slot=1), buffer(2, Place.OUTPUT, 2, 3, 5))
    item = GemmItem(
        F32, 0, 1, 2, m=3, n=5, k=4, lda=4, ldb=4, ldc=5, transpose_b=True, batch=2, stride_a=12, stride_c=15
    )
    plan = Plan(graph=None, buffers=buffers, launches=(Launch((item,), "product"),), commit=1)
    (c,) = run_plan(plan, [a, b], {})
    np.testing.assert_allclose(c, a @ b.T, rtol=1e-5)
    with pytest.raises(VerifyError, match=r"a matrix of a product ends behind output buffer 2 \(b2\)"):
        run_plan(replace(plan, launches=(Launch((replace(item, stride_c=16),), "product"),)), [a, b], {})


def broken(change) -> Plan:
    plan = step()
    return replace(plan, **change(plan))


def with_launch(position, launch):
    return lambda plan: {"launches": (*plan.launches[:position], launch, *plan.launches[position + 1 :])}


def copy(source, target, n=12):
    return KernelItem(ACTIVATE, (source, target), (n,), n)


BROKEN = {
    r"writes state buffer 1 \(b1\) before the checks are tested": lambda plan: {"commit": 4},
    r"'product' reads arena buffer 4 \(b4\) before it is written": with_launch(0, Launch((copy(4, 2),), "product")),
    r"'tanh' writes input buffer 0 \(b0\), which is not the plan's": with_launch(1, Launch((copy(2, 0, 6),), "tanh")),
    r"launch 'tanh': one item reads output buffer 3 \(b3\), another writes": lambda plan: with_launch(
        1, Launch((*plan.launches[1].items, copy(3, 4)), "tanh")
    )(plan),
    "'check' checks something after state may have changed": lambda plan: {"commit": 2},
    "the item's extent is 7": with_launch(1, Launch((KernelItem(ACTIVATE, (2, 3), (BATCH * 4,), 7),), "tanh")),
    "index 8 of x is out of bounds": with_launch(1, Launch((KernelItem(ACTIVATE, (2, 3), (9,), 9),), "tanh")),
    r"output buffer 3 \(b3\) is never written": lambda plan: {"launches": plan.launches[:1], "commit": 1},
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_plan_is_held_to_its_rules(message):
    plan = broken(BROKEN[message])
    before = plan.parameters[0].value
    with pytest.raises(VerifyError, match=message):
        run_plan(plan, [f32(2, 3)], {"batch": 2})
    assert np.array_equal(plan.parameters[0].value, before)


def test_arrays_must_be_of_the_plans_types():
    with pytest.raises(VerifyError, match=r"input buffer 0 \(b0\) is f32\[batch, 3\], its array is float64\[2, 3\]"):
        run_plan(step(), [np.zeros((2, 3))], {"batch": 2})


def test_the_smallest_check_is_reported():
    plan = step()
    two = Launch(
        (
            KernelItem(CHECK, (0,), (6,), 6, check_base=8),
            KernelItem(CHECK, (0,), (6,), 6, check_base=2),
            KernelItem(CHECK, (0,), (6,), 6, check_base=4),
        ),
        "checks",
    )
    plan = replace(plan, launches=(two, *plan.launches), commit=4)
    with pytest.raises(CheckFailed, match="check 3 failed with 0"):
        run_plan(plan, [np.full((2, 3), np.inf, np.float32)], {"batch": 2})
