"""Attention on the GPU: its kernels through the emulator against float64, what the compiler makes of them, programs."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc as gx
from benchmarks.gpu_costs import only_moves
from graphc.backends.cupy.attended import KeptAttention
from graphc.backends.cupy.attention import WIDTHS, Call, Part, Placed, Variant, variants
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import module_source
from graphc.ir.types import DType
from graphc.lower.memory import layout
from graphc.lower.plan import KernelItem, Place
from graphc.ops.random import Dropout
from tests.cupy.emulated_device import EmulatedDevice
from tests.cupy.emulator import aligned_bytes, compile_kernels, launch

SEED, STEP, STREAM = np.array(7, np.uint32), np.array(3, np.uint32), 5
TOLERANCE = {"Bfloat16": 2e-2, "Float16": 3e-3, "Tf32": 3e-3, "Float32": 5e-6}


@dataclass(frozen=True)
class Row:
    """One row of the table: a way of attention, and lengths to run it with."""

    kind: str
    width: int
    value_width: int
    causal: bool = False
    mask: str = "NO_MASK"
    rate: float = 0.0
    lengths: tuple[tuple[int, int], ...] = ((1, 1), (33, 37))
    scale: float | None = None

    def __str__(self) -> str:
        said = [self.kind, self.width, "causal" * self.causal, self.mask.lower(), "dropout" * (self.rate > 0)]
        return "-".join(str(word) for word in said if word not in ("", "no_mask"))

    @property
    def variants(self) -> dict[Part, Variant]:
        element = {"Bfloat16": DType.bfloat16, "Float16": DType.float16}.get(self.kind, DType.float32)
        widest = max(self.width, self.value_width)
        return variants(element, self.kind == "Tf32", widest, self.causal, self.mask, self.rate > 0, tuple(Part))


TABLE = (
    Row("Bfloat16", 64, 64, causal=True, lengths=((1, 1), (70, 70))),
    Row("Bfloat16", 64, 64, lengths=((130, 66),)),
    Row("Bfloat16", 96, 80, mask="ALLOWING"),
    Row("Bfloat16", 128, 128, causal=True, rate=0.3, lengths=((20, 70),)),
    Row("Float16", 40, 24, scale=0.3),
    Row("Float16", 32, 32, causal=True, mask="ADDED", lengths=((35, 20),)),
    Row("Tf32", 64, 64, causal=True, lengths=((1, 1), (70, 35))),
    Row("Tf32", 128, 128, lengths=((17, 40),)),
    Row("Tf32", 32, 16, mask="ADDED", rate=0.2, lengths=((9, 40),)),
    Row("Float32", 64, 64, lengths=((1, 5), (66, 34), (3, 0))),
    Row("Float32", 7, 5, causal=True, mask="ALLOWING", rate=0.4, lengths=((1, 1), (21, 18))),
    Row("Float32", 16, 16, causal=True, lengths=((130, 20),), scale=-0.5),
    Row("Float32", 128, 100, mask="ADDED", lengths=((5, 19),)),
)
OUTER, HEADS, KEY_HEADS = 2, 2, 1  # queries of two heads share their keys


@cache
def library() -> Any:
    """All kernels of the table."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    used = tuple(dict.fromkeys(variant for row in TABLE for variant in row.variants.values()))
    return compile_kernels((), module_source((), attention=used), attention=used)


