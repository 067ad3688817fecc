from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from graphc.backend import Failure
from graphc.backends import numba as numba_backend
from graphc.backends.numba import backend, executable, objects, threads
from graphc.ir.dims import Dim
from graphc.ir.types import TensorType
from graphc.loops.kernel import Access, Accumulate, Buffer, Declare, Fail, Kernel, Load, LoopKind, Store, Var
from graphc.lower.plan import GemmItem, KernelItem, Launch, Place, Plan, PlanBuffer
from tests.counting import blocks_kept, calls_of, workers
from tests.loops.builders import F32, I, J, N, apply, at, const, loop, parallel, var
from tests.loops.kernels import CASES


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.get_threads()
    yield
    threads.set_threads(before)


def buffer(index: int, shape: tuple, place: Place, slot: int = 0, dtype=F32) -> PlanBuffer:
    return PlanBuffer(index, f"b{index}", TensorType(dtype, shape), place, slot)


def map_kernel(name: str, fn: str, value: float) -> Kernel:
    """``y[i] = fn(x[i], value)``."""
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    store = Store("y", I, apply(fn, Load("x", I, F32), const(value, F32)))
    return Kernel(name, buffers, ("n",), N, parallel(N, store))


def increase(name: str = "increase") -> Kernel:
    """``w[i] += g[i]`` in place."""
    buffers = (Buffer("g", F32, Access.READ), Buffer("w", F32, Access.UPDATE))
    store = Store("w", I, apply("add", Load("w", I, F32), Load("g", I, F32)))
    return Kernel(name, buffers, ("n",), N, parallel(N, store))


def checked() -> Kernel:
    """Fails where x is negative."""
    x = Load("x", I, F32)
    body = (Fail(apply("lt", x, const(0.0, F32)), const(1), I), Store("y", I, x))
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    return Kernel("checked", buffers, ("n",), N, parallel(N, *body), has_checks=True)


