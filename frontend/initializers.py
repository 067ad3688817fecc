"""First values of weights: Keras's initializers, drawn by name from the one seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import AxisError, GraphError
from graphc.frontend import seeds
from graphc.frontend.config import Configurable, lookup, user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_TRUNCATED_STDDEV = 0.87962566103423978
"""The standard deviation of a unit normal cut off at two."""


class Initializer(Configurable):
    """Base of initializers. A subclass defines ``sample``."""

    seed: int | None = None

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Values in double precision; they are rounded to the weight's type."""
        raise NotImplementedError(f"{type(self).__name__} does not define sample")

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any], where: tuple[object, ...]) -> Array:
        """The first value of the weight at this place: the same for the same seed and place."""
        rng = seeds.generator(self.seed) if self.seed is not None else seeds.generator(seeds.derive(*where))
        return self.sample(shape, rng).astype(dtype)

    def __call__(self, shape: Any, dtype: Any = "float32") -> Array:
        """Values for a shape, as Keras has it: the same for the same ``seed=``, else new ones at each call."""
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
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

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    """Ones."""

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.ones(shape)


class RandomUniform(Initializer):
    """Uniform between two bounds."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)


class RandomNormal(Initializer):
    """Normal with a mean and a standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(Initializer):
    """Normal, with values beyond two standard deviations drawn again."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
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
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        if scale <= 0:
            raise AxisError(f"scale must be positive, not {scale}", at=user_line(), remedy="give a positive scale")
        _one_of("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        _one_of("distribution", distribution, ("normal", "truncated_normal", "untruncated_normal", "uniform"))
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        fan_in, fan_out = compute_fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return rng.normal(0.0, math.sqrt(variance), shape)
        return math.sqrt(variance) / _TRUNCATED_STDDEV * _truncated(shape, rng)


class GlorotUniform(VarianceScaling):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))``. Source: Glorot and Bengio 2010, equation 16."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_avg", "uniform", seed)


class GlorotNormal(VarianceScaling):
    """Truncated normal of variance ``2 / (fan_in + fan_out)``. Source: Glorot and Bengio 2010, equation 12."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_avg", "truncated_normal", seed)


class HeUniform(VarianceScaling):
    """Uniform within ``sqrt(6 / fan_in)``. Source: He et al. 2015, equation 10."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(2.0, "fan_in", "uniform", seed)


class HeNormal(VarianceScaling):
    """Truncated normal of variance ``2 / fan_in``. Source: He et al. 2015, equation 10."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(2.0, "fan_in", "truncated_normal", seed)


class LecunUniform(VarianceScaling):
    """Uniform within ``sqrt(3 / fan_in)``. Source: LeCun et al. 1998, Efficient BackProp, equation 16."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_in", "uniform", seed)


class LecunNormal(VarianceScaling):
    """Truncated normal of variance ``1 / fan_in``. Source: LeCun et al. 1998, Efficient BackProp, equation 16."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_in", "truncated_normal", seed)


def compute_fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a unit: of a matrix its sizes, of a convolution kernel those times its window.

    >>> compute_fans((3, 3, 16, 32))
    (144, 288)
    """
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _truncated(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    values = rng.standard_normal(shape)
    flat = values.reshape(-1)
    while (outside := np.flatnonzero(np.abs(flat) > 2)).size:
        flat[outside] = rng.standard_normal(outside.size)
    return flat.reshape(shape)


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise AxisError(f"{what} {value!r} is not known", at=user_line(), remedy=f"use one of {', '.join(allowed)}")


_BY_NAME: dict[str, Callable[[], Initializer]] = {
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
}


def get(value: Any) -> Any:
    """An initializer from a name, an initializer, its class, or a function of shape and dtype.

    >>> get("he_normal").mode
    'fan_in'
    """
    found = lookup(value, _BY_NAME, "initializer")
    return found() if isinstance(found, type) else found
