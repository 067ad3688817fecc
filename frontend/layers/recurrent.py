"""RNN: a loop over time of any cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

import graphc as gx
from graphc.errors import ShapeError
from graphc.frontend import nest, tracing
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.recurrent_cells import StackedRNNCells, check_cell, first_states
from graphc.ir.dims import Size
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType


class RNN(Layer):
    """A cell applied to each step of sequences, with the states of the step before.

    One loop in native code, of any length: what does not depend on the states (the products of all inputs with their
    weights) is computed before it, and the gradients of the weights behind it, each as one large product.

    Steps that a mask leaves out copy the states, so that a padded row gives what the row alone gives; their outputs
    repeat the one before, or are zeros. ``layer(x, lengths=n)`` says the same by the number of steps that count in each
    row, from the first one on. Results of both carry the mask on.

    Args:
        cell: a layer with ``state_size`` whose ``call(inputs, states)`` returns its output and the new states; or a
            list of cells, one above the other.
        return_sequences: return the outputs of all steps, not only the last one's.
        return_state: return the last states, too.
        go_backwards: go from the last step to the first; outputs are in the order of computation.
        stateful: begin with the states in which the batch before ended, row by row, in training and elsewhere. Batches
            have a fixed size then: ``Input(shape, batch_size=32)``. The states are not among the weights and are not
            saved; :meth:`reset_state` sets them to zeros.
        unroll: accepted for Keras's sake: the loop is native, and unrolling it would gain nothing.
        zero_output_for_mask: outputs of steps that a mask leaves out are zeros.

    Shapes:
        sequences: (batch, time, ...), initial_state: as ``cell.state_size`` says, each (batch, size), mask: (batch,
            time), lengths: (batch,). The result: (batch, time, output) or (batch, output), then the states.
    Raises: ShapeError: sequences of fewer than three axes; stateful, but the size of the batch is not fixed.
    Source: Keras ``RNN``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 3))
    >>> gx.layers.RNN(gx.layers.LSTMCell(4))(x)
    <part: f32[batch, 4]>
    >>> gx.layers.RNN([gx.layers.GRUCell(4), gx.layers.GRUCell(5)], return_sequences=True)(x)
    <transpose: f32[batch, time, 5]>
    """

    supports_masking = True

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell = StackedRNNCells(cast("Sequence[Any]", cell)) if isinstance(cell, list | tuple) else cell
        check_cell(self.cell)
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self._states: list[Parameter] = []

    def get_initial_state(self, batch_size: Size, dtype: Any = None) -> list[Any]:
        """The states with which sequences begin unless ``initial_state`` says else.

        Args:
            batch_size: the number of rows.
            dtype: default the layer's.
        """
        return first_states(self.cell, batch_size, dtype or self._dtype or "float32")

    def reset_state(self) -> None:
        """Set the states of a stateful layer to zeros."""
        for state in self._states:
            state.value = np.zeros_like(state.value)

    def adopt(self, path: str, ordinal: int) -> None:
        super().adopt(path, ordinal)
        for number, state in enumerate(self._states):
            state.label = f"{path}/state_{number}"

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the inputs where all steps are returned; states have none."""
        mask = next((leaf for leaf in nest.leaves(previous_mask) if leaf is not None), None)
        kept = self.fitting_mask(mask, inputs) if mask is not None and self.return_sequences else None
        return [kept, *[None] * len(nest.leaves(self.cell.state_size))] if self.return_state else kept

    def call(
        self,
        sequences: Node,
        initial_state: Any = None,
        mask: Any = None,
        lengths: Node | None = None,
        constants: Any = None,
    ) -> Any:
        """Run the cell over the sequences.

        Args:
            sequences: the inputs, batch first.
            initial_state: the first states; default zeros, or those of the batch before.
            mask: which steps count.
            lengths: how many steps of each row count; the same as the mask that says so.
            constants: what the cell gets at every step as its argument ``constants``, such as the memory of a decoder.
        """
        if sequences.ndim < 3:
            raise ShapeError(
                f"layer {self.name!r} takes (batch, time, features), its input has {sequences.ndim} axes",
                details=(f"inputs: {sequences.type}",),
                at=user_line(),
                remedy="add an axis: layers.Embedding for ids, layers.Reshape((-1, 1)) for numbers, "
                "return_sequences=True in the recurrent layer before",
            )
        mask = next((leaf for leaf in nest.leaves(mask) if leaf is not None), None)
        if lengths is not None:
            counted = gx.arange(sequences.shape[1], lengths.dtype) < gx.expand_dims(lengths, 1)
            mask = counted if mask is None else gx.logical_and(mask, counted)
        mask = None if mask is None else self.fitting_mask(mask, sequences)
        states = self._first_states(sequences, initial_state)
        elements = [_time_first(sequences)]
        if mask is not None:
            elements.append(gx.expand_dims(_time_first(mask), -1))
        arguments = {} if constants is None else {"constants": constants}

        def advance(x: Node, given: Any) -> tuple[Any, list[Any]]:
            output, after = self.cell(x, given, **arguments)
            return output, list(after) if isinstance(after, list | tuple) else [after]  # pyright: ignore[reportUnknownArgumentType]

        shown = getattr(self.cell, "output_state", None)
        repeats = mask is not None and not self.zero_output_for_mask
        before: Any = None
        if shown is None and (repeats or not self.return_sequences):
            before = _first_output(advance, elements[0], states)

        def step(carry: tuple[Any, Any], element: list[Node]) -> tuple[tuple[Any, Any], Any]:
            given, earlier = carry
            output, after = advance(element[0], given)
            if mask is not None:
                after = _choose(element[1], after, given)
            result = output
            if mask is not None and self.zero_output_for_mask:
                result = _choose(element[1], output, nest.map_leaves(gx.zeros_like, output))
            elif mask is not None:
                result = nest.leaves(after)[shown] if shown is not None else _choose(element[1], output, earlier)
            carried = None if before is None else result
            return (after, carried), result if self.return_sequences else None

        (last, final), results = gx.scan(step, (states, before), elements, reverse=self.go_backwards)
        self._keep(last)
        if self.return_sequences:
            outputs = nest.map_leaves(self._batch_first, results)
            if lengths is not None:
                for leaf in nest.leaves(outputs):
                    tracing.set_mask(leaf, mask)
        elif shown is None:
            outputs = final
        else:
            outputs = nest.leaves(last)[shown]
            if mask is not None and self.zero_output_for_mask:
                ending = mask[:, 0] if self.go_backwards else mask[:, -1]
                outputs = gx.where(gx.expand_dims(ending, -1), outputs, 0.0)
        return (outputs, *last) if self.return_state else outputs

    def fitting_mask(self, mask: Any, sequences: Node) -> Node:
        """The mask, if it has a bool for each step of each row; of a third axis a step needs one that is true."""
        node = gx.constant(mask) if isinstance(mask, np.ndarray) else cast("Node", mask)
        node = node if node.dtype is DType.bool else gx.not_equal(node, 0)
        node = gx.any(node, axis=-1) if node.ndim == 3 else node
        batch, time = sequences.shape[:2]
        sizes = zip(node.shape, (batch, time), strict=False)
        apart = any(isinstance(a, int) and isinstance(b, int) and a not in (1, b) for a, b in sizes)
        if node.ndim != 2 or apart:
            raise ShapeError(
                f"layer {self.name!r}: the mask is {node.type}, the sequences are {sequences.type}",
                at=user_line(),
                remedy="give bools (batch, time): true where a step counts",
            )
        return node

    def _batch_first(self, results: Node) -> Node:
        swapped = _time_first(results)
        return gx.flip(swapped, 1) if self.go_backwards else swapped

    def _first_states(self, sequences: Node, given: Any) -> list[Any]:
        made = self.get_initial_state(sequences.shape[0])
        if given is None:
            return nest.pack(made, self._kept_states(nest.leaves(made))) if self.stateful else made
        leaves, wanted = nest.leaves(given), nest.leaves(made)
        if len(leaves) == len(wanted) - getattr(self.cell, "zero_states", 0):
            leaves = [*leaves, *wanted[len(leaves) :]]
        if len(leaves) != len(wanted):
            raise ShapeError(
                f"layer {self.name!r} has {len(wanted)} states, initial_state has {len(leaves)}",
                at=user_line(),
                remedy="pass a list with one tensor for each state",
            )
        return nest.pack(made, [gx.cast(leaf, state.dtype) for leaf, state in zip(leaves, wanted, strict=True)])

    def _kept_states(self, zeros: list[Node]) -> list[Node]:
        """Where the batch before ended."""
        if not self._states:
            shapes = [tuple(size for size in state.shape if isinstance(size, int)) for state in zeros]
            if any(len(shape) < state.ndim for shape, state in zip(shapes, zeros, strict=True)):
                raise ShapeError(
                    f"layer {self.name!r} is stateful: the number of rows must be fixed, it is {zeros[0].shape[0]}",
                    at=user_line(),
                    remedy="give the size of batches: Input(shape, batch_size=32)",
                )
            self._states = [
                Parameter(f"{self.path}/state_{number}", np.zeros(shape, state.dtype.numpy), trainable=False)
                for number, (shape, state) in enumerate(zip(shapes, zeros, strict=True))
            ]
        rows, found = self._states[0].shape[0], zeros[0].shape[0]
        if rows != found:
            raise ShapeError(
                f"layer {self.name!r} is stateful with {rows} rows, its input has {found}",
                at=user_line(),
                remedy="give batches of one size",
            )
        trace = tracing.current()
        known = {} if trace is None else trace.updates
        return [known[id(state)][1] if id(state) in known else state for state in self._states]

    def _keep(self, last: list[Any]) -> None:
        if self.stateful and self._states:
            for state, value in zip(self._states, nest.leaves(last), strict=True):
                self.add_update(state, lambda _, value=value: value, always=True)


def _time_first(x: Node) -> Node:
    """The first two axes exchanged."""
    return gx.transpose(x, (1, 0, *range(2, x.ndim)))


def _choose(mask: Node, new: Any, old: Any) -> Any:
    """In structures of nodes: the new value where the mask (batch, 1) says so."""

    def chosen(pair: tuple[Node, Node]) -> Node:
        a, b = pair
        shaped = gx.reshape(mask, (mask.shape[0], *[1] * (a.ndim - 1)))
        return gx.where(shaped, a, b)

    return nest.pack(new, map(chosen, zip(nest.leaves(new), nest.leaves(old), strict=True)))


def _first_output(advance: Callable[..., tuple[Any, Any]], sequence: Node, states: Any) -> Any:
    """Zeros of the form of a cell's output, which comes before its first output."""
    with tracing.tracing(tracing.probing()):
        output, _ = advance(sequence[0], states)
    return nest.map_leaves(lambda leaf: gx.zeros(leaf.shape, leaf.dtype), output)
