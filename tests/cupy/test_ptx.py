"""Kernels as NVRTC compiles them, executed instruction by instruction; ``pytest tests/cupy --ptx`` runs all programs so."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend, nvrtc
from graphc.backends.cupy.device import Launch
from graphc.backends.cupy.printer import TYPES, module_source
from graphc.errors import BackendError
from graphc.ir.op import registry
from tests.cupy import test_attention as attention
from tests.cupy import test_convolution as convolution
from tests.cupy.emulator import compile_kernels
from tests.cupy.emulator import launch as emulate
from tests.cupy.ptx import Library, PtxDevice, noted_spans, run
from tests.cupy.ptx_memory import BadAccess, Global
from tests.cupy.ptx_text import compile_ptx, parse
from tests.cupy.ptx_warps import FLOATS, HALVES, SUM
from tests.ops.table import Together, cases


@pytest.fixture(autouse=True)
def _compiler() -> None:
    try:
        nvrtc.nvrtc_version()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture
def interpreted() -> Iterator[CupyBackend]:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")  # what moves memory beside kernels is the emulator's
    with noted_spans() as spans:
        yield CupyBackend(device=PtxDevice(spans=spans))


def execute(source: str, threads: int, arrays: Sequence[np.ndarray], blocks: int = 1, shared: int = 0) -> None:
    """Launch the function ``f`` of some CUDA C."""
    regions = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays]
    work = Launch("f", blocks, threads, tuple(array.ctypes.data for array in arrays), False, shared)
    run(parse(compile_ptx(source)), work, Global(regions, regions))


# --- fragments

MULTIPLY = """
extern "C" __global__ void fragments(const unsigned int* a, const unsigned int* b, float* c, long long, long long, long long) {
    const unsigned int lane = threadIdx.x;
    float sum[4];
    unsigned int left[4];
    for (int i = 0; i < 4; ++i) sum[i] = c[4 * lane + i], left[i] = a[4 * lane + i];
    %s(sum, left, b[2 * lane], b[2 * lane + 1]);
    for (int i = 0; i < 4; ++i) c[4 * lane + i] = sum[i];
}
"""


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "tf32"])
def test_fragments_lie_as_in_cutlass(kind):
    """The instruction, and the emulator's twin: both multiply what CuTe's layouts (``mma_traits_sm80.hpp``) say lies there."""
    rng = np.random.default_rng(5)
    left, right, k = FLOATS if kind == "tf32" else HALVES
    rows, columns, start = (rng.integers(-9, 9, shape).astype(np.float32) for shape in ((16, k), (k, 8), (16, 8)))

    def words(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(matrix.T.reshape(-1)[places])  # by columns; small integers are exact in any type
        if kind == "float16":
            values = values.astype(np.float16)
        elif kind == "bfloat16":
            values = (values.view(np.uint32) >> 16).astype(np.uint16)
        return np.ascontiguousarray(values).view(np.uint32)

    a, b = words(rows, left.places), words(np.ascontiguousarray(columns.T), right.places)
    wanted = (start + rows @ columns).T.reshape(-1)[SUM.places]
    source = module_source(()) + MULTIPLY % f"multiply_{kind}"
    assert "mma.sync" in source
    c = np.ascontiguousarray(start.T.reshape(-1)[SUM.places])
    arrays = (a, b, c)
    memory = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays]
    given = (*(array.ctypes.data for array in arrays), 0, 0, 0)
    run(parse(compile_ptx(source)), Launch("fragments", 1, 32, given, False, 0), Global(memory, memory))
    np.testing.assert_array_equal(c, wanted)
    if shutil.which("g++") is not None:
        c[...] = start.T.reshape(-1)[SUM.places]
        emulate(compile_kernels((), source, functions={"fragments": (32, 3, 3)}), "fragments", 1, np.array(given))
        np.testing.assert_array_equal(c, wanted)


# --- what a GPU would refuse or get wrong

FAULTS = {
    "behind the array": ("float* x", "x[threadIdx.x + 1] = 1;", "which is not in what the launch was given"),
    "before the array": ("float* x", "x[0] = x[(int)threadIdx.x - 2];", "which is not in what the launch was given"),
    "an odd address": ("float* x", "*(float4*)(x + 1) = make_float4(0, 1, 2, 3);", "is no multiple of 16"),
    "shared memory of nobody": (
        "float* x",
        "__shared__ float s[32]; if (threadIdx.x < 31) s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); "
        "x[threadIdx.x] = s[threadIdx.x];",
        "which nobody has written",
    ),
    "a missing barrier": (
        "float* x",
        "__shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x / 2]; x[threadIdx.x / 2] = 0; __syncwarp(); "
        "if (threadIdx.x < 32) x[threadIdx.x] = s[63 - threadIdx.x];",
        "two warps",
    ),
    "a barrier too few": (
        "float* x",
        "__shared__ float s[64]; for (int i = 0; i < 2; ++i) { s[threadIdx.x] = i; __syncthreads(); "
        "if (threadIdx.x < 32) x[threadIdx.x] = s[63 - threadIdx.x]; }",
        "two warps",
    ),
    "two blocks, one byte": ("float* x", "x[0] = blockIdx.x;", "two blocks"),
    "a barrier for some": ("float* x", "if (threadIdx.x < 16) __syncthreads(); x[threadIdx.x] = 1;", None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault):
    given, body, said = FAULTS[fault]
    threads, blocks = (64, 1) if "barrier" in fault else (32, 2)
    source = f'extern "C" __global__ void f({given}) {{ {body} }}'
    with pytest.raises(AssertionError if said is None else BadAccess, match=said):
        execute(source, threads, [np.zeros(32, np.float32)], blocks=blocks)


# --- kernels

FEW = 7
"""One of so many problems is executed in the suite, all of them by ``--ptx``."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--ptx")
    if metafunc.function is test_attention_is_that_of_float64:
        problems = attention.PROBLEMS[:: 1 if every else FEW]
        metafunc.parametrize("problem", problems, ids=[f"{p.row}-{p.rows}x{p.columns}" for p in problems])
    if metafunc.function is test_convolutions_are_those_of_float64:
        problems = convolution.PROBLEMS[:: 1 if every else 2 * FEW]
        names = [f"{row}-{kind}-{sought.value}" for row, kind, sought in problems]
        metafunc.parametrize(("row", "kind", "sought"), problems, ids=names)


