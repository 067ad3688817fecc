"""Convolution on the GPU: its kernels through the emulator against float64, what the compiler makes of them, programs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy.convolution import LARGE, SMALL, TALL, Axis, Sizes, Variant, variants
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import module_source
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import Sought
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from tests.cupy.emulated_device import EmulatedDevice
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
    plain((2, 8, 8, 16), (1, 1), 40, strides=(2, 2), low=(0, 0), high=(0, 0), kinds=("Float16",)),
    plain((2, 6, 6, 72), (3, 3), 16, kinds=("Bfloat16", "Tf32", "Float32")),
    plain((1, 8, 8, 40), (3, 3), 8, strides=(2, 2), kinds=("Bfloat16", "Float32")),
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


def hot(kind: str, channels: int, filters: int, window: tuple[int, int] = (3, 3)) -> list[Variant]:
    """The kernels of a layer with large tiles, of all three products."""
    return [variants(sought, kind, window, channels, filters, 1)[0] for sought in Sought]


@pytest.mark.parametrize(
    ("arch", "used"),
    [
        ("sm_80", [*hot("Bfloat16", 128, 128)[1:], hot("Tf32", 64, 64)[0]]),
        ("sm_90", [*hot("Bfloat16", 128, 128), hot("Bfloat16", 64, 64)[1], hot("Bfloat16", 3, 64, (7, 7))[2],
                   hot("Tf32", 128, 128)[1], hot("Float32", 64, 64)[0]]),
    ],
    ids=["sm_80", "sm_90"],
)  # fmt: skip
def test_hot_kernels_keep_all_in_registers(arch, used):
    """As many blocks as each says fit 65,536 registers and the 164 KB of shared memory of an A100."""
    cubin = compile_cubin(module_source((), convolution=used), arch, ("--split-compile=0",))
    for variant in used:
        usage = cubin.usage[variant.name]
        assert usage.spill_bytes == usage.stack_bytes == 0, (variant, usage)
        assert variant.blocks * variant.threads * (-(-usage.registers // 8) * 8) <= 65536, (variant, usage)
        assert variant.blocks * (variant.shared_bytes + 1024) <= 164 * 1024, variant
        assert variant.shared_bytes <= 99 * 1024, variant


def test_a_step_gives_the_same_bits_each_time(gpu):
    runs = []
    for _ in range(2):
        program, feeds = training_step(gpu)
        runs.append([program(**feeds)["loss"], *(p.value for p in program.parameters)])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("missing", ["wait_for_copies<STAGES - 2>();", "if (OF_KERNEL) __syncthreads();"])
def test_what_is_missing_in_a_kernel_shows(missing):
    """The emulator copies when it is waited for in every other warp, and runs threads in two orders."""
    row, sought = plain((9, 9, 9, 8), (3, 3), 8), Sought.KERNEL
    (variant,) = row.variants(sought, "Float32")
    used = (variant, Variant("Float32", None))
    source = module_source((), convolution=used)
    assert missing in source
    kernels = compile_kernels((), source.replace(missing, ""), convolution=used)
    a, b = operands_of(row, "Float32", sought)
    expected = row.expected(sought, a, b)
    found = [computed(row, sought, variant, a, b, False, downwards, kernels) for downwards in (False, True)]
    assert not all(np.allclose(c, expected, atol=1e-3) for c in found)


def test_a_copy_that_begins_before_all_have_read_what_it_overwrites_shows():
    """In every other warp the emulator copies at once."""
    row, sought = plain((2, 9, 7, 16), (3, 3), 24), Sought.RESULT
    variant = row.variants(sought, "Float32")[0]
    source = module_source((), convolution=(variant,))
    barrier, bring = "__syncthreads();\n", "if (tile + STAGES - 1 < tiles) bring_tile(tile + STAGES - 1, next);\n"
    right = f"{barrier}        {bring}"
    assert right in source
    kernels = compile_kernels((), source.replace(right, f"{bring}        {barrier}"), convolution=(variant,))
    a, b = operands_of(row, "Float32", sought)
    found = computed(row, sought, variant, a, b, False, False, kernels)
    assert not np.allclose(found, row.expected(sought, a, b), atol=1e-3)


def test_sizes_choose_tiles_and_parts():
    """Large tiles where they keep a GPU busy; positions in parts where a kernel has few elements."""
    layer = plain((64, 14, 14, 256), (3, 3), 256)
    assert [v.tiling for v in layer.variants(Sought.RESULT, "Bfloat16")] == [TALL, LARGE, SMALL]
    assert layer.sizes(Sought.RESULT).chosen(layer.variants(Sought.RESULT, "Bfloat16")).tiling == LARGE
    more = plain((128, 14, 14, 256), (3, 3), 256)
    assert more.sizes(Sought.INPUT).chosen(more.variants(Sought.INPUT, "Tf32")).tiling == TALL
    one = plain((1, 14, 14, 256), (3, 3), 256)
    assert one.sizes(Sought.RESULT).chosen(one.variants(Sought.RESULT, "Bfloat16")).tiling == SMALL
    stem = plain((64, 56, 56, 64), (3, 3), 64)
    (variant,) = stem.variants(Sought.KERNEL, "Bfloat16")
    sizes = stem.sizes(Sought.KERNEL)
    assert sizes.tiles(variant) * sizes.parts(variant) > 200
    assert sizes.scratch_bytes(variant) == sizes.parts(variant) * 4 * 9 * 64 * 64 < 16 << 20
    assert one.sizes(Sought.RESULT).scratch_bytes(one.variants(Sought.RESULT, "Bfloat16")[0]) == 0


def test_what_is_a_product_or_has_no_kernel_is_taken_apart(gpu):
    """Single pixels, float64, four axes; and their gradients."""
    for shape, window, dtype in (
        ((2, 5, 5, 8), (1, 1), "float32"), ((2, 5, 5, 4), (3, 3), "float64"), ((1, 3, 3, 3, 3, 2), (2,) * 4, "float32")
    ):  # fmt: skip
        x, kernel = gx.placeholder("x", shape, dtype), gx.placeholder("k", (*window, shape[-1], 4), dtype)
        y = gx.conv(x, kernel)
        outputs = {"y": y, **dict(zip("ab", gx.grad(gx.sum(y * y), [x, kernel]), strict=True))}
        programs = [gx.compile(outputs, [x, kernel], backend=target) for target in (gpu, "reference")]
        assert not functions(programs[0])
        rng = np.random.default_rng(1)
        feeds = {name: rng.standard_normal(node.shape).astype(dtype) for name, node in (("x", x), ("k", kernel))}
        found, wanted = (program(**feeds) for program in programs)
        for name in outputs:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_sizes_may_be_known_at_the_call_alone(gpu):
    """Batch and height are symbolic, so is the padding of strides, and so are parts of positions."""
    x, kernel = gx.placeholder("x", ("batch", "height", 8, 4)), gx.placeholder("k", (3, 3, 4, 6))
    y = gx.conv(x, kernel, 2, "same")
    outputs = {"y": y, **dict(zip("ab", gx.grad(gx.sum(y * y), [x, kernel]), strict=True))}
    programs = [gx.compile(outputs, [x, kernel], backend=target) for target in (gpu, "reference")]
    rng = np.random.default_rng(3)
    for batch, height in ((2, 5), (1, 6), (3, 1), (17, 16)):
        feeds = {"x": rng.standard_normal((batch, height, 8, 4)), "k": rng.standard_normal((3, 3, 4, 6))}
        found, wanted = (program(**{k: v.astype(np.float32) for k, v in feeds.items()}) for program in programs)
        for name in outputs:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-3, err_msg=f"{name} {batch}")


def test_more_pixels_than_kernels_count_are_refused():
    sizes = plain((2, 40000, 40000, 1), (3, 3), 8).sizes(Sought.RESULT)
    (variant,) = variants(Sought.RESULT, "Float32", (3, 3), 1, 8, 1)
    with pytest.raises(gx.BackendError, match="3,200,000,000 pixels"):
        list(sizes.launches(variant, (0, 0, 0), 0, False))


@pytest.mark.parametrize("channels", [8, 2])
def test_a_convolution_in_a_loop_reads_slices(gpu, channels):
    """Images of a sequence that begin at multiples of 16 bytes, and others; single channels, too, and gradients."""
    x = gx.placeholder("x", (3, 1, 5, channels))
    w = gx.parameter("w", np.random.default_rng(0).standard_normal((3, channels, channels)).astype(np.float32))
    v = gx.parameter("v", np.ones((2, 1, channels), np.float32))

    def step(total: gx.Node, now: gx.Node) -> tuple[gx.Node, gx.Node]:
        y = gx.conv(gx.conv(now, w, padding="same") + total, v, padding="same", groups=channels)
        return gx.tanh(y), y

    _, states = gx.scan(step, gx.zeros((1, 5, channels)), x)
    gradients = gx.grad(gx.sum(states**2), [w, v])
    outputs = {"y": states, "w": gradients[0], "v": gradients[1]}
    programs = [gx.compile(outputs, [x], backend=target) for target in (gpu, "reference")]
    assert functions(programs[0])
    data = np.random.default_rng(3).standard_normal((3, 1, 5, channels)).astype(np.float32)
    found, wanted = (program(x=data) for program in programs)
    for name in outputs:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_programs_convolve_as_the_reference_does(gpu, device):
    """Several ways in one program, at sizes that fill many blocks and parts where there is a GPU."""
    batch, size = (1, 5) if isinstance(device, EmulatedDevice) else (33, 30)
    rng = np.random.default_rng(4)
    outputs, inputs, feeds = {}, [], {}
    ways = [  # element type, channels, filters, strides, groups
        ("bfloat16", 72, 80, 1, 1), ("float16", 24, 40, 2, 1), ("float32", 3, 70, 2, 1), ("bfloat16", 32, 32, 1, 32),
    ]  # fmt: skip
    for number, (dtype, channels, filters, strides, groups) in enumerate(ways):
        x = gx.placeholder(f"x{number}", (batch, size, size, channels), dtype)
        kernel = gx.placeholder(f"k{number}", (3, 3, channels // groups, filters), dtype)
        y = gx.conv(x, kernel, strides, "same", groups=groups)
        g = gx.placeholder(f"g{number}", y.shape, dtype)
        inputs += [x, kernel, g]
        feeds |= {node.name: rng.standard_normal(node.shape).astype(node.dtype.numpy) for node in inputs[-3:]}
        found = (y, *gx.vjp([y], [x, kernel], [g]))
        outputs |= {f"{name}{number}": value for name, value in zip(("y", "dx", "dk"), found, strict=True)}
    found, wanted = (gx.compile(outputs, inputs, backend=target)(**feeds) for target in (gpu, "reference"))
    for name, b in wanted.items():
        a, b = found[name].astype(np.float64), b.astype(np.float64)
        tolerance = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}[ways[int(name[-1])][0]]
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()), err_msg=name)