def parameter(array: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(array=array, buffer=array)


def item(kernel: Kernel, buffers: tuple[int, ...], n, **keys) -> KernelItem:
    return KernelItem(kernel, buffers, (n,), n, **keys)


def launches(*items) -> tuple[Launch, ...]:
    return tuple(Launch((each,) if not isinstance(each, tuple) else each, "test") for each in items)


def training_plan(weights: np.ndarray, size) -> Plan:
    """y = checked(2 * x + c); then w += y, where the constant c is 1."""
    buffers = (
        buffer(0, (size,), Place.INPUT),
        buffer(1, (size,), Place.ARENA),
        buffer(2, (size,), Place.OUTPUT),
        buffer(3, (size,), Place.STATE),
        buffer(4, (1,), Place.CONSTANT),
    )
    plus = Kernel(
        "plus",
        (Buffer("x", F32, Access.READ), Buffer("c", F32, Access.READ), Buffer("y", F32, Access.WRITE)),
        ("n",),
        N,
        parallel(N, Store("y", I, apply("add", Load("x", I, F32), Load("c", const(0), F32)))),
    )
    steps = launches(
        item(map_kernel("double", "mul", 2.0), (0, 1), size),
        item(plus, (1, 4, 1), size),
        item(checked(), (1, 2), size, check_base=5),
        item(increase(), (2, 3), size),
    )
    return Plan(None, buffers, steps, 3, (parameter(weights),), (np.ones(1, np.float32),))


def test_a_step_reads_inputs_fills_outputs_and_updates_state():
    weights = np.zeros(7, np.float32)
    bound = backend.compile(training_plan(weights, 7)).bind({})
    x, y = np.arange(7, dtype=np.float32), np.full(7, np.nan, np.float32)
    for step in (1, 2):
        assert bound.run((x,), (y,)) is None
        np.testing.assert_array_equal(y, 2 * x + 1)
        np.testing.assert_array_equal(weights, step * (2 * x + 1))


def test_a_failed_check_leaves_state_alone_and_the_next_step_runs():
    weights = np.zeros(7, np.float32)
    bound = backend.compile(training_plan(weights, 7)).bind({})
    x, y = np.arange(7, dtype=np.float32), np.empty(7, np.float32)
    x[4] = -3
    assert bound.run([x], [y]) == Failure(check=6, detail=4)
    np.testing.assert_array_equal(weights, 0)
    x[4] = 0
    assert bound.run([x], [y]) is None
    np.testing.assert_array_equal(weights, 2 * x + 1)


def test_a_check_in_a_plan_without_updates_fails_too():
    buffers = (buffer(0, (3,), Place.INPUT), buffer(1, (3,), Place.OUTPUT))
    bound = backend.compile(Plan(None, buffers, launches(item(checked(), (0, 1), 3)), 1)).bind({})
    assert bound.run((np.float32([1, -1, 1]),), (np.empty(3, np.float32),)) == Failure(1, 1)


def test_one_executable_serves_all_sizes_and_compiles_once(monkeypatch):
    size = Dim("batch")
    weights = np.zeros(64, np.float32)
    compiled = backend.compile(training_plan(weights, size))
    monkeypatch.setattr(executable.build, "_provide", None)  # nothing is compiled or loaded from here on
    for n in (1, 64, 7, 1):
        x, y = np.arange(n, dtype=np.float32), np.empty(n, np.float32)
        compiled.bind({"batch": n}).run((x,), (y,))
        np.testing.assert_array_equal(y, 2 * x + 1)
    for n in range(1, 70):
        compiled.bind({"batch": n})
    assert len(compiled._bound) == executable.MOST_BINDINGS


def wide_plan() -> Plan:
    """One launch of items with different kernels, sizes and grains, a row reduction, and a product after it."""
    sizes = (100_000, 1, 33_333, 0, 70_001)
    buffers = [buffer(0, (max(sizes),), Place.INPUT)]
    items = []
    for number, size in enumerate(sizes, 1):
        buffers.append(buffer(number, (size,), Place.OUTPUT, number - 1))
        kernel = map_kernel(f"k{number % 2}", ("add", "mul")[number % 2], 1.5)
        items.append(KernelItem(kernel, (0, number), (size,), size, grain=16, cost=3))
    rows = CASES["softmax"].kernel
    buffers.append(buffer(6, (300 * 300,), Place.OUTPUT, 5))
    items.append(KernelItem(rows, (0, 6), (300,), 300, cost=6000))
    buffers.append(buffer(7, (300, 300), Place.OUTPUT, 6))
    product = GemmItem(F32, 6, 6, 7, 300, 300, 300, 300, 300, 300, transpose_b=True)
    return Plan(None, tuple(buffers), (Launch(tuple(items), "wide"), Launch((product,), "product")), 2)


def test_bits_do_not_depend_on_the_threads():
    plan = wide_plan()
    bound = backend.compile(plan).bind({})
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    results = []
    for count in (1, 2, 3, 64, 2):
        threads.set_threads(count)
        outputs = tuple(np.full(b.type.shape, np.nan, np.float32) for b in plan.buffers[1:])
        for _ in range(5):
            assert bound.run((x,), outputs) is None
        results.append([output.tobytes() for output in outputs])
    assert all(result == results[0] for result in results)
    np.testing.assert_array_equal(outputs[0], x * np.float32(1.5))
    np.testing.assert_array_equal(outputs[4], x[:70_001] * np.float32(1.5))


@pytest.mark.skipif(threads.C_LIBRARY is None, reason="there is one thread on this platform")
def test_a_large_launch_runs_on_several_threads_and_a_small_one_does_not():
    seen: dict[int, int] = {}
    for n in (100, 1_000_000):
        plan = Plan(
            None,
            (buffer(0, (n,), Place.INPUT), buffer(1, (n,), Place.OUTPUT)),
            launches(item(map_kernel("k", "add", 1.0), (0, 1), n)),
            1,
        )
        table = backend.compile(plan).bind({})._table
        record = table.words[executable.HEADER_WORDS :][: executable.LAUNCH_WORDS]
        seen[n] = int(record[3])
        assert record[2] == -(-n // executable.UNIT_COST)
    assert seen == {100: 0, 1_000_000: 1}


def test_grains_are_kept():
    """Sub-ranges begin at multiples of the grain, whatever the number of threads."""
    n, grain = 300_000, 1000
    marks = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    plan = Plan(
        None,
        (buffer(0, (n,), Place.INPUT), buffer(1, (n,), Place.OUTPUT)),
        launches(
            item(Kernel("k", marks, ("n",), N, parallel(N, Store("y", I, Load("x", I, F32)))), (0, 1), n, grain=grain)
        ),
        1,
    )
    words = backend.compile(plan).bind({})._table.words
    chunk = words[executable.HEADER_WORDS + executable.LAUNCH_WORDS + 3]
    assert chunk % grain == 0
    assert chunk >= executable.UNIT_COST


def test_two_threads_may_run_one_binding_at_once():
    plan = wide_plan()
    bound = backend.compile(plan).bind({})
    rng = np.random.default_rng(1)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        x = rng.standard_normal(100_000).astype(np.float32) + np.float32(seed)
        outputs = tuple(np.empty(b.type.shape, np.float32) for b in plan.buffers[1:])
        try:
            for _ in range(20):
                bound.run((x,), outputs)
                np.testing.assert_array_equal(outputs[2], x[:33_333] * np.float32(1.5))
                np.testing.assert_array_equal(outputs[1], x[:1] + np.float32(1.5))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert 1 <= len(bound._contexts) <= 4


def test_updates_from_two_threads_are_all_counted():
    n, times = 1000, 200
    weights = np.zeros(n, np.float32)
    buffers = (buffer(0, (n,), Place.INPUT), buffer(1, (n,), Place.STATE))
    plan = Plan(None, buffers, launches(item(increase(), (0, 1), n)), 0, (parameter(weights),))
    bound = backend.compile(plan).bind({})
    ones = np.ones(n, np.float32)
    workers = [threading.Thread(target=lambda: [bound.run((ones,), ()) for _ in range(times)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal(weights, 4 * times)


def test_addresses_found_in_objects_and_asked_for_are_the_same(monkeypatch):
    weights = np.zeros(5, np.float32)
    plan = training_plan(weights, 5)
    x, y = np.arange(5, dtype=np.float32), np.empty(5, np.float32)
    monkeypatch.setattr(objects, "LAYOUT", None)
    bound = backend.compile(plan).bind({})
    assert bound.run([x], [y]) is None
    np.testing.assert_array_equal(y, 2 * x + 1)
    x[0] = -9
    assert bound.run((x,), (y,)) == Failure(6, 0)
    np.testing.assert_array_equal(weights[1:], (2 * x + 1)[1:])


def test_views_and_scalars_are_read_where_they_lie():
    buffers = (buffer(0, (1,), Place.INPUT), buffer(1, (1,), Place.OUTPUT))
    bound = backend.compile(Plan(None, buffers, launches(item(map_kernel("k", "add", 1.0), (0, 1), 1)), 1)).bind({})
    x, y = np.arange(4, dtype=np.float32), np.zeros((), np.float32)
    bound.run((x[2:3],), (y,))
    assert y == 3


def test_a_step_with_outputs_given_allocates_nothing():
    weights = np.zeros(64, np.float32)
    bound = backend.compile(training_plan(weights, 64)).bind({})
    inputs, outputs = (np.ones(64, np.float32),), (np.ones(64, np.float32),)
    for _ in range(10):
        bound.run(inputs, outputs)
    assert blocks_kept(lambda: bound.run(inputs, outputs), 1000) < 5


def test_python_calls_do_not_grow_with_the_number_of_launches():
    def calls(count: int) -> int:
        buffers = (buffer(0, (4,), Place.INPUT), buffer(1, (4,), Place.OUTPUT))
        steps = launches(*[item(map_kernel("k", "add", 1.0), (0, 1), 4)] * count)
        bound = backend.compile(Plan(None, buffers, steps, count)).bind({})
        arguments: tuple[Sequence, Sequence] = (np.ones(4, np.float32),), (np.ones(4, np.float32),)
        return calls_of(lambda: bound.run(*arguments))

    assert calls(1) == calls(40)


def test_source_shows_each_kernel_once_with_its_file():
    x = map_kernel("first", "add", 1.0), map_kernel("second", "add", 1.0), map_kernel("third", "mul", 3.0)
    buffers = (buffer(0, (4,), Place.INPUT), buffer(1, (4,), Place.OUTPUT))
    source = backend.compile(Plan(None, buffers, launches(*(item(k, (0, 1), 4) for k in x)), 3)).source()
    assert source.count("def kernel(args, lo, hi):") == 2
    assert "# first, second: " in source
    assert "float32(3.0)" in source
    for line in source.splitlines():
        if line.startswith("# ") and line.endswith(".py"):
            path = line.rsplit(": ", 1)[1]
            assert Path(path).read_text() in source
    compile(source, "kernels", "exec")


def test_counts_of_threads():
    with pytest.raises(ValueError, match="at least one thread"):
        threads.set_threads(0)
    assert (numba_backend.get_threads, numba_backend.set_threads) == (threads.get_threads, threads.set_threads)
    threads.set_threads(10**6)
    assert threads.get_threads() == (threads.MOST_THREADS if threads.C_LIBRARY else 1)


@pytest.mark.skipif(threads.C_LIBRARY is None, reason="there is one thread on this platform")
def test_workers_sleep_and_wake():
    """Steps with pauses of all lengths around the time that workers spin; none may be lost, or done twice."""
    n = 200_000
    weights = np.zeros(n, np.float32)
    buffers = (buffer(0, (n,), Place.INPUT), buffer(1, (n,), Place.STATE))
    plan = Plan(None, buffers, launches(item(increase(), (0, 1), n)), 0, (parameter(weights),))
    bound = backend.compile(plan).bind({})
    threads.set_threads(3)
    ones = np.ones(n, np.float32)
    for step in range(150):
        bound.run((ones,), ())
        time.sleep((step % 10) * 5e-5)
    np.testing.assert_array_equal(weights, 150)


@pytest.mark.skipif(threads.C_LIBRARY is None, reason="there is one thread on this platform")
def test_workers_are_stopped_and_started_again():
    plan = wide_plan()
    bound = backend.compile(plan).bind({})
    threads.set_threads(3)
    threads._pool.stop()
    assert not workers()
    outputs = tuple(np.empty(b.type.shape, np.float32) for b in plan.buffers[1:])
    for _ in range(2):
        bound.run((np.ones(100_000, np.float32),), outputs)  # without workers the caller does it all
        np.testing.assert_array_equal(outputs[0], 1.5)
        backend.compile(plan)
        assert len(workers()) == 2


FORK = """
import os, sys
import numpy as np
sys.path.insert(0, {root!r})
from tests.numba.test_executable import backend, threads, wide_plan
bound = backend.compile(plan := wide_plan()).bind({{}})
x = np.ones(100_000, np.float32)
outputs = tuple(np.empty(b.type.shape, np.float32) for b in plan.buffers[1:])
threads.set_threads(2)
bound.run((x,), outputs)
child = os.fork()
if child == 0:
    assert threads.get_threads() == 1
    threads.set_threads(2)
    assert threads.get_threads() == 1
    outputs[0][:] = 0
    bound.run((x,), outputs)
    os._exit(0 if (outputs[0] == 1.5).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_runs_on_one_thread(pytestconfig):
    code = FORK.format(root=str(pytestconfig.rootpath))
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0


WARM = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
import graphc.loops.interp, graphc.loops.gpu
from tests.numba.test_executable import backend, wide_plan
bound = backend.compile(plan := wide_plan()).bind({{}})
outputs = tuple(np.empty(b.type.shape, np.float32) for b in plan.buffers[1:])
bound.run((np.ones(100_000, np.float32),), outputs)
print("numba" in sys.modules, float(outputs[0][0]))
"""


def test_a_second_process_does_not_import_numba(pytestconfig, tmp_path):
    code = WARM.format(root=str(pytestconfig.rootpath))
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path / "cache")}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs == ["True 1.5\n", "False 1.5\n"]


def test_reductions_over_a_named_size():
    rows, columns = Dim("rows"), Dim("columns")
    total: Var = var("total", F32)
    index = at(I, var("columns"), J)
    body = (
        Declare(total, const(0.0, F32)),
        loop(LoopKind.REDUCE, "j", var("columns"), Accumulate(total, "add", Load("x", index, F32))),
        Store("y", I, total),
    )
    buffers = (Buffer("x", F32, Access.READ), Buffer("y", F32, Access.WRITE))
    kernel = Kernel("row_sum", buffers, ("rows", "columns"), var("rows"), parallel(var("rows"), *body))
    plan = Plan(
        None,
        (buffer(0, (rows, columns), Place.INPUT), buffer(1, (rows,), Place.OUTPUT)),
        launches(KernelItem(kernel, (0, 1), (rows, columns), rows, cost=columns)),
        1,
    )
    compiled = backend.compile(plan)
    for shape in ((3, 5), (1, 1), (4, 1000), (300, 700)):
        x, y = np.ones(shape, np.float32), np.empty(shape[0], np.float32)
        compiled.bind({"rows": shape[0], "columns": shape[1]}).run((x,), (y,))
        np.testing.assert_array_equal(y, shape[1])
