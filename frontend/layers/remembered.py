"""What attention keeps of steps that it has seen, and where the steps stand that look at it."""

from __future__ import annotations

from typing import NamedTuple

import graphc as gx
from graphc.ir.dims import Size
from graphc.ir.node import Node


class Remembered(NamedTuple):
    """Keys and values in heads: (batch, heads, steps, size).

    Attributes:
        keys: turned by their positions where the layer does so.
        values: as they are.
    """

    keys: Node
    values: Node

    def widened(self, more: Size) -> Remembered:
        """With room for so many steps more."""
        return Remembered(*(gx.pad(x, (0, 0, 0, 0), (0, 0, more, 0)) for x in self))

    def with_step(self, step: Remembered, at: Node) -> Remembered:
        """With another step's keys and values at a place; in a loop they are written in place."""
        return Remembered(*(gx.update_slice(x, new, at, axis=2) for x, new in zip(self, step, strict=True)))


class Places(NamedTuple):
    """Where tokens stand that are read or written, and what they may look at.

    Attributes:
        positions: of the tokens, (time,) or (batch, time).
        seen: which of the steps that are looked at count, (batch, 1, steps); None: all.
        seen_positions: theirs, (steps,) or (batch, steps).
        slot: where keys and values of the first token go, a scalar.
    """

    positions: Node
    seen: Node | None = None
    seen_positions: Node | None = None
    slot: Node | None = None


class Seen(NamedTuple):
    """A memory as a layer looks at it.

    Attributes:
        held: its keys and values.
        mask: (batch, 1, steps), which steps count; None: all.
    """

    held: Remembered
    mask: Node | None = None
