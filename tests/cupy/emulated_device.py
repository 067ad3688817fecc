"""The device layer on the CPU: CUDA C runs through the emulator, products through NumPy, memory is the host's."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.backends.cupy.device import Clear, Launch, Product, Task
from graphc.backends.cupy.lanes import assign_lanes
from graphc.backends.cupy.module import Unit
from graphc.backends.cupy.state import Residence
from graphc.errors import BackendError
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
    """

    name: str = "emulated"
    arch: str = "sm_90"
    capacity: int = 1 << 30
    shuffled: bool = False
    downwards: bool = False
    lock: Any = field(default_factory=threading.RLock)
    residence: Residence = field(default_factory=Residence)
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

    def load(self, unit: Unit) -> EmulatedModule:
        library = compile_kernels(
            unit.entries, unit.source, small_products=unit.small_products, attention=unit.attention
        )
        return EmulatedModule(library, {name: name for name in unit.functions})

    def pinned(self, nbytes: int) -> np.ndarray:
        return aligned_bytes(nbytes)

    def upload(self, address: int, array: np.ndarray) -> None:
        self.uploads += 1
        view(address, array.nbytes)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

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

    def perform(self, module: EmulatedModule, work: Launch | Product | Clear) -> None:
        match work:
            case Launch():
                launch(module.library, work.function, work.blocks, np.array(work.words, np.int64), self.downwards)
            case Product():
                multiply(work)
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
            c[...] = left @ (b.T if work.transpose_b else b).astype(wide)


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
