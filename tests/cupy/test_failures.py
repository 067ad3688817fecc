"""Failures of a GPU, acted by a CuPy that is none: each is one error, which says what to do."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

import graphc as gx
from graphc import __main__ as command
from graphc import backend as discovery
from graphc.backend import find_backend
from graphc.backends import cupy as package
from graphc.backends.cupy import CupyBackend, installation
from graphc.backends.cupy.failures import KINDS, LOST, kind_of
from graphc.errors import BackendError
from tests.cupy.emulated_device import EmulatedDevice

GIB = 1 << 30


class FakeError(RuntimeError):
    """What CuPy raises for an error of CUDA's."""


class FullError(Exception):
    """What CuPy raises if its pool gets no memory."""


class FakeCupy(types.ModuleType):
    """As much of CuPy as opening a device, allocating, copying and waiting take.

    Attributes:
        opening, working: the error that these end in.
        left: bytes that may be allocated.
    """

    def __init__(self) -> None:
        super().__init__("cupy")
        self.opening = self.working = ""
        self.left = 3 * GIB
        outer = self

        def fail(text: str) -> None:
            if text:
                raise FakeError(text)

        class Device(contextlib.nullcontext):
            compute_capability = "90"

            def __enter__(self) -> Any:
                return self

        class Stream(contextlib.nullcontext):
            ptr = 1

            def __init__(self, non_blocking: bool = False) -> None:
                super().__init__()
                fail(outer.opening)

            def synchronize(self) -> None:
                fail(outer.working)

        def alloc(nbytes: int) -> Any:
            if nbytes > outer.left:
                raise FullError
            return types.SimpleNamespace(ptr=256)

        self.ndarray = type("ndarray", (), {})
        self.empty = lambda shape, dtype: alloc(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: GIB)
        self.cuda = types.SimpleNamespace(
            Device=Device,
            Stream=Stream,
            alloc=alloc,
            memory=types.SimpleNamespace(OutOfMemoryError=FullError),
            driver=types.SimpleNamespace(CUDADriverError=FakeError),
            runtime=types.SimpleNamespace(
                CUDARuntimeError=FakeError,
                getDeviceProperties=lambda number: {"name": b"Fake"},
                deviceGetAttribute=lambda attribute, number: 232448,
                memGetInfo=lambda: (2 * GIB, 80 * GIB),
                memcpyAsync=lambda *args: fail(outer.working),
                memcpyHostToDevice=1,
            ),
        )


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    """It stands where CuPy would, on a machine with all that is needed."""
    name = "graphc.backends.cupy.cuda"
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(installation, "problem", lambda: None)
    monkeypatch.setattr(installation, "has_cupy", lambda: True)
    package.first_gpu.cache_clear()
    yield fake
    package.first_gpu.cache_clear()
    sys.modules.pop(name, None)
    if hasattr(package, "cuda"):
        del package.cuda


