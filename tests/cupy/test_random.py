"""Random kernels: what is printed, mapped and run by many threads must be what the interpreter computes."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest

from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import module_source
from graphc.loops.gpu import map_to_gpu
from graphc.loops.interp import run_kernel
from graphc.loops.kernel import (
    Accumulate,
    Barrier,
    Declare,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    LoopKind,
    Stmt,
    Store,
    walk,
)
from graphc.loops.verify import verify_kernel
from tests.cupy.emulator import Diverged, Emulator
from tests.loops.builders import (
    BOOL,
    I32,
    I64,
    ROWS,
    U32,
    I,
    J,
    apply,
    at,
    const,
    loop,
    parallel,
    read,
    update,
    var,
    write,
)
from tests.loops.tables import table

SIZE = 45
"""Elements of the arrays that rows work on: more than a warp, no multiple of one."""


def random_expression(rng: random.Random, dtype, depth: int) -> Expr:
    """A tree over buffers a, b, c of int32, int64 and uint32, with every integer and logical function."""
    leaf = {I32: "a", I64: "b", U32: "c"}

    def part(of=dtype):
        return random_expression(rng, of, depth - 1)

    if dtype is BOOL:
        if depth <= 0:
            return const(rng.random() < 0.5, BOOL)
        fn = rng.choice(["and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "select"])
        if fn == "not":
            return apply(fn, part())
        if fn == "select":
            return apply(fn, part(), part(), part())
        of = dtype if fn in ("and", "or", "xor") else rng.choice([I32, I64, U32])
        return apply(fn, part(of), part(of))
    if depth <= 0 or rng.random() < 0.1:
        if rng.random() < 0.6:
            return Load(leaf[dtype], I, dtype)
        small = rng.randint(0, 9) if dtype is U32 else rng.randint(-9, 9)
        return const(rng.choice([small, np.iinfo(dtype.value).max, int(np.iinfo(dtype.value).min)]), dtype)
    fn = rng.choice(
        ["add", "sub", "mul", "floordiv", "mod", "min", "max", "and", "or", "xor"] * 2
        + ["neg", "abs", "sign", "not", "select", "cast", "shl", "shr", "pow"]
    )
    if fn in ("neg", "abs", "sign", "not"):
        return apply(fn, part())
    if fn == "select":
        return apply(fn, part(BOOL), part(), part())
    if fn == "cast":
        return apply(fn, part(rng.choice([I32, I64, U32, BOOL])), dtype=dtype)
    if fn in ("shl", "shr"):
        return apply(fn, part(), apply("and", part(), const(31, dtype)))
    if fn == "pow":
        return apply(fn, part(), const(rng.randint(0, 5), dtype))
    return apply(fn, part(), part())


def random_table(seed: int) -> Kernel:
    rng = random.Random(seed)
    results = [random_expression(rng, dtype, 4) for dtype in (I32, I64, U32, BOOL) for _ in range(6)]
    return table(f"table_{seed}", (read("a", I32), read("b", I64), read("c", U32)), results)


def place(rng: random.Random, array: str, index: Expr) -> Expr:
    """Where an element of an array lies: rows of ``g`` and ``h`` follow each other, Locals have one."""
    return at(I, const(SIZE), index) if array in "gh" else index


def random_index(rng: random.Random) -> Expr:
    mirrored = apply("sub", const(SIZE - 1), J)
    turned = apply("mod", apply("add", J, const(rng.randint(1, SIZE - 1))), const(SIZE))
    return rng.choice([J, J, J, mirrored, turned])


def element(rng: random.Random, index: Expr, array: str | None = None) -> Load:
    array = array or rng.choice("abgh")
    return Load(array, place(rng, array, index), I64)


def random_statement(rng: random.Random, depth: int) -> list[Stmt]:
    """A step of a row on Locals a, b and buffers g, h: dealt out, by all, by the first thread, or nested."""
    fixed = const(rng.randrange(SIZE))
    total = var("total")
    kind = rng.choice(["vector", "vector", "vector", "reduce", "store", "scalar", *(["seq", "if"] if depth else [])])
    target = rng.choice("abgh")
    if kind == "vector":
        to, source = random_index(rng), rng.choice("abgh")
        # an iteration may read of the target only what is its own
        value = element(rng, to if source == target else random_index(rng), source)
        return [loop(LoopKind.VECTOR, "j", const(SIZE), Store(target, place(rng, target, to), apply("add", value, J)))]
    if kind == "reduce":
        return [loop(LoopKind.REDUCE, "j", const(SIZE), Accumulate(total, "add", element(rng, random_index(rng))))]
    if kind == "store":
        return [Store(target, place(rng, target, fixed), apply("xor", total, element(rng, fixed)))]
    if kind == "scalar":
        return [Accumulate(total, "max", element(rng, fixed))]
    body = tuple(s for _ in range(rng.randint(1, 3)) for s in random_statement(rng, depth - 1))
    if kind == "seq":
        return [For(f"t{depth}", const(0), const(rng.randint(0, 3)), LoopKind.SEQ, body)]
    return [If(apply("lt", apply("mod", total, const(3)), const(rng.randint(1, 2))), body)]


def random_row(seed: int) -> Kernel:
    rng = random.Random(seed)
    filled = [
        loop(LoopKind.VECTOR, "j", const(SIZE), Store(name, J, apply("mul", J, const(factor))))
        for name, factor in (("a", 3), ("b", 5))
    ]
    steps = [s for _ in range(8) for s in random_statement(rng, 2)]
    copied = [
        loop(LoopKind.VECTOR, "j", const(SIZE), Store(f"to_{name}", at(I, const(SIZE), J), Load(name, J, I64)))
        for name in "ab"
    ]
    return Kernel(
        f"row_{seed}",
        (update("g", I64), update("h", I64), write("to_a", I64), write("to_b", I64), write("sum", I64)),
        ("rows",),
        ROWS,
        parallel(
            ROWS,
            Local("a", I64, SIZE),
            Local("b", I64, SIZE),
            *filled,
            Declare(var("total"), const(0)),
            *steps,
            *copied,
            Let(var("result"), var("total")),
            Store("sum", I, var("result")),
        ),
    )


TABLES = [random_table(seed) for seed in range(6)]
ROW_KERNELS = [random_row(seed) for seed in range(40)]
MAPPED = {kernel.name: map_to_gpu(kernel) for kernel in (*TABLES, *ROW_KERNELS)}


def diverging() -> Kernel:
    """Some threads wait at a barrier that the others never reach; not well-formed, of course."""
    (outer,) = MAPPED["row_0"].body
    waits = For("j", const(0), const(3), LoopKind.THREAD, (Barrier(),))
    return replace(MAPPED["row_0"], name="diverging", body=(replace(outer, body=(waits,)),))


def unguarded(kernel: Kernel) -> Kernel:
    """The kernel without its barriers."""

    def strip(statements: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        kept = (s for s in statements if not isinstance(s, Barrier))
        return tuple(replace(s, body=strip(s.body)) if isinstance(s, For | If) else s for s in kept)

    return replace(kernel, name=f"{kernel.name}_unguarded", body=strip(kernel.body))


UNGUARDED = [unguarded(MAPPED[kernel.name]) for kernel in ROW_KERNELS]


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return Emulator([*MAPPED.values(), *UNGUARDED, diverging()])


def arguments(kernel: Kernel, count: int) -> list[np.ndarray]:
    """Random whole numbers, small and of all bits; ``count`` of them for each row of each buffer."""
    rng = np.random.default_rng(len(kernel.name))
    arrays = []
    for buffer in kernel.buffers:
        if buffer.dtype is BOOL:
            arrays.append(np.zeros(count, bool))
            continue
        limits = np.iinfo(buffer.dtype.value)
        wide = rng.integers(limits.min, limits.max, count, buffer.dtype.value, endpoint=True)
        arrays.append(np.where(rng.random(count) < 0.5, wide, rng.integers(0, 9, count)).astype(buffer.dtype.value))
    return arrays


def outputs_of_both(emulator: Emulator, kernel: Kernel, printed: Kernel, count: int, size: int, downwards: bool):
    """What the interpreter and the printed kernel leave in all arrays."""
    arrays = arguments(kernel, count)
    copies = [array.copy() for array in arrays]
    run_kernel(kernel, arrays, [size])
    emulator.run(printed, copies, [size], np.zeros(2, np.int64), downwards)
    return arrays, copies


@pytest.mark.parametrize("kernel", TABLES, ids=lambda kernel: kernel.name)
def test_expressions_mean_the_same(emulator, kernel):
    expected, found = outputs_of_both(emulator, kernel, MAPPED[kernel.name], 300, 50, False)
    for buffer, a, b in zip(kernel.buffers, expected, found, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=buffer.name)


@pytest.mark.parametrize("downwards", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("kernel", ROW_KERNELS, ids=lambda kernel: kernel.name)
def test_threads_wait_for_each_other(emulator, kernel, downwards):
    expected, found = outputs_of_both(emulator, kernel, MAPPED[kernel.name], 3 * SIZE, 3, downwards)
    for buffer, a, b in zip(kernel.buffers, expected, found, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=buffer.name)


def test_without_barriers_they_do_not(emulator):
    """The emulator's two orders find most kernels whose barriers are missing."""
    wrong = [
        kernel.name for kernel, printed in zip(ROW_KERNELS, UNGUARDED, strict=True) if differ(emulator, kernel, printed)
    ]
    guarded = [k.name for k in ROW_KERNELS if any(isinstance(s, Barrier) for s in walk(MAPPED[k.name].body))]
    assert set(wrong) <= set(guarded)
    assert len(wrong) > len(guarded) / 2 > 10


def differ(emulator: Emulator, kernel: Kernel, printed: Kernel) -> bool:
    try:
        runs = [outputs_of_both(emulator, kernel, printed, 3 * SIZE, 3, down) for down in (False, True)]
    except Diverged:  # they took a branch on what they should have waited for
        return True
    return any(not np.array_equal(a, b) for run in runs for a, b in zip(*run, strict=True))


def test_diverging_threads_are_reported(emulator):
    kernel = diverging()
    with pytest.raises(Diverged, match="threads 0 and 3 wait at lines"):
        emulator.run(kernel, arguments(kernel, SIZE), [1], np.zeros(2, np.int64))


def test_mapped_kernels_are_well_formed():
    for kernel in MAPPED.values():
        verify_kernel(kernel)
    assert all(MAPPED[kernel.name].threads == 64 for kernel in ROW_KERNELS)


def test_nvrtc_compiles_random_expressions():
    assert compile_cubin(module_source([MAPPED[kernel.name] for kernel in TABLES]), "sm_90").code
