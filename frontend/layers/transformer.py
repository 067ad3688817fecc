"""Transformer blocks and stacks of them: attention, a network for each step, and what carries values past both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend import activations, initializers
from graphc.frontend.arguments import positive
from graphc.frontend.config import user_line
from graphc.frontend.layers.attention_heads import GroupQueryAttention, MultiHeadAttention, rotary_base
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.core import Dense
from graphc.frontend.layers.layer_normalization import LayerNormalization, RMSNormalization
from graphc.frontend.layers.positions import RelativePositionBias
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.remembered import Places, Remembered, Seen
from graphc.ir.node import Node

_GATED = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "glu": "sigmoid"}
"""Activations that come as a product of two projections, and what the first of them goes through."""


class FeedForward(Layer):
    """Two layers applied to each step by itself: ``activation(x W1 + b1) W2 + b2``.

    Args:
        hidden_dim: the size between the two.
        activation: ``"relu"`` as in the paper, ``"gelu"``, another name or function; or gated, a product of two
            projections: ``"swiglu"`` is ``silu(x W) * (x V)``, and so ``"geglu"``, ``"reglu"`` and ``"glu"``.
        use_bias: add biases.
        dropout: the part of the hidden values that falls in training.
        kernel_initializer, bias_initializer: first values.

    Shapes: x: (..., n); the result has the shape of x. Weights: those of the Dense layers hidden, gate and output.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 2; Shazeer 2020,
        https://arxiv.org/abs/2002.05202

    >>> import graphc as gx
    >>> gx.layers.FeedForward(64, activation="swiglu")(gx.placeholder("x", ("batch", "time", 16)))
    <add: f32[batch, time, 16]>
    """

    supports_masking = True

    def __init__(
        self,
        hidden_dim: int,
        activation: Any = "relu",
        use_bias: bool = True,
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = positive(self, "hidden_dim", hidden_dim)
        self.gated = isinstance(activation, str) and activation in _GATED
        self.activation = activations.get(_GATED[activation] if self.gated else activation)
        self.dropout = dropout
        self._dense: dict[str, Any] = {
            "use_bias": use_bias,
            "kernel_initializer": initializers.get(kernel_initializer),
            "bias_initializer": initializers.get(bias_initializer),
        }

    def build(self, input_shape: Any) -> None:
        said: dict[str, Any] = {**self._dense, "dtype": self.dtype}
        self.hidden = Dense(self.hidden_dim, activation=self.activation, name="hidden", **said)
        if self.gated:
            self.gate = Dense(self.hidden_dim, name="gate", **said)
        self.hidden_dropout = Dropout(self.dropout, name="hidden_dropout")
        self.output_dense = Dense(input_shape[-1], name="output", **said)

    def call(self, inputs: Node) -> Node:
        hidden = self.hidden(inputs)
        if self.gated:
            hidden = hidden * self.gate(inputs)
        return self.output_dense(self.hidden_dropout(hidden))


class _Block(Layer):
    """What encoder and decoder layers have in common: their arguments, and the way past each part.

    After the paper ``norm(x + dropout(part(x)))``; with ``normalize_first`` ``x + dropout(part(norm(x)))``.
    """

    supports_masking = True

    def __init__(
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        activation: Any = "relu",
        layer_norm_epsilon: float = 1e-5,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        normalize_first: bool = False,
        normalization: str = "layer",
        attention_dropout: float = 0.0,
        num_key_value_heads: int | None = None,
        key_dim: int | None = None,
        use_bias: bool = True,
        rotary: float | bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = positive(self, "intermediate_dim", intermediate_dim)
        self.num_heads = positive(self, "num_heads", num_heads)
        self.key_dim = None if key_dim is None else positive(self, "key_dim", key_dim)
        self.num_key_value_heads = num_key_value_heads
        self.normalize_first = normalize_first
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation = activation
        self.rotary = rotary_base(self, rotary)
        self.use_bias = use_bias
        self._first_values: dict[str, Any] = {
            "kernel_initializer": initializers.get(kernel_initializer),
            "bias_initializer": initializers.get(bias_initializer),
        }
        normalization_for(normalization, layer_norm_epsilon)
        self._normalization = (normalization, layer_norm_epsilon)

    def _make_attention(
        self, name: str, features: int, rotary: float | None
    ) -> MultiHeadAttention | GroupQueryAttention:
        """An attention layer whose heads share out the features."""
        size = self.key_dim
        if size is None:
            if features % self.num_heads:
                raise ShapeError(
                    f"layer {self.name!r}: {features} features cannot be dealt out to {self.num_heads} heads equally",
                    at=user_line(),
                    remedy="let num_heads divide the features, or give key_dim",
                )
            size = features // self.num_heads
        said: dict[str, Any] = {
            **self._first_values, "use_bias": self.use_bias, "dropout": self.attention_dropout, "rotary": rotary,
            "name": name, "dtype": self.dtype,
        }  # fmt: skip
        if self.num_key_value_heads is None:
            return MultiHeadAttention(self.num_heads, size, **said)
        return GroupQueryAttention(size, self.num_heads, self.num_key_value_heads, **said)

    def _make_feed_forward(self) -> FeedForward:
        return FeedForward(
            self.intermediate_dim, self.activation, self.use_bias, name="feed_forward", dtype=self.dtype,
            **self._first_values,
        )  # fmt: skip

    def _make_past(self, name: str) -> tuple[Layer, Dropout]:
        """The normalization and the dropout of one part."""
        return normalization_for(*self._normalization, name=f"{name}_norm", dtype=self.dtype), Dropout(
            self.dropout, name=f"{name}_dropout"
        )


def normalization_for(kind: str, epsilon: float, **kwargs: Any) -> Layer:
    """A layer that normalizes over the features: ``"layer"`` or ``"rms"``.

    Raises:
        AxisError: there is no such kind.
    """
    if kind not in ("layer", "rms"):
        raise AxisError(f"there is no normalization {kind!r}", at=user_line(), remedy="use layer or rms")
    return (LayerNormalization if kind == "layer" else RMSNormalization)(epsilon=epsilon, **kwargs)


class TransformerEncoderLayer(_Block):
    """Self-attention and a feed-forward network, each with a way past it.

    Args:
        intermediate_dim: the size within the feed-forward network.
        num_heads: of the attention.
        dropout: the part of each part's results that falls in training.
        activation: of the network: see :class:`FeedForward`.
        layer_norm_epsilon: of the normalizations.
        kernel_initializer, bias_initializer: first values.
        normalize_first: normalize what goes into each part (pre-norm), not what comes out behind it (post-norm, the
            paper's).
        normalization: ``"layer"`` or ``"rms"``.
        attention_dropout: the part of the attention's weights that falls in training.
        num_key_value_heads: heads of keys and values that those of queries share; default one for each.
        key_dim: the size of a head; default features / num_heads.
        use_bias: add biases.
        rotary: turn queries and keys by their positions: see :class:`MultiHeadAttention`.

    Shapes: x: (batch, time, n); the result has the shape of x; masks: see ``call`` of :class:`MultiHeadAttention`.
    Raises: ShapeError: the heads do not divide the features. AxisError: a count is no positive number.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1; KerasHub ``TransformerEncoder``;
        pre-norm: Xiong et al. 2020, https://arxiv.org/abs/2002.04745

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 16))
    >>> gx.layers.TransformerEncoderLayer(intermediate_dim=64, num_heads=4)(x)
    <add: f32[batch, time, 16]>
    """

    def build(self, input_shape: Any) -> None:
        self.self_attention = self._make_attention("self_attention", input_shape[-1], self.rotary)
        self.self_attention_norm, self.self_attention_dropout = self._make_past("self_attention")
        self.feed_forward = self._make_feed_forward()
        self.feed_forward_norm, self.feed_forward_dropout = self._make_past("feed_forward")

    def call(
        self,
        inputs: Node,
        attention_mask: Node | None = None,
        use_causal_mask: bool = False,
        attention_bias: Node | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        """One layer; ``attention_bias`` is added to the scores, such as :class:`RelativePositionBias`."""
        x, first = inputs, self.normalize_first
        asked = self.self_attention_norm(x) if first else x
        found = self.self_attention(
            asked, asked, attention_mask=attention_mask, use_causal_mask=use_causal_mask,
            attention_bias=attention_bias, return_attention_scores=return_attention_scores,
        )  # fmt: skip
        context, scores = found if return_attention_scores else (found, None)
        x = x + self.self_attention_dropout(context)
        x = x if first else self.self_attention_norm(x)
        x = x + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(x) if first else x))
        x = x if first else self.feed_forward_norm(x)
        return (x, scores) if return_attention_scores else x

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the inputs; scores have none."""
        return previous_mask


