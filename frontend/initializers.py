"""First values of weights: Keras's initializers, drawn by name from the one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend import seeds
from graphc.frontend.arguments import shown, sizes_of
from graphc.frontend.checked import NonNegative, Positive
from graphc.frontend.config import Configurable, lookup, user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_TRUNCATED_STDDEV = 0.87962566103423978
"""The standard deviation of a unit normal cut off at two."""


class Initializer(Configurable):
    """Base of initializers. A subclass defines ``sample``."""

    seed: int | None = None
    waits = False
    """Whether values may be drawn when they are first asked for: nothing can go wrong with any shape."""

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Values in double precision; they are rounded to the weight's type."""
        raise NotImplementedError(f"{type(self).__name__} does not define sample")

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any], where: tuple[object, ...]) -> Array:
        """The first value of the weight at this place: the same for the same seed and place."""
        return self.drawing(shape, dtype, where)()

    def drawing(self, shape: tuple[int, ...], dtype: np.dtype[Any], where: tuple[object, ...]) -> Callable[[], Array]:
        """What draws that value, now or later: it holds the seed of now."""
        seed = self.seed if self.seed is not None else seeds.derive(*where)
        return lambda: self.sample(shape, seeds.generator(seed)).astype(dtype)

    def __call__(self, shape: Any, dtype: Any = "float32") -> Array:
        """Values for a shape, as Keras has it: the same for the same ``seed=``, else new ones at each call."""
        sizes = sizes_of(shape)
        rng = seeds.generator(self.seed) if self.seed is not None else np.random.default_rng()
        return self.sample(sizes, rng).astype(np.dtype(dtype))


class Constant(Initializer):
    """One value everywhere, or an array of the weight's shape."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        try:
            return np.broadcast_to(np.asarray(self.value, np.float64), shape)
        except ValueError:
            raise GraphError(
                f"Constant holds an array of shape {np.shape(self.value)}, the weight is {shape}",
                at=user_line(),
                remedy="give one number or an array of the weight's shape",
            ) from None


class Zeros(Initializer):
    """Zeros."""

    waits = True

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    """Ones."""

    waits = True

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.ones(shape)


class Identity(Initializer):
    """``gain`` on the diagonal of a matrix, zeros elsewhere.

    Raises:
        ShapeError: the weight is not a matrix.

    >>> Identity(2.0)((2, 3)).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise ShapeError(f"Identity makes matrices, the weight is {shape}", at=user_line(), remedy="use Constant")
        return self.gain * np.eye(*shape)


class RandomUniform(Initializer):
    """Uniform between two bounds."""

    waits = True

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        if minval > maxval:
            raise AxisError(f"minval {minval} is above maxval {maxval}", at=user_line(), remedy="exchange them")
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)


class RandomNormal(Initializer):
    """Normal with a mean and a standard deviation."""

    waits = True

    def __init__(self, mean: float = 0.0, stddev: NonNegative = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(Initializer):
    """Normal, with values beyond two standard deviations drawn again."""

    waits = True

    def __init__(self, mean: float = 0.0, stddev: NonNegative = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return self.mean + self.stddev * _truncated(shape, rng)


class VarianceScaling(Initializer):
    """Random values whose variance is ``scale`` over the number of inputs, of outputs, or their mean.

    Args:
        scale: the factor.
        mode: ``fan_in``, ``fan_out`` or ``fan_avg``.
        distribution: ``truncated_normal``, ``untruncated_normal`` or ``uniform``.
        seed: fixes the values whatever ``gx.set_seed`` says.
        input_axes, output_axes: the axes of a weight that count as inputs and as outputs; default those of a kernel,
            see :func:`compute_fans`.

    Source: https://keras.io/api/layers/initializers/#variancescaling-class

    >>> VarianceScaling(2.0, "fan_out", "uniform", seed=1)((100, 50)).std().round(1).item()
    0.20000000298023224
    """

    waits = True

    def __init__(
        self,
        scale: Positive = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: int | Sequence[int] | None = None,
        output_axes: int | Sequence[int] | None = None,
    ) -> None:
        _one_of("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        _one_of("distribution", distribution, ("normal", "truncated_normal", "untruncated_normal", "uniform"))
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed
        self.input_axes, self.output_axes = input_axes, output_axes

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return rng.normal(0.0, math.sqrt(variance), shape)
        return math.sqrt(variance) / _TRUNCATED_STDDEV * _truncated(shape, rng)


class _Scaled(VarianceScaling):
    """A variance scaling with a name of its own."""

    setting: tuple[float, str, str]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: int | Sequence[int] | None = None,
        output_axes: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self.setting, seed, input_axes, output_axes)


class GlorotUniform(_Scaled):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))``. Source: Glorot and Bengio 2010, equation 16."""

    setting = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal of variance ``2 / (fan_in + fan_out)``. Source: Glorot and Bengio 2010, equation 12."""

    setting = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform within ``sqrt(6 / fan_in)``. Source: He et al. 2015, equation 10."""

    setting = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal of variance ``2 / fan_in``. Source: He et al. 2015, equation 10."""

    setting = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform within ``sqrt(3 / fan_in)``. Source: LeCun et al. 1998, Efficient BackProp, equation 16."""

    setting = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal of variance ``1 / fan_in``. Source: LeCun et al. 1998, Efficient BackProp, equation 16."""

    setting = (1.0, "fan_in", "truncated_normal")


