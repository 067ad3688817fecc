"""MobileNetV2: inverted residuals with depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphc.frontend import layers
from graphc.frontend.applications.building import Build
from graphc.frontend.checked import Count, Positive, checked
from graphc.frontend.model import Model
from graphc.frontend.tracing import Symbol

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Table 2 of the paper: expansion, channels, number of blocks, strides of the first."""
_NORM = {"epsilon": 1e-3, "momentum": 0.999}


@checked
def MobileNetV2(
    input_shape: Sequence[int | None] | None = None,
    alpha: Positive = 1.0,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: Any = "softmax",
    name: str | None = None,
    data_format: str | None = None,
) -> Model:
    """MobileNetV2 with Keras's layers: 3,538,984 weights, 34,112 of them moving statistics of batch normalization.

    A list of weights of Keras's ``MobileNetV2`` fits: ``model.set_weights(theirs.get_weights())``.

    Args:
        input_shape: of an image, default (224, 224, 3); at least 32 x 32.
        alpha: how wide the layers are in relation to the paper's.
        include_top: with the classifier.
        weights: None for random ones, or a file that ``save_weights`` wrote.
        input_tensor: a symbol to build on, instead of ``input_shape``.
        pooling: without the top: "avg" or "max" over all places, or None for the places themselves.
        classes: how many the classifier tells apart.
        classifier_activation: of the last layer; None for logits.
        name: of the model.
        data_format: "channels_last" or "channels_first".

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: AxisError: alpha is not positive. ShapeError: the images are smaller than 32 x 32, or have other axes.
    Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2

    >>> import graphc as gx
    >>> f"{gx.applications.MobileNetV2().count_params():,}"
    '3,538,984'
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation,
        name or f"mobilenetv2_{alpha:0.2f}", data_format, (224, 224, 3), 32,
    )  # fmt: skip

    def part(x: Any, filters: int, size: int, label: str, norm: str, relu: str | None, **said: Any) -> Any:
        x = build.conv(x, filters, size, label, padding="same", use_bias=False, **said)
        x = build.norm(x, norm, **_NORM)
        return x if relu is None else layers.ReLU(6.0, name=relu)(x)

    def block(x: Any, expansion: int, filters: int, strides: int, number: int) -> Any:
        inputs, channels = x, build.channels(x)
        label = f"block_{number}_" if number else "expanded_conv_"
        if number:
            x = part(x, expansion * channels, 1, f"{label}expand", f"{label}expand_BN", f"{label}expand_relu")
        if strides == 2:
            odd = [size % 2 if isinstance(size, int) else 0 for size in build.places(x)]
            x = build.pad(x, tuple((one, 1) for one in odd), f"{label}pad")
        x = layers.DepthwiseConv2D(
            3, strides, "same" if strides == 1 else "valid", data_format=build.data_format, use_bias=False,
            name=f"{label}depthwise",
        )(x)  # fmt: skip
        x = layers.ReLU(6.0, name=f"{label}depthwise_relu")(build.norm(x, f"{label}depthwise_BN", **_NORM))
        x = part(x, filters, 1, f"{label}project", f"{label}project_BN", None)
        same = strides == 1 and channels == filters
        return layers.Add(name=f"{label}add")([inputs, x]) if same else x

    def body(x: Any) -> Any:
        x = part(x, _by_eights(32 * alpha), 3, "Conv1", "bn_Conv1", "Conv1_relu", strides=2)
        number = 0
        for expansion, width, count, strides in _STAGES:
            for place in range(count):
                x = block(x, expansion, _by_eights(int(width * alpha)), 1 if place else strides, number)
                number += 1
        # The paper does not narrow the last convolution.
        return part(x, _by_eights(1280 * max(alpha, 1.0)), 1, "Conv_1", "Conv_1_bn", "out_relu")

    return build.model(body)


def _by_eights(width: float) -> int:
    """The nearest multiple of 8 that is not less than nine tenths of a width, at least 8."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded
