"""Memory: where each intermediate lies in the arena.

Buffers live from the launch that first writes them to the last one that uses them. For one combination of sizes they
are placed largest first at the lowest offset that no buffer alive at the same time covers (greedy by size, as in
Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir.dims import evaluate
from graphc.lower.plan import ArenaLayout, Item, KernelItem, Place, Plan

ALIGNMENT = 64


def lifetimes(plan: Plan) -> dict[int, tuple[int, int]]:
    """First and last launch of each arena buffer, by its index.

    What is also used outside of a loop, or read or written piece by piece as the loop goes on, lives through all of it.
    """
    uses: dict[int, list[int]] = {}
    through: dict[int, set[int]] = {}  # the loops that move slices of a buffer
    asked = {
        number: [index for index in (loop.going, loop.steps) if index is not None]
        for number, loop in enumerate(plan.loops)
    }
    for step, launch in enumerate(plan.launches):
        ending = [index for number, loop in enumerate(plan.loops) if loop.end - 1 == step for index in asked[number]]
        for indices in (ending, *(item.buffers for item in launch.items)):
            for index in indices:
                buffer = plan.buffers[index]
                moving: set[int] = set()
                while buffer.part is not None:
                    moving |= {buffer.part.loop} if buffer.part.loop is not None else set()
                    buffer = plan.buffers[buffer.part.of]
                if buffer.place is Place.ARENA:
                    uses.setdefault(buffer.index, []).append(step)
                    through.setdefault(buffer.index, set()).update(moving)
    found: dict[int, tuple[int, int]] = {}
    for index, steps in uses.items():
        first, last = min(steps), max(steps)
        for number, loop in reversed(list(enumerate(plan.loops))):
            meets = first < loop.end and loop.first <= last
            if meets and (number in through[index] or first < loop.first or last >= loop.end):
                first, last = min(first, loop.first), max(last, loop.end - 1)
        found[index] = (first, last)
    return found


def layout(plan: Plan, dims: Mapping[str, int]) -> ArenaLayout:
    """Place every arena buffer for these sizes."""
    alive = lifetimes(plan)
    sizes = {index: _aligned(plan.buffers[index].type.nbytes(dict(dims))) for index in alive}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    offsets: dict[int, int] = {}
    for index in sorted(alive, key=lambda i: (-sizes[i], alive[i], i)):
        first, last = alive[index]
        offset = 0
        for start, end, begin, final in placed:
            if begin <= last and first <= final:
                if start >= offset + sizes[index]:
                    break
                offset = max(offset, end)
        offsets[index] = offset
        placed.append((offset, offset + sizes[index], first, last))
        placed.sort()
    peak = max((end for _, end, _, _ in placed), default=0)
    live = [0] * len(plan.launches)
    for index, (first, last) in alive.items():
        for step in range(first, last + 1):
            live[step] += sizes[index]
    return ArenaLayout(offsets, peak, sum(sizes.values()), max(live, default=0))


def _aligned(size: int) -> int:
    return max(ALIGNMENT, (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


def item_bytes(plan: Plan, item: Item, dims: Mapping[str, int]) -> int:
    """The bytes that an item reads and writes, each buffer counted once (twice when updated in place)."""
    total = 0
    if isinstance(item, KernelItem):
        for index, buffer in zip(item.buffers, item.kernel.buffers, strict=True):
            factor = 2 if buffer.access.value == "update" else 1
            size = plan.buffers[index].type.size
            if item.written is not None and buffer.access.value == "write":
                size = item.written
            total += factor * evaluate(size, dims) * buffer.dtype.itemsize
        return total
    return sum(plan.buffers[index].type.nbytes(dict(dims)) for index in item.buffers)
