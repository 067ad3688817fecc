"""Layers around layers: Bidirectional and TimeDistributed."""

from __future__ import annotations

from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend import nest
from graphc.frontend.arguments import shown
from graphc.frontend.config import Configurable, user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node

_MERGES = ("concat", "sum", "mul", "ave", None)


class Bidirectional(Layer):
    """A recurrent layer over the steps in both directions, so that each output knows what comes before and after.

    The layer given is a pattern: two layers are made of its configuration, ``forward_NAME`` and ``backward_NAME``.

    Args:
        layer: a recurrent layer.
        merge_mode: how the outputs of both are joined: ``"concat"`` (twice as many features), ``"sum"``, ``"mul"``,
            ``"ave"``; or None to return both.
        weights: first values of the weights, those of the forward layer first.
        backward_layer: the layer for the way back, if it is another one; it says ``go_backwards=True`` itself.

    Shapes:
        sequences: (batch, time, n), mask: (batch, time). The result: that of the layer, of twice as many features where
        they are concatenated; then the states of the forward and those of the backward layer, with ``return_state``.
    Raises: GraphError: it is no recurrent layer, or both go the same way.
    Source: Schuster and Paliwal 1997, Bidirectional recurrent neural networks; Keras ``Bidirectional``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 3))
    >>> gx.layers.Bidirectional(gx.layers.LSTM(4, return_sequences=True))(x)
    <concatenate: f32[batch, time, 8]>
    """

    supports_masking = True

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, Layer) or not hasattr(layer, "go_backwards"):
            raise _not_recurrent(layer)
        if merge_mode not in _MERGES:
            raise AxisError(
                f"no merge_mode is called {merge_mode!r}", at=user_line(), remedy="use concat, sum, mul, ave or None"
            )
        recurrent = cast("Any", layer)
        self.merge_mode = merge_mode
        self.forward_layer = copy_layer(recurrent, name=f"forward_{layer.name.removeprefix('forward_')}")
        if backward_layer is None:
            name = f"backward_{layer.name.removeprefix('backward_')}"
            backward_layer = copy_layer(recurrent, name=name, go_backwards=not recurrent.go_backwards)
        if not isinstance(backward_layer, Layer) or not hasattr(backward_layer, "go_backwards"):
            raise _not_recurrent(backward_layer)
        self.backward_layer = cast("Any", backward_layer)
        for name in ("return_sequences", "return_state", "stateful"):
            if getattr(self.forward_layer, name) != getattr(self.backward_layer, name):
                raise GraphError(
                    f"forward and backward layer of Bidirectional differ in {name}",
                    at=user_line(),
                    remedy="give both the same",
                )
        if self.forward_layer.go_backwards == self.backward_layer.go_backwards:
            raise GraphError(
                "forward and backward layer of Bidirectional go the same way",
                at=user_line(),
                remedy="make the backward layer with go_backwards=True",
            )
        self.return_sequences: bool = recurrent.return_sequences
        self.return_state: bool = recurrent.return_state
        for part in (self.forward_layer, self.backward_layer):
            part.zero_output_for_mask = self.return_sequences
        self._first = weights

    def reset_state(self) -> None:
        """Set the states of stateful layers to zeros."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, without first values: files keep the weights themselves."""
        return {key: value for key, value in super().get_config().items() if key != "weights"}

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the inputs where all steps are returned; states have none."""
        mask = next((leaf for leaf in nest.leaves(previous_mask) if leaf is not None), None)
        kept = None
        if mask is not None and self.return_sequences:
            kept = self.forward_layer.fitting_mask(mask, inputs)
        outputs = [kept] * (1 if self.merge_mode else 2)
        states = 2 * len(nest.leaves(self.forward_layer.cell.state_size)) if self.return_state else 0
        return [*outputs, *[None] * states]

    def call(self, sequences: Node, initial_state: Any = None, mask: Any = None, lengths: Node | None = None) -> Any:
        states = [None, None]
        if initial_state is not None:
            half = len(initial_state) // 2
            states = [initial_state[:half], initial_state[half:]]
        given = {"mask": mask, "lengths": lengths}
        given = {name: node for name, node in given.items() if node is not None}
        found = self.forward_layer(sequences, initial_state=states[0], **given)
        back = self.backward_layer(sequences, initial_state=states[1], **given)
        if self._first is not None:
            first, self._first = self._first, None
            self.set_weights(first)
        last: tuple[Any, ...] = ()
        if self.return_state:
            found, back, last = found[0], back[0], (*found[1:], *back[1:])
        if self.return_sequences:
            back = gx.flip(back, 1)
        outputs = _merge(found, back, self.merge_mode)
        if not last:
            return outputs
        return (*outputs, *last) if self.merge_mode is None else (outputs, *last)


def _merge(forward: Node, backward: Node, mode: str | None) -> Any:
    match mode:
        case "concat":
            return gx.concatenate([forward, backward], axis=-1)
        case "sum":
            return forward + backward
        case "mul":
            return forward * backward
        case "ave":
            return (forward + backward) / 2
        case _:
            return (forward, backward)


def copy_layer(layer: Any, **changes: Any) -> Any:
    """A new layer of the same configuration, with others of its own within; it shares no weights.

    Args:
        layer: a layer, built or not.
        changes: arguments of the constructor that are others.
    """
    config: dict[str, Any] = {key: _copied(value) for key, value in layer.get_config().items()}
    return layer.from_config({**config, **changes})


def _copied(value: Any) -> Any:
    if isinstance(value, Configurable) and value.keeps_identity:
        return copy_layer(value)
    if isinstance(value, list | tuple | dict):
        return nest.map_leaves(_copied, value)
    return value


class TimeDistributed(Layer):
    """A layer for single samples at every step of sequences, with the same weights at all steps.

    Steps are treated as if they were rows of one large batch: a Dense layer does the same without this, and a
    convolution sees one picture of a film at a time. A normalization over the batch takes all steps together.

    Args:
        layer: a layer for one step.

    Shapes: inputs: (batch, time, ...); the result: (batch, time, *rest of the layer's result).
    Raises: GraphError: it is no layer; ShapeError: the inputs have fewer than three axes.
    Source: Keras ``TimeDistributed``.

    >>> import graphc as gx
    >>> gx.layers.TimeDistributed(gx.layers.Flatten())(gx.placeholder("x", ("batch", "time", 8, 8)))
    <reshape: f32[batch, time, 64]>
    """

    supports_masking = True

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            raise GraphError(
                f"TimeDistributed takes a layer, not {layer!r}",
                at=user_line(),
                remedy="write layers.TimeDistributed(layers.Dense(8))",
            )
        self.layer = layer

    def call(self, inputs: Node) -> Any:
        if inputs.ndim < 3:
            raise ShapeError(
                f"layer {self.name!r} takes at least three axes (batch, time, ...), its input has {inputs.ndim}",
                details=(f"inputs: {inputs.type}",),
                at=user_line(),
                remedy="add an axis: layers.Reshape((-1, 1))",
            )
        batch, time = inputs.shape[:2]
        rows = gx.reshape(inputs, (batch * time, *inputs.shape[2:]))
        outputs = self.layer(rows)
        return nest.map_leaves(lambda leaf: gx.reshape(leaf, (batch, time, *leaf.shape[1:])), outputs)


def _not_recurrent(given: Any) -> GraphError:
    return GraphError(
        f"Bidirectional takes a recurrent layer, not {shown(given)}",
        at=user_line(),
        remedy="write layers.Bidirectional(layers.LSTM(32))",
    )