class TransformerDecoderLayer(_Block):
    """Causal self-attention, attention to a memory, and a feed-forward network, each with a way past it.

    Args:
        intermediate_dim: the size within the feed-forward network.
        num_heads: of both attentions.
        dropout, activation, layer_norm_epsilon, kernel_initializer, bias_initializer: see
            :class:`TransformerEncoderLayer`.
        normalize_first, normalization, attention_dropout, num_key_value_heads, key_dim, use_bias, rotary: see there.
        cross_attention: attend to a memory, such as what an encoder gave. Without it this is a layer of a decoder that
            stands alone, such as GPT.

    Shapes: x: (batch, time, n), memory: (batch, steps, m); the result has the shape of x.
    Raises: GraphError: there is a memory but no attention to it, or the other way round.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1; KerasHub ``TransformerDecoder``.

    >>> import graphc as gx
    >>> x, memory = gx.placeholder("x", ("batch", "time", 16)), gx.placeholder("memory", ("batch", "steps", 16))
    >>> gx.layers.TransformerDecoderLayer(intermediate_dim=64, num_heads=4)(x, memory)
    <add: f32[batch, time, 16]>
    """

    def __init__(self, intermediate_dim: int, num_heads: int, cross_attention: bool = True, **kwargs: Any) -> None:
        super().__init__(intermediate_dim, num_heads, **kwargs)
        self.has_memory = cross_attention

    def build(self, input_shape: Any) -> None:
        self.self_attention = self._make_attention("self_attention", input_shape[-1], self.rotary)
        self.self_attention_norm, self.self_attention_dropout = self._make_past("self_attention")
        if self.has_memory:
            self.cross_attention = self._make_attention("cross_attention", input_shape[-1], None)
            self.cross_attention_norm, self.cross_attention_dropout = self._make_past("cross_attention")
        self.feed_forward = self._make_feed_forward()
        self.feed_forward_norm, self.feed_forward_dropout = self._make_past("feed_forward")

    def call(
        self,
        inputs: Node,
        memory: Node | None = None,
        attention_mask: Node | None = None,
        memory_mask: Node | None = None,
        use_causal_mask: bool = True,
        attention_bias: Node | None = None,
    ) -> Node:
        """One layer.

        Args:
            inputs: what was written so far, (batch, time, n).
            memory: what is looked at beside it, (batch, steps, m).
            attention_mask: which step may attend to which, besides the causal mask.
            memory_mask: (batch, steps): false where the memory is padding; default the mask that travels beside it.
            use_causal_mask: no step attends to a later one.
            attention_bias: added to the scores of self-attention.
        """
        if (memory is not None) != self.has_memory:
            raise GraphError(
                f"layer {self.name!r} {'needs a memory' if self.has_memory else 'attends to no memory'}",
                at=user_line(),
                remedy="call layer(x, memory)" if self.has_memory else "make it with cross_attention=True",
            )
        said = {"attention_mask": attention_mask, "use_causal_mask": use_causal_mask, "attention_bias": attention_bias}

        def look_across(asked: Node) -> Node:
            return self.cross_attention(asked, memory, value_mask=memory_mask)

        look = None if memory is None else look_across
        return self._through(inputs, lambda asked: self.self_attention(asked, asked, **said), look)

    def _through(
        self,
        x: Node,
        attend: Callable[[Node], Node],
        look: Callable[[Node], Node] | None,
        dropping: bool = True,
    ) -> Node:
        """The parts one after the other, each with its way past it; generation never drops anything."""
        first = self.normalize_first

        def past(x: Node, part: Callable[[Node], Node], norm: Layer, dropout: Dropout) -> Node:
            made = part(norm(x) if first else x)
            x = x + (dropout(made) if dropping else made)
            return x if first else norm(x)

        x = past(x, attend, self.self_attention_norm, self.self_attention_dropout)
        if look is not None:
            x = past(x, look, self.cross_attention_norm, self.cross_attention_dropout)
        return past(x, self.feed_forward, self.feed_forward_norm, self.feed_forward_dropout)

    def read(self, x: Node, places: Places, bias: Node | None, memory: Seen | None) -> tuple[Node, Remembered]:
        """A prompt in one pass: the result, and the keys and values of its steps."""
        made: list[Remembered] = []

        def attend(asked: Node) -> Node:
            made.append(self.self_attention.remember(asked, places.positions))
            return self.self_attention.recall(
                asked, made[0], places.positions, places.positions, places.seen, True, bias
            )

        return self._through(x, attend, self._look(memory), dropping=False), made[0]

    def step(
        self, x: Node, held: Remembered, places: Places, bias: Node | None, memory: Seen | None
    ) -> tuple[Node, Remembered]:
        """One token behind those whose keys and values are held: the result, and these with those of the token."""
        made: list[Remembered] = []

        def attend(asked: Node) -> Node:
            assert places.slot is not None
            made.append(held.with_step(self.self_attention.remember(asked, places.positions), places.slot))
            return self.self_attention.recall(
                asked, made[0], places.positions, places.seen_positions, places.seen, False, bias
            )

        return self._through(x, attend, self._look(memory), dropping=False), made[0]

    def _look(self, memory: Seen | None) -> Callable[[Node], Node] | None:
        if memory is None:
            return None
        return lambda asked: self.cross_attention.recall(asked, memory.held, attention_mask=memory.mask)


