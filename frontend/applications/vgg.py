"""VGG-16 and VGG-19: stacks of 3 x 3 convolutions, and three wide dense layers."""

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
def VGG16(
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: Any = "softmax",
    name: str = "vgg16",
    data_format: str | None = None,
) -> Model:
    """VGG-16, with 138,357,544 weights; configuration D of the paper. Layers have Keras's names.

    Args:
        include_top: with the dense layers.
        weights: None for random ones, or a file that ``save_weights`` wrote.
        input_tensor: a symbol to build on, instead of ``input_shape``.
        input_shape: of an image, default (224, 224, 3); at least 32 x 32.
        pooling: without the top: "avg" or "max" over all places, or None for the places themselves.
        classes: how many the classifier tells apart.
        classifier_activation: of the last layer; None for logits.
        name: of the model.
        data_format: "channels_last" or "channels_first".

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: ShapeError: the images are smaller than 32 x 32, or have other axes.
    Source: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1

    >>> import graphc as gx
    >>> f"{gx.applications.VGG16().count_params():,}"
    '138,357,544'
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, data_format
    )  # fmt: skip
    return _vgg(build, (2, 2, 3, 3, 3))


@checked
def VGG19(
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: Any = "softmax",
    name: str = "vgg19",
    data_format: str | None = None,
) -> Model:
    """VGG-19, with 143,667,240 weights; configuration E of the paper. Layers have Keras's names.

    Args:
        include_top, weights, input_tensor, input_shape, pooling: see :func:`VGG16`.
        classes, classifier_activation, name, data_format: see there.

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: ShapeError: the images are smaller than 32 x 32, or have other axes.
    Source: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1

    >>> import graphc as gx
    >>> f"{gx.applications.VGG19().count_params():,}"
    '143,667,240'
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, data_format
    )  # fmt: skip
    return _vgg(build, (2, 2, 4, 4, 4))


def _vgg(build: Build, counts: Sequence[int]) -> Model:
    """Blocks of so many convolutions each, whose width doubles up to 512."""

    def body(x: Any) -> Any:
        for block, (count, filters) in enumerate(zip(counts, (64, 128, 256, 512, 512), strict=True), 1):
            for number in range(1, count + 1):
                x = build.conv(x, filters, 3, f"block{block}_conv{number}", padding="same", activation="relu")
            x = layers.MaxPooling2D(2, data_format=build.data_format, name=f"block{block}_pool")(x)
        return x

    def top(x: Any) -> Any:
        x = layers.Flatten(data_format=build.data_format, name="flatten")(x)
        for label in ("fc1", "fc2"):
            x = layers.Dense(4096, activation="relu", name=label)(x)
        return x

    return build.model(body, top)
