"""Convolutions by Winograd's products: where they are chosen, what they read and write, and how exact they are."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.numba import NumbaBackend, get_threads, set_threads
from graphc.backends.numba.winograd import BLOCK, slots
from graphc.ir.dims import evaluate
from graphc.ir.node import Input, apply
from graphc.lower.plan import ContractionItem, KernelItem, Plan, WinogradItem
from graphc.ops.winograd import WinogradProduct, winograd_kernel
from tests.lower.judge import judge

DIRECT = NumbaBackend(winograd=False)


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def products(plan: Plan, kind: type = WinogradItem) -> list:
    return [item for launch in plan.launches for item in launch.items if isinstance(item, kind)]


def exact(x: np.ndarray, kernel: np.ndarray, padding: int = 1, dtype: type = np.float64) -> np.ndarray:
    x = np.pad(x.astype(dtype), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return np.tensordot(windows, kernel.astype(dtype), ((4, 5, 3), (0, 1, 2)))


def chosen(x, kernel, updates=None, **how) -> bool:
    y = gx.conv(x, kernel, **how)
    inputs = [node for node in (x, kernel) if isinstance(node.op, Input)]
    return bool(products(gx.compile({"y": y}, inputs=inputs, updates=updates and {kernel: updates(y)}).plan))


# the choice


def test_it_is_chosen_for_kernels_that_stay_as_they_are():
    x, kernel = gx.placeholder("x", ("batch", 8, 8, 16)), gx.parameter("k", f32(3, 3, 16, 32))
    assert chosen(x, kernel, padding="same")
    assert chosen(x, 2 * kernel, padding="same")  # a folded normalization
    assert chosen(x, gx.constant(f32(3, 3, 16, 32)))
    assert not chosen(x, gx.placeholder("k", (3, 3, 16, 32)))
    assert not chosen(x, kernel, updates=lambda y: kernel - gx.mean(y), padding="same")


@pytest.mark.parametrize(
    ("size", "window", "channels", "filters", "how"),
    [
        (8, 3, 16, 32, {"strides": 2}),
        (8, 3, 16, 32, {"dilations": 2}),
        (8, 3, 32, 32, {"groups": 2}),
        (8, 5, 16, 32, {}),
        (8, 3, 8, 32, {}),  # the transforms would take most of the time
        (8, 3, 16, 16, {}),  # half of a panel
        (1, 3, 16, 32, {}),  # four results are computed for one
        (3, 3, 16, 32, {}),
    ],
)
def test_it_is_not_chosen_where_it_does_not_hold_or_pay(size, window, channels, filters, how):
    x = gx.placeholder("x", ("batch", size, size, channels))
    kernel = gx.parameter("k", f32(window, window, channels // how.get("groups", 1), filters))
    assert not chosen(x, kernel, padding="same", **how)


def test_it_is_for_float32_and_backends_that_take_it():
    x, kernel = gx.placeholder("x", ("batch", 8, 8, 16), "float64"), gx.parameter("k", f32(3, 3, 16, 32).astype(float))
    assert not chosen(x, kernel)
    x, kernel = gx.placeholder("x", ("batch", 8, 8, 16)), gx.parameter("k", f32(3, 3, 16, 32))
    y = gx.conv(x, kernel)
    for backend in (DIRECT, "reference"):
        assert not any(
            "winograd" in node.op.name for node in gx.compile({"y": y}, [x], backend=backend).plan.graph.nodes
        )
    assert len(products(gx.compile({"y": y}, [x], backend=DIRECT).plan, ContractionItem)) == 1


def test_kept_plans_tell_backends_with_and_without_it_apart():
    assert NumbaBackend().plan_key() != DIRECT.plan_key()


def test_halves_are_widened_before_and_rounded_behind_it():
    x, kernel = gx.placeholder("x", ("batch", 6, 6, 16), "bfloat16"), gx.parameter("k", f32(3, 3, 16, 32), "bfloat16")
    y = gx.conv(x, kernel, padding="same")
    step, plain = gx.compile({"y": y}, inputs=[x]), gx.compile({"y": y}, inputs=[x], backend="reference")
    assert products(step.plan)
    given = f32(2, 6, 6, 16).astype(x.dtype.numpy)
    found, wanted = (program(x=given)["y"].astype(np.float32) for program in (step, plain))
    np.testing.assert_allclose(found, wanted, rtol=2**-7, atol=1e-3)


def test_frozen_kernels_have_it_in_both_directions_of_a_training_step():
    x, w = gx.placeholder("x", ("batch", 8, 8, 32)), gx.parameter("w", f32(3, 3, 32, 32))
    frozen, head = gx.parameter("k", f32(3, 3, 32, 32)), gx.parameter("h", f32(3, 3, 32, 32))
    loss = gx.mean(gx.conv(gx.relu(gx.conv(gx.conv(x, w), frozen, padding="same")), head))
    dw, dh = gx.grad(loss, [w, head])
    step = gx.compile({"loss": loss}, inputs=[x], updates={w: w - dw, head: head - dh}, training=True)
    assert len(products(step.plan)) == 2  # the frozen one and its derivative by x
    assert len(products(step.plan, ContractionItem)) == 5


def test_the_kernel_is_the_parameters_present_value():
    x, kernel = gx.placeholder("x", ("batch", 6, 6, 16)), gx.parameter("k", f32(3, 3, 16, 32))
    step = gx.compile({"y": gx.conv(x, kernel)}, inputs=[x])
    for seed in (1, 2):
        kernel.value = f32(3, 3, 16, 32, seed=seed)
        given = f32(2, 6, 6, 16, seed=seed)
        np.testing.assert_allclose(step(x=given)["y"], exact(given, kernel.value, 0), rtol=1e-3, atol=1e-4)


# the plan


def test_zeros_around_an_image_are_never_written():
    x, kernel = gx.placeholder("x", ("batch", "height", "width", 16)), gx.parameter("k", f32(3, 3, 16, 64))
    step = gx.compile({"y": gx.conv(x, kernel, padding="same")}, inputs=[x])
    (item,) = products(step.plan)
    assert item.low == (1, 1)
    assert not any("pad" in item.kernel.name for item in products(step.plan, KernelItem))
    dims = {"batch": 2, "height": 7, "width": 4}
    assert evaluate(item.multiplications, dims) == 16 * 2 * 4 * 2 * 16 * 64
    assert "Winograd products, 0.524 MFLOP" in step.explain(**dims)
    assert "batch x height x width x 64, over 16" in step.text("plan")


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 1), (3, 1, 4), (0, 5, 5), (1, 60, 31)])
@pytest.mark.parametrize(("low", "high"), [((1, 1), (1, 1)), ((0, 3), (2, 0))])
def test_items_are_what_the_reference_says(shape, low, high):
    x, u = gx.placeholder("x", ("batch", "height", "width", 5)), gx.placeholder("u", (2, 16, 5, 32))
    y = apply(WinogradProduct(low, high, 33), x, u)
    plan = judge({"y": y}, {x: f32(*shape, 5), u: f32(2, 16, 5, 32)}, rtol=1e-4, atol=1e-4)
    assert len(products(plan)) == 1


def test_threads_and_slots_change_no_bit():
    x, kernel = gx.placeholder("x", ("batch", 12, 12, 16)), gx.parameter("k", f32(3, 3, 16, 160))
    other = gx.parameter("k", f32(3, 3, 16, 64))
    outputs = {"y": gx.conv(x, kernel, padding="same"), "z": gx.conv(x, other)}  # in one launch, with the same slots
    given = f32(9, 12, 12, 16)
    threads, results = get_threads(), []
    try:
        for count in (1, 2, 5):
            set_threads(1)  # when sizes are bound: more threads than slots have to wait for each other
            step = gx.compile(outputs, inputs=[x])
            step(x=given)
            set_threads(count)
            results.append(step(x=given))
    finally:
        set_threads(threads)
    for result in results[1:]:
        for name in outputs:
            np.testing.assert_array_equal(results[0][name], result[name])
    np.testing.assert_allclose(results[0]["y"], exact(given, kernel.value), rtol=1e-3, atol=1e-4)


def test_a_slot_holds_a_block_and_there_are_no_more_than_units():
    x, kernel = gx.placeholder("x", ("batch", 4, 4, 16)), gx.parameter("k", f32(3, 3, 16, 32))
    plan = gx.compile({"y": gx.conv(x, kernel, padding="same")}, inputs=[x]).plan
    assert slots(plan, {"batch": 0}).count == 0
    assert slots(plan, {"batch": 1}).count == 1
    small, large, larger = (slots(plan, {"batch": batch}).bytes for batch in (1, BLOCK, 100 * BLOCK))
    assert small < large == larger < 16 * 4 * (BLOCK + 2) * (16 + 32)


# results


def data(kind: str, seed: int, size: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, size, size, channels))
    match kind:
        case "far from zero":
            x += 1000
        case "changing sign":
            x += 1000 * (-1.0) ** np.add.outer(np.arange(size), np.arange(size))[None, :, :, None]
        case "of many magnitudes":
            x *= 10 ** rng.uniform(-4, 4, x.shape)
        case _:
            pass
    return x.astype(np.float32)


@pytest.mark.parametrize(("size", "channels", "padding"), [(9, 16, 1), (4, 128, 1), (8, 17, 0)])
def test_errors_are_those_of_a_convolution(size, channels, padding):
    """At most four times that of NumPy's float32 plus a unit, over several draws, relative to the largest result."""
    x, kernel = gx.placeholder("x", ("batch", size, size, channels)), gx.parameter("k", f32(3, 3, channels, 60))
    step = gx.compile({"y": gx.conv(x, kernel, padding=((padding, padding),) * 2)}, inputs=[x])
    assert products(step.plan)
    for kind in ("normal", "far from zero", "changing sign", "of many magnitudes"):
        found = narrow = 0.0
        for seed in range(4):
            given = data(kind, seed, size, channels)
            kernel.value = f32(3, 3, channels, 60, seed=seed)
            truth = exact(given, kernel.value, padding)
            largest = np.abs(truth).max()
            found = max(found, np.abs(step(x=given)["y"] - truth).max() / largest)
            narrow = max(narrow, np.abs(exact(given, kernel.value, padding, np.float32) - truth).max() / largest)
        assert found <= 4 * narrow + np.spacing(np.float32(1)), kind


