"""The Transformer: an encoder that reads a sequence, and a decoder that writes another."""

from __future__ import annotations

from typing import Any

from graphc.errors import AxisError
from graphc.frontend import tracing
from graphc.frontend.config import user_line
from graphc.frontend.initializers import RandomNormal
from graphc.frontend.layers.core import Dense, Input
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.token_embedding import TokenAndPositionEmbedding
from graphc.frontend.layers.transformer import TransformerDecoder, TransformerEncoder
from graphc.frontend.model import Model
from graphc.ir.node import Node


class Transformer(Model):
    """The encoder-decoder of the paper "Attention is all you need"; its defaults are the paper's base model.

    It is trained by teacher forcing: the inputs are the source and the target without its last token, what it should
    predict is the target without its first, ``model.fit([source, target[:, :-1]], target[:, 1:])``. Token 0 is padding
    and does not count.

    Args:
        vocabulary_size: the number of tokens, of the source and, unless ``target_vocabulary_size`` says else, of the
            target. One vocabulary has one table for the source, the target and the logits, as in section 3.4.
        target_vocabulary_size: the number of tokens of the target if it has a table of its own, shared with the logits.
        num_layers: of the encoder and of the decoder.
        d_model: the size of the vectors between layers.
        num_heads: in each attention, each of the size ``key_dim``, by default ``d_model / num_heads``.
        d_ff: the size within the feed-forward networks.
        dropout: the part of the embeddings and of each part's results that falls in training.
        tie_weights: take the table of the target for the logits; else a Dense layer.
        positions: ``"sinusoidal"``, ``"learned"`` (then ``max_length`` is needed), or None.
        max_length: the greatest length, where positions are learned.
        options: further arguments of the layers: see :class:`~graphc.layers.TransformerEncoderLayer`
            (``normalize_first``, ``activation``, ``normalization``, ``rotary``, ...).

    Shapes: source: (batch, steps), target: (batch, time), int64; logits: (batch, time, target vocabulary).
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762

    >>> import graphc as gx
    >>> model = gx.models.Transformer(50, num_layers=1, d_model=16, num_heads=2, d_ff=32)
    >>> model.outputs
    [<input 'embedding': f32[batch, time, 50]>]
    """

    def __init__(
        self,
        vocabulary_size: int,
        target_vocabulary_size: int | None = None,
        num_layers: int = 6,
        d_model: int = 512,
        num_heads: int = 8,
        d_ff: int = 2048,
        dropout: float = 0.1,
        tie_weights: bool = True,
        positions: str | None = "sinusoidal",
        max_length: int | None = None,
        name: str | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        if target_vocabulary_size is not None and target_vocabulary_size <= 0:
            raise AxisError(
                f"target_vocabulary_size is {target_vocabulary_size}", at=user_line(), remedy="give a positive number"
            )
        said: dict[str, Any] = {
            "embeddings_initializer": RandomNormal(stddev=d_model**-0.5), "mask_zero": True, "positions": positions,
            "scale": True,
        }  # fmt: skip
        size = target_vocabulary_size or vocabulary_size
        self.embedding = TokenAndPositionEmbedding(size, max_length, d_model, name="embedding", **said)
        self.source_embedding = self.embedding
        if target_vocabulary_size is not None:
            self.source_embedding = TokenAndPositionEmbedding(
                vocabulary_size, max_length, d_model, name="source_embedding", **said
            )
        stack: dict[str, Any] = {"intermediate_dim": d_ff, "num_heads": num_heads, "dropout": dropout, **options}
        self.source_dropout = Dropout(dropout, name="source_dropout")
        self.encoder = TransformerEncoder(num_layers, name="encoder", **stack)
        self.target_dropout = Dropout(dropout, name="target_dropout")
        self.decoder = TransformerDecoder(num_layers, name="decoder", **stack)
        self.logits = None if tie_weights else Dense(size, name="logits")
        with tracing.new_scope():
            source = Input(("steps",), dtype="int64", name="source")
            target = Input(("time",), dtype="int64", name="target")
            super().__init__([source, target], self.decode(target, self.encode(source)), name, trainable)

    def encode(self, source: Node) -> Node:
        """What the encoder makes of the source: the memory, (batch, steps, d_model)."""
        return self.encoder(self.source_dropout(self.source_embedding(source)))

    def decode(self, target: Node, memory: Node) -> Node:
        """Logits of the token that follows each one of the target."""
        x = self.decoder(self.target_dropout(self.embedding(target)), memory)
        return self.embedding(x, reverse=True) if self.logits is None else self.logits(x)
