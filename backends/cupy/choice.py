"""Which of several ways to do a task is taken: measured on the device once, kept on disk, read from then on.

Ways come in families: graphc's own kernels, a library's plans. A user pins a choice by leaving families out. What was
chosen for the same problem, families, device and versions is found again in the cache, so that a program's bits stay
the same. Where nothing can be measured the first way is taken.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import cache
from graphc.backends.cupy.device import Task, Work
from graphc.errors import BackendError
from graphc.ir.types import DType

if TYPE_CHECKING:
    from graphc.backends.cupy.device import Device, Graph, Memory

CHAINED, FIRST, MORE = 3, 2, 5
"""How often work is done in one recording, and how often that is launched: by all ways, and by the better ones."""
CLOSE = 1.3
"""Ways that take no longer than this times the fastest are measured further."""
MOST_SECONDS = 0.3
"""Once trying the ways of a family has taken so long, further ones are not tried."""
SAMPLE = 1 << 16
"""How many random numbers fill operands, again and again."""


@dataclass(frozen=True)
class Way:
    """One way to do a task.

    Attributes:
        name: tells it from all others, in every process.
        work: with the addresses of the operands and of scratch memory, what is done, one after the other.
        scratch: says how many bytes of that there must be. It may have to compile something first.
    """

    name: str
    work: Callable[[Sequence[int], int], Sequence[Work]]
    scratch: Callable[[], int] = int


@dataclass(frozen=True)
class Family:
    """Ways of one origin.

    Attributes:
        name: for people, and for pins.
        version: changes when the same name may mean other work, or when there may be other names.
        find: goes through the ways, the one to take unmeasured first, and perhaps compiles each when it is asked for;
            raises BackendError where there is none, saying why.
        named: the way of a name that was found before; None if there is none any more.
    """

    name: str
    version: str
    find: Callable[[], Iterable[Way]]
    named: Callable[[str], Way | None]


@dataclass(frozen=True)
class Problem:
    """What is to be done.

    Attributes:
        text: says all that ways depend on, in a word for people.
        operands: their types and how many elements each has.
    """

    text: str
    operands: tuple[tuple[DType, int], ...]


@dataclass(frozen=True)
class Choice:
    """Which way was taken, and why.

    Attributes:
        how: ``measured``, ``kept`` if that was done before, ``fixed`` if nothing was measured.
        seconds: what each way takes, as far as it is known.
        left_out: ways and families that failed, each with the reason.
    """

    problem: str
    name: str
    how: str
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        shown = sorted(self.seconds.items(), key=lambda pair: pair[1])
        times = ", ".join(f"{name} {1e3 * seconds:.4g} ms" for name, seconds in shown[:4])
        more = f", {len(shown) - 4} more" if len(shown) > 4 else ""
        return f"{self.problem}: {self.name} ({self.how}{': ' if times else ''}{times}{more})"


@dataclass(frozen=True)
class _Trial:
    """A way that works: recorded, its scratch memory, and how long it took."""

    way: Way
    graph: Graph
    scratch: Memory
    seconds: list[float]


class Choices:
    """The choices made on a device.

    Attributes:
        clock: seconds that passed on the host.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._made: dict[str, Choice] = {}

    def choose(self, device: Device, module: Any, problem: Problem, families: Sequence[Family]) -> tuple[Way, Choice]:
        """The way to take. The device's lock is held.

        Args:
            device: what it is measured on.
            module: what holds the functions of launches.
            problem: what is to be done.
            families: those that may be taken; the first one is taken where nothing is measured.

        Raises:
            BackendError: no way can be taken; the message says why of each.
        """
        versions = (f"{family.name} {family.version}" for family in families)
        key = cache.digest("choice", device.name, device.versions, problem.text, *versions)
        known = self._made.get(key) or _read(key, problem.text)
        if known is not None:
            way = _named(families, known.name)
            if way is not None:
                self._made[key] = known
                return way, known
        search = _Search(device, module, problem, families, self.clock)
        way, choice = search.run()
        self._made[key] = choice
        if choice.how == "measured":
            _write(key, choice)
        return way, choice


def _named(families: Sequence[Family], name: str) -> Way | None:
    """The way of this name; families that it does not belong to are not asked."""
    for family in families:
        if name.split(" ")[0] == family.name:
            try:
                return family.named(name)
            except BackendError:
                return None
    return None


