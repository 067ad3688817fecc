"""Random numbers of other distributions: normal, truncated normal, exponential, Gumbel; and choices by them.

Each number comes from one word of random bits by the inverse of a distribution function. The word is folded at its
middle, which leaves 31 bits for the distance from the nearer end, so that both tails are as fine as a float allows and
the distribution is exactly symmetric. Bits are the same everywhere; logarithms and roots of other backends may differ
in the last place, and so may these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, Shape, TensorType, as_dtype, as_shape
from graphc.ops.arithmetic import minimum, multiply, negative
from graphc.ops.base import (
    Absent,
    Array,
    BadCase,
    Case,
    Operand,
    as_int,
    as_node,
    cast_to,
    explaining,
    normalize_axis,
    op_class,
    require_dtype,
)
from graphc.ops.compare import less, where
from graphc.ops.create import ShapeLike
from graphc.ops.division import floor_divide
from graphc.ops.exponential import log, log1p, sqrt
from graphc.ops.logic import bitwise_not
from graphc.ops.random import RandomBits
from graphc.ops.reduction import argmax
from graphc.ops.sorting import argsort

f32, f64, u32, i64 = DType.float32, DType.float64, DType.uint32, DType.int64
_DRAWN = (f32, f64)
_MIDDLE = 2**31

# Coefficients of quotients of polynomials, highest power first: M. Wichura, Algorithm AS 241, Applied Statistics 37,
# 1988, https://doi.org/10.2307/2347330. PPND7 is right to 1e-7, PPND16 to 1e-16.
_CENTRAL = {
    f32: (
        (5.9109374720e01, 1.5929113202e02, 5.0434271938e01, 3.3871327179e00),
        (6.7187563600e01, 7.8757757664e01, 1.7895169469e01, 1.0),
    ),
    f64: (
        (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
         1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
        (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
         5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
    ),
}  # fmt: skip
_TAIL = {
    f32: (
        (1.7023821103e-1, 1.3067284816e0, 2.7568153900e0, 1.4234372777e0),
        (1.2021132975e-1, 7.3700164250e-1, 1.0),
    ),
    f64: (
        (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
         3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
        (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
         6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
    ),
}  # fmt: skip
_BELOW_MINUS_2 = 0.022750131948179195


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """Of a node or an array."""
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _distance(p: Any, dtype: DType, choose: Any, log: Any, sqrt: Any) -> Any:
    """How far below its mean a normal number lies that has a share p <= 1/2 below it; of a node or an array.

    Source: Wichura 1988, https://doi.org/10.2307/2347330
    """
    q = 0.5 - p
    r = 0.180625 - q * q
    s = sqrt(-log(p)) - 1.6
    is_central = p >= 0.075
    central, tail = _CENTRAL[dtype], _TAIL[dtype]
    top = choose(is_central, q * _polynomial(r, central[0]), _polynomial(s, tail[0]))
    return top / choose(is_central, _polynomial(r, central[1]), _polynomial(s, tail[1]))


def _share(folded: Any, part: float = 1.0) -> Any:
    """A number between 0 and ``part / 2`` from the 31 bits of a folded word, as a float."""
    return (folded + 0.5) * (2.0**-32 * part)


class _Drawn(Op):
    """Base of what is computed from one word for each element: subclasses say how, for nodes and for arrays alike."""

    shape: Shape
    stream: int
    dtype: DType

    operands = ("seed", "step")
    composite = True
    no_vjp = Absent.INTEGER_OPERANDS
    no_jvp = Absent.INTEGER_OPERANDS

    def infer(self, *types: TensorType) -> TensorType:
        RandomBits(self.shape, self.stream).infer(*types)
        result = TensorType(self.dtype, self.shape)
        require_dtype(result, _DRAWN)
        return result

    def value(self, lower: Any, folded: Any, functions: Any) -> Any:
        """The number of a word: whether it is in the lower half, its distance from the nearer end, functions."""
        raise NotImplementedError(f"{type(self).__name__} lacks value")

    def reference(self, seed: Array, step: Array) -> Array:
        words: Any = RandomBits(self.shape, self.stream).reference(seed, step)
        folded = np.minimum(words, ~words).astype(self.dtype.numpy)
        return np.asarray(self.value(words < _MIDDLE, folded, np), self.dtype.numpy)

    def decompose(self, *args: Node) -> Node:
        words = apply(RandomBits(self.shape, self.stream), *args)
        folded = cast_to(minimum(words, bitwise_not(words)), self.dtype)
        return self.value(less(words, _MIDDLE), folded, _NodeFunctions)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Both element types; scalars, two axes, no elements."""
        scalar = TensorType(u32, ())
        rows: tuple[tuple[DType, Shape], ...] = ((f32, (3, 40)), (f32, (0, 2)), (f64, (3, 40)), (f64, ()))
        return [Case(cls(shape, 2, dtype), (scalar, scalar)) for dtype, shape in rows]  # pyright: ignore[reportCallIssue]

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """A result of integers, a seed of another element type, a step with axes."""
        scalar, vector, wrong = TensorType(u32, ()), TensorType(u32, (1,)), TensorType(f32, ())
        good, integers = (cls((3,), 0, dtype) for dtype in (f32, DType.int32))  # pyright: ignore[reportCallIssue]
        return (
            BadCase(integers, (scalar, scalar), DTypeError, (cls.name, "int32", "float32")),
            BadCase(good, (wrong, scalar), DTypeError, (cls.name, "seed", "uint32")),
            BadCase(good, (scalar, vector), ShapeError, (cls.name, "step", "scalar")),
        )


