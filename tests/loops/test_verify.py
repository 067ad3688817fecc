from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.loops.gpu import map_to_gpu
from graphc.loops.kernel import (
    Accumulate,
    Apply,
    Assign,
    Barrier,
    Combine,
    Declare,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Store,
)
from graphc.loops.scalar import accumulate_over, identity
from graphc.loops.verify import ACCUMULATORS, verify_kernel
from tests.loops.builders import (
    BOOL,
    F32,
    F64,
    I32,
    I64,
    U32,
    I,
    J,
    N,
    apply,
    const,
    loop,
    parallel,
    read,
    update,
    var,
    write,
)
from tests.loops.kernels import CASES

SUM, X = var("s", F32), Load("x", I, F32)
ZERO = const(0.0, F32)


def kernel(*body, extent=N, **kwargs) -> Kernel:
    return Kernel("k", (read("x", F32), write("y", F32)), ("n",), extent, parallel(extent, *body), **kwargs)


def value(expression) -> Kernel:
    return kernel(Let(var("v", expression.dtype), expression))


def reduce(*body) -> Kernel:
    return kernel(Declare(SUM, ZERO), loop(LoopKind.REDUCE, "j", N, *body))


BAD = {
    "the body must be one parallel loop": replace(kernel(), body=(Let(var("k"), const(1)),)),
    "only Lets may stand before the parallel loop": replace(kernel(), body=(*kernel().body, *kernel().body)),
    "q is shared by all iterations but loads what they write": replace(
        kernel(),
        buffers=(update("x", F32), write("y", F32)),
        body=(Let(var("q", F32), Load("x", const(0), F32)), *kernel().body),
    ),
    "the parallel loop must stop at the extent": replace(kernel(), extent=const(3)),
    "must start at 0": replace(kernel(), body=(For("i", const(1), N, LoopKind.PARALLEL, ()),)),
    "a parallel loop cannot stand here": kernel(loop(LoopKind.PARALLEL, "j", N)),
    "a thread loop cannot stand here": kernel(loop(LoopKind.THREAD, "j", N)),
    "bad name 'k k'": replace(kernel(), name="k k"),
    "bad name 'v-1'": kernel(Let(var("v-1"), const(1))),
    "n is defined twice": kernel(Declare(var("n"), const(1))),
    "i is defined twice": kernel(loop(LoopKind.SEQ, "i", N)),
    "x is defined twice": kernel(Local("x", F32, 3)),
    "q is not defined here": value(apply("add", var("q"), I)),
    "j is not defined here": kernel(loop(LoopKind.SEQ, "j", N), Store("y", J, ZERO)),
    "i is int64, not float32": value(apply("neg", var("i", F32))),
    "the value of v is float32, not int64": kernel(Let(var("v"), ZERO)),
    "there is no scalar function frobnicate": value(Apply("frobnicate", (I,), I64)),
    "add takes 2 arguments": value(Apply("add", (I,), I64)),
    r"add does not take \(int64, float32\) to int64": value(Apply("add", (I, ZERO), I64)),
    r"add does not take \(bool, bool\) to bool": value(apply("add", const(True, BOOL), const(True, BOOL))),
    r"div does not take \(int64, int64\) to int64": value(apply("div", I, I)),
    r"exp does not take \(int64\) to int64": value(apply("exp", I)),
    r"and does not take \(float32, float32\) to float32": value(apply("and", ZERO, ZERO)),
    r"shl does not take \(bool, bool\) to bool": value(apply("shl", const(True, BOOL), const(True, BOOL))),
    r"lt does not take \(int64, int32\) to bool": value(apply("lt", I, const(1, I32))),
    r"select does not take \(int64, int64, int64\) to int64": value(apply("select", I, I, I)),
    r"isnan does not take \(int64\) to bool": value(apply("isnan", I)),
    r"threefry does not take": value(apply("threefry", const(1, U32), const(1, U32), const(1, U32), I)),
    "the literal 1 is not of the kind of float32": value(apply("neg", const(1, F32))),
    "the literal True is not of the kind of int64": value(apply("neg", const(True))),
    "the literal -1 does not fit uint32": value(apply("neg", const(-1, U32))),
    "y is loaded before anything is stored": value(Load("y", I, F32)),
    "x holds float32, not float64": value(Load("x", I, F64)),
    "the index of x is int32, not int64": value(Load("x", const(0, I32), F32)),
    "z is not defined here": kernel(Store("z", I, X)),
    "x is read only": kernel(Store("x", I, X)),
    "what is stored to y is int64": kernel(Store("y", I, I)),
    "v is a Let and cannot change": kernel(Let(var("v"), I), Assign(var("v"), I)),
    "i is a loop variable and cannot change": kernel(Assign(I, I)),
    "s is not defined here": kernel(Assign(SUM, ZERO)),
    "s is float32, not float64": kernel(Declare(SUM, ZERO), Assign(var("s", F64), const(1.0, F64))),
    "s is assigned in a loop that does not carry it": reduce(Assign(SUM, ZERO)),
    "s is accumulated in a loop that does not carry it": kernel(
        Declare(SUM, ZERO), loop(LoopKind.VECTOR, "j", N, Accumulate(SUM, "add", X))
    ),
    "sub does not accumulate": reduce(Accumulate(SUM, "sub", X)),
    "or does not take float32": reduce(Accumulate(SUM, "or", X)),
    "s is read in the loop that reduces it": reduce(Accumulate(SUM, "add", SUM)),
    "s is accumulated by add and max in one loop": reduce(Accumulate(SUM, "add", X), Accumulate(SUM, "max", X)),
    "l must have at least one element": kernel(Local("l", F32, 0)),
    "l must not be shared here": kernel(Local("l", F32, 3, shared=True)),
    "a condition is int64, not bool": kernel(If(I, ())),
    "has a Fail but not has_checks": kernel(Fail(const(True, BOOL), const(0), I)),
    "the detail of a check is float32": kernel(Fail(const(True, BOOL), const(0), X), has_checks=True),
    "a Barrier stands outside thread loops of a mapped kernel": kernel(Barrier()),
    "a Combine stands outside thread loops of a mapped kernel": kernel(Declare(SUM, ZERO), Combine(SUM, "add")),
    "l is not defined here": kernel(If(const(True, BOOL), (Local("l", F32, 3),)), Store("l", const(0), X)),
}


