"""How convolutions are computed: as products of patches with kernels.

A kernel of a single element is a product over all pixels. One for each channel alone is a sum over windows, a kernel of
its own that reads every element out of cache. What has no groups becomes products of patches (``patches``), which a
backend may compute where they lie. Groups copy the windows of one image side by side, where they stay in cache, and
multiply them by the kernels; the images go by in a loop, so that no more than one is ever spread out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.dims import Size, ceildiv, product
from graphc.ir.node import Node, apply
from graphc.ir.types import Shape
from graphc.ops.base import ints
from graphc.ops.create import zeros
from graphc.ops.linear import MatMul
from graphc.ops.movement import Concatenate, Flip, reshape, transpose
from graphc.ops.patches import PatchGradient, PatchProduct, for_each_image, over_images
from graphc.ops.reduction import Sum
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
    if geometry.is_pointwise(high) and max(geometry.strides) == 1:
        flat = apply(MatMul(), _rows(x), reshape(kernel, kernel.shape[-2:]))
        return reshape(flat, (*x.shape[:-1], kernel.shape[-1]))
    if geometry.groups == 1:
        return apply(PatchProduct(geometry.strides, geometry.dilations), padded(x, 1, geometry, high), kernel)
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

    flat = for_each_image(one, x)
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
    if geometry.groups == 1 and all(isinstance(low, int) for low in geometry.low):
        if max(geometry.strides) == 1:
            return _flipped_product(g, kernel, geometry.spans, geometry.dilations, geometry.low, sizes)
        if max(geometry.dilations) == 1:
            return _product_by_phases(g, kernel, geometry, sizes)
    matrix = _kernel_matrix(kernel, geometry)
    outputs = g.shape[1:-1]
    fold = FoldWindows(0, sizes, geometry.strides, geometry.dilations, geometry.low)

    def one(image: Node) -> Node:
        columns = apply(MatMul(), _grouped(_rows(image), geometry), _swapped(matrix))
        if geometry.groups > 1:  # (groups, pixels, elements * channels of a group)
            split = reshape(columns, (geometry.groups, columns.shape[1], geometry.elements, kernel.shape[-2]))
            columns = transpose(split, (1, 2, 0, 3))
        return apply(fold, reshape(columns, (*outputs, *geometry.sizes, channels)))

    return for_each_image(one, g)


def kernel_gradient(x: Node, g: Node, geometry: Geometry, high: Sequence[Size]) -> Node:
    """The transpose of the convolution by its kernel."""
    count, groups = len(geometry.sizes), geometry.groups
    channels, filters = x.shape[-1], g.shape[-1]
    per_group = channels // groups
    shape = (*geometry.sizes, per_group, filters)
    if geometry.is_pointwise(high) and max(geometry.strides) == 1:
        return reshape(apply(MatMul(), transpose(_rows(x), (1, 0)), _rows(g)), shape)
    if groups == 1:
        gradient = PatchGradient(geometry.strides, geometry.dilations, geometry.sizes)
        return apply(gradient, padded(x, 1, geometry, high), g)
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

    first = zeros((groups, per_group * geometry.elements, filters // groups), x.dtype)
    total = over_images(one, first, x, g)
    split = reshape(total, (groups, geometry.elements, per_group, filters // groups))
    return reshape(transpose(split, (1, 2, 0, 3)), shape)


# the transpose as products of patches


def _flipped_product(
    g: Node, kernel: Node, reach: Sequence[int], dilations: tuple[int, ...], low: Sequence[Size], sizes: Sequence[Size]
) -> Node:
    """The transpose for strides of 1: each element of the result is a patch of g times the kernel read backwards."""
    count = len(reach)
    totals = [size + span - 1 for size, span in zip(sizes, reach, strict=True)]
    before = [span - 1 - first for span, first in zip(reach, low, strict=True)]
    turned = _swapped(apply(Flip(tuple(range(count))), kernel))
    return apply(PatchProduct((1,) * count, dilations), fit(g, 1, totals, before), turned)


def _product_by_phases(g: Node, kernel: Node, geometry: Geometry, sizes: Sequence[Size]) -> Node:
    """The transpose for strides: every stride-th element of the result is a transpose of its own.

    Of the kernel it meets every stride-th element. The parts are as long as the longest and then put into each other.
    """
    strides, count = geometry.strides, len(sizes)
    counts = tuple(ceildiv(size, stride) for size, stride in zip(sizes, strides, strict=True))

    def part(phase: tuple[int, ...]) -> Node:
        places = [at + low for at, low in zip(phase, ints(geometry.low), strict=True)]
        firsts = [place % stride for place, stride in zip(places, strides, strict=True)]
        taken = tuple(
            -(-(size - first) // stride) for size, first, stride in zip(geometry.sizes, firsts, strides, strict=True)
        )
        if min(taken) < 1:
            return zeros((g.shape[0], *counts, kernel.shape[-2]), g.dtype)
        every = Slice((*firsts, 0, 0), kernel.shape, (*strides, 1, 1))
        low = [(place - first) // stride for place, first, stride in zip(places, firsts, strides, strict=True)]
        return _flipped_product(g, apply(every, kernel), taken, (1,) * count, low, counts)

    def join(phase: tuple[int, ...]) -> Node:
        axis = len(phase)
        if axis == count:
            return part(phase)
        parts = [join((*phase, at)) for at in range(strides[axis])]
        shape = parts[0].shape
        split = [reshape(found, (*shape[: 2 + axis], 1, *shape[2 + axis :])) for found in parts]
        whole = apply(Concatenate(2 + axis), *split) if len(split) > 1 else split[0]
        return reshape(whole, (*shape[: 1 + axis], shape[1 + axis] * strides[axis], *shape[2 + axis :]))

    return fit(join(()), 1, sizes)


# the pieces


def _rows(x: Node) -> Node:
    """All pixels below each other."""
    return reshape(x, (product(x.shape[:-1]), x.shape[-1]))


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
