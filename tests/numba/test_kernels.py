from __future__ import annotations

import re

import llvmlite.binding as ll
import numpy as np
import pytest

from graphc.backends.numba import build, compiler
from graphc.backends.numba.machine import cpu_features, target_machine
from graphc.backends.numba.printer import kernel_source
from graphc.errors import BackendError
from graphc.loops.gpu import map_to_gpu
from graphc.loops.kernel import (
    Access,
    Accumulate,
    Apply,
    Assign,
    Buffer,
    Const,
    Declare,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Store,
)
from tests.loops.builders import BOOL, F32, F64, I32, I64, U32, I, J, N, apply, at, const, loop, parallel, var
from tests.loops.kernels import CASES, RUNS
from tests.numba.native import elementwise, run_native


@pytest.mark.parametrize(("name", "sizes"), RUNS)
def test_kernels_compute_what_numpy_does(name, sizes):
    case = CASES[name]
    arrays = case.arguments(np.random.default_rng(len(name) + sum(sizes)), *sizes)
    expected = case.expected(arrays, *sizes)
    status = np.zeros(2, np.int64)
    run_native(case.kernel, arrays, sizes, status)
    case.check(arrays, expected)
    assert status.tolist() == case.status(arrays, *sizes)


@pytest.mark.parametrize("name", ["chain", "softmax", "accumulators"])
def test_sub_ranges_have_the_bits_of_the_whole(name):
    case = CASES[name]
    sizes = case.sizes[-1]
    arrays = case.arguments(np.random.default_rng(5), *sizes)
    run_native(case.kernel, arrays, sizes)
    whole = {key: value.copy() for key, value in case.after(arrays).items()}
    for value in case.after(arrays).values():
        value[...] = 0
    middle = sizes[0] // 2
    run_native(case.kernel, arrays, sizes, lo=middle)
    run_native(case.kernel, arrays, sizes, lo=0, hi=middle)
    for key, value in case.after(arrays).items():
        np.testing.assert_array_equal(value, whole[key])


def test_a_check_is_numbered_from_the_items_base_and_the_first_stays():
    case = CASES["gather"]
    arrays = case.arguments(np.random.default_rng(0), 6, 7, 3)
    arrays[1][4] = 99
    status = np.zeros(2, np.int64)
    run_native(case.kernel, arrays, (6, 7, 3), status, first_check=10)
    assert status.tolist() == [10 + 3 + 1, arrays[1][3]]
    status = np.array([5, 42])
    run_native(case.kernel, arrays, (6, 7, 3), status)
    assert status.tolist() == [5, 42]


@pytest.mark.parametrize("name", ["chain", "softmax", "argmax", "gather", "adam", "accumulators"])
def test_source_is_readable_and_stays_the_same(name, golden):
    golden(f"numba_{name}", kernel_source(CASES[name].kernel))


def test_equal_kernels_of_other_names_are_one():
    kernel = CASES["chain"].kernel
    twin = Kernel("twin", kernel.buffers, kernel.sizes, kernel.extent, kernel.body)
    addresses = build.kernel_addresses([kernel, twin])
    assert addresses[kernel] == addresses[twin]


@pytest.mark.parametrize("name", ["softmax", "accumulators"])
def test_a_kernel_mapped_to_a_gpu_is_refused(name):
    with pytest.raises(BackendError, match="belongs to a GPU"):
        kernel_source(map_to_gpu(CASES[name].kernel))


def text_of(expression, dtype=F32):
    """How one expression is written."""
    kernel = Kernel(
        "k",
        (*(Buffer(name, dtype, Access.READ) for name in "abc"), Buffer("y", expression.dtype, Access.WRITE)),
        ("n",),
        N,
        parallel(N, Store("y", I, expression)),
    )
    return kernel_source(kernel).rsplit("y[i] = ", 1)[1].strip()


def test_parentheses_stand_only_where_they_are_needed():
    def x(name, dtype=F32):
        return Load(name, I, dtype)

    a, b, c = x("a"), x("b"), x("c")
    add, mul, sub = (lambda *args, fn=fn: apply(fn, *args) for fn in ("add", "mul", "sub"))
    assert text_of(add(add(a, b), c)) == "a[i] + b[i] + c[i]"
    assert text_of(add(a, add(b, c))) == "a[i] + (b[i] + c[i])"
    assert text_of(sub(a, sub(b, c))) == "a[i] - (b[i] - c[i])"
    assert text_of(mul(add(a, b), c)) == "(a[i] + b[i]) * c[i]"
    assert text_of(apply("neg", mul(a, b))) == "-(a[i] * b[i])"
    both = Apply("and", (apply("lt", a, b), Apply("not", (apply("eq", b, c),), BOOL)), BOOL)
    assert text_of(both) == "(a[i] < b[i]) & (not b[i] == c[i])"
    p, q = x("a", I32), x("b", I32)
    assert text_of(apply("mul", add(p, q), p), I32) == "int32(int32(a[i] + b[i]) * a[i])"
    assert text_of(apply("cast", a, dtype=U32)) == "uint32(int64(a[i]))"


