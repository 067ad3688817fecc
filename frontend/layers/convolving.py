"""What layers of convolutions share: windows, a bias, an activation, and numbers of filters."""

from __future__ import annotations

from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend import activations, constraints, initializers, regularizers
from graphc.frontend.config import user_line
from graphc.frontend.layers.spatial import SpatialLayer, for_axes
from graphc.ir.node import Node, Parameter

PADDINGS = ("valid", "same")


class Convolving(SpatialLayer):
    """Kernels over windows, a bias, an activation."""

    kernel: Parameter
    bias: Parameter | None
    paddings: tuple[str, ...] = PADDINGS

    def __init__(
        self, kernel_size: Any, strides: Any, padding: Any, data_format: str | None, dilation_rate: Any,
        activation: Any, use_bias: bool, bias: tuple[Any, Any, Any], activity_regularizer: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(data_format, activity_regularizer=activity_regularizer, **kwargs)
        self.kernel_size = for_axes("kernel_size", kernel_size, self.rank)
        self.strides = for_axes("strides", strides, self.rank)
        self.dilation_rate = for_axes("dilation_rate", dilation_rate, self.rank)
        self.padding = padding.lower() if isinstance(padding, str) else padding
        if isinstance(padding, str) and self.padding not in self.paddings:
            raise AxisError(
                f"there is no padding {padding!r} here", at=user_line(), remedy=f"use {' or '.join(self.paddings)}"
            )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias[0])
        self.bias_regularizer = regularizers.get(bias[1])
        self.bias_constraint = constraints.get(bias[2])

    def call(self, inputs: Node) -> Node:
        if not inputs.dtype.is_float:
            inputs = gx.cast(inputs, self._weights[0][1].dtype)
        outputs = self.transform(self.to_last(inputs))
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(self.from_last(outputs))

    def build_bias(self, filters: int) -> None:
        """Make the bias, if there is to be one."""
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(filters,), initializer=self.bias_initializer, regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )  # fmt: skip

    def zeros_around(self) -> Any:
        """The padding as ``gx.conv`` takes it: causal is all of it in front."""
        if self.padding != "causal":
            return self.padding
        reach = [(size - 1) * step for size, step in zip(self.kernel_size, self.dilation_rate, strict=True)]
        return [(far, 0) for far in reach]
