"""Convolutions and their transposes, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import activations, constraints, initializers, regularizers
from graphc.frontend.arguments import is_whole
from graphc.frontend.config import user_line
from graphc.frontend.layers.spatial import SpatialLayer, for_axes
from graphc.ir.node import Node, Parameter

PADDINGS = ("valid", "same")


class _Convolving(SpatialLayer):
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


def _positive(layer: SpatialLayer, name: str, value: Any) -> int:
    if not is_whole(value):
        raise AxisError(
            f"{type(layer).__name__} takes a positive whole number of {name}, not {value!r}", at=user_line(),
            remedy=f"write {name}=8, say",
        )  # fmt: skip
    return int(value)


class _Conv(_Convolving):
    """Kernels slid over the input: ``activation(conv(x, kernel) + bias)``.

    Args:
        filters: the number of kernels, and of the result's channels.
        kernel_size: how far a kernel reaches along each axis.
        strides: how far the next output looks from the last one.
        padding: "valid" for none, "same" for as many outputs as inputs (divided by the stride), in one dimension
            "causal" for zeros in front only, or numbers of zeros: an int or a pair for each axis.
        data_format: "channels_last" or "channels_first".
        dilation_rate: how far the elements of a kernel stand apart.
        groups: how many parts channels and filters are split into.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        kernel_initializer, bias_initializer: first values.
        kernel_regularizer, bias_regularizer, activity_regularizer: penalties on weights and outputs, added to the loss.
        kernel_constraint, bias_constraint: what the weights go through in every step.

    Shapes: (batch, *sizes, channels) -> (batch, *outputs, filters), or with the channels behind the batch. Weights:
        kernel (*kernel_size, channels / groups, filters), bias (filters,).
    Raises: ShapeError: the channels do not divide by the groups, or the input has other axes; AxisError.
    Source: Keras; Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
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
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = _positive(self, "filters", filters)
        self.groups = _positive(self, "groups", groups)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        if self.filters % self.groups:
            raise AxisError(
                f"{filters} filters do not divide by {groups} groups", at=user_line(), remedy="give a multiple"
            )

    def build(self, input_shape: Any) -> None:
        channels = self.channels_of(input_shape)
        if channels % self.groups:
            raise ShapeError(
                f"layer {self.name!r}: {channels} channels do not divide by {self.groups} groups",
                at=user_line(),
                remedy="give a number of channels that is a multiple of groups",
            )
        self.kernel = self.add_weight(
            name="kernel", shape=(*self.kernel_size, channels // self.groups, self.filters),
            initializer=self.kernel_initializer, regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )  # fmt: skip
        self.build_bias(self.filters)

    def transform(self, x: Node) -> Node:
        return gx.conv(x, self.kernel, self.strides, self.zeros_around(), self.dilation_rate, self.groups)


class Conv1D(_Conv):
    """Kernels slid over sequences; see the arguments of ``_Conv``.

    >>> import graphc as gx
    >>> gx.layers.Conv1D(6, 3)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 6, 6]>
    """

    rank = 1
    paddings = (*PADDINGS, "causal")


class Conv2D(_Conv):
    """Kernels slid over images; see the arguments of ``_Conv``.

    >>> import graphc as gx
    >>> gx.layers.Conv2D(6, 3)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 6, 6, 6]>
    """

    rank = 2


class Conv3D(_Conv):
    """Kernels slid over volumes; see the arguments of ``_Conv``.

    >>> import graphc as gx
    >>> gx.layers.Conv3D(6, 3)(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <add: f32[n, 6, 6, 6, 6]>
    """

    rank = 3


class _ConvTranspose(_Convolving):
    """The transpose of a convolution: each element adds a kernel times itself to the result, which may be larger.

    Args:
        filters: the number of the result's channels.
        kernel_size: how far a kernel reaches along each axis.
        strides: how far the kernels of neighbouring elements are apart.
        padding: "valid" for all that kernels reach, "same" for size * stride outputs.
        output_padding: how many elements are added at the end; None: as ``padding`` says.
        data_format: "channels_last" or "channels_first".
        dilation_rate: how far the elements of a kernel stand apart.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        kernel_initializer, bias_initializer: first values.
        kernel_regularizer, bias_regularizer, activity_regularizer: penalties on weights and outputs, added to the loss.
        kernel_constraint, bias_constraint: what the weights go through in every step.

    Shapes: (batch, *sizes, channels) -> (batch, *outputs, filters), or with the channels behind the batch. Weights:
        kernel (*kernel_size, filters, channels), bias (filters,).
    Raises: ShapeError: the input has other axes; AxisError.
    Source: Keras; Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285, chapter 4.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        output_padding: int | Sequence[int] | None = None,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
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
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = _positive(self, "filters", filters)
        self.output_padding = (
            None if output_padding is None else for_axes("output_padding", output_padding, self.rank, least=0)
        )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel", shape=(*self.kernel_size, self.filters, self.channels_of(input_shape)),
            initializer=self.kernel_initializer, regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )  # fmt: skip
        self.build_bias(self.filters)

    def transform(self, x: Node) -> Node:
        return gx.conv_transpose(x, self.kernel, self.strides, self.padding, self.output_padding, self.dilation_rate)


class Conv1DTranspose(_ConvTranspose):
    """Each element adds a kernel times itself, over sequences; see the arguments of ``_ConvTranspose``.

    >>> import graphc as gx
    >>> gx.layers.Conv1DTranspose(6, 3, strides=2)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 17, 6]>
    """

    rank = 1


class Conv2DTranspose(_ConvTranspose):
    """Each element adds a kernel times itself, over images; see the arguments of ``_ConvTranspose``.

    >>> import graphc as gx
    >>> gx.layers.Conv2DTranspose(6, 3, strides=2)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 17, 17, 6]>
    """

    rank = 2


class Conv3DTranspose(_ConvTranspose):
    """Each element adds a kernel times itself, over volumes; see the arguments of ``_ConvTranspose``.

    >>> import graphc as gx
    >>> gx.layers.Conv3DTranspose(6, 3, strides=2)(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <add: f32[n, 17, 17, 17, 6]>
    """

    rank = 3

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        output_padding: int | Sequence[int] | None = None,  # behind the layout, as Keras has it here
        dilation_rate: int | Sequence[int] = 1,
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
        super().__init__(
            filters, kernel_size, strides, padding, output_padding, data_format, dilation_rate, activation, use_bias,
            kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer,
            kernel_constraint, bias_constraint, **kwargs,
        )  # fmt: skip


class _DepthwiseConv(_Convolving):
    """Each channel with kernels of its own: ``activation(depthwise(x, kernel) + bias)``.

    Args:
        kernel_size: how far a kernel reaches along each axis.
        strides: how far the next output looks from the last one.
        padding: "valid" for none, "same" for as many outputs as inputs (divided by the stride), in one dimension
            "causal", or numbers of zeros.
        depth_multiplier: the number of kernels for each channel.
        data_format: "channels_last" or "channels_first".
        dilation_rate: how far the elements of a kernel stand apart.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        depthwise_initializer, bias_initializer: first values.
        depthwise_regularizer, bias_regularizer, activity_regularizer: penalties, added to the loss.
        depthwise_constraint, bias_constraint: what the weights go through in every step.

    Shapes: (batch, *sizes, channels) -> (batch, *outputs, channels * depth_multiplier), or with the channels behind the
        batch. Weights: kernel (*kernel_size, channels, depth_multiplier), bias.
    Raises: ShapeError: the input has other axes; AxisError.
    Source: Keras; Chollet 2016, https://arxiv.org/abs/1610.02357.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = _positive(self, "depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)

    def build(self, input_shape: Any) -> None:
        channels = self.channels_of(input_shape)
        self.kernel = self.add_weight(
            name="kernel", shape=(*self.kernel_size, channels, self.depth_multiplier),
            initializer=self.depthwise_initializer, regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )  # fmt: skip
        self.build_bias(channels * self.depth_multiplier)

    def transform(self, x: Node) -> Node:
        return _depthwise(self, x, self.kernel)


def _depthwise(layer: _Convolving, x: Node, kernel: Node) -> Node:
    *sizes, channels, multiplier = kernel.shape
    whole = gx.reshape(kernel, (*sizes, 1, channels * multiplier))
    count = channels if isinstance(channels, int) else 1
    return gx.conv(x, whole, layer.strides, layer.zeros_around(), layer.dilation_rate, count)


class DepthwiseConv1D(_DepthwiseConv):
    """Kernels for each channel alone, over sequences; see the arguments of ``_DepthwiseConv``.

    >>> import graphc as gx
    >>> gx.layers.DepthwiseConv1D(3)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 6, 4]>
    """

    rank = 1
    paddings = (*PADDINGS, "causal")


class DepthwiseConv2D(_DepthwiseConv):
    """Kernels for each channel alone, over images; see the arguments of ``_DepthwiseConv``.

    >>> import graphc as gx
    >>> gx.layers.DepthwiseConv2D(3)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 6, 6, 4]>
    """

    rank = 2


class _SeparableConv(_Convolving):
    """Each channel with kernels of its own, then all channels of a place mixed.

    Args:
        filters: the number of the result's channels.
        kernel_size, strides, padding, data_format, dilation_rate, depth_multiplier: those of the kernels for each
            channel; see DepthwiseConv2D.
        activation: a name or a function of a node.
        use_bias: whether there is a bias.
        depthwise_initializer, pointwise_initializer, bias_initializer: first values.
        depthwise_regularizer, pointwise_regularizer, bias_regularizer, activity_regularizer: penalties, added to the
            loss.
        depthwise_constraint, pointwise_constraint, bias_constraint: what the weights go through in every step.

    Shapes: (batch, *sizes, channels) -> (batch, *outputs, filters), or with the channels behind the batch. Weights:
        depthwise_kernel (*kernel_size, channels, depth_multiplier), pointwise_kernel (*ones, channels *
        depth_multiplier, filters), bias (filters,).
    Raises: ShapeError: the input has other axes; AxisError.
    Source: Keras; Chollet 2016, https://arxiv.org/abs/1610.02357.
    """

    depthwise_kernel: Parameter
    pointwise_kernel: Parameter

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            (bias_initializer, bias_regularizer, bias_constraint), activity_regularizer, **kwargs,
        )  # fmt: skip
        self.filters = _positive(self, "filters", filters)
        self.depth_multiplier = _positive(self, "depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.pointwise_constraint = constraints.get(pointwise_constraint)

    def build(self, input_shape: Any) -> None:
        channels = self.channels_of(input_shape)
        self.depthwise_kernel = self.add_weight(
            name="depthwise_kernel", shape=(*self.kernel_size, channels, self.depth_multiplier),
            initializer=self.depthwise_initializer, regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )  # fmt: skip
        self.pointwise_kernel = self.add_weight(
            name="pointwise_kernel",
            shape=(*(1 for _ in self.kernel_size), channels * self.depth_multiplier, self.filters),
            initializer=self.pointwise_initializer, regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
        )  # fmt: skip
        self.build_bias(self.filters)

    def transform(self, x: Node) -> Node:
        return gx.conv(_depthwise(self, x, self.depthwise_kernel), self.pointwise_kernel)


class SeparableConv1D(_SeparableConv):
    """Kernels for each channel, then channels mixed, over sequences; see the arguments of ``_SeparableConv``.

    >>> import graphc as gx
    >>> gx.layers.SeparableConv1D(6, 3)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 6, 6]>
    """

    rank = 1
    paddings = (*PADDINGS, "causal")


class SeparableConv2D(_SeparableConv):
    """Kernels for each channel, then channels mixed, over images; see the arguments of ``_SeparableConv``.

    >>> import graphc as gx
    >>> gx.layers.SeparableConv2D(6, 3)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 6, 6, 6]>
    """

    rank = 2
