"""Products of patches: what is one item, where its elements lie, and that nothing is copied side by side."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.numba import get_threads, set_threads
from graphc.errors import VerifyError
from graphc.ir.dims import evaluate
from graphc.ir.node import apply
from graphc.lower.interpret import run_plan
from graphc.lower.patches import CACHE_BYTES
from graphc.lower.plan import Axis, ContractionItem, KernelItem, Plan
from graphc.ops.patches import PatchGradient, PatchProduct
from tests.lower.judge import judge


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def products(plan: Plan) -> list[ContractionItem]:
    return [item for launch in plan.launches for item in launch.items if isinstance(item, ContractionItem)]


GEOMETRIES = [
    ((3, 3), (1, 1), (1, 1)), ((2, 3), (2, 1), (1, 1)), ((3, 2), (1, 2), (2, 3)), ((1, 1), (2, 2), (1, 1)),
    ((3,), (1,), (1,)), ((2,), (3,), (2,)),
]  # fmt: skip


@pytest.mark.parametrize(("window", "strides", "dilations"), GEOMETRIES)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_contractions_are_what_the_reference_says(window, strides, dilations, batch):
    sizes = (9, 8)[: len(window)]
    x, kernel = gx.placeholder("x", ("batch", *sizes, 3)), gx.placeholder("k", (*window, 3, 5))
    product = apply(PatchProduct(strides, dilations), x, kernel)
    gradient = apply(PatchGradient(strides, dilations, window), x, product)
    plan = judge({"y": product, "d": gradient}, {x: f32(batch, *sizes, 3), kernel: f32(*window, 3, 5)}, rtol=1e-4)
    assert len(products(plan)) == 2


def test_sums_run_over_rows_of_patches_and_channels_at_once():
    x, kernel = gx.placeholder("x", ("batch", 8, 8, 4)), gx.placeholder("k", (3, 3, 4, 6))
    step = gx.compile({"y": gx.conv(x, kernel, padding="same")}, inputs=[x, kernel], backend="numba")
    (item,) = products(step.plan)
    assert item.sums == (Axis(3, 10 * 4, 3 * 4 * 6), Axis(1, 4, 4 * 6), Axis(3 * 4, 1, 6))
    assert (item.rows, item.columns) == (Axis(8, 4, 0, 6), 6)
    assert evaluate(item.multiplications, {"batch": 2}) == 2 * 64 * 9 * 4 * 6


def test_a_convolution_and_its_derivatives_are_products_without_loops():
    x, kernel = gx.placeholder("x", ("batch", 16, 16, 8)), gx.parameter("k", f32(3, 3, 8, 8))
    y = gx.conv(x, kernel, padding="same")
    dx, dk = gx.grad(gx.sum(y * y), [x, kernel])
    step = gx.compile({"dx": dx, "dk": dk}, inputs=[x], backend="numba")
    assert step.plan.loops == ()
    assert len(products(step.plan)) == 3
    # x and dy with zeros around them, y or dy, the kernel backwards, sums of parts: no patch has a copy
    batch = 8
    padded, plain = (4 * batch * size * size * 8 for size in (18, 16))
    assert step.memory(batch=batch).peak_bytes < 2 * padded + 2 * plain < 4 * batch * 16 * 16 * 9 * 8


def test_a_convolution_without_padding_needs_no_memory():
    x, kernel = gx.placeholder("x", ("batch", 16, 16, 8)), gx.placeholder("k", (3, 3, 8, 8))
    step = gx.compile({"y": gx.conv(x, kernel)}, inputs=[x, kernel], backend="numba")
    assert step.memory(batch=64).peak_bytes == 0


def test_the_transpose_of_a_strided_convolution_is_one_product_for_each_phase():
    g, kernel = gx.placeholder("g", ("batch", 4, 4, 8)), gx.placeholder("k", (3, 3, 6, 8))
    y = gx.conv_transpose(g, kernel, 2, padding="same")
    step = gx.compile({"y": y}, inputs=[g, kernel], backend="numba")
    whole = sum(evaluate(item.multiplications, {"batch": 1}) for item in products(step.plan))
    assert len(products(step.plan)) == 4
    assert whole == 4 * 4 * 9 * 8 * 6  # as many as the convolution has, none with a zero between


def test_gradients_are_summed_in_parts_that_depend_on_sizes_alone():
    x, g = gx.placeholder("x", ("batch", 34, 34, 16)), gx.placeholder("g", ("batch", 32, 32, 16))
    gradient = apply(PatchGradient((1, 1), (1, 1), (3, 3)), x, g)
    step = gx.compile({"d": gradient}, inputs=[x, g], backend="numba")
    (item,) = products(step.plan)
    images = item.sums[0].count
    assert images == CACHE_BYTES // (4 * 16 * (34 * 34 + 32 * 32))
    assert evaluate(item.outer[0].count, {"batch": 10}) == -(-10 // images)
    given = {"x": f32(10, 34, 34, 16), "g": f32(10, 32, 32, 16)}
    threads = get_threads()
    results = []
    try:
        for count in (1, 2):
            set_threads(count)
            results.append(step(**given)["d"])
    finally:
        set_threads(threads)
    np.testing.assert_array_equal(*results)


def test_operands_that_do_not_lie_in_order_are_copied():
    x, kernel = gx.placeholder("x", ("batch", 3, 8, 8)), gx.placeholder("k", (5, 3, 3, 3))
    y = apply(PatchProduct((1, 1), (1, 1)), gx.transpose(x, (0, 2, 3, 1)), gx.transpose(kernel, (2, 3, 1, 0)))
    plan = judge({"y": y}, {x: f32(2, 3, 8, 8), kernel: f32(5, 3, 3, 3)}, rtol=1e-4)
    copies = [item for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)]
    assert len(copies) == 2


def test_products_that_end_behind_their_operands_are_found():
    x, kernel = gx.placeholder("x", (1, 4, 1)), gx.placeholder("k", (2, 1, 1))
    plan = judge({"y": apply(PatchProduct((1,), (1,)), x, kernel)}, {x: f32(1, 4, 1), kernel: f32(2, 1, 1)})
    (item,) = products(plan)
    object.__setattr__(item, "rows", Axis(3, 2, 0, 1))
    with pytest.raises(VerifyError, match="ends behind"):
        run_plan(plan, [f32(1, 4, 1), f32(2, 1, 1)], {})