def test_names_cannot_clash_with_the_vocabulary():
    names = ("args", "exp", "range", "float32_buffer", "lambda")
    total = apply("add", apply("exp", Load("exp", I, F32)), Load("args", I, F32))
    total = apply("add", total, apply("add", Load("range", I, F32), Load("lambda", I, F32)))
    kernel = Kernel(
        "clash",
        (*(Buffer(name, F32, Access.READ) for name in names), Buffer("y", F32, Access.WRITE)),
        ("lo",),
        var("lo"),
        (For("hi", const(0), var("lo"), LoopKind.PARALLEL, (Store("y", var("hi"), rename(total, "hi")),)),),
    )
    arrays = [np.full(3, value, np.float32) for value in (1, 0, 3, 9, 5)]
    y = np.zeros(3, np.float32)
    run_native(kernel, [*arrays, y], (3,))
    np.testing.assert_array_equal(y, np.full(3, 10, np.float32))


def rename(expression, index):
    match expression:
        case Load(buffer=buffer, dtype=dtype):
            return Load(buffer, var(index), dtype)
        case Apply(fn=fn, args=args, dtype=dtype):
            return Apply(fn, tuple(rename(argument, index) for argument in args), dtype)
        case _:
            return expression


def test_one_name_may_have_two_types_in_two_scopes():
    body = (
        loop(LoopKind.SEQ, "j", const(2), Let(var("t", F32), Load("x", J, F32)), Store("y", J, var("t", F32))),
        loop(LoopKind.SEQ, "k", const(2), Let(var("t", I64), var("k")), Store("z", var("k"), var("t"))),
    )
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE), Buffer("z", I64, Access.WRITE))
    x, y, z = np.float32([1.5, 2.5]), np.zeros(2, np.float32), np.zeros(2, np.int64)
    run_native(Kernel("two", buffers, (), const(1), parallel(const(1), *body)), [x, y, z])
    assert (y.tolist(), z.tolist()) == ([1.5, 2.5], [0, 1])


def test_the_extremes_of_literals():
    values = [(-(2**63), I64), (2**63 - 1, I64), (-(2**31), I32), (2**32 - 1, U32), (-0.0, F32), (1e-45, F32)]
    for value, dtype in [*values, (float("-inf"), F64), (float("nan"), F64), (5e-324, F64), (0.1, F64), (True, BOOL)]:
        y = np.zeros(1, dtype.numpy)
        buffers = (Buffer("y", dtype, Access.WRITE),)
        run_native(
            Kernel("literal", buffers, (), const(1), parallel(const(1), Store("y", I, Const(value, dtype)))), [y]
        )
        assert y.tobytes() == np.array([value], dtype.numpy).tobytes(), value


@pytest.mark.parametrize("target", [BOOL, U32, I32, I64, F32, F64])
@pytest.mark.parametrize("source", [BOOL, U32, I32, I64, F32, F64])
def test_casts(source, target):
    numbers = [0, 1, 2, 77, 2**31 - 1] + [-1, -2, -77] * (source not in (BOOL, U32))
    if source.is_float:
        numbers = [0.0, -0.0, 0.5, 1.9, -1.9, -77.2, 1e9, float("nan"), float("inf")]
        if target.is_integer:
            numbers = numbers[:-2]  # undefined
    x = np.array(numbers).astype(source.numpy)
    y = np.empty(x.shape, target.numpy)
    run_native(elementwise("cast", source, 1, target), [x, y], (x.size,))
    expected = x.astype(np.int64).astype(target.numpy) if source.is_float and target is U32 else x.astype(target.numpy)
    np.testing.assert_array_equal(y, expected)


def optimized(kernel: Kernel) -> tuple[str, str]:
    """LLVM IR and assembly, as they are for this CPU."""
    function = compiler.function_of_source(kernel_source(kernel), "kernel.py")
    text = compiler.lower(function, compiler.KERNEL_ARGUMENTS, "kernel", compiler.types.void)
    module = compiler.optimize(text)
    return str(module), target_machine().emit_assembly(module)


def row_reduction(fn: str, initial: float) -> Kernel:
    accumulator = var("acc", F32)
    body = (
        Declare(accumulator, const(initial, F32)),
        loop(
            LoopKind.REDUCE, "j", var("columns"), Accumulate(accumulator, fn, Load("x", at(I, var("columns"), J), F32))
        ),
        Store("y", I, accumulator),
    )
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    return Kernel(f"row_{fn}", buffers, ("rows", "columns"), var("rows"), parallel(var("rows"), *body))


