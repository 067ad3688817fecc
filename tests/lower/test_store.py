"""Plans on disk: a program from a kept plan is the one that compiling makes, to the bit and in every word it says."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc import cache
from graphc.backends.numba import NumbaBackend
from graphc.ir.graph import Graph, make_graph
from graphc.ir.node import apply
from graphc.ir.op import Op, op_class, registry
from graphc.ir.types import TensorType
from graphc.lower import fingerprint, store
from graphc.passes import prepare
from tests.spine.models import batch, classifier_step
from tests.spine.random_graphs import random_graph

SIZES = 12, 16, 8, 5


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Path]]]:
    """Keep all plans, in a place of the test's own beside the kernels that tests share: ``kept()`` lists the files."""
    monkeypatch.setattr(store, "FEWEST_NODES", 0)
    monkeypatch.setattr(store, "KIND", f"plan-{tmp_path.parent.name}-{tmp_path.name}")
    root = cache.folder()
    assert root is not None
    place = root / store.KIND
    yield lambda: sorted(path for path in place.rglob("*") if path.is_file())
    shutil.rmtree(place, ignore_errors=True)


def is_warm(program: gx.Program) -> bool:
    """Was it made of a kept plan, and nothing compiled since?"""
    return "_lowered" not in vars(program) and program._kept.plan.graph is program.graph


# warm is cold


def perceptron() -> tuple[gx.Program, dict[str, Any]]:
    """Adam with dropout, labels that are checked, and a symbolic batch."""
    return classifier_step(SIZES, rate=0.2), batch(7, SIZES[0], SIZES[-1])


def recurrent() -> tuple[gx.Program, dict[str, Any]]:
    """A loop, and the loop that differentiates it."""
    rng = np.random.default_rng(0)
    w = gx.parameter("w", rng.standard_normal((4, 4)).astype(np.float32) / 4)
    b = gx.parameter("b", np.zeros(4, np.float32))
    xs = gx.placeholder("xs", ("time", "batch", 4))

    def step(h: gx.Node, x: gx.Node) -> tuple[gx.Node, gx.Node]:
        h = gx.tanh(x + h @ w + b)
        return h, h

    last, all_of_them = gx.scan(step, gx.zeros((xs.shape[1], 4)), xs)
    loss = gx.mean(last**2) + gx.sum(all_of_them) * 0.01
    updates = {p: p - 0.1 * g for p, g in zip((w, b), gx.grad(loss, [w, b]), strict=True)}
    program = gx.compile({"loss": loss, "last": last}, inputs=[xs], updates=updates, backend="numba")
    return program, {"xs": rng.standard_normal((5, 3, 4)).astype(np.float32)}


def branching() -> tuple[gx.Program, dict[str, Any]]:
    """A branch with a check in it, an updated slice, a constant table and one that the compiler computes."""
    x, i = gx.placeholder("x", (6,)), gx.placeholder("i", ("n",), "int64")
    table = gx.constant(np.arange(12, dtype=np.float32).reshape(6, 2))
    folded = gx.exp(gx.constant(np.linspace(0, 1, 6, dtype=np.float32)))
    y = gx.cond(gx.sum(x) > 0, lambda: gx.sum(gx.take(table, i, axis=0)), lambda: gx.sum(x * folded))
    z = gx.update_slice(x * folded, gx.reshape(y, (1,)), gx.cast(gx.argmax(x), "int64"))
    program = gx.compile({"y": y, "z": z}, inputs=[x, i], backend="numba")
    return program, {"x": np.float32([3, 1, 2, -1, 0, 1]), "i": np.array([1, 5, 0])}


def convolving() -> tuple[gx.Program, dict[str, Any]]:
    """Convolution, pooling and normalization, with their gradients."""
    rng = np.random.default_rng(1)
    x, k = gx.placeholder("x", ("n", 8, 8, 3)), gx.parameter("k", rng.standard_normal((3, 3, 3, 4)).astype(np.float32))
    h = gx.max_pool(gx.relu(gx.conv(x, k, padding="same")), 2)
    loss = gx.mean((h - gx.mean(h, axis=(0, 1, 2), keepdims=True)) ** 2)
    program = gx.compile({"loss": loss}, inputs=[x], updates={k: k - 0.1 * gx.grad(loss, [k])[0]}, backend="numba")
    return program, {"x": rng.standard_normal((2, 8, 8, 3)).astype(np.float32)}


