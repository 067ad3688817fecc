"""Images read at any places: by the nearest pixel or between four of them, and the places of an affine map.

Rows and columns count pixels, from 0 at the middle of the first one, so that whole numbers are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, as_shape
from graphc.ops.arithmetic import minimum
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    add_tangents,
    as_node,
    cast_to,
    explaining,
    op_class,
    require_dtype,
)
from graphc.ops.clipping import clip
from graphc.ops.compare import equal, where
from graphc.ops.create import ShapeLike, iota, size_of
from graphc.ops.indexing import take
from graphc.ops.logic import logical_and
from graphc.ops.movement import reshape
from graphc.ops.reduction import sum
from graphc.ops.rounding import floor, round
from graphc.ops.scatter import TakeAdd
from graphc.ops.slicing import expand_dims, getitem

f32, f64, i64 = DType.float32, DType.float64, DType.int64
INTERPOLATIONS = ("nearest", "bilinear")
FILL_MODES = ("constant", "nearest", "reflect", "wrap")
FARTHEST = float(1 << 20)
"""Places are taken to lie no farther out: up to there float32 tells half pixels apart, quotients by sizes, too."""


@dataclass(frozen=True)
class _Corner:
    """One of the pixels that each place lies between.

    Attributes:
        weight: how much of it, (batch, n, m, 1); None: all.
        pixels: its position among the pixels of all images, (batch, n, m).
        inside: whether the image has it, (batch, n, m, 1); None: there is one wherever the place is.
    """

    weight: Node | None
    pixels: Node
    inside: Node | None


@op_class
class GridSample(Op):
    """Pixels of ``x`` at any places, whose rows and columns count pixels: between four of them, or from the nearest.

    Beyond the edges, at ``d c b a | a b c d | d c b a``, ``reflect`` mirrors, ``wrap`` repeats the image, ``nearest``
    takes the outermost pixel, and ``constant`` ``fill_value``, which fades in over one pixel. A place farther than
    2**20 pixels out counts as one there; at NaN the result is NaN, or,
    of the nearest, what stands at 0 or beyond the edges.

    Shapes: x (batch, height, width, channels); rows and columns (batch, n, m); the result (batch, n, m, channels).
    Raises: DTypeError for an unknown interpolation or fill mode, an x that is no float, places that are neither
    float32 nor float64; ShapeError.
    Source: https://onnx.ai/onnx/operators/onnx__GridSample.html; SciPy ``map_coordinates`` of order 0 and 1
    """

    interpolation: str = "bilinear"
    fill_mode: str = "constant"
    fill_value: float = 0.0

    operands = ("x", "rows", "columns")
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        x, rows, columns = types
        for name, given, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("fill_mode", self.fill_mode, FILL_MODES),
        ):
            if given not in known:
                raise DTypeError(f"there is no {name} {given!r}", remedy=f"use one of {', '.join(known)}")
        require_dtype(x, FLOATS, "x")
        for name, places in (("rows", rows), ("columns", columns)):
            require_dtype(places, (f32, f64), name)
        if rows != columns:
            raise ShapeError(f"rows are {rows}, columns {columns}", remedy="give one of each for every place")
        if x.rank != 4 or rows.rank != 3 or rows.shape[0] != x.shape[0]:
            raise ShapeError(
                f"x has shape {x.shape}, rows and columns {rows.shape}",
                remedy="give x as (batch, height, width, channels), rows and columns as (batch, n, m)",
            )
        if 0 in x.shape[1:3]:
            raise ShapeError(f"x has shape {x.shape}: there are no pixels to read", remedy="give larger images")
        return TensorType(x.dtype, (*rows.shape, x.shape[-1]))

    def reference(self, x: Array, rows: Array, columns: Array) -> Array:
        near = self.interpolation == "nearest"
        batch: NDArray[np.int64] = np.arange(x.shape[0], dtype=np.int64)[:, np.newaxis, np.newaxis]
        whole: list[NDArray[np.int64]] = []
        shares: list[Array] = []
        for places in (rows, columns):
            held = np.clip(places, -FARTHEST, FARTHEST)
            low = np.round(held) if near else np.floor(held)
            whole.append(np.where(np.isnan(low), np.zeros_like(low), low).astype(np.int64))
            shares.append((held - low)[..., np.newaxis].astype(x.dtype))
        known = ~np.isnan(rows) & ~np.isnan(columns)
        result = np.zeros((*rows.shape, x.shape[-1]), x.dtype)
        for down, right in ((0, 0),) if near else ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = whole[0] + down, whole[1] + right
            inside = known & (row >= 0) & (row < x.shape[1]) & (column >= 0) & (column < x.shape[2])
            values = x[batch, self._read(row, x.shape[1]), self._read(column, x.shape[2])]
            if self.fill_mode == "constant":
                values = np.where(inside[..., np.newaxis], values, x.dtype.type(self.fill_value))
            if near:
                return values
            by_row = shares[0] if down else 1 - shares[0]
            by_column = shares[1] if right else 1 - shares[1]
            result += values * (by_row * by_column)
        return result

    def _read(self, places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """The pixel that stands for a whole place along an axis."""
        if self.fill_mode == "wrap":
            return places % size
        if self.fill_mode == "reflect":
            places = places % (2 * size)
            return np.minimum(places, 2 * size - 1 - places)
        return np.clip(places, 0, size - 1)

    def decompose(self, *args: Node) -> Node:
        x, *places = args
        result: Node | None = None
        for corner in self._corners(x, places):
            value = self._values(x, corner)
            value = value if corner.weight is None else value * corner.weight
            result = value if result is None else result + value
        assert result is not None
        return result

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        x, *places = node.args
        dx: Node | None = None
        for corner in self._corners(x, places):
            part = cotangent if corner.weight is None else cotangent * corner.weight
            part = part if corner.inside is None else where(corner.inside, part, 0.0)
            added = apply(TakeAdd(0, _pixels(x).shape[0]), part, corner.pixels)
            dx = added if dx is None else dx + added
        assert dx is not None
        if self.interpolation == "nearest":
            return reshape(dx, x.shape), None, None
        slopes = [cast_to(sum(cotangent * slope, axis=-1), places[0].dtype) for slope in self._slopes(node)]
        return reshape(dx, x.shape), *slopes

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        dx, *moves = tangents
        linear = GridSample(self.interpolation, self.fill_mode)
        terms = [None if dx is None else apply(linear, dx, *node.args[1:])]
        if self.interpolation == "bilinear":
            for slope, move in zip(self._slopes(node), moves, strict=True):
                terms.append(None if move is None else slope * cast_to(expand_dims(move, -1), node.dtype))
        return add_tangents(terms)

    def _slopes(self, node: Node) -> tuple[Node, Node]:
        """The derivative of each value of the result by its row, and by its column."""
        x, *places = node.args
        (above, below), (left, right) = (_shares(place, x.dtype) for place in places)
        a, b, c, d = (self._values(x, corner) for corner in self._corners(x, places))
        return (c - a) * left + (d - b) * right, (b - a) * above + (d - c) * below

    def _values(self, x: Node, corner: _Corner) -> Node:
        taken = take(_pixels(x), corner.pixels, 0)
        return taken if corner.inside is None else where(corner.inside, taken, self.fill_value)

    def _corners(self, x: Node, places: Sequence[Node]) -> list[_Corner]:
        """The pixels that each place lies between, row by row; the nearest one alone."""
        near = self.interpolation == "nearest"
        batch, height, width = x.shape[:3]
        first = iota((batch, *places[0].shape[1:]), 0) * (size_of(height) * size_of(width))
        axes: list[list[tuple[Node, Node | None]]] = []
        for place, size in zip(places, (height, width), strict=True):
            low = round(_held(place)) if near else floor(_held(place))
            axes.append([self._pixel(low + float(step) if step else low, size) for step in range(1 if near else 2)])
        shares = None if near else [_shares(place, x.dtype) for place in places]
        found: list[_Corner] = []
        for down, (row, row_inside) in enumerate(axes[0]):
            for right, (column, column_inside) in enumerate(axes[1]):
                weight = None if shares is None else shares[0][down] * shares[1][right]
                inside: Node | None = None
                if row_inside is not None and column_inside is not None:
                    inside = expand_dims(logical_and(row_inside, column_inside), -1)
                found.append(_Corner(weight, first + row * size_of(width) + column, inside))
        return found

    def _pixel(self, place: Node, size: Size) -> tuple[Node, Node | None]:
        """The pixel that stands for a whole place along an axis, and, where there may be none, whether there is."""
        count = size_of(size, place.dtype)
        inside: Node | None = None
        if self.fill_mode == "wrap":
            held = _wrapped(place, count)
        elif self.fill_mode == "reflect":
            there = _wrapped(place, count * 2.0)
            held = minimum(there, count * 2.0 - 1.0 - there)
        else:
            held = clip(place, 0.0, count - 1.0)
            inside = equal(held, place) if self.fill_mode == "constant" else None
        return cast_to(where(equal(held, held), held, 0.0), i64), inside  # a NaN has a pixel, but weighs NaN

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both interpolations, every fill mode, places far out, at and between pixels, not finite; no places."""
        # Numbers of few bits, so that sums that nearly cancel are exact in any order.
        x = (np.arange(40, dtype=np.float32) * 7 % 11 - 5).reshape(2, 4, 5, 1)
        places = (np.floor(np.linspace(-74, 95, 162)) + 0.5).astype(np.float32).reshape(2, 9, 9) / 8
        near = places, -places.swapaxes(1, 2)
        on_pixels = np.arange(-2, 7, dtype=np.float32)
        special = np.array([np.inf, -np.inf, 1e30, -1e30, -0.0, 1e-40, 4.5, -0.5, np.nan], np.float32)
        finite = np.append(special[:-1], on_pixels[:1])  # of a NaN, GridSample makes a pixel
        rows: list[Case] = []
        for how, mode in (
            *(("bilinear", mode) for mode in FILL_MODES),
            ("nearest", "constant"),
            ("nearest", "reflect"),
        ):
            extremes = special if how == "bilinear" and mode in ("constant", "wrap") else finite
            op, kinks = cls(how, mode, 0.5), _pairs(on_pixels, extremes)
            rows += [Case(op, (x, *near)), Case(op, (x, *kinks), differentiable=False)]
        few = near[0][:, :2, :3], near[1][:, :2, :3]
        return [
            *rows,
            Case(cls(), (np.stack([x[:, :3, :4, 0], x[:, 1:, 1:, 0], x[:, 1:, :4, 0]], -1), *few)),
            Case(cls("bilinear", "reflect"), (TensorType(DType.bfloat16, (2, 3, 4, 3)), *few)),
            Case(cls(), (TensorType(f32, (2, 3, 3, 1)), *(TensorType(f32, (2, 0, 4)),) * 2)),
        ]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Unknown names, integers, places in halves, axes that do not fit, images without pixels."""
        x, places = TensorType(f32, (2, 4, 5, 3)), (TensorType(f32, (2, 3, 4)),) * 2
        half, wrong = TensorType(DType.float16, (2, 3, 4)), TensorType(f32, (3, 3, 4))
        return (
            BadCase(cls("cubic"), (x, *places), DTypeError, ("grid_sample", "interpolation 'cubic'", "bilinear")),
            BadCase(cls("nearest", "zeros"), (x, *places), DTypeError, ("fill_mode 'zeros'", "constant")),
            BadCase(cls(), (TensorType(DType.int32, x.shape), *places), DTypeError, ("x is int32",)),
            BadCase(cls(), (x, half, half), DTypeError, ("rows is float16",)),
            BadCase(cls(), (x, places[0], wrong), ShapeError, ("f32[2, 3, 4]", "f32[3, 3, 4]", "every place")),
            BadCase(cls(), (x, wrong, wrong), ShapeError, ("(2, 4, 5, 3)", "(3, 3, 4)", "(batch, n, m)")),
            BadCase(cls(), (TensorType(f32, (2, 0, 5, 3)), *places), ShapeError, ("no pixels",)),
        )


def _pairs(*values: Array) -> tuple[Array, Array]:
    """Every value as a row with every value as a column, one image for each list of values."""
    rows, columns = (np.stack([np.meshgrid(v, v, indexing="ij")[axis] for v in values]) for axis in range(2))
    return rows, columns


def _held(place: Node) -> Node:
    return clip(place, -FARTHEST, FARTHEST)


def _shares(place: Node, dtype: DType) -> tuple[Node, Node]:
    """How much of the pixel before a place along an axis, and of the one behind it."""
    behind = expand_dims(cast_to(_held(place) - floor(_held(place)), dtype), -1)
    return 1.0 - behind, behind


def _wrapped(place: Node, count: Node) -> Node:
    """A whole place modulo a count; by halves no quotient comes near a whole number, however it is rounded."""
    return place - floor((place + 0.5) / count) * count


def _pixels(x: Node) -> Node:
    """The pixels of all images, one a row."""
    batch, height, width, channels = x.shape
    return reshape(x, (batch * height * width, channels))


def grid_sample(
    x: Operand,
    rows: Operand,
    columns: Operand,
    interpolation: str = "bilinear",
    fill_mode: str = "constant",
    fill_value: float = 0.0,
) -> Node:
    """Images read at any places, such as those of :func:`affine_grid`.

    Args:
        x: images, channels last.
        rows, columns: of each place, in pixels; 0 and 0 are the middle of the first pixel.
        interpolation: ``"bilinear"`` between the four pixels around a place, or ``"nearest"``.
        fill_mode: what stands beyond the edges of ``a b c d``: ``"constant"`` fill_value, ``"nearest"`` ``a a | d d``,
            ``"reflect"`` ``b a | d c``, ``"wrap"`` ``c d | a b``.
        fill_value: see there.

    Shapes: x (batch, height, width, channels); rows and columns (batch, n, m); the result (batch, n, m, channels).
    Raises: DTypeError; ShapeError.
    Source: https://onnx.ai/onnx/operators/onnx__GridSample.html; SciPy ``map_coordinates`` of order 0 and 1

    >>> import graphc as gx
    >>> rows, columns = gx.placeholder("rows", ("n", 4, 4)), gx.placeholder("columns", ("n", 4, 4))
    >>> gx.grid_sample(gx.placeholder("x", ("n", 8, 8, 3)), rows, columns)
    <grid_sample: f32[n, 4, 4, 3]>
    """
    image, down, right = as_node(x), as_node(rows), as_node(columns)
    with explaining("grid_sample", image, down, right):
        return apply(GridSample(interpolation, fill_mode, float(fill_value)), image, down, right)


def affine_grid(matrix: Operand, size: ShapeLike) -> list[Node]:
    """Where an affine map takes each pixel of an image: rows and columns, ``matrix @ (row, column, 1)``.

    Args:
        matrix: for each image two rows, of which one gives the new row, the other the new column.
        size: of the image whose pixels are mapped: (n, m).

    Shapes: matrix (batch, 2, 3); the rows and the columns (batch, n, m).
    Raises: DTypeError for a matrix that is no float; ShapeError; AxisError for a size that has not two axes.
    Source: SciPy ``affine_transform``; Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025, section 3.2

    >>> import graphc as gx
    >>> rows, columns = gx.affine_grid(gx.placeholder("matrix", ("n", 2, 3)), (4, 5))
    >>> rows.type
    f32[n, 4, 5]
    """
    maps = as_node(matrix)
    with explaining("affine_grid", maps):
        require_dtype(maps.type, FLOATS, "matrix")
        if maps.ndim != 3 or maps.shape[1:] != (2, 3):
            raise ShapeError(f"the matrix has shape {maps.shape}", remedy="give (batch, 2, 3)")
        shape = as_shape(size)
        if len(shape) != 2:
            raise AxisError(f"the size {shape} has {len(shape)} axes", remedy="give (rows, columns)")
        row, column = (iota((1, *shape), axis, maps.dtype) for axis in (1, 2))
        found: list[Node] = []
        for k in range(2):
            by_row, by_column, moved = (getitem(maps, (slice(None), k, j, None, None)) for j in range(3))
            found.append(by_row * row + by_column * column + moved)
        return found


__all__ = ["GridSample", "affine_grid", "grid_sample"]
