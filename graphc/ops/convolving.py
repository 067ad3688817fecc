"""How convolutions are computed: as products of matrices, one image at a time.

A kernel of a single element is a product over all pixels. One for each channel alone is a sum over windows, a kernel of
its own that reads every element out of cache. All others copy the windows of one image side by side, where they stay in
cache, and multiply them by the kernels; the images go by in a loop, so that no more than one is ever spread out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.dims import Size, product
from graphc.ir.node import Node, apply
from graphc.ir.sweep import Part
from graphc.ir.types import Shape, TensorType
from graphc.ops.create import zeros
from graphc.ops.linear import MatMul
from graphc.ops.movement import Flip, reshape, transpose
from graphc.ops.reduction import Sum
from graphc.ops.scan import make_scan, stand_in
from graphc.ops.slicing import Slice
from graphc.ops.windows import FoldWindows, Windows, fit, spans, spread_windows


@dataclass(frozen=True)
class Geometry:
    """Where a kernel looks.

    Attributes:
        sizes: of its window.
        strides, dilations, low, groups: those of the convolution.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]
    groups: int

    @cached_property
    def spans(self) -> tuple[int, ...]:
        """How far a window reaches."""
        return spans(self.sizes, self.dilations)

    @cached_property
    def elements(self) -> int:
        """How many elements a window has, of one channel."""
        count = 1
        for size in self.sizes:
            count *= size
        return count

    def is_pointwise(self, edges: Sequence[Size]) -> bool:
        """Does a window hold a single element of x, with nothing but x around?"""
        return self.elements == 1 and self.groups == 1 and all(edge == 0 for edge in (*self.low, *edges))

    def is_depthwise(self, channels_per_group: Size) -> bool:
        """Has each channel its own kernels?"""
        return self.groups > 1 and channels_per_group == 1


def padded(x: Node, axis: int, geometry: Geometry, high: Sequence[Size]) -> Node:
    """x between its zeros; the axes of windows begin at ``axis``."""
    rows = zip(x.shape[axis:], geometry.low, high, strict=False)
    return fit(x, axis, [size + low + above for size, low, above in rows], geometry.low)


def windows_of(x: Node, axis: int, geometry: Geometry, high: Sequence[Size]) -> Node:
    """The windows of the padded x."""
    return apply(Windows(axis, geometry.sizes, geometry.strides, geometry.dilations), padded(x, axis, geometry, high))


# the convolution


def product_of_patches(x: Node, kernel: Node, geometry: Geometry, high: Sequence[Size]) -> Node:
    """The convolution."""
    if geometry.is_pointwise(high):
        pixels = _every(x, geometry.strides)
        flat = apply(MatMul(), _rows(pixels), reshape(kernel, kernel.shape[-2:]))
        return reshape(flat, (*pixels.shape[:-1], kernel.shape[-1]))
    if geometry.is_depthwise(kernel.shape[-2]):
        patches = windows_of(x, 1, geometry, high)
        count = len(geometry.sizes)
        outputs = patches.shape[: 1 + count]
        channels, filters = x.shape[-1], kernel.shape[-1]
        axes = tuple(range(1 + count, 1 + 2 * count))
        weights = _by_channel(kernel, geometry, channels)
        if filters != channels:
            patches = reshape(patches, (*patches.shape, 1))
        return reshape(apply(Sum(axes, False), patches * weights), (*outputs, filters))
    matrix = _kernel_matrix(kernel, geometry)

    def one(image: Node) -> Node:
        patches = windows_of(image, 0, geometry, high)
        return _ungrouped(apply(MatMul(), _patch_matrix(patches, geometry), matrix), geometry)

    flat = _for_each_image(one, x)
    counts = _counts(x, geometry, high)
    return reshape(flat, (x.shape[0], *counts, kernel.shape[-1]))


def transposed_product(g: Node, kernel: Node, geometry: Geometry, sizes: Sequence[Size]) -> Node:
    """The transpose of the convolution by its input."""
    count = len(geometry.sizes)
    filters, channels = kernel.shape[-1], kernel.shape[-2] * geometry.groups
    sizes = tuple(sizes)
    if geometry.is_pointwise(()):
        flat = apply(MatMul(), _rows(g), transpose(reshape(kernel, kernel.shape[-2:]), (1, 0)))
        fold = FoldWindows(1, sizes, geometry.strides, geometry.dilations, geometry.low)
        pixels = reshape(flat, (*g.shape[:-1], *(1 for _ in sizes), channels))
        return apply(fold, pixels)
    if geometry.is_depthwise(kernel.shape[-2]):
        given = spread_windows(g, 1, sizes, geometry.sizes, geometry.strides, geometry.dilations, geometry.low)
        weights = apply(Flip(tuple(range(count))), _by_channel(kernel, geometry, channels))
        axes = tuple(range(1 + count, 1 + 2 * count))
        if filters != channels:
            given = reshape(given, (*given.shape[:-1], *weights.shape[count:]))
            axes = (*axes, 2 + 2 * count)
        return apply(Sum(axes, False), given * weights)
    matrix = _kernel_matrix(kernel, geometry)
    outputs = g.shape[1:-1]
    fold = FoldWindows(0, sizes, geometry.strides, geometry.dilations, geometry.low)

    def one(image: Node) -> Node:
        columns = apply(MatMul(), _grouped(_rows(image), geometry), _swapped(matrix))
        if geometry.groups > 1:  # (groups, pixels, elements * channels of a group)
            split = reshape(columns, (geometry.groups, columns.shape[1], geometry.elements, kernel.shape[-2]))
            columns = transpose(split, (1, 2, 0, 3))
        return apply(fold, reshape(columns, (*outputs, *geometry.sizes, channels)))

    return _for_each_image(one, g)


