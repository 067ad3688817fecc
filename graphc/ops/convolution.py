"""Convolution in any number of dimensions, with the channels last, and its two transposes.

The three are one trilinear form, ``sum(g * conv(x, kernel))``, solved for each of its operands. Each is the derivative
of the others, so that they differentiate as often as anybody likes, and each is an operator of ONNX.

Source for all: Dumoulin and Visin 2016, https://arxiv.org/abs/1603.07285.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size, ceildiv, maximum, minimum
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    add_tangents,
    as_operands,
    explaining,
    ints,
    op_class,
    require_dtype,
)
from graphc.ops.convolving import Geometry, kernel_gradient, product_of_patches, transposed_product
from graphc.ops.movement import shown
from graphc.ops.slicing import take_range
from graphc.ops.windows import check_steps, for_each, spans

f32 = DType.float32

PADDINGS = ("valid", "same")


@dataclass(frozen=True, eq=False, repr=False)
class _Convolution(Op):
    """What the three have in common.

    Attributes:
        strides: how far the next output looks from the last one, along each axis.
        dilations: how far the elements of a kernel stand apart.
        low: how many zeros are put before x along each axis.
        groups: how many parts channels are split into, each with kernels of its own.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[Size, ...]
    groups: int

    composite = True

    def geometry(self, kernel: Shape) -> Geometry:
        """What the compiled forms need to know, for a kernel of this shape."""
        return Geometry(ints(kernel[:-2]), self.strides, self.dilations, self.low, self.groups)

    def check(self, first: TensorType, second: TensorType) -> None:
        count = len(self.strides)
        check_steps(count, strides=self.strides, dilations=self.dilations, groups=(self.groups,) * count)
        if len(self.low) != count:
            raise AxisError(f"low has {len(self.low)} counts", remedy=f"give one for each of {count} axes")
        require_dtype(first, FLOATS)
        if second.dtype is not first.dtype:
            raise DTypeError(f"operands are {first.dtype} and {second.dtype}", remedy="convert with gx.cast(x, dtype)")
        for name, type in zip(self.operands, (first, second), strict=True):
            if type.rank != count + 2:
                raise ShapeError(
                    f"{name} has {type.rank} axes, it needs {count + 2}",
                    remedy="channels come last, the batch first; a kernel is (*sizes, channels / groups, filters)",
                )

    def check_channels(self, channels: Size, per_group: Size, filters: Size) -> None:
        if per_group * self.groups != channels:
            raise ShapeError(
                f"{channels} channels in {self.groups} groups do not fit a kernel for {per_group}",
                remedy="the kernel's second to last size is channels / groups",
            )
        if isinstance(filters, int) and filters % self.groups:
            raise ShapeError(f"{filters} filters do not divide by {self.groups} groups", remedy="give a multiple")


def window_totals(counts: Sequence[Size], geometry: Geometry) -> tuple[Size, ...]:
    """How many elements of the padded axis the windows reach over."""
    rows = zip(counts, geometry.strides, geometry.spans, strict=True)
    return tuple((count - 1) * stride + span for count, stride, span in rows)


