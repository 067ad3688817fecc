"""Rows of odd lengths that lie apart, so that products read them in vectors; what lies between them is never read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend, padded
from graphc.backends.cupy.padded import is_odd
from graphc.backends.cupy.rows import Rows, in_rows, walk_rows
from graphc.ir.types import DType
from graphc.loops.affine import index, int64
from graphc.loops.interp import run_kernel
from graphc.loops.kernel import Access, Apply, Buffer, Expr, For, Kernel, Let, Load, LoopKind, Store, Var
from graphc.loops.verify import verify_kernel
from graphc.lower.plan import GemmItem, Place, Plan
from tests.cupy.emulated_device import EmulatedDevice, HostMemory
from tests.cupy.test_products import PlanningDevice
from tests.spine.models import adam, batch, dense_parameters, perceptron

F32, BF16 = DType.float32, DType.bfloat16
SIZES = (24, 70, 101)


class NanDevice(EmulatedDevice):
    """Memory holds NaN until something is written there."""

    def allocate(self, nbytes: int, what: str) -> HostMemory:
        memory = super().allocate(nbytes, what)
        memory.data[:] = 0xFF
        return memory


def step(backend: Any, precision: str | None, rows: Any = "batch") -> gx.Program:
    """A perceptron's, with widths that no vector divides."""
    x, labels = gx.placeholder("x", (rows, SIZES[0])), gx.placeholder("labels", (rows,), "int64")
    parameters, count = dense_parameters(SIZES), gx.parameter("count", np.float32(0))
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, perceptron(x, parameters)))
    updates = adam(loss, parameters, count)
    return gx.compile({"loss": loss}, [x, labels], updates, backend=backend, training=True, precision=precision)


def products(plan: Plan) -> list[GemmItem]:
    return [item for launch in plan.launches for item in launch.items if isinstance(item, GemmItem)]


def distances(plan: Plan) -> dict[int, Any]:
    """Of the rows of operands, by their buffers."""
    pairs = [((item.a, item.lda), (item.b, item.ldb)) for item in products(plan)]
    return {index: distance for pair in pairs for index, distance in pair}


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "tf32"])
def test_training_with_odd_widths_is_that_of_the_reference(gpu, precision, monkeypatch):
    monkeypatch.setattr(padded, "WORTH_ROWS", 16)
    emulated = isinstance(gpu.device, EmulatedDevice)
    own = CupyBackend(device=NanDevice(shuffled=True)) if emulated else gpu
    programs = [step(own, precision), step("reference", precision)]
    feeds = batch(5, SIZES[0], SIZES[-1])
    for _ in range(3):
        found, wanted = (program(**feeds)["loss"] for program in programs)
        np.testing.assert_allclose(found, wanted, rtol=1e-5 if emulated and precision == "tf32" else 1e-2)
    plan = programs[0].executable.plan
    half = precision == "mixed_bfloat16"
    apart = {70: 72, 101: 104}
    for index_, distance in distances(plan).items():
        buffer = plan.buffers[index_]
        if buffer.place is Place.ARENA:
            assert distance in (24, *apart.values())
            assert buffer.type.shape[-1] == distance
        else:  # parameters and inputs, which are not worth a copy
            assert not half
            assert distance in (24, *apart)
    logits = [item for item in products(plan) if item.n == 101 and not item.transpose_a]
    assert [item.ldc for item in logits] == [104]  # softmax reads them where they are


@pytest.mark.parametrize(("rows", "distance"), [(8, 101), (300, 104), ("batch", 104)])
def test_only_what_is_multiplied_often_is_worth_it(rows, distance):
    plan = step(CupyBackend(device=PlanningDevice()), "mixed_bfloat16", rows).executable.plan
    weights = {item.b: item.ldb for item in products(plan) if plan.buffers[item.b].type.shape[0] == 70}
    assert set(weights.values()) == {distance}


def test_large_products_read_copies_of_parameters(monkeypatch):
    monkeypatch.setattr(padded, "WORTH_COPY", 20)
    monkeypatch.setattr(padded, "WORTH_ROWS", 20)
    rng = np.random.default_rng(0)
    data, *values = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 24), (24, 67), (67, 5)))
    x = gx.placeholder("x", data.shape)
    w, v = (gx.parameter(name, value) for name, value in zip("wv", values, strict=True))
    loss = gx.mean((gx.tanh(x @ w) @ v) ** 2)
    updates = {p: p - 0.1 * g for p, g in zip((w, v), gx.grad(loss, [w, v]), strict=True)}
    losses = []
    for backend in (CupyBackend(device=NanDevice(shuffled=True)), "reference"):
        w.value, v.value = values
        program = gx.compile({"loss": loss}, [x], updates, backend=backend, precision="tf32")
        losses.append([program(x=data)["loss"] for _ in range(3)])
        if backend != "reference":
            plan = program.executable.plan
            (first,) = [item for item in products(plan) if (item.n, item.k) == (67, 24)]
            assert first.ldb == 68
            assert plan.buffers[first.b].place is Place.ARENA
            (second,) = [item for item in products(plan) if (item.n, item.k) == (5, 67)]
            assert plan.buffers[second.b].place is Place.STATE
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_which_rows_are_odd():
    assert [is_odd(n, BF16, False) for n in (128, 101, 100, 104, 33)] == [False, True, True, False, False]
    assert [is_odd(n, F32, True) for n in (101, 100, 102)] == [True, False, True]
    assert not is_odd(101, F32, False)


