"""Decoder steps that look at a memory: in BahdanauCell the context enters the cell, in LuongCell it is added after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import graphc as gx
from graphc.errors import GraphError, ShapeError
from graphc.frontend import nest
from graphc.frontend.checked import Count
from graphc.frontend.config import user_line
from graphc.frontend.layers.attention import AttentionLayer, BahdanauAttention, LuongAttention
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.core import Dense
from graphc.frontend.layers.recurrent_cells import Cell, first_states
from graphc.ir.dims import Size
from graphc.ir.node import Node


class AttentiveCell(Cell):
    """What both share: a cell within, an attention layer, and the memory that comes as ``constants``."""

    def __init__(self, cell: Any, attention: AttentionLayer, return_attention_scores: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(cell, Layer) or not hasattr(cell, "state_size"):
            raise GraphError(
                f"{cell!r} is not a cell", at=user_line(), remedy=f"write {type(self).__name__}(layers.GRUCell(32))"
            )
        self.cell: Any = cell
        self.attention = attention
        self.return_attention_scores = return_attention_scores
        self.state_size = self.cell.state_size

    def get_initial_state(self, batch_size: Size, dtype: Any = None) -> list[Any]:
        """Those of the cell within.

        Args:
            batch_size: the number of rows.
            dtype: default the cell's.
        """
        return first_states(self.cell, batch_size, dtype or self.dtype)

    def _attend(self, query: Node, memory: Any) -> tuple[Node, Node]:
        """The context of a state, and the weights: (batch, features) and (batch, steps of the memory).

        A mask that travels with the memory arrives at the attention layer by itself.
        """
        if memory is None:
            raise GraphError(
                f"cell {self.name!r} has no memory to look at",
                at=user_line(),
                remedy="pass the encoder's outputs: layers.RNN(cell)(inputs, constants=memory)",
            )
        (values,) = nest.leaves(memory)
        context, weights = self.attention([gx.expand_dims(query, 1), values], return_attention_scores=True)
        return gx.squeeze(context, 1), gx.squeeze(weights, 1)


class BahdanauCell(AttentiveCell):
    """A decoder's step with additive attention: the context of the state before enters the cell.

    ::

        e_i = v . tanh(W_s s_prev + W_h h_i)      how well each step of the memory fits
        a = softmax(e)
        context = sum_i a_i h_i
        s = cell([x, context], s_prev)

    ``RNN(cell)(targets, initial_state=..., constants=memory)`` trains it with teacher forcing; the products of the
    memory are computed once for all steps. A mask that travels with the memory leaves its steps out.

    Args:
        cell: the cell within; its first state is compared with the memory.
        units: the size of the comparison; default that of the state.
        return_attention_scores: give the weights as a second output, to be drawn.
        kernel_initializer: first values of the weights of attention.

    Shapes:
        inputs: (batch, n), states: those of the cell, constants: (batch, steps, m). The output is the cell's: (batch,
        units), and with ``return_attention_scores`` the weights (batch, steps).
    Raises: GraphError: it is no cell; no memory is given.
    Source: Bahdanau, Cho and Bengio 2014, https://arxiv.org/abs/1409.0473, section 3.1

    >>> import graphc as gx
    >>> memory, x = gx.placeholder("memory", ("batch", "steps", 6)), gx.placeholder("x", ("batch", "time", 3))
    >>> gx.layers.RNN(BahdanauCell(gx.layers.GRUCell(4)), return_sequences=True)(x, constants=memory)
    <transpose: f32[batch, time, 4]>
    """

    def __init__(
        self,
        cell: Any,
        units: Count | None = None,
        return_attention_scores: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        size = units or nest.leaves(getattr(cell, "state_size", [1]))[0]
        attention = BahdanauAttention(size, kernel_initializer)
        super().__init__(cell, attention, return_attention_scores, **kwargs)
        self.output_state = None if return_attention_scores else getattr(cell, "output_state", None)

    def call(self, inputs: Node, states: Any, constants: Any = None) -> Any:
        context, weights = self._attend(nest.leaves(states)[0], constants)
        output, after = self.cell(gx.concatenate([inputs, context], axis=-1), states)
        return ((output, weights) if self.return_attention_scores else output), after


class LuongCell(AttentiveCell):
    """A decoder's step with multiplicative attention: the context of the new state is joined to it afterwards.

    ::

        s = cell(x, s_prev)
        a = softmax(score(s, h_i))                 "dot", "general" or "concat"
        context = sum_i a_i h_i
        output = tanh(W_c [context; s])            the attentional vector

    The attention is no part of what one step hands to the next, so that a loop in training computes it for all steps
    at once. With input feeding it is one: the attentional vector is a further state, the last one, zeros at first, and
    a step knows what was attended to before::

        s = cell([x, output_prev], s_prev)

    Args:
        cell: the cell within; its output is compared with the memory.
        score: how; see :class:`LuongAttention`.
        units: the size of the attentional vector; default that of the state.
        return_attention_scores: give the weights as a second output, to be drawn.
        kernel_initializer: first values of the weights.
        input_feeding: join the attentional vector of the step before to the inputs. States that are given to a loop
            (``RNN(cell)(x, initial_state=...)``) may leave it out; :meth:`get_initial_state` has it.

    Shapes:
        inputs: (batch, n), states: those of the cell, and with ``input_feeding`` (batch, units); constants: (batch,
        steps, m). The output: (batch, units), and with ``return_attention_scores`` the weights (batch, steps).
        Weights: those of the cell, of the attention, and readout/kernel (m + state, units), which is W_c transposed.
    Raises: GraphError: it is no cell; no memory is given; AxisError: another score; ShapeError: states are missing.
    Source: Luong, Pham and Manning 2015, https://arxiv.org/abs/1508.04025, section 3.1, equation 5; section 3.3 for
        input feeding.

    >>> import graphc as gx
    >>> memory, x = gx.placeholder("memory", ("batch", "steps", 4)), gx.placeholder("x", ("batch", "time", 3))
    >>> gx.layers.RNN(LuongCell(gx.layers.LSTMCell(4), "general"), return_sequences=True)(x, constants=memory)
    <transpose: f32[batch, time, 4]>
    """

    def __init__(
        self,
        cell: Any,
        score: str = "dot",
        units: Count | None = None,
        return_attention_scores: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        input_feeding: bool = False,
        **kwargs: Any,
    ) -> None:
        attention = LuongAttention(score, kernel_initializer=kernel_initializer)
        super().__init__(cell, attention, return_attention_scores, **kwargs)
        size = units or nest.leaves(self.state_size)[0]
        self.input_feeding = input_feeding
        if input_feeding:
            own = _listed(self.state_size)
            self.state_size = [*own, size]
            self.zero_states = 1
            self.output_state = None if return_attention_scores else len(nest.leaves(own))
        self.readout = Dense(
            size, activation="tanh", use_bias=False, kernel_initializer=kernel_initializer, name="readout"
        )

    def get_initial_state(self, batch_size: Size, dtype: Any = None) -> list[Any]:
        """Those of the cell within, and with input feeding an attentional vector of zeros.

        Args:
            batch_size: the number of rows.
            dtype: default the cell's.
        """
        own = super().get_initial_state(batch_size, dtype)
        return [*own, gx.zeros((batch_size, self.readout.units), dtype or self.dtype)] if self.input_feeding else own

    def call(self, inputs: Node, states: Any, constants: Any = None) -> Any:
        if self.input_feeding:
            wanted, given = len(nest.leaves(self.state_size)), nest.leaves(states)
            if len(given) != wanted:
                raise ShapeError(
                    f"cell {self.name!r} has {wanted} states, {len(given)} were given",
                    at=user_line(),
                    remedy="the last is the attentional vector before: cell.get_initial_state(batch_size)[-1]",
                )
            inputs, states = gx.concatenate([inputs, given[-1]], axis=-1), _listed(states)[:-1]
        output, after = self.cell(inputs, states)
        context, weights = self._attend(output, constants)
        vector = self.readout(gx.concatenate([context, output], axis=-1))
        if self.input_feeding:
            after = [*_listed(after), vector]
        return ((vector, weights) if self.return_attention_scores else vector), after


def _listed(states: Any) -> list[Any]:
    return list(cast("Sequence[Any]", states)) if isinstance(states, list | tuple) else [states]
