"""SimpleRNN, LSTM, GRU: loops of their cells."""

from __future__ import annotations

from typing import Any

from graphc.frontend.checked import Count, Part
from graphc.frontend.layers.recurrent import RNN
from graphc.frontend.layers.recurrent_cells import GatedCell, GRUCell, LSTMCell, SimpleRNNCell


class Recurrent(RNN):
    """A loop of one of graphc's cells. ``units`` and the arguments of the cell are found at ``layer.cell``."""

    cell: GatedCell

    @property
    def units(self) -> int:
        """The size of the output."""
        return self.cell.units


def _of_cell(options: dict[str, Any]) -> dict[str, Any]:
    """Of a layer's options those that its cell has, too."""
    return {key: options[key] for key in ("dtype", "trainable") if key in options}


class SimpleRNN(Recurrent):
    """A simple recurrent net: ``h = activation(x @ kernel + bias + h_prev @ recurrent_kernel)`` at each step.

    It forgets quickly: a gradient passes one product and one slope of the activation for each step. See LSTM and GRU.

    Args:
        units: the size of the output and of each state.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: first values.
        kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer: penalties on weights and on
            the outputs, added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: what the weights go through in every step of training.
        dropout, recurrent_dropout: in training, the part of the inputs and of the state that is dropped before the
            products: the same places at all steps of a sequence.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: see :class:`RNN`.

    Shapes:
        sequences: (batch, time, n); the result: (batch, units) or (batch, time, units), then the state.
        Weights: kernel (n, units), recurrent_kernel (units, units), bias (units,).
    Raises: ShapeError: sequences of fewer than three axes, or of another number of features than the weights have.
    Source: Elman 1990, Finding structure in time; Keras ``SimpleRNN``.

    >>> import graphc as gx
    >>> SimpleRNN(4)(gx.placeholder("x", ("batch", "time", 3)))
    <part: f32[batch, 4]>
    """

    def __init__(
        self,
        units: Count,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: Part = 0.0,
        recurrent_dropout: Part = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = SimpleRNNCell(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **_of_cell(kwargs),
        )
        super().__init__(
            cell,
            return_sequences,
            return_state,
            go_backwards,
            stateful,
            unroll,
            zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )


class LSTM(Recurrent):
    """Long short-term memory: a recurrent net whose gates decide what is kept, written and shown.

    See :class:`LSTMCell` for the formulas, the order of the gates (i, f, c, o), and the conventions of other texts.

    Args:
        units: the size of the output and of each state.
        activation: a name or a function of a node.
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: first values.
        unit_forget_bias: let the forget gate's bias begin at 1, so that memory lasts from the start.
        kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer: penalties on weights and on
            the outputs, added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: what the weights go through in every step of training.
        dropout, recurrent_dropout: in training, the part of the inputs and of the state that is dropped before the
            products: the same places at all steps of a sequence.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: see :class:`RNN`.

    Shapes:
        sequences: (batch, time, n); the result: (batch, units) or (batch, time, units), then the states h and c.
        Weights: kernel (n, 4 * units), recurrent_kernel (units, 4 * units), bias (4 * units,).
    Raises: ShapeError: sequences of fewer than three axes, or of another number of features than the weights have.
    Source: Hochreiter and Schmidhuber 1997, Long short-term memory; Keras ``LSTM``.

    >>> import graphc as gx
    >>> y, h, c = LSTM(4, return_sequences=True, return_state=True)(gx.placeholder("x", ("batch", "time", 3)))
    >>> y, h, c
    (<transpose: f32[batch, time, 4]>, <part: f32[batch, 4]>, <part: f32[batch, 4]>)
    """

    def __init__(
        self,
        units: Count,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: Part = 0.0,
        recurrent_dropout: Part = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = LSTMCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **_of_cell(kwargs),
        )
        super().__init__(
            cell,
            return_sequences,
            return_state,
            go_backwards,
            stateful,
            unroll,
            zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )


class GRU(Recurrent):
    """A gated recurrent unit: one state, and two gates, for what is kept and for what the candidate sees.

    See :class:`GRUCell` for the formulas, the order of the gates (z, r, h), and the conventions of other texts: where
    they write ``h = (1 - z) * h_prev + z * candidate``, ours is ``h = z * h_prev + (1 - z) * candidate``.

    Args:
        units: the size of the output and of each state.
        activation: a name or a function of a node.
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: first values.
        kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer: penalties on weights and on
            the outputs, added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: what the weights go through in every step of training.
        dropout, recurrent_dropout: in training, the part of the inputs and of the state that is dropped before the
            products: the same places at all steps of a sequence.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: see :class:`RNN`.
        reset_after: whether the reset gate acts on the recurrent product, which has a bias of its own then, or before.

    Shapes:
        sequences: (batch, time, n); the result: (batch, units) or (batch, time, units), then the state.
        Weights: kernel (n, 3 * units), recurrent_kernel (units, 3 * units), bias (2, 3 * units), or
        (3 * units,) without ``reset_after``.
    Raises: ShapeError: sequences of fewer than three axes, or of another number of features than the weights have.
    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078; Keras ``GRU``.

    >>> import graphc as gx
    >>> layer = GRU(4, return_sequences=True)
    >>> y = layer(gx.placeholder("x", ("batch", "time", 3)))
    >>> [w.shape for w in layer.weights]
    [(3, 12), (4, 12), (2, 12)]
    """

    def __init__(
        self,
        units: Count,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: Part = 0.0,
        recurrent_dropout: Part = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = GRUCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            reset_after=reset_after,
            **_of_cell(kwargs),
        )
        super().__init__(
            cell,
            return_sequences,
            return_state,
            go_backwards,
            stateful,
            unroll,
            zero_output_for_mask,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