class _Search:
    """Finds the fastest of all ways."""

    def __init__(
        self, device: Device, module: Any, problem: Problem, families: Sequence[Family], clock: Callable[[], float]
    ) -> None:
        self.device, self.module, self.problem, self.families = device, module, problem, families
        self.clock = clock
        self.left_out: dict[str, str] = {}

    def run(self) -> tuple[Way, Choice]:
        """The way, and what came of the others."""
        if self.device.measures:
            try:
                operands = [self._operand(dtype, count) for dtype, count in self.problem.operands]
            except BackendError as error:  # the program itself may still fit
                self.left_out["measuring"] = _reason(error)
            else:
                way, times = self._fastest(operands)
                return way, Choice(self.problem.text, way.name, "measured", times, self.left_out)
        way = self._first()
        return way, Choice(self.problem.text, way.name, "fixed", left_out=self.left_out)

    def _first(self) -> Way:
        for family in self.families:
            try:
                for way in family.find():
                    return way
            except BackendError as error:
                self.left_out[family.name] = _reason(error)
        raise self._failure()

    def _fastest(self, operands: Sequence[Memory]) -> tuple[Way, dict[str, float]]:
        """The fastest way, and the seconds that each one takes. All are tried, those near the fastest more often."""
        tried: list[_Trial] = []
        for family in self.families:
            start, found = self.clock(), len(tried)
            try:
                for way in family.find():
                    self._try(way, operands, tried)
                    if self.clock() - start > MOST_SECONDS and len(tried) > found:
                        break
            except BackendError as error:
                self.left_out[family.name] = _reason(error)
        if not tried:
            raise self._failure()
        limit = CLOSE * min(min(trial.seconds) for trial in tried)
        for trial in tried:
            if len(tried) > 1 and min(trial.seconds) <= limit:
                trial.seconds.extend(self.device.timed(trial.graph, MORE))
        times = {trial.way.name: statistics.median(trial.seconds) / CHAINED for trial in tried}
        return min(tried, key=lambda trial: times[trial.way.name]).way, times

    def _try(self, way: Way, operands: Sequence[Memory], tried: list[_Trial]) -> None:
        try:
            graph, scratch = self._record(way, operands)
            tried.append(_Trial(way, graph, scratch, self.device.timed(graph, 1 + FIRST)[1:]))  # the first loads code
        except BackendError as error:
            self.left_out[way.name] = _reason(error)

    def _failure(self) -> BackendError:
        return BackendError(
            f"there is no way to compute {self.problem.text}",
            details=tuple(f"{name}: {reason}" for name, reason in self.left_out.items()),
            remedy="let graphc choose among all: CupyBackend(convolution='measured')",
        )

    def _operand(self, dtype: DType, count: int) -> Memory:
        """Scratch memory with random numbers, since how fast a GPU is depends on what it computes with."""
        nbytes = count * dtype.itemsize
        memory = self.device.allocate(nbytes, f"measuring {self.problem.text}")
        sample = np.random.default_rng(0).standard_normal(min(count, SAMPLE)).astype(dtype.numpy)
        self.device.upload(memory.address, sample)
        done = sample.nbytes
        while 0 < done < nbytes:
            size = min(done, nbytes - done)
            self.device.copy(memory.address + done, memory.address, size)
            done += size
        return memory

    def _record(self, way: Way, operands: Sequence[Memory]) -> tuple[Graph, Memory]:
        """The work several times one after the other; and its scratch memory, which must live as long."""
        scratch = self.device.allocate(way.scratch(), f"measuring {self.problem.text}")
        work = way.work([memory.address for memory in operands], scratch.address)
        chain = [each for _ in range(CHAINED) for each in work]
        tasks = [Task(each, (position - 1,) if position else ()) for position, each in enumerate(chain)]
        return self.device.record(self.module, tasks), scratch


def _reason(error: BackendError) -> str:
    return f"{error.message}; {error.remedy}" if error.remedy else error.message


def _read(key: str, problem: str) -> Choice | None:
    """What was measured before; None if nothing was, or if what was kept cannot be read."""
    data = cache.get(key, "choice")
    if data is None:
        return None
    try:
        name, seconds, left_out = json.loads(data)
        return Choice(
            problem, str(name), "kept", {str(k): float(v) for k, v in seconds.items()}, dict(left_out.items())
        )
    except (ValueError, TypeError, AttributeError):
        return None


def _write(key: str, choice: Choice) -> None:
    cache.put(key, "choice", json.dumps([choice.name, dict(choice.seconds), dict(choice.left_out)]).encode())
