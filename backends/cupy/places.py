"""Sizes and addresses of a plan's buffers: computed once for sizes of inputs, and moved from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.backends.cupy.module import Scratch
from graphc.backends.cupy.printer import blocks_of
from graphc.backends.cupy.touched import Span
from graphc.ir.dims import Size
from graphc.loops.kernel import Kernel, Pack, walk
from graphc.lower.plan import KernelItem, Plan, size_of


@dataclass(frozen=True)
class Addresses:
    """Where things lie.

    Attributes:
        of: the address of a plan's buffer.
        nothing: stands for every array without elements, of which element 0 may be read.
        status: the cell of checks, and of small results behind it.
        posted: how many bytes of the cell the host wants to see after each step.
    """

    of: Callable[[int], int]
    nothing: int
    status: int
    posted: int = 0


@dataclass(frozen=True)
class _Place:
    """Where a buffer lies.

    Attributes:
        base: the address at the first step of all loops.
        moves: by number of a loop how many bytes it moves from step to step, and whether it moves back at every second.
    """

    base: int
    nbytes: int
    moves: tuple[tuple[int, int, bool], ...] = ()


@dataclass
class Places:
    """What does not change while the steps of a program are written out.

    Kernels and items are told apart by identity: those of a unit live as long as the program.
    """

    plan: Plan
    scratch: Sequence[Scratch]
    dims: Mapping[str, int]
    addresses: Addresses
    _places: dict[int, _Place] = field(default_factory=dict[int, _Place])
    _sizes: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    _blocks: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    _vectors: dict[int, list[tuple[int, int]]] = field(default_factory=dict[int, list[tuple[int, int]]])

    def size(self, size: Size) -> int:
        """A size as a number."""
        return size if isinstance(size, int) else size_of(size, self.dims)

    def sizes(self, item: KernelItem) -> list[int]:
        """The sizes that a kernel gets for an item, which the plan's unit keeps alive."""
        if id(item) not in self._sizes:
            self._sizes[id(item)] = [self.size(size) for size in item.sizes]
        return self._sizes[id(item)]

    def blocks(self, kernel: Kernel, item: KernelItem) -> int:
        """How many blocks a kernel takes for an item."""
        key = (id(kernel), id(item))
        if key not in self._blocks:
            self._blocks[key] = blocks_of(kernel, self.sizes(item))
        return self._blocks[key]

    def vectors(self, kernel: Kernel) -> list[tuple[int, int]]:
        """Which buffers of a kernel, by number, are moved so many bytes at a time."""
        found = self._vectors.get(id(kernel))
        if found is None:
            numbers = {buffer.name: at for at, buffer in enumerate(kernel.buffers)}
            packs = [s for s in walk(kernel.body) if isinstance(s, Pack) and s.array in numbers]
            found = [(numbers[s.array], min(16, s.size * s.dtype.itemsize)) for s in packs]
            self._vectors[id(kernel)] = found
        return found

    def address(self, index: int, steps: Sequence[int]) -> int:
        """Where a buffer begins at these steps of the loops."""
        return self.span(index, steps)[0]

    def span(self, index: int, steps: Sequence[int]) -> Span:
        """Where a buffer begins and ends at these steps of the loops."""
        place = self._places.get(index)
        if place is None:
            place = self._places[index] = self._find(index)
        start = place.base
        for loop, distance, alternates in place.moves:
            step = steps[loop]
            start += distance * (step % 2 if alternates else step)
        return start, start + place.nbytes

    def _find(self, index: int) -> _Place:
        buffers = self.plan.buffers
        if index >= len(buffers):
            scratch = self.scratch[index - len(buffers)]
            return _Place(self.addresses.of(index), scratch.count(self.dims) * scratch.dtype.itemsize)
        buffer = buffers[index]
        if not self.size(buffer.type.size):
            return _Place(self.addresses.nothing, 0)
        nbytes = buffer.type.nbytes(dict(self.dims))
        part = buffer.part
        if part is None:
            return _Place(self.addresses.of(index), nbytes)
        around = self._places.get(part.of) or self._find(part.of)
        itemsize = buffer.type.dtype.itemsize
        moves = around.moves
        if part.loop is not None:
            moves = (*moves, (part.loop, self.size(part.step) * itemsize, part.alternates))
        return _Place(around.base + self.size(part.offset) * itemsize, nbytes, moves)
