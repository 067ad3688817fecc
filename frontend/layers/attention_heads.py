"""Attention with several heads: MultiHeadAttention, and GroupQueryAttention, whose heads share keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import constraints, initializers, regularizers, tracing
from graphc.frontend.arguments import is_number
from graphc.frontend.checked import Count, Part
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.dot_product import (
    attention_weights,
    both,
    joined,
    near,
    near_positions,
    weighted,
)
from graphc.frontend.layers.heads import Grid, HeadsProjection, HeadsToFeatures
from graphc.frontend.layers.positions import rotate
from graphc.frontend.layers.remembered import Remembered
from graphc.ir.node import Node


class _HeadAttention(Layer):
    """Projections into heads, attention in each of them, and the projection back.

    A subclass says ``heads`` (of queries), ``shared`` (heads of keys and values), ``size`` and ``value_size``.
    """

    supports_masking = True
    heads: int
    shared: int
    size: int
    value_size: int
    target_shape: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None

    def __init__(
        self,
        dropout: Part,
        use_bias: bool,
        sliding_window: Count | None,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        activity_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        use_gate: bool,
        seed: int | None,
        rotary: float | bool | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dropout = float(dropout)
        self.use_bias = use_bias
        self.use_gate = use_gate
        self.sliding_window = sliding_window
        self.seed = seed
        self.rotary = rotary_base(self, rotary)
        first = "glorot_uniform" if kernel_initializer is None else kernel_initializer
        self._common: dict[str, Any] = {
            "use_bias": use_bias,
            "kernel_initializer": initializers.get(first),
            "bias_initializer": initializers.get(bias_initializer),
            "kernel_regularizer": regularizers.get(kernel_regularizer),
            "bias_regularizer": regularizers.get(bias_regularizer),
            "activity_regularizer": regularizers.get(activity_regularizer),
            "kernel_constraint": constraints.get(kernel_constraint),
            "bias_constraint": constraints.get(bias_constraint),
        }

    def build(self, input_shape: Any, value_shape: Any = None, key_shape: Any = None) -> None:
        common = {**self._common, "dtype": self.dtype}
        self.query = HeadsProjection(self.heads, self.size, name="query", **common)
        self.key = HeadsProjection(self.shared, self.size, name="key", **common)
        if self.use_gate:
            self.gate = HeadsProjection(self.heads, self.value_size, activation="sigmoid", name="gate", **common)
        self.value = HeadsProjection(self.shared, self.value_size, name="value", **common)
        target = self.target_shape or (input_shape[-1],)
        self.attention_output = HeadsToFeatures(target, name="attention_output", **common)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the queries; :meth:`call` sets it, since scores have none."""
        return None

    def call(
        self,
        query: Node,
        value: Node,
        key: Node | None = None,
        query_mask: Node | None = None,
        value_mask: Node | None = None,
        key_mask: Node | None = None,
        attention_mask: Node | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
        attention_bias: Node | None = None,
    ) -> Any:
        """Let each query attend to the keys.

        Args:
            query: what asks, (batch, time, features).
            value: what is looked at, (batch, steps, features).
            key: what it is found by; default the values.
            query_mask, value_mask, key_mask: (batch, steps): false where a step is padding; default the masks that
                travel beside the tensors. No query attends to padding; what a padded query gives does not count.
            attention_mask: (batch, time, steps), with an axis of heads before the last two, or without the batch: which
                query may attend to which step.
            return_attention_scores: return the weights, (batch, heads, time, steps), too. They need memory for all of
                them, which attention without them never has.
            use_causal_mask: no query attends to a later step.
            attention_bias: added to the scores; broadcasts to them.
        """
        key = value if key is None else key
        masks = {
            id(mask): mask
            for given, node in ((value_mask, value), (key_mask, key))
            if (mask := given if given is not None else tracing.mask_of(node)) is not None
        }
        marked = query_mask if query_mask is not None else tracing.mask_of(query)
        grid = Grid(query.ndim, self.axes, self)
        q, k, v = (
            grid.flat(layer(node)) for layer, node in ((self.query, query), (self.key, key), (self.value, value))
        )
        if self.rotary is not None:
            q, k = rotate(q, base=self.rotary), rotate(k, base=self.rotary)
        allowed = grid.mask(query, value, attention_mask, list(masks.values()))
        if self.sliding_window is not None:
            allowed = both(allowed, near(q.shape[-2], k.shape[-2], self.sliding_window))
        context, scores = self._attend(q, k, v, allowed, attention_bias, use_causal_mask, return_attention_scores)
        context = grid.unfold(context, query)
        if self.use_gate:
            context = context * self.gate(query)
        output = self.attention_output(context)
        tracing.set_mask(output, marked)
        return (output, grid.unfold_scores(scores, query, value)) if scores is not None else output

    def remember(self, value: Node, positions: Node | None = None) -> Remembered:
        """The keys and values of steps, as :meth:`recall` looks at them: for generation, which computes them once.

        Args:
            value: what is looked at, (batch, time, features).
            positions: of the steps, (time,) or (batch, time), where keys are turned by them; default 0, 1, 2, ...
        """
        k, v = self._heads(self.key(value)), self._heads(self.value(value))
        if self.rotary is not None:
            k = rotate(k, _beside_heads(positions), base=self.rotary)
        return Remembered(k, v)

    def recall(
        self,
        query: Node,
        seen: Remembered,
        positions: Node | None = None,
        seen_positions: Node | None = None,
        attention_mask: Node | None = None,
        use_causal_mask: bool = False,
        attention_bias: Node | None = None,
    ) -> Node:
        """What queries get from keys and values that :meth:`remember` made, without dropout.

        Args:
            query: what asks, (batch, time, features).
            seen: keys and values.
            positions, seen_positions: of the queries and of the keys, (time,) or (batch, time); default 0, 1, 2, ...
            attention_mask: which query may look at which key, (batch, time, steps) with sizes of 1 where it repeats.
            use_causal_mask: query i sees the keys up to i.
            attention_bias: added to the scores; broadcasts to (batch, heads, time, steps).
        """
        q = self._heads(self.query(query))
        if self.rotary is not None:
            q = rotate(q, _beside_heads(positions), base=self.rotary)
        allowed = attention_mask
        if self.sliding_window is not None:
            allowed = both(allowed, near_positions(q, seen.keys, positions, seen_positions, self.sliding_window))
        allowed = None if allowed is None else gx.expand_dims(allowed, -3)
        context = gx.scaled_dot_product_attention(
            q, *seen, mask=joined(allowed, attention_bias), causal=use_causal_mask, scale=1 / math.sqrt(self.size)
        )
        context = gx.transpose(context, (0, 2, 1, 3))
        return self.attention_output(context * self.gate(query) if self.use_gate else context)

    def _heads(self, projected: Node) -> Node:
        if projected.ndim != 4 or self.axes is not None:
            raise ShapeError(
                f"layer {self.name!r} remembers steps along one axis",
                details=(f"projected: {projected.type}",),
                at=user_line(),
                remedy="generate with sequences (batch, time, features) and without attention_axes",
            )
        return gx.transpose(projected, (0, 2, 1, 3))

    def _attend(
        self,
        q: Node,
        k: Node,
        v: Node,
        allowed: Node | None,
        bias: Node | None,
        causal: bool,
        return_scores: bool,
    ) -> tuple[Node, Node | None]:
        """The context (..., heads, time, size), and the weights if they are wanted."""
        said: dict[str, Any] = {"causal": causal, "scale": 1 / math.sqrt(self.size)}
        if not return_scores:
            said["mask"] = joined(allowed, bias)
            plain = gx.scaled_dot_product_attention(q, k, v, **said)
            if self.dropout:
                seed, step, stream = self.random_state(self.seed)
                random: dict[str, Any] = {"dropout": self.dropout, "seed": seed, "step": step, "stream": stream}
                plain = self.when_training(gx.scaled_dot_product_attention(q, k, v, **said, **random), plain)
            return plain, None
        weights = attention_weights(q, k, mask=allowed, bias=bias, **said)
        plain = weighted(weights, v)
        if self.dropout:
            dropped = gx.dropout(weights, self.dropout, *self.random_state(self.seed))
            plain = self.when_training(weighted(dropped, v), plain)
        return plain, weights


