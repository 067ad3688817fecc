"""Random numbers that depend on (seed, stream, step, element) alone: Threefry-2x32-20.

The same seed and step give the same bits on every backend, with any number of threads, and in the exported file.
``stream`` tells the places of a model apart that draw numbers; ``step`` is a counter that a program advances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Size
from graphc.ir.node import Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType, as_dtype, as_shape, broadcast_shapes
from graphc.ops.base import (
    FLOATS,
    Absent,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_int,
    as_node,
    cast_to,
    explaining,
    ints,
    op_class,
    require_dtype,
)
from graphc.ops.create import ShapeLike, zeros_like

f32, f64, u32 = DType.float32, DType.float64, DType.uint32
Words = NDArray[np.uint32]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry2x32(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Words, Words]:
    """The block function Threefry-2x32 with 20 rounds, on uint32 arrays that broadcast.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", https://doi.org/10.1145/2063384.2063405
    """
    word = np.uint32
    k0, k1 = (np.asarray(k, word) for k in key)
    keys = (k0, k1, k0 ^ k1 ^ word(_PARITY))
    with np.errstate(over="ignore"):  # the scalars of NumPy warn where its arrays wrap around
        x0 = np.asarray(counter[0], word) + k0
        x1 = np.asarray(counter[1], word) + k1
        for group in range(5):
            for bits in _ROTATIONS[group % 2]:
                x0 = x0 + x1
                x1 = ((x1 << word(bits)) | (x1 >> word(32 - bits))) ^ x0
            x0 = x0 + keys[(group + 1) % 3]
            x1 = x1 + keys[(group + 2) % 3] + word(group + 1)
    return x0, x1


def _require_scalars(*types: TensorType) -> None:
    for name, type in zip(("seed", "step"), types, strict=True):
        require_dtype(type, (u32,), name)
        if type.rank:
            raise ShapeError(f"the {name} has {type.rank} axes", remedy="give a scalar")


def _require_stream(stream: int) -> None:
    number = as_int(stream)
    if number is None or not 0 <= number < 2**32:
        raise AxisError(f"stream {stream!r} is no integer of 32 bits", remedy="use 0 to 2**32 - 1")


_SEEDS = (np.array(7, np.uint32), np.array(3, np.uint32))


@op_class
class RandomBits(Op):
    """Random uint32: for element i the first word of ``threefry2x32(key=(seed, stream), counter=(step, i))``.

    i counts the elements of the shape in row-major order, modulo 2**32.

    Shapes: the attribute's; seed and step are scalars.
    Raises: DTypeError, ShapeError: a seed or step that is no uint32 scalar; AxisError: a stream beyond 32 bits.
    Source: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405
    """

    shape: Shape
    stream: int

    operands = ("seed", "step")
    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT

    def infer(self, *types: TensorType) -> TensorType:
        _require_scalars(*types)
        _require_stream(self.stream)
        return TensorType(u32, self.shape)

    def reference(self, seed: Array, step: Array) -> Array:
        shape = ints(self.shape)
        element = np.arange(math.prod(shape), dtype=np.uint64).astype(np.uint32).reshape(shape)
        return np.asarray(threefry2x32((seed, np.uint32(self.stream)), (step, element))[0])

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return RandomBits(tuple(map(bind, self.shape)), self.stream)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Scalars, one and two axes, no elements, large seeds and streams."""
        high = np.array(0xFFFFFFFF, np.uint32)
        rows = [Case(cls(shape, 2), _SEEDS) for shape in ((), (5,), (3, 4), (0, 2))]
        return [*rows, Case(cls((3,), 0xFFFFFFFF), (high, high)), Case(cls((3,), 0), (np.zeros((), np.uint32),) * 2)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A seed of another element type, a step with axes, a stream beyond 32 bits."""
        scalar = TensorType(u32, ())
        return (
            BadCase(cls((3,), 0), (TensorType(DType.int64, ()), scalar), DTypeError, ("seed", "int64", "uint32")),
            BadCase(cls((3,), 0), (scalar, TensorType(u32, (2,))), ShapeError, ("random_bits", "step", "scalar")),
            BadCase(cls((3,), 2**32), (scalar, scalar), AxisError, ("random_bits", "32 bits")),
        )


def _seed_nodes(seed: Operand, step: Operand) -> tuple[Node, Node]:
    return as_node(seed, u32), as_node(step, u32)


def bits(shape: ShapeLike, seed: Operand, step: Operand = 0, stream: int = 0) -> Node:
    """Random uint32 with all values equally likely.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405

    >>> import graphc as gx
    >>> gx.random.bits(("n", 3), seed=0)
    <random_bits: u32[n, 3]>
    """
    with explaining("random.bits"):
        return apply(RandomBits(as_shape(shape), stream), *_seed_nodes(seed, step))


_DRAWN = (f32, f64)
"""What Uniform draws: rounded to a half, a number below 1 may become 1."""


@op_class
class Uniform(Op):
    """Random floats in [0, 1).

    For float32 the upper 24 bits of RandomBits times 2**-24, for float64 all 32 bits times 2**-32. Both are exact, so
    that every backend gives the same bits.

    Shapes: the attribute's; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405
    """

    shape: Shape
    stream: int
    dtype: DType

    operands = ("seed", "step")
    composite = True
    no_vjp = Absent.INTEGER_OPERANDS
    no_jvp = Absent.INTEGER_OPERANDS

    def infer(self, *types: TensorType) -> TensorType:
        _require_scalars(*types)
        _require_stream(self.stream)
        result = TensorType(self.dtype, self.shape)
        require_dtype(result, _DRAWN)
        return result

    def reference(self, seed: Array, step: Array) -> Array:
        words: Any = RandomBits(self.shape, self.stream).reference(seed, step)
        if self.dtype is f32:
            return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return words.astype(np.float64) * 2.0**-32

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Uniform(tuple(map(bind, self.shape)), self.stream, self.dtype)

    def decompose(self, *args: Node) -> Node:
        words = apply(RandomBits(self.shape, self.stream), *args)
        if self.dtype is f32:
            return cast_to(words >> 8, f32) * 2.0**-24
        return cast_to(words, f64) * 2.0**-32

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both element types; scalars, two axes, no elements."""
        return tuple(Case(cls(shape, 2, dtype), _SEEDS) for dtype in _DRAWN for shape in ((), (3, 4), (0, 2)))

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A result of integers, a seed of another element type, a step with axes."""
        scalar = TensorType(u32, ())
        return (
            BadCase(cls((3,), 0, DType.int32), (scalar, scalar), DTypeError, ("uniform", "int32", "float32")),
            BadCase(cls((3,), 0, f32), (TensorType(f32, ()), scalar), DTypeError, ("uniform", "seed", "uint32")),
            BadCase(cls((3,), 0, f32), (scalar, TensorType(u32, (1,))), ShapeError, ("uniform", "step", "scalar")),
        )


def uniform(
    shape: ShapeLike,
    seed: Operand,
    step: Operand = 0,
    stream: int = 0,
    dtype: Any = "float32",
    low: float = 0.0,
    high: float = 1.0,
) -> Node:
    """Random floats in [low, high); rounding may give ``high`` itself where it is not 1.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError unless low < high.
    Source: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405

    >>> import graphc as gx
    >>> gx.random.uniform(("n", 3), seed=0)
    <uniform: f32[n, 3]>
    """
    with explaining("random.uniform"):
        if not low < high:
            raise AxisError(f"nothing lies from {low} to below {high}", remedy="make low less than high")
        drawn = apply(Uniform(as_shape(shape), stream, as_dtype(dtype)), *_seed_nodes(seed, step))
    scaled = drawn if high - low == 1 else drawn * float(high - low)
    return scaled if low == 0 else scaled + float(low)


@op_class
class Bernoulli(Op):
    """True with probability p: whether Uniform, in the element type of p, is below p.

    Shapes: the attribute's; p broadcasts to it; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: https://onnx.ai/onnx/operators/onnx__Bernoulli.html
    """

    shape: Shape
    stream: int

    operands = ("p", "seed", "step")
    composite = True
    no_vjp = Absent.INTEGER_RESULT
    no_jvp = Absent.INTEGER_RESULT

    def infer(self, *types: TensorType) -> TensorType:
        p, *seeds = types
        require_dtype(p, FLOATS, "p")
        _require_scalars(*seeds)
        _require_stream(self.stream)
        if len(p.shape) > len(self.shape) or broadcast_shapes(p.shape, self.shape) != self.shape:
            raise ShapeError(
                f"p of shape {p.shape} does not broadcast to {self.shape}", remedy="give a scalar or that shape"
            )
        return TensorType(DType.bool, self.shape)

    def reference(self, p: Array, seed: Array, step: Array) -> Array:
        return Uniform(self.shape, self.stream, DType(p.dtype.name)).reference(seed, step) < p

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Bernoulli(tuple(map(bind, self.shape)), self.stream)

    def decompose(self, *args: Node) -> Node:
        p, seed, step = args
        return apply(Uniform(self.shape, self.stream, p.dtype), seed, step) < p

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both element types; probabilities of 0, 1 and between; p as a scalar and for each element; no elements."""
        rows = [Case(cls((40,), 2), (np.array(p, np.float32), *_SEEDS)) for p in (0, 0.25, 1)]
        rows.append(Case(cls((3, 4), 2), (np.linspace(0, 1, 4), *_SEEDS)))
        return [*rows, Case(cls((0,), 2), (np.array(0.5, np.float32), *_SEEDS))]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Probabilities that are integers or do not broadcast, a seed of another element type."""
        seeds = (TensorType(u32, ()),) * 2
        return (
            BadCase(cls((3,), 0), (TensorType(DType.int32, ()), *seeds), DTypeError, ("bernoulli", "p is int32")),
            BadCase(cls((3,), 0), (TensorType(f32, (4,)), *seeds), ShapeError, ("bernoulli", "4", "3", "broadcast")),
            BadCase(cls((3,), 0), (TensorType(f32, (2, 3)), *seeds), ShapeError, ("bernoulli", "broadcast")),
            BadCase(cls((3,), 0), (TensorType(f32, ()), TensorType(f32, ()), seeds[0]), DTypeError, ("seed", "uint32")),
        )


def bernoulli(shape: ShapeLike, p: Operand, seed: Operand, step: Operand = 0, stream: int = 0) -> Node:
    """True with probability p.

    Shapes: p broadcasts to shape; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: https://onnx.ai/onnx/operators/onnx__Bernoulli.html

    >>> import graphc as gx
    >>> gx.random.bernoulli(("n", 3), 0.5, seed=0)
    <bernoulli: bool[n, 3]>
    """
    with explaining("random.bernoulli"):
        return apply(Bernoulli(as_shape(shape), stream), as_node(p, f32), *_seed_nodes(seed, step))


@op_class
class Dropout(Op):
    """``x / (1 - rate)`` with probability ``1 - rate``, else 0. The mask is float32's Uniform below ``1 - rate``.

    It is linear in x: both derivatives are the same dropout, with the same mask.

    Shapes: that of x; seed and step are scalars.
    Raises: AxisError for a rate outside [0, 1); DTypeError; ShapeError.
    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html (with the scale moved to training)
    """

    rate: float
    stream: int

    operands = ("x", "seed", "step")
    onnx = Absent.EXPORTED_BY_RULE
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        x, *seeds = types
        require_dtype(x, FLOATS)
        _require_scalars(*seeds)
        _require_stream(self.stream)
        if not 0 <= self.rate < 1:
            raise AxisError(f"the rate {self.rate} is not in [0, 1)", remedy="give the share to drop, such as 0.5")
        return x

    def reference(self, x: Array, seed: Array, step: Array) -> Array:
        kept = Bernoulli(tuple(x.shape), self.stream).reference(np.array(1 - self.rate, np.float32), seed, step)
        scaled: Array = x * x.dtype.type(1 / (1 - self.rate))
        return np.where(kept, scaled, np.zeros_like(scaled))

    def decompose(self, *args: Node) -> Node:
        from graphc.ops.compare import where

        x, seed, step = args
        kept = apply(Bernoulli(x.shape, self.stream), constant(1 - self.rate, f32), seed, step)
        return where(kept, x * (1 / (1 - self.rate)), 0.0)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        return apply(self, cotangent, *node.args[1:]), None, None

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        return None if tangents[0] is None else apply(self, tangents[0], *node.args[1:])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Rates of 0 and between, scalars, two axes, no elements, NaN and infinities."""
        special = np.array([np.nan, np.inf, -np.inf, 0, 1] * 4, np.float32)
        rows = [Case(cls(0.3, 2), (TensorType(f32, shape), *_SEEDS)) for shape in ((), (30,), (3, 40), (0, 2))]
        rows.append(Case(cls(0.0, 2), (TensorType(f32, (30,)), *_SEEDS)))
        return [*rows, Case(cls(0.5, 1), (special, *_SEEDS), differentiable=False)]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Rates outside [0, 1), integers, a seed of another element type."""
        x, scalar = TensorType(f32, (3,)), TensorType(u32, ())
        return (
            BadCase(cls(1.0, 0), (x, scalar, scalar), AxisError, ("dropout", "rate 1.0", "[0, 1)")),
            BadCase(cls(-0.1, 0), (x, scalar, scalar), AxisError, ("dropout", "rate -0.1")),
            BadCase(cls(0.5, 0), (TensorType(DType.int32, (3,)), scalar, scalar), DTypeError, ("dropout", "int32")),
            BadCase(cls(0.5, 0), (x, scalar, TensorType(DType.int64, ())), DTypeError, ("dropout", "step", "uint32")),
        )


def dropout(x: Operand, rate: float, seed: Operand, step: Operand = 0, stream: int = 0) -> Node:
    """Elements dropped with probability ``rate``, the others scaled by ``1 / (1 - rate)``; zeros for a rate of 1.

    Shapes: that of x; seed and step are scalars.
    Raises: AxisError for a rate outside [0, 1]; DTypeError; ShapeError.
    Source: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html

    >>> import graphc as gx
    >>> gx.dropout(gx.placeholder("x", ("n", 3)), 0.5, seed=0)
    <dropout: f32[n, 3]>
    """
    with explaining("dropout"):
        if not isinstance(rate, int | float | np.integer | np.floating) or isinstance(rate, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AxisError(f"rate is {rate!r}", remedy="give a number from 0 up to 1, such as 0.2")
        kept = apply(Dropout(0.0 if rate == 1 else float(rate), stream), as_node(x), *_seed_nodes(seed, step))
        return zeros_like(kept) if rate == 1 else kept


__all__ = [
    "Bernoulli", "Dropout", "RandomBits", "Uniform", "bernoulli", "dropout", "uniform",
]  # fmt: skip

# These draw from the bits above, so that their module imports this one; here they stand beside the others.
from graphc.ops.normal import categorical as categorical  # noqa: E402
from graphc.ops.normal import exponential as exponential  # noqa: E402
from graphc.ops.normal import gumbel as gumbel  # noqa: E402
from graphc.ops.normal import normal as normal  # noqa: E402
from graphc.ops.normal import permutation as permutation  # noqa: E402
from graphc.ops.normal import randint as randint  # noqa: E402
from graphc.ops.normal import truncated_normal as truncated_normal  # noqa: E402
