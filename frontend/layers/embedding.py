"""Embedding, which turns ids into vectors, and Masking: where sequences begin, and where masks of steps come from."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import GraphError, ShapeError
from graphc.frontend import constraints, initializers, regularizers
from graphc.frontend.checked import Count
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node, Parameter


class Embedding(Layer):
    """A vector for each of a number of ids: row ``ids`` of a table that is learned.

    The same as a one-hot encoding times the table, without either. An id outside the table stops the program before
    anything changes, with the id and your line. Gradients of rows that occur several times add up, in one fixed order.

    Args:
        input_dim: the number of ids; they go from 0 to ``input_dim - 1``.
        output_dim: the size of the vectors.
        embeddings_initializer: first values.
        embeddings_regularizer, activity_regularizer: penalties on the table and on the outputs, added to the loss.
        embeddings_constraint: what the table goes through in every step of training.
        mask_zero: id 0 is padding: its steps do not count in the layers that follow and in the loss.
        weights: first values as an array of the table's shape, instead of the initializer's.
        sparse: a training step changes the rows that occur, and no others, so that its time does not grow with the
            table. With plain SGD and with Adagrad that makes no difference to values. Optimizers that remember more
            (SGD with momentum, RMSprop, Adam) become lazy ones: means and momentum of a row that does not occur stay
            as they are, and so does the row, where a dense step would let them fade and go on moving it. Adam is then
            what PyTorch calls ``SparseAdam``.

    Shapes:
        inputs: integers of any shape, such as (batch, time); the result: (batch, time, output_dim).
        Weights: embeddings (input_dim, output_dim).
    Raises: IndexRangeError, when it runs: an id is not in the table. GraphError: it is sparse, and has a regularizer or
        a constraint, which concern every row; or, in training, an optimizer or a use of the table that does.
    Source: Bengio et al. 2003, A neural probabilistic language model; Keras ``Embedding``.

    >>> import graphc as gx
    >>> gx.layers.Embedding(1000, 8, mask_zero=True)(gx.placeholder("ids", ("batch", "time"), "int64"))
    <take: f32[batch, time, 8]>
    """

    input_dtype = "int64"
    supports_masking = True
    embeddings: Parameter

    def __init__(
        self,
        input_dim: Count,
        output_dim: Count,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = mask_zero
        self.sparse = sparse
        for name in ("embeddings_regularizer", "embeddings_constraint"):
            if sparse and getattr(self, name) is not None:
                raise GraphError(
                    f"a sparse Embedding has {name}, which concerns every row of the table in every step",
                    at=user_line(),
                    remedy=f"leave out {name}, or sparse",
                )
        self._first = None if weights is None else _table(weights, (input_dim, output_dim))

    def build(self, input_shape: Any) -> None:
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            sparse=self.sparse,
        )
        if self._first is not None:
            self.embeddings.value = self._first.astype(self.embeddings.dtype.numpy)
            self._first = None

    def call(self, inputs: Node) -> Node:
        ids = inputs if inputs.dtype.is_integer else gx.cast(inputs, "int32")
        return gx.take(self.embeddings, ids, axis=0)

    def compute_mask(self, inputs: Node, previous_mask: Any) -> Node | None:
        """Where the id is not 0, if that is padding."""
        return gx.not_equal(inputs, 0) if self.mask_zero else None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, without the array of first values: files keep the table itself."""
        return {key: value for key, value in super().get_config().items() if key != "weights"}


def _table(weights: Any, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    table: np.ndarray[Any, Any] = np.asarray(weights)
    if isinstance(weights, list) and table.shape == (1, *shape):  # Keras's list of all weights
        table = table[0]
    if table.shape != shape:
        raise ShapeError(
            f"weights of Embedding has shape {table.shape}, the table is {shape}",
            at=user_line(),
            remedy="give an array of shape (input_dim, output_dim)",
        )
    return table


class Masking(Layer):
    """Leaves out the steps of which every value is ``mask_value``: layers that follow and the loss do not count them.

    Args:
        mask_value: what padding is filled with.

    Shapes: x: (batch, time, ...); the result has the shape of x, with zeros in the steps that do not count.
    Source: Keras ``Masking``.

    >>> import graphc as gx
    >>> x = gx.layers.Masking()(gx.placeholder("x", ("batch", "time", 3)))
    >>> gx.layers.LSTM(4)(x)
    <part: f32[batch, 4]>
    """

    supports_masking = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def call(self, inputs: Node) -> Node:
        return gx.where(gx.any(gx.not_equal(inputs, self.mask_value), axis=-1, keepdims=True), inputs, 0)

    def compute_mask(self, inputs: Node, previous_mask: Any) -> Node:
        """Where some value is another one."""
        return gx.any(gx.not_equal(inputs, self.mask_value), axis=-1)
