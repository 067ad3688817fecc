"""Puts tasks that wait for each other on lanes, each of which runs in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a task runs.

    Attributes:
        lane: its lane.
        waits: tasks of other lanes that the lane has to wait for first.
        awaited: does a task of another lane wait for this one?
    """

    lane: int
    waits: tuple[int, ...]
    awaited: bool


def assign_lanes(after: Sequence[Sequence[int]], count: int) -> list[Place]:
    """A place for each task, given the earlier tasks that each one waits for.

    A task follows the latest of them if nothing else has, or opens another lane, or takes the lane that has been idle
    longest. Waiting for a task means waiting for all that stands before it on its lane.

    >>> [place.lane for place in assign_lanes([[], [0], [0], [1, 2]], 4)]
    [0, 0, 1, 1]
    """
    last: list[int] = []  # the last task of each lane
    lanes: list[int] = []
    waits: list[tuple[int, ...]] = []
    known: list[dict[int, int]] = []  # for each lane: the last task of every lane that it has waited for
    reached: list[dict[int, int]] = []  # the same at each task
    for position, earlier in enumerate(after):
        lane = next((lanes[e] for e in sorted(earlier, reverse=True) if last[lanes[e]] == e), None)
        if lane is None:
            if len(last) < count:
                lane = len(last)
                last.append(-1)
                known.append({})
            else:
                lane = min(range(count), key=lambda k: last[k])
        needed: list[int] = []
        for e in sorted(earlier, reverse=True):
            if lanes[e] != lane and known[lane].get(lanes[e], -1) < e:
                needed.append(e)
                for other, task in {**reached[e], lanes[e]: e}.items():
                    known[lane][other] = max(known[lane].get(other, -1), task)
        lanes.append(lane)
        waits.append(tuple(needed))
        last[lane] = position
        reached.append(dict(known[lane]))
    awaited = {e for needed in waits for e in needed}
    return [Place(lane, needed, i in awaited) for i, (lane, needed) in enumerate(zip(lanes, waits, strict=True))]
