"""Counts what the steps of the GPU benchmark do, on a device that does nothing: nothing is compiled or measured.

A task takes as long as its bytes at the rate of a copy or its products at their rate, whichever is longer, as both were
measured on an H100; a launch takes a microsecond for each task in the longest chain of those that wait for each other.
The sum is a bound that no faster kernel gets under, only fewer bytes and launches.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.gpu_costs import Cost, costs_of
from benchmarks.gpu_run import GPU, WORKLOADS
from benchmarks.report import markdown
from graphc.backends import cupy
from graphc.backends.cupy import installation
from graphc.backends.cupy.choice import Choices
from graphc.backends.cupy.device import Task
from graphc.backends.cupy.state import Residence

MODULES = ("common", "graphc_models", "graphc_resnet", "graphc_peer")
NODE_S = 1.1e-6
SHOWN = 20
AIMS: dict[tuple[str, str], tuple[float | None, float | None]] = {
    ("mlp_train", "tf32"): (0.05, 0.085),
    ("fused_elementwise", "fp32"): (0.56, 0.605),
    ("fused_elementwise", "bf16"): (0.28, 0.367),
    ("lstm_train", "fp32"): (14.9, 14.9),
    ("lstm_train", "tf32"): (7.35, 7.35),
    ("lstm_train", "bf16"): (4.41, 4.41),
    ("transformer_base_train", "tf32"): (21, 25.5),
    ("transformer_base_train", "bf16"): (11, 13.3),
    ("gpt2_small_train", "bf16"): (19, 19.8),
    ("resnet50_train", "bf16"): (20.3, 13.5),
    ("resnet50_train", "tf32"): (34.4, 22.9),
    ("gpt_decode", "bf16"): (0.333, 0.462),
    ("attention_fwd", "bf16"): (0.258, 0.165),
    ("attention_fwd_bwd", "bf16"): (None, 0.572),
}
"""Milliseconds of a step: what is aimed at, and what the best peer takes as measured. ResNet-50: without a library."""


@dataclass(frozen=True)
class Nowhere:
    """Memory that is not there; also an array, a module and a graph of the device that does nothing."""

    address: int = 0
    nbytes: int = 0
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    flags = np.zeros(1).flags

    def launch(self) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Wait for nothing."""