def kernel_gradient(x: Node, g: Node, geometry: Geometry, high: Sequence[Size]) -> Node:
    """The transpose of the convolution by its kernel."""
    count, groups = len(geometry.sizes), geometry.groups
    channels, filters = x.shape[-1], g.shape[-1]
    per_group = channels // groups
    shape = (*geometry.sizes, per_group, filters)
    if geometry.is_pointwise(high):
        pixels = _rows(_every(x, geometry.strides))
        return reshape(apply(MatMul(), transpose(pixels, (1, 0)), _rows(g)), shape)
    if geometry.is_depthwise(per_group):
        patches = windows_of(x, 1, geometry, high)
        ones = (1,) * count
        if filters == channels:
            given = reshape(g, (*g.shape[:-1], *ones, channels))
        else:
            patches = reshape(patches, (*patches.shape, 1))
            given = reshape(g, (*g.shape[:-1], *ones, channels, filters // channels))
        return reshape(apply(Sum(tuple(range(1 + count)), False), patches * given), shape)

    def one(total: Node, image: Node, given: Node) -> Node:
        patches = _patch_matrix(windows_of(image, 0, geometry, high), geometry)
        return total + apply(MatMul(), _swapped(patches), _grouped(_rows(given), geometry))

    wide = per_group * geometry.elements
    first = zeros((wide, filters) if groups == 1 else (groups, wide, filters // groups), x.dtype)
    total = _over_images(one, first, x, g)
    if groups == 1:
        return reshape(total, shape)
    split = reshape(total, (groups, geometry.elements, per_group, filters // groups))
    return reshape(transpose(split, (1, 2, 0, 3)), shape)


# the pieces


def _for_each_image(fn: Callable[[Node], Node], x: Node) -> Node:
    """``fn`` of each image, stacked."""
    image = stand_in("image", TensorType(x.dtype, x.shape[1:]))
    whole = make_scan([], [image], [], [fn(image)], [], [x], x.shape[0])
    return apply(Part(0), whole)


def _over_images(fn: Callable[[Node, Node, Node], Node], first: Node, x: Node, g: Node) -> Node:
    """A sum over the images of two tensors."""
    total = stand_in("total", first.type)
    image = stand_in("image", TensorType(x.dtype, x.shape[1:]))
    given = stand_in("given", TensorType(g.dtype, g.shape[1:]))
    whole = make_scan([total], [image, given], [fn(total, image, given)], [], [first], [x, g], x.shape[0])
    return apply(Part(0), whole)


def _rows(x: Node) -> Node:
    """All pixels below each other."""
    return reshape(x, (product(x.shape[:-1]), x.shape[-1]))


def _every(x: Node, strides: Sequence[int]) -> Node:
    """The pixels that windows of a single element look at."""
    if all(stride == 1 for stride in strides):
        return x
    return apply(Slice((0,) * x.ndim, x.shape, (1, *strides, 1)), x)


def _counts(x: Node, geometry: Geometry, high: Sequence[Size]) -> Shape:
    rows = zip(x.shape[1:-1], geometry.low, high, geometry.spans, geometry.strides, strict=True)
    return tuple((size + low + above - span) // stride + 1 for size, low, above, span, stride in rows)


def _patch_matrix(patches: Node, geometry: Geometry) -> Node:
    """Windows of an image as rows: (pixels, elements * channels), or that for each group."""
    count = len(geometry.sizes)
    pixels, channels = product(patches.shape[:count]), patches.shape[-1]
    if geometry.groups == 1:
        return reshape(patches, (pixels, channels * geometry.elements))
    per_group = channels // geometry.groups
    split = reshape(patches, (pixels, geometry.elements, geometry.groups, per_group))
    return reshape(transpose(split, (2, 0, 1, 3)), (geometry.groups, pixels, per_group * geometry.elements))


def _kernel_matrix(kernel: Node, geometry: Geometry) -> Node:
    """Kernels as columns: (elements * channels, filters), or that for each group."""
    per_group, filters = kernel.shape[-2:]
    flat = reshape(kernel, (per_group * geometry.elements, filters))
    return _grouped(flat, geometry)


def _grouped(x: Node, geometry: Geometry) -> Node:
    """The columns of each group as a matrix of its own."""
    if geometry.groups == 1:
        return x
    split = reshape(x, (x.shape[0], geometry.groups, x.shape[1] // geometry.groups))
    return transpose(split, (1, 0, 2))


def _ungrouped(x: Node, geometry: Geometry) -> Node:
    """The columns of all groups side by side."""
    if geometry.groups == 1:
        return x
    return reshape(transpose(x, (1, 0, 2)), (x.shape[1], x.shape[0] * x.shape[2]))


def _by_channel(kernel: Node, geometry: Geometry, channels: Size) -> Node:
    """Kernels of single channels: (*window, channels), and an axis for the filters of one if there are several."""
    filters = kernel.shape[-1]
    if filters == channels:
        return reshape(kernel, (*geometry.sizes, channels))
    return reshape(kernel, (*geometry.sizes, channels, filters // channels))


def _swapped(x: Node) -> Node:
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


__all__: list[str] = []
