"""LeNet-5: two convolutions and three dense layers, for digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphc.frontend import layers
from graphc.frontend.applications.building import Build
from graphc.frontend.checked import Count, checked
from graphc.frontend.model import Model
from graphc.frontend.tracing import Symbol


@checked
def LeNet5(
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 10,
    classifier_activation: Any = "softmax",
    name: str = "lenet5",
    data_format: str | None = None,
    activation: Any = "tanh",
) -> Model:
    """LeNet-5 as it is usually built today, with 61,706 weights.

    The paper's has about 60,000: there, the second convolution reads only some of the channels, pooling has weights,
    and the last layer compares with fixed images of digits instead of a softmax over a dense layer.

    Args:
        include_top: with the dense layers.
        weights: None for random ones, or a file that ``save_weights`` wrote.
        input_tensor: a symbol to build on, instead of ``input_shape``.
        input_shape: of an image; default (28, 28, 1), which the first convolution pads by 2.
        pooling: without the top: "avg" or "max" over all places, or None for the places themselves.
        classes: how many the classifier tells apart.
        classifier_activation: of the last layer; None for logits.
        name: of the model.
        data_format: "channels_last" or "channels_first".
        activation: of the layers within.

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: ShapeError: the images are smaller than 12 x 12, or have other axes.
    Source: LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document recognition, section 2.B

    >>> import graphc as gx
    >>> gx.applications.LeNet5().count_params()
    61706
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, data_format,
        (28, 28, 1), 12,
    )  # fmt: skip

    def pool(x: Any, label: str) -> Any:
        return layers.AveragePooling2D(2, data_format=build.data_format, name=label)(x)

    def body(x: Any) -> Any:
        x = build.conv(x, 6, 5, "conv1", padding="same", activation=activation)
        x = build.conv(pool(x, "pool1"), 16, 5, "conv2", activation=activation)
        return pool(x, "pool2")

    def top(x: Any) -> Any:
        x = layers.Flatten(data_format=build.data_format, name="flatten")(x)
        for units, label in ((120, "fc1"), (84, "fc2")):
            x = layers.Dense(units, activation=activation, name=label)(x)
        return x

    return build.model(body, top)
