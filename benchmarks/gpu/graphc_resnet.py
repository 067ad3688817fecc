"""The model of the GPU benchmark that is made of convolutions: torchvision's ResNet-50, channels last."""

from __future__ import annotations

from typing import cast

import numpy as np
from common import TINY

import graphc as gx

rng = np.random.default_rng(2)
BATCH, SIZE, CLASSES, STEM = (2, 16, 10, 8) if TINY else (64, 224, 1000, 64)
BLOCKS = [(8, 1, 2)] if TINY else [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]
"""Width of the inner convolutions, how many blocks, and the stride of the first of them."""
EPSILON, MOMENTUM = 1e-5, 0.1


class ResNet:
    """ResNet-50 on a fixed batch, the stride in the 3 x 3 convolutions.

    Convolutions read and write ``dtype``, for which weights of float32 are rounded in each step; what is between them
    is computed in float32. Running means and variances are kept as PyTorch keeps them.

    Attributes:
        weights: the parameters that are trained.
        running: the next values of the others.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.weights: list[gx.Parameter] = []
        self.running: dict[gx.Parameter, gx.Node] = {}

    def loss(self) -> tuple[gx.Node, list[gx.Node], list[np.ndarray]]:
        """The loss, the inputs and a batch."""
        images = gx.placeholder("images", (BATCH, SIZE, SIZE, 3))
        labels = gx.placeholder("labels", (BATCH,), "int64")
        y = gx.max_pool(self.conv(gx.cast(images, self.dtype), STEM, 7, 2), 3, 2, padding=[(1, 1), (1, 1)])
        for width, count, stride in BLOCKS:
            for number in range(count):
                y = self.block(y, width, 1 if number else stride)
        pooled = gx.cast(gx.mean(gx.cast(y, "float32"), axis=(1, 2)), self.dtype)
        features = _sizes(y)[-1]
        bound = features**-0.5
        weight = self._add(rng.uniform(-bound, bound, (features, CLASSES)))
        bias = self._add(rng.uniform(-bound, bound, CLASSES))
        logits = gx.cast(pooled @ gx.cast(weight, self.dtype), "float32") + bias
        data = [rng.standard_normal((BATCH, SIZE, SIZE, 3), np.float32), rng.integers(0, CLASSES, BATCH)]
        return gx.mean(gx.sparse_softmax_cross_entropy(labels, logits)), [images, labels], data

    def block(self, x: gx.Node, width: int, stride: int) -> gx.Node:
        """1 x 1, 3 x 3 and 1 x 1 elements beside a shortcut."""
        y = self.conv(self.conv(x, width, 1), width, 3, stride)
        y = self.conv(y, 4 * width, 1, rectified=False)
        if x.shape[-1] != 4 * width:
            x = self.conv(x, 4 * width, 1, stride, rectified=False)
        return gx.reshape(gx.relu(_rows(y) + _rows(x)), y.shape)

    def conv(self, x: gx.Node, filters: int, size: int, stride: int = 1, rectified: bool = True) -> gx.Node:
        """A convolution, normalized over the batch."""
        drawn = rng.standard_normal((size, size, _sizes(x)[-1], filters)) * (2 / (size * size * filters)) ** 0.5
        y = gx.conv(x, gx.cast(self._add(drawn), self.dtype), stride, padding=[(size // 2, size // 2)] * 2)
        shape, rows = y.shape, int(np.prod(_sizes(y)[:-1]))
        y = _rows(y) if size == stride == 1 else y  # a product has rows itself
        y, places = gx.cast(y, "float32"), tuple(range(y.ndim - 1))
        mean, square = gx.mean(y, axis=places), gx.mean(y * y, axis=places)
        variance = square - mean * mean
        for seen, first in ((mean, np.zeros), (variance * (rows / (rows - 1)), np.ones)):
            kept = gx.parameter(f"running{len(self.running)}", first(filters).astype(np.float32))
            self.running[kept] = (1 - MOMENTUM) * kept + MOMENTUM * seen
        scale, shift = self._add(np.ones(filters)), self._add(np.zeros(filters))
        factor = gx.rsqrt(variance + EPSILON) * scale
        z = gx.cast(y * factor + (shift - mean * factor), self.dtype)
        return gx.reshape(gx.relu(z) if rectified else z, shape)

    def _add(self, value: np.ndarray) -> gx.Parameter:
        self.weights.append(gx.parameter(f"w{len(self.weights)}", value.astype(np.float32)))
        return self.weights[-1]


def _rows(y: gx.Node) -> gx.Node:
    """An image's pixels one after the other, as products of single elements leave them: sums over them are fused."""
    *places, features = _sizes(y)
    return gx.reshape(y, (int(np.prod(places)), features))


def _sizes(y: gx.Node) -> tuple[int, ...]:
    """Its shape, of which all is known here."""
    return cast("tuple[int, ...]", y.shape)