def frugal() -> tuple[gx.Program, dict[str, Any]]:
    """A step within a memory budget."""
    rng = np.random.default_rng(2)
    weights = [gx.parameter(f"w{k}", rng.standard_normal((16, 16)).astype(np.float32) / 4) for k in range(6)]
    x = h = gx.placeholder("x", (32, 16))
    for w in weights:
        h = gx.tanh(h @ w)
    loss = gx.mean(h**2)
    updates = {w: w - 0.1 * g for w, g in zip(weights, gx.grad(loss, weights), strict=True)}
    program = gx.compile({"loss": loss}, inputs=[x], updates=updates, backend="numba", memory_budget=0.8)
    return program, {"x": rng.standard_normal((32, 16)).astype(np.float32)}


def predicting() -> tuple[gx.Program, dict[str, Any]]:
    """Parameters that stay the same: what is made of them is prepared; attention, and a product in 16 bits."""
    rng = np.random.default_rng(3)

    def weight(*shape: int) -> gx.Parameter:
        return gx.parameter("w", rng.standard_normal(shape).astype(np.float32) / 8)

    x = gx.placeholder("x", ("n", 8, 8, 16))
    h = gx.relu(gx.conv(x, weight(3, 3, 16, 16), padding="same") * gx.rsqrt(gx.square(weight(16)) + 1e-3))
    rows = gx.reshape(h, (x.shape[0], 16, 64)) @ weight(64, 64)
    y = gx.scaled_dot_product_attention(rows, rows, rows)
    program = gx.compile({"y": y}, inputs=[x], backend="numba", precision="mixed_bfloat16")
    return program, {"x": rng.standard_normal((2, 8, 8, 16)).astype(np.float32)}


PROGRAMS = [perceptron, recurrent, branching, convolving, frugal, predicting]


def everything_said(program: gx.Program) -> list[str]:
    """All texts of a program."""
    stages = ("graph", "simplified", "prepared", "fused", "kernels", "plan")
    texts = [program.text(stage) for stage in stages]
    return [*texts, program.explain(), program.source(), str(program.rewrites), str(program.memory())]


@pytest.mark.parametrize("make", PROGRAMS)
def test_a_program_from_a_kept_plan_gives_the_same_bits_and_the_same_texts(
    make: Callable[[], tuple[gx.Program, dict[str, Any]]], kept: Callable[[], list[Path]]
) -> None:
    programs: list[gx.Program] = []
    runs: list[list[bytes]] = []
    for _ in range(2):
        program, given = make()
        results = [value.tobytes() for _ in range(2) for value in program(**given).values()]
        runs.append(results + [parameter.value.tobytes() for parameter in program.parameters])
        programs.append(program)
    cold, warm = programs
    assert not is_warm(cold)
    assert is_warm(warm)
    assert len(kept()) == 1
    assert runs[0] == runs[1]
    assert everything_said(warm) == everything_said(cold)
    assert str(warm.rematerialization) == str(cold.rematerialization)
    bare = warm._kept  # the plan that was compiled only now, for the texts, is the one on the disk
    store.keep("0" * 64, warm.graph, store.Kept(warm.plan, bare.never_negative, warm._lowered.prepared))
    assert store.find("0" * 64, warm.graph, warm.backend).plan.launches == bare.plan.launches  # pyright: ignore


@pytest.mark.parametrize("seed", range(200, 212))
def test_random_graphs_from_kept_plans_give_the_same_bits_or_are_refused_alike(seed: int) -> None:
    runs: list[list[bytes] | str] = []
    for turn in range(2):
        g = random_graph(seed)
        program = gx.compile(g.outputs, inputs=list(g.arrays), updates=g.updates, backend="numba")
        assert is_warm(program) is (turn == 1)
        try:
            results = program.call(list(g.arrays.values()))
            runs.append([value.tobytes() for value in (*results, *(p.value for p, _ in program.graph.updates))])
        except gx.ShapeError as error:
            runs.append(error.message)
    assert runs[0] == runs[1]


