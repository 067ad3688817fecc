"""Products of patches as contractions: which elements of x, the kernel and the result go together.

With holes in a patch aside, the elements of a row of it lie side by side in x, channels and all, and so do the rows of
the kernel: one sum runs over both. Images one after the other, rows of patches, and patches of a row are the outer
loops; nothing is copied.
"""

from __future__ import annotations

from typing import Any

from graphc.ir.dims import Size, ceildiv, product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import Shape, TensorType
from graphc.lower.index import strides_of
from graphc.lower.plan import Axis, ContractionItem, WinogradItem
from graphc.ops.patches import PatchGradient, PatchProduct
from graphc.ops.reduction import Sum
from graphc.ops.winograd import WinogradProduct

CACHE_BYTES = 512 * 1024
"""How much of x and g together a part of a gradient passes over several times: it should stay in the second cache."""


class PatchParts(Op):
    """The gradient by the kernel of ``images`` images at a time, one after the other along a first axis."""

    name = "patch_parts"
    operands = ("x", "g")
    attributes = ("gradient", "images")
    gradient: PatchGradient
    images: int

    def __init__(self, gradient: PatchGradient, images: int) -> None:
        object.__setattr__(self, "gradient", gradient)
        object.__setattr__(self, "images", images)

    @property
    def key(self) -> tuple[Any, ...]:
        return (PatchParts, self.gradient.key, self.images)

    def infer(self, *types: TensorType) -> TensorType:
        whole = self.gradient.infer(*types)
        return TensorType(whole.dtype, (ceildiv(types[0].shape[0], self.images), *whole.shape))


def split_gradients(graph: Graph) -> Graph:
    """The graph with gradients by kernels in parts, whose sizes do not depend on threads."""

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if not isinstance(node.op, PatchGradient):
            return None
        parts = apply(PatchParts(node.op, _images(*args)), *args)
        return apply(Sum((0,), False), parts)

    if not any(isinstance(node.op, PatchGradient) for node in graph.nodes):
        return graph
    return graph.rebuild(replace)


def _images(x: Node, g: Node) -> int:
    """How many images of both stay in cache."""
    elements = product(x.shape[1:]) + product(g.shape[1:])
    if not isinstance(elements, int):
        return 8
    return max(1, min(CACHE_BYTES // max(elements * x.dtype.itemsize, 1), 64))


def contraction(node: Node) -> ContractionItem:
    """Where the elements of a product or of a gradient lie; buffers are numbered later."""
    op = node.op
    assert isinstance(op, PatchProduct | PatchParts)
    x, other = node.args
    geometry = op.gradient if isinstance(op, PatchParts) else op
    window = node.shape[1:-2] if isinstance(op, PatchParts) else other.shape[:-2]
    channels, filters = x.shape[-1], node.shape[-1]
    flat = len(window) == 1
    rows_of_x, columns_of_x = _steps(x.shape, flat)
    stride, step = (1, *geometry.strides)[-2:]
    hole, gap = (1, *geometry.dilations)[-2:]
    high, wide = (1, *window)[-2:]
    image = product(x.shape[1:])
    beside = 1 if gap == 1 else wide  # loops over the elements of a row of a patch
    run = channels * wide if gap == 1 else channels
    if isinstance(op, PatchParts):
        _, down, across = (other.shape[0], 1, other.shape[1]) if flat else other.shape[:3]
        result = product(node.shape[1:])
        return ContractionItem(
            x.dtype, 0, 0, 0,
            (
                Axis(node.shape[0], image * op.images, product(other.shape[1:]) * op.images, result),
                Axis(high, hole * rows_of_x, 0, wide * channels * filters),
                Axis(beside, gap * columns_of_x, 0, channels * filters),
            ),
            Axis(run, 1, 0, filters),
            filters,
            (
                Axis(op.images, image, product(other.shape[1:])),
                Axis(down, stride * rows_of_x, across * filters),
                Axis(across, step * columns_of_x, filters),
            ),
            x.shape[0],
        )  # fmt: skip
    _, down, across = (node.shape[0], 1, node.shape[1]) if flat else node.shape[:3]
    return ContractionItem(
        x.dtype, 0, 0, 0,
        (
            Axis(x.shape[0], image, 0, product(node.shape[1:])),
            Axis(down, stride * rows_of_x, 0, across * filters),
            Axis(1),
        ),
        Axis(across, step * columns_of_x, 0, filters),
        filters,
        (
            Axis(high, hole * rows_of_x, wide * channels * filters),
            Axis(beside, gap * columns_of_x, channels * filters),
            Axis(run, 1, filters),
        ),
    )  # fmt: skip


def winograd(node: Node) -> WinogradItem:
    """The sizes of a product with a transformed kernel; buffers are numbered later."""
    assert isinstance(node.op, WinogradProduct)
    images, height, width, channels = node.args[0].shape
    high, across = node.shape[1:3]
    return WinogradItem(
        node.dtype, 0, 0, 0, images, (height, width), channels, (high, across), node.op.low, node.op.filters
    )


def _steps(shape: Shape, flat: bool) -> tuple[Size, Size]:
    """How far a row and an element of an image are from the next."""
    strides = strides_of(shape)
    return (0, strides[1]) if flat else (strides[1], strides[2])
