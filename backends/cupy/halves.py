"""Products of 16-bit floats, which a GPU multiplies as they are and sums in float32.

A plan widens operands to float32 first, as a CPU needs them. Where a product reads nothing but such copies, it reads
what they were made of instead, and copies that nobody else reads are not made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.ir.types import DType
from graphc.loops.kernel import Access, Apply, Expr, For, Kernel, Let, Load, Stmt, Store, Var
from graphc.lower.plan import GemmItem, Item, KernelItem, Place, Plan


def read_halves(plan: Plan) -> Plan:
    """The plan with products that read 16-bit floats where they can."""
    copies = _copies(plan)
    if not copies:
        return plan
    launches = [
        replace(launch, items=tuple(_narrowed(plan, item, copies) for item in launch.items)) for launch in plan.launches
    ]
    needed = {index for launch in launches for item in launch.items for index in _read_by(item)}
    needed |= {buffer.part.of for buffer in plan.buffers if buffer.part is not None}
    for position, launch in enumerate(launches):
        kept = tuple(item for item in launch.items if not _is_idle(item, copies, needed))
        launches[position] = replace(launch, items=kept)
    return replace(plan, launches=tuple(launches))


def _copies(plan: Plan) -> dict[int, int]:
    """By buffer of float32: the one of 16-bit floats that it is a copy of, whole and in the same order."""
    written: dict[int, list[Item]] = {}
    for launch in plan.launches:
        for item in launch.items:
            for index in _written_by(item):
                written.setdefault(index, []).append(item)
    found: dict[int, int] = {}
    for target, items in written.items():
        item = items[0]
        if len(items) > 1 or not isinstance(item, KernelItem) or plan.buffers[target].place is not Place.ARENA:
            continue
        if len(item.buffers) == 2 and _only_widens(item.kernel):
            source = item.buffers[0]
            whole = plan.buffers[source].type.size == plan.buffers[target].type.size
            steady = source not in written or len(written[source]) == 1
            if whole and steady and plan.buffers[source].part is None:
                found[target] = source
    return found


def _only_widens(kernel: Kernel) -> bool:
    """Does a kernel do nothing but copy 16-bit floats to float32, each to the same place?"""
    source, target = kernel.buffers
    if not source.dtype.is_half or target.dtype is not DType.float32 or target.access is not Access.WRITE:
        return False
    values: dict[str, Expr] = {}
    stores: list[Store] = []
    for statement in _innermost(kernel.body):
        if isinstance(statement, Let):
            values[statement.var.name] = statement.value
        elif isinstance(statement, Store):
            stores.append(statement)
        else:
            return False
    if len(stores) != 1:
        return False
    value = stores[0].value
    while isinstance(value, Var) and value.name in values:
        value = values[value.name]
    match value:
        case Apply(fn="cast", args=(inner,)):
            while isinstance(inner, Var) and inner.name in values:
                inner = values[inner.name]
            return isinstance(inner, Load) and inner.buffer == source.name and inner.index == stores[0].index
        case _:
            return False


def _innermost(statements: tuple[Stmt, ...]) -> Iterator[Stmt]:
    for statement in statements:
        if isinstance(statement, For):
            yield from _innermost(statement.body)
        else:
            yield statement


def _narrowed(plan: Plan, item: Item, copies: dict[int, int]) -> Item:
    if not isinstance(item, GemmItem) or item.a not in copies or item.b not in copies:
        return item
    a, b = copies[item.a], copies[item.b]
    dtype = plan.buffers[a].type.dtype
    return item if dtype is not plan.buffers[b].type.dtype else replace(item, a=a, b=b, dtype=dtype)


def _is_idle(item: Item, copies: dict[int, int], needed: set[int]) -> bool:
    return isinstance(item, KernelItem) and item.buffers[-1] in copies and item.buffers[-1] not in needed


def _read_by(item: Item) -> set[int]:
    if not isinstance(item, KernelItem):
        return {item.a, item.b}
    pairs = zip(item.buffers, item.kernel.buffers, strict=True)
    return {index for index, buffer in pairs if buffer.access is not Access.WRITE}


def _written_by(item: Item) -> set[int]:
    if not isinstance(item, KernelItem):
        return {item.c}
    pairs = zip(item.buffers, item.kernel.buffers, strict=True)
    return {index for index, buffer in pairs if buffer.access is not Access.READ}
