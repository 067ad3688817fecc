"""One vector for a whole sequence."""

from __future__ import annotations

from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node


class SequencePooling(Layer):
    """The first step of a sequence, in which a model collects what it finds, or the mean over the steps that count.

    Args:
        kind: ``"first"`` or ``"mean"``.

    Shapes: x: (batch, time, n); the result: (batch, n).
    Raises: AxisError: there is no such kind.
    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3

    >>> import graphc as gx
    >>> SequencePooling("mean")(gx.placeholder("x", ("batch", "time", 8)))
    <divide: f32[batch, 8]>
    """

    supports_masking = True

    def __init__(self, kind: str = "first", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kind not in ("first", "mean"):
            raise AxisError(f"no pooling is called {kind!r}", at=user_line(), remedy="use first or mean")
        self.kind = kind

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """None: no steps are left."""
        return None

    def call(self, inputs: Node, mask: Node | None = None) -> Node:
        if self.kind == "first":
            return inputs[:, 0]
        if mask is None:
            return gx.sum(inputs, axis=1) / gx.size_of(inputs.shape[1], inputs.dtype)
        counted = gx.expand_dims(gx.cast(mask, inputs.dtype), -1)
        return gx.sum(inputs * counted, axis=1) / gx.maximum(gx.sum(counted, axis=1), 1.0)
