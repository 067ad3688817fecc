"""Convolution on the GPU: its kernels through the emulator against float64, what the compiler makes of them, programs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc as gx

from graphc.backends.cupy.convolution import Axis, Sizes, Variant, variants
from graphc.backends.cupy.printer import module_source
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import Sought
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from tests.cupy.emulator import aligned_bytes, compile_kernels, launch

TOLERANCE = {"Bfloat16": 5e-5, "Float16": 5e-5, "Tf32": 2e-3, "Float32": 5e-6}
"""Of the largest result: operands are rounded before both ways, but for TF32."""


@dataclass(frozen=True)
class Row:
    """One row of the table: a convolution, and the kinds of kernels that are tried with it."""

    x: tuple[int, ...]
    window: tuple[int, ...]
    filters: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    groups: int = 1
    kinds: tuple[str, ...] = tuple(TOLERANCE)
    aligned: bool = True

    def __str__(self) -> str:
        sizes, window = ("x".join(map(str, row)) for row in (self.x, self.window))
        return f"{sizes}-{window}-{self.filters}-by-{self.strides[0]}-in-{self.groups}" + "-odd" * (not self.aligned)

    @property
    def channels(self) -> int:
        return self.x[-1]

    @property
    def kernel(self) -> tuple[int, ...]:
        return (*self.window, self.channels // self.groups, self.filters)

    @property
    def conv(self) -> Conv:
        return Conv(self.strides, self.dilations, self.low, self.groups, self.high)

    @property
    def y(self) -> tuple[int, ...]:
        f32 = DType.float32
        return tuple(map(int, self.conv.infer(TensorType(f32, self.x), TensorType(f32, self.kernel)).shape))

    def sizes(self, sought: Sought) -> Sizes:
        rows = zip(self.x[1:-1], self.y[1:-1], self.window, self.strides, self.dilations, self.low, strict=True)
        axes = tuple(Axis(*row) for row in rows)
        return Sizes(sought, self.x[0], axes, self.channels, self.filters, self.groups)

    def variants(self, sought: Sought, kind: str) -> tuple[Variant, ...]:
        return variants(sought, kind, self.window, self.channels, self.filters, self.groups, self.aligned)

    def expected(self, sought: Sought, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """In float64."""
        op: Any = self.conv
        if sought is Sought.INPUT:
            op = ConvTranspose(self.strides, self.dilations, self.low, self.groups, self.x[1:-1])
        if sought is Sought.KERNEL:
            op = ConvKernelGrad(self.strides, self.dilations, self.low, self.groups, self.high, self.window)
        return op.reference(a.astype(np.float64), b.astype(np.float64))


def plain(x: tuple[int, ...], window: tuple[int, ...], filters: int, **said: Any) -> Row:
    """Padding that keeps sizes, no strides, no holes."""
    ones = (1,) * len(window)
    low = tuple((size - 1) // 2 for size in window)
    given = {"strides": ones, "dilations": ones, "low": low, "high": tuple(size // 2 for size in window), **said}
    return Row(x, window, filters, **given)


HALF, ONE = ("Bfloat16",), ("Float32",)
TABLE = (
    plain((2, 9, 7, 16), (3, 3), 24),
    plain((2, 6, 6, 16), (3, 3), 72, kinds=("Bfloat16", "Tf32")),
    plain((2, 7, 8, 3), (3, 2), 5, strides=(2, 1), dilations=(1, 2), low=(1, 0), high=(0, 3)),
    plain((3, 9, 9, 8), (3, 3), 16, strides=(2, 2), kinds=("Bfloat16", "Float32")),
    plain((2, 11, 11, 8), (3, 3), 8, strides=(3, 2), dilations=(2, 2), low=(2, 1), high=(1, 2), kinds=HALF),
    plain((2, 8, 8, 16), (1, 1), 8, strides=(2, 2), low=(0, 0), high=(0, 0), kinds=("Float16",)),
    plain((1, 12, 12, 3), (7, 7), 40, strides=(2, 2), low=(3, 3), high=(3, 3), kinds=("Bfloat16", "Float32")),
    plain((2, 6, 6, 16), (3, 3), 32, groups=2, kinds=("Bfloat16", "Float32")),
    plain((2, 5, 5, 6), (3, 3), 9, groups=3, kinds=("Float16", "Tf32")),
    plain((3, 17, 4), (5,), 6, strides=(2,), kinds=("Float32", "Bfloat16")),
    plain((2, 4, 5, 4, 4), (2, 3, 2), 8, strides=(1, 2, 1), kinds=("Tf32", "Bfloat16")),
    plain((1, 1, 1, 1), (1, 1), 1, low=(1, 0), high=(1, 0), kinds=ONE),
    plain((2, 3, 3, 5), (5, 5), 4, low=(4, 4), high=(2, 2), kinds=ONE),
    plain((0, 4, 4, 4), (3, 3), 4, kinds=ONE),
    plain((2, 4, 4, 0), (3, 3), 4, kinds=ONE),
    plain((2, 5, 5, 8), (3, 3), 8, kinds=("Bfloat16", "Float32"), aligned=False),
    plain((9, 9, 9, 8), (3, 3), 8, kinds=("Bfloat16", "Float32")),  # positions in two parts
    plain((2, 7, 6, 8), (3, 3), 8, groups=8, kinds=("Float32", "Bfloat16")),
    plain((2, 7, 6, 5), (3, 2), 10, groups=5, strides=(2, 1), dilations=(1, 2), kinds=("Float16",)),
    plain((10, 8, 8, 4), (4, 4), 4, groups=4, strides=(1, 2), kinds=("Float32",)),  # in parts, more than 9 elements
    plain((2, 9, 3), (3,), 3, groups=3, kinds=("Float32",)),
)
PROBLEMS = [(row, kind, sought) for row in TABLE for kind in row.kinds for sought in Sought]


@cache
def library() -> Any:
    """All kernels of the table."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    used = tuple(dict.fromkeys(v for row, kind, sought in PROBLEMS for v in row.variants(sought, kind)))
    used = (*used, *(Variant(kind, None) for kind in TOLERANCE))
    return compile_kernels((), module_source((), convolution=used), convolution=used)