class Orthogonal(Initializer):
    """A random matrix with orthonormal columns, or rows if it has more columns than rows, times ``gain``.

    All axes but the last count as the rows: the filters of a convolution are orthogonal to each other.

    Raises:
        ShapeError: the weight has fewer than two axes.

    Source: Saxe, McClelland and Ganguli 2014, https://arxiv.org/abs/1312.6120; uniform over all such matrices by
        Mezzadri 2007, https://arxiv.org/abs/math-ph/0609050, section 5.

    >>> w = Orthogonal(seed=1)((3, 2), "float64")
    >>> (w.T @ w).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain, self.seed = gain, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ShapeError(
                f"Orthogonal makes weights with two axes at least, the weight is {shape}",
                at=user_line(),
                remedy="use RandomNormal for vectors",
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        drawn = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(drawn)
        # The factorization leaves the sign of each column open; only this choice draws all matrices alike.
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return self.gain * (q.T if rows < columns else q).reshape(shape)


def compute_fans(
    shape: tuple[int, ...],
    input_axes: int | Sequence[int] | None = None,
    output_axes: int | Sequence[int] | None = None,
) -> tuple[int, int]:
    """Inputs and outputs of a unit: of a matrix its sizes, of a convolution kernel those times its window.

    Args:
        shape: of the weight: ``(inputs, outputs)``, ``(*window, inputs, outputs)``; a recurrent layer's kernels hold
            the outputs of all gates.
        input_axes, output_axes: axes that count instead, if both are given.

    >>> compute_fans((3, 3, 16, 32)), compute_fans((3, 3, 16, 32), input_axes=2, output_axes=3)
    ((144, 288), (16, 32))
    """
    if input_axes is not None and output_axes is not None:
        return _sizes(shape, input_axes), _sizes(shape, output_axes)
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _sizes(shape: tuple[int, ...], axes: int | Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in ((axes,) if isinstance(axes, int) else axes))


def _truncated(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    values = rng.standard_normal(shape)
    flat = values.reshape(-1)
    while (outside := np.flatnonzero(np.abs(flat) > 2)).size:
        flat[outside] = rng.standard_normal(outside.size)
    return flat.reshape(shape)


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise AxisError(f"{what} {value!r} is not known", at=user_line(), remedy=f"use one of {', '.join(allowed)}")


_BY_NAME: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "uniform": RandomUniform,
    "random_normal": RandomNormal,
    "normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "orthogonal": Orthogonal,
    "identity": Identity,
    "zero": Zeros,
    "one": Ones,
}
_BY_NAME.update({made.__name__.lower(): made for made in tuple(_BY_NAME.values())})


def get(value: Any) -> Any:
    """An initializer from a name, an initializer, its class, or a function of shape and dtype.

    Raises:
        GraphError: it is none of these.

    >>> get("he_normal").mode
    'fan_in'
    """
    found = lookup(value, _BY_NAME, "initializer")
    made = found() if isinstance(found, type) else found
    if made is not None and not callable(made):
        raise GraphError(
            f"{shown(value)} is not an initializer",
            at=user_line(),
            remedy="give a name such as 'zeros'; for values of your own gx.initializers.Constant(values)",
        )
    return made
