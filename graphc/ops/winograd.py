"""Convolution with a kernel of 3 x 3 elements by fewer products: Winograd's minimal filtering of 2 x 2 results.

A tile of 4 x 4 elements of x and the kernel are transformed by additions and halvings; their product, element by
element and summed over channels, transformed back is 2 x 2 results: 16 multiplications where there were 36. No factor
is other than 1 or 1/2, so that rounding costs about what it does in the sum itself.

An infinity or NaN in a tile makes all four results NaN, while the convolution has them where its windows look.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.dims import Size, ceildiv, product
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Absent, Op
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.base import FLOATS, Array, BadCase, Case, Tangents, add_tangents, ints, op_class, require_dtype
from graphc.ops.linear import MatMul, swap_last
from graphc.ops.movement import broadcast_to, reshape, shown, transpose
from graphc.ops.slicing import Slice
from graphc.ops.windows import FoldWindows, Windows, fit, window_counts

f32 = DType.float32

PANEL = 32
"""So many filters of one element of the transformed kernel lie side by side."""
TILE = 16
"""Elements of a tile, and of a transformed kernel."""
BEFORE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
"""Of x, from both sides."""
AFTER = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)
"""Of the product, from both sides."""
KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
"""Of the kernel, from both sides."""


@op_class
class WinogradProduct(Op):
    """A convolution of steps of 1 with a kernel of 3 x 3 elements that :func:`winograd_kernel` has transformed.

    Attributes:
        low, high: zeros around x, before and after the elements of its two axes.
        filters: how many there are; the last panel is filled up.

    Shapes: x (batch, height, width, channels), kernel (panels, 16, channels, 32) -> (batch, height + low + high - 2,
        width + low + high - 2, filters).
    Raises: ShapeError; DTypeError for integers or bool.
    Source: https://arxiv.org/abs/1509.09308, section 4.1
    """

    low: tuple[int, int]
    high: tuple[int, int]
    filters: int

    operands = ("x", "kernel")
    onnx = Absent.NO_ONNX_FORM
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        x, kernel = types
        require_dtype(x, FLOATS)
        if x.rank != 4 or kernel.rank != 4 or kernel.dtype is not x.dtype:
            raise ShapeError(f"x is {x}, the kernel {kernel}", remedy="both need 4 axes of one element type")
        wanted = (ceildiv(self.filters, PANEL), TILE, x.shape[3], PANEL)
        if kernel.shape != wanted:
            raise ShapeError(
                f"the kernel has shape {shown(kernel.shape)}, {self.filters} filters need {shown(wanted)}",
                remedy="transform it by winograd_kernel",
            )
        return TensorType(x.dtype, (x.shape[0], *self._counts(x.shape), self.filters))

    def reference(self, x: Array, kernel: Array) -> Array:
        high, wide = ints(self._counts(x.shape))
        down, across = (max(-(-count // 2), 0) for count in (high, wide))
        before, after = BEFORE.astype(x.dtype), AFTER.astype(x.dtype)
        grown = np.zeros((x.shape[0], 2 * down + 2, 2 * across + 2, x.shape[3]), x.dtype)
        (top, left), (rows, columns) = self.low, x.shape[1:3]
        inside = grown[:, top : top + rows, left : left + columns]
        inside[...] = x[:, : inside.shape[1], : inside.shape[2]]
        tiles = np.lib.stride_tricks.sliding_window_view(grown, (4, 4), (1, 2))[:, ::2, ::2]  # n, y, x, c, 4, 4
        found = before @ tiles @ before.T
        products = np.einsum("nyxcij,pijcf->nyxpfij", found, kernel.reshape(kernel.shape[0], 4, 4, *kernel.shape[2:]))
        results = np.moveaxis(after @ products @ after.T, (5, 6), (2, 4))
        whole = results.reshape(x.shape[0], 2 * down, 2 * across, kernel.shape[0] * PANEL)
        return np.ascontiguousarray(whole[:, : max(high, 0), : max(wide, 0), : self.filters])

    def decompose(self, *args: Node) -> Node:
        x, kernel = args
        shape = self.infer(x.type, kernel.type).shape
        down, across = _tiles(shape)
        columns = kernel.shape[0] * PANEL
        products = apply(MatMul(), self._transformed(x, shape), _matrices(kernel))
        results = _times(AFTER, products, (2, 2, x.shape[0], down, across, columns))
        whole = reshape(transpose(results, (2, 3, 0, 4, 1, 5)), (x.shape[0], 2 * down, 2 * across, columns))
        return apply(Slice((0,) * 4, shape, (1,) * 4), whole)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, kernel = node.args
        batch, channels = x.shape[0], x.shape[3]
        down, across = _tiles(node.shape)
        columns = kernel.shape[0] * PANEL
        given = reshape(fit(cotangent, 1, (2 * down, 2 * across, columns)), (batch, down, 2, across, 2, columns))
        products = _times(AFTER.T, transpose(given, (2, 4, 0, 1, 3, 5)), (TILE, batch * down * across, columns))
        tiles = apply(MatMul(), products, swap_last(_matrices(kernel)))
        spread = transpose(_times(BEFORE.T, tiles, (4, 4, batch, down, across, channels)), (2, 3, 4, 0, 1, 5))
        by_x = apply(FoldWindows(1, x.shape[1:3], (2, 2), (1, 1), self.low), spread)
        by_kernel = apply(MatMul(), swap_last(self._transformed(x, node.shape)), products)
        panels = reshape(by_kernel, (TILE, channels, kernel.shape[0], PANEL))
        return by_x, transpose(panels, (2, 0, 1, 3))

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        (x, kernel), (dx, dkernel) = node.args, tangents
        terms = [None if dx is None else apply(self, dx, kernel), None if dkernel is None else apply(self, x, dkernel)]
        return add_tangents(terms)

    def _transformed(self, x: Node, shape: Shape) -> Node:
        """For each of 16 places a matrix: tiles, channels."""
        down, across = _tiles(shape)
        grown = fit(x, 1, (2 * down + 2, 2 * across + 2), self.low)
        tiles = transpose(apply(Windows(1, (4, 4), (2, 2), (1, 1)), grown), (3, 4, 0, 1, 2, 5))
        return _times(BEFORE, tiles, (TILE, x.shape[0] * down * across, x.shape[3]))

    def _counts(self, x: Shape) -> Shape:
        grown = [size + low + high for size, low, high in zip(x[1:3], self.low, self.high, strict=True)]
        return window_counts(grown, (3, 3), (1, 1), (1, 1))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Whole tiles and odd sizes, single pixels, padding on one side, several panels, no images, no channels."""

        def case(x: tuple[int, ...], filters: int, low: int = 1, right: int = 1) -> Case:
            kernel = (-(-filters // PANEL), TILE, x[3], PANEL)
            small = (-0.5, 0.5)  # sums of 16 products a channel cancel, so that errors are those of larger numbers
            return Case(cls((low, 1), (1, right), filters), (TensorType(f32, x), TensorType(f32, kernel)), small)

        return (
            case((1, 8, 6, 17), 32), case((2, 7, 9, 5), 3), case((3, 1, 1, 4), 33), case((1, 5, 4, 3), 65, 0, 3),
            case((0, 4, 4, 2), 2), case((2, 4, 3, 0), 5),
        )  # fmt: skip

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A kernel of other channels, one that is not transformed, an image that no window fits into."""

        def t(*shape: int) -> TensorType:
            return TensorType(f32, shape)

        good = cls((1, 1), (1, 1), 40)
        return (
            BadCase(good, (t(2, 5, 5, 3), t(2, 16, 4, 32)), ShapeError, ("(2, 16, 4, 32)", "40 filters")),
            BadCase(good, (t(2, 5, 5, 3), t(3, 3, 3, 40)), ShapeError, ("(3, 3, 3, 40)",)),
            BadCase(cls((0, 0), (0, 0), 4), (t(1, 2, 5, 3), t(1, 16, 3, 32)), ShapeError, ("into 2",)),
        )


def winograd_kernel(kernel: Node) -> Node:
    """The kernel as :class:`WinogradProduct` takes it: transformed, in panels of 32 filters, the last filled up.

    Shapes: kernel (3, 3, channels, filters) -> (panels, 16, channels, 32).
    """
    channels, filters = ints(kernel.shape[2:])
    panels = -(-filters // PANEL)
    whole = fit(kernel, 3, (panels * PANEL,))
    split = transpose(reshape(whole, (9, channels, panels, PANEL)), (2, 0, 1, 3))
    both = constant(np.kron(KERNEL, KERNEL).astype(kernel.dtype.numpy))
    flat = apply(MatMul(), broadcast_to(both, (panels, TILE, 9)), reshape(split, (panels, 9, channels * PANEL)))
    return reshape(flat, (panels, TILE, channels, PANEL))


def _tiles(shape: Shape) -> tuple[Size, Size]:
    """Down and across, of results of this shape."""
    return ceildiv(shape[1], 2), ceildiv(shape[2], 2)


def _matrices(kernel: Node) -> Node:
    """For each of 16 places a matrix: channels, columns of all panels."""
    return reshape(transpose(kernel, (1, 2, 0, 3)), (TILE, kernel.shape[2], kernel.shape[0] * PANEL))


def _times(matrix: Array, x: Node, shape: Shape) -> Node:
    """The matrix from both sides of what lies along the first axes of x."""
    both = np.kron(matrix, matrix)
    rest = product(shape) // len(both)
    flat = apply(MatMul(), constant(both.astype(x.dtype.numpy)), reshape(x, (both.shape[1], rest)))
    return reshape(flat, shape)


__all__: list[str] = []
