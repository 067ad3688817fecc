"""Attention on the GPU: its kernels through the emulator against float64, what the compiler makes of them, programs."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from graphc.backends.cupy.attention import WIDTHS, Call, Part, Placed, Variant, variants
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import module_source
from graphc.ir.types import DType
from graphc.ops.random import Dropout
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
