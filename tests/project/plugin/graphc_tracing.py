"""A third-party backend: runs graphs on NumPy and counts the operations of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphc.backend import Bound, Executable, Failure, find_backend
from graphc.lower.plan import Plan


@dataclass(frozen=True)
class TracedStep:
    """One step of another backend; each run adds its operations to the count."""

    inner: Bound
    ops: tuple[str, ...]
    counts: Counter[str]

    def run(self, inputs: Sequence[NDArray[np.generic]], outputs: Sequence[NDArray[np.generic]]) -> Failure | None:
        self.counts.update(self.ops)
        return self.inner.run(inputs, outputs)


@dataclass(frozen=True)
class Traced:
    """A compiled graph that knows its operations."""

    inner: Executable
    ops: tuple[str, ...]
    counts: Counter[str]

    def bind(self, dims: Mapping[str, int]) -> TracedStep:
        return TracedStep(self.inner.bind(dims), self.ops, self.counts)

    def source(self) -> str:
        return "\n".join(self.ops)


@dataclass(frozen=True)
class TracingBackend:
    """The reference backend, counting."""

    name: str = "tracing"
    priority: int = -10
    lowers: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def available(self) -> str | None:
        return None

    def takes(self, op: object) -> bool:
        return find_backend("reference").takes(op)

    def compile(self, plan: Plan) -> Traced:
        ops = tuple(type(node.op).__name__ for node in plan.graph.nodes if node.args)
        return Traced(find_backend("reference").compile(plan), ops, self.counts)


backend = TracingBackend()
