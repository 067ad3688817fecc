"""The memories of PTX on the host: global memory where it lies, shared memory of blocks, and what each thread has alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tests.cupy.ptx_text import Function, Module, Variable

Array = np.ndarray
Region = tuple[int, int]
BASE = 1 << 12


class BadAccess(AssertionError):
    """Memory that does not belong to who reads or writes it, at an odd address, or that nobody has written."""


class _Everything:
    """The whole memory of the process as one array of words."""

    def __init__(self, size: int) -> None:
        shape = (((1 << 47) - BASE) // size,)
        self.__array_interface__ = {"data": (BASE, False), "shape": shape, "typestr": f"<u{size}", "version": 3}


WORDS = {size: np.asarray(_Everything(size)) for size in (1, 2, 4, 8)}


def _aligned(address: Array, size: int, what: str) -> None:
    odd = address & (size - 1)
    if odd.any():
        at = int(address[odd != 0][0])
        raise BadAccess(f"{what}: {at:#x} is no multiple of {size}")


class Global:
    """What a launch was given of the host's memory.

    Args:
        reads, writes: the first byte of each array and the one behind its last.
        shared_by_blocks: memory that blocks may write at the same time.
    """

    def __init__(
        self, reads: Iterable[Region], writes: Iterable[Region], shared_by_blocks: Iterable[Region] = ()
    ) -> None:
        free = _merged(shared_by_blocks)
        self._writes = _merged([*writes, *free])
        self._reads = _merged([*reads, *self._writes])
        self._free = free
        self._given = list(self._reads)
        self.variables: dict[str, Array] = {}
        self._writers = {start: np.zeros(end - start, np.int32) for start, end in self._writes}
        self._readers = {start: np.zeros(end - start, np.int32) for start, end in self._writes}
        self.blocks: Array = np.zeros(0, np.int64)

    def begin(self, module: Module) -> None:
        """A launch: nothing is written yet."""
        self.variables = {name: _array_of(v) for name, v in module.variables.items() if v.space in ("global", "const")}
        own = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in self.variables.values()]
        self._reads = _merged([*self._given, *own])
        for marks in (*self._writers.values(), *self._readers.values()):
            marks[:] = 0

    def load(
        self, address: Array, dtype: np.dtype, count: int, threads: Array, used: int | None, fixed: bool
    ) -> list[Array]:
        """So many neighbouring elements; ``fixed``, the kernel has promised that nobody writes them."""
        size = dtype.itemsize
        _aligned(address, size * count, "a load from global memory")
        self._check(address, size * count, self._reads, "reads")
        self._mark_reads(address, size * count, threads, fixed)
        index = address - BASE >> _log(size)
        words = WORDS[size]
        return [words[index + i].view(dtype) for i in range(count)]

    def store(self, address: Array, values: Sequence[Array], threads: Array, atomic: bool = False) -> None:
        """Neighbouring elements."""
        size = values[0].dtype.itemsize
        nbytes = size * len(values)
        _aligned(address, nbytes, "a store to global memory")
        self._check(address, nbytes, self._writes, "writes")
        address = np.broadcast_to(address, threads.shape)
        if not atomic:
            self._mark_writes(address, nbytes, threads)
        index = address - BASE >> _log(size)
        for i, value in enumerate(values):
            WORDS[size][index + i] = value.view(f"u{size}")

    def _check(self, address: Array, nbytes: int, regions: list[Region], does: str) -> None:
        low, high = int(address.min()), int(address.max()) + nbytes
        if any(start <= low and high <= end for start, end in regions):
            return
        starts, ends = np.array(regions, np.int64).reshape(-1, 2).T
        place = np.searchsorted(starts, address, "right") - 1
        wrong = (place < 0) | (address + nbytes > np.append(ends, 0)[place])
        if wrong.any():
            at = int(address[wrong][0])
            near = min(regions, key=lambda region: min(abs(at - region[0]), abs(at - region[1])), default=(0, 0))
            raise BadAccess(
                f"{does} {nbytes} bytes at {at:#x}, which is not in what the launch was given; the nearest array begins "
                f"{at - near[0]} bytes before and ends {at - near[1]} before"
            )

    def _mark_writes(self, address: Array, nbytes: int, threads: Array) -> None:
        mine = (self.blocks[threads] + 1).astype(np.int32)
        for start, marks, some in self._parts(address):
            offset, who = address[some] - start, mine[some]
            readers = self._readers[start]
            for byte in range(nbytes):
                before, read = marks[offset + byte], readers[offset + byte]
                clash = (before != 0) & (before != who) | (read != 0) & (read != who)
                if clash.any():
                    at = int(address[some][clash][0])
                    raise BadAccess(f"two blocks touch byte {at + byte:#x}, which one of them writes")
                marks[offset + byte] = who
                if (marks[offset + byte] != who).any():
                    raise BadAccess("two blocks write the same byte at once")

    def _mark_reads(self, address: Array, nbytes: int, threads: Array, fixed: bool) -> None:
        if not self._writes:
            return
        low, high = int(address.min()), int(address.max())
        if all(high < start or low >= end for start, end in self._writes):
            return
        address = np.broadcast_to(address, threads.shape)
        mine = (self.blocks[threads] + 1).astype(np.int32)
        for start, marks, some in self._parts(address):
            offset, who = address[some] - start, mine[some]
            for byte in range(nbytes):
                before = marks[offset + byte]
                if fixed and before.any():
                    raise BadAccess("a load that counts on constant memory (ld.global.nc) reads what was written")
                if ((before != 0) & (before != who)).any():
                    raise BadAccess("a block reads what another one writes in the same launch")
                readers = self._readers[start]
                several = (readers[offset + byte] != 0) & (readers[offset + byte] != who)
                readers[offset + byte] = np.where(several, -1, who)
                if (readers[offset + byte] != who).any():
                    readers[offset[readers[offset + byte] != who] + byte] = -1

    def _parts(self, address: Array) -> Iterable[tuple[int, Array, Array]]:
        """For each array that is written: its writers, and which of the addresses lie in it."""
        for start, end in self._writes:
            some = (address >= start) & (address < end)
            if some.any() and not any(first <= start and end <= last for first, last in self._free):
                yield start, self._writers[start], some


def _merged(regions: Iterable[Region]) -> list[Region]:
    """Those that overlap as one; neighbours stay apart."""
    found: list[Region] = []
    for start, end in sorted(region for region in regions if region[0] < region[1]):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _array_of(variable: Variable) -> Array:
    array = np.zeros((variable.nbytes or 0) + 64, np.uint8)
    start = -array.ctypes.data % 64
    array[start : start + len(variable.data)] = np.frombuffer(variable.data, np.uint8)
    return array[start : start + (variable.nbytes or 0)]


def _log(size: int) -> int:
    return size.bit_length() - 1


class Shared:
    """The shared memory of some blocks, and which bytes of it are written.

    Args:
        width: threads of a block, whole warps.
        dynamic_bytes: what a launch brings beside what the function says itself.
    """

    def __init__(self, module: Module, function: Function, count: int, width: int, dynamic_bytes: int) -> None:
        self.places: dict[str, int] = {}
        size, last = 0, ""
        for name, variable in {**module.variables, **function.variables}.items():
            if variable.space != "shared":
                continue
            if variable.nbytes is None:
                last = name
            elif name in function.variables or _names(function, name):
                size = -(-size // variable.alignment) * variable.alignment
                self.places[name] = size
                size += variable.nbytes
        if last:
            size = -(-size // 128) * 128
            self.places[last] = size
        self.nbytes = size + dynamic_bytes
        self.pitch = -(-self.nbytes // 16) * 16
        self.width = width
        self.data = np.full(count * self.pitch, 0xA5, np.uint8)
        self.written = np.zeros(count * self.pitch, np.uint8)
        self._writers, self._readers = (np.zeros(count * self.pitch, np.uint8) for _ in range(2))

    def part(self, blocks: Array) -> None:
        """These blocks have passed a barrier: what their warps do from now on comes after what they did."""
        for marks in (self._writers, self._readers):
            marks.reshape(len(blocks), self.pitch)[blocks] = 0

    def _touch(self, index: Array, size: int, threads: Array, writes: bool) -> None:
        """Warps may not touch what another one writes between the same barriers."""
        word = np.dtype(f"u{size}")
        every = np.array(0x0101010101010101, np.uint64).astype(word)
        index, threads = np.broadcast_arrays(index, threads)
        mine = (threads % self.width // 32 + 1).astype(word) * every
        writers, readers = self._writers.view(word), self._readers.view(word)
        for marks in (writers, readers) if writes else (writers,):
            others = _others(marks[index], mine)
            if others.any():
                self._race(index[others][0] * size)
        if writes:
            writers[index] = mine
            if (writers[index] != mine).any():
                self._race(index[writers[index] != mine][0] * size)
            return
        before = readers[index]
        several = _others(before, mine)
        readers[index] = np.where(several, before | word.type(np.iinfo(word).max), mine) if several.any() else mine
        lost = readers[index] != mine
        readers[index[lost]] = np.iinfo(word).max

    def _race(self, at: int) -> None:
        raise BadAccess(
            f"two warps touch byte {at % self.pitch} of shared memory with no barrier between, and one writes it"
        )

    def index(self, address: Array, nbytes: int, threads: Array, what: str) -> Array:
        """Where an address of each thread's block lies in the data."""
        _aligned(address, nbytes, f"{what} shared memory")
        if int(address.min()) < 0 or int(address.max()) + nbytes > self.nbytes:
            at = int(address.min() if int(address.min()) < 0 else address.max())
            raise BadAccess(f"{what} {nbytes} bytes of shared memory at {at} of {self.nbytes}")
        return threads // self.width * self.pitch + address

    def load(
        self, address: Array, dtype: np.dtype, count: int, threads: Array, used: int | None, fixed: bool
    ) -> list[Array]:
        """Neighbouring elements, which somebody must have written where they are used."""
        size = dtype.itemsize
        index = self.index(address, size * count, threads, "a load from") >> _log(size)
        data, written = self.data.view(f"u{size}"), self.written.view(f"u{size}")
        every, found = (1 << 8 * size) - 1, []
        for i in range(count):
            if used is None or used >> i * size & (1 << size) - 1:
                self._touch(index + i, size, threads, writes=False)
                known = written[index + i] == every
                if not known.all():
                    at = int(np.broadcast_to(address, known.shape)[~known][0]) + i * size
                    raise BadAccess(f"reads byte {at} of shared memory, which nobody has written")
            found.append(data[index + i].view(dtype))
        return found

    def store(self, address: Array, values: Sequence[Array], threads: Array) -> None:
        """Neighbouring elements."""
        size = values[0].dtype.itemsize
        index = self.index(address, size * len(values), threads, "a store to") >> _log(size)
        data, written = self.data.view(f"u{size}"), self.written.view(f"u{size}")
        for i, value in enumerate(values):
            self._touch(index + i, size, threads, writes=True)
            data[index + i] = value.view(f"u{size}")
            written[index + i] = (1 << 8 * size) - 1

    def forget(self, index: Array, nbytes: int, threads: Array) -> None:
        """What is being copied there is not there yet."""
        self._touch_bytes(index, nbytes, threads)
        self.written[index[:, None] + np.arange(nbytes)] = 0

    def _touch_bytes(self, index: Array, nbytes: int, threads: Array) -> None:
        for word in range(nbytes // 4):
            self._touch((index >> 2) + word, 4, threads, writes=True)

    def arrive(self, index: Array, data: Array, threads: Array) -> None:
        """What these threads have copied."""
        self._touch_bytes(index, data.shape[1], threads)
        places = index[:, None] + np.arange(data.shape[1])
        self.data[places] = data
        self.written[places] = 255


def _others(marks: Array, mine: Array) -> Array:
    """Whether any byte of marks is somebody else's."""
    found = (marks != 0) & (marks != mine)
    if found.any() and marks.dtype.itemsize > 1:
        marked, own = (
            np.ascontiguousarray(a[found]).view(np.uint8).reshape(-1, marks.dtype.itemsize) for a in (marks, mine)
        )
        found[found] = ((marked != 0) & (marked != own)).any(1)
    return found


def _names(function: Function, name: str) -> bool:
    return any(name in str(instruction.operands) for block in function.blocks for instruction in block)


class Private:
    """Local memory and parameters: so many bytes for each thread, and some that are the same for all."""

    def __init__(self, lanes: int, size: int) -> None:
        self.size = size
        self.same = np.zeros(0, np.uint8)
        self.data = np.full((lanes, size), 0xA5, np.uint8)

    def fill(self, place: int, data: Array) -> None:
        """Bytes that are the same for all threads, for good."""
        if place + data.size > self.same.size:
            self.same = np.concatenate([self.same, np.zeros(place + data.size - self.same.size, np.uint8)])
        self.same[place : place + data.size] = data

    def copy(self, place: int, other: Private, to: int, nbytes: int, threads: Any = slice(None)) -> None:
        """To the memory of the same threads in another function."""
        other.data[threads, to : to + nbytes] = self.data[threads, place : place + nbytes]

    def _bytes(self, address: Array, nbytes: int) -> Array:
        if int(address.min()) < 0 or int(address.max()) + nbytes > self.size:
            raise BadAccess(f"{nbytes} bytes of a thread's own memory at {int(address.max())} of {self.size}")
        return address[:, None] + np.arange(nbytes)

    def load(
        self, address: Array, dtype: np.dtype, count: int, threads: Array, used: int | None, fixed: bool
    ) -> list[Array]:
        """Neighbouring elements of each thread's own."""
        nbytes = dtype.itemsize * count
        _aligned(address, nbytes, "a load of a thread's own")
        places = self._bytes(address, nbytes)
        found = self.same[places] if int(places.max()) < self.same.size else self.data[threads[:, None], places]
        return [np.ascontiguousarray(column) for column in found.view(dtype).reshape(-1, count).T]

    def store(self, address: Array, values: Sequence[Array], threads: Array) -> None:
        """Neighbouring elements of each thread's own."""
        size = values[0].dtype.itemsize
        _aligned(address, size * len(values), "a store of a thread's own")
        places = np.broadcast_to(self._bytes(address, size * len(values)), (len(threads), size * len(values)))
        rows = np.stack(np.broadcast_arrays(*values, np.empty(len(threads)))[:-1], 1)
        self.data[threads[:, None], places] = rows.view(np.uint8).reshape(len(threads), -1)