def on_device(array: np.ndarray) -> np.ndarray:
    """A copy that begins where memory of a GPU may."""
    made = aligned_bytes(max(array.nbytes, 1))[: array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def element_of(kind: str) -> np.dtype:
    return {"Bfloat16": DType.bfloat16, "Float16": DType.float16}.get(kind, DType.float32).numpy


def computed(
    row: Row, sought: Sought, variant: Variant, a: np.ndarray, b: np.ndarray, narrow: bool, downwards: bool,
    kernels: Any = None,
) -> np.ndarray:  # fmt: skip
    """By a kernel, of the table's library or another."""
    sizes = row.sizes(sought)
    shape = {Sought.RESULT: row.y, Sought.INPUT: row.x, Sought.KERNEL: row.kernel}[sought]
    c = on_device(np.full(shape, np.nan, a.dtype if narrow else np.float32))
    scratch = on_device(np.full(sizes.scratch_bytes(variant) // 4, np.nan, np.float32))
    operands = (a.ctypes.data, b.ctypes.data, c.ctypes.data)
    for work in sizes.launches(variant, operands, scratch.ctypes.data, narrow):
        launch(kernels or library(), work.function, work.blocks, np.array(work.words, np.int64), downwards)
    return c


def operands_of(row: Row, kind: str, sought: Sought) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(row.x) + row.filters)
    shapes = {
        Sought.RESULT: (row.x, row.kernel), Sought.INPUT: (row.y, row.kernel), Sought.KERNEL: (row.x, row.y)
    }  # fmt: skip
    return [on_device(rng.standard_normal(shape).astype(element_of(kind))) for shape in shapes[sought]]


@pytest.mark.parametrize(
    ("row", "kind", "sought"), PROBLEMS, ids=lambda value: value.value if isinstance(value, Sought) else str(value)
)
def test_kernels_compute_what_float64_does(row, kind, sought):
    """Every tiling; operands that are not read hold no zeros."""
    a, b = operands_of(row, kind, sought)
    expected = row.expected(sought, a, b)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    for number, variant in enumerate(row.variants(sought, kind)):
        narrow = number == 0 and kind in ("Bfloat16", "Float16") and row.strides[0] == 1
        found = computed(row, sought, variant, a, b, narrow, downwards=number % 2 == 0)
        rounding = {"Bfloat16": 2**-8, "Float16": 2**-11}.get(kind, 0) * narrow
        tolerance = (TOLERANCE[kind] + rounding) * scale
        np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=tolerance, err_msg=variant.name)


def functions(program: gx.Program) -> list[str]:
    """Which kernels of convolution a program has."""
    return [variant.name for variant in program.executable.unit.convolution]


def training_step(target: Any, **options: Any) -> tuple[gx.Program, dict[str, np.ndarray]]:
    """A step of training of a small network of images: a stem, a strided block with a shortcut, single channels, groups."""
    local = np.random.default_rng(2)
    x, labels = gx.placeholder("x", ("batch", 10, 9, 3)), gx.placeholder("labels", ("batch",), "int64")
    made: list[gx.Parameter] = []

    def weight(*shape: int) -> gx.Parameter:
        spread = 1.5 / np.sqrt(np.prod(shape[:-1]))
        made.append(gx.parameter(f"w{len(made)}", (spread * local.standard_normal(shape)).astype(np.float32)))
        return made[-1]

    h = gx.relu(gx.conv(x, weight(5, 5, 3, 16), 1, "same"))
    short = gx.conv(h, weight(1, 1, 16, 32), 2)
    h = gx.relu(gx.conv(h, weight(3, 3, 16, 32), 2, "same"))
    h = gx.relu(short + gx.conv(h, weight(3, 3, 32, 32), 1, "same"))
    h = gx.conv(h, weight(3, 3, 1, 32), 1, "same", groups=32)
    h = gx.relu(gx.conv(h, weight(1, 1, 32, 16)))
    h = gx.relu(gx.conv(h, weight(3, 3, 8, 24), 1, "same", groups=2))
    h = gx.conv_transpose(h, weight(2, 2, 8, 24), 2)
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, gx.mean(h, axis=(1, 2)) @ weight(8, 5)))
    updates = {p: p - 0.2 * g for p, g in zip(made, gx.grad(loss, made), strict=True)}
    feeds = {"x": local.standard_normal((3, 10, 9, 3)).astype(np.float32), "labels": local.integers(0, 5, 3)}
    return gx.compile({"loss": loss}, [x, labels], updates, backend=target, training=True, **options), feeds


@pytest.mark.parametrize(
    ("options", "kind", "tolerance"),
    [({}, "float32", 1e-5), ({"precision": "tf32"}, "tf32", 2e-3), ({"precision": "mixed_bfloat16"}, "bfloat16", 2e-2)],
    ids=["float32", "tf32", "mixed_bfloat16"],
)
def test_a_network_of_images_trains_as_on_the_cpu(gpu, options, kind, tolerance):
    """Three steps; single channels have nothing of TF32."""
    program, feeds = training_step(gpu, **options)
    twin, _ = training_step("reference")
    names = functions(program)
    assert {name.split("_")[1] for name in names} == {"result", "input", "kernel", "total"}
    single = {name for name in names if name.startswith("depthwise") or name == "convolution_total_float32"}
    assert len(single) >= 3
    assert all(kind in name for name in names if name not in single)
    for _ in range(3):
        np.testing.assert_allclose(program(**feeds)["loss"], twin(**feeds)["loss"], rtol=tolerance)
    for p, q in zip(program.parameters, twin.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=0.1, atol=10 * tolerance, err_msg=p.label)