class _NodeFunctions:
    """What :meth:`_Drawn.value` asks of NumPy, on nodes."""

    where = staticmethod(where)
    log = staticmethod(log)
    log1p = staticmethod(log1p)
    sqrt = staticmethod(sqrt)
    minimum = staticmethod(minimum)


@op_class
class Normal(_Drawn):
    """Random floats of the standard normal distribution, up to 6.2 from 0.

    Shapes: the attribute's; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Wichura 1988, Algorithm AS 241, https://doi.org/10.2307/2347330
    """

    shape: Shape
    stream: int
    dtype: DType

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Normal(tuple(map(bind, self.shape)), self.stream, self.dtype)

    def value(self, lower: Any, folded: Any, functions: Any) -> Any:
        size = _distance(_share(folded), self.dtype, functions.where, functions.log, functions.sqrt)
        return functions.where(lower, -size, size)


@op_class
class TruncatedNormal(_Drawn):
    """Random floats of the standard normal distribution cut off at -2 and 2.

    Shapes: the attribute's; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Wichura 1988, Algorithm AS 241, https://doi.org/10.2307/2347330, applied to the part between -2 and 2
    """

    shape: Shape
    stream: int
    dtype: DType

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return TruncatedNormal(tuple(map(bind, self.shape)), self.stream, self.dtype)

    def value(self, lower: Any, folded: Any, functions: Any) -> Any:
        p = _share(folded, 1 - 2 * _BELOW_MINUS_2) + _BELOW_MINUS_2
        size = functions.minimum(_distance(p, self.dtype, functions.where, functions.log, functions.sqrt), 2.0)
        return functions.where(lower, -size, size)


@op_class
class Exponential(_Drawn):
    """Random floats of the exponential distribution with mean 1, at least 1e-10.

    Shapes: the attribute's; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Devroye 1986, Non-Uniform Random Variate Generation, section II.2
    """

    shape: Shape
    stream: int
    dtype: DType

    def with_sizes(self, bind: Callable[[Size], Size]) -> Op:
        return Exponential(tuple(map(bind, self.shape)), self.stream, self.dtype)

    def value(self, lower: Any, folded: Any, functions: Any) -> Any:
        p = _share(folded)
        return -functions.where(lower, functions.log(p), functions.log1p(-p))


def _draw(op: type[Op], where: str, shape: ShapeLike, seed: Operand, step: Operand, stream: int, dtype: Any) -> Node:
    with explaining(where):
        made = op(as_shape(shape), stream, as_dtype(dtype))  # pyright: ignore[reportCallIssue]
        return apply(made, as_node(seed, u32), as_node(step, u32))


def normal(
    shape: ShapeLike,
    seed: Operand,
    step: Operand = 0,
    stream: int = 0,
    dtype: Any = "float32",
    mean: float = 0.0,
    stddev: float = 1.0,
) -> Node:
    """Random floats of a normal distribution.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Wichura 1988, Algorithm AS 241, https://doi.org/10.2307/2347330

    >>> import graphc as gx
    >>> gx.random.normal(("n", 3), seed=0)
    <normal: f32[n, 3]>
    """
    return _moved(_draw(Normal, "random.normal", shape, seed, step, stream, dtype), mean, stddev)


def truncated_normal(
    shape: ShapeLike,
    seed: Operand,
    step: Operand = 0,
    stream: int = 0,
    dtype: Any = "float32",
    mean: float = 0.0,
    stddev: float = 1.0,
) -> Node:
    """Random floats of a normal distribution without what is more than two standard deviations from the mean.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Keras ``random.truncated_normal``.

    >>> import graphc as gx
    >>> gx.random.truncated_normal(("n", 3), seed=0)
    <truncated_normal: f32[n, 3]>
    """
    return _moved(_draw(TruncatedNormal, "random.truncated_normal", shape, seed, step, stream, dtype), mean, stddev)