def test_infinities_spread_over_their_tile_and_can_be_kept_from_it():
    x, kernel = gx.placeholder("x", (1, 6, 6, 16)), gx.parameter("k", np.abs(f32(3, 3, 16, 32)))
    given = np.abs(f32(1, 6, 6, 16))
    y = gx.conv(x, kernel, padding="same")
    whole = gx.compile({"y": y}, [x])(x=given)["y"]
    given[0, 0, 0, 3] = np.inf  # tiles begin at 0, 2, 4; that of the first four results alone looks there
    tiles, direct = (gx.compile({"y": y}, [x], backend=backend)(x=given)["y"] for backend in (NumbaBackend(), DIRECT))
    assert not np.isfinite(tiles[0, :2, :2]).any()
    assert np.isposinf(direct[0, :2, :2]).all()
    assert np.isfinite(direct).sum() == np.isfinite(tiles).sum()
    np.testing.assert_array_equal(tiles[0, 2:], whole[0, 2:])


def test_a_kernel_of_zeros_around_one_element_moves_the_image():
    kernel = np.zeros((3, 3, 16, 48), np.float32)
    kernel[0, 2, :, :16] = np.eye(16)
    x, k = gx.placeholder("x", ("batch", 5, 6, 16)), gx.parameter("k", kernel)
    given = np.random.default_rng(0).integers(-99, 99, (2, 5, 6, 16)).astype(np.float32)
    y = gx.compile({"y": gx.conv(x, k, padding="same")}, inputs=[x])(x=given)["y"]
    wanted = np.zeros((2, 5, 6, 48), np.float32)
    wanted[:, 1:, :-1, :16] = given[:, :-1, 1:]
    np.testing.assert_array_equal(y, wanted)  # whole numbers and halves of them have no rounding


def test_the_transformed_kernel_is_its_formula():
    kernel = gx.parameter("k", f32(3, 3, 2, 33))
    u = gx.compile({"u": winograd_kernel(kernel)}, inputs=[])()["u"]
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    wanted = np.einsum("ai,bj,ijcf->abcf", g, g, kernel.value.astype(float)).reshape(16, 2, 33)
    assert u.shape == (2, 16, 2, 32)
    np.testing.assert_allclose(u[0], wanted[:, :, :32], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(u[1, :, :, :1], wanted[:, :, 32:], rtol=1e-5, atol=1e-6)
    assert not u[1, :, :, 1:].any()
