"""Input, Dense, Activation, Identity, Lambda."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import graphc as gx
from graphc.errors import DTypeError, GraphcError, GraphError, ShapeError
from graphc.frontend import activations, constraints, initializers, regularizers, tracing
from graphc.frontend.arguments import is_whole, shown
from graphc.frontend.checked import Count, checked
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.weights import WeightHolder
from graphc.frontend.tracing import Symbol
from graphc.ir import location
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, Parameter, check_name
from graphc.ir.types import TensorType, as_dtype, as_shape


class InputLayer(Layer):
    """Where values enter a model; :func:`Input` makes one and returns its symbol.

    Args:
        shape: the sizes without the batch axis; None or a name where a size may change from batch to batch.
        batch_size: a fixed size of the batch axis; default any.
        dtype: element type of the values.
        name: the keyword under which programs take the value.
        batch_shape: instead of both, the sizes with the batch axis.
    """

    def __init__(
        self,
        shape: Iterable[Any] = (),
        batch_size: Count | None = None,
        dtype: Any = "float32",
        name: str | None = None,
        batch_shape: Iterable[Any] | None = None,
    ) -> None:
        super().__init__(name=name)
        self._shape = tuple(shape)
        self._batch_size = batch_size
        if batch_shape is not None:
            self._batch_size, *rest = _whole_shape(tuple(batch_shape), self._shape, batch_size)
            self._shape = tuple(rest)
        self.take_name(tracing.open_scope)
        self.built = True
        try:
            self._element = as_dtype(dtype)
            self.symbol = Symbol(self.name, self.type, tracing.open_scope(), location.here())
        except GraphcError as error:
            raise error.located(f"Input {self.name!r}", (), user_line()) from None
        tracing.record(self, (), {}, self.symbol, self.symbol.loc)

    @property
    def name(self) -> str:
        """What the input is called; a Python identifier."""
        return super().name

    @name.setter
    def name(self, name: str) -> None:
        check_name(name)
        WeightHolder.name.__set__(self, name)

    @property
    def type(self) -> TensorType:
        """Element type and shape of the values, batch axis included."""
        batch: Size = Dim("batch") if self._batch_size is None else self._batch_size
        named = (f"{self.name}_{axis}" if size is None else size for axis, size in enumerate(self._shape, 1))
        return TensorType(self._element, (batch, *as_shape(tuple(named))))

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """An input is not called."""
        raise DTypeError(f"input {self.name!r} is not a function", at=user_line(), remedy="use the value of Input(...)")

    def get_config(self) -> dict[str, Any]:
        return {
            "shape": list(self._shape), "batch_size": self._batch_size, "dtype": self._element.value, "name": self.name
        }  # fmt: skip


def _whole_shape(batch_shape: tuple[Any, ...], shape: tuple[Any, ...], batch_size: int | None) -> tuple[Any, ...]:
    """A shape with a batch axis, if that is what it is, and nothing else was said."""
    if shape or batch_size is not None:
        raise ShapeError(
            "Input has both batch_shape and shape or batch_size", at=user_line(), remedy="give batch_shape alone"
        )
    if not batch_shape or not (batch_shape[0] is None or is_whole(batch_shape[0])):
        raise ShapeError(
            f"batch_shape of Input is {batch_shape!r}",
            at=user_line(),
            remedy="begin it with the number of samples of a batch, or with None: batch_shape=(None, 3)",
        )
    return None if batch_shape[0] is None else int(batch_shape[0]), *batch_shape[1:]


@checked
def Input(
    shape: Iterable[Any] = (),
    batch_size: Count | None = None,
    dtype: Any = "float32",
    name: str | None = None,
    batch_shape: Iterable[Any] | None = None,
) -> Symbol:
    """A symbol for what a model is fed with.

    Args:
        shape: the sizes without the batch axis; None or a name where a size may change from batch to batch.
        batch_size: a fixed size of the batch axis; default any.
        dtype: element type of the values.
        name: the keyword under which programs take the value.
        batch_shape: instead of both, the sizes with the batch axis: ``(None, 28, 28, 1)``.

    Raises:
        ShapeError: the shape is not one of sizes; AxisError: it is no tuple.
        NameClashError: the name is not a Python identifier.

    >>> import graphc as gx
    >>> gx.Input((28, 28, 1), name="image")
    <input 'image': f32[batch, 28, 28, 1]>
    """
    return InputLayer(shape, batch_size, dtype, name, batch_shape).symbol


class Dense(Layer):
    """``activation(x @ kernel + bias)``.

    Args:
        units: the number of outputs.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        kernel_initializer, bias_initializer: first values.
        kernel_regularizer, bias_regularizer, activity_regularizer: penalties on weights and outputs, added to the loss.
        kernel_constraint, bias_constraint: what the weights go through in every step.

    Shapes:
        x: (batch, ..., n); the result: (batch, ..., units). Weights: kernel (n, units), bias (units,).

    Raises:
        ShapeError: x has fewer than two axes, or its last size is not that of the kernel.

    >>> import graphc as gx
    >>> layer = Dense(2)
    >>> y = layer(gx.placeholder("x", ("batch", 3)))
    >>> [w.shape for w in layer.weights]
    [(3, 2), (2,)]
    """

    supports_masking = True
    kernel: Parameter
    bias: Parameter | None

    def __init__(
        self,
        units: Count,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(self, input_shape: Any) -> None:
        if len(input_shape) < 2:
            raise ShapeError(
                f"layer {self.name!r} takes at least two axes (batch, ..., features), its input has {len(input_shape)}",
                at=user_line(),
                remedy="add an axis: layers.Reshape((1,)), or Input((1,)) for single numbers",
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs: Node) -> Node:
        features = self.kernel.shape[0]
        if not inputs.dtype.is_float:
            inputs = gx.cast(inputs, self.kernel.dtype)
        if inputs.shape[-1] != features:
            raise ShapeError(
                f"layer {self.name!r} was built for {features} features, its input has {inputs.shape[-1]}",
                details=(f"inputs: {inputs.type}", f"kernel: {self.kernel.type}"),
                at=user_line(),
                remedy=f"give inputs whose last size is {features}, or use another layer",
            )
        outputs = gx.matmul(inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)


class Activation(Layer):
    """An activation as a layer.

    Args:
        activation: a name or a function of a node.

    Shapes: the result has the shape of x.

    >>> import graphc as gx
    >>> Activation("tanh")(gx.placeholder("x", ("batch", 3)))
    <tanh: f32[batch, 3]>
    """

    supports_masking = True

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: Node) -> Node:
        return self.activation(inputs)


class Identity(Layer):
    """Passes its input on."""

    supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs


class Lambda(Layer):
    """A function of nodes as a layer without weights.

    To save a model that holds one, write the function with ``def`` and register it: ``@gx.saving.register``.

    Args:
        function: takes the inputs (a node or a list of nodes), returns nodes.
        arguments: further keyword arguments for it.

    >>> import graphc as gx
    >>> Lambda(lambda x: x * 2)(gx.placeholder("x", ("batch", 3)))
    <multiply: f32[batch, 3]>
    """

    def __init__(self, function: Any, arguments: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise GraphError(
                f"Lambda takes a function, not {shown(function)}",
                at=user_line(),
                remedy="write layers.Lambda(lambda x: x * 2); an activation by name is layers.Activation('relu')",
            )
        self.function = function
        self.arguments = dict(arguments or {})

    def call(self, inputs: Any) -> Any:
        return self.function(inputs, **self.arguments)
