"""A compiled plan on a device, and what all sizes share: code, constants, the cell of checks and small results."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.backends.cupy.alternatives import LIBRARY, OWN, Convolvers
from graphc.backends.cupy.attended import keep_statistics
from graphc.backends.cupy.bound import GpuBound, Pending, aligned
from graphc.backends.cupy.convolved import add_scratch
from graphc.backends.cupy.device import Array, Device, Memory
from graphc.backends.cupy.epilogues import finish_products
from graphc.backends.cupy.halves import read_halves
from graphc.backends.cupy.module import make_unit
from graphc.backends.cupy.padded import pad_rows
from graphc.backends.cupy.printer import kernel_source
from graphc.backends.cupy.state import Mirror
from graphc.backends.cupy.tasks import CELL_BYTES, SLOTS, turning
from graphc.errors import BackendError
from graphc.lower.plan import Plan

MOST_BINDINGS = 16
PLACED_PART = 0.5
"""Of the memory that is left, what data may take: the rest is for what works on it."""
PLACED_COPIES = 4
"""How often data is there once it has been worked on: as it came, in another order, and in the inputs and outputs of
the program that brought it into that, which works on others' arrays from the second time on."""


class GpuExecutable:
    """Machine code of a plan's kernels on a device.

    Attributes:
        tf32: may products of float32 round their operands to 10 bits of mantissa?
        convolvers: who computes its convolutions.
        cell: the status of the last failed check, then small results.
        ring: the cells of the last steps, in the host's memory; ``turn`` counts steps on the device.
    """

    def __init__(self, plan: Plan, device: Device, tf32: bool = False, convolution: str = OWN) -> None:
        self.tf32 = tf32 or plan.tf32
        products = pad_rows(finish_products(read_halves(plan), self.tf32), self.tf32)
        self.plan = plan = add_scratch(keep_statistics(products))
        self.device = device
        library = convolution != OWN and bool(device.library_version())
        self.unit = make_unit(plan, self.tf32, device.shared_bytes, library)
        if convolution == LIBRARY and not library and self.unit.convolution:
            raise BackendError("cuDNN is to convolve, but is not installed", remedy="pip install 'graphc[cudnn]'")
        self.module = device.load(self.unit)
        turns = {dtype: turning(kernel) for dtype, kernel in self.unit.turns}
        self.convolvers = Convolvers(device, self.module, convolution, self.tf32, turns)
        with device.lock:
            self.cell = device.allocate(CELL_BYTES, "the cell of checks")
            device.clear(self.cell.address, CELL_BYTES)
            self.turn = device.allocate(8, "the count of steps")
            device.clear(self.turn.address, 8)
            self.ring = device.pinned(SLOTS * CELL_BYTES)
            self.posted = 0
            self.waiting: list[weakref.ref[Pending] | None] = [None] * SLOTS
            self.constants = self._upload_constants()
        self._bound: OrderedDict[tuple[tuple[str, int], ...], GpuBound] = OrderedDict()

    def bind(self, dims: Mapping[str, int]) -> GpuBound:
        """Plan memory for these sizes. Compiles no machine code; the last 16 combinations are kept."""
        key = tuple(sorted(dims.items()))
        with self.device.lock:
            bound = self._bound.get(key)
            if bound is None:
                bound = self._bound[key] = GpuBound(self, dict(dims))
                if len(self._bound) > MOST_BINDINGS:
                    self._bound.popitem(last=False)
            self._bound.move_to_end(key)
        return bound

    def next_slot(self) -> int:
        """Where the next step that is queued posts its cell; a step whose results still lie there is read first."""
        slot = self.posted % SLOTS
        waiting = self.waiting[slot]
        pending = None if waiting is None else waiting()
        if pending is not None:
            pending.wait()
        self.waiting[slot] = None
        self.posted += 1
        return slot

    def slot(self, number: int) -> Array:
        """The bytes of a posted cell."""
        return self.ring[number * CELL_BYTES : (number + 1) * CELL_BYTES]

    def source(self) -> str:
        """The CUDA C of all kernels, without the header that they share."""
        return "\n".join(kernel_source(kernel, entry) for kernel, entry in self.unit.entries)

    def notes(self) -> tuple[str, ...]:
        """What was chosen of several ways, for the sizes that have come so far."""
        return self.convolvers.notes()

    def holds(self, value: object) -> bool:
        """Is it an array of the device's own kind? Such arrays are taken as inputs and outputs."""
        return self.device.is_array(value)

    def keeps(self, mirror: object) -> bool:
        """Is this buffer of a parameter one on the device?"""
        return isinstance(mirror, Mirror) and mirror.residence is self.device.residence

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> object:
        """A new array of the device's own kind."""
        return self.device.empty(shape, dtype)

    def place(self, arrays: Sequence[Array]) -> list[Any] | None:
        """Copies on the device; None if these, with what working on them takes, exceed a part of what is left."""
        device = self.device
        with device.lock:
            if PLACED_COPIES * sum(array.nbytes for array in arrays) > PLACED_PART * device.free_bytes():
                return None
            placed = [device.empty(array.shape, array.dtype) for array in arrays]
            device.enter()  # where these lie, what the caller has queued may still be at work
            for array, copy in zip(arrays, placed, strict=True):
                device.upload(device.address_of(copy), np.ascontiguousarray(array))
            device.leave()
        return placed

    def _upload_constants(self) -> tuple[Memory, list[int]]:
        """One allocation for all, and where each begins."""
        arrays = [np.ascontiguousarray(constant) for constant in self.plan.constants]  # pyright: ignore[reportArgumentType]
        offsets: list[int] = []
        end = 0
        for array in arrays:
            offsets.append(end)
            end += aligned(array.nbytes)
        memory = self.device.allocate(end, "constants")
        for array, offset in zip(arrays, offsets, strict=True):
            self.device.upload(memory.address + offset, array)
        return memory, [memory.address + offset for offset in offsets]
