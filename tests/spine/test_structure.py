"""What a step is made of: one native call, no allocation, code that needs nothing of Python, few kernels."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc import cache
from graphc.backends.numba import build
from graphc.lower.plan import GemmItem, KernelItem, Launch, Place
from tests.counting import blocks_kept, bytes_kept, calls_of
from tests.ops.test_conformance import BACKENDS
from tests.spine.models import batch, classifier_model, classifier_step

LAYERS = 784, 512, 256, 10
WARM = 200
"""Steps after which Python's own lists of freed objects are full."""


@pytest.fixture(scope="module")
def mlp() -> gx.Program:
    """The benchmark's training step."""
    return classifier_step(LAYERS, rate=0.2)


@pytest.fixture(scope="module", params=["nodes", "layers"])
def step(request: pytest.FixtureRequest, mlp: gx.Program) -> gx.Program:
    """The benchmark's training step, of nodes and of layers."""
    return mlp if request.param == "nodes" else classifier_model(LAYERS, rate=0.2).programs["train"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_python_calls_of_a_step_do_not_grow_with_the_layers(elsewhere: bool) -> None:
    """Not where parameters of other programs lie on another device, either."""

    class Nowhere:
        def fetch(self) -> None: ...

        def expire(self) -> None: ...

    if elsewhere:
        gx.parameter("other", np.zeros(2, np.float32)).add_mirror(Nowhere())
    counts: list[int] = []
    for layers in (2, 20):
        step, feeds = classifier_step([8] * (layers + 1)), batch(4, 8, 8)
        step(**feeds)
        counts.append(calls_of(lambda step=step, feeds=feeds: step(**feeds)))
    assert counts[0] == counts[1] <= 40, counts


def test_a_step_with_outputs_given_allocates_nothing_that_stays_and_no_array_while_it_runs(mlp: gx.Program) -> None:
    """Python's own small objects (a dict of arguments, an argument tuple, an int) come and go: below 4 KiB at the peak."""
    feeds, out = batch(128, 784, 10), {"loss": np.zeros((), np.float32)}
    for _ in range(WARM):
        mlp(**feeds, out=out)
    kept, peak = bytes_kept(lambda: mlp(**feeds, out=out), 50)
    assert kept < 256, f"{kept} bytes stayed after 50 steps"
    assert peak < 4096, f"a step allocated {peak} bytes"


def test_results_given_up_are_freed(mlp: gx.Program) -> None:
    feeds = batch(16, 784, 10)
    for _ in range(WARM):
        mlp(**feeds)
    assert blocks_kept(lambda: mlp(**feeds), 50) < 20


# object code


def symbols_of(data: bytes) -> Iterator[str]:
    """The names in the symbol table of an ELF object."""
    assert data[:4] == b"\x7fELF"
    assert data[4] == 2
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * i) for i in range(count)]
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[link][4]
        for place in range(offset, offset + length, entry):
            start = names + struct.unpack_from("<I", data, place)[0]
            yield data[start : data.index(b"\0", start)].decode()


def object_code(program: gx.Program) -> dict[str, bytes]:
    """What the cache holds for a program: its kernels, the executor and the products, by symbol."""
    executable: Any = program.executable
    codes = [build._kernel_code(build.source_of(kernel)) for kernel in executable.kernels]
    codes += [build._native_code(name) for name in executable.native]
    found = {code.symbol: cache.get(code.key, build.OBJECT) for code in codes}
    return {symbol: data for symbol, data in found.items() if data is not None}


@pytest.mark.skipif(sys.platform != "linux", reason="object files of other platforms are not ELF")
def test_no_object_code_refers_to_python_or_to_numbas_run_time(mlp: gx.Program) -> None:
    table = gx.parameter("table", np.ones((5, 3), np.float32))
    rows = gx.placeholder("rows", ("n",), "int64")
    picked = gx.softmax(gx.take(table, rows)) + gx.uniform((3,), np.uint32(1))
    gather = gx.compile({"y": picked, "best": gx.argmax(picked, axis=0)}, inputs=[rows], backend="numba")
    for program in (mlp, gather):
        code = object_code(program)
        assert len(code) >= 4
        for symbol, data in code.items():
            names = set(symbols_of(data))
            assert symbol in names
            foreign = {name for name in names if name.startswith(("NRT_", "Py", "_Py", "numba"))}
            assert not foreign, (symbol, foreign)