def _moved(x: Node, mean: float, stddev: float) -> Node:
    scaled = x if stddev == 1 else multiply(x, stddev)
    return scaled if mean == 0 else scaled + mean


def exponential(
    shape: ShapeLike, seed: Operand, step: Operand = 0, stream: int = 0, dtype: Any = "float32", scale: float = 1.0
) -> Node:
    """Random floats of an exponential distribution with mean ``scale``.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Devroye 1986, Non-Uniform Random Variate Generation, section II.2

    >>> import graphc as gx
    >>> gx.random.exponential(("n", 3), seed=0)
    <exponential: f32[n, 3]>
    """
    return _moved(_draw(Exponential, "random.exponential", shape, seed, step, stream, dtype), 0.0, scale)


def gumbel(shape: ShapeLike, seed: Operand, step: Operand = 0, stream: int = 0, dtype: Any = "float32") -> Node:
    """Random floats of the standard Gumbel distribution: minus the logarithm of exponential ones.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: DTypeError; ShapeError; AxisError.
    Source: Maddison, Mnih and Teh 2017, https://arxiv.org/abs/1611.00712, section 2

    >>> import graphc as gx
    >>> gx.random.gumbel(("n", 3), seed=0)
    <negative: f32[n, 3]>
    """
    return negative(log(_draw(Exponential, "random.gumbel", shape, seed, step, stream, dtype)))


def randint(
    shape: ShapeLike,
    low: int,
    high: int,
    seed: Operand,
    step: Operand = 0,
    stream: int = 0,
    dtype: Any = "int64",
) -> Node:
    """Random integers from ``low`` to below ``high``, each with the same probability to within 1 in 2**32.

    Shapes: ints, names and Dims; seed and step are scalars.
    Raises: AxisError unless low < high, at most 2**31 apart; DTypeError; ShapeError.
    Source: Lemire 2019, https://arxiv.org/abs/1805.10941, equation 1

    >>> import graphc as gx
    >>> gx.random.randint(("n", 3), 0, 10, seed=0)
    <add: i64[n, 3]>
    """
    with explaining("random.randint"):
        first, last = as_int(low), as_int(high)
        if first is None or last is None or not 0 < last - first <= _MIDDLE:
            raise AxisError(f"no integers from {low!r} to below {high!r}", remedy="give two ints, at most 2**31 apart")
        element = as_dtype(dtype)
        require_dtype(TensorType(element, ()), (DType.int32, i64))
        words = apply(RandomBits(as_shape(shape), stream), as_node(seed, u32), as_node(step, u32))
        return cast_to(floor_divide(cast_to(words, i64) * (last - first), 2**32) + first, element)


def categorical(logits: Operand, seed: Operand, step: Operand = 0, stream: int = 0, axis: int = -1) -> Node:
    """A place along an axis, drawn with the probabilities ``softmax(logits)``, as int64.

    Shapes: the axis vanishes; seed and step are scalars.
    Raises: AxisError; ShapeError for an axis without elements; DTypeError for integers and bool.
    Source: Maddison, Tarlow and Minka 2014, https://arxiv.org/abs/1411.0030, section 2

    >>> import graphc as gx
    >>> gx.random.categorical(gx.placeholder("logits", ("n", 10)), seed=0)
    <argmax: i64[n]>
    """
    node = as_node(logits)
    with explaining("random.categorical", node):
        require_dtype(node.type, _DRAWN, "logits")
        place = normalize_axis(axis, node.ndim)
    return argmax(node + gumbel(node.shape, seed, step, stream, node.dtype), axis=place)


def permutation(count: int | str | Dim, seed: Operand, step: Operand = 0, stream: int = 0) -> Node:
    """The integers below ``count`` in random order, as int64: ``gx.take(x, order, axis=0)`` shuffles rows.

    Shapes: (count,); seed and step are scalars.
    Raises: ShapeError; DTypeError; AxisError.
    Source: Knuth 1997, The Art of Computer Programming, volume 2, section 3.4.2, by sorting random words

    >>> import graphc as gx
    >>> gx.random.permutation("n", seed=0)
    <argsort: i64[n]>
    """
    with explaining("random.permutation"):
        words = apply(RandomBits(as_shape((count,)), stream), as_node(seed, u32), as_node(step, u32))
        return argsort(words)


__all__ = ["Exponential", "Normal", "TruncatedNormal"]
