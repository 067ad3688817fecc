"""Where Transformers begin and end: embeddings that also go back, tokens with positions, patches of images."""

from __future__ import annotations

import math
from typing import Any, cast

import graphc as gx
from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend import initializers, tracing
from graphc.frontend.arguments import element
from graphc.frontend.checked import Count, Natural, Positive
from graphc.frontend.config import user_line
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.core import Dense
from graphc.frontend.layers.embedding import Embedding
from graphc.frontend.layers.positions import PositionEmbedding, SinePositionEncoding
from graphc.ir.node import Node, Parameter


class ReversibleEmbedding(Embedding):
    """An embedding that also goes back: with ``reverse=True`` from vectors to a logit for each id.

    Args:
        input_dim: the number of ids.
        output_dim: the size of the vectors.
        tie_weights: go back by the same table; else by a matrix of its own.
        embeddings_initializer: first values.
        embeddings_regularizer: a penalty on the table, added to the loss.
        embeddings_constraint: what the table goes through in every step of training.
        mask_zero: id 0 is padding.
        reverse_dtype: the element type in which logits are computed; default that of the vectors.
        logit_soft_cap: logits stay within this size: ``cap * tanh(logits / cap)``.

    Shapes:
        ids: (batch, time); the result: (batch, time, output_dim). In reverse: (batch, time, output_dim) to (batch,
        time, input_dim). Weights: embeddings (input_dim, output_dim), and reverse_embeddings if they are not tied.
    Source: Press and Wolf 2016, https://arxiv.org/abs/1608.05859; Keras ``ReversibleEmbedding``.

    >>> import graphc as gx
    >>> layer = gx.layers.ReversibleEmbedding(1000, 8)
    >>> x = layer(gx.placeholder("ids", ("batch", "time"), "int64"))
    >>> layer(x, reverse=True)
    <matmul: f32[batch, time, 1000]>
    """

    reverse_embeddings: Parameter

    def __init__(
        self,
        input_dim: Count,
        output_dim: Count,
        tie_weights: bool = True,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        reverse_dtype: Any = None,
        logit_soft_cap: Positive | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim, output_dim, embeddings_initializer, embeddings_regularizer, embeddings_constraint, mask_zero,
            **kwargs,
        )  # fmt: skip
        self.tie_weights = tie_weights
        self.reverse_dtype = None if reverse_dtype is None else element(f"layer {self.name!r}", reverse_dtype)
        self.logit_soft_cap = logit_soft_cap

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if not self.tie_weights:
            self.reverse_embeddings = self.add_weight(
                name="reverse_embeddings",
                shape=(self.output_dim, self.input_dim),
                initializer=self.embeddings_initializer,
            )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the ids, or of the vectors; :meth:`call` sets it, since it knows which they are."""
        return None

    def call(self, inputs: Node, reverse: bool = False) -> Node:
        """Vectors for ids; with ``reverse`` logits for vectors."""
        if not reverse:
            vectors = super().call(inputs)
            tracing.set_mask(vectors, super().compute_mask(inputs, None))
            return vectors
        kernel = gx.transpose(self.embeddings) if self.tie_weights else self.reverse_embeddings
        vectors = inputs
        if self.reverse_dtype is not None:
            vectors, kernel = gx.cast(vectors, self.reverse_dtype), gx.cast(kernel, self.reverse_dtype)
        logits = gx.matmul(vectors, kernel)
        if self.logit_soft_cap is not None:
            logits = gx.tanh(logits / self.logit_soft_cap) * self.logit_soft_cap
        tracing.set_mask(logits, tracing.mask_of(inputs))
        return logits


class TokenAndPositionEmbedding(Layer):
    """The sum of a vector for each token and one for its position, and back to a logit for each token.

    Args:
        vocabulary_size: the number of tokens.
        sequence_length: the greatest length; learned positions need it.
        embedding_dim: the size of the vectors.
        tie_weights: go back, with ``reverse=True``, by the same table.
        embeddings_initializer: first values of all tables.
        mask_zero: token 0 is padding.
        positions: ``"learned"``, ``"sinusoidal"``, or None for models that know positions by other means.
        scale: multiply the tokens' vectors by the root of their size, as the Transformer does.
        num_segments: how many kinds of text there are, each with a vector of its own, as BERT has them.

    Shapes:
        tokens: (batch, time), segments: (batch, time); the result: (batch, time, embedding_dim). In reverse: (batch,
        time, embedding_dim) to (batch, time, vocabulary_size).
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.4; KerasHub ``TokenAndPositionEmbedding``.

    >>> import graphc as gx
    >>> ids = gx.placeholder("ids", ("batch", "time"), "int64")
    >>> gx.layers.TokenAndPositionEmbedding(1000, 64, 8)(ids)
    <add: f32[batch, time, 8]>
    """

    input_dtype = "int64"
    supports_masking = True

    def __init__(
        self,
        vocabulary_size: Count,
        sequence_length: Count | None,
        embedding_dim: Count,
        tie_weights: bool = True,
        embeddings_initializer: Any = "uniform",
        mask_zero: bool = False,
        positions: str | None = "learned",
        scale: bool = False,
        num_segments: Natural = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if positions not in ("learned", "sinusoidal", None):
            raise AxisError(
                f"there are no positions {positions!r}", at=user_line(), remedy="learned, sinusoidal or None"
            )
        first = initializers.get(embeddings_initializer)
        said: dict[str, Any] = {"dtype": kwargs.get("dtype")}
        self.embedding_dim = embedding_dim
        self.scale = scale
        self.token_embedding = ReversibleEmbedding(
            vocabulary_size, embedding_dim, tie_weights, first, mask_zero=mask_zero, name="token_embedding", **said
        )
        self.position_embedding: Layer | None = None
        if positions == "learned":
            length = cast("int", sequence_length)  # which is asked for there
            self.position_embedding = PositionEmbedding(length, first, name="position_embedding", **said)
        elif positions == "sinusoidal":
            self.position_embedding = SinePositionEncoding(name="position_encoding")
        self.segment_embedding = None
        if num_segments:
            self.segment_embedding = Embedding(num_segments, embedding_dim, first, name="segment_embedding", **said)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the tokens, or of the vectors; :meth:`call` sets it, since it knows which they are."""
        return None

    def call(
        self,
        inputs: Node,
        segments: Node | None = None,
        start_index: Any = 0,
        reverse: bool = False,
        positions: Node | None = None,
    ) -> Node:
        """Vectors for tokens; with ``reverse`` logits for vectors.

        Args:
            inputs: tokens, or vectors.
            segments: the kind of text that each token is of.
            start_index: the position of the first token.
            reverse: go back.
            positions: those of all tokens, (..., time), instead of ``start_index``.
        """
        if reverse:
            return self.token_embedding(inputs, reverse=True)
        if (segments is not None) != (self.segment_embedding is not None):
            raise GraphError(
                f"layer {self.name!r} {'needs' if segments is None else 'has no'} segments",
                at=user_line(),
                remedy="call layer(tokens, segments)" if segments is None else "give num_segments",
            )
        tokens = self.token_embedding(inputs)
        x = tokens * math.sqrt(self.embedding_dim) if self.scale else tokens
        if self.position_embedding is not None:
            x = x + self.position_embedding(x, start_index=start_index, positions=positions)
        if self.segment_embedding is not None:
            x = x + self.segment_embedding(segments)
        tracing.set_mask(x, tracing.mask_of(tokens))
        return x


