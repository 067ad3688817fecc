"""Where a step stands: sine and learned encodings, rotation of queries and keys, biases by distance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import constraints, initializers, regularizers
from graphc.frontend.arguments import is_number
from graphc.frontend.checked import Count, Positive
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.dims import Size
from graphc.ir.node import Node, Parameter
from graphc.ir.types import as_dtype


def sinusoidal_encoding(
    length: Size,
    size: int,
    base: float = 10_000.0,
    dtype: Any = "float32",
    start: Any = 0,
    positions: Node | None = None,
) -> Node:
    """Sines and cosines of the positions: ``PE[p, 2i] = sin(p / base**(2i / size))``, ``PE[p, 2i + 1]`` the cosine.

    ``PE[p + k]`` is a linear function of ``PE[p]``: each pair of a sine and a cosine turns by the same angle.

    Args:
        length: the number of positions, which may be symbolic.
        size: the number of values for each.
        base: the wavelengths go from 2 pi to ``base * 2 pi``.
        dtype: of the result; angles are computed in double precision.
        start: the first position: a number or a scalar node.
        positions: all of them, (..., length), instead of ``start``.

    Shapes: the result: (length, size), with positions (..., length, size).
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5

    >>> import graphc as gx
    >>> program = gx.compile({"pe": sinusoidal_encoding(2, 4)}, inputs=[], backend="reference")
    >>> print(program()["pe"].round(4))
    [[0.     1.     0.     1.    ]
     [0.8415 0.5403 0.01   1.    ]]
    """
    places = gx.arange(length, "int32") + start if positions is None else positions
    angles = _angles(places, (size + 1) // 2, base ** (-2.0 / size))
    pairs = gx.stack([gx.sin(angles), gx.cos(angles)], axis=-1)
    return gx.cast(gx.reshape(pairs, (*places.shape, 2 * ((size + 1) // 2)))[..., :size], as_dtype(dtype))


def _angles(positions: Node, count: int, ratio: float) -> Node:
    """``positions * ratio**i`` for i < count in double precision, as (..., time, count)."""
    frequencies = gx.constant(ratio ** np.arange(count, dtype=np.float64))
    return gx.expand_dims(gx.cast(positions, "float64"), -1) * frequencies


def rotate(
    x: Node,
    positions: Node | None = None,
    base: float = 10_000.0,
    interleaved: bool = False,
    features: int | None = None,
) -> Node:
    """Turn pairs of values by an angle that grows with the position: rotary position embedding.

    The product of a query at p and a key at q then depends on ``p - q`` alone.

    Args:
        x: queries or keys.
        positions: of the steps; default 0, 1, 2, ...
        base: the wavelengths go from 2 pi to nearly ``base * 2 pi``.
        interleaved: pairs are neighbours, as in the paper; else value i and value i + n/2, as in GPT-NeoX and LLaMA.
        features: turn only so many of the first values; default all.

    Shapes: x: (..., time, n), positions: (time,) or broadcast to (..., time); the result has the shape of x.
    Raises: ShapeError: the number of values is odd or not known.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, equation 34; ONNX ``RotaryEmbedding``.

    >>> import graphc as gx
    >>> rotate(gx.placeholder("q", ("batch", 8, "time", 4)))
    <concatenate: f32[batch, 8, time, 4]>
    """
    size = x.shape[-1] if features is None else features
    if not isinstance(size, int) or size % 2 or size <= 0:
        raise ShapeError(
            f"rotate takes an even number of values, not {size}",
            details=(f"x: {x.type}",),
            at=user_line(),
            remedy="give heads of an even size",
        )
    if features is not None and features != x.shape[-1]:
        turned = rotate(x[..., :features], positions, base, interleaved)
        return gx.concatenate([turned, x[..., features:]], axis=-1)
    half = size // 2
    places = gx.arange(x.shape[-2], "int32") if positions is None else positions
    angles = _angles(places, half, base ** (-2.0 / size))
    cos, sin = gx.cast(gx.cos(angles), x.dtype), gx.cast(gx.sin(angles), x.dtype)
    if interleaved:
        pairs = gx.reshape(x, (*x.shape[:-1], half, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        return gx.reshape(gx.stack([a * cos - b * sin, a * sin + b * cos], axis=-1), x.shape)
    a, b = x[..., :half], x[..., half:]
    return gx.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class SinePositionEncoding(Layer):
    """The sinusoidal encoding of the steps of its input, to be added to it: see :func:`sinusoidal_encoding`.

    Args:
        max_wavelength: the base of the wavelengths.

    Shapes:
        x: (..., time, n), any length; the result has the shape of x, ``start_index`` is the first step's position,
        ``positions``, (..., time), say them all.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5; KerasHub ``SinePositionEncoding``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 8))
    >>> x + gx.layers.SinePositionEncoding()(x)
    <add: f32[batch, time, 8]>
    """

    supports_masking = True

    def __init__(self, max_wavelength: float = 10_000.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_wavelength = _wavelength(self, max_wavelength)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """None: positions are there for padding, too."""
        return None

    def call(self, inputs: Node, start_index: Any = 0, positions: Node | None = None) -> Node:
        length, size = _steps_and_features(self, inputs)
        found = sinusoidal_encoding(length, size, self.max_wavelength, inputs.dtype, start_index, positions)
        return gx.broadcast_to(found, inputs.shape)


class PositionEmbedding(Layer):
    """A learned vector for each position of its input, to be added to it.

    Args:
        sequence_length: the greatest length; the table has so many rows.
        initializer: first values.
        regularizer: a penalty on the table, added to the loss.
        constraint: what the table goes through in every step of training.

    Shapes:
        x: (..., time, n), at most ``sequence_length`` long; the result has the shape of x, ``start_index`` is the first
        step's position, ``positions``, (..., time), say them all. Weights: position_embeddings (sequence_length, n).
    Raises: ShapeError: the sequences are longer than the table. IndexRangeError: they are, when the program runs.
    Source: Gehring et al. 2017, https://arxiv.org/abs/1705.03122, section 3.1; KerasHub ``PositionEmbedding``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 8))
    >>> x + gx.layers.PositionEmbedding(512)(x)
    <add: f32[batch, time, 8]>
    """

    supports_masking = True
    position_embeddings: Parameter

    def __init__(
        self,
        sequence_length: Count,
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sequence_length = sequence_length
        self.initializer = initializers.get(initializer)
        self.regularizer = regularizers.get(regularizer)
        self.constraint = constraints.get(constraint)

    def build(self, input_shape: Any) -> None:
        self.position_embeddings = self.add_weight(
            name="position_embeddings",
            shape=(self.sequence_length, input_shape[-1]),
            initializer=self.initializer,
            regularizer=self.regularizer,
            constraint=self.constraint,
        )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """None: positions are there for padding, too."""
        return None

    def call(self, inputs: Node, start_index: Any = 0, positions: Node | None = None) -> Node:
        length, _ = _steps_and_features(self, inputs)
        if positions is not None:
            found = gx.take(self.position_embeddings, positions, axis=0)
        elif isinstance(length, int) and isinstance(start_index, int):
            if length + start_index > self.sequence_length:
                raise ShapeError(
                    f"layer {self.name!r} knows {self.sequence_length} positions, its input goes to "
                    f"{length + start_index}",
                    at=user_line(),
                    remedy="make the table longer: PositionEmbedding(sequence_length)",
                )
            found = self.position_embeddings[start_index : start_index + length]
        else:
            found = gx.take(self.position_embeddings, gx.arange(length, "int32") + start_index, axis=0)
        return gx.broadcast_to(found, inputs.shape)


class RotaryEmbedding(Layer):
    """Turns queries or keys by their positions: see :func:`rotate`.

    :class:`MultiHeadAttention` does it to its own queries and keys if ``rotary`` is given.

    Args:
        max_wavelength: the base of the wavelengths.
        scaling_factor: what positions are divided by, to reach further than training went.
        sequence_axis: the axis of the steps.
        feature_axis: the axis of the values.
        interleaved: pairs are neighbours, not the halves.

    Shapes: the result has the shape of x, ``start_index`` is the first step's position.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864; KerasHub ``RotaryEmbedding``.

    >>> import graphc as gx
    >>> gx.layers.RotaryEmbedding(sequence_axis=-2)(gx.placeholder("q", ("batch", 8, "time", 4)))
    <concatenate: f32[batch, 8, time, 4]>
    """

    supports_masking = True

    def __init__(
        self,
        max_wavelength: float = 10_000.0,
        scaling_factor: Positive = 1.0,
        sequence_axis: int = 1,
        feature_axis: int = -1,
        interleaved: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_wavelength = _wavelength(self, max_wavelength)
        self.scaling_factor = scaling_factor
        self.sequence_axis = sequence_axis
        self.feature_axis = feature_axis
        self.interleaved = interleaved

    def call(self, inputs: Node, start_index: Any = 0) -> Node:
        source = (self.sequence_axis % inputs.ndim, self.feature_axis % inputs.ndim)
        x = gx.moveaxis(inputs, source, (inputs.ndim - 2, inputs.ndim - 1))
        positions = gx.cast(gx.arange(x.shape[-2], "int32") + start_index, "float64") / self.scaling_factor
        turned = rotate(x, positions, self.max_wavelength, self.interleaved)
        return gx.moveaxis(turned, (inputs.ndim - 2, inputs.ndim - 1), source)


class RelativePositionBias(Layer):
    """A learned number for each head and each range of distances between query and key, to be added to the scores.

    Near distances have a number each; farther ones share one, in ranges that grow with the distance.

    Args:
        num_heads: the number of heads.
        num_buckets: how many ranges there are.
        max_distance: from here on all distances are alike.
        bidirectional: tell keys before the query from those behind it; else those behind it count as near.
        initializer: first values.

    Shapes:
        query: (..., time, n), key: (..., steps, n), default the query; the result: (num_heads, time, steps), for
        ``attention_bias`` of :class:`MultiHeadAttention`. Weights: embeddings (num_buckets, num_heads).
    Source: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 8))
    >>> bias = gx.layers.RelativePositionBias(num_heads=2)(x)
    >>> gx.layers.MultiHeadAttention(2, 4)(x, x, attention_bias=bias)
    <add: f32[batch, time, 8]>
    """

    supports_masking = True
    embeddings: Parameter

    def __init__(
        self,
        num_heads: Count,
        num_buckets: Count = 32,
        max_distance: Count = 128,
        bidirectional: bool = True,
        initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        exact = num_buckets // (4 if bidirectional else 2)
        if exact < 1 or max_distance <= exact:
            raise AxisError(
                f"RelativePositionBias of {num_buckets} ranges cannot reach to a distance of {max_distance}",
                at=user_line(),
                remedy="give more than three ranges, and a max_distance above a quarter (one way: a half) of them",
            )
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.initializer = initializers.get(initializer)

    def build(self, input_shape: Any) -> None:
        self.embeddings = self.add_weight(
            name="embeddings", shape=(self.num_buckets, self.num_heads), initializer=self.initializer
        )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """None: distances have none."""
        return None

    def call(self, query: Node, key: Node | None = None) -> Node:
        time, steps = query.shape[-2], (query if key is None else key).shape[-2]
        return self.between(gx.arange(time, "int32"), gx.arange(steps, "int32"))

    def between(self, positions: Node, others: Node) -> Node:
        """The bias for queries and keys at positions (..., time) and (..., steps): (..., num_heads, time, steps)."""
        distance = gx.expand_dims(others, -2) - gx.expand_dims(positions, -1)
        found = gx.take(self.embeddings, self.bucket(gx.cast(distance, "int32")), axis=0)
        return gx.moveaxis(found, -1, -3)

    def bucket(self, distance: Node) -> Node:
        """The number of the range of each distance (position of the key less that of the query)."""
        count = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        if self.bidirectional:
            first, length = gx.where(distance > 0, count, 0), gx.abs(distance)
        else:
            first, length = gx.zeros_like(distance), gx.maximum(-distance, 0)
        exact = count // 2
        # float32, as the models that brought these ranges compute them: at the bounds a digit more is another range
        ratio = gx.log(gx.cast(gx.maximum(length, 1), "float32") / exact) / math.log(self.max_distance / exact)
        far = gx.minimum(exact + gx.cast(ratio * (count - exact), "int32"), count - 1)
        return gx.cast(first, "int32") + gx.where(length < exact, length, far)


def _wavelength(layer: Layer, value: Any) -> float:
    if not is_number(value, 1) or value == 1:
        raise AxisError(
            f"max_wavelength of {type(layer).__name__} is {value!r}", at=user_line(), remedy="give a number above 1"
        )
    return float(value)


def _steps_and_features(layer: Layer, x: Node) -> tuple[Size, int]:
    size = x.shape[-1]
    if x.ndim < 2 or not isinstance(size, int) or not x.dtype.is_float:
        raise ShapeError(
            f"layer {layer.name!r} takes floats (..., time, features) with a known number of features, not {x.type}",
            at=user_line(),
            remedy="put it behind the embedding of ids",
        )
    return x.shape[-2], size
