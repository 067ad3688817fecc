"""A second judge of kernels that needs no GPU: what NVRTC makes of them, executed instruction by instruction.

The emulator compiles CUDA C with the host's compiler, so that it does not see what NVRTC decides (widths, vectors,
constant memory, how divisions and exponentials are expanded) nor the machine instructions of ``instructions.cuh``. Here
the PTX itself runs, slowly: which half of a word is high, fragments of ``mma.sync``, addresses of vectors, bounds of each
array that a launch was given, shared memory that nobody has written, two blocks that touch the same byte.

``pytest tests/cupy --ptx`` runs all programs and kernels of the tests so.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.backends.cupy import tasks
from graphc.backends.cupy.device import ALIGNMENT, Launch, Work
from graphc.backends.cupy.module import Part, Unit
from graphc.backends.cupy.printer import POST_RESULTS
from tests.cupy import ptx_machine
from tests.cupy.emulated_device import EmulatedDevice, EmulatedModule
from tests.cupy.ptx_memory import Global, Region
from tests.cupy.ptx_text import Module, compile_ptx, parse

MOST_STATIC_BYTES = 48 * 1024


@functools.lru_cache(maxsize=64)
def module_of(source: str, arch: str) -> Module:
    """PTX of a translation unit, parsed."""
    return parse(compile_ptx(source, arch))


def run(module: Module, work: Launch, memory: Global) -> None:
    """A launch, as a GPU would execute it."""
    words = np.array(work.words, np.int64)
    ptx_machine.launch(module, work.function, work.blocks, work.threads, words, work.shared_bytes, memory)


@dataclass
class Library:
    """Kernels that are called as those of the emulator's libraries are; see ``tests.cupy.emulator.launch``.

    Attributes:
        parts: the source of each function.
        shapes: threads of a block of each function, and bytes of shared memory that a launch brings.
        arrays: those that there are. A launch is given those that an argument of it points into.
    """

    parts: Mapping[str, str]
    shapes: Mapping[str, tuple[int, int]]
    arrays: list[np.ndarray] = field(default_factory=list)
    arch: str = "sm_80"

    def __getitem__(self, name: str) -> Any:
        function = name.removeprefix("launch_")
        module = module_of(self.parts[function], self.arch)
        threads, shared = self.shapes[function]

        def call(blocks: Any, downwards: Any, words: Any) -> None:
            count = sum(module.functions[function].parameters.values()) // 8
            given = tuple((ctypes.c_longlong * count).from_address(words.value))
            regions = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in self.arrays]
            named = [(start, end) for start, end in regions if any(start <= word < end for word in given)]
            run(module, Launch(function, blocks.value, threads, given, False, shared), Global(named, named))

        return call

    def holding(self, *arrays: np.ndarray) -> Library:
        """With more arrays."""
        self.arrays += arrays
        return self

    def noting(self, allocate: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        """An allocator whose arrays are known."""

        def noted(*args: Any) -> np.ndarray:
            array = allocate(*args)
            self.arrays.append(array)
            return array

        return noted


@dataclass(frozen=True)
class Given:
    """What a task says that it reads and writes, and memory that several blocks may write."""

    work: Work
    reads: list[Region]
    writes: list[Region]
    common: list[Region]

    @property
    def memory(self) -> Global:
        return Global(self.reads, self.writes, self.common)


@contextmanager
def noted_spans() -> Iterator[dict[int, Given]]:
    """While programs are bound: what each task touches, as the order of a step counts on it, by the task's identity."""
    found: dict[int, Given] = {}
    plain = tasks._Builder._add

    def add(self: Any, work: Work, after: set[int], reads: Iterable[Region], writes: Iterable[Region]) -> None:
        reads, writes = list(reads), list(writes)
        addresses, common, more = self.addresses, [], list(writes)
        reads.append((addresses.nothing, addresses.nothing + ALIGNMENT))  # element 0 of arrays without any
        if isinstance(work, Launch):
            common = [(addresses.status, addresses.status + tasks.STATUS_BYTES)]
            if work.function == POST_RESULTS:
                ring, turn = self.executable.ring, self.executable.turn
                more += [(ring.ctypes.data, ring.ctypes.data + ring.nbytes), (turn.address, turn.address + turn.nbytes)]
        found[id(work)] = Given(work, reads, more, common)
        plain(self, work, after, reads, writes)

    tasks._Builder._add = add
    try:
        yield found
    finally:
        tasks._Builder._add = plain


@dataclass(eq=False)
class PtxDevice(EmulatedDevice):
    """The device layer whose kernels are interpreted; libraries, memory and graphs are those of the emulated one.

    Attributes:
        spans: what tasks touch; see :func:`noted_spans`.
        functions: how often each kernel has been launched.
    """

    arch: str = "sm_80"
    spans: dict[int, Given] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)

    def load(self, unit: Unit) -> EmulatedModule:
        return EmulatedModule(_places(unit.parts), {name: name for name in unit.functions})

    def perform(self, module: EmulatedModule, work: Work) -> None:
        if not isinstance(work, Launch):
            super().perform(module, work)
            return
        self.functions[work.function] = self.functions.get(work.function, 0) + 1
        assert work.shared_bytes <= self.shared_bytes
        run(module_of(module.library[work.function], self.arch), work, self.spans[id(work)].memory)


def _places(parts: Sequence[Part]) -> dict[str, str]:
    return {name: part.source for part in parts for name in part.functions}
