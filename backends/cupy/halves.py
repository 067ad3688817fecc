"""Where a plan's float32 buffers hold 16-bit floats, they become buffers of these, and products read and write them.

A plan widens the operands of products to float32 and rounds their results, as a CPU needs it. A GPU multiplies 16-bit
floats as they are and sums them in float32. So a buffer of intermediates is stored in 16 bits where nothing else is
ever written to it, or where whoever reads it rounds it first; copies that then do nothing are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from graphc.backends.cupy.narrow import copied, copies, narrow_kernel, rounded_type, stored_types, without_store
from graphc.ir.types import DType, TensorType
from graphc.loops.kernel import Access, Kernel
from graphc.lower.plan import AttentionItem, ConvolutionItem, GemmItem, Item, KernelItem, Lying, Place, Plan

f32 = DType.float32
Product = GemmItem | ConvolutionItem | AttentionItem
"""What multiplies: all its factors are of one type."""


def read_halves(plan: Plan) -> Plan:
    """The plan with buffers and products of 16-bit floats where they can be."""
    if not any(buffer.type.dtype.is_half for buffer in plan.buffers):
        return plan
    types = _Types(plan).find()
    return _without_copies(_narrowed(plan, types)) if types else _without_copies(plan)


@dataclass(frozen=True)
class _Use:
    """A kernel that reads or writes a buffer, under a name of its own."""

    item: KernelItem
    name: str
    access: Access


@dataclass
class _Types:
    """Finds the buffers that may be narrower: all slices of one with it.

    Attributes:
        held: the type of what is stored, by the number of the buffer that slices lie in.
        kernels, products: by the same number, who reads or writes it.
    """

    plan: Plan
    held: dict[int, DType] = field(default_factory=dict[int, DType])
    kernels: dict[int, list[_Use]] = field(default_factory=dict[int, list[_Use]])
    factors: dict[int, list[Product]] = field(default_factory=dict[int, list[Product]])
    results: dict[int, list[Product]] = field(default_factory=dict[int, list[Product]])

    def find(self) -> dict[int, DType]:
        """The new type of each buffer that gets one."""
        refused = self._sort()
        candidates = {root for root in (*self.kernels, *self.factors, *self.results) if root not in refused}
        self._find_held(candidates)
        self._keep_for_products()
        for root, products in self.results.items():
            if root in candidates and root not in self.held and root not in self.factors:
                rounded = self._rounded_by_readers(root)
                if rounded is not None and all(self._type_of_factors(item) is rounded for item in products):
                    self.held[root] = rounded
        plain = [buffer.index for buffer in self.plan.buffers if buffer.type.dtype is f32]
        return {index: self.held[root] for index in plain if (root := root_of(self.plan, index)) in self.held}

    def _sort(self) -> set[int]:
        """Who uses which buffer; those that have to stay as they are."""
        plan, refused = self.plan, set[int]()
        for buffer in plan.buffers:
            root = plan.buffers[root_of(plan, buffer.index)]
            if root.place is not Place.ARENA or root.type.dtype is not f32 or buffer.type.dtype is not f32:
                refused.add(root.index)
        for item in _items(plan):
            if isinstance(item, KernelItem):
                for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True):
                    use = _Use(item, buffer.name, buffer.access)
                    self.kernels.setdefault(root_of(plan, index), []).append(use)
                    if buffer.access is Access.UPDATE:
                        refused.add(root_of(plan, index))
            elif isinstance(item, Product):
                for index in _factors(item):
                    self.factors.setdefault(root_of(plan, index), []).append(item)
                self.results.setdefault(root_of(plan, item.c), []).append(item)
                if isinstance(item, AttentionItem) and item.mask is not None:
                    refused.add(root_of(plan, item.mask.buffer))
            else:
                refused |= {root_of(plan, index) for index in item.buffers}
        return refused

    def _find_held(self, candidates: set[int]) -> None:
        """Buffers to which kernels write nothing but 16-bit floats, and copies of them."""
        changed = True
        while changed:
            changed = False
            for root in sorted(candidates - self.held.keys() - self.results.keys()):
                found: set[DType] = set()
                for use in self.kernels.get(root, ()):
                    if use.access is Access.WRITE:
                        found |= stored_types(use.item.kernel, use.name, self._known(use.item))
                if len(found) == 1 and (dtype := found.pop()).is_half:
                    self.held[root] = dtype
                    changed = True

    def _known(self, item: KernelItem) -> dict[str, DType]:
        pairs = zip(item.kernel.buffers, item.buffers, strict=True)
        roots = {buffer.name: root_of(self.plan, index) for buffer, index in pairs if buffer.dtype is f32}
        return {name: self.held[root] for name, root in roots.items() if root in self.held}

    def _keep_for_products(self) -> None:
        """Leave as it is what is multiplied with something that is not of the same type."""
        changed = True
        while changed:
            changed = False
            for root, products in self.factors.items():
                if root in self.held and any(self._type_of_factors(item) is None for item in products):
                    del self.held[root]
                    changed = True

    def _type_of_factors(self, item: Product) -> DType | None:
        types = {self._type_of(index) for index in _factors(item)}
        return types.pop() if len(types) == 1 else None

    def _type_of(self, index: int) -> DType | None:
        own = self.plan.buffers[index].type.dtype
        return own if own.is_half else self.held.get(root_of(self.plan, index))

    def _rounded_by_readers(self, root: int) -> DType | None:
        uses = self.kernels.get(root, [])
        if not uses or any(use.access is not Access.READ for use in uses):
            return None
        types = {rounded_type(use.item.kernel, use.name) for use in uses}
        return types.pop() if len(types) == 1 else None


def _narrowed(plan: Plan, types: dict[int, DType]) -> Plan:
    """The plan with these buffers in 16 bits."""
    kernels: dict[tuple[Kernel, tuple[tuple[str, DType], ...]], Kernel] = {}

    def change(item: Item) -> Item:
        if isinstance(item, GemmItem | ConvolutionItem):
            dtype = types.get(item.a, plan.buffers[item.a].type.dtype)
            return item if dtype is item.dtype else replace(item, dtype=dtype)
        if isinstance(item, AttentionItem):
            return _with_widths(item, types)
        if not isinstance(item, KernelItem):
            return item
        pairs = zip(item.kernel.buffers, item.buffers, strict=True)
        new = {buffer.name: types[index] for buffer, index in pairs if index in types}
        if not new:
            return item
        key = item.kernel, tuple(sorted(new.items()))
        if key not in kernels:
            kernels[key] = narrow_kernel(item.kernel, new)
        return replace(item, kernel=kernels[key])

    buffers = tuple(
        replace(b, type=TensorType(types[b.index], b.type.shape)) if b.index in types else b for b in plan.buffers
    )
    launches = tuple(replace(launch, items=tuple(map(change, launch.items))) for launch in plan.launches)
    return replace(plan, buffers=buffers, launches=launches)


def _with_widths(item: AttentionItem, types: dict[int, DType]) -> AttentionItem:
    """The item with places of elements of these types."""

    def changed(lying: Lying) -> Lying:
        dtype = types.get(lying.buffer)
        return lying if dtype is None else replace(lying, width=dtype.itemsize)

    return replace(
        item, query=changed(item.query), key=changed(item.key), value=changed(item.value),
        cotangent=None if item.cotangent is None else changed(item.cotangent),
        results=tuple(map(changed, item.results)),
    )  # fmt: skip


def _without_copies(plan: Plan) -> Plan:
    """The plan without copies of 16-bit floats that somebody may as well read, or write, where they come from."""
    while True:
        uses = Uses(plan)
        new: dict[int, int] = {}
        others: dict[int, KernelItem | None] = {}  # what an item becomes, by its id
        touched: set[int] = set()
        for position, item, source, target in _copying(plan):
            roots = {root_of(plan, index) for index in item.buffers}
            if touched & roots:  # what happens to them in the meantime is known in the next round
                continue
            alone = len(item.buffers) == 2
            found = uses.instead_of(source, target, position, alone)
            if found is not None:
                new |= found
                others[id(item)] = None if alone else _without(item, target)
                touched |= roots
        if not others:
            return plan
        plan = _replaced(plan, new, others)


def _copying(plan: Plan) -> Iterator[tuple[int, KernelItem, int, int]]:
    """Items that copy 16-bit floats, alone or beside other work: from which buffer, into which one."""
    known: dict[Kernel, list[tuple[str, str]]] = {}
    for position, launch in enumerate(plan.launches):
        for item in launch.items:
            if not isinstance(item, KernelItem):
                continue
            if item.kernel.buffers[0].dtype.is_half and copies(item.kernel):
                source, target = item.buffers
                yield position, item, source, target
            elif len(item.buffers) > 2 and item.written is None:
                if item.kernel not in known:
                    known[item.kernel] = copied(item.kernel)
                places = {buffer.name: at for buffer, at in zip(item.kernel.buffers, item.buffers, strict=True)}
                for source, target in known[item.kernel]:
                    yield position, item, places[source], places[target]


def _without(item: KernelItem, target: int) -> KernelItem:
    """An item that leaves out what it writes to a buffer."""
    at = item.buffers.index(target)
    kernel = without_store(item.kernel, item.kernel.buffers[at].name)
    return replace(item, kernel=kernel, buffers=(*item.buffers[:at], *item.buffers[at + 1 :]))


class Uses:
    """Which launches read and write which buffers, slices counting for what they lie in."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.read: dict[int, list[int]] = {}
        self.written: dict[int, list[int]] = {}
        self.by_products: set[int] = set()
        for position, launch in enumerate(plan.launches):
            for item in launch.items:
                for index in _read_by(item):
                    self.read.setdefault(root_of(plan, index), []).append(position)
                for index in written_by(item):
                    self.written.setdefault(root_of(plan, index), []).append(position)
                    if isinstance(item, Product):
                        self.by_products.add(index)
        self.asked = {index for loop in plan.loops for index in (loop.going, loop.steps) if index is not None}

    def instead_of(self, source: int, target: int, position: int, alone: bool) -> dict[int, int] | None:
        """Which buffer may stand for which other one, so that a copy is not needed; None if none may.

        Args:
            source: what is copied.
            target: the copy.
            position: the launch that does so.
            alone: is that all that its kernel does?
        """
        if self.plan.buffers[source].type.size != self.plan.buffers[target].type.size:
            return None
        if alone and self.may_write_directly(source, target, position):
            return {source: target}
        return {target: source} if self.may_read_directly(source, target, position) else None

    def may_write_directly(self, source: int, target: int, position: int) -> bool:
        """May the product whose result is copied write the copy?"""
        own, other = self.plan.buffers[source], root_of(self.plan, target)
        if own.place is not Place.ARENA or source not in self.by_products or self.has_slices(source):
            return False
        if len(self.read.get(source, ())) != 1 or len(self.written[source]) != 1:
            return False
        (made,) = self.written[source]
        touched = [at for at in (*self.read.get(other, ()), *self.written[other]) if made <= at < position]
        return made < position and not touched and self.alike((made, position))

    def may_read_directly(self, source: int, target: int, position: int) -> bool:
        """May those who read the copy read what it is made of?"""
        own, other = self.plan.buffers[target], root_of(self.plan, source)
        if own.place is not Place.ARENA or self.written[target] != [position] or target in self.asked:
            return False
        readers = self.read.get(target, [])
        if any(at <= position for at in readers) or (self.has_slices(target) and self._in_loop(position)):
            return False
        last = max(readers, default=position)
        if any(position <= at <= last for at in self.written.get(other, ())):
            return False
        if self.plan.buffers[other].place is Place.STATE and last >= self.plan.commit:
            return False
        same = self.alike((position, *readers))
        steady = self.plan.buffers[source].place is not Place.SLICE and not self._in_loop(position)
        return same or (steady and not self._rewritten_around(other, readers))

    def _rewritten_around(self, root: int, readers: list[int]) -> bool:
        """Is a buffer written in a loop that reads it, too?"""
        for loop in self.plan.loops:
            if any(loop.first <= at < loop.end for at in readers):
                if any(loop.first <= at < loop.end for at in self.written.get(root, ())):
                    return True
        return False

    def has_slices(self, index: int) -> bool:
        """Does something lie inside a buffer?"""
        return any(buffer.part is not None and buffer.part.of == index for buffer in self.plan.buffers)

    def _in_loop(self, position: int) -> bool:
        return any(loop.first <= position < loop.end for loop in self.plan.loops)

    def alike(self, positions: tuple[int, ...]) -> bool:
        """Are launches in the same loops?"""
        around = {
            tuple(number for number, loop in enumerate(self.plan.loops) if loop.first <= at < loop.end)
            for at in positions
        }
        return len(around) == 1


