"""What the GPU benchmark counts without a GPU, on the workload that can be counted by hand."""

from __future__ import annotations

import sys

import pytest

from benchmarks import gpu_count
from benchmarks.__main__ import main
from benchmarks.gpu_costs import KERNEL, PRODUCT, Traffic, only_moves
from graphc.ir.types import DType
from graphc.loops.affine import int64
from graphc.loops.kernel import Access, Apply, Buffer, Const, For, Kernel, Let, Load, LoopKind, Store, Var
from tests.cupy.emulated_device import EmulatedDevice


@pytest.fixture(scope="module")
def counts():
    return {found.dtype: found for found in gpu_count.count(["mlp"])}


def test_products_of_the_mlp_are_those_of_its_layers(counts):
    sizes, batch, moved = ((784, 512), (512, 256), (256, 10)), 128, {}
    for inputs, outputs in sizes:
        moved["forward", inputs] = (batch * inputs + inputs * outputs + outputs, batch * outputs)
        moved["weight", inputs] = (batch * inputs + batch * outputs, inputs * outputs)
        if inputs != 784:
            moved["back", inputs] = (batch * outputs + inputs * outputs, batch * inputs)
    for dtype, found in counts.items():
        products = [cost for cost in found.costs if cost.kind == PRODUCT]
        assert {cost.type for cost in products} == {dtype}
        assert sum(cost.multiply_adds for cost in products) == batch * (3 * (784 * 512 + 512 * 256 + 2560) - 784 * 512)
        # the last bias is added by the loss
        assert sum(cost.read for cost in products) == 4 * (sum(read for read, _ in moved.values()) - 10)
        assert sum(cost.written for cost in products) == 4 * sum(written for _, written in moved.values())


def test_adam_reads_and_writes_each_parameter_once(counts):
    (adam,) = [cost for cost in counts["tf32"].costs if cost.what.endswith("x 6")]
    count = 784 * 512 + 512 + 512 * 256 + 256 + 2560 + 10
    assert (adam.kind, adam.written) == (KERNEL, 12 * count)
    assert 16 * count <= adam.read <= 16 * count + 6 * 64  # and the step
    assert "0.9 * m + 0.1 * gradient" in adam.line


def test_launches_are_those_of_the_plan_and_one_that_posts_the_loss(counts):
    for found in counts.values():
        assert found.launches == 1 + sum(cost.launches * cost.times for cost in found.costs)
        assert 5 < found.chain < found.launches
        assert 1.1e-3 * found.chain < found.bound_ms < 0.05


def test_it_is_said_to_be_a_count(capsys):
    assert main(["gpu", "--count", "mlp"]) == 0
    text = capsys.readouterr().out
    assert "Counted, not measured" in text
    assert "| mlp_train | tf32 |" in text
    assert "graphc_peer" not in sys.modules


def test_all_workloads_have_an_aim_or_a_peer():
    with gpu_count.peer_script(gpu_count.NoDevice()) as peer:
        rows = {row[:2] for rows in peer.WORKLOADS.values() for row in rows}
    assert rows - set(gpu_count.AIMS) == {("mlp_train", "fp32")}
    assert set(gpu_count.AIMS) < rows


def test_the_device_that_does_nothing_has_what_devices_have():
    wanted = {name for name in vars(EmulatedDevice) if not name.startswith("_")} - {"perform", "convolution_plans"}
    own = {"capacity", "shuffled", "downwards", "has_epilogues", "library", "seconds", "taken", "launches"}
    missing = (
        wanted - own - {"recordings", "uploads", "convolution_workspace", "timed"} - set(dir(gpu_count.NoDevice()))
    )
    assert not missing


def test_a_place_counts_once_however_many_loops_come_back_to_it():
    """Rows are read in two loops, a table where an index says, and every other element of a third array."""
    i, j, k, n = (Var(name, DType.int64) for name in "ijkn")
    row = Var("row", DType.int64)

    def at(first: object, second: object) -> Apply:
        return Apply("add", (Apply("mul", (int64(8), first), DType.int64), second), DType.int64)

    def loop(var: Var, *body: object) -> For:
        return For(var.name, int64(0), int64(8), LoopKind.VECTOR, body)

    def load(name: str, index: object) -> Load:
        return Load(name, index, DType.float32)

    body = (
        Let(row, Load("where", i, DType.int64)),
        loop(j, Store("y", at(i, j), load("x", at(i, j)))),
        loop(k, Store("y", at(i, k), Apply("add", (load("x", at(i, k)), load("table", at(row, k))), DType.float32))),
        Store("z", i, load("half", Apply("mul", (int64(2), i), DType.int64))),
    )
    arrays = [("where", DType.int64), *((name, DType.float32) for name in ("x", "table", "half", "y", "z"))]
    buffers = tuple(Buffer(name, of, Access.WRITE if name in "yz" else Access.READ) for name, of in arrays)
    outer = For("i", Const(0, DType.int64), n, LoopKind.PARALLEL, body)
    kernel = Kernel("rows", buffers, ("n",), n, (outer,))
    touched = Traffic({"n": 5}).of(kernel)
    assert touched[Access.READ] == {"where": 5, "x": 40, "table": 40, "half": 5}
    assert touched[Access.WRITE] == {"y": 40, "z": 5}
    assert not only_moves(kernel)
    assert only_moves(Kernel("copy", buffers, ("n",), n, (For("i", int64(0), n, LoopKind.PARALLEL, body[:2]),)))


def test_pieces_of_different_length_count_what_they_have():
    """Seven rows in pieces of three: three, three and one."""
    p, i, j, n = (Var(name, DType.int64) for name in "pijn")
    first = Apply("mul", (p, int64(3)), DType.int64)
    last = Apply("min", (Apply("add", (first, int64(3)), DType.int64), n), DType.int64)
    at = Apply("add", (Apply("mul", (i, int64(4)), DType.int64), j), DType.int64)
    stop = Var("stop", DType.int64)
    inner = For("j", int64(0), int64(4), LoopKind.VECTOR, (Store("y", at, Load("x", at, DType.float32)),))
    body = (Let(stop, last), For("i", first, stop, LoopKind.SEQ, (inner,)))
    buffers = tuple(Buffer(name, DType.float32, way) for name, way in (("x", Access.READ), ("y", Access.WRITE)))
    kernel = Kernel("pieces", buffers, ("n",), n, (For("p", int64(0), int64(3), LoopKind.PARALLEL, body),))
    assert Traffic({"n": 7}).of(kernel) == {Access.READ: {"x": 28}, Access.WRITE: {"y": 28}}
