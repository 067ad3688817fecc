"""A plan on a device with its sizes: memory, recorded steps, and how arrays get in and out."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backend import Failure
from graphc.backends.cupy.device import ALIGNMENT, Array, Graph, Mark, Memory
from graphc.backends.cupy.tasks import Addresses, make_tasks
from graphc.lower.memory import layout
from graphc.lower.plan import Place, size_of

if TYPE_CHECKING:
    from graphc.backends.cupy.executable import GpuExecutable

STATUS_BYTES = 64
SMALL_BYTES = 4096
CELL_BYTES = STATUS_BYTES + SMALL_BYTES
MOST_SEEN = 256
"""Combinations of the device's own arrays that are remembered; those that come back are worked on where they are."""
PINNED_BYTES = 256 << 20
"""Inputs that take more than this together are not copied through pinned memory."""
MOST_GRAPHS = 16
SLOTS = 64
"""Steps whose results may wait to be read."""
FEEDS = 3
"""Steps whose inputs may be under way."""


def aligned(nbytes: int) -> int:
    """Rounded up to what an allocation begins at."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Pending:
    """A step that has been queued: its results are waited for when they are read."""

    def __init__(self, bound: GpuBound, outputs: list[Array], slot: Array) -> None:
        self._bound: GpuBound | None = bound
        self._outputs = outputs
        self._slot = slot
        self.failure: Failure | None = None

    def wait(self) -> tuple[list[Array], Failure | None]:
        """The outputs, or what failed."""
        if self._bound is not None:
            bound, self._bound = self._bound, None
            with bound.executable.device.lock:
                bound.executable.device.synchronize()
                self.failure = bound.read(self._slot, self._outputs)
        return self._outputs, self.failure


class GpuBound:
    """See :class:`graphc.backend.Bound`."""

    def __init__(self, executable: GpuExecutable, dims: dict[str, int]) -> None:
        self.executable = executable
        self.dims = dims
        plan, device = executable.plan, executable.device
        self.layout = layout(plan, dims)
        self._arena = device.allocate(self.layout.peak_bytes, "the arena of a step" + _of(dims))
        self._nothing = device.allocate(ALIGNMENT, "an array without elements")
        residence = device.residence
        self._mirrors = [residence.mirror(parameter, device) for parameter in plan.parameters]
        self._seen = -1
        self._commits = plan.commit < len(plan.launches)
        types = {place: self._types(place) for place in (Place.INPUT, Place.OUTPUT)}
        self._inputs = _Block(types[Place.INPUT], "the inputs of a step" + _of(dims))
        self._outputs = _Block(types[Place.OUTPUT], "the outputs of a step" + _of(dims), small=True)
        self._graphs: OrderedDict[tuple[int, ...], Graph | None] = OrderedDict()
        self._seen_arrays: dict[tuple[int, ...], None] = {}
        self._feeds: list[tuple[Array, Mark | None]] = []
        self._next_feed = 0
        self._slots: list[tuple[Array, weakref.ref[Pending] | None]] = []
        self._next_slot = 0

    def _types(self, place: Place) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        plan = self.executable.plan
        buffers = sorted((b for b in plan.buffers if b.place is place), key=lambda b: b.slot)
        found: dict[int, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for buffer in buffers:
            shape = tuple(size_of(size, self.dims) for size in buffer.type.shape)
            found[buffer.slot] = (shape, buffer.type.dtype.numpy)
        count = len(plan.graph.inputs) if place is Place.INPUT else len(plan.graph.outputs)
        return [found.get(slot, ((0,), np.dtype(np.uint8))) for slot in range(count)]

    # one step

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Failure | None:
        """Run one step; see :class:`graphc.backend.Bound`. Arrays are NumPy's or the device's own."""
        device, checks = self.executable.device, bool(self.executable.plan.checks)
        with device.lock:
            host = [not device.is_array(output) for output in outputs]
            self._step(inputs, [None if on_host else out for out, on_host in zip(outputs, host, strict=True)])
            if not (checks or any(host)):
                return None
            slot = self._slot()
            self._outputs.download(
                self.executable, slot, [o if h else None for o, h in zip(outputs, host, strict=True)]
            )
            device.synchronize()
            return self.read(slot, [o if h else None for o, h in zip(outputs, host, strict=True)])

    def start(self, inputs: Sequence[Any]) -> Pending:
        """Queue one step without waiting for it.

        If a check fails, neither this step nor later ones change state, until the failure has been read.
        """
        device = self.executable.device
        with device.lock:
            self._step(inputs, [None] * len(self._outputs.types))
            slot = self._slot()
            outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs.types]
            self._outputs.download(self.executable, slot, outputs)
            pending = Pending(self, outputs, slot)
            self._slots[self._next_slot - 1] = (slot, weakref.ref(pending))
            return pending

    def _step(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Queue a step. ``outputs``: arrays of the device, None for those that stay in the block."""
        executable, device = self.executable, self.executable.device
        own = [device.is_array(array) for array in inputs]
        outside = any(own) or any(output is not None for output in outputs)
        if outside:
            device.enter()
        direct_in = [_place(device, array) if is_own else 0 for array, is_own in zip(inputs, own, strict=True)]
        direct_out = [0 if array is None else _place(device, array) for array in outputs]
        if outside and not self._comes_back(inputs, direct_in, outputs, direct_out):
            direct_in, direct_out = [0] * len(inputs), [0] * len(outputs)
        self._feed(inputs, own, direct_in)
        if self._seen != device.residence.expired:
            for mirror in self._mirrors:
                mirror.send()
            self._seen = device.residence.expired
        key = (*direct_in, *direct_out)
        if key not in self._graphs:
            self._graphs[key] = self._record(direct_in, direct_out)
            if len(self._graphs) > MOST_GRAPHS:
                device.synchronize()  # what is dropped may be running
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        graph = self._graphs[key]
        if graph is not None:
            graph.launch()
        if self._commits:
            device.residence.version += 1
        for position, (output, address) in enumerate(zip(outputs, direct_out, strict=True)):
            if output is not None and not address:
                device.copy(device.address_of(output), self._outputs.address(executable, position), output.nbytes)
        if outside:
            device.leave()

    def _comes_back(
        self, inputs: Sequence[Any], direct_in: Sequence[int], outputs: Sequence[Any], direct_out: Sequence[int]
    ) -> bool:
        """Are these arrays worth a recording of their own? Others are copied into and out of the blocks."""
        key = (*direct_in, *direct_out)
        if key in self._graphs:
            return True
        if key in self._seen_arrays:
            return not self._overlap(inputs, direct_in, outputs, direct_out)
        self._seen_arrays[key] = None
        if len(self._seen_arrays) > MOST_SEEN:
            self._seen_arrays.pop(next(iter(self._seen_arrays)))
        return False

    def _feed(self, inputs: Sequence[Any], own: Sequence[bool], direct: Sequence[int]) -> None:
        """Bring what is not worked on in place into the block of inputs."""
        executable, device, block = self.executable, self.executable.device, self._inputs
        host = [i for i, is_own in enumerate(own) if not is_own and block.types[i][0] is not None]
        for i, is_own in enumerate(own):
            if is_own and not direct[i] and inputs[i].nbytes:
                device.copy(block.address(executable, i), device.address_of(inputs[i]), inputs[i].nbytes)
        if not any(inputs[i].nbytes for i in host):
            return
        if block.nbytes > PINNED_BYTES:
            for i in host:
                device.upload(block.address(executable, i), inputs[i])
            return
        pinned = self._next_pinned()
        for i in host:
            place = pinned[block.offsets[i] : block.offsets[i] + inputs[i].nbytes]
            np.copyto(place.view(inputs[i].dtype).reshape(inputs[i].shape), inputs[i])
        if len(host) == len(inputs):
            device.upload(block.address(executable, 0) - block.offsets[0], pinned)
        else:
            for i in host:
                place = pinned[block.offsets[i] : block.offsets[i] + inputs[i].nbytes]
                device.upload(block.address(executable, i), place)
        self._feeds[self._next_feed - 1] = (pinned, device.mark())

    def _next_pinned(self) -> Array:
        """Pinned memory for all inputs that no copy is reading any more."""
        if len(self._feeds) < FEEDS:
            self._feeds.append((self.executable.device.pinned(self._inputs.nbytes), None))
            self._next_feed = len(self._feeds)
        else:
            self._next_feed = self._next_feed % FEEDS + 1
        pinned, mark = self._feeds[self._next_feed - 1]
        if mark is not None:
            mark.wait()
        return pinned

    def _slot(self) -> Array:
        """Pinned memory for the cell of one step; a step whose results still lie there is read first."""
        if len(self._slots) < SLOTS:
            self._slots.append((self.executable.device.pinned(CELL_BYTES), None))
            self._next_slot = len(self._slots)
        else:
            self._next_slot = self._next_slot % SLOTS + 1
        slot, waiting = self._slots[self._next_slot - 1]
        pending = None if waiting is None else waiting()
        if pending is not None:
            pending.wait()
        return slot

    def read(self, slot: Array, outputs: Sequence[Array | None]) -> Failure | None:
        """Take small results out of a cell that has arrived, or the failure; the next step begins afresh then."""
        check, detail = slot[:16].view(np.int64).tolist()
        if check:
            self.executable.device.clear(self.executable.cell.address, STATUS_BYTES)
            return Failure(check - 1, detail)
        self._outputs.take(slot, outputs)
        return None

    # recording

    def _record(self, direct_in: Sequence[int], direct_out: Sequence[int]) -> Graph | None:
        executable, device = self.executable, self.executable.device
        blocks = {Place.INPUT: (self._inputs, direct_in), Place.OUTPUT: (self._outputs, direct_out)}

        def address(index: int) -> int:
            buffer = executable.plan.buffers[index]
            match buffer.place:
                case Place.INPUT | Place.OUTPUT:
                    block, direct = blocks[buffer.place]
                    return direct[buffer.slot] or block.address(executable, buffer.slot)
                case Place.STATE:
                    return self._mirrors[buffer.slot].memory.address
                case Place.CONSTANT:
                    return executable.constants[1][buffer.slot]
                case _:  # slices are places inside of others
                    return self._arena.address + self.layout.offsets[index]

        addresses = Addresses(address, self._nothing.address, executable.cell.address)
        tasks = make_tasks(executable, self.dims, addresses)
        return device.record(executable.module, tasks) if tasks else None

    def _overlap(
        self, inputs: Sequence[Any], direct_in: Sequence[int], outputs: Sequence[Any], direct_out: Sequence[int]
    ) -> bool:
        """Does an array that is written in place share memory with another array or with a parameter?"""
        if not any(direct_out) and not (self._commits and any(direct_in)):
            return False
        read = [(a, a + x.nbytes) for x, a in zip(inputs, direct_in, strict=True) if a]
        written = [(a, a + x.nbytes) for x, a in zip(outputs, direct_out, strict=True) if a]
        state = [(m.memory.address, m.memory.address + m.memory.nbytes) for m in self._mirrors]
        for position, span in enumerate(written):
            if any(_meet(span, other) for other in (*read, *state, *written[:position])):
                return True
        return self._commits and any(_meet(a, b) for a in read for b in state)


