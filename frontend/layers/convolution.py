"""Convolutions over sequences, images and volumes, and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import constraints, initializers, regularizers
from graphc.frontend.checked import Count, Ends
from graphc.frontend.config import user_line
from graphc.frontend.layers.convolving import PADDINGS, Convolving
from graphc.frontend.layers.spatial import for_axes
from graphc.ir.node import Node


class _Conv(Convolving):
    """What :class:`Conv2D` and its kin share."""

    def __init__(
        self,
        filters: Count,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str | Ends = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: Count = 1,
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
        self.filters = filters
        self.groups = groups
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
    """Kernels slid over sequences; arguments as of :class:`Conv2D`.

    >>> import graphc as gx
    >>> gx.layers.Conv1D(6, 3)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 6, 6]>
    """

    rank = 1
    paddings = (*PADDINGS, "causal")


class Conv2D(_Conv):
    """Kernels slid over images: ``activation(conv(x, kernel) + bias)``.

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

    >>> import graphc as gx
    >>> gx.layers.Conv2D(6, 3)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 6, 6, 6]>
    """

    rank = 2


class Conv3D(_Conv):
    """Kernels slid over volumes; arguments as of :class:`Conv2D`.

    >>> import graphc as gx
    >>> gx.layers.Conv3D(6, 3)(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <add: f32[n, 6, 6, 6, 6]>
    """

    rank = 3


class _ConvTranspose(Convolving):
    """What :class:`Conv2DTranspose` and its kin share."""

    def __init__(
        self,
        filters: Count,
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
        self.filters = filters
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
    """Each element adds a kernel times itself, over sequences; arguments as of :class:`Conv2DTranspose`.

    >>> import graphc as gx
    >>> gx.layers.Conv1DTranspose(6, 3, strides=2)(gx.placeholder("x", ("n", 8, 4)))
    <add: f32[n, 17, 6]>
    """

    rank = 1


class Conv2DTranspose(_ConvTranspose):
    """The transpose of a convolution: each element of images adds a kernel times itself to the result.

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

    >>> import graphc as gx
    >>> gx.layers.Conv2DTranspose(6, 3, strides=2)(gx.placeholder("x", ("n", 8, 8, 4)))
    <add: f32[n, 17, 17, 6]>
    """

    rank = 2


class Conv3DTranspose(_ConvTranspose):
    """Each element adds a kernel times itself, over volumes; arguments as of :class:`Conv2DTranspose`.

    >>> import graphc as gx
    >>> gx.layers.Conv3DTranspose(6, 3, strides=2)(gx.placeholder("x", ("n", 8, 8, 8, 4)))
    <add: f32[n, 17, 17, 17, 6]>
    """

    rank = 3

    def __init__(
        self,
        filters: Count,
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
