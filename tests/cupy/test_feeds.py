"""Inputs that are copied beside earlier steps: on a device that does everything as late, or copies as early, as it may."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend, feeds
from tests.cupy.emulated_device import EmulatedDevice, EmulatedGraph, view
from tests.spine.models import classifier_step

SIZES = 12, 16, 4


class Copy:
    """A copy beside the queue, which may begin once the queue has come to some place."""

    def __init__(self, act: Callable[[], None], after: int) -> None:
        self.act, self.after, self.done = act, after, False

    def run(self) -> None:
        if not self.done:
            self.done = True
            self.act()


class Mark:
    """A place in the queue of a lagging device, or the end of a copy beside it."""

    def __init__(self, device: Lagging, place: int, copy: Copy | None = None) -> None:
        self.device, self.place, self.copy = device, place, copy

    def wait(self) -> None:
        if self.copy is None:
            self.device.run_to(self.place)
        else:
            self.device.run_to(self.copy.after)
            self.copy.run()


class Lagging(EmulatedDevice):
    """Nothing that is queued is done before somebody waits for it.

    Args:
        early: are copies beside the queue done as soon as they may be, or only when the queue needs them?
        careless: does such a copy forget what it should wait for?
    """

    def __init__(self, early: bool, careless: bool = False) -> None:
        super().__init__()
        self.early, self.careless = early, careless
        self.queue: list[Callable[[], None]] = []
        self.done = 0
        self.copies: list[Copy] = []
        self.kept: list[Any] = []

    def run_to(self, place: int) -> None:
        while self.done < place:
            self.done += 1
            self.queue[self.done - 1]()
            self.begin_copies()

    def begin_copies(self) -> None:
        for copy in self.copies:
            if self.early and copy.after <= self.done:
                copy.run()

    def put(self, act: Callable[[], None]) -> None:
        self.queue.append(act)

    def allocate(self, nbytes: int, what: str) -> Any:
        self.kept.append(super().allocate(nbytes, what))  # what is queued knows addresses alone
        return self.kept[-1]

    def pinned(self, nbytes: int) -> np.ndarray:
        self.kept.append(super().pinned(nbytes))
        return self.kept[-1]

    def upload(self, address: int, array: np.ndarray) -> None:
        is_pinned = any(np.may_share_memory(array, each) for each in self.kept if isinstance(each, np.ndarray))
        taken = array if is_pinned else array.copy()
        self.put(lambda: super(Lagging, self).upload(address, taken))

    def upload_beside(self, address: int, array: np.ndarray, after: Any) -> Any:
        place = 0 if after is None or self.careless else after.place
        copy = Copy(lambda: super(Lagging, self).upload(address, array), place)
        self.copies.append(copy)
        self.begin_copies()
        self.put(copy.run)
        return Mark(self, 0, copy)

    def download(self, array: np.ndarray, address: int) -> None:
        self.put(lambda: super(Lagging, self).download(array, address))

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self.put(lambda: super(Lagging, self).copy(target, source, nbytes))

    def clear(self, address: int, nbytes: int) -> None:
        self.put(lambda: super(Lagging, self).clear(address, nbytes))

    def record(self, module: Any, tasks: Any) -> Any:
        graph = super().record(module, tasks)
        return Late(graph, self)

    def mark(self) -> Any:
        return Mark(self, len(self.queue))

    def synchronize(self) -> None:
        self.run_to(len(self.queue))


class Late:
    """A graph that runs when its turn comes."""

    def __init__(self, graph: EmulatedGraph, device: Lagging) -> None:
        self.graph, self.device = graph, device

    def launch(self) -> None:
        self.device.put(self.graph.launch)


def train(device: Any) -> list[np.ndarray]:
    """Twelve steps on batches that lie in the same arrays, started before the first result is read."""
    step = classifier_step(SIZES, rate=0.2, backend=CupyBackend(device=device))
    draws = np.random.default_rng(3)
    x, labels = np.empty((7, SIZES[0]), np.float32), np.empty(7, np.int64)
    started = []
    for _ in range(12):
        x[:], labels[:] = draws.standard_normal(x.shape), draws.integers(0, SIZES[-1], 7)
        started.append(step.start([x, labels]))
    return [np.array([float(results[0]) for results in started]), *(p.value for p in step.parameters)]


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("least", [0, 1 << 30], ids=["beside", "between"])
def test_steps_read_their_own_inputs_whenever_copies_are_done(monkeypatch, early, least):
    wanted = train(EmulatedDevice())
    monkeypatch.setattr(feeds, "BESIDE_BYTES", least)
    for a, b in zip(train(Lagging(early)), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_copy_that_does_not_wait_shows(monkeypatch):
    monkeypatch.setattr(feeds, "BESIDE_BYTES", 0)
    wanted = train(EmulatedDevice())
    assert (train(Lagging(early=True, careless=True))[0] != wanted[0]).any()
    monkeypatch.setattr(Mark, "wait", lambda self: None)
    assert (train(Lagging(early=False))[0] != wanted[0]).any()


class Reusing(Lagging):
    """Memory is taken again as soon as nobody holds it, while what is queued still writes it."""

    def allocate(self, nbytes: int, what: str) -> Any:
        memory = super().allocate(nbytes, what)
        if "on their way" in what:
            self.put(lambda: memory.data.fill(0xA5))
        return memory


def test_memory_that_earlier_work_still_uses_is_waited_for(monkeypatch):
    monkeypatch.setattr(feeds, "BESIDE_BYTES", 0)
    for a, b in zip(train(Reusing(early=True)), train(EmulatedDevice()), strict=True):
        np.testing.assert_array_equal(a, b)


class Pooling(Lagging):
    """Pinned memory that nobody holds is given to whoever asks next."""

    def __init__(self) -> None:
        super().__init__(early=False)
        self.free: list[np.ndarray] = []

    def pinned(self, nbytes: int) -> np.ndarray:
        found = next((each for each in self.free if each.nbytes == nbytes), None)
        if found is None:
            found = super().pinned(nbytes)
        else:
            self.free = [each for each in self.free if each is not found]
        memory = np.frombuffer(memoryview(found), np.uint8)
        weakref.finalize(memory, self.free.append, found)
        return memory

    def upload(self, address: int, array: np.ndarray) -> None:
        super().upload(address, view(array.ctypes.data, array.nbytes))  # which keeps nobody's memory

    def upload_beside(self, address: int, array: np.ndarray, after: Any) -> Any:
        return super().upload_beside(address, view(array.ctypes.data, array.nbytes), after)


@pytest.mark.parametrize("least", [0, 1 << 30], ids=["beside", "between"])
def test_pinned_memory_is_given_back_when_nothing_reads_it(monkeypatch, least):
    """Programs that are dropped with a step under way, whose memory the next one gets."""
    monkeypatch.setattr(feeds, "BESIDE_BYTES", least)
    device = Pooling()
    there = [device.empty((70,), np.dtype(np.float32)) for _ in range(4)]
    for k, out in enumerate(there):
        x = gx.placeholder("x", (70,))
        program = gx.compile({"y": x * 2}, [x], backend=CupyBackend(device=device))
        program.call([np.full(70, k, np.float32)], [out])
        del program
        gc.collect()
    device.synchronize()
    assert [float(out.data[0]) for out in there] == [0, 2, 4, 6]
    assert device.free


def test_some_inputs_may_be_there_already(monkeypatch):
    monkeypatch.setattr(feeds, "BESIDE_BYTES", 0)
    device = Lagging(early=True)
    names = ("a", "b", "c")
    placeholders = [gx.placeholder(name, (n,)) for name, n in zip(names, (5, 70, 3), strict=True)]
    total = gx.sum(placeholders[0]) + 10 * gx.sum(placeholders[1]) + 100 * gx.sum(placeholders[2])
    program = gx.compile({"total": total}, placeholders, backend=CupyBackend(device=device))
    there = device.empty((70,), np.dtype(np.float32))
    there.data[:] = 1
    started = [program.start([np.full(5, k, np.float32), there, np.full(3, -k, np.float32)]) for k in range(6)]
    found = [float(results[0]) for results in started]
    assert found == [5.0 * k + 700 - 300 * k for k in range(6)]
