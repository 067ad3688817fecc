"""A plan that fits into a memory budget: as little as possible is computed again, as much as necessary.

How much memory a choice takes depends on fusion, order and layout, so each one that is tried is lowered. The first
is the plain graph; then what costs next to nothing is computed again, then more and more, from the beginning of the
forward pass, whose values wait longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.lower.lowering import lower
from graphc.lower.memory import layout
from graphc.lower.plan import Plan
from graphc.passes.remat import NEXT_TO_NOTHING, UNKNOWN_SIZE, Choice, JointGraph

PRICES = (1.5, 4.0, 1000.0)
"""Nanoseconds of work for a byte: products over few features, then over more, then whatever it takes."""
SEGMENTS = (16, 8, 32)


@dataclass(frozen=True)
class Value:
    """A value of the forward pass, in a report: its operation, type, bytes and the user's line."""

    op: str
    type: str
    nbytes: int
    line: str


@dataclass(frozen=True)
class Rematerialization:
    """What a program keeps for its backward pass and what it computes again, and the memory that this leaves.

    Attributes:
        budget_bytes: what was asked for.
        plain_bytes: the arena where everything is kept.
        peak_bytes: the arena as it is.
        kept, recomputed: values of the forward pass that the backward pass needs.
        work_ns: a rough figure for the work that is done twice, on one core.
    """

    budget_bytes: int
    plain_bytes: int
    peak_bytes: int
    kept: tuple[Value, ...]
    recomputed: tuple[Value, ...]
    work_ns: float

    def __str__(self) -> str:
        kept, again = (sum(value.nbytes for value in values) for values in (self.kept, self.recomputed))
        rows = [
            f"memory budget {self.budget_bytes} bytes: arena {self.peak_bytes}, {self.plain_bytes} without it; "
            f"{len(self.kept)} values kept for the backward pass ({kept} bytes), "
            f"{len(self.recomputed)} computed again ({again} bytes, about {self.work_ns / 1e6:.3g} ms on one core)"
        ]
        for title, values in (("kept", self.kept), ("again", self.recomputed)):
            rows += [f"  {title}: {value.op}: {value.type}, {value.nbytes} bytes   {value.line}" for value in values]
        return "\n".join(rows)


def lower_within(
    graph: Graph, usual: Graph, budget: int | float, dims: Mapping[str, int]
) -> tuple[Plan, Rematerialization]:
    """The plan of a graph whose arena fits a budget, with what had to be computed again for it.

    Args:
        graph: of a forward and a backward pass, its composites decomposed.
        usual: the graph as it is lowered without a budget.
        budget: bytes, or as a float a part of what the graph takes as it is.
        dims: sizes that memory is counted for; others count as 32.

    Raises:
        GraphError: no choice that is known fits; the message says which comes nearest.
    """
    sizes = {name: dims.get(name, UNKNOWN_SIZE) for name in graph.dims}
    plain = lower(usual)
    plain_bytes = layout(plain, sizes).peak_bytes
    wanted = int(budget * plain_bytes) if isinstance(budget, float) else budget

    def report(joint: JointGraph, choice: Choice, peak: int) -> Rematerialization:
        kept, again = (tuple(_value(joint, node) for node in nodes) for nodes in (choice.kept, choice.recomputed))
        return Rematerialization(wanted, plain_bytes, peak, kept, again, choice.work_ns)

    joint = JointGraph(graph, SEGMENTS[0], sizes)
    if plain_bytes <= wanted:
        return plain, report(joint, joint.choose(0.0), plain_bytes)
    search = _Search(sizes, wanted)
    for joint, price in _attempts(graph, sizes):
        found = search.attempt(joint, price)
        if found is None:
            continue
        if price > NEXT_TO_NOTHING:
            found = search.fewest_segments(joint, price, found)
        plan, choice, peak = found
        return plan, report(joint, choice, peak)
    least = min(plain_bytes, search.least)
    raise GraphError(
        f"a memory budget of {wanted} bytes cannot be reached: {least} is the least that was found, "
        f"{plain_bytes} what keeping everything takes",
        remedy=f"give memory_budget={least} or more, or a smaller batch",
    )


def _attempts(graph: Graph, sizes: Mapping[str, int]) -> Iterator[tuple[JointGraph, float]]:
    for number, segments in enumerate(SEGMENTS):
        joint = JointGraph(graph, segments, dict(sizes))
        for price in (NEXT_TO_NOTHING, *PRICES) if number == 0 else PRICES[-1:]:
            yield joint, price


_Found = tuple[Plan, Choice, int]


@dataclass
class _Search:
    """Choices that were tried, and the least memory that one of them took."""

    sizes: Mapping[str, int]
    wanted: int
    least: int = 1 << 62

    def attempt(self, joint: JointGraph, price: float, first: int = 1 << 30) -> _Found | None:
        """The plan of a choice if it fits."""
        choice = joint.choose(price, first)
        plan = lower(joint.rebuilt(choice))
        peak = layout(plan, self.sizes).peak_bytes
        self.least = min(self.least, peak)
        return (plan, choice, peak) if peak <= self.wanted else None

    def fewest_segments(self, joint: JointGraph, price: float, found: _Found) -> _Found:
        """The choice with the price for as few segments, from the first on, as still fits: found by halving."""
        low, high = 0, len(joint.boundaries) + 1
        while high - low > 1:
            middle = (low + high) // 2
            fewer = self.attempt(joint, price, middle)
            if fewer is None:
                low = middle
            else:
                high, found = middle, fewer
        return found


def _value(joint: JointGraph, node: Node) -> Value:
    return Value(node.op.name, str(node.type), joint.nbytes(node), str(node.loc or "").strip())
