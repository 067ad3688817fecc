"""Which tasks have touched which memory, as far as later ones must know."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

Span = tuple[int, int]
"""Where bytes begin and end."""
NOBODY = -1


@dataclass(slots=True)
class _Piece:
    """Bytes up to ``end`` that the same tasks have touched: who wrote them last, and who has read them since."""

    end: int
    writer: int = NOBODY
    readers: list[int] = field(default_factory=list[int])


class Touched:
    """Memory in pieces, each with the tasks that whoever touches it next has to wait for.

    >>> touched = Touched()
    >>> touched.add(0, [], [(0, 8)])
    >>> touched.add(1, [(0, 4)], [(8, 12)])
    >>> sorted(touched.by([(0, 8)], [])), sorted(touched.by([], [(2, 9)]))
    ([0], [0, 1])
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._pieces: list[_Piece] = []

    def by(self, reads: Iterable[Span], writes: Iterable[Span]) -> set[int]:
        """Earlier tasks that write what is read here, or touch what is written here."""
        found: set[int] = set()
        for start, end in reads:
            found.update(piece.writer for piece in self._meeting(start, end))
        for start, end in writes:
            for piece in self._meeting(start, end):
                found.add(piece.writer)
                found.update(piece.readers)
        found.discard(NOBODY)
        return found

    def add(self, task: int, reads: Iterable[Span], writes: Iterable[Span]) -> None:
        """Note a task, which has waited for those that :meth:`by` named."""
        for start, end in writes:
            if start < end:
                first, last = self._cut(start), self._cut(end)
                self._starts[first:last] = [start]
                self._pieces[first:last] = [_Piece(end, task)]
        for start, end in reads:
            if start < end:
                self._read(task, start, end)

    def _meeting(self, start: int, end: int) -> list[_Piece]:
        if start >= end:
            return []
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._pieces[first].end <= start:
            first += 1
        return self._pieces[first : bisect_left(self._starts, end, first)]

    def _cut(self, at: int) -> int:
        """Let a piece begin here if one reaches over this place: the number of the first piece from here on."""
        number = bisect_left(self._starts, at)
        if number and self._pieces[number - 1].end > at:
            before = self._pieces[number - 1]
            self._starts.insert(number, at)
            self._pieces.insert(number, _Piece(before.end, before.writer, list(before.readers)))
            before.end = at
        return number

    def _read(self, task: int, start: int, end: int) -> None:
        number = self._cut(start)
        self._cut(end)
        while start < end:
            begins = self._starts[number] if number < len(self._starts) else end
            if begins > start:  # nobody has touched what lies before it
                self._starts.insert(number, start)
                self._pieces.insert(number, _Piece(min(begins, end), NOBODY, [task]))
            else:
                self._pieces[number].readers.append(task)
            start = self._pieces[number].end
            number += 1