class PatchEmbedding(Layer):
    """Images as sequences of patches: each is projected, gets the vector of its place, and a token stands before them.

    Args:
        patch_size: the height and width of a patch, which divide those of the image.
        embedding_dim: the size of the vectors.
        class_token: put a learned vector before the patches, in which the model collects what it finds.
        position_initializer, kernel_initializer: first values.

    Shapes:
        x: (batch, height, width, channels); the result: (batch, patches + 1, embedding_dim), patches row by row.
        Weights: class_token (1, embedding_dim), those of the Dense layer projection and of position_embedding.
    Raises: ShapeError: the patches do not divide the image, or its size is not known.
    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, equation 1

    >>> import graphc as gx
    >>> gx.layers.PatchEmbedding(4, 16)(gx.placeholder("x", ("batch", 8, 8, 3)))
    <add: f32[batch, 5, 16]>
    """

    token: Parameter

    def __init__(
        self,
        patch_size: Count,
        embedding_dim: Count,
        class_token: bool = True,
        position_initializer: Any = "random_normal",
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.embedding_dim = embedding_dim
        self.class_token = class_token
        self.position_initializer = initializers.get(position_initializer)
        self.kernel_initializer = initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        sizes = input_shape[1:3]
        if len(input_shape) != 4 or None in input_shape[1:] or any(size % self.patch_size for size in sizes):
            raise ShapeError(
                f"layer {self.name!r} cannot cut {input_shape} into patches of {self.patch_size} x {self.patch_size}",
                at=user_line(),
                remedy="give images (batch, height, width, channels) of a known size, a multiple of the patches'",
            )
        count = math.prod(size // self.patch_size for size in sizes) + self.class_token
        if self.class_token:
            self.token = self.add_weight(name="class_token", shape=(1, self.embedding_dim), initializer="zeros")
        self.projection = Dense(
            self.embedding_dim, kernel_initializer=self.kernel_initializer, name="projection", dtype=self.dtype
        )
        self.position_embedding = PositionEmbedding(
            count, self.position_initializer, name="position_embedding", dtype=self.dtype
        )

    def call(self, inputs: Node) -> Node:
        batch, height, width, channels = inputs.shape
        side = self.patch_size
        rows, columns = height // side, width // side
        x = gx.reshape(inputs, (batch, rows, side, columns, side, channels))
        x = gx.reshape(gx.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, rows * columns, side * side * channels))
        x = self.projection(x)
        if self.class_token:
            x = gx.concatenate([gx.broadcast_to(self.token, (batch, 1, self.embedding_dim)), x], axis=1)
        return x + self.position_embedding(x)
