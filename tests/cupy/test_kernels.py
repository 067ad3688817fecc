from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import (
    POST_RESULTS,
    function_name,
    kernel_source,
    module_source,
)
from graphc.backends.cupy.products import FUNCTIONS
from graphc.errors import BackendError
from graphc.loops.gpu import map_to_gpu
from graphc.loops.kernel import Accumulate, Barrier, Declare, For, Kernel, Let, Load, Local, LoopKind, Pack, Store, walk
from graphc.loops.text import kernel_text
from tests.cupy.emulator import Emulator
from tests.loops.builders import COLUMNS, F32, I64, ROWS, I, J, N, apply, at, const, loop, parallel, read, var, write
from tests.loops.kernels import CASES, RUNS

MAPPED = {name: map_to_gpu(case.kernel) for name, case in CASES.items()}


def without_barriers(statements):
    return tuple(
        replace(s, body=without_barriers(s.body)) if isinstance(s, For) else s
        for s in statements
        if not isinstance(s, Barrier)
    )


REVERSE = MAPPED["reverse"]
RACING = replace(REVERSE, name="racing", body=without_barriers(REVERSE.body))


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Emulator([*MAPPED.values(), RACING])


@pytest.mark.parametrize("downwards", [False, True], ids=["up", "down"])
@pytest.mark.parametrize(("name", "sizes"), RUNS)
def test_printed_kernels_compute_what_numpy_does(emulator, name, sizes, downwards):
    case = CASES[name]
    arrays = case.arguments(np.random.default_rng(sum(sizes)), *sizes)
    expected = case.expected(arrays, *sizes)
    status = np.zeros(2, np.int64)
    emulator.run(MAPPED[name], arrays, sizes, status, downwards)
    case.check(arrays, expected, slack=4)
    assert status.tolist() == case.status(arrays, *sizes)


def test_the_emulator_sees_missing_barriers(emulator):
    case = CASES["reverse"]
    wrong = False
    for downwards in (False, True):
        arrays = case.arguments(np.random.default_rng(0), 2, 3)
        expected = case.expected(arrays, 2, 3)
        emulator.run(RACING, arrays, (2, 3), np.zeros(2, np.int64), downwards)
        wrong |= not np.array_equal(arrays[1], expected["y"])
    assert wrong


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_nvrtc_compiles_every_kernel_without_spills(arch):
    cubin = compile_cubin(module_source(list(MAPPED.values()), small_products=True), arch)
    assert cubin.code.startswith(b"\x7fELF")
    shared = {POST_RESULTS, *FUNCTIONS}
    assert cubin.usage.keys() == shared | {function_name(kernel) for kernel in MAPPED.values()}
    for name, usage in cubin.usage.items():
        assert usage.spill_bytes == 0, (name, usage)
        assert 0 < usage.registers <= 128, (name, usage)
    assert cubin.usage["softmax_kernel"].shared_bytes >= 300 * 4


def test_nvrtc_says_what_it_does_not_accept():
    with pytest.raises(BackendError, match="NVRTC refuses the source for sm_80") as caught:
        compile_cubin("__global__ void f() { undefined_thing(); }", "sm_80")
    assert "undefined_thing" in str(caught.value)


def test_mapping_fits_the_loops():
    kinds = {name: kind_of(kernel) for name, kernel in MAPPED.items()}
    rows = {name for name, kind in kinds.items() if kind == "rows"}
    assert rows == {
        "softmax", "moments", "column_sum", "total", "gather", "scatter_add", "accumulators", "reverse", "cumulative",
    }  # fmt: skip
    assert {name for name, kind in kinds.items() if kind == "flat"} == {"chain", "uniform", "adam", "scaled_flat"}
    assert MAPPED["moments"].threads == 256
    barriers = {name: sum(isinstance(s, Barrier) for s in walk(MAPPED[name].body)) for name in rows}
    # scatter_add meets once a row; cumulative after the first thread; column_sum where lanes change hands
    assert barriers == {
        "softmax": 0, "moments": 0, "column_sum": 2, "total": 0, "gather": 0, "accumulators": 0,
        "scatter_add": 1, "reverse": 3, "cumulative": 1,
    }  # fmt: skip


def kind_of(kernel: Kernel) -> str:
    if any(isinstance(s, Pack) for s in walk(kernel.body)) and kernel.body[0].stop != kernel.extent:
        return "flat"
    return "rows" if kernel.body[0].stop == kernel.extent else "grid"