class _Stack(Layer):
    """Layers one above the other, and a normalization behind them where they have it in front of their parts."""

    supports_masking = True

    def __init__(
        self,
        num_layers: int,
        made: type[_Block],
        relative_bias: RelativePositionBias | None,
        name: str | None,
        trainable: bool,
        dtype: Any,
        options: dict[str, Any],
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        count = positive(self, "num_layers", num_layers)
        self.relative_position_bias = relative_bias
        self.blocks: list[Any] = [made(name=f"layer_{number}", dtype=dtype, **options) for number in range(count)]
        self.norm = None
        if options.get("normalize_first"):
            kind, epsilon = options.get("normalization", "layer"), options.get("layer_norm_epsilon", 1e-5)
            self.norm = normalization_for(kind, epsilon, name="norm", dtype=dtype)

    def _bias(self, inputs: Node) -> Node | None:
        return None if self.relative_position_bias is None else self.relative_position_bias(inputs)


class TransformerEncoder(_Stack):
    """A stack of :class:`TransformerEncoderLayer`, and with ``normalize_first`` a normalization behind it.

    Args:
        num_layers: how many layers.
        intermediate_dim, num_heads: of each.
        relative_bias: learn a bias of the scores for distances, shared by all layers.
        options: further arguments of the layers.

    Shapes: x: (batch, time, n); the result has the shape of x.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1

    >>> import graphc as gx
    >>> x = gx.placeholder("x", ("batch", "time", 16))
    >>> gx.layers.TransformerEncoder(2, intermediate_dim=64, num_heads=4, normalize_first=True)(x)
    <add: f32[batch, time, 16]>
    """

    def __init__(
        self,
        num_layers: int,
        intermediate_dim: int,
        num_heads: int,
        relative_bias: bool = False,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        options = {"intermediate_dim": intermediate_dim, "num_heads": num_heads, **options}
        bias = RelativePositionBias(num_heads, name="relative_position_bias") if relative_bias else None
        super().__init__(num_layers, TransformerEncoderLayer, bias, name, trainable, dtype, options)

    def call(self, inputs: Node, attention_mask: Node | None = None, use_causal_mask: bool = False) -> Node:
        """The layers one after the other, with the same masks."""
        x, bias = inputs, self._bias(inputs)
        for block in self.blocks:
            x = block(x, attention_mask=attention_mask, use_causal_mask=use_causal_mask, attention_bias=bias)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(_Stack):
    """A stack of :class:`TransformerDecoderLayer`, and with ``normalize_first`` a normalization behind it.

    Args:
        num_layers: how many layers.
        intermediate_dim, num_heads: of each.
        relative_bias: learn a bias of the scores of self-attention for distances, shared by all layers.
        options: further arguments of the layers, such as ``cross_attention``.

    Shapes: x: (batch, time, n), memory: (batch, steps, m); the result has the shape of x.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1

    >>> import graphc as gx
    >>> x, memory = gx.placeholder("x", ("batch", "time", 16)), gx.placeholder("memory", ("batch", "steps", 16))
    >>> gx.layers.TransformerDecoder(2, intermediate_dim=64, num_heads=4)(x, memory)
    <add: f32[batch, time, 16]>
    """

    def __init__(
        self,
        num_layers: int,
        intermediate_dim: int,
        num_heads: int,
        relative_bias: bool = False,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        options = {"intermediate_dim": intermediate_dim, "num_heads": num_heads, **options}
        bias = None
        if relative_bias:
            bias = RelativePositionBias(num_heads, bidirectional=False, name="relative_position_bias")
        super().__init__(num_layers, TransformerDecoderLayer, bias, name, trainable, dtype, options)

    def call(
        self,
        inputs: Node,
        memory: Node | None = None,
        attention_mask: Node | None = None,
        memory_mask: Node | None = None,
        use_causal_mask: bool = True,
    ) -> Node:
        """The layers one after the other, all with the same memory and masks."""
        x = inputs
        said = {"attention_mask": attention_mask, "memory_mask": memory_mask, "attention_bias": self._bias(inputs)}
        for block in self.blocks:
            given = (x,) if memory is None else (x, memory)
            x = block(*given, use_causal_mask=use_causal_mask, **said)
        return x if self.norm is None else self.norm(x)

    def remember_memory(self, memory: Node) -> list[Remembered]:
        """The keys and values of a memory in each layer: once, for all steps that look at it."""
        return [block.cross_attention.remember(memory) for block in self.blocks]

    def read(self, x: Node, places: Places, memory: Sequence[Seen] | None = None) -> tuple[Node, list[Remembered]]:
        """A prompt in one pass: what the layers make of it, and its keys and values in each of them."""
        return self._decode(x, [None] * len(self.blocks), places, memory)

    def step(
        self, x: Node, held: Sequence[Remembered], places: Places, memory: Sequence[Seen] | None = None
    ) -> tuple[Node, list[Remembered]]:
        """One token, (batch, 1, n), behind those whose keys and values are held.

        Args:
            x: the token's vectors.
            held: what :meth:`read` and earlier steps gave.
            places: where it stands; with ``slot``.
            memory: with cross-attention, what the layers look at.
        """
        return self._decode(x, held, places, memory)

    def _decode(
        self, x: Node, held: Sequence[Remembered | None], places: Places, memory: Sequence[Seen] | None
    ) -> tuple[Node, list[Remembered]]:
        bias = None
        if self.relative_position_bias is not None:
            others = places.positions if places.seen_positions is None else places.seen_positions
            bias = self.relative_position_bias.between(places.positions, others)
        made: list[Remembered] = []
        for number, block in enumerate(self.blocks):
            seen = None if memory is None else memory[number]
            mine = held[number]
            x, after = block.read(x, places, bias, seen) if mine is None else block.step(x, mine, places, bias, seen)
            made.append(after)
        return (x if self.norm is None else self.norm(x)), made