def on_device(array: np.ndarray) -> np.ndarray:
    """A copy that begins where memory of a GPU may."""
    made = aligned_bytes(max(array.nbytes, 1))[: array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def placed(array: np.ndarray | None, axes: tuple[int, ...] = (0, 1, 2, 3)) -> Placed:
    """An array of four axes, as (outer, heads, rows, columns) once its axes are taken in this order."""
    if array is None:
        return Placed()
    steps = [0 if array.shape[a] == 1 else array.strides[a] // array.itemsize for a in axes]
    return Placed(array.ctypes.data, (0, *steps), array.itemsize)


@dataclass(frozen=True)
class Problem:
    """Operands of a row with lengths; those of heads lie inside rows, as a projection leaves them."""

    row: Row
    rows: int
    columns: int

    def operands(self) -> dict[str, np.ndarray]:
        row, rng = self.row, np.random.default_rng(self.rows + 7 * self.columns)
        element = {"Bfloat16": DType.bfloat16, "Float16": DType.float16}.get(row.kind, DType.float32).numpy
        shapes = {
            "query": (OUTER, self.rows, HEADS, row.width),
            "key": (OUTER, self.columns, KEY_HEADS, row.width),
            "value": (OUTER, KEY_HEADS, self.columns, row.value_width),
            "cotangent": (OUTER, self.rows, HEADS, row.value_width),
        }
        found = {name: on_device(rng.standard_normal(shape).astype(element)) for name, shape in shapes.items()}
        if row.mask == "ADDED":
            found["mask"] = on_device(rng.standard_normal((1, HEADS, self.rows, self.columns)).astype(np.float32))
        if row.mask == "ALLOWING":  # of keys; the first sequence has none that counts
            found["mask"] = on_device(rng.random((OUTER, 1, 1, self.columns)) < 0.6)
            found["mask"][0] = False
        return found

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.row.width) if self.row.scale is None else self.row.scale

    def expected(self, given: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The result and the gradients of query, key and value, in float64, heads in front."""
        q, k, g = (given[name].astype(np.float64).transpose(0, 2, 1, 3) for name in ("query", "key", "cotangent"))
        v = given["value"].astype(np.float64)
        scores = q @ k.swapaxes(-1, -2) * self.scale
        allowed = np.tril(np.ones(scores.shape[-2:], bool)) if self.row.causal else np.ones(scores.shape[-2:], bool)
        mask = given.get("mask")
        if mask is not None and mask.dtype == bool:
            allowed = allowed & mask
        elif mask is not None:
            scores = scores + mask
        scores = np.where(allowed, scores, -np.inf)
        largest = scores.max(-1, keepdims=True, initial=-1e30)
        p = np.exp(scores - largest)
        p = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
        fall = np.ones_like(p)
        if self.row.rate:
            fall = Dropout(self.row.rate, STREAM).reference(fall, SEED, STEP)
        pulled = g @ v.swapaxes(-1, -2) * fall
        slope = p * (pulled - (p * pulled).sum(-1, keepdims=True)) * self.scale
        return (p * fall) @ v, slope @ k, slope.swapaxes(-1, -2) @ q, (p * fall).swapaxes(-1, -2) @ g

    def computed(self, given: dict[str, np.ndarray], downwards: bool, kernels: Any = None) -> tuple[np.ndarray, ...]:
        """The same by the kernels, of the table's library or another."""
        row, rows, columns = self.row, self.rows, self.columns
        result = on_device(np.full((OUTER, rows, HEADS, row.value_width), np.nan, np.float32))
        shapes = ((rows, row.width), (columns, row.width), (columns, row.value_width))
        gradients = [on_device(np.full((OUTER, HEADS, *shape), np.nan, np.float32)) for shape in shapes]
        between = [on_device(np.full((OUTER, HEADS, rows), np.nan, np.float32)) for _ in range(2)]
        inside = (0, 2, 1, 3)
        dq, dk, dv = map(placed, gradients)
        call = Call(
            placed(given["query"], inside), placed(given["key"], inside), placed(given["value"]),
            placed(given.get("mask")), placed(given["cotangent"], inside), placed(result, inside), (dq, dk, dv),
            between[0].ctypes.data, between[1].ctypes.data, SEED.ctypes.data, STEP.ctypes.data,
            (1, OUTER, HEADS), (rows, columns, row.width, row.value_width), self.scale, row.rate, STREAM,
        )  # fmt: skip
        for variant in row.variants.values():
            work = call.launch(variant)
            if work is not None:
                launch(kernels or library(), work.function, work.blocks, np.array(work.words, np.int64), downwards)
        return (result.transpose(inside), *gradients)


PROBLEMS = [Problem(row, *lengths) for row in TABLE for lengths in row.lengths]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: f"{problem.row}-{problem.rows}x{problem.columns}")
def test_kernels_compute_what_float64_does(problem):
    """Queries that see no key give zeros, and gradients of zero."""
    given = problem.operands()
    found = problem.computed(given, downwards=problem.rows % 2 == 0)
    for name, a, b in zip(("result", "query", "key", "value"), found, problem.expected(given), strict=True):
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        assert np.isfinite(a).all(), name
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[problem.row.kind] * scale, err_msg=name)


