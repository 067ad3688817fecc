"""The order of work: what needs nothing of each other runs together, and what writes parameters comes last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.node import Parameter
from graphc.lower.assembly import Work
from graphc.lower.loop import Steps
from graphc.lower.sources import is_apart, sources_of
from graphc.lower.views import is_view


def schedule(everything: Sequence[Work], parameters: Sequence[Parameter]) -> tuple[list[list[Work]], int]:
    """Groups of independent work, in order, and the number of the first group that writes state."""
    writers: dict[int, list[Work]] = {}
    for work in everything:
        for key in work.writes:
            writers.setdefault(id(key), []).append(work)
    state = {id(p) for p in parameters}
    readers: dict[int, list[Work]] = {}
    for work in everything:
        for key in work.reads:
            readers.setdefault(id(key), []).append(work)
    needs: dict[int, list[Work]] = {}
    for work in everything:
        found = [w for key in work.reads if id(key) not in state for w in writers.get(id(key), []) if w is not work]
        found += [r for key in work.writes if id(key) in state for r in readers.get(id(key), []) if r is not work]
        found += [r for key in work.overwrites for r in readers.get(id(key), []) if r is not work]
        needs[id(work)] = found
    late = {id(w) for w in everything if any(id(key) in state for key in w.writes)}
    ordered = _topological(everything, needs)
    for work in ordered:
        if any(id(n) in late for n in needs[id(work)]):
            late.add(id(work))
    for work in ordered:
        inside = [n for n in needs[id(work)] if (id(n) in late) == (id(work) in late)]
        work.level = 1 + max((n.level for n in inside), default=-1)
    _delay(ordered, needs, late)
    groups: list[list[Work]] = []
    commit = 0
    for phase in (False, True):
        mine = [w for w in ordered if (id(w) in late) is phase]
        commit = len(groups) if phase else 0
        for level in sorted({w.level for w in mine}):
            together = [w for w in mine if w.level == level]
            groups.extend(_loops_together([w for w in together if isinstance(w.what, Steps)]))
            kernels = [w for w in together if not isinstance(w.what, Steps)]
            groups.extend([kernels] if kernels else [])
    return groups, commit


def _delay(ordered: Sequence[Work], needs: Mapping[int, list[Work]], late: set[int]) -> None:
    """Move what is computed again to right before its first reader: it could run as soon as the forward pass."""
    maker = {id(node): work for work in ordered for node in work.nodes if not is_view(node)}
    again: set[int] = set()
    for work in ordered:
        read = [arg for node in work.nodes for arg in ([node] if is_view(node) else node.args)]
        apart = any(map(is_apart, read))
        fresh = [maker.get(id(source)) for arg in read if not is_apart(arg) for source in sources_of(arg)]
        makers = [other for other in fresh if other is not None and other is not work]
        if (apart or makers) and all(id(other) in again for other in makers):
            again.add(id(work))
    if not again:
        return
    readers: dict[int, list[Work]] = {}
    for work in ordered:
        for need in needs[id(work)]:
            readers.setdefault(id(need), []).append(work)
    for work in reversed(ordered):
        if id(work) in again:
            after = [r.level for r in readers.get(id(work), []) if (id(r) in late) == (id(work) in late)]
            work.level = max(min(after, default=work.level + 1) - 1, work.level)


def _loops_together(loops: Sequence[Work]) -> list[list[Work]]:
    """Loops of as many steps become one, whose launches do a step of each: two directions take two threads."""
    groups: dict[object, list[Work]] = {}
    for work in loops:
        assert isinstance(work.what, Steps)
        simple = work.what.steps is None and not work.what.plan.loops
        groups.setdefault(("count", work.what.count) if simple else id(work), []).append(work)
    return list(groups.values())


def _topological(work: Sequence[Work], needs: dict[int, list[Work]]) -> list[Work]:
    done: set[int] = set()
    order: list[Work] = []
    for root in work:
        stack = [(root, False)]
        while stack:
            item, ready = stack.pop()
            if ready:
                order.append(item)
            elif id(item) not in done:
                done.add(id(item))
                stack.append((item, True))
                stack.extend((n, False) for n in reversed(needs[id(item)]) if id(n) not in done)
    return order
