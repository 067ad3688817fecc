"""Many steps of a program in one call, each on one item of stacked arrays."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.location import user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_UNDER_WAY = 16
"""Steps that may have been started before the results of the first of them are read."""


class Steppable(Protocol):
    """What is asked of a program."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @property
    def runs_ahead(self) -> bool: ...
    def place(self, arrays: Sequence[Array]) -> Sequence[Any] | None: ...
    def start(self, arrays: Sequence[Any]) -> Sequence[Array]: ...


def run_steps(program: Steppable, arrays: Sequence[Any]) -> list[Array]:
    """See :meth:`graphc.program.Program.steps`."""
    counts = [array.shape[0] if getattr(array, "shape", ()) else -1 for array in arrays]
    names = program.input_names
    if not arrays or len(arrays) != len(names) or len(set(counts)) > 1 or counts[0] < 1:
        shown = ", ".join("no array of steps" if count < 0 else f"{count} steps" for count in counts) or "nothing"
        raise ShapeError(
            f"the program takes {len(names)} arrays of equally many steps, got {shown}",
            at=user_line(),
            remedy="stack the arrays of all steps along a new first axis, for each of: " + ", ".join(names),
        )
    if program.runs_ahead and all(isinstance(array, np.ndarray) for array in arrays):
        arrays = program.place(arrays) or arrays
    under_way: deque[Sequence[Array]] = deque()
    read: list[tuple[Array, ...]] = []
    for step in range(counts[0]):
        under_way.append(program.start([array[step] for array in arrays]))
        if not program.runs_ahead or len(under_way) == MOST_UNDER_WAY:
            read.append(tuple(under_way.popleft()))
    read += [tuple(results) for results in under_way]
    return [np.stack(column) for column in zip(*read, strict=True)]
