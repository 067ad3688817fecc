"""Work with keys becomes a plan with numbered buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType, TensorType
from graphc.lower.build import Built
from graphc.lower.loop import Moving, Steps
from graphc.lower.opaque import Matrix
from graphc.lower.plan import (
    AttentionItem,
    BufferPart,
    Check,
    ContractionItem,
    ConvolutionItem,
    GemmItem,
    Item,
    KernelItem,
    Launch,
    Loop,
    Place,
    Plan,
    PlanBuffer,
    WinogradItem,
)


@dataclass(eq=False)
class Gemm:
    """A matrix product before buffers have numbers."""

    dtype: DType
    a: Matrix
    b: Matrix
    c: Node
    m: Size
    n: Size
    k: Size
    batch: Size
    strides: tuple[Size, Size, Size]
    offsets: tuple[Size, Size] = (0, 0)
    in_panels: bool = False


@dataclass(eq=False)
class Contraction:
    """Products of patches before buffers have numbers: the item, and the keys of what it reads and writes."""

    item: ContractionItem | WinogradItem | ConvolutionItem
    a: Node
    b: Node
    c: Node


@dataclass(eq=False)
class Attention:
    """Attention before buffers have numbers: those in the item are positions among the keys."""

    item: AttentionItem
    keys: tuple[Node, ...]


@dataclass(eq=False)
class Work:
    """One kernel application or product: what it reads and writes decides when it can run.

    Attributes:
        overwrites: keys whose values are gone afterwards: all others that read them run before.
    """

    what: Built | Gemm | Contraction | Attention | Steps
    reads: tuple[Node, ...]
    writes: tuple[Node, ...]
    label: str
    nodes: tuple[Node, ...]
    level: int = 0
    overwrites: tuple[Node, ...] = ()

    @property
    def has_checks(self) -> bool:
        return isinstance(self.what, Built) and self.what.kernel.has_checks


@dataclass
class Assembly:
    """A plan while launches are added in their order.

    Attributes:
        places: of keys with a place of their own, by ``id``; the rest lies in the arena.
        moving: of keys that are parts of other keys' buffers, by ``id``.
    """

    graph: Graph
    places: dict[int, tuple[Place, int]]
    moving: dict[int, Moving]
    constants: tuple[object, ...]
    buffers: list[PlanBuffer] = field(default_factory=list[PlanBuffer])
    launches: list[Launch] = field(default_factory=list[Launch])
    loops: list[Loop] = field(default_factory=list[Loop])
    commit: int = 0
    _number: dict[int, int] = field(default_factory=dict[int, int])

    def buffer(self, key: Node) -> int:
        """The number of a key's buffer."""
        if id(key) not in self._number:
            self._number[id(key)] = self._add_key(key)
        return self._number[id(key)]

    def _add_key(self, key: Node, loop: int | None = None) -> int:
        if id(key) in self.moving:
            place = self.moving[id(key)]
            part = BufferPart(self.buffer(place.of), place.offset, place.step, place.alternates, loop)
            return self._add(key.type, Place.SLICE, 0, (key,), part)
        place, slot = self.places.get(id(key), (Place.ARENA, 0))
        if isinstance(key, Parameter):
            place, slot = Place.STATE, next(i for i, p in enumerate(self.graph.parameters) if p is key)
        type = self.graph.outputs[slot][1].type if place is Place.OUTPUT else key.type
        return self._add(type, place, slot, (key,))

    def _add(
        self, type: TensorType, place: Place, slot: int, nodes: tuple[Node, ...], part: BufferPart | None = None
    ) -> int:
        numbered = place not in (Place.ARENA, Place.SLICE)
        label = f"{place.value}{slot if numbered else len(self.buffers)}"
        self.buffers.append(PlanBuffer(len(self.buffers), label, type, place, slot, nodes, part))
        return len(self.buffers) - 1

    def begin_commit(self) -> None:
        """The launches from here on write state."""
        self.commit = len(self.launches)

    def launch(self, group: Sequence[Work]) -> None:
        """Add work that runs together."""
        loops = [work.what for work in group if isinstance(work.what, Steps)]
        if loops:
            self._add_loops(loops)
            return
        items = tuple(self._item(work) for work in group)
        label = " + ".join(dict.fromkeys(work.label for work in group))
        self.launches.append(Launch(items, label, tuple(n for work in group for n in work.nodes)))

    def _item(self, work: Work) -> Item:
        if isinstance(work.what, Built):
            built = work.what
            return KernelItem(
                built.kernel,
                tuple(self.buffer(key) for key in built.keys),
                tuple(int(size) if isinstance(size, int) else size for size in built.sizes),  # no Argument
                built.extent,
                built.grain,
                built.cost,
                written=built.written,
            )
        if isinstance(work.what, Contraction):
            a, b, c = (self.buffer(key) for key in (work.what.a, work.what.b, work.what.c))
            return replace(work.what.item, a=a, b=b, c=c)
        if isinstance(work.what, Attention):
            keys = work.what.keys
            return work.what.item.with_buffers(lambda number: self.buffer(keys[number]))
        assert isinstance(work.what, Gemm)
        g = work.what
        return GemmItem(
            g.dtype, self.buffer(g.a.key), self.buffer(g.b.key), self.buffer(g.c), g.m, g.n, g.k,
            g.a.leading, g.b.leading, g.n, g.a.transposed, g.b.transposed, g.batch, *g.strides, *g.offsets,
            g.in_panels,
        )  # fmt: skip

    def _add_loops(self, together: Sequence[Steps]) -> None:
        """The launches of a step, with the outer plan's buffers, between the marks of a loop.

        Several loops have the same number of steps, none inside them, and none needs another: one loop does a step of
        each, launch beside launch.
        """
        first, number = len(self.launches), len(self.loops)
        depth = max(len(steps.plan.launches) for steps in together)
        head = together[0]
        self.loops += [Loop(first, first + depth, head.count)] * (1 + len(head.plan.loops))
        tables = [self._table(steps, number) for steps in together]
        table = tables[0]
        if head.steps is not None:  # else the first input of a step says whether it runs
            going = table[0] if head.going is None else self.buffer(head.going)
            self.loops[number] = replace(self.loops[number], going=going, steps=self.buffer(head.steps))
        for place, loop in enumerate(head.plan.loops, number + 1):
            self.loops[place] = Loop(
                loop.first + first, loop.end + first, loop.count,
                None if loop.going is None else table[loop.going], None if loop.steps is None else table[loop.steps],
            )  # fmt: skip
        for position in range(depth):
            beside = [
                (steps.plan.launches[position], table, steps.first_check)
                for steps, table in zip(together, tables, strict=True)
                if position < len(steps.plan.launches)
            ]
            items = tuple(_renumbered(item, table, check) for launch, table, check in beside for item in launch.items)
            label = " + ".join(dict.fromkeys(launch.label for launch, _, _ in beside))
            self.launches.append(Launch(items, label, tuple(node for launch, _, _ in beside for node in launch.nodes)))

    def _table(self, steps: Steps, number: int) -> list[int]:
        """The outer plan's numbers of the buffers of a step of loop ``number``."""
        table: list[int] = []
        for inner in steps.plan.buffers:
            match inner.place:
                case Place.INPUT | Place.OUTPUT:
                    key = (steps.inputs if inner.place is Place.INPUT else steps.outputs)[inner.slot]
                    fixed = id(key) not in self.moving or self.moving[id(key)].step == 0
                    table.append(self.buffer(key) if fixed else self._add_key(key, number))
                case Place.CONSTANT:
                    table.append(self._add(inner.type, Place.CONSTANT, len(self.constants), inner.nodes))
                    self.constants = (*self.constants, steps.plan.constants[inner.slot])
                case _:
                    part = inner.part
                    if part is not None:
                        loop = None if part.loop is None else part.loop + number + 1
                        part = replace(part, of=table[part.of], loop=loop)
                    table.append(self._add(inner.type, inner.place, 0, inner.nodes, part))
        return table

    def plan(self, checks: tuple[Check, ...]) -> Plan:
        """The plan."""
        return Plan(
            self.graph, tuple(self.buffers), tuple(self.launches), self.commit, self.graph.parameters,
            self.constants, checks, tuple(self.loops),
        )  # fmt: skip


def _renumbered(item: Item, table: Sequence[int], first_check: int) -> Item:
    if isinstance(item, KernelItem):
        buffers = tuple(table[index] for index in item.buffers)
        return replace(item, buffers=buffers, check_base=item.check_base + first_check)
    if isinstance(item, AttentionItem):
        return item.with_buffers(lambda number: table[number])
    return replace(item, a=table[item.a], b=table[item.b], c=table[item.c])