@op_class
class Conv(_Convolution):
    """Kernels slid over x: ``y[o, f] = sum over k, c of x[o * stride + k * dilation - low, c] * kernel[k, c, f]``.

    Attributes:
        strides, dilations, low, groups: see above; zeros stand before x, ``low`` of them.
        high: how many zeros are put behind x.

    Shapes: x (batch, *sizes, channels), kernel (*window, channels / groups, filters) -> (batch, *outputs, filters).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for a mix, integers or bool.
    Source: https://onnx.ai/onnx/operators/onnx__Conv.html
    """

    high: tuple[Size, ...]

    operands = ("x", "kernel")
    factors = ("x", "kernel")
    onnx = "Conv"

    def infer(self, *types: TensorType) -> TensorType:
        x, kernel = types
        self.check(x, kernel)
        self.check_channels(x.shape[-1], kernel.shape[-2], kernel.shape[-1])
        counts: list[Size] = []
        rows = zip(x.shape[1:-1], self.low, self.high, self.geometry(kernel.shape).spans, self.strides, strict=True)
        for size, low, high, span, stride in rows:
            padded = size + low + high
            if isinstance(padded, int) and padded < span:
                raise ShapeError(
                    f"a kernel that reaches over {span} elements does not fit into {padded}",
                    remedy="take a smaller kernel or less dilation, or pad",
                )
            counts.append((padded - span) // stride + 1)
        return TensorType(x.dtype, (x.shape[0], *counts, kernel.shape[-1]))

    def reference(self, x: Array, kernel: Array) -> Array:
        patches = _patches(x, self, kernel.shape[:-2], ints(self.high))
        count, groups = len(self.strides), self.groups
        parts = _split(patches, groups)
        split = _split(kernel, groups)
        result = _contract(parts, split, count)
        return _joined(result)

    def decompose(self, *args: Node) -> Node:
        x, kernel = args
        return product_of_patches(x, kernel, self.geometry(kernel.shape), self.high)

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        low, high = tuple(map(bind, self.low)), tuple(map(bind, self.high))
        return Conv(self.strides, self.dilations, low, self.groups, high)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, kernel = node.args
        back = ConvTranspose(self.strides, self.dilations, self.low, self.groups, x.shape[1:-1])
        weigh = ConvKernelGrad(
            self.strides, self.dilations, self.low, self.groups, self.high, self.geometry(kernel.shape).sizes
        )
        return (apply(back, cotangent, kernel), apply(weigh, x, cotangent))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return _bilinear(self, node, tangents)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """One to three axes, pointwise, depthwise, grouped, padded, strided, dilated; no images."""
        return tuple(
            Case(cls(strides, dilations, low, groups, high), (TensorType(f32, x), TensorType(f32, kernel)))
            for x, kernel, strides, dilations, low, high, groups in _CASES
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Channels that differ, a kernel that does not fit, too few axes, integers, an attribute missing."""
        good = cls((1,), (1,), (0,), 1, (0,))

        def t(*shape: int, dtype: DType = f32) -> TensorType:
            return TensorType(dtype, shape)

        i32 = DType.int32
        return (
            BadCase(good, (t(2, 5, 3), t(2, 4, 6)), ShapeError, ("conv", "3 channels", "for 4")),
            BadCase(good, (t(2, 5, 3), t(7, 3, 6)), ShapeError, ("conv", "over 7", "into 5", "pad")),
            BadCase(good, (t(5, 3), t(2, 3, 6)), ShapeError, ("conv", "x has 2 axes", "needs 3")),
            BadCase(good, (t(2, 5, 3, dtype=i32), t(2, 3, 6, dtype=i32)), DTypeError, ("conv", "int32", "float32")),
            BadCase(good, (t(2, 5, 3), t(2, 3, 6, dtype=DType.float64)), DTypeError, ("conv", "float64", "gx.cast")),
            BadCase(cls((1,), (1,), (0,), 2, (0,)), (t(2, 5, 4), t(2, 2, 3)), ShapeError, ("conv", "3 filters", "2 g")),
            BadCase(cls((0,), (1,), (0,), 1, (0,)), (t(2, 5, 3), t(2, 3, 6)), AxisError, ("conv", "strides")),
        )


@op_class
class ConvTranspose(_Convolution):
    """What :class:`Conv` does to x, backwards: each element of g adds a kernel times itself to the result.

    Attributes:
        strides, dilations, low, groups: those of the convolution.
        sizes: of its x.

    Shapes: g (batch, *outputs, filters), kernel (*window, channels / groups, filters) -> (batch, *sizes, channels).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for a mix, integers or bool.
    Source: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """

    sizes: tuple[Size, ...]

    operands = ("g", "kernel")
    factors = ("g", "kernel")
    onnx = "ConvTranspose"

    def infer(self, *types: TensorType) -> TensorType:
        g, kernel = types
        self.check(g, kernel)
        if g.shape[-1] != kernel.shape[-1]:
            raise ShapeError(
                f"g has {g.shape[-1]} filters, the kernel {kernel.shape[-1]}", remedy="make the last sizes equal"
            )
        channels = kernel.shape[-2] * self.groups
        self.check_channels(channels, kernel.shape[-2], kernel.shape[-1])
        if len(self.sizes) != len(self.strides):
            raise AxisError(f"sizes has {len(self.sizes)} entries", remedy=f"give one for each of {len(self.strides)}")
        return TensorType(g.dtype, (g.shape[0], *self.sizes, channels))

    def reference(self, g: Array, kernel: Array) -> Array:
        geometry = self.geometry(kernel.shape)
        sizes, low = ints(self.sizes), ints(self.low)
        counts, groups = g.shape[1:-1], self.groups
        reach = [
            max(total, first + size)
            for total, first, size in zip(ints(window_totals(counts, geometry)), low, sizes, strict=True)
        ]
        split = _split(kernel, groups)
        parts = _split(g, groups)
        result = np.zeros((g.shape[0], *reach, groups, kernel.shape[-2]), g.dtype)
        for k in np.ndindex(*geometry.sizes):
            starts = [place * dilation for place, dilation in zip(k, self.dilations, strict=True)]
            there = tuple(slice(a, a + n * s, s) for a, n, s in zip(starts, counts, self.strides, strict=True))
            result[(slice(None), *there)] += np.einsum("...gf,cgf->...gc", parts, split[k])
        inside = tuple(slice(first, first + size) for first, size in zip(low, sizes, strict=True))
        return _joined(result[(slice(None), *inside)])

    def decompose(self, *args: Node) -> Node:
        g, kernel = args
        return transposed_product(g, kernel, self.geometry(kernel.shape), self.sizes)

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        low, sizes = tuple(map(bind, self.low)), tuple(map(bind, self.sizes))
        return ConvTranspose(self.strides, self.dilations, low, self.groups, sizes)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        g, kernel = node.args
        geometry = self.geometry(kernel.shape)
        covered, high = self._covered(cotangent, g, geometry)
        again = Conv(self.strides, self.dilations, self.low, self.groups, high)
        weigh = ConvKernelGrad(self.strides, self.dilations, self.low, self.groups, high, geometry.sizes)
        return (apply(again, covered, kernel), apply(weigh, covered, g))

    def _covered(self, x: Node, g: Node, geometry: Geometry) -> tuple[Node, tuple[Size, ...]]:
        """The elements of x that the windows reach, and how many zeros are behind them."""
        high: list[Size] = []
        totals = window_totals(g.shape[1:-1], geometry)
        for axis, (total, low) in enumerate(zip(totals, self.low, strict=True), 1):
            x = take_range(x, axis, 0, minimum(x.shape[axis], total - low))
            high.append(total - low - x.shape[axis])
        return x, tuple(high)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return _bilinear(self, node, tangents)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the convolution, read backwards; elements that no window reaches."""
        found: list[Case] = []
        for x, kernel, strides, dilations, low, high, groups in _CASES:
            conv = Conv(strides, dilations, low, groups, high)
            g = conv.infer(TensorType(f32, x), TensorType(f32, kernel))
            found.append(Case(cls(strides, dilations, low, groups, x[1:-1]), (g, TensorType(f32, kernel))))
        return (
            *found,
            Case(cls((3,), (1,), (0,), 1, (9,)), (TensorType(f32, (2, 2, 3)), TensorType(f32, (2, 4, 3)))),
            Case(cls((1,), (1,), (2,), 1, (3,)), (TensorType(f32, (2, 5, 3)), TensorType(f32, (2, 4, 3)))),
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Filters that differ, a size missing."""
        good = cls((1,), (1,), (0,), 1, (6,))
        g, kernel = TensorType(f32, (2, 5, 3)), TensorType(f32, (2, 4, 6))
        return (
            BadCase(good, (g, kernel), ShapeError, ("conv_transpose", "3 filters", "kernel 6")),
            BadCase(
                cls((1,), (1,), (0,), 1, ()), (g, TensorType(f32, (2, 4, 3))), AxisError, ("conv_transpose", "sizes")
            ),
        )


@op_class
class ConvKernelGrad(_Convolution):
    """The derivative of ``sum(g * conv(x, kernel))`` by the kernel: how x and g go together at each place of a window.

    Attributes:
        strides, dilations, low, groups, high: those of the convolution.
        sizes: of the kernel's window.

    Shapes: x (batch, *sizes, channels), g (batch, *outputs, filters) -> (*window, channels / groups, filters).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for a mix, integers or bool.
    Source: https://onnx.ai/onnx/operators/onnx__Conv.html, over the batch, with strides for dilations.
    """

    high: tuple[Size, ...]
    sizes: tuple[int, ...]

    operands = ("x", "g")
    factors = ("x", "g")
    onnx = "Conv"

    def infer(self, *types: TensorType) -> TensorType:
        x, g = types
        self.check(x, g)
        check_steps(len(self.strides), sizes=self.sizes)
        channels, filters = x.shape[-1], g.shape[-1]
        per_group = channels // self.groups
        self.check_channels(channels, per_group, filters)
        conv = Conv(self.strides, self.dilations, self.low, self.groups, self.high)
        kernel = TensorType(x.dtype, (*self.sizes, per_group, filters))
        wanted = conv.infer(x, kernel)
        if wanted.shape != g.shape:
            raise ShapeError(f"g is {shown(g.shape)}, the convolution {shown(wanted.shape)}", remedy="make them equal")
        return kernel

    def reference(self, x: Array, g: Array) -> Array:
        count, groups = len(self.strides), self.groups
        patches = _patches(x, self, self.sizes, ints(self.high))
        parts = _split(patches, groups)
        split = _split(g, groups)
        outer = "n" + _OUTPUTS[:count]
        inner = _ELEMENTS[:count]
        result = np.einsum(f"{outer}{inner}gc,{outer}gf->{inner}cgf", parts, split, optimize=True)
        return _joined(result)

    def decompose(self, *args: Node) -> Node:
        x, g = args
        geometry = Geometry(self.sizes, self.strides, self.dilations, self.low, self.groups)
        return kernel_gradient(x, g, geometry, self.high)

    def with_sizes(self, bind: Callable[[Any], Any]) -> Op:
        low, high = tuple(map(bind, self.low)), tuple(map(bind, self.high))
        return ConvKernelGrad(self.strides, self.dilations, low, self.groups, high, self.sizes)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, g = node.args
        back = ConvTranspose(self.strides, self.dilations, self.low, self.groups, x.shape[1:-1])
        conv = Conv(self.strides, self.dilations, self.low, self.groups, self.high)
        return (apply(back, g, cotangent), apply(conv, x, cotangent))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return _bilinear(self, node, tangents)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the convolution, for its kernel."""
        found: list[Case] = []
        for x, kernel, strides, dilations, low, high, groups in _CASES:
            g = Conv(strides, dilations, low, groups, high).infer(TensorType(f32, x), TensorType(f32, kernel))
            found.append(Case(cls(strides, dilations, low, groups, high, kernel[:-2]), (TensorType(f32, x), g)))
        return found

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Outputs that are not the convolution's, a size missing."""
        x, g = TensorType(f32, (2, 5, 3)), TensorType(f32, (2, 3, 4))
        return (
            BadCase(cls((1,), (1,), (0,), 1, (0,), (2,)), (x, g), ShapeError, ("conv_kernel_grad", "(2, 4, 4)")),
            BadCase(cls((1,), (1,), (0,), 1, (0,), ()), (x, g), AxisError, ("conv_kernel_grad", "sizes")),
        )


_OUTPUTS, _ELEMENTS = "opqrst", "ijklm"

_Row = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], int]

_CASES: tuple[_Row, ...] = (
    # x, kernel, strides, dilations, low, high, groups
    ((2, 5, 5, 3), (3, 3, 3, 4), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    ((2, 7, 6, 3), (3, 2, 3, 5), (2, 1), (1, 2), (1, 0), (1, 2), 1),
    ((2, 8, 4), (3, 2, 6), (2,), (1,), (0,), (1,), 2),
    ((1, 4, 5, 2), (1, 1, 2, 3), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    ((2, 5, 4, 2), (1, 1, 2, 3), (2, 3), (1, 1), (0, 0), (0, 0), 1),
    ((2, 6, 5, 3), (3, 3, 1, 3), (1, 2), (1, 1), (1, 1), (1, 1), 3),
    ((2, 6, 3), (2, 1, 6), (1,), (2,), (1,), (0,), 3),
    ((1, 3, 4, 3, 2), (2, 2, 2, 2, 3), (1, 2, 1), (1, 1, 1), (0, 1, 0), (1, 0, 0), 1),
    ((2, 5, 1), (5, 1, 3), (1,), (1,), (3,), (1,), 1),
    ((0, 4, 2), (3, 2, 3), (1,), (1,), (0,), (0,), 1),
)


def _bilinear(op: Op, node: Node, tangents: Tangents) -> Node | None:
    (a, b), (da, db) = node.args, tangents
    return add_tangents([None if da is None else apply(op, da, b), None if db is None else apply(op, a, db)])


def _patches(x: Array, op: _Convolution, sizes: Sequence[int], high: Sequence[int]) -> Array:
    """The windows of the padded x: (batch, *outputs, *window, channels)."""
    from graphc.ops.windows import Windows

    low = ints(op.low)
    padded = np.pad(x, [(0, 0), *zip(low, high, strict=True), (0, 0)])
    return Windows(1, tuple(sizes), op.strides, op.dilations).reference(padded)


def _split(x: Array, groups: int) -> Array:
    """Channels apart by their groups."""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _joined(x: Array) -> Array:
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def _contract(patches: Array, kernel: Array, count: int) -> Array:
    outer, inner = "n" + _OUTPUTS[:count], _ELEMENTS[:count]
    return np.einsum(f"{outer}{inner}gc,{inner}cgf->{outer}gf", patches, kernel, optimize=True)


# what users call


def conv(
    x: Operand,
    kernel: Operand,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Any] = "valid",
    dilations: int | Sequence[int] = 1,
    groups: int = 1,
) -> Node:
    """Kernels slid over x, along all axes between the batch and the channels.

    Args:
        x: channels last.
        kernel: its window, the channels of a group, the filters.
        strides: how far the next output looks from the last one.
        padding: "valid" for none, "same" for as many outputs as inputs (divided by the stride), or the number of zeros
            before and behind each axis: an int or a pair for each.
        dilations: how far the elements of a kernel stand apart.
        groups: how many parts channels and filters are split into.

    Shapes: x (batch, *sizes, channels), kernel (*window, channels / groups, filters) -> (batch, *outputs, filters).
    Raises: ShapeError; AxisError; DTypeError.
    Source: Keras ``ops.conv``; https://onnx.ai/onnx/operators/onnx__Conv.html

    >>> import graphc as gx
    >>> gx.conv(gx.placeholder("x", ("n", 28, 28, 1)), gx.placeholder("k", (5, 5, 1, 6)), padding="same")
    <conv: f32[n, 28, 28, 6]>
    """
    with explaining("conv", *(value for value in (x, kernel) if isinstance(value, Node))):
        image, weights = as_operands(x, kernel)
        count = image.ndim - 2
        if count < 1 or weights.ndim != image.ndim:
            raise ShapeError(
                f"x has {image.ndim} axes, the kernel {weights.ndim}",
                remedy="give x (batch, *sizes, channels) and a kernel (*window, channels / groups, filters)",
            )
        steps, apart = for_each("strides", strides, count), for_each("dilations", dilations, count)
        window = ints(weights.shape[:-2])
        low, high = paddings(padding, image.shape[1:-1], window, steps, apart)
        return apply(Conv(steps, apart, low, groups, high), image, weights)


def paddings(
    padding: str | Sequence[Any], sizes: Sequence[Size], window: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[Size, ...], tuple[Size, ...]]:  # fmt: skip
    """How many elements are put before and behind each axis.

    Raises:
        AxisError: the padding is none.
    """
    count = len(sizes)
    if isinstance(padding, str):
        if padding not in PADDINGS:
            raise AxisError(f"there is no padding {padding!r}", remedy=f"use {' or '.join(PADDINGS)}, or numbers")
        if padding == "valid":
            return (0,) * count, (0,) * count
        rows = [_same(*row) for row in zip(sizes, spans(window, dilations), strides, strict=True)]
    else:
        given = (padding,) * count if isinstance(padding, int) else tuple(padding)
        pairs = [(entry, entry) if isinstance(entry, int) else tuple(entry) for entry in given]
        if len(pairs) != count or any(len(pair) != 2 for pair in pairs):
            raise AxisError(f"padding is {padding!r}", remedy=f"give a number or a pair for each of {count} axes")
        if any(isinstance(size, int) and size < 0 for pair in pairs for size in pair):
            raise AxisError(f"padding is {padding!r}", remedy="give counts from 0 on, and cut with x[...] or gx.pad")
        rows = [(low, high) for low, high in pairs]
    return tuple(low for low, _ in rows), tuple(high for _, high in rows)


def _same(size: Size, span: int, stride: int) -> tuple[Size, Size]:
    total = (ceildiv(size, stride) - 1) * stride + span - size
    if span < stride:
        total = maximum(total, 0)
    return total // 2, total - total // 2


def conv_transpose(
    x: Operand,
    kernel: Operand,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[Any] = "valid",
    output_padding: int | Sequence[int] | None = None,
    dilations: int | Sequence[int] = 1,
    groups: int = 1,
) -> Node:
    """The transpose of a convolution: each element of x adds a kernel times itself to the result.

    Args:
        x: channels last.
        kernel: its window, the channels of the result in a group, the channels of x.
        strides: how far the kernels of neighbouring elements are apart.
        padding: that of the convolution: "valid", "same", or numbers; it is taken away from the result.
        output_padding: how many elements are added at the end; None for the sizes that Keras gives.
        dilations: how far the elements of a kernel stand apart.
        groups: how many parts channels are split into.

    Shapes: x (batch, *sizes, filters), kernel (*window, channels / groups, filters) -> (batch, *outputs, channels);
    an output is size * stride for "same".
    Raises: ShapeError; AxisError; DTypeError.
    Source: Keras ``ops.conv_transpose``; https://onnx.ai/onnx/operators/onnx__ConvTranspose.html

    >>> import graphc as gx
    >>> gx.conv_transpose(gx.placeholder("x", ("n", 7, 7, 8)), gx.placeholder("k", (3, 3, 4, 8)), 2, "same")
    <conv_transpose: f32[n, 14, 14, 4]>
    """
    with explaining("conv_transpose", *(value for value in (x, kernel) if isinstance(value, Node))):
        image, weights = as_operands(x, kernel)
        count = image.ndim - 2
        if count < 1 or weights.ndim != image.ndim:
            raise ShapeError(
                f"x has {image.ndim} axes, the kernel {weights.ndim}",
                remedy="give x (batch, *sizes, filters) and a kernel (*window, channels / groups, filters)",
            )
        steps, apart = for_each("strides", strides, count), for_each("dilations", dilations, count)
        window = ints(weights.shape[:-2])
        added = (None,) * count if output_padding is None else _counts("output_padding", output_padding, count)
        low, sizes = _transposed_sizes(image.shape[1:-1], window, steps, apart, padding, added)
        return apply(ConvTranspose(steps, apart, low, groups, sizes), image, weights)


def _counts(name: str, given: int | Sequence[int], count: int) -> tuple[int, ...]:
    values = (given,) * count if isinstance(given, int) else tuple(given)
    if len(values) != count or any(value < 0 for value in values):
        raise AxisError(f"{name} is {given!r}", remedy=f"give {count} whole numbers from 0 on")
    return values


def _transposed_sizes(
    sizes: Sequence[Size], window: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    padding: str | Sequence[Any], added: Sequence[int | None],
) -> tuple[tuple[Size, ...], tuple[Size, ...]]:  # fmt: skip
    """The padding in front that is taken away, and the sizes of the result, as Keras counts them."""
    reach = spans(window, dilations)
    if not isinstance(padding, str):
        low, high = paddings(padding, sizes, window, strides, dilations)
        rows = zip(sizes, strides, reach, low, high, added, strict=True)
        return low, tuple((n - 1) * s + span - a - b + (extra or 0) for n, s, span, a, b, extra in rows)
    if padding not in PADDINGS:
        raise AxisError(f"there is no padding {padding!r}", remedy=f"use {' or '.join(PADDINGS)}, or numbers")
    first: list[Size] = []
    found: list[Size] = []
    for size, stride, span, extra in zip(sizes, strides, reach, added, strict=True):
        if padding == "valid":
            first.append(0)
            found.append((size - 1) * stride + span + (max(stride - span, 0) if extra is None else extra))
        elif extra is None:
            first.append(max(span - stride, 0) // 2)
            found.append(size * stride)
        else:
            around = span + span % 2 - 2 + extra
            first.append(span - 1 - min(around - around // 2, span - 1))
            found.append((size - 1) * stride + span % 2 + extra)
    return tuple(first), tuple(found)


__all__ = ["Conv", "ConvKernelGrad", "ConvTranspose", "conv", "conv_transpose"]
