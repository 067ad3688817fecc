"""Kernels of running results: one pass, by interpretation, and as CUDA C."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import module_source
from graphc.loops.gpu import map_to_gpu
from graphc.loops.kernel import For, LoopKind, walk
from tests.lower.judge import judge, kernels

rng = np.random.default_rng(0)


def values(*shape):
    return rng.uniform(-1.5, 1.5, shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 3), (3, 2, 1), (2, 3, 70), (1, 0, 2)])
def test_plans_compute_what_the_ops_say(axis, shape):
    x = gx.placeholder("x", tuple("abc"))
    y = gx.placeholder("y", shape)
    outputs = {
        "sum": gx.cumsum(x, axis, exclusive=True), "product": gx.cumprod(y, axis, reverse=True),
        "most": gx.cummax(y, axis), "recurrence": gx.linear_recurrence(x, x, axis, reverse=True),
    }  # fmt: skip
    plan = judge(outputs, {x: values(*shape), y: values(*shape)})
    assert len(kernels(plan)) == 4


def test_operands_are_read_through_views():
    """Transposed, flipped, sliced, repeated: nothing is copied first."""
    x = gx.placeholder("x", ("n", 6))
    outputs = {
        "across": gx.cumsum(gx.transpose(x), axis=0), "back": gx.cumsum(gx.flip(x, 1)),
        "part": gx.cumsum(x[:, 1:5:2]), "folded": gx.cumsum(gx.reshape(x, ("n", 2, 3)), axis=1),
        "repeated": gx.linear_recurrence(gx.broadcast_to(x[:, :1], ("n", 6)), x),
    }  # fmt: skip
    plan = judge(outputs, {x: values(5, 6)})
    assert len([item for launch in plan.launches for item in launch.items]) == len(outputs)


def test_rows_carry_one_number_and_columns_one_each():
    x = gx.placeholder("x", (8, 100))
    row, column = (kernels(judge({"y": gx.cumsum(x, axis)}, {x: values(8, 100)}))[0] for axis in (1, 0))
    assert [s.kind for s in walk(row.body) if isinstance(s, For)] == [LoopKind.PARALLEL, LoopKind.SEQ]
    assert [s.kind for s in walk(column.body) if isinstance(s, For)] == [
        LoopKind.PARALLEL, LoopKind.VECTOR, LoopKind.SEQ, LoopKind.VECTOR,
    ]  # fmt: skip


def test_nvrtc_takes_the_kernels_of_both_forms():
    x = gx.placeholder("x", (8, 100))
    found = [kernels(judge({"y": gx.cumprod(x, axis, exclusive=True)}, {x: values(8, 100)}))[0] for axis in (0, 1)]
    mapped = [map_to_gpu(kernel) for kernel in found]
    assert [kernel.threads for kernel in mapped] == [64, 256]
    for kernel in mapped:
        cubin = compile_cubin(module_source([kernel]), "sm_80")
        assert all(usage.spill_bytes == 0 for usage in cubin.usage.values())