def _beside_heads(positions: Node | None) -> Node | None:
    """Positions (batch, time) as they broadcast to (batch, heads, time)."""
    return positions if positions is None or positions.ndim == 1 else gx.expand_dims(positions, 1)


def _sizes(given: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """One number or several as a tuple; None for none."""
    if given is None:
        return None
    several = (given,) if isinstance(given, int | np.integer) else given
    return tuple(int(one) for one in several) or None


def rotary_base(layer: Layer, value: float | bool | None) -> float | None:
    """The base of the wavelengths of rotary positions, 10,000 for True; None for none.

    Raises:
        AxisError: a base of 1 or less, which would give all pairs one wavelength, or make the first the longest; or no
            number.
    """
    if value is None or value is False:
        return None
    if value is not True and (not is_number(value, 1) or value == 1):
        raise AxisError(
            f"rotary of {type(layer).__name__} is {value!r}", at=user_line(), remedy="give True, or a base above 1"
        )
    return 10_000.0 if value is True else float(value)


class MultiHeadAttention(_HeadAttention):
    """Attention in several heads: each query gets a mean of the values, weighted by how well it fits their keys.

    ``softmax(q k^T / sqrt(key_dim)) v`` in each head, where q, k and v are projections of the inputs; the results of
    all heads are projected back together. Self-attention is ``layer(x, x)``, cross-attention ``layer(x, memory)``.
    Unless weights are asked for, no matrix of all queries by all keys exists.

    Args:
        num_heads: the number of heads.
        key_dim: the size of queries and keys in a head; the paper's is ``d_model / num_heads``.
        value_dim: the size of values in a head; default ``key_dim``.
        dropout: the part of the weights that falls in training.
        use_bias: add a bias after each projection.
        output_shape: the features of the result; default those of the queries.
        attention_axes: the axes that are attended over; default all but the batch's and the features'.
        sliding_window: a query attends to steps less than this far away only.
        flash_attention: accepted for Keras's sake: what it asks for is always done.
        kernel_initializer, bias_initializer: first values.
        kernel_regularizer, bias_regularizer, activity_regularizer: penalties, added to the loss.
        kernel_constraint, bias_constraint: what weights go through in every step of training.
        use_gate: multiply the heads' results by a sigmoid of a projection of the queries.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.
        rotary: turn queries and keys by their positions, with this base of the wavelengths (True: 10,000): see
            :class:`RotaryEmbedding`.

    Shapes:
        query: (batch, time, n), value and key: (batch, steps, m), masks: see :meth:`call`. The result: (batch, time,
        n), and the weights (batch, heads, time, steps) with ``return_attention_scores``. Weights: query, key (features,
        heads, key_dim), value (features, heads, value_dim) and attention_output (heads, value_dim, n), each with bias.
    Raises: ShapeError: fewer than three axes. AxisError: a count that is no positive number.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2; Keras ``MultiHeadAttention``.

    >>> import graphc as gx
    >>> x, memory = gx.placeholder("x", ("batch", "time", 16)), gx.placeholder("memory", ("batch", "steps", 16))
    >>> gx.layers.MultiHeadAttention(num_heads=4, key_dim=4)(x, memory)
    <add: f32[batch, time, 16]>
    """

    def __init__(
        self,
        num_heads: Count,
        key_dim: Count,
        value_dim: Count | None = None,
        dropout: Part = 0.0,
        use_bias: bool = True,
        output_shape: Count | Sequence[Count] | None = None,
        attention_axes: int | Sequence[int] | None = None,
        sliding_window: Count | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        rotary: float | bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dropout, use_bias, sliding_window, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, use_gate, seed, rotary,
            **kwargs,
        )  # fmt: skip
        self.num_heads = self.heads = self.shared = num_heads
        self.key_dim = self.size = key_dim
        self.value_dim = self.value_size = key_dim if value_dim is None else value_dim
        self.target_shape, self.axes = _sizes(output_shape), _sizes(attention_axes)
        self.attention_axes = self.axes
        self.flash_attention = flash_attention


class GroupQueryAttention(_HeadAttention):
    """Multi-head attention in which several heads of queries share one head of keys and values.

    With one head of keys and values it is multi-query attention, with as many as queries multi-head attention. The keys
    and values that generation keeps are smaller by the number of heads that share them.

    Args:
        head_dim: the size of each head.
        num_query_heads: the number of heads of queries.
        num_key_value_heads: the number of heads of keys and values; it divides that of queries.
        dropout, use_bias, sliding_window, flash_attention: see :class:`MultiHeadAttention`.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer: see there.
        activity_regularizer, kernel_constraint, bias_constraint, use_gate, seed, rotary: see there.

    Shapes: as :class:`MultiHeadAttention`; weights: key and value (features, num_key_value_heads, head_dim).
    Raises: AxisError: the heads cannot be shared out equally, or a count is no positive number.
    Source: Ainslie et al. 2023, https://arxiv.org/abs/2305.13245; Keras ``GroupQueryAttention``.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 16))
    >>> gx.layers.GroupQueryAttention(head_dim=4, num_query_heads=4, num_key_value_heads=2)(x, x, use_causal_mask=True)
    <add: f32[batch, time, 16]>
    """

    def __init__(
        self,
        head_dim: Count,
        num_query_heads: Count,
        num_key_value_heads: Count,
        dropout: Part = 0.0,
        use_bias: bool = True,
        sliding_window: Count | None = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        use_gate: bool = False,
        seed: int | None = None,
        rotary: float | bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dropout, use_bias, sliding_window, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, use_gate, seed, rotary,
            **kwargs,
        )  # fmt: skip
        self.head_dim = self.size = self.value_size = head_dim
        self.num_query_heads = self.heads = num_query_heads
        self.num_key_value_heads = self.shared = num_key_value_heads
        if num_query_heads % num_key_value_heads:
            raise AxisError(
                f"{num_query_heads} heads of queries cannot share {num_key_value_heads} heads of keys equally",
                at=user_line(),
                remedy="let num_key_value_heads divide num_query_heads",
            )
        self.flash_attention = flash_attention