@pytest.mark.parametrize("name", ["chain", "softmax", "reverse", "gather", "cumulative"])
def test_mapped_text_and_source(golden, name):
    kernel = MAPPED[name]
    golden(f"kernels/{name}", kernel_text(CASES[name].kernel))
    golden(f"kernels/{name}_mapped", kernel_text(kernel))
    golden(f"kernels/{name}_cuda", kernel_source(kernel))


def test_names_cannot_clash_with_the_language():
    words = ("float", "threadIdx", "status", "expf", "combine", "class")
    kernel = Kernel(
        "round",
        (read("float", F32), read("expf", F32), write("status", F32)),
        ("class",),
        var("class"),
        parallel(
            var("class"),
            Let(var("threadIdx", F32), apply("exp", Load("float", I, F32))),
            Let(var("combine", F32), apply("add", var("threadIdx", F32), Load("expf", I, F32))),
            Store("status", I, var("combine", F32)),
        ),
    )
    source = kernel_source(map_to_gpu(kernel))
    for word in words:
        assert f"{word}_" in source, word
    compile_cubin(module_source([map_to_gpu(kernel)]), "sm_90")


def test_only_mapped_kernels_print():
    with pytest.raises(BackendError, match="is not mapped to a GPU"):
        kernel_source(CASES["chain"].kernel)


def test_index_arithmetic_is_plain_and_data_arithmetic_wraps():
    data = Load("x", I, I64)
    kernel = Kernel(
        "plain",
        (read("x", I64), write("y", I64)),
        ("n",),
        N,
        parallel(
            N,
            Let(var("opposite"), apply("sub", apply("sub", N, I), const(1))),
            Let(var("value"), apply("add", data, apply("mul", const(3), data))),
            Store("y", var("opposite"), apply("neg", var("value"))),
        ),
    )
    source = kernel_source(map_to_gpu(kernel, vectors=False))
    assert "const long long opposite = n - i - 1;" in source
    assert "const long long value = wrapping_add(x[i], wrapping_mul(3LL, x[i]));" in source
    assert "y[opposite] = wrapping_neg(value);" in source


def test_loops_down_columns_stay_with_their_threads():
    """A loop down a column does not walk along memory, but the iterations of the parallel loop do."""
    total = var("total", F32)
    kernel = Kernel(
        "columns",
        (read("x", F32), write("y", F32)),
        ("rows", "columns"),
        COLUMNS,
        parallel(
            COLUMNS,
            Declare(total, const(0.0, F32)),
            loop(LoopKind.REDUCE, "j", ROWS, Accumulate(total, "add", Load("x", at(J, COLUMNS, I), F32))),
            Store("y", I, total),
        ),
    )
    assert kind_of(map_to_gpu(kernel)) == "grid"


def test_short_rows_with_large_arrays_have_a_warp_each():
    """A block of a warp has no room for the arrays of several such rows."""
    place = at(I, const(20), J)
    kernel = Kernel(
        "turned", (read("b0", F32), write("b1", F32)), ("n",), N,
        parallel(
            N,
            Local("kept", F32, 9000),
            loop(LoopKind.VECTOR, "j", const(20), Store("kept", J, Load("b0", place, F32))),
            loop(LoopKind.VECTOR, "j", const(20), Store("b1", place, Load("kept", apply("sub", const(19), J), F32))),
        ),
    )  # fmt: skip
    mapped = map_to_gpu(kernel)
    assert (mapped.threads, mapped.teams, mapped.shared_bytes) == (32, 1, 36000)
    if shutil.which("g++"):
        data, found = (
            np.random.default_rng(0).standard_normal((70, 20)).astype(np.float32),
            np.empty((70, 20), np.float32),
        )
        Emulator([mapped]).run(mapped, [data, found], [70], np.zeros(2, np.int64))
        np.testing.assert_array_equal(found, data[:, ::-1])


def test_a_name_that_blocks_share_is_natural_only_where_it_is():
    """C's division rounds towards zero: it is right for what is never negative."""

    def third(value):
        place = var("place")
        element = apply("add", apply("mul", I, const(20)), apply("add", apply("floordiv", place, const(3)), const(2)))
        return loop(LoopKind.SEQ, "j", const(6), Let(place, value), Store("b0", element, const(1.0, F32)))

    body = parallel(N, third(J), third(apply("sub", J, const(5))))
    text = kernel_source(map_to_gpu(Kernel("thirds", (write("b0", F32),), ("n",), N, body)))
    assert text.count("place / 3") == 1
    assert text.count("floor_divide(place, 3LL)") == 1
