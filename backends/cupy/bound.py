"""A plan on a device with its sizes: memory, recorded steps, and how arrays get in and out."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backend import Failure
from graphc.backends.cupy.device import ALIGNMENT, Array, Memory
from graphc.backends.cupy.feeds import Feeds
from graphc.backends.cupy.places import Addresses
from graphc.backends.cupy.stretches import Recording
from graphc.backends.cupy.tasks import SMALL_BYTES, STATUS_BYTES, make_segments
from graphc.lower.memory import layout
from graphc.lower.plan import Place, Plan, size_of

if TYPE_CHECKING:
    from graphc.backends.cupy.executable import GpuExecutable

MOST_SEEN = 8
"""Combinations of the device's own arrays that are remembered. Those that come back among so many others are worked on
where they are; a data set's batches are not, whose recordings would take more time and memory than copies."""
PINNED_BYTES = 256 << 20
"""Inputs that take more than this together are not copied through pinned memory."""
MOST_GRAPHS = 16
ROOMY_BYTES = 16 << 20
"""Intermediates that take no more than this share no memory, so that more kernels run side by side."""


def aligned(nbytes: int) -> int:
    """Rounded up to what an allocation begins at."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Pending:
    """A step that has been queued: its results are waited for when they are read."""

    def __init__(self, bound: GpuBound, outputs: list[Array], slot: int | None) -> None:
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
        self._offsets, arena_bytes = _places(plan, dims)
        for number, scratch in enumerate(executable.unit.scratch):
            self._offsets[len(plan.buffers) + number] = arena_bytes
            arena_bytes += aligned(scratch.count(dims) * scratch.dtype.itemsize)
        self._arena = device.allocate(arena_bytes, "the arena of a step" + _of(dims))
        self._nothing = device.allocate(ALIGNMENT, "an array without elements")
        residence = device.residence
        self._mirrors = [residence.mirror(parameter, device) for parameter in plan.parameters]
        self._seen = -1
        self._commits = plan.commit < len(plan.launches)
        types = {place: self._types(place) for place in (Place.INPUT, Place.OUTPUT)}
        self._inputs = _Block(types[Place.INPUT], "the inputs of a step" + _of(dims))
        self._outputs = _Block(types[Place.OUTPUT], "the outputs of a step" + _of(dims), small=True)
        self._graphs: OrderedDict[tuple[int, ...], Recording] = OrderedDict()
        self._seen_arrays: dict[tuple[int, ...], None] = {}
        self._feeds = Feeds(device, self._inputs.nbytes, "the inputs of a step" + _of(dims))
        self._posted = self._outputs.cell_bytes if executable.unit.checks or any(self._outputs.in_cell) else 0

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
        device = self.executable.device
        with device.lock:
            host = [None if device.is_array(output) else output for output in outputs]
            slot = self._step(inputs, [o if h is None else None for o, h in zip(outputs, host, strict=True)])
            if not self.executable.unit.checks and all(output is None for output in host):
                return None
            self._outputs.download(self.executable, host)
            device.synchronize()
            return self.read(slot, host)

    def start(self, inputs: Sequence[Any]) -> Pending:
        """Queue one step without waiting for it.

        If a check fails, neither this step nor later ones change state, until the failure has been read.
        """
        with self.executable.device.lock:
            slot = self._step(inputs, [None] * len(self._outputs.types))
            outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs.types]
            self._outputs.download(self.executable, outputs)
            pending = Pending(self, outputs, slot)
            if slot is not None:
                self.executable.waiting[slot] = weakref.ref(pending)
            return pending

    def _step(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int | None:
        """Queue a step; in which slot it posts its cell. ``outputs``: the device's arrays, None for what stays here."""
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
        slot = self.executable.next_slot() if self._posted else None
        self._graphs[key].launch()
        if self._commits:
            device.residence.version += 1
        for position, (output, address) in enumerate(zip(outputs, direct_out, strict=True)):
            if output is not None and not address:
                device.copy(device.address_of(output), self._outputs.address(executable, position), output.nbytes)
        if outside:
            device.leave()
        return slot

    def _comes_back(
        self, inputs: Sequence[Any], direct_in: Sequence[int], outputs: Sequence[Any], direct_out: Sequence[int]
    ) -> bool:
        """Are these arrays worth a recording of their own? Others are copied into and out of the blocks."""
        key = (*direct_in, *direct_out)
        if key in self._graphs:
            return True
        if key in self._seen_arrays:
            del self._seen_arrays[key]
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
        arrays = [(block.offsets[i], inputs[i]) for i in host]
        start = block.address(executable, 0) - block.offsets[0]
        self._feeds.bring(start, arrays, whole=len(host) == len(inputs))

    def read(self, slot: int | None, outputs: Sequence[Array | None]) -> Failure | None:
        """Take small results out of a cell that has arrived, or the failure; the next step begins afresh then."""
        if slot is None:
            return None
        cell = self.executable.slot(slot)
        check, detail = cell[:16].view(np.int64).tolist()
        if check:
            self.executable.device.clear(self.executable.cell.address, STATUS_BYTES)
            return Failure(check - 1, detail)
        self._outputs.take(cell, outputs)
        return None

    # recording

    def _record(self, direct_in: Sequence[int], direct_out: Sequence[int]) -> Recording:
        executable, device = self.executable, self.executable.device
        blocks = {Place.INPUT: (self._inputs, direct_in), Place.OUTPUT: (self._outputs, direct_out)}

        def address(index: int) -> int:
            if index in self._offsets:
                return self._arena.address + self._offsets[index]
            buffer = executable.plan.buffers[index]
            match buffer.place:
                case Place.INPUT | Place.OUTPUT:
                    block, direct = blocks[buffer.place]
                    return direct[buffer.slot] or block.address(executable, buffer.slot)
                case Place.STATE:
                    return self._mirrors[buffer.slot].memory.address
                case Place.CONSTANT:
                    return executable.constants[1][buffer.slot]
                case _:  # slices are places inside of others, and what no launch uses has no place
                    return self._nothing.address

        addresses = Addresses(address, self._nothing.address, executable.cell.address, self._posted)
        return Recording(device, executable.module, make_segments(executable, self.dims, addresses))

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

    def download(self, executable: GpuExecutable, outputs: Sequence[Array | None]) -> None:
        """Queue copies of what does not lie in the cell to the host."""
        device = executable.device
        for position, output in enumerate(outputs):
            if output is not None and not self.in_cell[position]:
                device.download(output, self.address(executable, position))

    def take(self, cell: Array, outputs: Sequence[Array | None]) -> None:
        """Copy what lies in the cell into arrays."""
        for position, output in enumerate(outputs):
            if output is not None and self.in_cell[position]:
                offset = self.offsets[position]
                found = cell[offset : offset + self.sizes[position]]
                np.copyto(output, found.view(output.dtype).reshape(output.shape))


def _places(plan: Plan, dims: dict[str, int]) -> tuple[dict[int, int], int]:
    """Where each intermediate lies in the arena, and how large that is."""
    planned = layout(plan, dims)
    if planned.naive_bytes > ROOMY_BYTES:
        return dict(planned.offsets), planned.peak_bytes
    offsets: dict[int, int] = {}
    end = 0
    for index in planned.offsets:
        offsets[index] = end
        end += aligned(plan.buffers[index].type.nbytes(dims))
    return offsets, end


def _place(device: Any, array: Any) -> int:
    """Where an array of the device begins; 0 if vectors may not begin there."""
    address = device.address_of(array)
    return address if address % 16 == 0 and array.nbytes else 0


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _of(dims: dict[str, int]) -> str:
    return f" of {', '.join(f'{name}={size}' for name, size in dims.items())}" if dims else ""