MODEL = """
import numpy as np
import graphc as gx
{blank}
{name} = gx.placeholder("{name}", ("n",))
i = gx.placeholder("i", ("m",), "int64")
picked = gx.take({name} * 2.0, i)
cut = gx.exp({name})[2]
program = gx.compile({{"picked": picked, "cut": cut}}, inputs=[{name}, i], backend="numba")
"""


def program_of(text: str, path: Path) -> gx.Program:
    """The program of a file."""
    path.write_text(text)
    space: dict[str, Any] = {"__name__": "model"}
    exec(compile(text, str(path), "exec"), space)
    return space["program"]


def complaints(program: gx.Program) -> list[str]:
    """What it says to an index outside its axis, to a size that is too short, and to a wrong shape."""
    said: list[str] = []
    name = program.input_names[0]
    for x, i in ((np.zeros(3), [1, 7]), (np.zeros(1), [0]), (np.zeros((3, 3)), [0])):
        with pytest.raises(gx.GraphcError) as caught:
            program(**{name: x.astype(np.float32), "i": np.array(i)})
        said.append(str(caught.value))
    return said


def test_what_a_program_says_has_the_names_and_lines_of_the_present_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = program_of(MODEL.format(blank="", name="x"), tmp_path / "first.py")
    assert not is_warm(first)
    moved = MODEL.format(blank="\n\n# the same, further down", name="prices")
    warm = program_of(moved, tmp_path / "moved.py")
    assert is_warm(warm)
    said = complaints(warm)
    monkeypatch.setattr(store, "FEWEST_NODES", sys.maxsize)
    cold = program_of(moved, tmp_path / "moved.py")
    assert not is_warm(cold)
    assert said == complaints(cold)
    assert "moved.py:9" in said[0]
    assert "'prices'" in said[2]
    assert everything_said(warm) == everything_said(cold)
    assert "moved.py:10" in warm.explain()


# keys


def step_of(
    shape: tuple[Any, ...] = ("n", 4), dtype: str = "float32", factor: float = 2.0, axis: int = 1, table: float = 1.0,
    swap: bool = False, twice: bool = False, name: str = "x", update: bool = True,
) -> Graph:  # fmt: skip
    """A graph of which each argument but ``name`` changes what it computes."""
    x = gx.placeholder(name, shape, dtype)
    a, b = (gx.parameter(f"{name}.{which}", np.ones(4), dtype) for which in "ab")
    y = gx.softmax(x * factor + a, axis=axis) @ gx.constant(np.full((4, 4), table), dtype)
    z = gx.sum(y - b, axis=0)
    outputs = {"z": z, "y": y} if swap else {"y": y, "z": z}
    updates = {b if twice else a: a - b} if update else {}
    return prepare(make_graph(outputs, [x], updates))


def test_a_key_says_all_that_a_graph_computes_and_nothing_else() -> None:
    key = fingerprint.fingerprint(step_of())
    assert key is not None
    assert fingerprint.fingerprint(step_of(name="renamed")) == key
    changes: list[dict[str, Any]] = [
        {"shape": ("m", 4)}, {"shape": (3, 4)}, {"dtype": "float64"}, {"factor": 2.5}, {"axis": 0}, {"table": 1.5},
        {"swap": True}, {"twice": True}, {"update": False},
    ]  # fmt: skip
    keys = [fingerprint.fingerprint(step_of(**change)) for change in changes]
    assert len({key, *keys}) == 1 + len(changes)


def test_a_key_is_that_of_bodies_and_of_constants_too() -> None:
    def loop(slope: float, offset: float) -> str | None:
        xs = gx.placeholder("xs", (5, 3))
        _, ys = gx.scan(lambda h, x: (gx.tanh(h * slope + x), h + offset), gx.zeros((3,)), xs)
        return fingerprint.fingerprint(prepare(make_graph({"ys": ys}, [xs])))

    assert loop(0.5, 1.0) == loop(0.5, 1.0)
    assert len({loop(0.5, 1.0), loop(0.25, 1.0), loop(0.5, -0.0), loop(0.5, 0.0)}) == 4


