"""Attention over sequences: Keras's Attention and AdditiveAttention, and those of Bahdanau and Luong with weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import initializers, nest, tracing
from graphc.frontend.checked import Count, Part
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType


class AttentionLayer(Layer):
    """What attention layers share: ``softmax(scores(query, key)) @ value``, masks, and dropout of the weights.

    A subclass defines ``scores``: (batch, queries, d) and (batch, values, e) give (batch, queries, values).
    """

    supports_masking = True

    def __init__(self, dropout: Part = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = float(dropout)
        self.seed = seed

    def scores(self, query: Node, key: Node) -> Node:
        """How much each value matters to each query, before softmax."""
        raise NotImplementedError(f"{type(self).__name__} does not define scores")

    def call(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False, use_causal_mask: bool = False
    ) -> Any:
        """The values' mean for each query, weighed by attention.

        Args:
            inputs: [query, value] or [query, value, key].
            mask: for each of them the places that count, or None. Values that do not count get no weight; results of
                queries that do not count are zeros.
            return_attention_scores: return the weights, too.
            use_causal_mask: let a query see the values up to its own place only.
        """
        query, value, key = self._parts(inputs)
        masks = list(cast("Sequence[Node | None]", mask)) if isinstance(mask, list | tuple) else [None, None]
        scores = self.scores(query, key)
        seen = None if masks[1] is None else gx.expand_dims(masks[1], -2)
        if use_causal_mask:
            rows, columns = gx.arange(query.shape[-2]), gx.arange(value.shape[-2])
            past = gx.greater_equal(gx.expand_dims(rows, 1), gx.expand_dims(columns, 0))
            seen = past if seen is None else gx.logical_and(seen, past)
        if seen is not None:
            far = 65504.0 if scores.dtype is DType.float16 else 1e9
            scores = gx.where(seen, scores, scores - far)
        weights = gx.softmax(scores, axis=-1)
        used = weights
        if self.dropout:
            used = self.when_training(gx.dropout(weights, self.dropout, *self.random_state(self.seed)), weights)
        context = used @ value
        if masks[0] is not None:
            context = gx.where(gx.expand_dims(masks[0], -1), context, 0.0)
            if return_attention_scores:
                tracing.set_mask(context, masks[0])
        return (context, weights) if return_attention_scores else context

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the query."""
        return cast("Sequence[Any]", previous_mask)[0] if isinstance(previous_mask, list | tuple) else None

    def _parts(self, inputs: Any) -> tuple[Node, Node, Node]:
        given = nest.leaves(inputs)
        if not isinstance(inputs, list | tuple) or len(given) not in (2, 3):
            raise ShapeError(
                f"layer {self.name!r} takes [query, value] or [query, value, key], not {len(given)} tensors",
                at=user_line(),
                remedy=f"write layers.{type(self).__name__}()([query, value])",
            )
        return given[0], given[1], given[-1]


class Attention(AttentionLayer):
    """Dot-product attention: each query gets the mean of the values, weighed by ``softmax(query . key)``.

    Luong's score "dot". With weights between: :class:`LuongAttention`.

    Args:
        use_scale: whether the scores have a factor that is learned.
        score_mode: ``"dot"``, or ``"concat"``: a learned factor times ``sum(tanh(query + key))``.
        dropout: in training, the part of the attention weights that falls.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        query: (batch, queries, d), value: (batch, values, e), key: (batch, values, d), default the value. The result:
        (batch, queries, e), and with ``return_attention_scores`` the weights, (batch, queries, values).
    Raises: ShapeError: other than two or three inputs.
    Source: Luong, Pham and Manning 2015, https://arxiv.org/abs/1508.04025, section 3.1; Keras ``Attention``.

    >>> import graphc as gx
    >>> query, value = gx.placeholder("query", ("batch", 2, 8)), gx.placeholder("value", ("batch", "time", 8))
    >>> Attention()([query, value], return_attention_scores=True)
    (<matmul: f32[batch, 2, 8]>, <softmax: f32[batch, 2, time]>)
    """

    scale: Parameter | None
    concat_score_weight: Parameter | None

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: Part = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout, seed, **kwargs)
        _require_score(score_mode, ("dot", "concat"))
        self.use_scale = use_scale
        self.score_mode = score_mode

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(name="scale", initializer="ones") if self.use_scale else None
        self.concat_score_weight = None
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight(name="concat_score_weight", initializer="ones")

    def scores(self, query: Node, key: Node) -> Node:
        """``query . key``, or what ``score_mode`` says."""
        if self.concat_score_weight is None:
            found = query @ gx.swapaxes(key, -1, -2)
            return found if self.scale is None else found * self.scale
        both = _each_with_each(query, key)
        return self.concat_score_weight * gx.sum(gx.tanh(both if self.scale is None else self.scale * both), axis=-1)


class AdditiveAttention(AttentionLayer):
    """Attention with the score ``sum(scale * tanh(query + key))``.

    Bahdanau's score without its matrices; with them: :class:`BahdanauAttention`.

    Args:
        use_scale: whether there is a learned factor for each feature.
        dropout: in training, the part of the attention weights that falls.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        query: (batch, queries, d), value: (batch, values, e), key: (batch, values, d), default the value. The result:
        (batch, queries, e), and with ``return_attention_scores`` the weights, (batch, queries, values).
        Weights: scale (d,).
    Raises: ShapeError: other than two or three inputs.
    Source: Bahdanau, Cho and Bengio 2014, https://arxiv.org/abs/1409.0473; Keras ``AdditiveAttention``.

    >>> import graphc as gx
    >>> query, value = gx.placeholder("query", ("batch", 2, 8)), gx.placeholder("value", ("batch", "time", 8))
    >>> AdditiveAttention()([query, value])
    <matmul: f32[batch, 2, 8]>
    """

    scale: Parameter | None

    def __init__(self, use_scale: bool = True, dropout: Part = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(dropout, seed, **kwargs)
        self.use_scale = use_scale

    def build(self, input_shape: Any) -> None:
        size = input_shape[0][-1]
        self.scale = None
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(size,), initializer="glorot_uniform")

    def scores(self, query: Node, key: Node) -> Node:
        """``sum(scale * tanh(query + key))``."""
        both = gx.tanh(_each_with_each(query, key))
        return gx.sum(both if self.scale is None else self.scale * both, axis=-1)


