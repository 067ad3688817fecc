"""Matrices of products whose rows are moved apart, so that each begins at a multiple of 16 bytes.

The fast kernels of a library read 16 bytes at a time. Rows of an odd number of 16-bit floats, such as the scores of a
vocabulary of 50,257 words, keep them out. Whoever computes such a matrix writes its rows further apart, and whoever
reads it knows: nothing is copied, and what lies between rows is never read. A parameter or an input that a product
reads as it is would have to be copied: that is done where each element is multiplied often enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from graphc.backends.cupy.epilogues import FinishedGemm
from graphc.backends.cupy.halves import Uses
from graphc.backends.cupy.rows import Rows, in_rows, walk_rows
from graphc.ir.dims import Size, product
from graphc.ir.types import DType, TensorType
from graphc.loops.affine import int64
from graphc.loops.kernel import Access, Buffer, For, Kernel, Let, Load, LoopKind, Store, Var
from graphc.lower.plan import GemmItem, Item, KernelItem, Launch, Place, Plan, PlanBuffer

VECTOR_BYTES = 16
SHORTEST = 64
"""Rows of fewer elements are left: products with a narrow side are bound by memory."""
WORTH_ROWS = 256
"""A kernel walks through rows, where vectors fit one side alone, if each element is multiplied so often."""
WORTH_COPY = 1024
"""A matrix is copied if each element is multiplied so often: 8 bytes moved take as long as is saved by then."""


def pad_rows(plan: Plan, tf32: bool = False) -> Plan:
    """The plan with rows apart where products want them so."""
    plan = _with_copies(plan, tf32)
    refused: set[int] = set()
    while True:
        work = _Padding(plan, tf32, refused)
        if not work.rows:
            return plan
        changed = work.run()
        if changed is not None:
            return changed


def is_odd(length: int, dtype: DType, tf32: bool) -> bool:
    """Do rows of so many elements, as operands of products on tensor cores, begin where vectors may not?"""
    on_tensor_cores = dtype.is_half or (dtype is DType.float32 and tf32)
    return on_tensor_cores and length >= SHORTEST and length * dtype.itemsize % VECTOR_BYTES != 0


@dataclass(frozen=True)
class _Role:
    """A matrix of a product.

    Attributes:
        distance, stride: of its rows, and of the matrices of the batch.
        times: how often each element is multiplied, or of a result: how many products are its sum.
    """

    name: str
    index: int
    distance: Size
    stride: Size
    times: Size


def _roles(item: GemmItem) -> tuple[_Role, ...]:
    return (
        _Role("a", item.a, item.lda, item.stride_a, item.n),
        _Role("b", item.b, item.ldb, item.stride_b, item.m),
        _Role("c", item.c, item.ldc, item.stride_c, item.k),
    )


def _gemms(plan: Plan) -> Iterator[tuple[int, GemmItem]]:
    for position, launch in enumerate(plan.launches):
        for item in launch.items:
            if isinstance(item, GemmItem) and not item.in_panels:
                yield position, item


def _often(times: Size, least: int, unknown: bool) -> bool:
    return times >= least if isinstance(times, int) else unknown


@dataclass
class _Padding:
    """One attempt; buffers that turn out to be used otherwise are refused in the next one."""

    plan: Plan
    tf32: bool
    refused: set[int]
    rows: dict[int, Rows] = field(default_factory=dict[int, Rows])

    def __post_init__(self) -> None:
        self.operands: set[int] = set()
        uses = Uses(self.plan)
        for _, item in _gemms(self.plan):
            for role in _roles(item):
                buffer = self.plan.buffers[role.index]
                shape = buffer.type.shape
                if role.index in self.refused or role.distance != (shape[-1] if shape else 0):
                    continue
                if buffer.place is not Place.ARENA or uses.has_slices(role.index) or role.index in uses.asked:
                    continue
                length, dtype = role.distance, buffer.type.dtype
                if (
                    isinstance(length, int)
                    and is_odd(length, dtype, self.tf32)
                    and _often(role.times, WORTH_ROWS, True)
                ):
                    vector = VECTOR_BYTES // dtype.itemsize
                    self.rows[role.index] = Rows(length, -(-length // vector) * vector)
                    self.operands |= {role.index} if role.name != "c" else set()

    def run(self) -> Plan | None:
        """The changed plan; None if some buffers had to be refused."""
        launches = [replace(launch, items=tuple(map(self._changed, launch.items))) for launch in self.plan.launches]
        if self.refused & self.rows.keys():
            return None
        buffers = [
            replace(b, type=TensorType(b.type.dtype, (*b.type.shape[:-1], self.rows[b.index].apart)))
            if b.index in self.rows
            else b
            for b in self.plan.buffers
        ]
        return replace(self.plan, launches=tuple(launches), buffers=tuple(buffers))

    def _changed(self, item: Item) -> Item:
        own = {index for index in item.buffers if index in self.rows}
        if not own:
            return item
        if isinstance(item, GemmItem) and not item.in_panels:
            found = self._product(item)
        elif isinstance(item, KernelItem):
            found = self._kernel(item, own)
        else:
            found = None
        if found is None:
            at_fault = self._lying_alike(item) & own or own
            self.refused |= at_fault - self.operands or at_fault  # what only would have been a little better goes first
            return item
        return found

    def _lying_alike(self, item: Item) -> set[int]:
        """What a product writes and what it adds to that, which lie alike."""
        return {item.c, item.addend} if isinstance(item, FinishedGemm) and item.addend is not None else set()

    def _product(self, item: GemmItem) -> GemmItem | None:
        if self._lying_alike(item) & self.rows.keys():
            return None
        changes: dict[str, Size] = {}
        for role in _roles(item):
            rows = self.rows.get(role.index)
            if rows is None:
                continue
            offset = 0 if role.name == "c" else getattr(item, f"offset_{role.name}")
            if role.distance != rows.length or not isinstance(offset, int):
                return None
            changes[f"ld{role.name}"] = rows.apart
            if role.name != "c":
                changes[f"offset_{role.name}"] = offset // rows.length * rows.apart + offset % rows.length
            if item.batch != 1:
                if not isinstance(role.stride, int) or role.stride % rows.length:
                    return None
                changes[f"stride_{role.name}"] = role.stride // rows.length * rows.apart
        return replace(item, **changes)  # pyright: ignore[reportArgumentType]

    def _kernel(self, item: KernelItem, own: set[int]) -> KernelItem | None:
        kernel = item.kernel
        names = {
            b.name: self.rows[index] for b, index in zip(kernel.buffers, item.buffers, strict=True) if index in own
        }
        sizes = {name: size for name, size in zip(kernel.sizes, item.sizes, strict=True) if isinstance(size, int)}
        direct = in_rows(kernel, names, sizes)
        if direct is not None:
            return replace(item, kernel=direct)
        lengths = {rows.length for rows in names.values()}
        flat = walk_rows(kernel, min(lengths)) if len(lengths) == 1 and own <= self.operands else None
        changed = None if flat is None else in_rows(flat, names, {})
        shape = self.plan.buffers[min(own)].type.shape
        if changed is None or item.sizes != (product(shape),):
            return None
        count = product(shape[:-1])
        return replace(item, kernel=changed, sizes=(count,), extent=count, grain=1)


def _with_copies(plan: Plan, tf32: bool) -> Plan:
    """The plan with copies of parameters and inputs whose rows are odd, for large products; they are made first."""
    uses, buffers = Uses(plan), list(plan.buffers)
    copies: dict[int, int] = {}

    def is_read(role: _Role, position: int) -> bool:
        """Does a product read a dense matrix from the outside that nothing has written yet?"""
        buffer = plan.buffers[role.index]
        outside = buffer.place in (Place.STATE, Place.INPUT, Place.CONSTANT)
        late = any(at <= position for at in uses.written.get(role.index, ()))
        looped = any(loop.first <= position < loop.end for loop in plan.loops)
        return outside and not late and not looped and role.distance == (buffer.type.shape or (0,))[-1]

    for position, item in _gemms(plan):
        for role in _roles(item)[:2]:
            of, length = plan.buffers[role.index].type, role.distance
            if not isinstance(length, int) or not is_odd(length, of.dtype, tf32) or role.index in copies:
                continue
            if is_read(role, position) and _often(role.times, WORTH_COPY, False):
                copies[role.index] = len(buffers)
                buffers.append(PlanBuffer(len(buffers), f"arena{len(buffers)}", of, Place.ARENA))
    if not copies:
        return plan

    def change(item: Item, position: int) -> Item:
        if not isinstance(item, GemmItem) or item.in_panels:
            return item
        found = {r.name: copies[r.index] for r in _roles(item)[:2] if r.index in copies and is_read(r, position)}
        return replace(item, **found) if found else item  # pyright: ignore[reportArgumentType]

    first: list[Item] = []
    for index, copy in copies.items():
        of = plan.buffers[index].type
        first.append(KernelItem(copying(of.dtype), (index, copy), (of.size,), of.size))
    changed = (
        replace(launch, items=tuple(change(item, position) for item in launch.items))
        for position, launch in enumerate(plan.launches)
    )
    loops = tuple(replace(loop, first=loop.first + 1, end=loop.end + 1) for loop in plan.loops)
    launches = (Launch(tuple(first), "copy"), *changed)
    return replace(plan, launches=launches, buffers=tuple(buffers), commit=plan.commit + 1, loops=loops)


def copying(dtype: DType) -> Kernel:
    """A kernel that copies each element."""
    i, n, value = Var("i0", DType.int64), Var("n0", DType.int64), Var("v0", dtype)
    body = (Let(value, Load("b0", i, dtype)), Store("b1", i, value))
    buffers = (Buffer("b0", dtype, Access.READ), Buffer("b1", dtype, Access.WRITE))
    return Kernel("copy", buffers, ("n0",), n, (For("i0", int64(0), n, LoopKind.PARALLEL, body),))


__all__ = ["copying", "is_odd", "pad_rows"]