def test_attention_is_that_of_float64(problem, monkeypatch):
    used = tuple(problem.row.variants.values())
    source = module_source((), attention=used)
    kernels = Library({v.name: source for v in used}, {v.name: (v.threads, v.shared_bytes) for v in used})
    kernels.holding(attention.SEED, attention.STEP)
    monkeypatch.setattr(attention, "on_device", kernels.noting(attention.on_device))
    given = problem.operands()
    found = problem.computed(given, False, kernels)
    for name, a, b in zip(("result", "query", "key", "value"), found, problem.expected(given), strict=True):
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=0, atol=attention.TOLERANCE[problem.row.kind] * scale, err_msg=name)


def test_convolutions_are_those_of_float64(row, kind, sought, monkeypatch):
    used = row.variants(sought, kind)
    every = (*used, convolution.Variant(kind, None))
    source = module_source((), convolution=every)
    kernels = Library({v.name: source for v in every}, {v.name: (v.threads, v.shared_bytes) for v in every})
    monkeypatch.setattr(convolution, "on_device", kernels.noting(convolution.on_device))
    a, b = convolution.operands_of(row, kind, sought)
    expected = row.expected(sought, a, b)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    for variant in used:
        found = convolution.computed(row, sought, variant, a, b, False, False, kernels)
        tolerance = convolution.TOLERANCE[kind] * scale
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=variant.name)


# --- programs


def test_ops_are_those_of_the_reference(interpreted):
    """A few of each kind; ``--ptx`` runs them all."""
    names = (
        "exp",
        "tanh",
        "softmax",
        "gelu",
        "max_pool",
        "take_add",
        "cumsum",
        "argsort",
        "transpose",
        "random_bits",
        "matmul",
    )
    table = Together()
    for name in names:
        for case in cases(registry[name])[:3]:
            table.add(case, TYPES)
    table.judge(gx.compile(table.outputs, inputs=table.inputs, backend=interpreted)(**table.feeds))


def test_a_transformer_trains_as_on_the_cpu(interpreted):
    options: tuple[dict[str, str], ...] = ({"precision": "mixed_bfloat16"}, {})
    steps = [
        attention.transformer_step(target, **said) for target, said in zip((interpreted, "numba"), options, strict=True)
    ]
    for _ in range(2):
        found, wanted = (float(step(**feeds)["loss"]) for step, feeds in steps)
        assert math.isclose(found, wanted, rel_tol=2e-2)
