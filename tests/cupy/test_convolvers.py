"""Convolutions by a library and by graphc's kernels: the same numbers, and who was chosen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import graphc as gx
from graphc import cache
from graphc.backends.cupy import CupyBackend, backend, choice, cudnn
from graphc.backends.cupy.alternatives import transposition
from graphc.backends.cupy.device import Convolution
from graphc.backends.cupy.nvrtc import compile_cubin
from graphc.backends.cupy.printer import function_name, module_source
from graphc.errors import BackendError
from graphc.ir.types import DType
from graphc.loops.gpu import map_to_gpu
from tests.cupy.emulated_device import EmulatedDevice

CASES = {
    "plain": ((2, 6, 5, 4), (3, 3, 4, 6), {}),
    "padded on one side, with strides": ((2, 7, 6, 3), (3, 2, 3, 5), {"strides": 2, "padding": [(0, 1), (2, 0)]}),
    "what is left behind x": ((1, 8, 8, 2), (2, 2, 2, 3), {"strides": 3}),
    "dilated": ((2, 9, 5), (3, 5, 4), {"dilations": 2}),
    "groups": ((2, 5, 5, 6), (3, 3, 3, 4), {"groups": 2, "padding": "same"}),
    "channels one by one": ((2, 5, 5, 4), (3, 3, 1, 4), {"groups": 4}),
    "three axes": ((1, 4, 5, 3, 2), (2, 3, 1, 2, 3), {"padding": "same"}),
    "single elements with strides": ((2, 5, 5, 4), (1, 1, 4, 3), {"strides": 2}),
}


def program_of(case: str, who, dtype: str = "float32"):
    """A convolution with its gradients by both operands, of which the first one is an input of symbolic size."""
    shape, window, how = CASES[case]
    x, kernel = gx.placeholder("x", ("images", *shape[1:]), dtype), gx.placeholder("kernel", window, dtype)
    y = gx.conv(x, kernel, **how)
    g = gx.placeholder("g", y.shape, dtype)
    outputs = dict(zip(("dx", "dk"), gx.vjp([y], [x, kernel], [g]), strict=True))
    return gx.compile({"y": y, **outputs}, [x, kernel, g], backend=who)


def feeds_of(case: str, program, dtype: str = "float32") -> dict[str, np.ndarray]:
    shape, window, _ = CASES[case]
    rng = np.random.default_rng(3)
    y = program.graph.outputs[0][1].shape
    shapes = {"x": shape, "kernel": window, "g": (shape[0], *y[1:])}
    element = program.graph.inputs[0].dtype.numpy
    return {name: rng.standard_normal(size).astype(element) for name, size in shapes.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_library_gets_a_right_description(case):
    device = EmulatedDevice(shuffled=True, library={"a plan": 1000})
    program = program_of(case, CupyBackend(device=device, convolution="cudnn"))
    wanted = program_of(case, "reference")
    feeds = feeds_of(case, program)
    for (name, found), right in zip(program(**feeds).items(), wanted(**feeds).values(), strict=True):
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5, err_msg=name)
    notes = program.executable.notes()
    assert len(notes) == 3
    assert all("cudnn a plan (fixed)" in note for note in notes), notes
    assert [note.split(" of ")[0] for note in notes] == ["result", "input", "kernel"]


@pytest.mark.parametrize("who", ["graphc", "cudnn"])
def test_16_bits_are_read_as_they_are_by_both(who):
    device = EmulatedDevice(shuffled=True, library={"a plan": 0})
    program = program_of("groups", CupyBackend(device=device, convolution=who), "bfloat16")
    feeds = feeds_of("groups", program)
    wanted = program_of("groups", "reference", "bfloat16")(**feeds)
    for found, right in zip(program(**feeds).values(), wanted.values(), strict=True):
        np.testing.assert_allclose(found.astype(np.float32), right.astype(np.float32), rtol=2e-2, atol=2e-2)
    assert all(f": {who} " in note and "bfloat16" in note for note in program.executable.notes())


def named(graph) -> str:
    return "library" if any(isinstance(task.work, Convolution) for task in graph.tasks) else "own"


@pytest.fixture
def fresh(monkeypatch):
    """Choices are kept for this test alone; compiled kernels stay in the cache."""
    kept: dict[str, bytes] = {}
    entries = SimpleNamespace(
        digest=cache.digest, get=lambda key, kind: kept.get(key), put=lambda k, _, d: kept.update({k: d})
    )
    monkeypatch.setattr(choice, "cache", entries)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("fast", ["library", "own"])
def test_the_faster_one_is_taken_and_the_program_explains_it(fast):
    device = EmulatedDevice(
        library={"a plan": 64, "another": 0}, seconds=lambda graph: 1e-3 if named(graph) == fast else 2e-3
    )
    program = program_of("plain", CupyBackend(device=device))
    feeds = feeds_of("plain", program)
    for found, right in zip(program(**feeds).values(), program_of("plain", "reference")(**feeds).values(), strict=True):
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5)
    text = program.explain()
    winner = "cudnn a plan" if fast == "library" else "graphc convolution_result_float32"
    assert "result of a convolution from 2x6x5x4 to 4x3x6 by 3x3, float32: " + winner in text
    assert "(measured: " in text
    assert "0.3333 ms" in text
    # another process, in which the other one would be faster
    again = EmulatedDevice(library=device.library, seconds=lambda graph: 1.0 if named(graph) == fast else 1e-9)
    second = program_of("plain", CupyBackend(device=again))
    for found, right in zip(second(**feeds).values(), program(**feeds).values(), strict=True):
        np.testing.assert_array_equal(found, right)
    assert [note.replace("(kept", "(measured") for note in second.executable.notes()] == [*program.executable.notes()]


@pytest.mark.usefixtures("fresh")
def test_parameters_and_inputs_are_not_touched_by_measuring():
    """All that is measured works on memory that nothing else uses."""
    kernel = gx.parameter("kernel", np.random.default_rng(1).standard_normal((3, 3, 2, 4)).astype(np.float32))
    x = gx.placeholder("x", ("images", 5, 5, 2))
    loss = gx.mean(gx.square(gx.conv(x, kernel)))
    updates = {kernel: kernel - 0.1 * gx.grad(loss, [kernel])[0]}
    device = EmulatedDevice(library={"a plan": 8}, seconds=lambda graph: 1.0)
    first = kernel.value
    step = gx.compile({"loss": loss}, [x], updates, backend=CupyBackend(device=device), training=True)
    feeds = {"x": np.random.default_rng(2).standard_normal((3, 5, 5, 2)).astype(np.float32)}
    losses = [float(step(**feeds)["loss"]) for _ in range(2)]
    kernel.value = first
    reference = gx.compile({"loss": loss}, [x], updates, backend="reference", training=True)
    np.testing.assert_allclose(losses, [float(reference(**feeds)["loss"]) for _ in range(2)], rtol=1e-5)


@pytest.mark.usefixtures("fresh")
def test_without_a_library_its_absence_is_said_once():
    device = EmulatedDevice(seconds=lambda graph: 1.0)
    program = program_of("dilated", CupyBackend(device=device))
    program(**feeds_of("dilated", program))
    assert program.explain().count("there is no library; install one") == 1
    assert "left out of 3 choices: cudnn: there is no library; install one" in program.explain()


def test_who_is_pinned_has_to_be_there():
    with pytest.raises(BackendError, match="cuDNN is to convolve, but is not installed") as caught:
        program_of("plain", CupyBackend(device=EmulatedDevice(), convolution="cudnn"))
    assert "graphc[cudnn]" in str(caught.value)
    with pytest.raises(BackendError, match="'cudn'"):
        CupyBackend(convolution="cudn")


def test_what_the_library_cannot_do_is_computed_by_kernels_and_said():
    class Picky(EmulatedDevice):
        def convolution_plans(self, convolution):
            raise BackendError("it refuses")

    program = program_of("plain", CupyBackend(device=Picky(library={"a plan": 0}), convolution="cudnn"))
    feeds = feeds_of("plain", program)
    for found, right in zip(program(**feeds).values(), program_of("plain", "reference")(**feeds).values(), strict=True):
        np.testing.assert_allclose(found, right, rtol=2e-5, atol=2e-5)
    notes = program.executable.notes()
    assert notes[-1] == "left out of 3 choices: cudnn: it refuses"
    assert all(": graphc convolution_" in note for note in notes[:-1])


def test_what_a_loop_writes_where_vectors_may_not_begin_is_left_to_kernels():
    """The library is told that all operands begin at multiples of 16 bytes; results of 27 elements side by side don't."""
    x, kernel = gx.placeholder("x", (3, 1, 5, 5, 8)), gx.placeholder("kernel", (3, 3, 8, 3))
    _, y = gx.scan(lambda carry, image: (carry * 0.5, gx.conv(image, carry)), kernel, x)
    program = gx.compile(
        {"y": y}, [x, kernel], backend=CupyBackend(device=EmulatedDevice(library={"a plan": 0}), convolution="cudnn")
    )
    rng = np.random.default_rng(4)
    feeds = {"x": rng.standard_normal((3, 1, 5, 5, 8)), "kernel": rng.standard_normal((3, 3, 8, 3))}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    wanted = gx.compile({"y": y}, [x, kernel], backend="reference")(**feeds)["y"]
    np.testing.assert_allclose(program(**feeds)["y"], wanted, rtol=2e-5, atol=2e-5)
    assert "begin at multiples of 16 bytes" in program.executable.notes()[-1]


