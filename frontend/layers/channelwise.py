"""Convolutions of each channel alone, and those that mix the channels of a place behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.frontend import constraints, initializers, regularizers
from graphc.frontend.checked import Count, Ends
from graphc.frontend.layers.convolving import PADDINGS, Convolving
from graphc.ir.node import Node, Parameter


class _DepthwiseConv(Convolving):
    """What :class:`DepthwiseConv2D` and its kin share."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str | Ends = "valid",
        depth_multiplier: Count = 1,
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
        self.depth_multiplier = depth_multiplier
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


def _depthwise(layer: Convolving, x: Node, kernel: Node) -> Node:
    *sizes, channels, multiplier = kernel.shape
    whole = gx.reshape(kernel, (*sizes, 1, channels * multiplier))
    count = channels if isinstance(channels, int) else 1
    return gx.conv(x, whole, layer.strides, layer.zeros_around(), layer.dilation_rate, count)


class DepthwiseConv1D(_DepthwiseConv):
    """Kernels for each channel alone, over sequences; arguments as of :class:`DepthwiseConv2D`.

    >>> import graphc as gx
    >>> gx.layers.DepthwiseConv1D(3)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 6, 4]>
    """

    rank = 1
    paddings = (*PADDINGS, "causal")


class DepthwiseConv2D(_DepthwiseConv):
    """Kernels for each channel alone, over images: ``activation(depthwise(x, kernel) + bias)``.

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

    >>> import graphc as gx
    >>> gx.layers.DepthwiseConv2D(3)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 6, 6, 4]>
    """

    rank = 2


class _SeparableConv(Convolving):
    """What :class:`SeparableConv2D` and its kin share."""

    depthwise_kernel: Parameter
    pointwise_kernel: Parameter

    def __init__(
        self,
        filters: Count,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str | Ends = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        depth_multiplier: Count = 1,
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
        self.filters = filters
        self.depth_multiplier = depth_multiplier
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
    """Kernels for each channel, then channels mixed, over sequences; arguments as of :class:`SeparableConv2D`.

    >>> import graphc as gx
    >>> gx.layers.SeparableConv1D(6, 3)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 6, 6]>
    """

    rank = 1
    paddings = (*PADDINGS, "causal")


class SeparableConv2D(_SeparableConv):
    """Kernels for each channel of images, then all channels of a place mixed.

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

    >>> import graphc as gx
    >>> gx.layers.SeparableConv2D(6, 3)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 6, 6, 6]>
    """

    rank = 2