def chain_kernel() -> Kernel:
    x = Load("x", I, F32)
    value = apply("mul", apply("tanh", x), apply("exp", apply("add", Load("w", I, F32), x)))
    buffers = (Buffer("x", F32, Access.READ), Buffer("w", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    return Kernel("exp_tanh", buffers, ("n",), N, parallel(N, Store("y", I, value)))


VECTORIZED = {
    "exp_tanh": chain_kernel(),
    "adam": CASES["adam"].kernel,
    "row_sum": row_reduction("add", 0.0),
    "row_max": row_reduction("max", -np.inf),
    "row_min": row_reduction("min", np.inf),
    "uniform": CASES["uniform"].kernel,
    "softmax": CASES["softmax"].kernel,
    "column_sum": CASES["column_sum"].kernel,
}


@pytest.mark.parametrize("name", VECTORIZED)
def test_loops_become_vector_instructions_without_run_time_checks(name):
    text, assembly = optimized(VECTORIZED[name])
    widest = max((int(lanes) for lanes in re.findall(r"<(\d+) x (?:float|i32)>", text)), default=1)
    features = cpu_features()
    wanted, register = (16, "zmm") if "+avx512f" in features else (8, "ymm") if "+avx2" in features else (4, "")
    if "+prefer-256-bit" in features:
        wanted, register = 8, "ymm"
    assert widest >= wanted
    assert register in assembly
    assert "memcheck" not in text
    assert "conflict" not in text  # no comparing of addresses
    assert " @llvm.exp" not in text
    assert "call float @tanhf" not in text


@pytest.mark.parametrize("name", ["exp_tanh", "row_sum", "adam", "accumulators"])
def test_object_code_needs_nothing_of_python(name):
    kernel = VECTORIZED.get(name) or CASES[name].kernel
    data = compiler.compile_kernel(kernel_source(kernel), "kernel.py", "kernel")
    for forbidden in (b"NRT_", b"Py", b"numba", b"_ZN"):
        assert forbidden not in data
    assert ll.ObjectFileRef.from_data(data) is not None


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("fn", ["min", "max"])
def test_extremes_propagate_nan_from_any_place(fn, dtype):
    accumulator = var("acc", dtype)
    body = (
        Declare(accumulator, const(-np.inf if fn == "max" else np.inf, dtype)),
        loop(LoopKind.REDUCE, "j", N, Accumulate(accumulator, fn, Load("x", J, dtype))),
        Store("y", const(0), accumulator),
    )
    buffers = (Buffer("x", dtype, Access.READ), Buffer("y", dtype, Access.WRITE))
    kernel = Kernel(fn, buffers, ("n",), const(1), parallel(const(1), *body))
    rng = np.random.default_rng(0)
    for n in (1, 15, 16, 33, 150, 517):
        x, y = rng.standard_normal(n).astype(dtype.numpy), np.zeros(1, dtype.numpy)
        run_native(kernel, [x, y], (n,))
        assert y[0] == getattr(np, fn)(x)
        for place in {0, n // 2, n - 1}:
            spoiled = x.copy()
            spoiled[place] = np.nan
            run_native(kernel, [spoiled, y], (n,))
            assert np.isnan(y[0]), (n, place)


def test_a_reduction_does_not_change_the_expression_it_reduces():
    """(x + big) - big must not become x, though the sum of it may be taken in any order."""
    big, accumulator = const(2.0**24, F32), var("acc", F32)
    value = apply("sub", apply("add", Load("x", J, F32), big), big)
    body = (
        Declare(accumulator, const(0.0, F32)),
        loop(LoopKind.REDUCE, "j", N, Accumulate(accumulator, "add", value)),
        Store("y", const(0), accumulator),
    )
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    x, y = np.full(100, 0.25, np.float32), np.full(1, 9, np.float32)
    run_native(Kernel("cancel", buffers, ("n",), const(1), parallel(const(1), *body)), [x, y], (100,))
    assert y[0] == 0


def test_branches_and_assignments_in_order():
    best, where = var("best", F32), var("where")
    body = (
        Declare(best, const(0.0, F32)),
        Declare(where, const(-1)),
        loop(
            LoopKind.SEQ,
            "j",
            N,
            If(
                apply("ge", Load("x", J, F32), best),
                (Assign(best, Load("x", J, F32)), If(apply("gt", J, const(1)), (Assign(where, J),))),
            ),
        ),
        Store("y", const(0), where),
    )
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", I64, Access.WRITE))
    kernel = Kernel("last", buffers, ("n",), const(1), parallel(const(1), *body))
    for x, expected in (([1, 2, 0], -1), ([1, 2, 3], 2), ([-1, -2, 0, -1], 2)):
        y = np.zeros(1, np.int64)
        run_native(kernel, [np.float32(x), y], (len(x),))
        assert y[0] == expected


def test_threefry_gives_the_published_words():
    """The known answers that come with the Random123 library (kat_vectors, threefry2x32 20)."""
    answers = [
        ((0, 0), (0, 0), 0x6B200159),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), 0xC4923A9C),
    ]
    columns = [np.array(column, np.uint32) for column in zip(*((*k, *c) for k, c, _ in answers), strict=True)]
    y = np.empty(len(answers), np.uint32)
    run_native(elementwise("threefry", U32, 4), [*columns, y], (len(answers),))
    assert [hex(word) for word in y] == [hex(word) for _, _, word in answers]