def test_a_plan_is_kept_for_a_backend_and_for_options(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, backend = step_of(), NumbaBackend()
    key = store.key_of(graph, backend, None)
    assert key is not None
    assert store.key_of(graph, backend, 0.5) != key
    monkeypatch.setattr(NumbaBackend, "plan_key", lambda self: "another processor")
    assert store.key_of(graph, backend, None) != key

    class Other(NumbaBackend):
        """Takes other operations, and has not said so."""

        def takes(self, op: object) -> bool:
            return False

    assert store.key_of(graph, Other(), None) is None


def test_keys_are_the_same_in_another_process() -> None:
    text = (
        "from tests.lower.test_store import step_of; from graphc.lower.fingerprint import fingerprint\n"
        "print(fingerprint(step_of()))"
    )
    other = {**os.environ, "PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=other)
    assert run.stdout.strip() == fingerprint.fingerprint(step_of())


def test_operations_of_others_have_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.ir.op.registry", dict(registry))  # other tests go through all that are registered

    @op_class
    class Tripled(Op):
        """An operation of whose text no key knows."""

        operands = ("x",)

        def infer(self, *types: TensorType) -> TensorType:
            return types[0]

    x = gx.placeholder("x", (3,))
    assert fingerprint.fingerprint(make_graph({"y": gx.exp(x)}, [x])) is not None
    assert fingerprint.fingerprint(make_graph({"y": apply(Tripled(), x)}, [x])) is None


def test_a_process_whose_compiler_has_been_changed_on_disk_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = step_of()
    fingerprint.compiler.cache_clear()
    monkeypatch.setattr(fingerprint, "LOADED_NS", 0)
    try:
        assert store.key_of(graph, NumbaBackend()) is None
    finally:
        fingerprint.compiler.cache_clear()


def test_small_graphs_are_not_kept(monkeypatch: pytest.MonkeyPatch, kept: Callable[[], list[Path]]) -> None:
    x = gx.placeholder("x", (3,))
    monkeypatch.setattr(store, "FEWEST_NODES", 4)
    gx.compile({"y": gx.exp(x)}, inputs=[x], backend="numba")
    assert not kept()
    gx.compile({"y": gx.exp(gx.sin(gx.tanh(x)))}, inputs=[x], backend="numba")
    assert len(kept()) == 1


# files


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)


def whole_but_of_another_format(path: Path) -> None:
    cache.put(path.name, store.KIND, b"whole, and nothing that was written here")


def whole_but_of_other_classes(path: Path) -> None:
    data = marshal.dumps(([("subprocess", "Popen")], ["true", (1, 0)]))
    cache.put(path.name, store.KIND, data)


def of_too_few_rows(path: Path) -> None:
    cache.put(path.name, store.KIND, marshal.dumps(([], [1, (0, 0)])))


@pytest.mark.parametrize(
    "damage", [cut_off, flip_a_bit, whole_but_of_another_format, whole_but_of_other_classes, of_too_few_rows]
)
def test_an_entry_that_cannot_be_read_counts_as_absent(
    damage: Callable[[Path], None], kept: Callable[[], list[Path]]
) -> None:
    expected, given = perceptron()
    (path,) = kept()
    damage(path)
    again, _ = perceptron()
    assert not is_warm(again)
    assert again(**given)["loss"].tobytes() == expected(**given)["loss"].tobytes()
    assert is_warm(perceptron()[0])  # it was written anew


def test_what_the_format_cannot_say_is_not_kept() -> None:
    program, _ = perceptron()
    for foreign in (object(), np.float32(1), {"a": 1}, program.graph):
        with pytest.raises(fingerprint.UnknownPartError):
            store._Writer().write((1, foreign))


def test_values_come_back_as_they_were() -> None:
    n = gx.Dim("n")
    value = (None, True, 1, 1.0, -0.0, "text", b"bytes", (), ((n * n - 3) // 4, n), TensorType(gx.DType.int32, (n, 1)))
    found = store._read(store._Writer().write(value))
    assert found == value
    assert list(map(type, found)) == list(map(type, value))
    assert str(found[4]) == "-0.0"


def test_the_oldest_entries_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    keys = [cache.digest(str(number)) for number in range(4)]
    for number, key in enumerate(keys):
        cache.put(key, "plan", bytes(1000))
        path = next((tmp_path / "cache").rglob(key))
        os.utime(path, (number, number))
    cache.put(keys[0], "object", bytes(1000))
    cache.trim("plan", 2500)
    assert [cache.get(key, "plan") is not None for key in keys] == [False, False, True, True]
    assert cache.get(keys[0], "object") is not None