def test_sizes_one_to_128_compile_machine_code_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step = classifier_step([6, 5, 4], rate=0.2)
    monkeypatch.setattr(build, "_provide", _forbidden)
    monkeypatch.setattr(cache, "put", _forbidden)
    for size in range(1, 129):
        assert step(**batch(size, 6, 4))["loss"].shape == ()


def _forbidden(*arguments: object) -> None:
    raise AssertionError("machine code was asked for")


# the plan of the benchmark's step


def launches_with(program: gx.Program, op: str) -> list[Launch]:
    return [launch for launch in program.plan.launches if any(node.op.name == op for node in launch.nodes)]


def kernels_with(program: gx.Program, *functions: str) -> list[str]:
    """Names of the distinct kernels that compute one of these scalar functions."""
    found = {item.kernel for launch in program.plan.launches for item in launch.items if isinstance(item, KernelItem)}
    return [kernel.name for kernel in found if any(f"fn='{name}'" in repr(kernel) for name in functions)]


def test_softmax_cross_entropy_and_its_gradient_are_one_kernel(step: gx.Program) -> None:
    (name,) = kernels_with(step, "exp")
    rows = _kernel_rows(step.explain(batch=128))
    (loss_row,) = [row for row in rows if f"kernel {name}:" in row[0]]
    text = "\n".join(loss_row)
    assert "sparse_softmax_cross_entropy(labels, logits)" in text or "made.compile(" in text
    assert "exp" in text
    assert "log" in text


def test_adam_of_all_parameters_is_one_kernel_in_place(step: gx.Program) -> None:
    launch = step.plan.launches[-1]
    adam = [item for item in launch.items if isinstance(item, KernelItem) and "sqrt" in repr(item.kernel)]
    assert len(adam) == 6
    assert len({item.kernel for item in adam}) == 1
    updated: list[int] = []
    for item in adam:
        for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True):
            assert buffer.access.value != "write", "every moment and parameter is changed where it lies"
            if buffer.access.value == "update":
                assert step.plan.buffers[index].place is Place.STATE
                updated.append(index)
    assert len(set(updated)) == len(updated) == 18
    assert "over 6 sets of buffers" in step.explain(batch=128)


def test_the_step_is_eight_products_and_at_most_ten_kernels(step: gx.Program) -> None:
    items = [item for launch in step.plan.launches for item in launch.items]
    assert sum(isinstance(item, GemmItem) for item in items) == 8
    assert len({item.kernel for item in items if isinstance(item, KernelItem)}) <= 10


@pytest.mark.parametrize("size", [1, 32, 128])
def test_the_arena_is_hardly_larger_than_what_must_be_alive_at_once(step: gx.Program, size: int) -> None:
    memory = step.memory(batch=size)
    assert memory.peak_bytes <= 1.15 * memory.largest_live_set_bytes
    assert memory.largest_live_set_bytes <= memory.peak_bytes <= memory.naive_bytes


def test_explain_shows_lines_kernels_bytes_and_the_arena(mlp: gx.Program) -> None:
    text = mlp.explain(batch=128)
    assert "batch = 128" in text
    assert all(part in text for part in ("arena", "largest live set", "moved"))
    lines = Path(__file__).with_name("models.py").read_text().splitlines()
    for part in ("x = gx.dropout(x, rate", "x = x @ parameters[number]", "updates[v] = 0.999 * v"):
        number = next(i for i, line in enumerate(lines, 1) if part in line)
        assert f"models.py:{number}   {lines[number - 1].strip()}" in text


def _kernel_rows(text: str) -> list[list[str]]:
    """Each launch of the report: its kernels' rows, then its lines."""
    launches: list[list[str]] = []
    for row in text.splitlines():
        if row.startswith("["):
            launches.append([])
        elif launches:
            launches[-1].append(row)
    return [[row, *launch] for launch in launches for row in launch if "kernel " in row]


def test_nothing_falls_back_to_python(mlp: gx.Program) -> None:
    """The table of all operations runs on this backend, and a plan holds kernels and products, nothing else."""
    assert "numba" in BACKENDS
    assert all(isinstance(item, KernelItem | GemmItem) for launch in mlp.plan.launches for item in launch.items)
