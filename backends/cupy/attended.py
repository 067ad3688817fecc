"""Attention in a plan, and what it has in common with its gradients: the result, and of each query the sum's logarithm.

A plan says of gradients what they are gradients of, and no more. Where the same plan computes that, too, gradients here
read its result and statistics; else they compute both for themselves. Operands of 16-bit floats that a plan widens are
read as they were before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from graphc.backends.cupy.attention import WIDTHS, Call, Part, Placed, Variant, variants
from graphc.backends.cupy.halves import root_of, written_by
from graphc.ir.dims import Size, product
from graphc.ir.types import DType, TensorType
from graphc.lower.plan import AttentionItem, Item, Lying, Place, Plan, PlanBuffer, size_of

if TYPE_CHECKING:
    from graphc.ir.node import Node


@dataclass(frozen=True)
class KeptAttention(AttentionItem):
    """An item with what it shares.

    Attributes:
        element: of the operands; results are float32.
        statistics: a buffer with a float32 for each query; None where nobody needs them.
        deltas: the same, for the gradients alone.
        kept: of gradients: where the result of attention lies.
        fresh: whether gradients compute that and the statistics for themselves.
    """

    element: DType = DType.float32
    statistics: int | None = None
    deltas: int | None = None
    kept: Lying | None = None
    fresh: bool = False

    @property
    def result(self) -> Lying:
        """Of attention."""
        return self.results[0] if self.kept is None else self.kept

    @property
    def gradients(self) -> tuple[Lying, ...]:
        """By query, key and value."""
        return () if self.cotangent is None else self.results

    @property
    def between(self) -> tuple[int, ...]:
        """The buffers that attention writes for its gradients."""
        found = (self.statistics, None if self.kept is None else self.kept.buffer)
        return tuple(index for index in found if index is not None)

    @property
    def buffers(self) -> tuple[int, ...]:
        return (*super().buffers, *self.between, *(() if self.deltas is None else (self.deltas,)))

    def variants(self, tf32: bool) -> dict[Part, Variant]:
        """The kernels that compute it, in order."""
        gradients = (Part.DELTAS, Part.KEYS, Part.QUERIES)
        parts = (Part.FORWARD,) if self.cotangent is None else ((Part.FORWARD,) * self.fresh + gradients)
        mask = "NO_MASK" if self.mask is None else "ADDED" if self.mask_adds else "ALLOWING"
        width = max(size for size in (self.size, self.value_size) if isinstance(size, int))
        return variants(self.element, tf32, width, self.causal, mask, self.rate > 0, parts)

    def call(self, dims: Mapping[str, int], address: Callable[[int], int]) -> Call:
        """With sizes and addresses as numbers."""

        def place(lying: Lying | None) -> Placed:
            if lying is None:
                return Placed()
            steps = tuple(size_of(step, dims) for step in lying.strides)
            return Placed(address(lying.buffer) + size_of(lying.offset, dims) * lying.width, steps, lying.width)

        def number(buffer: int | None) -> int:
            return 0 if buffer is None else address(buffer)

        dq, dk, dv = map(place, self.gradients or (None, None, None))
        first, second, third = (size_of(size, dims) for size in self.leading)
        rows, columns, width, value_width = (
            size_of(size, dims) for size in (self.queries, self.keys, self.size, self.value_size)
        )
        return Call(
            place(self.query), place(self.key), place(self.value), place(self.mask), place(self.cotangent),
            place(self.result), (dq, dk, dv),
            number(self.statistics), number(self.deltas), number(self.seed), number(self.step),
            (first, second, third), (rows, columns, width, value_width), self.scale, self.rate, self.stream,
        )  # fmt: skip


def fits(node: Node) -> bool:
    """Are there kernels for this attention, or for gradients of it?"""
    query, _, value = node.args[:3]
    sizes = (query.shape[-1], value.shape[-1])
    return node.dtype is not DType.float64 and all(isinstance(size, int) and size <= WIDTHS[-1] for size in sizes)


def keep_statistics(plan: Plan) -> Plan:
    """The plan with attention that keeps what its gradients need."""
    work = _Keeping(plan)
    # of what runs together, gradients come last: tasks wait for those before them whose memory they read
    ordered = (sorted(launch.items, key=_is_gradient) for launch in plan.launches)
    launches = [[work.kept(item, number) for item in items] for number, items in enumerate(ordered)]
    changed = tuple(
        replace(launch, items=tuple(map(work.with_statistics, items)))  # by now it is known who needs them
        for launch, items in zip(plan.launches, launches, strict=True)
    )
    return replace(plan, launches=changed, buffers=tuple(work.buffers))


class _Keeping:
    """A plan whose items get their buffers, in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.buffers = list(plan.buffers)
        items = (item for launch in plan.launches for item in launch.items)
        self.written = Counter(root_of(plan, index) for item in items for index in written_by(item))
        self.known: dict[tuple[object, ...], Lying] = {}  # the results of attention
        self.statistics: dict[Lying, int] = {}

    def kept(self, item: Item, launch: int) -> Item:
        """An item as this backend computes it."""
        if not isinstance(item, AttentionItem):
            return item
        given: dict[str, Any] = {f.name: getattr(item, f.name) for f in fields(AttentionItem)}
        own = KeptAttention(**given, element=self.buffers[item.query.buffer].type.dtype)
        steady = launch < self.plan.commit and not any(loop.first <= launch < loop.end for loop in self.plan.loops)
        steady = steady and all(self._is_steady(index) for index in (*item.reads, *own.between))
        if item.cotangent is None:
            if steady and self._is_steady(item.c):
                self.known.setdefault(_signature(item), own.result)
            return own
        queries = product(item.leading) * item.queries
        deltas = self._add((queries,))
        found = self.known.get(_signature(item)) if steady else None
        if found is not None:
            result = found
            if result not in self.statistics:
                self.statistics[result] = self._add((queries,))
            return replace(own, statistics=self.statistics[result], deltas=deltas, kept=result)
        shape = (*item.leading, item.queries, item.value_size)
        strides = tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))
        result = Lying(self._add(shape), 0, strides, DType.float32.itemsize)
        return replace(own, statistics=self._add((queries,)), deltas=deltas, kept=result, fresh=True)

    def with_statistics(self, item: Item) -> Item:
        """The item, which keeps statistics if gradients turned out to need them."""
        if not isinstance(item, KeptAttention) or item.cotangent is not None:
            return item
        return replace(item, statistics=self.statistics.get(item.result))

    def _is_steady(self, index: int) -> bool:
        """Does a buffer have one value, and one place, through all of a step?"""
        return self.written[index] <= 1 and self.buffers[index].place is not Place.SLICE

    def _add(self, shape: Sequence[Size]) -> int:
        index = len(self.buffers)
        self.buffers.append(PlanBuffer(index, f"arena{index}", TensorType(DType.float32, tuple(shape)), Place.ARENA))
        return index


def _is_gradient(item: Item) -> bool:
    return isinstance(item, AttentionItem) and item.cotangent is not None


def _signature(item: AttentionItem) -> tuple[object, ...]:
    """What makes the weights what they are."""
    operands = (item.query, item.key, item.value, item.mask, item.seed, item.step, item.leading)
    return (*operands, item.scale, item.causal, item.mask_adds, item.rate, item.stream)
