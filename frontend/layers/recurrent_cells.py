"""The steps of recurrent layers: SimpleRNNCell, LSTMCell, GRUCell, and several of them one above the other.

A cell takes what one step brings and the state before it, and gives its output and the state after it. ``RNN`` makes a
loop of one; by itself a cell is a layer like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend import activations, constraints, initializers, nest, regularizers
from graphc.frontend.arguments import shown
from graphc.frontend.checked import Count, Part
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.dims import Size
from graphc.ir.node import Node, Parameter

States = Any
"""The states of a cell: a list of nodes, or of such lists; or a single node."""


class Cell(Layer):
    """A step of a loop. Subclass it for a cell of your own, or give any layer a ``state_size``.

    ``call(inputs, states)`` returns the output and the states after the step, in the form of ``states``.

    Attributes:
        state_size: the size of each state; lists of sizes where states are lists.
        output_state: which of the states, counted flat, is the output too; None if none is.
        zero_states: how many of the last states are zeros at first where only the others are given to a loop.
    """

    state_size: Any
    output_state: int | None = None
    zero_states: int = 0

    def get_initial_state(self, batch_size: Size, dtype: Any = None) -> list[Any]:
        """Zeros for each state.

        Args:
            batch_size: the number of rows.
            dtype: default the cell's.
        """
        return nest.map_leaves(lambda size: gx.zeros((batch_size, size), dtype or self.dtype), list(self.state_size))


def first_states(cell: Any, batch_size: Size, dtype: Any) -> list[Any]:
    """A cell's first states: those that it makes, else zeros of its ``state_size``."""
    dtype = getattr(cell, "_dtype", None) or dtype
    if isinstance(cell, Cell):
        return cell.get_initial_state(batch_size, dtype)
    if hasattr(cell, "get_initial_state"):
        made = cell.get_initial_state(batch_size=batch_size)
    else:
        made = nest.map_leaves(lambda size: gx.zeros((batch_size, size), dtype), cell.state_size)
    return list(made) if isinstance(made, list | tuple) else [made]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