# kernels

ROW, COLUMN, N = (Var(name, DType.int64) for name in ("i0", "i1", "n0"))
ROWS = Rows(10, 16)


def kernel(place: Expr, stop: Expr, between: tuple[Let, ...] = ()) -> Kernel:
    """One that copies what it finds at places of rows."""
    inner = For(
        "i1",
        int64(0),
        stop,
        LoopKind.VECTOR,
        (*between, Let(Var("v9", F32), Load("b0", place, F32)), Store("b1", place, Var("v9", F32))),
    )
    buffers = (Buffer("b0", F32, Access.READ), Buffer("b1", F32, Access.WRITE))
    return Kernel("k", buffers, ("n0",), N, (For("i0", int64(0), N, LoopKind.PARALLEL, (inner,)),))


def times(factor: int, var: Expr) -> Expr:
    return index("mul", int64(factor), var)


def plus(*terms: Expr) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = index("add", total, term)
    return total


CHUNK = Apply("min", (Apply("sub", (int64(10), times(4, ROW)), DType.int64), int64(4)), DType.int64)
TAKEN = {
    "rows": (kernel(plus(times(10, ROW), COLUMN), int64(10)), {}),
    "part of a row": (kernel(plus(times(10, ROW), COLUMN, int64(3)), int64(7)), {}),
    "columns in chunks": (kernel(plus(times(10, COLUMN), times(4, ROW)), int64(3)), {"n0": 3}),
    "a number of rows": (kernel(plus(times(20, ROW), COLUMN, int64(10)), int64(10)), {}),
    "remainders": (kernel(plus(times(10, COLUMN), Apply("mod", (ROW, int64(10)), DType.int64)), int64(3)), {}),
}
REFUSED = {
    "across rows": (kernel(plus(times(10, ROW), COLUMN), int64(11)), {}),
    "beyond a row": (kernel(plus(times(10, ROW), COLUMN, int64(4)), int64(7)), {}),
    "before a row": (kernel(plus(times(10, ROW), times(-1, COLUMN)), int64(3)), {}),
    "any column": (kernel(plus(times(10, COLUMN), ROW), int64(3)), {}),
    "transposed": (kernel(plus(times(3, COLUMN), ROW), int64(10)), {}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_places_in_rows_are_found(name):
    given, sizes = TAKEN[name]
    made = in_rows(given, {"b0": ROWS, "b1": ROWS}, sizes)
    assert made is not None
    verify_kernel(made)
    dense = np.arange(80, dtype=np.float32).reshape(8, 10)
    apart = np.full((8, 16), np.nan, np.float32)
    apart[:, :10] = dense
    results = np.zeros((8, 10), np.float32), np.zeros((8, 16), np.float32)
    for some, source, result in ((given, dense, results[0]), (made, apart, results[1])):
        run_kernel(some, [source.reshape(-1), result.reshape(-1)], (3,))
    assert results[0].any()
    np.testing.assert_array_equal(results[1][:, :10], results[0])
    assert not results[1][:, 10:].any()


@pytest.mark.parametrize("name", REFUSED)
def test_other_places_are_not(name):
    given, sizes = REFUSED[name]
    assert in_rows(given, {"b0": ROWS}, sizes) is None
    assert in_rows(given, {}, sizes) == given


def test_loops_end_where_outer_ones_say():
    """Columns in chunks of four, of which the last one is shorter, as sums of columns are written."""
    place = plus(times(4, ROW), COLUMN)
    assert in_rows(kernel(place, CHUNK), {"b0": ROWS, "b1": ROWS}, {"n0": 3}) is not None
    assert in_rows(kernel(place, int64(4)), {"b0": ROWS, "b1": ROWS}, {"n0": 3}) is None


def test_a_loop_over_all_elements_becomes_one_over_rows():
    flat = padded.copying(F32)
    walked = walk_rows(flat, 10)
    assert walked is not None
    made = in_rows(walked, {"b1": ROWS}, {})
    assert made is not None
    verify_kernel(made)
    source, result = np.arange(30, dtype=np.float32), np.zeros((3, 16), np.float32)
    run_kernel(made, [source, result.reshape(-1)], (3,))
    np.testing.assert_array_equal(result[:, :10].reshape(-1), source)
    assert walk_rows(kernel(plus(times(10, ROW), COLUMN), int64(10)), 10) is None
