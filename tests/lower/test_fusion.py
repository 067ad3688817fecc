"""Which kernels are one: what is left of a normalization's gradients, and sums of columns that read the same."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.lower.plan import KernelItem, Place, Plan
from tests.lower.judge import judge

RNG = np.random.default_rng(0)


def kernel_names(plan: Plan) -> list[str]:
    return [item.kernel.name for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)]


def normalized(x: gx.Node, scale: gx.Node, shift: gx.Node) -> gx.Node:
    share = 1.0 / int(x.shape[-1])
    centred = x - gx.sum(x, axis=-1, keepdims=True) * share
    return centred * gx.rsqrt(gx.sum(centred * centred, axis=-1, keepdims=True) * share + 1e-5) * scale + shift


@pytest.mark.parametrize("shape", [(7, 32), (3, 4, 32)])
def test_gradients_of_a_normalization_are_a_kernel_of_rows_and_one_of_columns(shape):
    """What depends on a row's means joins the kernel that takes them, and not the sum for the next bias."""
    wide, arrays = ("n", *shape[1:]), {name: RNG.standard_normal(shape).astype(np.float32) for name in "xrg"}
    x, rest, g = (gx.placeholder(name, wide) for name in "xrg")
    scale, shift = (gx.placeholder(name, (shape[-1],)) for name in ("scale", "shift"))
    given = {node: arrays[str(node.name)] for node in (x, rest, g)}
    given |= {node: RNG.standard_normal(shape[-1]).astype(np.float32) for node in (scale, shift)}
    dx, dscale, dshift = gx.vjp([normalized(x, scale, shift)], [x, scale, shift], [g])
    down = rest + dx
    bias = gx.sum(down, axis=tuple(range(len(shape) - 1)))
    outputs = {"down": down, "product": down * 2.0, "bias": bias, "dscale": dscale, "dshift": dshift}
    plan = judge(outputs, given, rtol=1e-4, atol=1e-4)
    rows, *columns = kernel_names(plan)
    assert rows.endswith("negative")
    assert sorted(columns) == ["multiply_sum", "sum"]  # scale and shift; the bias
    inside = [buffer.type.shape for buffer in plan.buffers if buffer.place is Place.ARENA]
    assert [size for size in inside if size[-1:] == shape[-1:] and len(size) > 1] == [x.shape]  # what is normalized


def test_sums_of_columns_that_read_the_same_are_one_kernel():
    x, y = gx.placeholder("x", ("n", 6)), gx.placeholder("y", ("n", 6))
    arrays = {node: RNG.standard_normal((5, 6)).astype(np.float32) for node in (x, y)}
    outputs = {"a": gx.sum(x, axis=0), "b": gx.sum(x * y, axis=0), "c": gx.max(y, axis=0)}
    assert len(kernel_names(judge(outputs, arrays))) == 1


def test_sums_of_columns_stay_apart_where_loops_differ_or_one_needs_the_other():
    x, y = gx.placeholder("x", ("n", 6)), gx.placeholder("y", (6, 6))
    arrays = {x: RNG.standard_normal((5, 6)).astype(np.float32), y: RNG.standard_normal((6, 6)).astype(np.float32)}
    total = gx.sum(x, axis=0)
    centred = x - total / 5.0
    assert len(kernel_names(judge({"total": total, "squares": gx.sum(centred * centred, axis=0)}, {x: arrays[x]}))) == 2
    turned = {"down": gx.sum(y, axis=0), "across": gx.sum(gx.transpose(y), axis=0)}
    assert len(kernel_names(judge(turned, {y: arrays[y]}))) == 2


def test_the_mean_of_all_logarithms_is_taken_where_rows_are_made():
    """As with smoothed labels: nothing of the size of all scores is in memory but the weights that are asked for."""
    x = gx.placeholder("x", ("n", 4, 32))
    moved = x - gx.max(x, axis=-1, keepdims=True)
    powers = gx.exp(moved)
    total = gx.sum(powers, axis=-1, keepdims=True)
    outputs = {"all": gx.sum(moved - gx.log(total)), "weights": powers / total}
    plan = judge(outputs, {x: RNG.standard_normal((3, 4, 32)).astype(np.float32)}, rtol=1e-4)
    assert len(kernel_names(plan)) == 2
    assert all(buffer.type.size != x.type.size for buffer in plan.buffers if buffer.place is Place.ARENA)