def test_no_images_are_no_work():
    device = EmulatedDevice(library={"a plan": 0})
    program = program_of("plain", CupyBackend(device=device, convolution="cudnn"))
    feeds = {name: array if name == "kernel" else array[:0] for name, array in feeds_of("plain", program).items()}
    found = program(**feeds)
    assert found["y"].shape == (0, 4, 3, 6)
    assert not found["dk"].any()


def test_transpositions_are_kernels_like_others():
    device = EmulatedDevice(library={"a plan": 0})
    program = program_of("plain", CupyBackend(device=device, convolution="measured"))
    assert "transpose_float32_kernel" in program.executable.unit.functions
    alone = program_of("plain", CupyBackend(device=device, convolution="graphc"))
    assert "transpose_float32_kernel" not in alone.executable.unit.functions


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_nvrtc_compiles_transpositions_of_each_width_to_registers(arch):
    kernels = [map_to_gpu(transposition(dtype)) for dtype in (DType.bfloat16, DType.float16, DType.float32)]
    usage = compile_cubin(module_source(kernels), arch).usage
    assert {function_name(kernel) for kernel in kernels} <= usage.keys()
    assert not any(found.spill_bytes for found in usage.values())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_cudnn_computes_what_the_reference_does(case, dtype):
    """The same bits twice, from programs of their own, too."""
    reason = backend.available() or (None if cudnn.installed() else "cuDNN is not installed")
    if reason is not None:
        pytest.skip(reason)
    programs = [program_of(case, CupyBackend(convolution="cudnn"), dtype) for _ in range(2)]
    feeds = feeds_of(case, programs[0])
    first, again, other = programs[0](**feeds), programs[0](**feeds), programs[1](**feeds)
    wanted = program_of(case, "reference", dtype)(**feeds)
    bound = 1e-4 if dtype == "float32" else 3e-2
    for name, right in wanted.items():
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], other[name])
        found, right = first[name].astype(np.float32), right.astype(np.float32)
        np.testing.assert_allclose(found, right, rtol=bound, atol=bound * np.abs(right).max(), err_msg=name)
    assert any(": cudnn " in note for note in programs[0].executable.notes())