class BahdanauAttention(AttentionLayer):
    """Additive attention: ``score = v . tanh(W_s query + W_h key)``.

    The query is the state of a decoder, the values are the outputs of an encoder.

    Args:
        units: the size in which query and key are compared.
        kernel_initializer: first values of the weights.
        dropout: in training, the part of the attention weights that falls.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        query: (batch, queries, d), value: (batch, values, e), key: (batch, values, k), default the value. The result:
        (batch, queries, e), and with ``return_attention_scores`` the weights, (batch, queries, values).
        Weights: query_kernel (d, units), key_kernel (k, units), score_kernel (units,).
    Raises: ShapeError: other than two or three inputs.
    Source: Bahdanau, Cho and Bengio 2014, https://arxiv.org/abs/1409.0473, appendix A.1.2

    >>> import graphc as gx
    >>> state, memory = gx.placeholder("state", ("batch", 1, 8)), gx.placeholder("memory", ("batch", "time", 6))
    >>> BahdanauAttention(16)([state, memory])
    <matmul: f32[batch, 1, 6]>
    """

    query_kernel: Parameter
    key_kernel: Parameter
    score_kernel: Parameter

    def __init__(
        self,
        units: Count,
        kernel_initializer: Any = "glorot_uniform",
        dropout: Part = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout, seed, **kwargs)
        self.units = units
        self.kernel_initializer = initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        for name, size in (("query_kernel", input_shape[0][-1]), ("key_kernel", input_shape[-1][-1])):
            setattr(self, name, self.add_weight((size, self.units), self.kernel_initializer, name=name))
        self.score_kernel = self.add_weight((self.units,), self.kernel_initializer, name="score_kernel")

    def scores(self, query: Node, key: Node) -> Node:
        """``v . tanh(W_s query + W_h key)``."""
        both = gx.tanh(_each_with_each(query @ self.query_kernel, key @ self.key_kernel))
        return gx.sum(both * self.score_kernel, axis=-1)


class LuongAttention(AttentionLayer):
    """Multiplicative attention and its relatives: how query and key are compared is a choice.

    ::

        "dot"       query . key
        "general"   query . (W key)
        "concat"    v . tanh(W [query; key])

    Args:
        score: ``"dot"``, ``"general"`` or ``"concat"``.
        units: the size in which ``"concat"`` compares; default that of the query.
        kernel_initializer: first values of the weights.
        dropout: in training, the part of the attention weights that falls.
        seed: fixes the masks of dropout whatever ``gx.set_seed`` says.

    Shapes:
        query: (batch, queries, d), value: (batch, values, e), key: (batch, values, k), default the value. The result:
        (batch, queries, e), and with ``return_attention_scores`` the weights, (batch, queries, values).
        Weights: of "general" kernel (k, d); of "concat" query_kernel (d, units) and key_kernel (k, units), the two
        parts of W, and score_kernel (units,); of "dot" none, and k is d.
    Raises: AxisError: another score; ShapeError: other than two or three inputs.
    Source: Luong, Pham and Manning 2015, https://arxiv.org/abs/1508.04025, equation 8

    >>> import graphc as gx
    >>> state, memory = gx.placeholder("state", ("batch", 1, 8)), gx.placeholder("memory", ("batch", "time", 6))
    >>> LuongAttention("general")([state, memory])
    <matmul: f32[batch, 1, 6]>
    """

    kernel: Parameter
    query_kernel: Parameter
    key_kernel: Parameter
    score_kernel: Parameter

    def __init__(
        self,
        score: str = "dot",
        units: Count | None = None,
        kernel_initializer: Any = "glorot_uniform",
        dropout: Part = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout, seed, **kwargs)
        _require_score(score, ("dot", "general", "concat"))
        self.score = score
        self.units = units
        self.kernel_initializer = initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        query, key = input_shape[0][-1], input_shape[-1][-1]
        if self.score == "general":
            self.kernel = self.add_weight((key, query), self.kernel_initializer, name="kernel")
        elif self.score == "concat":
            units = self.units or query
            self.query_kernel = self.add_weight((query, units), self.kernel_initializer, name="query_kernel")
            self.key_kernel = self.add_weight((key, units), self.kernel_initializer, name="key_kernel")
            self.score_kernel = self.add_weight((units,), self.kernel_initializer, name="score_kernel")

    def scores(self, query: Node, key: Node) -> Node:
        """What ``score`` says."""
        match self.score:
            case "concat":
                both = gx.tanh(_each_with_each(query @ self.query_kernel, key @ self.key_kernel))
                return gx.sum(both * self.score_kernel, axis=-1)
            case "general":
                return query @ gx.swapaxes(key @ self.kernel, -1, -2)
            case _:
                return query @ gx.swapaxes(key, -1, -2)


def _each_with_each(query: Node, key: Node) -> Node:
    """The sum of each query with each key: (..., queries, values, d)."""
    return gx.expand_dims(query, -2) + gx.expand_dims(key, -3)


def _require_score(score: str, known: tuple[str, ...]) -> None:
    if score not in known:
        raise AxisError(f"no score is called {score!r}", at=user_line(), remedy=f"use one of {', '.join(known)}")
