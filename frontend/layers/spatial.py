"""What layers over images, sequences and volumes share: where channels stand, and arguments for each axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.arguments import is_whole
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node

FORMATS = ("channels_last", "channels_first")


def format_of(data_format: str | None) -> str:
    """The name of a layout; None: channels last.

    Raises:
        AxisError: there is no such layout.
    """
    if data_format is None:
        return FORMATS[0]
    if data_format not in FORMATS:
        raise AxisError(
            f"no data_format is called {data_format!r}", at=user_line(), remedy=f"use {' or '.join(FORMATS)}"
        )
    return data_format


def for_axes(name: str, given: Any, count: int, least: int = 1) -> tuple[int, ...]:
    """One whole number for each axis, from one for all of them or a list.

    Raises:
        AxisError: these are not as many whole numbers from ``least`` on.
    """
    several = (
        isinstance(given, Iterable) and not isinstance(given, str) and getattr(cast("Any", given), "shape", None) != ()
    )
    values = tuple(cast("Iterable[Any]", given)) if several else cast("tuple[Any, ...]", (given,) * count)
    if len(values) != count or not all(is_whole(value, least) for value in values):
        raise AxisError(
            f"{name} is {given!r}", at=user_line(), remedy=f"give a whole number from {least} on, or {count} of them"
        )
    return tuple(int(value) for value in values)


class SpatialLayer(Layer):
    """A layer whose input has a batch, ``rank`` axes of places, and channels, which stand where ``data_format`` says.

    Inside, channels are last; elsewhere the axes are named anew, which moves nothing by itself.
    """

    rank: ClassVar[int] = 2

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = format_of(data_format)

    def call(self, inputs: Node) -> Node:
        return self.from_last(self.transform(self.to_last(inputs)))

    def transform(self, x: Node) -> Node:
        """The layer's function, with the channels last."""
        raise NotImplementedError(f"{type(self).__name__} does not define transform")

    def to_last(self, inputs: Node) -> Node:
        """The inputs with their channels last.

        Raises:
            ShapeError: they have not as many axes as the layer takes.
        """
        self._check_rank(inputs.ndim)
        if self.data_format == "channels_last":
            return inputs
        return gx.transpose(inputs, (0, *range(2, inputs.ndim), 1))

    def from_last(self, outputs: Node) -> Node:
        """Outputs whose channels are last, as the layer gives them."""
        if self.data_format == "channels_last":
            return outputs
        return gx.transpose(outputs, (0, outputs.ndim - 1, *range(1, outputs.ndim - 1)))

    def channels_of(self, shape: Sequence[int | None]) -> int:
        """The number of channels in the shape of an input.

        Raises:
            ShapeError: it is not known, or the input has not as many axes as the layer takes.
        """
        self._check_rank(len(shape))
        channels = shape[-1 if self.data_format == "channels_last" else 1]
        if channels is None:
            raise ShapeError(
                f"layer {self.name!r} needs the number of channels, its input has shape {tuple(shape)}",
                at=user_line(),
                remedy=f"give it in Input; channels are {self.data_format.replace('channels_', '')}",
            )
        return channels

    def _check_rank(self, rank: int) -> None:
        if rank != self.rank + 2:
            places = ", ".join(("length",) if self.rank == 1 else ("depth", "height", "width")[-self.rank :])
            order = f"batch, {places}, channels" if self.data_format == FORMATS[0] else f"batch, channels, {places}"
            raise ShapeError(
                f"layer {self.name!r} takes {self.rank + 2} axes ({order}), its input has {rank}",
                at=user_line(),
                remedy="give it an axis of channels, such as Input((28, 28, 1)) and x[..., None]"
                if rank == self.rank + 1
                else "add or join axes with layers.Reshape",
            )
