"""How loops become blocks and threads: transposed reads, short rows side by side, long rows that are kept, columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import blocks_of, dynamic_bytes, function_name, module_source
from graphc.errors import VerifyError
from graphc.ir.types import DType
from graphc.loops.gpu import LEAST_SHARED_BYTES, map_to_gpu
from graphc.loops.kernel import Combine, For, Kernel, Load, Local, LoopKind, Pack, expressions, subexpressions, walk
from graphc.loops.scatter import LOOKERS, TILE
from graphc.loops.verify import verify_kernel
from graphc.lower.plan import KernelItem
from tests.cupy.emulated_device import EmulatedDevice, EmulatedModule

A100_BYTES = 163 * 1024


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Unloaded(EmulatedDevice):
    """For plans that nobody runs."""

    def load(self, unit):
        return EmulatedModule(None, {})


def kernels(outputs, inputs) -> list[Kernel]:
    """The kernels of a program before they are mapped."""
    outputs = outputs if isinstance(outputs, dict) else {"y": outputs}
    plan = gx.compile(outputs, inputs, backend=CupyBackend(device=Unloaded())).plan
    return [item.kernel for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)]


def both_ways(outputs, inputs, **attributes):
    """Two programs whose threads and blocks run in opposite orders, and the reference."""
    backends = [CupyBackend(device=EmulatedDevice(downwards=down, **attributes)) for down in (False, True)]
    return [gx.compile(outputs, inputs, backend=backend) for backend in (*backends, "reference")]


def agree(programs, feeds, **tolerance) -> None:
    upwards, downwards, wanted = (program(**feeds) for program in programs)
    for name, value in wanted.items():
        np.testing.assert_array_equal(upwards[name], downwards[name], err_msg=name)
        np.testing.assert_allclose(upwards[name], value, err_msg=name, **tolerance)


# transposed reads


def turned() -> tuple[dict, list]:
    """Elementwise work on operands that lie the other way."""
    x, y = gx.placeholder("x", ("n", 70)), gx.placeholder("y", (70, "n"))
    z, images = gx.placeholder("z", (3, 40, 33), "bfloat16"), gx.placeholder("images", ("n", 4, 5, 18))
    heads = gx.transpose(images, (0, 3, 1, 2))
    outputs = {
        "turned": gx.transpose(x, (1, 0)), "added": gx.relu(gx.transpose(x, (1, 0)) + y) * 2.0,
        "batched": gx.transpose(z, (0, 2, 1)), "planes": heads + 1.0,
        "both": gx.transpose(x, (1, 0)) * gx.transpose(x * 2.0, (1, 0)),
    }  # fmt: skip
    return outputs, [x, y, z, images]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 130])
def test_transposed_operands_are_read_by_squares(n):
    outputs, inputs = turned()
    programs = both_ways(outputs, inputs)
    assert programs[0].source().count("tile[") > 10
    feeds = {
        "x": f32(n, 70),
        "y": f32(70, n),
        "z": f32(3, 40, 33).astype(DType.bfloat16.numpy),
        "images": f32(n, 4, 5, 18),
    }
    if n:
        feeds["x"][n // 2, 3] = np.nan
        feeds["x"][0, 69] = np.inf
    agree(programs, feeds, rtol=1e-6)


def test_each_line_of_memory_is_read_once():
    """Neighbouring threads read neighbours of what is turned, and write neighbours of the result."""
    x, y = gx.placeholder("x", (256, 192)), gx.placeholder("y", (192, 256))
    (kernel,) = kernels(gx.transpose(x, (1, 0)) + y, [x, y])
    mapped = map_to_gpu(kernel)
    tiles = [s for s in walk(mapped.body) if isinstance(s, Local) and s.shared]
    assert [(tile.dtype, tile.size) for tile in tiles] == [(DType.float32, 64 * 65)]
    assert blocks_of(mapped, [192] * len(mapped.sizes)) == 3 * 4
    (copying, *_) = (s for s in walk(mapped.body) if isinstance(s, For) and s.kind is LoopKind.THREAD)
    loads = [p for s in walk(copying.body) for e in expressions(s) for p in subexpressions(e) if isinstance(p, Load)]
    assert [load.buffer for load in loads] == ["b0"]


def test_what_lies_in_short_pieces_is_left_to_the_caches():
    images, planes = gx.placeholder("images", ("n", 8, 8, 3)), gx.placeholder("planes", ("n", 3, 8, 8))
    (kernel,) = kernels(gx.transpose(images, (0, 3, 1, 2)) + planes, [images, planes])
    assert not any(isinstance(s, Local) and s.shared for s in walk(map_to_gpu(kernel).body))


# rows of a warp or less


def test_short_rows_are_side_by_side():
    outputs, inputs = {}, []
    for width in (16, 17, 20, 31, 64, 128):
        inputs.append(x := gx.placeholder(f"x{width}", ("n", width)))
        outputs[f"soft{width}"] = gx.softmax(x)
        outputs[f"mean{width}"] = gx.mean(x, axis=1)
    programs = both_ways(outputs, inputs)
    mapped = [
        kernel
        for kernel, _ in programs[0].executable.unit.entries
        if any(isinstance(s, Combine) for s in walk(kernel.body))
    ]
    assert len(mapped) >= 12
    assert {kernel.block_threads for kernel in mapped} == {128}
    assert {kernel.threads for kernel in mapped} == {4, 8, 16, 32}
    for n in (0, 1, 7, 33):
        feeds = {x.op.label: f32(n, x.shape[1]) for x in inputs}
        if n > 1:
            for data in feeds.values():
                data[0, 1], data[1], data[n - 1, 0] = np.nan, -np.inf, np.inf
        agree(programs, feeds, rtol=2e-6, atol=1e-7)


def test_teams_divide_a_warp():
    x = gx.placeholder("x", ("n", 20))
    (kernel,) = kernels(gx.softmax(x), [x])
    mapped = map_to_gpu(kernel)
    assert (mapped.threads, mapped.teams) == (8, 16)
    assert [blocks_of(mapped, [n]) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
    for wrong in (replace(mapped, threads=12, teams=8), replace(mapped, threads=64, teams=2)):
        with pytest.raises(VerifyError, match="must divide a warp"):
            verify_kernel(wrong)


# rows that are longer than several blocks of a multiprocessor could keep


def normalized(width: int):
    x = gx.placeholder("x", ("n", width))
    centred = x - gx.mean(x, axis=1, keepdims=True)
    return {
        "soft": gx.softmax(x),
        "norm": centred * gx.rsqrt(gx.mean(centred * centred, axis=1, keepdims=True) + 1e-5),
    }, x


@pytest.mark.parametrize(("width", "shared"), [(10240, None), (10244, None), (30000, None), (30000, A100_BYTES)])
def test_long_rows_are_kept_as_far_as_they_fit(width, shared):
    outputs, x = normalized(width)
    shared = shared or LEAST_SHARED_BYTES
    programs = both_ways(outputs, [x], shared_bytes=shared)
    data = f32(2, width) * 3
    data[1, width - 1] = -np.inf
    agree(programs, {"x": data}, rtol=2e-5, atol=2e-6)
    for bad in (np.nan, np.inf):
        data[0, width // 2] = bad
        agree(programs, {"x": data}, rtol=2e-5, atol=2e-6)
    for kernel, _ in programs[0].executable.unit.entries:
        assert dynamic_bytes(kernel) <= shared
        assert kernel.threads == (256 if width == 10240 else 1024 if width > 20000 else 512)
        times = reads_of_each_element(kernel, width)
        if width > 10240:
            front = min(dynamic_bytes(kernel) // 4, width)
            assert front == width or front > 24000
            assert times == pytest.approx(1 + 2 * (width - front) / width)


def test_cross_entropy_reads_its_logits_once_and_keeps_nothing_else():
    logits, labels = gx.placeholder("logits", ("n", 32000)), gx.placeholder("labels", ("n",), "int64")
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, logits))
    found = kernels({"loss": loss, "gradient": gx.grad(loss, [logits])[0]}, [logits, labels])
    mapped = [map_to_gpu(kernel, shared_bytes=A100_BYTES) for kernel in found]
    (rows,) = (kernel for kernel in mapped if dynamic_bytes(kernel))
    assert dynamic_bytes(rows) == 32000 * 4
    assert reads_of_each_element(rows, 32000) < 1.001


def reads_of_each_element(kernel: Kernel, width: int) -> float:
    """How often a block reads an element of its row from memory, on average."""
    buffers = {buffer.name for buffer in kernel.buffers if buffer.access.value == "read"}
    total = 0
    for loop in walk(kernel.body):
        if not isinstance(loop, For) or loop.kind.value != "thread":
            continue
        for statement in walk(loop.body):
            if isinstance(statement, Pack) and statement.array in buffers:
                total += statement.size * loop.stop.value
            for part in (p for e in expressions(statement) for p in subexpressions(e)):
                total += loop.stop.value * (isinstance(part, Load) and part.buffer in buffers)
    return total / width


# windows: a few rows down columns


def pooled() -> tuple[dict, list]:
    """Windows of so few rows that a thread takes them alone, in columns that do and do not fill vectors."""
    outputs, inputs = {}, []
    for channels in (1, 6, 48, 65):
        inputs.append(x := gx.placeholder(f"x{channels}", ("n", 6, 8, channels)))
        outputs[f"most{channels}"] = gx.max_pool(x, (2, 2))
        outputs[f"mean{channels}"] = gx.average_pool(x, (3, 2)) * 2.0
    return outputs, inputs


def test_windows_are_pooled_by_threads_of_their_own():
    outputs, inputs = pooled()
    programs = both_ways(outputs, inputs)
    for kernel, _ in programs[0].executable.unit.entries:
        assert kernel.threads == 256
        assert not kernel.shared_bytes
    for n in (0, 1, 5):
        feeds = {x.op.label: f32(n, *x.shape[1:]) for x in inputs}
        for data in feeds.values():
            data[:1, 1, 1], data[:1, 2, 2] = np.nan, np.inf
        agree(programs, feeds, rtol=1e-6)


# rows of a table that many indices name


@pytest.mark.parametrize("share", [0.0, 0.9, 1.0])
def test_rows_that_most_indices_name_are_added_in_the_order_of_the_list(share):
    """With the very bits of a sum one by one, wherever the 16 values end that a thread reads at once."""
    table, ids = gx.parameter("t", np.zeros((50, 70), np.float32)), gx.placeholder("ids", ("n",), "int64")
    w = gx.placeholder("w", ("n", 70))
    (gradient,) = gx.grad(gx.sum(gx.take(table, ids, axis=0) * w), [table])
    programs = both_ways({"g": gradient}, [ids, w])
    assert "next_row" in programs[0].source()
    for n in (0, 1, 16, 17, 1100):
        rng = np.random.default_rng(n)
        at = np.where(rng.random(n) < share, 7, rng.integers(0, 50, n))
        values = f32(n, 70)
        wanted = np.zeros((50, 70), np.float32)
        order = sorted(range(n), key=lambda place: (place // TILE, place % LOOKERS, place))  # each lists its own
        np.add.at(wanted, at[order], values[order])
        for program in programs[:2]:
            np.testing.assert_array_equal(program(ids=at, w=values)["g"], wanted)


# all of them as machine code


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_they_compile_without_spills(arch):
    found = [*kernels(*turned()), *kernels(*pooled())]
    for width in (20, 30000, 50257):
        outputs, x = normalized(width)
        found += kernels(outputs, [x])
    mapped = [replace(map_to_gpu(k, shared_bytes=A100_BYTES), name=f"{k.name}_{i}") for i, k in enumerate(found)]
    usage = compile_cubin(module_source(mapped), arch).usage
    for kernel in mapped:
        of = usage[function_name(kernel)]
        # a division's slow path is a call, around which a register or two may be saved
        assert of.spill_bytes <= 16, (kernel.name, of)
        assert of.registers * kernel.block_threads <= 65536
        assert of.shared_bytes + dynamic_bytes(kernel) <= A100_BYTES
