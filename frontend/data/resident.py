"""Batches of arrays that lie on the device where a program runs: the host gathers nothing and copies nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.frontend.data.batches import ArrayBatches, Batches

if TYPE_CHECKING:
    from graphc.frontend.programs import Step


class ResidentBatches:
    """The same batches in the same order as those of arrays on the host.

    Each epoch brings all rows into its order at once, and a batch is a slice of that.

    Args:
        batches: of the arrays on the host.
        placed: the arrays on the device.
        gathers: for each of them the program that takes rows.
    """

    taken = 0

    def __init__(self, batches: ArrayBatches, placed: Sequence[Any], gathers: Sequence[Any]) -> None:
        self._batches = batches
        self._placed = list(placed)
        self._gathers = list(gathers)
        self._ordered: list[Any] | None = None
        self.count = batches.count

    def seek(self, taken: int) -> None:
        """Every epoch begins anew: there is nothing to find."""

    def batch(self, number: int, step: int) -> list[Any]:
        """One batch of an epoch, on the host."""
        return self._batches.batch(number, step)

    def epoch(self, number: int, start: int = 0) -> Generator[list[Any]]:
        arrays, cuts = self._placed, self._batches.cuts[start:]
        rows = self._batches.rows(number)
        if rows is not None and cuts:
            if self._ordered is None:
                self._ordered = [gather.call([array, rows])[0] for gather, array in self._with_gathers()]
            else:
                for (gather, array), out in zip(self._with_gathers(), self._ordered, strict=True):
                    gather.call([array, rows], [out])
            arrays = self._ordered
        return ([array[first:stop] for array in arrays] for first, stop in cuts)

    def _with_gathers(self) -> list[tuple[Any, Any]]:
        return list(zip(self._gathers, self._placed, strict=True))


def on_device(batches: Batches, step: Step, gather: Callable[[tuple[int, ...], np.dtype[Any]], Any]) -> Batches:
    """The same batches from arrays on the device where the step runs, if it has one with room for them.

    Args:
        batches: anything that ``fit`` walks through.
        step: what runs on them.
        gather: gives the program ``(array, rows) -> array[rows]`` for samples of a shape and a type.
    """
    if not isinstance(batches, ArrayBatches) or batches.cuts[-1][1] < batches.samples:
        return batches
    placed = step.program(batches.arrays).place(batches.arrays)
    if placed is None:
        return batches
    return ResidentBatches(batches, placed, [gather(array.shape[1:], array.dtype) for array in batches.arrays])
