"""Residual networks for large images: ResNet-18, 34 and 50."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphc.frontend import layers
from graphc.frontend.applications.building import Build
from graphc.frontend.checked import Count, checked
from graphc.frontend.model import Model
from graphc.frontend.tracing import Symbol

Block = Callable[[Build, Any, int, int, bool, str], Any]


@checked
def ResNet18(
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet18",
    data_format: str | None = None,
) -> Model:
    """ResNet-18, with 11,689,512 trained weights, and 9,600 moving statistics of batch normalization.

    Args:
        include_top: with the classifier.
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
    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, table 1, shortcuts of option B

    >>> import graphc as gx
    >>> model = gx.applications.ResNet18(include_top=False, pooling="avg", input_shape=(64, 64, 3))
    >>> model.outputs
    [<input 'avg_pool': f32[batch, 512]>]
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, data_format
    )  # fmt: skip
    return _resnet(build, (2, 2, 2, 2), _basic, 1e-5, 0.9, use_bias=False)


@checked
def ResNet34(
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet34",
    data_format: str | None = None,
) -> Model:
    """ResNet-34, with 21,797,672 trained weights, and 17,024 moving statistics of batch normalization.

    Args:
        include_top, weights, input_tensor, input_shape, pooling: see :func:`ResNet18`.
        classes, classifier_activation, name, data_format: see there.

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: ShapeError: the images are smaller than 32 x 32, or have other axes.
    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, table 1, shortcuts of option B

    >>> import graphc as gx
    >>> model = gx.applications.ResNet34()
    >>> len([layer for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")])  # 3 are in shortcuts
    37
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, data_format
    )  # fmt: skip
    return _resnet(build, (3, 4, 6, 3), _basic, 1e-5, 0.9, use_bias=False)


@checked
def ResNet50(
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: Any = "softmax",
    name: str = "resnet50",
    data_format: str | None = None,
) -> Model:
    """ResNet-50 with Keras's layers: 25,636,712 weights, 53,120 of them moving statistics of batch normalization.

    A list of weights of Keras's ``ResNet50`` fits: ``model.set_weights(theirs.get_weights())``.

    Args:
        include_top, weights, input_tensor, input_shape, pooling: see :func:`ResNet18`.
        classes, classifier_activation, name, data_format: see there.

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: ShapeError: the images are smaller than 32 x 32, or have other axes.
    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, table 1, shortcuts of option B; Keras, whose
        convolutions have biases and whose strides stand in the first convolution of a block.

    >>> import graphc as gx
    >>> f"{gx.applications.ResNet50().count_params():,}"
    '25,636,712'
    """
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name, data_format
    )  # fmt: skip
    return _resnet(build, (3, 4, 6, 3), _bottleneck, 1.001e-5, 0.99, use_bias=True)


class _Residual:
    """Convolutions with batch normalization, named as Keras names them."""

    def __init__(self, build: Build, epsilon: float, momentum: float, use_bias: bool) -> None:
        self.build, self.use_bias = build, use_bias
        self.norm = {"epsilon": epsilon, "momentum": momentum}

    def __call__(self, x: Any, filters: int, size: int, name: str, activate: bool = True, **said: Any) -> Any:
        x = self.build.conv(x, filters, size, f"{name}_conv", use_bias=self.use_bias, **said)
        x = self.build.norm(x, f"{name}_bn", **self.norm)
        return layers.Activation("relu", name=f"{name}_relu")(x) if activate else x


def _resnet(build: Build, counts: Sequence[int], block: Any, epsilon: float, momentum: float, use_bias: bool) -> Model:
    part = _Residual(build, epsilon, momentum, use_bias)

    def body(x: Any) -> Any:
        x = part(build.pad(x, 3, "conv1_pad"), 64, 7, "conv1", strides=2)
        x = build.pad(x, 1, "pool1_pad")
        x = layers.MaxPooling2D(3, strides=2, data_format=build.data_format, name="pool1_pool")(x)
        for stage, count in enumerate(counts, 2):
            for number in range(1, count + 1):
                strides = 2 if number == 1 and stage > 2 else 1
                x = block(part, x, 2 ** (stage + 4), strides, number == 1, f"conv{stage}_block{number}")
        return x

    return build.model(body)


def _joined(shortcut: Any, x: Any, name: str) -> Any:
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _basic(part: _Residual, x: Any, filters: int, strides: int, first: bool, name: str) -> Any:
    """Two 3 x 3 convolutions; the shortcut is a convolution where the shape changes."""
    shortcut = part(x, filters, 1, f"{name}_0", activate=False, strides=strides) if strides > 1 else x
    # Zeros on both sides, whatever the stride: "same" would put them behind only.
    x = part(x, filters, 3, f"{name}_1", strides=strides, padding=1)
    return _joined(shortcut, part(x, filters, 3, f"{name}_2", activate=False, padding=1), name)


def _bottleneck(part: _Residual, x: Any, filters: int, strides: int, first: bool, name: str) -> Any:
    """1 x 1, 3 x 3 and 1 x 1 convolutions; the first block of a stage has a convolution as shortcut."""
    shortcut = part(x, 4 * filters, 1, f"{name}_0", activate=False, strides=strides) if first else x
    x = part(x, filters, 1, f"{name}_1", strides=strides)
    x = part(x, filters, 3, f"{name}_2", padding="same")
    return _joined(shortcut, part(x, 4 * filters, 1, f"{name}_3", activate=False), name)
