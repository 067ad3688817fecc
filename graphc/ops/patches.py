"""Convolution without padding and groups, and its derivative by the kernel: what a backend may compute where it lies.

A backend that takes them whole multiplies patches of x as they lie in memory by the kernel, without copying them side
by side. All others get a loop over images (``convolving``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dims import product
from graphc.ir.node import Node, apply
from graphc.ir.op import Absent, Op
from graphc.ir.sweep import Part
from graphc.ir.types import DType, TensorType
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Tangents,
    add_tangents,
    ints,
    op_class,
    require_dtype,
)
from graphc.ops.create import zeros
from graphc.ops.linear import MatMul
from graphc.ops.movement import reshape, shown, transpose
from graphc.ops.scan import make_scan, stand_in
from graphc.ops.windows import FoldWindows, Windows, check_steps, window_counts

f32 = DType.float32


@dataclass(frozen=True, eq=False, repr=False)
class _Patches(Op):
    """What both have in common.

    Attributes:
        strides: how far the next patch is from the last one, along each axis.
        dilations: how far the elements of a patch stand apart.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    composite = True

    def check(self, first: TensorType, second: TensorType) -> None:
        count = len(self.strides)
        check_steps(count, strides=self.strides, dilations=self.dilations)
        require_dtype(first, FLOATS)
        for name, type in zip(self.operands, (first, second), strict=True):
            if type.rank != count + 2 or type.dtype is not first.dtype:
                raise ShapeError(
                    f"{name} is {type}, it needs {count + 2} axes of {first.dtype}",
                    remedy="channels come last, the batch first; a kernel is (*window, channels, filters)",
                )

    def patches(self, x: Node, sizes: Sequence[int]) -> Node:
        """Those of one image as rows: (patches, elements * channels)."""
        count = len(sizes)
        found = apply(Windows(0, tuple(sizes), self.strides, self.dilations), x)
        return reshape(found, (product(found.shape[:count]), product(found.shape[count:])))


