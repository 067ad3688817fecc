"""GPT: a decoder that stands alone, and writes a text token by token."""

from __future__ import annotations

from typing import Any

from graphc.errors import AxisError
from graphc.frontend import tracing
from graphc.frontend.config import user_line
from graphc.frontend.initializers import RandomNormal
from graphc.frontend.layers.core import Input
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.token_embedding import TokenAndPositionEmbedding
from graphc.frontend.layers.transformer import TransformerDecoder
from graphc.frontend.model import Model
from graphc.ir.node import Node

_POSITIONS = ("learned", "sinusoidal", "rotary", "relative", None)


class Gpt(Model):
    """A causal model of text: from tokens to logits of the token that follows each; its defaults are GPT-2 small.

    It is trained on texts moved by one token, ``model.fit(text[:, :-1], text[:, 1:])``. Normalization comes first in
    each part, and logits are made by the tokens' table.

    Args:
        vocabulary_size: the number of tokens.
        num_layers, d_model, num_heads: of the decoder.
        d_ff: the size within the feed-forward networks; default four times ``d_model``.
        max_length: the greatest length, where positions are learned.
        positions: ``"learned"``, ``"sinusoidal"``, ``"rotary"``, ``"relative"``, or None.
        dropout: the part of the embeddings and of each part's results that falls in training.
        tie_weights: go back by the tokens' table; else by one of its own.
        mask_zero: token 0 is padding and does not count.
        options: further arguments of the layers: see :class:`~graphc.layers.TransformerDecoderLayer`
            (``activation``, ``normalization``, ``num_key_value_heads``, ``attention_dropout``, ...).

    Shapes: tokens: (batch, time), int64; logits: (batch, time, vocabulary_size).
    Source: Radford et al. 2019, Language models are unsupervised multitask learners.

    >>> import graphc as gx
    >>> gx.models.Gpt(50, num_layers=1, d_model=16, num_heads=2, max_length=8).outputs
    [<input 'embedding': f32[batch, time, 50]>]
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 12,
        d_model: int = 768,
        num_heads: int = 12,
        d_ff: int | None = None,
        max_length: int | None = 1024,
        positions: str | None = "learned",
        dropout: float = 0.1,
        tie_weights: bool = True,
        mask_zero: bool = False,
        name: str | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        if positions not in _POSITIONS:
            known = ", ".join(str(one) for one in _POSITIONS)
            raise AxisError(f"no positions are called {positions!r}", at=user_line(), remedy=f"use one of {known}")
        first = RandomNormal(stddev=0.02)
        added = positions if positions in ("learned", "sinusoidal") else None
        self.embedding = TokenAndPositionEmbedding(
            vocabulary_size, max_length, d_model, tie_weights, first, mask_zero, added, name="embedding"
        )
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        said: dict[str, Any] = {
            "activation": "gelu", "normalize_first": True, "dropout": dropout, "kernel_initializer": first,
            "rotary": 10_000.0 if positions == "rotary" else None, **options,
        }  # fmt: skip
        self.decoder = TransformerDecoder(
            num_layers, d_ff or 4 * d_model, num_heads, positions == "relative", cross_attention=False,
            name="decoder", **said,
        )  # fmt: skip
        with tracing.new_scope():
            tokens = Input(("time",), dtype="int64", name="tokens")
            super().__init__(tokens, self.predict_next(tokens), name, trainable)

    def predict_next(self, tokens: Node) -> Node:
        """Logits of the token that follows each."""
        return self.embedding(self.decoder(self.embedding_dropout(self.embedding(tokens))), reverse=True)
