"""The device layer on CuPy: its memory pool, streams, modules and graphs, and cuBLAS called by address.

Objects of CuPy and CUDA are annotated as Any: they have no types of their own.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.backends.cupy import cublas, cublaslt, cudnn
from graphc.backends.cupy.choice import Choices
from graphc.backends.cupy.cubins import cubins
from graphc.backends.cupy.device import Array, Clear, Convolution, Launch, Product, Task, Work
from graphc.backends.cupy.failures import FULL, explained
from graphc.backends.cupy.lanes import Place, assign_lanes
from graphc.backends.cupy.module import Unit
from graphc.backends.cupy.nvrtc import nvrtc_version
from graphc.backends.cupy.state import Residence
from graphc.errors import BackendError

cupy: Any = importlib.import_module("cupy")
driver: Any = cupy.cuda.driver
runtime: Any = cupy.cuda.runtime

SHARED_BYTES_ATTRIBUTE = 97
"""CUDA's number for what a block may have of shared memory if it asks for it."""
MORE_SHARED_BYTES = 8
"""CUDA's number for asking for it, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""
LANES = 8
"""Streams that a recording may use side by side."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _explained(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Errors of CUDA as one clear error of graphc's."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
            raise explained(error) from error

    return call


@dataclass(frozen=True)
class CudaMemory:
    """Memory of CuPy's pool."""

    pointer: Any
    nbytes: int

    @property
    def address(self) -> int:
        return int(self.pointer.ptr)


@dataclass(frozen=True)
class CudaModule:
    """Loaded cubins."""

    loaded: tuple[Any, ...]
    functions: dict[str, Any]


@dataclass(frozen=True)
class CudaGraph:
    """A CUDA graph on the device's stream, and what must live as long."""

    graph: Any
    stream: Any
    kept: tuple[Any, ...] = ()

    @_explained
    def launch(self) -> None:
        self.graph.launch(self.stream)


@dataclass(frozen=True)
class CudaMark:
    """An event."""

    event: Any

    @_explained
    def wait(self) -> None:
        self.event.synchronize()


@dataclass
class _Lane:
    """A stream that takes part in recordings, with its cuBLAS handle."""

    stream: Any
    workspace: CudaMemory | None = None
    blas: cublas.Cublas | None = None