@op_class
class PatchProduct(_Patches):
    """Each patch of x times the kernel: ``y[o, f] = sum over k, c of x[o * stride + k * step, c] * kernel[k, c, f]``.

    Shapes: x (batch, *sizes, channels), kernel (*window, channels, filters) -> (batch, *patches, filters).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for integers or bool.
    Source: https://arxiv.org/abs/1603.07285, without padding.
    """

    operands = ("x", "kernel")
    factors = ("x", "kernel")
    onnx = Absent.NO_ONNX_FORM

    def infer(self, *types: TensorType) -> TensorType:
        x, kernel = types
        self.check(x, kernel)
        if x.shape[-1] != kernel.shape[-2]:
            raise ShapeError(
                f"x has {x.shape[-1]} channels, the kernel {kernel.shape[-2]}", remedy="make the two sizes equal"
            )
        counts = window_counts(x.shape[1:-1], ints(kernel.shape[:-2]), self.strides, self.dilations)
        return TensorType(x.dtype, (x.shape[0], *counts, kernel.shape[-1]))

    def reference(self, x: Array, kernel: Array) -> Array:
        count = len(self.strides)
        found = Windows(1, kernel.shape[:-2], self.strides, self.dilations).reference(x)
        return np.tensordot(found, kernel, count + 1)

    def decompose(self, *args: Node) -> Node:
        x, kernel = args
        matrix = reshape(kernel, (product(kernel.shape[:-1]), kernel.shape[-1]))
        sizes = ints(kernel.shape[:-2])

        def one(image: Node) -> Node:
            return apply(MatMul(), self.patches(image, sizes), matrix)

        return reshape(for_each_image(one, x), self.infer(x.type, kernel.type).shape)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, kernel = node.args
        count = len(self.strides)
        sizes = ints(kernel.shape[:-2])
        columns = apply(
            MatMul(),
            reshape(cotangent, (product(cotangent.shape[:-1]), cotangent.shape[-1])),
            transpose(reshape(kernel, (product(kernel.shape[:-1]), kernel.shape[-1])), (1, 0)),
        )
        spread = reshape(columns, (*cotangent.shape[:-1], *sizes, x.shape[-1]))
        back = FoldWindows(1, x.shape[1:-1], self.strides, self.dilations, (0,) * count)
        return (apply(back, spread), apply(PatchGradient(self.strides, self.dilations, sizes), x, cotangent))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return _bilinear(self, node, tangents)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """One and two axes; narrow and wide, strided, with holes, of one element; no whole tiles; no filters."""
        return tuple(
            Case(cls(strides, dilations), (TensorType(f32, x), TensorType(f32, kernel)))
            for x, kernel, strides, dilations in _CASES
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Channels that differ, a kernel that does not fit, too few axes."""
        good = cls((1,), (1,))

        def t(*shape: int) -> TensorType:
            return TensorType(f32, shape)

        return (
            BadCase(good, (t(2, 5, 3), t(2, 4, 6)), ShapeError, ("patch_product", "3 channels", "kernel 4")),
            BadCase(good, (t(2, 5, 3), t(7, 3, 6)), ShapeError, ("patch_product", "over 7", "into 5")),
            BadCase(good, (t(5, 3), t(2, 3, 6)), ShapeError, ("patch_product", "it needs 3 axes")),
        )


@op_class
class PatchGradient(_Patches):
    """How patches and g go together: ``d[k, c, f] = sum over n, o of x[n, o * stride + k * step, c] * g[n, o, f]``.

    Attributes:
        strides, dilations: those of the patches.
        sizes: of a patch.

    Shapes: x (batch, *sizes, channels), g (batch, *patches, filters) -> (*window, channels, filters).
    Raises: ShapeError; AxisError for attributes that do not fit; DTypeError for integers or bool.
    Source: https://arxiv.org/abs/1603.07285, the derivative of :class:`PatchProduct` by its kernel.
    """

    sizes: tuple[int, ...]

    operands = ("x", "g")
    factors = ("x", "g")
    onnx = Absent.NO_ONNX_FORM

    def infer(self, *types: TensorType) -> TensorType:
        x, g = types
        self.check(x, g)
        check_steps(len(self.strides), sizes=self.sizes)
        wanted = (x.shape[0], *window_counts(x.shape[1:-1], self.sizes, self.strides, self.dilations), g.shape[-1])
        if g.shape != wanted:
            raise ShapeError(f"g is {shown(g.shape)}, patches are {shown(wanted)}", remedy="make them equal")
        return TensorType(x.dtype, (*self.sizes, x.shape[-1], g.shape[-1]))

    def reference(self, x: Array, g: Array) -> Array:
        count = len(self.sizes)
        found = Windows(1, self.sizes, self.strides, self.dilations).reference(x)
        axes = list(range(count + 1))
        return np.tensordot(found, g, (axes, axes))

    def decompose(self, *args: Node) -> Node:
        x, g = args
        shape = self.infer(x.type, g.type).shape

        def one(total: Node, image: Node, given: Node) -> Node:
            rows = reshape(given, (product(given.shape[:-1]), given.shape[-1]))
            return total + apply(MatMul(), transpose(self.patches(image, self.sizes), (1, 0)), rows)

        first = zeros((product(shape[:-1]), shape[-1]), x.dtype)
        return reshape(over_images(one, first, x, g), shape)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, g = node.args
        by_x, _ = PatchProduct(self.strides, self.dilations).vjp(_product_of(self, x, cotangent), g)
        return (by_x, _product_of(self, x, cotangent))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return _bilinear(self, node, tangents)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Those of the product, by its kernel."""
        found: list[Case] = []
        for x, kernel, strides, dilations in _CASES:
            g = PatchProduct(strides, dilations).infer(TensorType(f32, x), TensorType(f32, kernel))
            found.append(Case(cls(strides, dilations, ints(kernel[:-2])), (TensorType(f32, x), g)))
        return found

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Patches that are not those of x, a size missing."""
        x, g = TensorType(f32, (2, 5, 3)), TensorType(f32, (2, 3, 4))
        return (BadCase(cls((1,), (1,), (2,)), (x, g), ShapeError, ("patch_gradient", "(2, 4, 4)")),)


def _product_of(op: PatchGradient, x: Node, kernel: Node) -> Node:
    return apply(PatchProduct(op.strides, op.dilations), x, kernel)


_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    # x, kernel, strides, dilations
    ((2, 6, 9, 3), (3, 3, 3, 5), (1, 1), (1, 1)),
    ((2, 7, 20, 2), (3, 2, 2, 18), (2, 1), (1, 2)),
    ((1, 9, 9, 5), (2, 3, 5, 70), (1, 2), (3, 1)),
    ((2, 30, 17), (4, 17, 33), (1,), (1,)),
    ((2, 5, 6, 20), (1, 1, 20, 3), (2, 3), (1, 1)),
    ((2, 4, 2), (3, 2, 0), (1,), (1,)),
)


def _bilinear(op: Op, node: Node, tangents: Tangents) -> Node | None:
    (a, b), (da, db) = node.args, tangents
    return add_tangents([None if da is None else apply(op, da, b), None if db is None else apply(op, a, db)])


# loops over images


def for_each_image(fn: Callable[[Node], Node], x: Node) -> Node:
    """``fn`` of each image, stacked."""
    image = stand_in("image", TensorType(x.dtype, x.shape[1:]))
    whole = make_scan([], [image], [], [fn(image)], [], [x], x.shape[0])
    return apply(Part(0), whole)


def over_images(fn: Callable[[Node, Node, Node], Node], first: Node, x: Node, g: Node) -> Node:
    """A sum over the images of two tensors."""
    total = stand_in("total", first.type)
    image = stand_in("image", TensorType(x.dtype, x.shape[1:]))
    given = stand_in("given", TensorType(g.dtype, g.shape[1:]))
    whole = make_scan([total], [image, given], [fn(total, image, given)], [], [first], [x, g], x.shape[0])
    return apply(Part(0), whole)


__all__: list[str] = []