@pytest.mark.parametrize("message", BAD)
def test_broken_rules_are_named(message):
    with pytest.raises(VerifyError, match=message) as caught:
        verify_kernel(BAD[message])
    assert str(caught.value).startswith(f"kernel {BAD[message].name}: ")


def mapped(*body, threads=64) -> Kernel:
    outer = For("b", const(0), N, LoopKind.BLOCK, body)
    return Kernel("k", (read("x", F32), write("y", F32)), ("n",), N, (outer,), threads=threads)


BAD_MAPPED = {
    "the body must be one block loop": replace(kernel(), threads=64),
    "fill warps of 32": mapped(threads=50),
    "at most 1024": mapped(threads=2048),
    "a Store to y must stand in a thread loop": mapped(Store("y", var("b"), ZERO)),
    "a Barrier stands outside thread loops": mapped(loop(LoopKind.THREAD, "j", N, Barrier())),
    "a thread loop cannot stand here": mapped(loop(LoopKind.THREAD, "j", N, loop(LoopKind.THREAD, "k", N))),
    "a vector loop cannot stand here": mapped(loop(LoopKind.VECTOR, "j", N)),
    "l must be shared here": mapped(Local("l", F32, 3)),
    "l must not be shared here": mapped(loop(LoopKind.THREAD, "j", N, Local("l", F32, 3, shared=True))),
    "s is assigned in a loop that does not carry it": mapped(
        Declare(SUM, ZERO), loop(LoopKind.THREAD, "j", N, Assign(SUM, ZERO))
    ),
}


@pytest.mark.parametrize("message", BAD_MAPPED)
def test_broken_rules_of_mapped_kernels_are_named(message):
    with pytest.raises(VerifyError, match=message):
        verify_kernel(BAD_MAPPED[message])


def test_sibling_loops_may_share_a_variable():
    verify_kernel(kernel(loop(LoopKind.SEQ, "j", N), loop(LoopKind.SEQ, "j", N)))


def test_kernels_are_mapped_once():
    with pytest.raises(VerifyError, match="is mapped already"):
        map_to_gpu(map_to_gpu(CASES["chain"].kernel))


@pytest.mark.parametrize("dtype", [BOOL, U32, I32, I64, F32, F64])
@pytest.mark.parametrize("fn", sorted(ACCUMULATORS))
def test_identities_change_nothing(fn, dtype):
    if (dtype is BOOL and fn not in ("and", "or")) or (dtype.is_float and fn in ("and", "or")):
        return  # no such accumulator
    some = np.array([0, 1, 3, 77], dtype.numpy)
    start = dtype.numpy.type(identity(fn, dtype))
    for item in some:
        assert accumulate_over(fn, start, np.array([item])) == item