class _Block:
    """Arrays side by side in memory of the device that is taken when it is first needed."""

    def __init__(self, types: list[tuple[tuple[int, ...], np.dtype[Any]]], what: str, small: bool = False) -> None:
        self.types = types
        self.sizes = [int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in types]
        self._what = what
        self._memory: Memory | None = None
        self.offsets: list[int] = []
        self.in_cell: list[bool] = []
        end = within = 0
        for size in self.sizes:
            fits = small and within + size <= SMALL_BYTES
            self.in_cell.append(fits)
            self.offsets.append(STATUS_BYTES + within if fits else end)
            if fits:
                within += -(-size // 16) * 16
            else:
                end += aligned(size)
        self.nbytes = end
        self.cell_bytes = STATUS_BYTES + within

    def address(self, executable: GpuExecutable, position: int) -> int:
        """Where an array begins."""
        if self.in_cell[position]:
            return executable.cell.address + self.offsets[position]
        if self._memory is None:
            self._memory = executable.device.allocate(self.nbytes, self._what)
        return self._memory.address + self.offsets[position]

    def download(self, executable: GpuExecutable, slot: Array, outputs: Sequence[Array | None]) -> None:
        """Queue copies of the cell and of large arrays to the host."""
        device = executable.device
        device.download(slot[: self.cell_bytes], executable.cell.address)
        for position, output in enumerate(outputs):
            if output is not None and not self.in_cell[position]:
                device.download(output, self.address(executable, position))

    def take(self, slot: Array, outputs: Sequence[Array | None]) -> None:
        """Copy what lies in the cell into arrays."""
        for position, output in enumerate(outputs):
            if output is not None and self.in_cell[position]:
                offset = self.offsets[position]
                found = slot[offset : offset + self.sizes[position]]
                np.copyto(output, found.view(output.dtype).reshape(output.shape))


def _place(device: Any, array: Any) -> int:
    """Where an array of the device begins; 0 if vectors may not begin there."""
    address = device.address_of(array)
    return address if address % 16 == 0 and array.nbytes else 0


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _of(dims: dict[str, int]) -> str:
    return f" of {', '.join(f'{name}={size}' for name, size in dims.items())}" if dims else ""
