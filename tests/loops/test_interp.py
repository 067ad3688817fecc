from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.loops.gpu import map_to_gpu
from graphc.loops.interp import evaluate_size, run_kernel
from graphc.loops.kernel import Apply, Const, Kernel, Load, Local, LoopKind, Store
from graphc.loops.scalar import apply_scalar, threefry2x32
from tests.loops.builders import F32, I64, I, J, N, apply, const, loop, parallel, read, update, write
from tests.loops.kernels import CASES, RUNS


@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "mapped"])
@pytest.mark.parametrize(("name", "sizes"), RUNS)
def test_kernels_compute_what_numpy_does(name, sizes, mapped):
    case = CASES[name]
    arrays = case.arguments(np.random.default_rng(len(name) + sum(sizes)), *sizes)
    expected = case.expected(arrays, *sizes)
    status = np.zeros(2, np.int64)
    run_kernel(map_to_gpu(case.kernel) if mapped else case.kernel, arrays, sizes, status)
    case.check(arrays, expected)
    assert status.tolist() == case.status(arrays, *sizes)


def test_sub_ranges_make_up_the_whole():
    case = CASES["chain"]
    arrays = case.arguments(np.random.default_rng(1), 7, 11)
    expected = case.expected(arrays, 7, 11)
    arrays[-1][:] = 77
    run_kernel(case.kernel, arrays, (7, 11), lo=0, hi=10)
    run_kernel(case.kernel, arrays, (7, 11), lo=20)
    flat = arrays[-1].reshape(-1)
    assert (flat[10:20] == 77).all()
    run_kernel(case.kernel, arrays, (7, 11), lo=10, hi=20)
    case.check(arrays, expected)


def test_the_smallest_check_is_recorded():
    gather = CASES["gather"]
    arrays = [np.zeros((3, 2), np.float32), np.int32([0, 9, -1]), np.empty((3, 2), np.float32)]
    for before, after in (([0, 0], [4, 9]), ([9, 1], [4, 9]), ([2, 1], [2, 1])):
        status = np.array(before)
        run_kernel(gather.kernel, arrays, (3, 3, 2), status)
        assert status.tolist() == after


def copy_kernel(index=I, value=None, local=None) -> Kernel:
    value = Load("x", index, F32) if value is None else value
    body = (Local("l", F32, 4),) if local else ()
    return Kernel("copy", (read("x", F32), write("y", F32)), ("n",), N, parallel(N, *body, Store("y", I, value)))


WRONG = {
    "behind": (copy_kernel(apply("add", I, const(1))), "index 5 of x is out of bounds"),
    "before": (copy_kernel(apply("sub", I, const(1))), "index -1 of x is out of bounds"),
    "unwritten": (copy_kernel(value=Load("l", const(1), F32), local=True), "l is read before it is written"),
    "race": (
        Kernel(
            "race", (read("x", F32), write("y", F32)), ("n",), N, parallel(N, Store("y", const(0), Load("x", I, F32)))
        ),
        "independent iterations store to one element of y",
    ),
}


def one_by_one(kernel: Kernel) -> Kernel:
    """The same, with a Local in the loop so that its iterations do not run at once."""
    (outer,) = kernel.body
    return replace(kernel, body=(replace(outer, body=(Local("unused", F32, 1), *outer.body)),))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_accesses_are_found(name):
    kernel, message = WRONG[name]
    for variant in (kernel,) if name == "race" else (kernel, one_by_one(kernel)):
        with pytest.raises(VerifyError, match=message):
            run_kernel(variant, [np.zeros(5, np.float32), np.zeros(5, np.float32)], [5])


def test_unwritten_outputs_cannot_be_read():
    kernel = Kernel(
        "late", (write("y", F32),), ("n",), N,
        parallel(N, loop(LoopKind.SEQ, "j", I, Store("y", J, const(1.0, F32))), Store("y", I, Load("y", I, F32))),
    )  # fmt: skip
    with pytest.raises(VerifyError, match="y is read before it is written"):
        run_kernel(kernel, [np.zeros(3, np.float32)], [3])


def test_arguments_must_fit():
    kernel, x = copy_kernel(), np.zeros(4, np.float32)
    for arrays, sizes, message in (
        ([x], [4], "takes 2 arrays"),
        ([x, x.astype(np.float64)], [4], "y must be a C-contiguous array of float32"),
        ([x, np.zeros(8, np.float32)[::2]], [4], "y must be a C-contiguous"),
        ([x, x], [4], "y and x overlap"),
    ):
        with pytest.raises(VerifyError, match=message):
            run_kernel(kernel, arrays, sizes)
    with pytest.raises(VerifyError, match="needs a status cell"):
        run_kernel(CASES["gather"].kernel, [x.reshape(2, 2), np.int32([0]), np.zeros(2, np.float32)], (1, 2, 2))


def test_update_buffers_are_read_and_written_in_place():
    kernel = Kernel(
        "double",
        (update("x", F32),),
        ("n",),
        N,
        parallel(N, Store("x", I, apply("add", Load("x", I, F32), Load("x", I, F32)))),
    )
    x = np.arange(5, dtype=np.float32)
    run_kernel(kernel, [x], [5])
    assert x.tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("key", "counter", "block"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_answers(key, counter, block):
    words = threefry2x32(*(np.uint32(word) for word in (*key, *counter)))
    assert tuple(int(word) for word in words) == block


def test_scalars_keep_their_type():
    one = np.float32(1)
    for fn in ("exp", "sigmoid", "softplus", "erf", "rsqrt", "sign"):
        assert type(apply_scalar(fn, (one,), F32)) is np.float32, fn
    assert type(apply_scalar("select", (np.bool_(True), one, one), F32)) is np.float32


def test_sizes_are_evaluated():
    expression = Apply("floordiv", (apply("add", N, const(63)), Const(64, I64)), I64)
    assert evaluate_size(expression, {"n": 65}) == 2