class CudaDevice:
    """See :class:`graphc.backends.cupy.device.Device`."""

    measures = True

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.lock = threading.RLock()
        self.residence = Residence()
        self.choices = Choices()
        try:
            with cupy.cuda.Device(number) as device:
                properties = runtime.getDeviceProperties(number)
                self.name = properties["name"].decode()
                self.arch = f"sm_{device.compute_capability}"
                self.shared_bytes = int(runtime.deviceGetAttribute(SHARED_BYTES_ATTRIBUTE, number))
                # a stream that waits for the default stream and is waited for, so that CuPy's ordinary use is in order
                self._stream = cupy.cuda.Stream(non_blocking=False)
                self._copies = cupy.cuda.Stream(non_blocking=True)  # for what runs beside that
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
            raise explained(error) from error
        self._lanes: list[_Lane] = []

    @property
    def versions(self) -> str:
        return f"{self.arch}, driver {runtime.driverGetVersion()}, NVRTC {nvrtc_version()}"

    @contextmanager
    def _current(self) -> Iterator[None]:
        with cupy.cuda.Device(self.number), self._stream:
            yield

    @_explained
    def allocate(self, nbytes: int, what: str) -> CudaMemory:
        with self._current(), self._room(nbytes, what):
            return CudaMemory(cupy.cuda.alloc(max(nbytes, 1)), nbytes)

    @contextmanager
    def _room(self, nbytes: int, what: str) -> Iterator[None]:
        """Say what took how much if CuPy's pool gets no memory."""
        try:
            yield
        except cupy.cuda.memory.OutOfMemoryError:
            total = runtime.memGetInfo()[1]
            raise BackendError(
                f"the GPU's memory is full: {what} takes {readable(nbytes)}, of {readable(total)} there are "
                f"{readable(self.free_bytes())} left",
                remedy=FULL.remedy,
            ) from None

    @_explained
    def free_bytes(self) -> int:
        with self._current():  # what nobody has, and what the pool has kept
            return int(runtime.memGetInfo()[0]) + int(cupy.get_default_memory_pool().free_bytes())

    @_explained
    def load(self, unit: Unit) -> CudaModule:
        codes = cubins(unit.parts, self.arch)
        functions: dict[str, Any] = {}
        with self._current():
            loaded: list[Any] = []
            for part, code in zip(unit.parts, codes, strict=True):
                module = cupy.cuda.function.Module()
                module.load(code)
                loaded.append(module)
                functions |= {name: module.get_function(name) for name in part.functions}
            for name, nbytes in unit.shared_bytes.items():  # 48 KiB unless more is asked for
                driver.funcSetAttribute(functions[name].ptr, MORE_SHARED_BYTES, nbytes)
            return CudaModule(tuple(loaded), functions)

    @_explained
    def pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return np.frombuffer(cupy.cuda.alloc_pinned_memory(max(nbytes, 1)), np.uint8, nbytes)

    @_explained
    def upload(self, address: int, array: Array) -> None:
        if array.nbytes:
            with self._current():
                runtime.memcpyAsync(
                    address, array.ctypes.data, array.nbytes, runtime.memcpyHostToDevice, self._stream.ptr
                )

    @_explained
    def upload_beside(self, address: int, array: Array, after: CudaMark | None) -> CudaMark:
        with cupy.cuda.Device(self.number):
            if after is not None:
                self._copies.wait_event(after.event)
            source, kind = array.ctypes.data, runtime.memcpyHostToDevice
            runtime.memcpyAsync(address, source, array.nbytes, kind, self._copies.ptr)
            event = cupy.cuda.Event(disable_timing=True)
            event.record(self._copies)
            self._stream.wait_event(event)
            return CudaMark(event)

    @_explained
    def download(self, array: Array, address: int) -> None:
        if array.nbytes:
            with self._current():
                runtime.memcpyAsync(
                    array.ctypes.data, address, array.nbytes, runtime.memcpyDeviceToHost, self._stream.ptr
                )

    @_explained
    def copy(self, target: int, source: int, nbytes: int) -> None:
        if nbytes:
            with self._current():
                runtime.memcpyAsync(target, source, nbytes, runtime.memcpyDeviceToDevice, self._stream.ptr)

    @_explained
    def clear(self, address: int, nbytes: int) -> None:
        if nbytes:
            with self._current():
                runtime.memsetAsync(address, 0, nbytes, self._stream.ptr)

    @_explained
    def record(self, module: CudaModule, tasks: Sequence[Task]) -> CudaGraph:
        places = assign_lanes([task.after for task in tasks], LANES)
        with cupy.cuda.Device(self.number):
            multiplying = {p.lane for p, task in zip(places, tasks, strict=True) if isinstance(task.work, Product)}
            self._open_lanes(max((place.lane for place in places), default=0) + 1, multiplying)
            convolving = [
                (p.lane, t.work) for p, t in zip(places, tasks, strict=True) if isinstance(t.work, Convolution)
            ]
            for lane, work in convolving:
                self._dnn.prepare(work, self._lanes[lane].stream.ptr)
            finishing = any(isinstance(task.work, Product) and not task.work.is_plain for task in tasks)
            recorder = _Recorder(
                module, self._lanes, self._dnn if convolving else None, self._finishing if finishing else None
            )
            first = self._lanes[0].stream
            # relaxed: objects that Python's collector frees meanwhile must not end the recording
            first.begin_capture(runtime.streamCaptureModeRelaxed)
            try:
                recorder.run(tasks, places)
            except BaseException:
                _abandon(first)
                raise
            graph = first.end_capture()
        return CudaGraph(graph, self._stream, (module, *recorder.kept))

    def _open_lanes(self, count: int, multiplying: set[int]) -> None:
        """Have so many lanes, and on some of them cuBLAS."""
        while len(self._lanes) < count:
            self._lanes.append(_Lane(cupy.cuda.Stream(non_blocking=True)))
        for lane in (self._lanes[number] for number in sorted(multiplying)):
            if lane.blas is None:
                lane.workspace = self.allocate(cublas.WORKSPACE_BYTES, "a workspace of cuBLAS")
                lane.blas = cublas.Cublas(cublas.library(), lane.stream.ptr, lane.workspace.address)

    @_explained
    def timed(self, graph: CudaGraph, times: int) -> list[float]:
        with cupy.cuda.Device(self.number):
            events = [cupy.cuda.Event() for _ in range(times + 1)]
            events[0].record(self._stream)
            for event in events[1:]:
                graph.launch()
                event.record(self._stream)
            events[-1].synchronize()
            return [cupy.cuda.get_elapsed_time(start, end) / 1e3 for start, end in itertools.pairwise(events)]

    @cached_property
    def _finishing(self) -> cublaslt.CublasLt | None:
        try:
            return cublaslt.CublasLt(cublas.library("cublasLt"), self, self._stream.ptr)
        except BackendError:  # an installation without it: products are plain ones
            return None

    @_explained
    def finishes(self, product: Product) -> bool:
        with cupy.cuda.Device(self.number):
            return self._finishing is not None and self._finishing.finishes(product)

    @cached_property
    def _dnn(self) -> cudnn.Cudnn:
        return cudnn.Cudnn(cudnn.frontend())

    def convolution_plans(self, convolution: Convolution) -> Iterator[str]:
        plans = self._dnn.plans(convolution)
        while True:
            with cupy.cuda.Device(self.number):
                name = next(plans, None)
            if name is None:
                return
            yield name

    def convolution_workspace(self, convolution: Convolution) -> int:
        with cupy.cuda.Device(self.number):
            return self._dnn.workspace(convolution)

    def library_version(self) -> str:
        return cudnn.installed()

    @_explained
    def mark(self) -> CudaMark:
        with cupy.cuda.Device(self.number):
            event = cupy.cuda.Event(disable_timing=True)
            event.record(self._stream)
            return CudaMark(event)

    @_explained
    def synchronize(self) -> None:
        self._stream.synchronize()

    @_explained
    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        with cupy.cuda.Device(self.number), self._room(nbytes, "an array"):
            return cupy.empty(shape, dtype)

    def is_array(self, value: object) -> bool:
        if not isinstance(value, cupy.ndarray):
            return False
        array: Any = value
        return array.device.id == self.number

    def address_of(self, array: Any) -> int:
        return int(array.data.ptr)

    @_explained
    def enter(self) -> None:
        self._order(cupy.cuda.get_current_stream(self.number), self._stream)

    @_explained
    def leave(self) -> None:
        self._order(self._stream, cupy.cuda.get_current_stream(self.number))

    def _order(self, earlier: Any, later: Any) -> None:
        if 0 in (earlier.ptr, later.ptr):  # the default stream is in order with ours anyway
            return
        event = cupy.cuda.Event(disable_timing=True)
        event.record(earlier)
        later.wait_event(event)


