"""Products of one row, which are sums that read a matrix in the order in which it lies."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.plan import GemmItem, KernelItem
from graphc.lower.rows import SHORTEST
from tests.lower.judge import judge
from tests.lower.test_update import judge as judge_loop


def product(rows=1, length=96, columns=40, dtype="float32", by_columns=True):
    x = gx.placeholder("x", (rows, length), dtype)
    w = gx.placeholder("w", (columns, length) if by_columns else (length, columns), dtype)
    return x @ (gx.transpose(w) if by_columns else w), x, w


def given(*leaves):
    random = np.random.default_rng(0)
    return {leaf: random.standard_normal(leaf.shape).astype(leaf.dtype.numpy) for leaf in leaves}


def products_of(plan):
    return [item for launch in plan.launches for item in launch.items if isinstance(item, GemmItem)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_added_is_part_of_it(dtype):
    y, x, w = product(dtype=dtype)
    b, r = gx.placeholder("b", (40,), dtype), gx.placeholder("r", (1, 40), dtype)
    plan = judge({"y": y + b + r}, given(x, w, b, r))
    assert len(plan.launches) == 1
    (item,) = plan.launches[0].items
    assert isinstance(item, KernelItem)
    assert item.extent == 40


def test_what_is_dear_is_computed_of_many_at_a_time():
    y, x, w = product()
    plan = judge({"y": gx.tanh(y)}, given(x, w))
    assert [len(launch.items) for launch in plan.launches] == [1, 1]
    assert not products_of(plan)


@pytest.mark.parametrize(
    "said", [{"rows": 2}, {"by_columns": False}, {"length": SHORTEST - 1}, {"rows": 2, "by_columns": False}]
)
def test_others_stay_products(said):
    y, x, w = product(**said)
    assert len(products_of(judge({"y": y}, given(x, w)))) == 1


def test_rows_of_higher_rank_and_sizes_that_are_open():
    x, w = gx.placeholder("x", (1, 1, 70)), gx.placeholder("w", ("n", 70))
    assert not products_of(judge({"y": x @ gx.transpose(w)}, {x: np.ones((1, 1, 70), np.float32),
                                 w: np.arange(210, dtype=np.float32).reshape(3, 70)}))  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3])
def test_a_loop_reads_a_transposed_matrix_where_it_lies(rows):
    """For several rows it is turned once, before the loop; for one row it is not."""
    h, w = gx.placeholder("h", (rows, 80)), gx.placeholder("w", (80, 80))
    last, sums = gx.scan(lambda c, _: ((c @ gx.transpose(w)) * 0.1, gx.sum(c)), h, length=3)
    plan = judge_loop({"last": last, "sums": sums}, given(h, w))
    (loop,) = plan.loops
    before = [item for launch in plan.launches[: loop.first] for item in launch.items]
    copied = (80, 80) in [plan.buffers[item.buffers[-1]].type.shape for item in before]
    assert copied is (rows > 1)


def test_what_others_read_transposed_is_copied_once():
    h, w = gx.placeholder("h", (1, 80)), gx.placeholder("w", (80, 80))
    turned = gx.transpose(w)
    last, sums = gx.scan(lambda c, _: ((c @ turned) * 0.1, gx.sum(gx.maximum(turned, c))), h, length=3)
    judge_loop({"last": last, "sums": sums}, given(h, w))