MEANINGS = {
    "cudaErrorMemoryAllocation: out of memory": ("memory is full", "smaller batch"),
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory": ("memory is full", "smaller batch"),
    "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy": (
        "another process has it",
        "nvidia-smi -c DEFAULT",
    ),
    "cudaErrorMpsClientTerminated: another client": ("another of its clients", "nvidia-cuda-mps-control"),
    "cudaErrorInitializationError: initialization error": ("forked", "get_context('spawn')"),
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient": ("driver does not fit", "newer driver"),
    "cudaErrorNoDevice: no CUDA-capable device is detected": ("no such GPU", "CUDA_VISIBLE_DEVICES"),
    "cudaErrorECCUncorrectable: uncorrectable ECC error": ("GPU has failed", "Xid"),
    "cudaErrorIllegalAddress: an illegal memory access": ("the GPU stopped", "start the process again"),
    "cudaErrorUnknown: unknown error": ("the GPU stopped", "start the process again"),
    "something else": ("the GPU stopped", "start the process again"),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_each_error_says_what_it_means_and_what_to_do(cupy, text):
    device = package.first_gpu()
    device.synchronize()
    cupy.working = text
    for act in (device.synchronize, lambda: device.upload(256, np.ones(3))):
        with pytest.raises(BackendError) as caught:
            act()
        what, remedy = MEANINGS[text]
        assert what in caught.value.message
        assert text in caught.value.message
        assert remedy in caught.value.remedy


def test_a_name_means_one_thing():
    names = [name for kind in KINDS for name in kind.names]
    assert len(names) == len(set(names))
    assert all(kind_of(f"cudaError{name}: text") is not LOST for name in names)


def test_full_memory_says_what_takes_how_much_and_how_much_is_left(cupy):
    device = package.first_gpu()
    assert device.allocate(GIB, "a little").nbytes == GIB
    with pytest.raises(BackendError) as caught:
        device.allocate(7 * GIB, "the arena of a step of batch=512")
    message = "memory is full: the arena of a step of batch=512 takes 7.00 GiB, of 80.00 GiB there are 3.00 GiB left"
    assert message in caught.value.message
    assert "program.memory(batch=...)" in caught.value.remedy
    with pytest.raises(BackendError, match=r"memory is full: an array takes 6.00 GiB, of 80.00 GiB there are 3.00 GiB"):
        device.empty((3, GIB // 2), np.dtype(np.float32))


@pytest.mark.parametrize("error", ["cudaErrorDevicesUnavailable: busy", "broken"])
def test_auto_goes_on_if_the_gpu_does_not_open_and_says_so_once(cupy, monkeypatch, error):
    monkeypatch.setattr(discovery, "_told", set())
    if error == "broken":  # as where the libraries of CUDA are missing
        monkeypatch.setitem(sys.modules, "cupy", None)
        reason = "CuPy cannot be imported.*have one build of CuPy alone"
    else:
        cupy.opening = error
        reason = "another process has it.*nvidia-smi"
    with pytest.warns(UserWarning, match=f"does without 'cupy'.*{reason}"):
        assert find_backend("auto").name == "numba"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_backend("auto").name == "numba"
    x = gx.placeholder("x", (3,))
    with pytest.raises(BackendError, match=reason.split(".*")[0]):
        gx.compile({"y": x + 1}, [x], backend="cupy")


def test_auto_takes_a_gpu_that_opens(cupy):
    assert find_backend("auto").name == "cupy"


class FakeDriver:
    """Of one GPU of the generation before Ampere."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: 0

    def cuDeviceGetCount(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = 1
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = {75: 7, 76: 5}[attribute]
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"Old"
        return 0


def test_a_gpu_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(installation, "has_cupy", lambda: True)
    monkeypatch.setattr(installation, "load_driver", FakeDriver)
    reason = installation.problem()
    assert reason is not None
    assert "older than Ampere: its compute capability is 7.5, 8.0 is needed" in reason
    report = command.doctor()
    assert "Old, 0 B, compute capability 7.5" in report
    assert "older than Ampere" in report
    assert installation.capability(1) == (0, 0)


def test_two_devices_may_share_a_parameter():
    """Whoever reads it has the newest value, wherever it was computed."""
    first, second = (CupyBackend(device=EmulatedDevice()) for _ in range(2))
    w, v = gx.parameter("w", np.ones(4, np.float32)), gx.parameter("v", np.zeros(4, np.float32))
    x = gx.placeholder("x", (4,))
    add = gx.compile({}, [x], {w: w + x}, backend=first)
    double = gx.compile({"v": v + 1}, [x], {w: w * 2, v: v + 1}, backend=second)
    read = [gx.compile({"y": w + 0 * x}, [x], backend=target) for target in (first, second, "numba")]
    one, value = np.ones(4, np.float32), np.ones(4, np.float32)
    for turn in range(3):
        for program in read[turn:]:
            np.testing.assert_array_equal(program(x=one)["y"], value)
        add(x=one)
        add.start([one])
        value = value + 2
        for program in read[: turn + 1]:
            np.testing.assert_array_equal(program(x=one)["y"], value)
        double(x=one)
        value = value * 2
        np.testing.assert_array_equal(read[turn](x=one)["y"], value)
    np.testing.assert_array_equal(w.value, value)


def test_an_array_of_another_device_is_refused_by_name():
    x = gx.placeholder("x", (4,))

    class Foreign:
        __cuda_array_interface__: ClassVar[dict[str, Any]] = {}

    for target in (CupyBackend(device=EmulatedDevice()), "numba"):
        program = gx.compile({"y": x + 1}, [x], backend=target)
        with pytest.raises(
            gx.DTypeError, match="takes float32, got an array on a device where the program does not run"
        ):
            program(x=Foreign())