class GatedCell(Cell):
    """What the cells share: their weights, and dropout that is the same at all steps.

    Attributes:
        gates: how many blocks of ``units`` columns the weights have.
        output_size: the size of the output.
    """

    gates = 1
    output_state = 0
    kernel: Parameter
    recurrent_kernel: Parameter
    bias: Parameter | None

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
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: Part = 0.0,
        recurrent_dropout: Part = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = float(dropout)
        self.recurrent_dropout = float(recurrent_dropout)
        self.seed = seed
        self.state_size = [units]
        self.output_size = units

    def build(self, input_shape: Any, states_shape: Any = None) -> None:
        columns = self.gates * self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], columns),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, columns),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self._bias_shape(),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    def call(self, inputs: Node, states: States) -> tuple[Node, States]:
        listed = isinstance(states, list | tuple)
        given: list[Node] = list(cast("Sequence[Node]", states)) if listed else [states]
        if len(given) != len(self.state_size):
            raise ShapeError(
                f"cell {self.name!r} has {len(self.state_size)} states, {len(given)} were given",
                at=user_line(),
                remedy="pass the states as a list, as cell.get_initial_state(batch_size) returns them",
            )
        if not inputs.dtype.is_float:
            inputs = gx.cast(inputs, self.kernel.dtype)
        features = self.kernel.shape[0]
        if inputs.shape[-1] != features:
            raise ShapeError(
                f"cell {self.name!r} was built for {features} features, its input has {inputs.shape[-1]}",
                details=(f"inputs: {inputs.type}", f"kernel: {self.kernel.type}"),
                at=user_line(),
                remedy=f"give inputs whose last size is {features}, or use another layer",
            )
        after = self.step(inputs, *given)
        return after[0], after if listed else after[0]

    def step(self, x: Node, *states: Node) -> list[Node]:
        """The states after a step; the first of them is the output."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")

    # What dropout makes of the inputs and of the state: for each gate its own, once the state is dropped from, too.

    def _inputs_product(self, x: Node) -> Node:
        return self._product(x, self.dropout, self.kernel, "inputs")

    def _state_product(self, h: Node, kernel: Node) -> Node:
        return self._product(h, self.recurrent_dropout, kernel, "state")

    def _product(self, x: Node, rate: float, kernel: Node, what: str) -> Node:
        """``x @ kernel`` with dropout of x in training: one mask, or one for each gate."""
        plain = x @ kernel
        if not rate:
            return plain
        count = cast("int", kernel.shape[1]) // self.units if self.recurrent_dropout else 1
        dropped = [self._dropped(x, rate, f"{what}{gate}") for gate in range(count)]
        if count == 1:
            return self.when_training(dropped[0], x) @ kernel
        parts = [part @ kernel[:, gate * self.units : (gate + 1) * self.units] for gate, part in enumerate(dropped)]
        return self.when_training(gx.concatenate(parts, axis=1), plain)

    def _dropped(self, x: Node, rate: float, what: str) -> Node:
        """Dropout whose mask depends on no step: in a loop it is drawn once for the whole sequence."""
        kept = gx.random.bernoulli(x.shape, 1 - rate, *self.random_state(self.seed, what))
        return gx.where(kept, x * (1 / (1 - rate or 1)), 0.0)

    def _gate(self, z: Node, number: int) -> Node:
        return z[:, number * self.units : (number + 1) * self.units]


class SimpleRNNCell(GatedCell):
    """One step of a simple recurrent net: ``h = activation(x @ kernel + bias + h_prev @ recurrent_kernel)``.

    The output is the state, ``h``. Texts that write ``W_hh h + W_xh x`` have these matrices transposed.

    Args:
        units: the size of output and state.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: first values.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on weights, added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: what the weights go through in every step of training.
        dropout, recurrent_dropout: in training, the part of the inputs and of the state that is dropped before the
            products; in a loop the same places at all steps.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        inputs: (batch, n), states: [(batch, units)]; the result: the output and the list of states.
        Weights: kernel (n, units), recurrent_kernel (units, units), bias (units,).
    Raises: ShapeError: another number of features or states than the cell has.
    Source: Elman 1990, Finding structure in time; Keras ``SimpleRNNCell``.

    >>> import graphc as gx
    >>> cell = SimpleRNNCell(4)
    >>> x, h = gx.placeholder("x", ("batch", 3)), gx.placeholder("h", ("batch", 4))
    >>> cell(x, [h])
    (<tanh: f32[batch, 4]>, [<tanh: f32[batch, 4]>])
    """

    def step(self, x: Node, *states: Node) -> list[Node]:
        (h,) = states
        z = self._inputs_product(x)
        if self.bias is not None:
            z = z + self.bias
        return [self.activation(z + self._state_product(h, self.recurrent_kernel))]


class LSTMCell(GatedCell):
    """One step of long short-term memory.

    With ``z = x @ kernel + h_prev @ recurrent_kernel + bias`` in four blocks of ``units`` columns, in the order
    i, f, c, o::

        i = recurrent_activation(z_i)                how much is written
        f = recurrent_activation(z_f)                how much is kept
        c = f * c_prev + i * activation(z_c)         the cell state, the long-term memory
        o = recurrent_activation(z_o)                how much is shown
        h = o * activation(c)                        the hidden state, which is the output

    Texts that write ``W_f [h, x]`` have one matrix for each gate over the two one below the other: ``W_f`` is
    ``recurrent_kernel[:, block f]`` above ``kernel[:, block f]``, transposed. PyTorch orders the blocks i, f, g, o,
    which is the same order (g is c), with two biases whose sum is ours; ONNX orders them i, o, f, c.

    Args:
        units: the size of output and states.
        activation: of what is written and of what is shown; a name or a function of a node.
        recurrent_activation: of the gates.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: first values.
        unit_forget_bias: let the forget gate's bias begin at 1, so that memory lasts from the start.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on weights, added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: what the weights go through in every step of training.
        dropout, recurrent_dropout: in training, the part of the inputs and of the state that is dropped before the
            products; in a loop the same places at all steps.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        inputs: (batch, n), states: [h, c], each (batch, units); the result: the output and the list of states.
        Weights: kernel (n, 4 * units), recurrent_kernel (units, 4 * units), bias (4 * units,).
    Raises: ShapeError: another number of features or states than the cell has.
    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (the forget gate); Jozefowicz et al. 2015 (its bias);
        Keras ``LSTMCell``.

    >>> import graphc as gx
    >>> cell = LSTMCell(4)
    >>> x, h, c = (gx.placeholder(name, ("batch", size)) for name, size in (("x", 3), ("h", 4), ("c", 4)))
    >>> cell(x, [h, c])
    (<multiply: f32[batch, 4]>, [<multiply: f32[batch, 4]>, <add: f32[batch, 4]>])
    """

    gates = 4

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
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: Part = 0.0,
        recurrent_dropout: Part = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer, kernel_constraint, recurrent_constraint,
            bias_constraint, dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = unit_forget_bias
        self.state_size = [units, units]

    def build(self, input_shape: Any, states_shape: Any = None) -> None:
        super().build(input_shape, states_shape)
        if self.bias is not None and self.unit_forget_bias:
            first = self.bias.value
            first[self.units : 2 * self.units] = 1
            self.bias.value = first

    def step(self, x: Node, *states: Node) -> list[Node]:
        h, c = states
        z = self._inputs_product(x) + self._state_product(h, self.recurrent_kernel)
        if self.bias is not None:
            z = z + self.bias
        i, f, new, o = (self._gate(z, number) for number in range(4))
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(new)
        return [self.recurrent_activation(o) * self.activation(c), c]


class GRUCell(GatedCell):
    """One step of a gated recurrent unit.

    With the weights in three blocks of ``units`` columns, in the order z, r, h::

        z = recurrent_activation(x @ W_z + h_prev @ U_z + b_z)                 how much is kept
        r = recurrent_activation(x @ W_r + h_prev @ U_r + b_r)                 how much the candidate sees
        candidate = activation(x @ W_h + r * (h_prev @ U_h + b'_h) + b_h)      reset_after, which has two biases
        candidate = activation(x @ W_h + (r * h_prev) @ U_h + b_h)             not reset_after
        h = z * h_prev + (1 - z) * candidate

    Texts that write ``h = (1 - z) * h_prev + z * candidate`` mean the other share by z. As ``1 - sigmoid(a) =
    sigmoid(-a)``, theirs is this cell with the update gate's weights and biases negated.

    Args:
        units: the size of output and state.
        activation: of the candidate; a name or a function of a node.
        recurrent_activation: of the gates.
        use_bias: whether there are biases.
        kernel_initializer, recurrent_initializer, bias_initializer: first values.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on weights, added to the loss.
        kernel_constraint, recurrent_constraint, bias_constraint: what the weights go through in every step of training.
        dropout, recurrent_dropout: in training, the part of the inputs and of the state that is dropped before the
            products; in a loop the same places at all steps.
        reset_after: whether the reset gate acts on the product, so that a step has one product, or before it.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        inputs: (batch, n), states: [(batch, units)]; the result: the output and the list of states.
        Weights: kernel (n, 3 * units), recurrent_kernel (units, 3 * units), bias (2, 3 * units), the second row beside
        the recurrent product; without ``reset_after`` (3 * units,).
    Raises: ShapeError: another number of features or states than the cell has.
    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078, equations 5 to 8; Keras ``GRUCell``.

    >>> import graphc as gx
    >>> cell = GRUCell(4)
    >>> x, h = gx.placeholder("x", ("batch", 3)), gx.placeholder("h", ("batch", 4))
    >>> cell(x, [h])
    (<add: f32[batch, 4]>, [<add: f32[batch, 4]>])
    """

    gates = 3

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
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: Part = 0.0,
        recurrent_dropout: Part = 0.0,
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer,
            kernel_regularizer, recurrent_regularizer, bias_regularizer, kernel_constraint, recurrent_constraint,
            bias_constraint, dropout, recurrent_dropout, seed, **kwargs,
        )  # fmt: skip
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def step(self, x: Node, *states: Node) -> list[Node]:
        (h,) = states
        inputs = self._inputs_product(x)
        if self.bias is not None:
            inputs = inputs + (self.bias[0] if self.reset_after else self.bias)
        if self.reset_after:
            inner = self._state_product(h, self.recurrent_kernel)
            if self.bias is not None:
                inner = inner + self.bias[1]
        else:
            inner = self._state_product(h, self.recurrent_kernel[:, : 2 * self.units])
        z = self.recurrent_activation(self._gate(inputs, 0) + self._gate(inner, 0))
        r = self.recurrent_activation(self._gate(inputs, 1) + self._gate(inner, 1))
        if self.reset_after:
            seen = r * self._gate(inner, 2)
        else:
            seen = self._candidate_product(r, h)
        return [z * h + (1.0 - z) * self.activation(self._gate(inputs, 2) + seen)]

    def _candidate_product(self, r: Node, h: Node) -> Node:
        """``(r * h) @ U_h``, with the third mask of the state's dropout."""
        kernel = self.recurrent_kernel[:, 2 * self.units :]
        if self.recurrent_dropout:
            h = self.when_training(self._dropped(h, self.recurrent_dropout, "state2"), h)
        return (r * h) @ kernel


def check_cell(cell: Any) -> None:
    """Refuse what a recurrent layer cannot run over a sequence.

    Raises:
        GraphError: it is no cell.
    """
    if not isinstance(cell, Layer) or not hasattr(cell, "state_size"):
        raise GraphError(
            f"{shown(cell)} is not a cell",
            at=user_line(),
            remedy="give a layer with state_size whose call(inputs, states) returns an output and new states",
        )


class StackedRNNCells(Cell):
    """Cells one above the other as one cell: each takes the output of the one below.

    ``RNN(StackedRNNCells([a, b]))`` is ``RNN(b)`` over ``RNN(a, return_sequences=True)``, as one loop.

    Args:
        cells: the cells, the lowest first.

    Shapes:
        inputs: (batch, n), states: for each cell its list of states; the result: the last cell's output, and states.
    Raises: AxisError: no cells.
    Source: Graves et al. 2013, https://arxiv.org/abs/1303.5778, section 2; Keras ``StackedRNNCells``.

    >>> import graphc as gx
    >>> cell = StackedRNNCells([LSTMCell(4), GRUCell(2)])
    >>> cell.state_size, cell.output_size
    ([[4, 4], [2]], 2)
    """

    def __init__(self, cells: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cells = list(cells)
        if not self.cells:
            raise AxisError("StackedRNNCells has no cells", at=user_line(), remedy="give a list of cells")
        for cell in self.cells:
            check_cell(cell)
        self.state_size = [cell.state_size for cell in self.cells]
        last = self.cells[-1]
        self.output_size = getattr(last, "output_size", nest.leaves(last.state_size)[0])
        own = getattr(last, "output_state", None)
        below = len(nest.leaves(self.state_size[:-1]))
        self.output_state = None if own is None else below + own

    def get_initial_state(self, batch_size: Size, dtype: Any = None) -> list[Any]:
        """The first states of each cell.

        Args:
            batch_size: the number of rows.
            dtype: default the cells'.
        """
        return [first_states(cell, batch_size, dtype or self.dtype) for cell in self.cells]

    def call(self, inputs: Node, states: States) -> tuple[Node, list[Any]]:
        after: list[Any] = []
        for cell, own in zip(self.cells, states, strict=True):
            inputs, new = cell(inputs, own)
            after.append(new)
        return inputs, after
