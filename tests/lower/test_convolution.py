"""Convolutions as items of a plan: taken whole where a backend asks for it, and what the interpreter makes of them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.dims import evaluate
from graphc.ir.graph import make_graph
from graphc.lower.interpret import run_plan
from graphc.lower.lowering import lower
from graphc.lower.plan import ConvolutionItem, Place, Plan, Sought
from tests.lower.judge import judge


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def convolutions(plan: Plan) -> list[ConvolutionItem]:
    return [item for launch in plan.launches for item in launch.items if isinstance(item, ConvolutionItem)]


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize(
    ("sizes", "window", "strides", "dilations", "padding", "groups"),
    [
        ((9, 8), (3, 2), (2, 1), (1, 2), ((1, 0), (2, 1)), 1),
        ((7,), (3,), (2,), (1,), ((0, 2),), 2),
        ((4, 5, 3), (2, 1, 3), (1, 2, 1), (1, 1, 1), ((0, 0), (1, 0), (1, 1)), 1),
    ],
)
def test_the_three_products_are_one_item_each(batch, sizes, window, strides, dilations, padding, groups):
    x, kernel = gx.placeholder("x", ("batch", *sizes, 4)), gx.placeholder("k", (*window, 4 // groups, 6))
    y = gx.conv(x, kernel, strides, padding, dilations, groups)
    dx, dk = gx.grad(gx.sum(y * y), [x, kernel])
    given = {x: f32(batch, *sizes, 4), kernel: f32(*window, 4 // groups, 6)}
    items = convolutions(judge({"y": y, "dx": dx, "dk": dk}, given, rtol=1e-4, atol=1e-4))
    assert {item.sought for item in items} == set(Sought)
    assert len(items) == 3
    for item in items:
        assert (item.sizes, item.counts) == (x.shape[1:-1], y.shape[1:-1])
        assert (item.channels, item.filters, item.groups) == (4, 6, groups)
        assert (item.window, item.strides, item.dilations) == (window, strides, dilations)
        assert item.low == tuple(low for low, _ in padding)
        whole = batch * int(np.prod(y.shape[1:-1]) * np.prod(window)) * (4 // groups) * 6
        assert evaluate(item.multiplications, {"batch": batch}) == whole


def test_operands_lie_densely_in_buffers():
    """A transposed operand and a constant are copied; a reshaped one is read where it is, by both."""
    x, kernel = gx.placeholder("x", (2, 3, 5, 5)), gx.placeholder("k", (9, 6))
    y = gx.conv(gx.transpose(x, (0, 2, 3, 1)), gx.reshape(kernel, (1, 3, 3, 6)))
    z = gx.conv(gx.ones((1, 4, 3)), gx.reshape(kernel, (3, 3, 6)))
    plan = judge({"y": y, "z": z}, {x: f32(2, 3, 5, 5), kernel: f32(9, 6)}, rtol=1e-4)
    items = convolutions(plan)
    assert len({item.b for item in items}) == 1
    assert plan.buffers[items[0].b].place is Place.INPUT
    assert all(plan.buffers[item.a].place is Place.ARENA for item in items)


def test_a_convolution_in_a_loop_is_an_item_of_its_step():
    x, kernel = gx.placeholder("x", (3, 2, 6, 4)), gx.placeholder("k", (3, 4, 4))
    last, _ = gx.scan(lambda h, now: (gx.tanh(h + gx.conv(now, kernel, padding="same")),) * 2, gx.zeros((2, 6, 4)), x)
    plan = lower(make_graph({"y": last}, [x, kernel]))
    (item,) = convolutions(plan)
    (loop,) = plan.loops
    (position,) = [at for at, launch in enumerate(plan.launches) if item in launch.items]
    assert loop.first <= position < loop.end
    given = [f32(3, 2, 6, 4), f32(3, 4, 4)]
    wanted = gx.compile({"y": last}, [x, kernel], backend="reference")(x=given[0], k=given[1])["y"]
    np.testing.assert_allclose(run_plan(plan, given, {})[0], wanted, rtol=1e-4, atol=1e-5)