def _replaced(plan: Plan, new: dict[int, int], others: Mapping[int, KernelItem | None]) -> Plan:
    """The plan with buffers in place of others, and with other items in place of some, or none."""

    def change(item: Item) -> Item:
        if not any(index in new for index in item.buffers):
            return item
        if isinstance(item, KernelItem):
            return replace(item, buffers=tuple(new.get(index, index) for index in item.buffers))
        if isinstance(item, AttentionItem):
            return item.with_buffers(lambda index: new.get(index, index))
        a, b, c = (new.get(index, index) for index in item.buffers)
        return replace(item, a=a, b=b, c=c)

    launches = list(plan.launches)
    for at, launch in enumerate(launches):
        kept = [left for item in launch.items if (left := others.get(id(item), item)) is not None]
        changed = tuple(map(change, kept))
        if len(kept) != len(launch.items) or any(a is not b for a, b in zip(changed, launch.items, strict=True)):
            launches[at] = replace(launch, items=changed)
    buffers = tuple(
        replace(b, part=replace(b.part, of=new[b.part.of])) if b.part is not None and b.part.of in new else b
        for b in plan.buffers
    )
    return replace(plan, launches=tuple(launches), buffers=buffers)


def root_of(plan: Plan, index: int) -> int:
    """The buffer that a slice lies in, at last; itself if it is none."""
    buffer = plan.buffers[index]
    while buffer.part is not None:
        buffer = plan.buffers[buffer.part.of]
    return buffer.index


def _items(plan: Plan) -> Iterator[Item]:
    for launch in plan.launches:
        yield from launch.items


def _factors(item: Product) -> tuple[int, ...]:
    if isinstance(item, GemmItem | ConvolutionItem):
        return (item.a, item.b)
    operands = (item.query, item.key, item.value, item.cotangent)
    return tuple(lying.buffer for lying in operands if lying is not None)


def _read_by(item: Item) -> set[int]:
    if isinstance(item, AttentionItem):
        return set(item.reads)
    if not isinstance(item, KernelItem):
        return {*item.buffers} - {item.c}
    pairs = zip(item.buffers, item.kernel.buffers, strict=True)
    return {index for index, buffer in pairs if buffer.access is not Access.WRITE}


def written_by(item: Item) -> set[int]:
    """The buffers that an item writes."""
    if not isinstance(item, KernelItem):
        return {item.c}
    pairs = zip(item.buffers, item.kernel.buffers, strict=True)
    return {index for index, buffer in pairs if buffer.access is not Access.READ}
