"""The kernel of ArgSort as CUDA C in the emulator, and scatters by every function."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy.printer import module_source
from graphc.ir.dims import evaluate
from graphc.ir.graph import make_graph
from graphc.ir.node import apply
from graphc.loops.gpu import map_to_gpu
from graphc.lower.lowering import lower
from graphc.lower.plan import KernelItem, Place
from graphc.ops.scatter import ScatterAlong
from tests.cupy.emulator import Emulator


def item_of(node, inputs):
    """The one kernel of a graph, and its plan."""
    plan = lower(make_graph({"y": node}, inputs))
    (launch,) = plan.launches
    (item,) = launch.items
    assert isinstance(item, KernelItem)
    return plan, item


def sorting(down):
    x = gx.placeholder("x", ("m", "n"))
    return item_of(gx.argsort(x, descending=down), [x])


def scattering(fn):
    values, indices = gx.placeholder("values", ("m", "n"), "float64"), gx.placeholder("i", ("m", "n"), "int64")
    return item_of(apply(ScatterAlong(1, 5, fn), values, indices), [values, indices])


ITEMS = {"sort_up": sorting(False), "sort_down": sorting(True)}
ITEMS |= {fn: scattering(fn) for fn in ("add", "mul", "min", "max")}
MAPPED = {name: map_to_gpu(replace(item.kernel, name=name)) for name, (_, item) in ITEMS.items()}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Emulator(list(MAPPED.values()), tmp_path_factory.mktemp("emulator"))


def run(emulator, name, downwards, *inputs):
    plan, item = ITEMS[name]
    dims = dict(zip("mn", inputs[0].shape, strict=True))
    arrays, result = [], None
    for index in item.buffers:
        buffer = plan.buffers[index]
        if buffer.place is Place.INPUT:
            arrays.append(inputs[buffer.slot])
            continue
        shape = tuple(evaluate(size, dims) for size in buffer.type.shape)
        arrays.append(np.zeros(shape, buffer.type.dtype.numpy))
        result = arrays[-1] if buffer.place is Place.OUTPUT else result
    status = np.zeros(2, np.int64)
    sizes = [evaluate(size, dims) for size in item.sizes]
    emulator.run(MAPPED[name], arrays, sizes, status, downwards)
    assert status[0] == 0
    return result


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 100), (40, 7), (2, 0)])
def test_rows_are_sorted(emulator, shape, down):
    x = np.random.default_rng(sum(shape)).integers(0, 6, shape).astype(np.float32)
    x[:, ::5] = np.nan
    wanted = np.argsort(np.where(np.isnan(x), np.inf, -x if down else x), axis=1, kind="stable")
    for downwards in (False, True):
        np.testing.assert_array_equal(run(emulator, "sort_down" if down else "sort_up", downwards, x), wanted)


@pytest.mark.parametrize("fn", ["add", "mul", "min", "max"])
def test_values_are_scattered(emulator, fn):
    rng = np.random.default_rng(0)
    values, indices = rng.standard_normal((7, 40)), rng.integers(0, 5, (7, 40))
    wanted = ScatterAlong(1, 5, fn).reference(values, indices)
    for downwards in (False, True):
        np.testing.assert_allclose(run(emulator, fn, downwards, values, indices), wanted, rtol=1e-13)


def test_nvrtc_compiles_them():
    from graphc.backends.cupy.nvrtc import compile_cubin

    cubin = compile_cubin(module_source(list(MAPPED.values())), "sm_80")
    assert all(usage.spill_bytes == 0 for usage in cubin.usage.values())
