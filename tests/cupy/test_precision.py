"""Mixed precision on a GPU: products read 16-bit floats as they are, and memory holds 16 bits between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from graphc.backends.cupy import CupyBackend
from graphc.backends.cupy.halves import read_halves
from graphc.backends.cupy.narrow import copied, copies, narrow_kernel, rounded_type, stored_types, without_store
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.ir.types import DType
from graphc.loops.kernel import Access, Apply, Buffer, Const, Expr, For, Kernel, Let, Load, LoopKind, Store, Var
from graphc.loops.verify import verify_kernel
from graphc.lower.plan import GemmItem, KernelItem, Plan
from graphc.optimizers import SGD, LossScaleOptimizer
from tests.cupy.emulated_device import EmulatedDevice

BF16, F16, F32 = DType.bfloat16, DType.float16, DType.float32


def mlp() -> Model:
    return Sequential([Input((12,)), layers.Dense(16, activation="gelu"), layers.Dropout(0.2), layers.Dense(3)])


def lstm() -> Model:
    both = [layers.LSTM(8, return_sequences=True), layers.LSTM(8)]
    return Sequential([Input((12,)), layers.Reshape((3, 4)), *both, layers.Dense(3)])


def transformer() -> Model:
    x = Input((12,))
    h = layers.Dense(8)(layers.Reshape((3, 4))(x))
    h = layers.LayerNormalization()(layers.Add()([h, layers.MultiHeadAttention(2, 4)(h, h)]))
    return Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(h)))


MODELS = {"mlp": mlp, "lstm": lstm, "transformer": transformer}


def trained(make, precision: str, backend: Any, steps: int = 3, optimizer=None) -> tuple[Model, list[float]]:
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    model = make()
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or SGD(0.1), loss, precision=precision, backend=backend)
    x, y = rng.standard_normal((8, 12)).astype(np.float32), rng.integers(0, 3, 8)
    return model, [model.train_on_batch(x, y) for _ in range(steps)]


def products(plan: Plan) -> list[tuple[DType, DType]]:
    items = [item for launch in plan.launches for item in launch.items if isinstance(item, GemmItem)]
    return [(item.dtype, plan.buffers[item.c].type.dtype) for item in items]


@pytest.mark.parametrize("name", MODELS)
def test_training_is_that_of_the_cpu_and_all_products_read_16_bits(gpu, name):
    model, found = trained(MODELS[name], "mixed_bfloat16", gpu)
    wanted_of, wanted = trained(MODELS[name], "mixed_bfloat16", "reference")
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    for one, other in zip(model.get_weights(), wanted_of.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-2 * max(np.abs(other).max(), 0.1))
    executable = model.programs["train"].executable
    kinds = products(executable.plan)
    assert {of for of, _ in kinds} == {BF16}
    assert {to for _, to in kinds} == {BF16, F32}  # what other products read, and gradients of weights
    if name != "transformer":
        before = model.programs["train"].plan
        assert kernels(executable.plan) < kernels(before)


def kernels(plan: Plan) -> int:
    return sum(isinstance(item, KernelItem) for launch in plan.launches for item in launch.items)


def test_float16_scales_its_loss_and_leaves_out_a_step_that_overflows(gpu):
    optimizer = LossScaleOptimizer(SGD(0.1), initial_scale=64.0, dynamic_growth_steps=2)
    model, found = trained(mlp, "mixed_float16", gpu, 2, optimizer)
    np.testing.assert_allclose(found, trained(mlp, "float32", "reference", 2)[1], rtol=1e-2)
    assert {of for of, _ in products(model.programs["train"].executable.plan)} == {F16}
    assert float(optimizer.dynamic_scale.value) == 128.0
    before = model.get_weights()
    model.train_on_batch(np.full((8, 12), 1e30, np.float32), np.zeros(8, np.int64))
    assert float(optimizer.dynamic_scale.value) == 64.0
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tf32_is_asked_for_by_program_or_by_backend(gpu):
    x = gx.placeholder("x", (4, 8))
    w = gx.parameter("w", np.ones((8, 8), np.float32))
    asked = {name: gx.compile({"y": x @ w}, [x], backend=gpu, precision=name).executable for name in ("tf32", None)}
    assert (asked["tf32"].tf32, asked[None].tf32) == (True, False)
    own = CupyBackend(tf32=True, device=gpu.device)
    assert gx.compile({"y": x @ w}, [x], backend=own).executable.tf32


@pytest.mark.parametrize(("arch", "name"), [("sm_80", "mlp"), ("sm_90", "lstm")])
def test_nvrtc_compiles_them(arch, name):
    backend = CupyBackend(device=EmulatedDevice())
    unit = trained(MODELS[name], "mixed_bfloat16", backend, 1)[0].programs["train"].executable.unit
    assert compile_cubin(unit.source, arch).code.startswith(b"\x7fELF")


# the kernels


def kernel(value: Expr, reads: DType, writes: DType) -> Kernel:
    """One that stores something of what it loads."""
    i, n = Var("i0", DType.int64), Var("n0", DType.int64)
    load = Let(Var("v0", reads), Load("b0", i, reads))
    body = (For("i0", Const(0, DType.int64), n, LoopKind.PARALLEL, (load, Store("b1", i, value))),)
    buffers = (Buffer("b0", reads, Access.READ), Buffer("b1", writes, Access.WRITE))
    return Kernel("k", buffers, ("n0",), n, body)


V32, V16 = Var("v0", F32), Var("v0", BF16)
DOUBLED = Apply("add", (V32, V32), F32)
WIDENS = kernel(Apply("cast", (V16,), F32), BF16, F32)
ROUNDS = kernel(Apply("cast", (V32,), BF16), F32, BF16)
DOUBLES = kernel(DOUBLED, F32, F32)
ROUNDS_DOUBLED = kernel(Apply("cast", (DOUBLED,), BF16), F32, BF16)


def test_what_kernels_hold_and_round():
    assert stored_types(WIDENS, "b1", {}) == {BF16}
    assert stored_types(DOUBLES, "b1", {}) == {F32}
    assert stored_types(kernel(V32, F32, F32), "b1", {"b0": BF16}) == {BF16}
    assert stored_types(kernel(Const(0.0, F32), F32, F32), "b1", {}) == set()
    assert rounded_type(ROUNDS, "b0") is BF16
    assert rounded_type(ROUNDS_DOUBLED, "b0") is None
    assert [copies(k) for k in (WIDENS, ROUNDS, DOUBLES, kernel(V32, F32, F32))] == [False, False, False, True]


@pytest.mark.parametrize("given", [WIDENS, ROUNDS, DOUBLES, ROUNDS_DOUBLED])
def test_narrowed_kernels_are_kernels(given):
    types = {buffer.name: BF16 for buffer in given.buffers if buffer.dtype is F32}
    made = narrow_kernel(given, types)
    verify_kernel(made)
    assert {buffer.dtype for buffer in made.buffers} == {BF16}
    assert copies(made) is (given in (WIDENS, ROUNDS))


def test_what_a_kernel_copies_beside_its_work():
    i, n = Var("i", DType.int64), Var("n", DType.int64)
    sides = (Buffer("a", BF16, Access.READ), Buffer("b", BF16, Access.WRITE), Buffer("c", F32, Access.WRITE))
    wide = Let(Var("v", F32), Apply("cast", (Load("a", i, BF16),), F32))

    def kernel(*stores: Store) -> Kernel:
        body = (For("i", Const(0, DType.int64), n, LoopKind.PARALLEL, (wide, *stores)),)
        return Kernel("k", sides, ("n",), n, body)

    same, other = Store("b", i, Load("a", i, BF16)), Store("b", i, Load("a", Const(0, DType.int64), BF16))
    result = Store("c", i, Var("v", F32))
    both = kernel(same, result)
    verify_kernel(both)
    assert copied(both) == [("a", "b")]
    assert copied(kernel(other, result)) == copied(kernel(same, same, result)) == []
    rest = without_store(both, "b")
    verify_kernel(rest)
    assert [buffer.name for buffer in rest.buffers] == ["a", "c"]
    assert rest.body[0].body == (wide, result)


@pytest.mark.parametrize("kept", [False, True])
def test_a_product_is_not_copied_by_who_sums_it_up(gpu, kept):
    """A normalization over a batch reads the product twice; the kernel that sums it up writes no copy of it.

    If the copy is an output, it stays.
    """
    x, w = gx.placeholder("x", (40, 6)), gx.parameter("w", np.random.default_rng(0).standard_normal((6, 8), np.float32))
    product = gx.cast(x, "bfloat16") @ gx.cast(w, "bfloat16")
    y = gx.cast(product, "float32")
    mean, square = gx.mean(y, axis=0), gx.mean(y * y, axis=0)
    outputs = {"z": (y - mean) * gx.rsqrt(square - mean * mean + 1e-3)} | ({"product": product} if kept else {})
    on_gpu, on_cpu = (gx.compile(outputs, [x], backend=backend) for backend in (gpu, "reference"))
    feeds = {"x": np.random.default_rng(1).standard_normal((40, 6), np.float32)}
    for found, right in zip(on_gpu(**feeds).values(), on_cpu(**feeds).values(), strict=True):
        np.testing.assert_allclose(found.astype(np.float32), right.astype(np.float32), rtol=2e-2, atol=2e-2)
    plan = on_gpu.executable.plan
    items = [item for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)]
    copying = [copied(item.kernel) for item in items if len(item.buffers) > 2]
    assert any(copying) == kept
    (result,) = {
        plan.buffers[item.c].type.dtype for launch in plan.launches for item in launch.items if item not in items
    }
    assert result is BF16


def test_a_plan_without_halves_is_left():
    x = gx.placeholder("x", ("n", 4))
    plan = gx.compile({"y": gx.exp(x)}, [x], backend="numba").plan
    assert read_halves(plan) is plan


def test_weights_of_a_prediction_are_rounded_once_and_stay_in_16_bits(gpu):
    x = gx.placeholder("x", (4, 8))
    w = gx.parameter("w", np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32))
    program = gx.compile({"y": gx.relu(x @ w) @ gx.transpose(w)}, [x], backend=gpu, precision="mixed_bfloat16")
    plan = program.executable.plan
    assert {of for of, _ in products(plan)} == {BF16}
    assert [parameter.dtype for parameter in plan.parameters] == [BF16]
    data = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)
    exact = gx.compile({"y": gx.relu(x @ w) @ gx.transpose(w)}, [x], backend="reference")
    for factor in (1.0, 2.0):
        w.value = w.value * np.float32(factor)
        wanted = exact(x=data)["y"]
        np.testing.assert_allclose(program(x=data)["y"], wanted, rtol=0, atol=0.02 * np.abs(wanted).max())
