"""The device layer on CuPy, with a CuPy that records graphs and runs them through the emulator.

What no emulator can show, that CUDA itself does what is asked of it, ``pytest -m gpu`` does on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends import cupy as package
from graphc.backends.cupy import CupyBackend, feeds
from graphc.backends.cupy.device import Launch
from tests.cupy.emulated_device import EmulatedDevice, multiply, view
from tests.cupy.emulator import aligned_bytes, compile_kernels, launch
from tests.cupy.test_failures import FakeCupy
from tests.cupy.test_products import FakeLt
from tests.spine.models import batch, classifier_model, classifier_step

SIZES = 12, 24, 4


class Array:
    """An array of CuPy's, as far as programs look at it."""

    device = SimpleNamespace(id=0)

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.data = SimpleNamespace(ptr=values.ctypes.data)
        self.shape, self.dtype, self.nbytes, self.flags = values.shape, values.dtype, values.nbytes, values.flags

    def __getitem__(self, key: Any) -> Array:
        return Array(self.values[key, ...])


class RunningCupy(FakeCupy):
    """Memory is the host's, streams run at once, but for what is recorded.

    Attributes:
        recording: what has been recorded so far, while a recording is under way.
        expected: the launches that a recording shall contain, in order.
        functions: a library of the emulator and a name, by address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recording: list[Callable[[], None]] | None = None
        self.expected: deque[Launch] = deque()
        self.functions: dict[int, tuple[Any, str]] = {}
        self.library: Any = None
        self.kept: list[np.ndarray] = []
        self.streams: set[int] = set()
        numbers = itertools.count(1)
        outer = self

        class Event:
            def __init__(self, disable_timing: bool) -> None:
                self.recorded = False

            def record(self, stream: Any) -> None:
                self.recorded = True

            def synchronize(self) -> None:
                assert self.recorded

        class Stream(contextlib.nullcontext):
            def __init__(self, non_blocking: bool) -> None:
                super().__init__()
                self.ptr = next(numbers)

            def synchronize(self) -> None:
                assert outer.recording is None

            def wait_event(self, event: Event) -> None:
                assert event.recorded

            def begin_capture(self, mode: int) -> None:
                outer.recording = []

            def end_capture(self) -> Any:
                acts, outer.recording = outer.recording, None
                assert acts is not None
                assert not outer.expected
                return SimpleNamespace(launch=lambda stream: [act() for act in acts])

        class Module:
            def load(self, code: bytes) -> None:
                self.names = code.decode().split()

            def get_function(self, name: str) -> Any:
                assert name in self.names
                outer.functions[len(outer.functions)] = outer.library, name
                return SimpleNamespace(ptr=len(outer.functions) - 1)

        def memory(nbytes: int) -> np.ndarray:
            outer.kept.append(aligned_bytes(nbytes))
            outer.kept[-1][:] = 0xA5
            return outer.kept[-1]

        shared: dict[int, int] = {}  # what functions may have of shared memory

        def launch_kernel(
            function: int, blocks: int, _: int, __: int, threads: int, *rest: int
        ) -> None:  # as the driver reads arguments: by their addresses
            *_, asked, _, starts, _ = rest
            assert asked <= shared.get(function, 48 << 10)
            wanted = outer.expected.popleft()
            count = 1 if wanted.table else len(wanted.words)
            places = view(starts, 8 * count).view(np.int64)
            words = [
                view(int(place), 8 * (len(wanted.words) if wanted.table else 1)).view(np.int64) for place in places
            ]
            found = np.concatenate(words)
            assert (blocks, threads, rest[2]) == (wanted.blocks, wanted.threads, wanted.shared_bytes)
            assert found.tolist() == list(wanted.words)
            library, name = outer.functions[function]
            assert name == wanted.function
            outer.act(lambda: launch(library, name, blocks, found))

        def copy(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
            ctypes.memmove(target, source, nbytes)

        def empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            return Array(memory(nbytes).view(dtype).reshape(shape))

        self.ndarray, self.empty = Array, empty
        vars(self.cuda).update(
            Event=Event,
            Stream=Stream,
            alloc=lambda nbytes: SimpleNamespace(ptr=memory(nbytes).ctypes.data),
            alloc_pinned_memory=memory,
            get_current_stream=lambda number: SimpleNamespace(ptr=0),
            function=SimpleNamespace(Module=Module),
        )
        vars(self.cuda.driver).update(
            launchKernel=launch_kernel,
            funcSetAttribute=lambda function, attribute, value: shared.update({function: value * (attribute == 8)}),
        )
        vars(self.cuda.runtime).update(
            memcpyAsync=copy,
            memsetAsync=lambda address, value, nbytes, stream: self.act(lambda: ctypes.memset(address, value, nbytes)),
            memcpyHostToDevice=1,
            memcpyDeviceToHost=2,
            memcpyDeviceToDevice=3,
            streamCaptureModeRelaxed=2,
            driverGetVersion=lambda: 13000,
        )

    def act(self, what: Callable[[], None]) -> None:
        """Do it now, or when the recording runs."""
        if self.recording is None:
            what()
        else:
            self.recording.append(what)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The layer itself, which tells the stand-in what it is about to record."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    fake, name = RunningCupy(), "graphc.backends.cupy.cuda"
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.delitem(sys.modules, name, raising=False)
    from graphc.backends.cupy import cublas, cuda

    class Blas:
        def __init__(self, loaded: Any, stream: int, workspace: int) -> None:
            assert loaded == "a library"
            assert workspace

        def product(self, work: Any) -> None:
            fake.act(lambda: multiply(work))

    class Told(cuda.CudaDevice):
        def load(self, unit: Any) -> Any:
            fake.library = compile_kernels(
                unit.entries, unit.source, small_products=unit.small_products, attention=unit.attention
            )
            return super().load(unit)

        def record(self, module: Any, tasks: Any) -> Any:
            fake.expected.extend(task.work for task in tasks if isinstance(task.work, Launch))
            return super().record(module, tasks)

        def finishes(self, product: Any) -> bool:
            return False

    monkeypatch.setattr(cuda, "cubins", lambda parts, arch: [" ".join(part.functions).encode() for part in parts])
    monkeypatch.setattr(cublas, "library", lambda *args: "a library")
    monkeypatch.setattr(cublas, "Cublas", Blas)
    yield Told()
    sys.modules.pop(name, None)
    if hasattr(package, "cuda"):
        del package.cuda


@pytest.mark.parametrize("least", [0, 1 << 30], ids=["beside", "between"])
def test_steps_are_those_of_the_emulated_device(device, monkeypatch, least):
    """With products, tables of arguments, checks, results that are posted, and inputs from pinned memory."""
    monkeypatch.setattr(feeds, "BESIDE_BYTES", least)
    trained: list[list[np.ndarray]] = []
    for each in (device, EmulatedDevice(has_epilogues=False)):
        step = classifier_step(SIZES, rate=0.2, backend=CupyBackend(device=each))
        draws = np.random.default_rng(3)
        data = [(draws.standard_normal((40, SIZES[0]), np.float32), draws.integers(0, 4, 40)) for _ in range(5)]
        results = [step.start(list(batch)) for batch in data]
        losses = np.array([float(loss) for (loss,) in results])
        with pytest.raises(gx.IndexRangeError):
            step(x=data[0][0], labels=data[0][1] + 4)
        trained.append([losses, *(parameter.value for parameter in step.parameters)])
    for found, wanted in zip(*trained, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_fit_and_arrays_of_cupy(device):
    x = np.random.default_rng(0).standard_normal((50, SIZES[0])).astype(np.float32)
    labels = np.arange(50) % SIZES[-1]
    weights: list[list[np.ndarray]] = []
    for each in (device, EmulatedDevice(has_epilogues=False)):
        model = classifier_model(SIZES, 0.1, CupyBackend(device=each))
        model.fit(x, labels, 16, 2, verbose=0)
        weights.append(model.get_weights())
    for found, wanted in zip(*weights, strict=True):
        np.testing.assert_array_equal(found, wanted)
    p = gx.placeholder("p", (50, SIZES[0]))
    program = gx.compile({"y": p * 2}, [p], backend=CupyBackend(device=device))
    (there,) = program.place([x]) or [None]
    for _ in range(3):
        found = program(p=there)["y"]
        assert isinstance(found, Array)
        np.testing.assert_array_equal(found.values, x * 2)
    assert device.free_bytes() > 0


def test_a_kernel_may_have_as_much_shared_memory_as_its_launch_brings(device):
    """More than 48 KiB have to be asked for."""
    x = gx.placeholder("x", (2, 14000))
    program = gx.compile({"y": gx.softmax(gx.exp(x))}, [x], backend=CupyBackend(device=device))
    assert any(nbytes > 48 << 10 for nbytes in program.executable.unit.shared_bytes.values())
    given = np.random.default_rng(0).standard_normal((2, 14000)).astype(np.float32)
    found = program(x=given)["y"]
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)


def test_products_end_with_their_bias_and_relu_by_the_library(device, monkeypatch):
    from graphc.backends.cupy import cublas, cublaslt, cuda

    fake, library = sys.modules["cupy"], FakeLt()
    workspaces: set[int] = set()

    class Recorded(cublaslt.CublasLt):
        def product(self, item: Any, stream: int, workspace: int) -> None:
            workspaces.add(workspace)
            fake.act(lambda: super(Recorded, self).product(item, stream, workspace))

    monkeypatch.setattr(cublaslt, "CublasLt", Recorded)
    monkeypatch.setattr(cublas, "library", lambda name="cublas": library if name == "cublasLt" else "a library")
    monkeypatch.setattr(type(device), "finishes", cuda.CudaDevice.finishes)
    trained: list[list[np.ndarray]] = []
    for each in (device, EmulatedDevice()):
        step = classifier_step((20, 24, 18, 4), backend=CupyBackend(device=each))
        feeds = batch(40, 20, 4)
        losses = [step(**feeds)["loss"] for _ in range(3)]
        trained.append([np.array(losses), *(parameter.value for parameter in step.parameters)])
    for found, wanted in zip(*trained, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert library.multiplied == 2 + 3 * 2  # once each on NaN
    assert workspaces
    assert 0 not in workspaces
