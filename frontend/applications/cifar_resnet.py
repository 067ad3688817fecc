"""Residual networks for small images: ResNet-20, 32, 44, 56 and 110."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graphc as gx
from graphc.errors import AxisError
from graphc.frontend import layers
from graphc.frontend.applications.building import Build
from graphc.frontend.arguments import is_whole
from graphc.frontend.checked import Count, checked
from graphc.frontend.config import user_line
from graphc.frontend.layers.spatial import SpatialLayer
from graphc.frontend.model import Model
from graphc.frontend.regularizers import L2
from graphc.frontend.tracing import Symbol
from graphc.ir.node import Node


class ThinnedShortcut(SpatialLayer):
    """Every other place, and channels of zeros behind those there are: a shortcut without weights.

    Args:
        strides: how far the next place is.
        extra: the number of channels of zeros.
        data_format: "channels_last" or "channels_first".

    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 3.3, option A

    >>> import graphc as gx
    >>> ThinnedShortcut(2, 4)(gx.placeholder("x", ("batch", 8, 8, 4)))
    <pad: f32[batch, 4, 4, 8]>
    """

    def __init__(self, strides: int, extra: int, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.strides, self.extra = strides, extra

    def transform(self, x: Node) -> Node:
        return gx.pad(x[:, :: self.strides, :: self.strides], (0, 0, 0, 0), (0, 0, 0, self.extra))


@checked
def CifarResNet(
    depth: int = 20,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Symbol | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: Count = 10,
    classifier_activation: Any = "softmax",
    name: str | None = None,
    data_format: str | None = None,
    weight_decay: float = 0.0,
) -> Model:
    """A ResNet for images of 32 x 32, of 6 n + 2 layers: three stages of n blocks with 16, 32 and 64 channels.

    Depth 20 has 269,722 trained weights, 32 464,154, 44 658,586, 56 853,018, and 110 1,727,962.

    Args:
        depth: the number of layers with weights: 8, 14, 20, ...
        include_top: with the classifier.
        weights: None for random ones, or a file that ``save_weights`` wrote.
        input_tensor: a symbol to build on, instead of ``input_shape``.
        input_shape: of an image, default (32, 32, 3); at least 8 x 8.
        pooling: without the top: "avg" or "max" over all places, or None for the places themselves.
        classes: how many the classifier tells apart.
        classifier_activation: of the last layer; None for logits.
        name: of the model; default ``resnet`` and the depth.
        data_format: "channels_last" or "channels_first".
        weight_decay: half of it is the factor of the squares of kernels in the loss; the paper takes 0.0001.

    Shapes: (batch, height, width, channels) -> (batch, classes).
    Raises: AxisError: the depth is not 6 n + 2. ShapeError: the images are smaller than 8 x 8, or have other axes.
    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2, shortcuts of option A

    >>> import graphc as gx
    >>> model = gx.applications.CifarResNet(20)
    >>> sum(weight.value.size for weight in model.trainable_weights)
    269722
    """
    if not is_whole(depth, 8) or depth % 6 != 2:
        raise AxisError(
            f"a ResNet for small images has 6 n + 2 layers, not {depth!r}", at=user_line(), remedy="such as 20, 32, 44"
        )
    build = Build(
        include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation,
        name or f"resnet{depth}", data_format, (32, 32, 3), 8,
    )  # fmt: skip
    decay = L2(weight_decay / 2) if weight_decay else None

    def part(x: Any, filters: int, label: str, strides: int = 1, activate: bool = True) -> Any:
        x = build.conv(
            x, filters, 3, f"{label}_conv", strides=strides, padding=1, use_bias=False,
            kernel_initializer="he_normal", kernel_regularizer=decay,
        )  # fmt: skip
        x = build.norm(x, f"{label}_bn", epsilon=1e-5, momentum=0.9)
        return layers.Activation("relu", name=f"{label}_relu")(x) if activate else x

    def body(x: Any) -> Any:
        x = part(x, 16, "conv1")
        for stage, filters in enumerate((16, 32, 64), 2):
            for number in range(1, depth // 6 + 1):
                label, shortcut = f"conv{stage}_block{number}", x
                strides = 2 if number == 1 and stage > 2 else 1
                if strides > 1:
                    extra = filters - build.channels(x)
                    shortcut = ThinnedShortcut(strides, extra, build.data_format, name=f"{label}_0")(x)
                x = part(part(x, filters, f"{label}_1", strides), filters, f"{label}_2", activate=False)
                x = layers.Add(name=f"{label}_add")([shortcut, x])
                x = layers.Activation("relu", name=f"{label}_out")(x)
        return x

    return build.model(body)


def ResNet20(**said: Any) -> Model:
    """:func:`CifarResNet` of 20 layers: 269,722 trained weights.

    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2

    >>> import graphc as gx
    >>> gx.applications.ResNet20(input_shape=(16, 16, 1), classes=4).outputs
    [<input 'predictions': f32[batch, 4]>]
    """
    return CifarResNet(20, **said)


def ResNet32(**said: Any) -> Model:
    """:func:`CifarResNet` of 32 layers: 464,154 trained weights.

    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2

    >>> import graphc as gx
    >>> gx.applications.ResNet32().name
    'resnet32'
    """
    return CifarResNet(32, **said)


def ResNet44(**said: Any) -> Model:
    """:func:`CifarResNet` of 44 layers: 658,586 trained weights.

    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2

    >>> import graphc as gx
    >>> gx.applications.ResNet44().name
    'resnet44'
    """
    return CifarResNet(44, **said)


def ResNet56(**said: Any) -> Model:
    """:func:`CifarResNet` of 56 layers: 853,018 trained weights.

    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2

    >>> import graphc as gx
    >>> gx.applications.ResNet56().name
    'resnet56'
    """
    return CifarResNet(56, **said)


def ResNet110(**said: Any) -> Model:
    """:func:`CifarResNet` of 110 layers: 1,727,962 trained weights.

    Source: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2

    >>> import graphc as gx
    >>> gx.applications.ResNet110().name
    'resnet110'
    """
    return CifarResNet(110, **said)