class NoDevice:
    """A :class:`graphc.backends.cupy.device.Device` that keeps what it is told to record."""

    name, arch, versions = "nothing", "sm_90", "nothing"
    shared_bytes = 227 * 1024
    measures = False

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.residence, self.choices = Residence(), Choices()
        self.recorded: list[Task] = []
        self._end = 1 << 32

    def allocate(self, nbytes: int, what: str = "") -> Nowhere:
        """Addresses that nothing else has."""
        start = self._end
        self._end += -(-max(nbytes, 1) // 256) * 256
        return Nowhere(start, nbytes)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Nowhere:
        """An array of the device."""
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        return Nowhere(self.allocate(nbytes).address, nbytes, tuple(shape), dtype)

    def record(self, module: Any, tasks: Sequence[Task]) -> Nowhere:
        """Keep the tasks; those of several graphs follow each other."""
        first = len(self.recorded)
        self.recorded += [Task(task.work, tuple(first + at for at in task.after)) for task in tasks]
        return Nowhere()

    def free_bytes(self) -> int:
        return 1 << 40

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.zeros(nbytes, np.uint8)

    def is_array(self, value: object) -> bool:
        return isinstance(value, Nowhere)

    def address_of(self, array: Nowhere) -> int:
        return array.address

    def finishes(self, product: object) -> bool:
        return True

    def library_version(self) -> str:
        return ""

    def load(self, *_: Any) -> Nowhere:
        return Nowhere()

    upload_beside = mark = load

    def upload(self, *_: Any) -> None: ...

    download = copy = clear = synchronize = enter = leave = upload


class Zeros:
    """Stands for a generator of random numbers, which take long to draw."""

    def standard_normal(self, shape: Any = (), dtype: Any = np.float32) -> np.ndarray:
        return np.zeros(shape, dtype)

    def uniform(self, low: float, high: float, shape: Any = ()) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def integers(self, low: int, high: int, shape: Any = ()) -> np.ndarray:
        return np.zeros(shape, np.int64)


@dataclass(frozen=True)
class Count:
    """What one step does.

    Attributes:
        costs: of each task of the plan, with how often it runs.
        launches: tasks of the recorded step, which are the nodes of its graph.
        chain: how many of them wait for one another at most.
        calls: steps that the workload counts in one, such as tokens.
    """

    name: str
    dtype: str
    costs: tuple[Cost, ...]
    launches: int
    chain: int
    calls: int

    @property
    def bound_ms(self) -> float:
        """Of each call."""
        return 1e3 * (sum(cost.seconds for cost in self.costs) + NODE_S * self.chain) / self.calls


def count(names: Sequence[str]) -> Iterator[Count]:
    """The rows of these workloads, as :data:`benchmarks.gpu_run.WORKLOADS` has them, without those of libraries."""
    device, names = NoDevice(), [each for name in names for each in WORKLOADS[name]["graphc"]]
    with peer_script(device) as peer:
        for row in itertools.chain.from_iterable(peer.WORKLOADS[name] for name in names):
            if len(row) == 3:
                device.recorded.clear()
                step, facts = row[2]()
                step()
                tasks, program = device.recorded, facts["program"]
                costs = costs_of(program, program.memory().dims)
                yield Count(row[0], row[1], costs, len(tasks), longest_chain(tasks), facts.get("calls", 1))


@contextmanager
def peer_script(device: NoDevice) -> Iterator[Any]:
    """The script of graphc's column, where nothing stands for the GPU."""
    with (
        patch.object(cupy, "first_gpu", lambda: device),
        patch.object(installation, "problem", lambda: None),
        patch.object(sys, "path", [str(GPU), *sys.path]),
    ):
        for name in MODULES:
            sys.modules.pop(name, None)
        try:
            peer: Any = importlib.import_module("graphc_peer")
            for name in ("graphc_peer", "graphc_models", "graphc_resnet"):
                sys.modules[name].rng = Zeros()  # pyright: ignore[reportAttributeAccessIssue]
            peer.on_device = lambda array: device.empty(array.shape, array.dtype)
            yield peer
        finally:
            for name in MODULES:
                sys.modules.pop(name, None)


def longest_chain(tasks: Sequence[Task]) -> int:
    """How many tasks there are in the longest row of those that each wait for the one before.

    >>> longest_chain([Task(work) if not after else Task(work, after) for work, after in ((None, ()), (None, (0,)))])
    2
    """
    depth: list[int] = []
    for task in tasks:
        depth.append(1 + max((depth[at] for at in task.after), default=0))
    return max(depth, default=0)


def report(counts: Sequence[Count]) -> str:
    """All counts as markdown: a line for each workload, then what it is made of."""
    head = ["workload", "type", "launches", "chain", "GB read", "GB written", "bound ms", "aim ms", "best peer ms"]
    rows: list[list[str]] = []
    for c in counts:
        moved = [f"{sum(getattr(cost, way) * cost.times for cost in c.costs) / 1e9:.3g}" for way in ("read", "written")]
        aims = ["-" if ms is None else f"{ms:g}" for ms in AIMS.get((c.name, c.dtype), (None, None))]
        rows.append([c.name, c.dtype, str(c.launches), str(c.chain), *moved, f"{c.bound_ms:.3g}", *aims])
    said = "Counted, not measured: bytes, multiplications and launches of a step, and the least time that these take."
    parts = ["# Count of the GPU benchmark", said, markdown(head, rows)]
    return "\n\n".join([*parts, *(text for c in counts for text in _details(c))])


def _details(c: Count) -> Iterator[str]:
    yield f"## {c.name}, {c.dtype}"
    head = ["tasks", "launches", "MB read", "MB written", "G multiply-adds", "ms"]
    rows: list[list[str]] = []
    for kind in dict.fromkeys((cost.kind, cost.type) for cost in c.costs):
        of = [cost for cost in c.costs if (cost.kind, cost.type) == kind]
        figures = [sum(getattr(x, name) * x.times for x in of) for name in ("read", "written", "multiply_adds")]
        read, written, adds = (f"{n:.4g}" for n in (figures[0] / 1e6, figures[1] / 1e6, figures[2] / 1e9))
        launches = sum(x.launches * x.times for x in of)
        shown = " ".join(filter(None, kind))
        rows.append([shown, str(launches), read, written, adds, f"{1e3 * sum(x.seconds for x in of):.4g}"])
    yield markdown(head, rows)
    alike: dict[Cost, int] = {}
    for cost in c.costs:
        alike[replace(cost, times=1)] = alike.get(replace(cost, times=1), 0) + cost.times
    dearest = sorted((replace(cost, times=times) for cost, times in alike.items()), key=lambda cost: -cost.seconds)
    yield markdown(
        ["ms", "times", "MB each", "task", "line"],
        [
            [f"{1e3 * x.seconds:.4g}", str(x.times), f"{(x.read + x.written) / 1e6:.4g}", x.what, x.line]
            for x in dearest[:SHOWN]
        ],
    )