@pytest.mark.parametrize("missing", ["wait_for_copies<0>();", "__syncthreads();"])
def test_what_is_missing_in_a_kernel_shows(missing):
    """The emulator copies when it is waited for, and runs threads in two orders."""
    problem = Problem(Row("Float32", 16, 16), 70, 70)
    used = tuple(problem.row.variants.values())
    source = module_source((), attention=used)
    assert missing in source
    kernels = compile_kernels((), source.replace(missing, ""), attention=used)
    given = problem.operands()
    expected, wrong = problem.expected(given), False
    for downwards in (False, True):
        found = problem.computed(given, downwards, kernels)
        wrong |= not all(np.allclose(a, b, atol=1e-3) for a, b in zip(found, expected, strict=True))
    assert wrong


HOT = (
    Row("Bfloat16", 64, 64, causal=True), Row("Bfloat16", 128, 128, causal=True),
    Row("Tf32", 64, 64), Row("Float32", 64, 64),
)  # fmt: skip
RARE = (Row("Float16", 32, 32, causal=True, mask="ADDED"), Row("Float32", 7, 5, mask="ALLOWING", rate=0.4))


@pytest.mark.parametrize(("arch", "rows"), [("sm_80", HOT + RARE), ("sm_90", HOT)], ids=["sm_80", "sm_90"])
def test_two_blocks_fit_a_multiprocessor_without_spills(arch, rows):
    """65,536 registers and 164 KB of shared memory on an A100; any GPU from Ampere on lends 99 KB to a block."""
    used = tuple(dict.fromkeys(variant for row in rows for variant in row.variants.values()))
    cubin = compile_cubin(module_source((), attention=used), arch, ("--split-compile=0",))
    for variant in used:
        usage = cubin.usage[variant.name]
        assert usage.spill_bytes == usage.stack_bytes == 0, (variant, usage)
        assert 2 * variant.threads * (-(-usage.registers // 8) * 8) <= 65536, (variant, usage)
        assert 2 * (variant.shared_bytes + 1024) <= 164 * 1024, variant


def test_every_kernel_fits_the_shared_memory_of_any_gpu():
    for kind in TOLERANCE:
        for width in WIDTHS:
            for part in (Part.FORWARD, Part.KEYS, Part.QUERIES):
                for dropout in (False, True):
                    assert Variant(part, kind, width, dropout=dropout).shared_bytes <= 99 * 1024


def functions(program: gx.Program) -> list[str]:
    """Which kernels of attention a program has."""
    return [variant.name for variant in program.executable.unit.attention]


def copied(program: gx.Program) -> list[str]:
    """What is moved from one intermediate to another by launches of its own."""
    plan = program.executable.plan
    items = ((launch, item) for launch in plan.launches for item in launch.items if isinstance(item, KernelItem))
    moved = ((launch, item.buffers) for launch, item in items if only_moves(item.kernel) and len(item.buffers) == 2)
    return [launch.label for launch, (source, _) in moved if plan.buffers[source].place is Place.ARENA]


def transformer_step(target: Any, **options: Any) -> tuple[gx.Program, dict[str, np.ndarray]]:
    """A step of training of a block with causal attention in two heads, with dropout of weights, by plain descent."""
    local = np.random.default_rng(2)
    batch, time, width, heads, words = 2, 9, 16, 2, 11
    ids, labels = (gx.placeholder(name, (batch, time), "int64") for name in ("ids", "labels"))
    made: list[gx.Parameter] = []

    def weight(*shape: int) -> gx.Parameter:
        made.append(gx.parameter(f"w{len(made)}", (0.4 * local.standard_normal(shape)).astype(np.float32)))
        return made[-1]

    table = weight(words, width)
    x = gx.take(table, ids, axis=0)
    q, k, v = (
        gx.transpose(gx.reshape(y, (batch, time, heads, width // heads)), (0, 2, 1, 3))
        for y in gx.split(x @ weight(width, 3 * width), 3, axis=-1)
    )
    attended = gx.scaled_dot_product_attention(q, k, v, causal=True, dropout=0.2, seed=4, step=1, stream=7)
    x = x + gx.reshape(gx.transpose(attended, (0, 2, 1, 3)), (batch, time, width)) @ weight(width, width)
    x = x + gx.relu(x @ weight(width, 2 * width)) @ weight(2 * width, width)
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, x @ gx.transpose(table)))
    updates = {p: p - 0.5 * g for p, g in zip(made, gx.grad(loss, made), strict=True)}
    feeds = {name: local.integers(0, words, (batch, time)) for name in ("ids", "labels")}
    return gx.compile({"loss": loss}, [ids, labels], updates, backend=target, training=True, **options), feeds


@pytest.mark.parametrize(
    ("options", "kind", "tolerance"),
    [({}, "float32", 1e-5), ({"precision": "tf32"}, "tf32", 2e-3), ({"precision": "mixed_bfloat16"}, "bfloat16", 2e-2)],
    ids=["float32", "tf32", "mixed_bfloat16"],
)
def test_a_transformer_trains_as_on_the_cpu(gpu, options, kind, tolerance):
    """Three steps, whose weights fall by the same random bits; no matrix of scores is in memory."""
    program, feeds = transformer_step(gpu, **options)
    twin, _ = transformer_step("reference")
    assert {name.split("_")[1] for name in functions(program)} == {"forward", "deltas", "keys", "queries"}
    assert all(kind in name for name in functions(program))
    assert copied(program) == []
    for _ in range(3):
        np.testing.assert_allclose(program(**feeds)["loss"], twin(**feeds)["loss"], rtol=tolerance)
    for p, q in zip(program.parameters, twin.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=0.1, atol=10 * tolerance, err_msg=p.label)


def test_gradients_read_what_the_forward_pass_kept(gpu):
    """One forward kernel for both; memory does not grow with the square of the length."""
    q, k, v = (gx.placeholder(name, (1, 2, "n", 16)) for name in "qkv")
    y = gx.scaled_dot_product_attention(q, k, v)
    outputs = {"y": y, **dict(zip("abc", gx.grad(gx.sum(y * y), [q, k, v]), strict=True))}
    program = gx.compile(outputs, [q, k, v], backend=gpu)
    items = [i for launch in program.executable.plan.launches for i in launch.items if isinstance(i, KeptAttention)]
    forward, gradients = items
    assert gradients.kept == forward.result
    assert gradients.statistics == forward.statistics is not None
    assert not gradients.fresh
    sizes = {n: layout(program.executable.plan, {"n": n}).peak_bytes for n in (512, 1024)}
    assert sizes[1024] <= 2 * sizes[512]
    data = [on_device(np.random.default_rng(i).standard_normal((1, 2, 20, 16)).astype(np.float32)) for i in range(3)]
    twin = gx.compile(outputs, [q, k, v], backend="reference")
    found, wanted = (p(**dict(zip("qkv", data, strict=True))) for p in (program, twin))
    for name in outputs:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert len(functions(program)) == 4


def test_gradients_alone_compute_what_they_need(gpu):
    """There is no forward pass to keep anything; operands of 16-bit floats are read as they are."""
    q, g = gx.placeholder("q", (3, "n", 24), "float16"), gx.placeholder("g", (3, "n", 24), "float16")
    found = gx.vjp([gx.scaled_dot_product_attention(q, q, q, causal=True)], [q], [g])
    programs = [gx.compile({"d": found[0]}, [q, g], backend=target) for target in (gpu, "reference")]
    names = functions(programs[0])
    assert len(names) == 4
    assert all("float16" in name for name in names)
    rng = np.random.default_rng(1)
    feeds = {name: rng.standard_normal((3, 18, 24)).astype(np.float16) for name in "qg"}
    a, b = (program(**feeds)["d"].astype(np.float64) for program in programs)
    np.testing.assert_allclose(a, b, atol=2e-2)


@pytest.mark.parametrize(("dtype", "width", "rows"), [("float64", 8, 5), ("float32", 136, 5), ("float32", 8, 1)])
def test_what_has_no_kernel_is_taken_apart(gpu, dtype, width, rows):
    """Other types, wider heads, and a single query, which is a row of scores."""
    q, k = gx.placeholder("q", (2, rows, width), dtype), gx.placeholder("k", (2, "m", width), dtype)
    y = gx.scaled_dot_product_attention(q, k, k)
    programs = [gx.compile({"y": y}, [q, k], backend=target) for target in (gpu, "reference")]
    assert not functions(programs[0])
    rng = np.random.default_rng(1)
    feeds = {"q": rng.standard_normal((2, rows, width)), "k": rng.standard_normal((2, 6, width))}
    a, b = (program(**{n: x.astype(dtype) for n, x in feeds.items()})["y"] for program in programs)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_gives_the_same_bits_each_time(gpu):
    runs = []
    for _ in range(2):
        program, feeds = transformer_step(gpu)
        runs.append([program(**feeds)["loss"], *(p.value for p in program.parameters)])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_programs_attend_as_the_reference_does(gpu, device):
    """Several ways in one program, at lengths that fill many blocks where there is a GPU."""
    n, m = (37, 21) if isinstance(device, EmulatedDevice) else (1031, 517)
    rng = np.random.default_rng(4)
    outputs, inputs, feeds = {}, [], {}
    ways = [
        ("float32", 64, {"causal": True}, False),
        ("float32", 20, {"dropout": 0.3, "seed": 2, "step": 5, "stream": 1}, True),
        ("bfloat16", 128, {"causal": True, "dropout": 0.3, "seed": 2, "stream": 1}, False),
        ("float16", 64, {"scale": 0.1}, True),
    ]
    for number, (dtype, width, said, masked) in enumerate(ways):
        shapes = {"q": (2, 4, n, width), "k": (2, 2, m, width), "v": (2, 2, m, width), "g": (2, 4, n, width)}
        given = {name: gx.placeholder(f"{name}{number}", shape, dtype) for name, shape in shapes.items()}
        feeds |= {x.name: rng.standard_normal(x.shape).astype(x.dtype.numpy) for x in given.values()}
        q, k, v, g = given.values()
        inputs += given.values()
        mask = None
        if masked:
            mask = gx.placeholder(f"mask{number}", (2, 1, 1, m), "bool")
            inputs.append(mask)
            feeds[mask.name] = rng.random((2, 1, 1, m)) < 0.5
        y = gx.scaled_dot_product_attention(q, k, v, mask, **said)
        found = (y, *gx.vjp([y], [q, k, v], [g]))
        outputs |= {f"{name}{number}": value for name, value in zip(("y", "dq", "dk", "dv"), found, strict=True)}
    found, wanted = (gx.compile(outputs, inputs, backend=target)(**feeds) for target in (gpu, "reference"))
    for name, b in wanted.items():
        a, b = found[name].astype(np.float64), b.astype(np.float64)
        tolerance = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[ways[int(name[-1])][0]]
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()), err_msg=name)


def test_attention_in_a_loop_has_gradients(gpu):
    """Each step keeps nothing for the other loop, which computes what it needs."""
    x = gx.placeholder("x", (3, 2, 9, 8))
    w = gx.parameter("w", np.eye(8, dtype=np.float32))

    def step(total: gx.Node, now: gx.Node) -> tuple[gx.Node, gx.Node]:
        y = gx.scaled_dot_product_attention(now @ w, now + total, now, causal=True)
        return total + y, y

    _, states = gx.scan(step, gx.zeros((2, 9, 8)), x)
    (gradient,) = gx.grad(gx.sum(states**2), [w])
    programs = [gx.compile({"d": gradient}, [x], backend=target) for target in (gpu, "reference")]
    assert functions(programs[0])
    data = np.random.default_rng(3).standard_normal((3, 2, 9, 8)).astype(np.float32)
    a, b = (program(x=data)["d"] for program in programs)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
