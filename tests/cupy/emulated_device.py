"""The device layer on the CPU: CUDA C runs through the emulator, products through NumPy, memory is the host's."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.backends.cupy.choice import Choices
from graphc.backends.cupy.device import Clear, Convolution, Launch, Product, Task, Work
from graphc.backends.cupy.lanes import assign_lanes
from graphc.backends.cupy.module import Unit
from graphc.backends.cupy.state import Residence
from graphc.errors import BackendError
from graphc.lower.plan import Sought
from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose
from tests.cupy.emulator import aligned_bytes, compile_kernels, launch


@dataclass(frozen=True)
class HostMemory:
    data: np.ndarray
    nbytes: int

    @property
    def address(self) -> int:
        return self.data.ctypes.data


@dataclass(frozen=True)
class DeviceArray:
    """What CuPy's arrays are: not NumPy's, on the device, with a shape and a type."""

    data: np.ndarray

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    nbytes = property(lambda self: self.data.nbytes)
    flags = property(lambda self: self.data.flags)

    def __getitem__(self, rows: int | slice) -> DeviceArray:
        return DeviceArray(self.data[rows, ...])

    def get(self) -> np.ndarray:
        return self.data.copy()


@dataclass
class EmulatedModule:
    library: Any
    functions: dict[str, str]


@dataclass
class EmulatedGraph:
    device: EmulatedDevice
    module: EmulatedModule
    tasks: tuple[Task, ...]
    order: tuple[int, ...]

    def launch(self) -> None:
        self.device.launches += 1
        for position in self.order:
            self.device.perform(self.module, self.tasks[position].work)


class EmulatedMark:
    def wait(self) -> None:
        pass


@dataclass(eq=False)
class EmulatedDevice:
    """Attributes of its own.

    capacity: bytes that may be taken in all.
    shuffled: tasks run in another order that their dependencies allow.
    library: names of the plans of a library that convolves, with the workspace of each; none, and there is no library.
    seconds: how long a graph is said to take; None, and times say nothing.
    """

    name: str = "emulated"
    arch: str = "sm_90"
    shared_bytes: int = 227 * 1024
    capacity: int = 1 << 30
    shuffled: bool = False
    downwards: bool = False
    has_epilogues: bool = True
    lock: Any = field(default_factory=threading.RLock)
    residence: Residence = field(default_factory=Residence)
    choices: Choices = field(default_factory=Choices)
    versions: str = "emulated"
    library: dict[str, int] = field(default_factory=dict)
    seconds: Callable[[EmulatedGraph], float] | None = None
    taken: int = 0
    launches: int = 0
    recordings: int = 0
    uploads: int = 0

    def allocate(self, nbytes: int, what: str) -> HostMemory:
        if self.taken + nbytes > self.capacity:
            raise BackendError(f"the GPU's memory is full: {what}", remedy="take a smaller batch")
        self.taken += nbytes
        data = aligned_bytes(max(nbytes, 1))
        data[:] = 0xA5  # nothing is zero by itself
        return HostMemory(data, nbytes)

    def free_bytes(self) -> int:
        return self.capacity - self.taken

    def load(self, unit: Unit) -> EmulatedModule:
        library = compile_kernels(
            unit.entries,
            unit.source,
            small_products=unit.small_products,
            attention=unit.attention,
            convolution=unit.convolution,
        )
        return EmulatedModule(library, {name: name for name in unit.functions})

    def pinned(self, nbytes: int) -> np.ndarray:
        return aligned_bytes(nbytes)

    def upload(self, address: int, array: np.ndarray) -> None:
        self.uploads += 1
        view(address, array.nbytes)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def upload_beside(self, address: int, array: np.ndarray, after: EmulatedMark | None) -> EmulatedMark:
        self.upload(address, array)
        return EmulatedMark()

    def download(self, array: np.ndarray, address: int) -> None:
        if array.nbytes:
            array.reshape(-1).view(np.uint8)[:] = view(address, array.nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        view(target, nbytes)[:] = view(source, nbytes)

    def clear(self, address: int, nbytes: int) -> None:
        view(address, nbytes)[:] = 0

    def record(self, module: EmulatedModule, tasks: Sequence[Task]) -> EmulatedGraph:
        self.recordings += 1
        return EmulatedGraph(self, module, tuple(tasks), order_of(tasks, self.shuffled))

    @property
    def measures(self) -> bool:
        return self.seconds is not None

    def timed(self, graph: EmulatedGraph, times: int) -> list[float]:
        assert self.seconds is not None
        for _ in range(times):
            graph.launch()
        return [self.seconds(graph)] * times

    def library_version(self) -> str:
        return "a library" if self.library else ""

    def convolution_plans(self, convolution: Convolution) -> Iterator[str]:
        if not self.library:
            raise BackendError("there is no library", remedy="install one")
        yield from self.library

    def convolution_workspace(self, convolution: Convolution) -> int:
        if convolution.plan not in self.library:
            raise BackendError("there is no such plan")
        return self.library[convolution.plan]

    def finishes(self, product: Product) -> bool:
        return self.has_epilogues

    def mark(self) -> EmulatedMark:
        return EmulatedMark()

    def synchronize(self) -> None:
        pass

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return DeviceArray(aligned_bytes(nbytes).view(dtype).reshape(shape))

    def is_array(self, value: object) -> bool:
        return isinstance(value, DeviceArray)

    def address_of(self, array: DeviceArray) -> int:
        return array.data.ctypes.data

    def enter(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def perform(self, module: EmulatedModule, work: Work) -> None:
        match work:
            case Launch():
                launch(module.library, work.function, work.blocks, np.array(work.words, np.int64), self.downwards)
            case Product():
                multiply(work)
            case Convolution():
                view(work.workspace, work.workspace_bytes)[:] = 0xA5
                convolve(work)
            case Clear():
                self.clear(work.address, work.nbytes)


def view(address: int, nbytes: int) -> np.ndarray:
    """Bytes of memory that somebody holds."""
    if not nbytes:
        return np.zeros(0, np.uint8)
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)


def multiply(work: Product) -> None:
    """A product on strided views of memory."""

    def matrix(address: int, i: int, stride: int, row: int, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
        size = dtype.itemsize
        elements = (shape[0] - 1) * row + shape[1]
        flat = view(address + i * stride * size, elements * size).view(dtype)
        return np.lib.stride_tricks.as_strided(flat, shape, (row * size, size))

    of, to = work.dtype.numpy, work.result.numpy
    m, n, k = work.m, work.n, work.k
    wide = work.dtype.wide.numpy
    for i in range(work.batch):
        a = matrix(work.a, i, work.strides[0], work.lda, (k, m) if work.transpose_a else (m, k), of)
        b = matrix(work.b, i, work.strides[1], work.ldb, (n, k) if work.transpose_b else (k, n), of)
        c = matrix(work.c, i, work.strides[2], work.ldc, (m, n), to)
        with np.errstate(all="ignore"):
            left = (a.T if work.transpose_a else a).astype(wide)
            sums = left @ (b.T if work.transpose_b else b).astype(wide)
            if work.addend:
                sums += matrix(work.addend, i, work.strides[2], work.ldc, (m, n), to).astype(wide)
            if work.bias:
                sums += view(work.bias, n * to.itemsize).view(to).astype(wide)
            c[...] = work.activation.of(sums)


def convolve(work: Convolution) -> None:
    """A convolution as the reference computes it, on operands that lie as a library takes them."""
    x_shape, y_shape = (work.batch, *work.sizes, work.channels), (work.batch, *work.counts, work.filters)
    per_group = work.channels // work.groups

    def array(address: int, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * work.dtype.itemsize
        return view(address, size).view(work.dtype.numpy).reshape(shape)

    x, y = array(work.x, x_shape), array(work.y, y_shape)
    kernel = np.moveaxis(array(work.kernel, (work.filters, *work.window, per_group)), 0, -1)
    common = (work.strides, work.dilations, work.low, work.groups)
    wide = work.dtype.wide.numpy
    with np.errstate(all="ignore"):
        match work.sought:
            case Sought.RESULT:
                y[...] = Conv(*common, work.high).reference(x.astype(wide), kernel.astype(wide))
            case Sought.INPUT:
                x[...] = ConvTranspose(*common, work.sizes).reference(y.astype(wide), kernel.astype(wide))
            case Sought.KERNEL:
                op = ConvKernelGrad(*common, work.high, work.window)
                kernel[...] = op.reference(x.astype(wide), y.astype(wide))


def order_of(tasks: Sequence[Task], shuffled: bool) -> tuple[int, ...]:
    """An order that dependencies allow: as given, or lane by lane as far as waits let a lane run ahead."""
    if not shuffled:
        return tuple(range(len(tasks)))
    places = assign_lanes([task.after for task in tasks], 4)
    lanes: dict[int, list[int]] = {}
    for position, place in enumerate(places):
        lanes.setdefault(place.lane, []).append(position)
    done: list[int] = []
    while any(lanes.values()):
        for lane in sorted(lanes, reverse=True):  # the last lane runs as far ahead as it may
            while lanes[lane] and set(places[lanes[lane][0]].waits) <= set(done):
                done.append(lanes[lane].pop(0))
    return tuple(done)