class _Recorder:
    """Queues tasks on the streams of a recording that has begun on the first one."""

    def __init__(
        self,
        module: CudaModule,
        lanes: Sequence[_Lane],
        dnn: cudnn.Cudnn | None,
        finishing: cublaslt.CublasLt | None,
    ) -> None:
        self.module = module
        self.lanes = lanes
        self.dnn = dnn
        self.finishing = finishing
        self.kept: list[Any] = []
        self._joined = {0}
        self._arguments = 0

    def run(self, tasks: Sequence[Task], places: Sequence[Place]) -> None:
        # a launch reads its arguments where a list of addresses says; where a table is the only one, the first of them
        words = itertools.chain.from_iterable(task.work.words for task in tasks if isinstance(task.work, Launch))
        values = np.fromiter(words, np.int64)
        addresses = values.ctypes.data + 8 * np.arange(len(values), dtype=np.int64)
        self._arguments = addresses.ctypes.data
        events: dict[int, Any] = {}
        start = self._event(0)
        for position, (task, place) in enumerate(zip(tasks, places, strict=True)):
            if place.lane not in self._joined:
                self._joined.add(place.lane)
                self.lanes[place.lane].stream.wait_event(start)
            for earlier in place.waits:
                self.lanes[place.lane].stream.wait_event(events[earlier])
            self._queue(task.work, self.lanes[place.lane])
            if place.awaited:
                events[position] = self._event(place.lane)
        for lane in sorted(self._joined - {0}):
            self.lanes[0].stream.wait_event(self._event(lane))

    def _event(self, lane: int) -> Any:
        event = cupy.cuda.Event(disable_timing=True)
        event.record(self.lanes[lane].stream)
        self.kept.append(event)
        return event

    def _queue(self, work: Work, lane: _Lane) -> None:
        match work:
            case Launch():
                function = self.module.functions[work.function]
                driver.launchKernel(
                    function.ptr, work.blocks, 1, 1, work.threads, 1, 1, work.shared_bytes, lane.stream.ptr,
                    self._arguments, 0,
                )  # fmt: skip
                self._arguments += 8 * len(work.words)
            case Product():
                assert lane.blas is not None  # the lane was opened for products
                if work.is_plain:
                    lane.blas.product(work)
                else:
                    assert self.finishing is not None  # it said that it does this
                    assert lane.workspace is not None  # it came with the library
                    self.finishing.product(work, lane.stream.ptr, lane.workspace.address)
            case Convolution():
                assert self.dnn is not None  # it has been prepared
                self.dnn.run(work, lane.stream.ptr)
            case Clear():
                runtime.memsetAsync(work.address, 0, work.nbytes, lane.stream.ptr)


def _abandon(stream: Any) -> None:
    """End a recording that failed; what it says about that adds nothing."""
    try:
        stream.end_capture()
    except (runtime.CUDARuntimeError, driver.CUDADriverError):
        pass


def readable(nbytes: int) -> str:
    """A size for people.

    >>> readable(3 << 30)
    '3.00 GiB'
    """
    size, units = float(nbytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.2f} {units[0]}"
