"""The Transformer: an encoder that reads a sequence, and a decoder that writes another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import tracing
from graphc.frontend.checked import Count, Part
from graphc.frontend.config import user_line
from graphc.frontend.decoder import Decoded, Decoder
from graphc.frontend.initializers import RandomNormal
from graphc.frontend.layers.core import Dense, Input
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.token_embedding import TokenAndPositionEmbedding
from graphc.frontend.layers.transformer import TransformerDecoder, TransformerEncoder
from graphc.frontend.model import Model
from graphc.frontend.models.writing import CachedDecoder, write
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
        vocabulary_size: Count,
        target_vocabulary_size: int | None = None,
        num_layers: Count = 6,
        d_model: Count = 512,
        num_heads: Count = 8,
        d_ff: Count = 2048,
        dropout: Part = 0.1,
        tie_weights: bool = True,
        positions: str | None = "sinusoidal",
        max_length: Count | None = None,
        name: str | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        self._max_length = max_length if positions == "learned" else None
        self._decoders: dict[Any, Decoder] = {}
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
        return self._as_logits(self.decoder(self.target_dropout(self.embedding(target)), memory))

    def _as_logits(self, x: Node) -> Node:
        return self.embedding(x, reverse=True) if self.logits is None else self.logits(x)

    def generate(
        self,
        source: Any,
        length: int,
        start: int,
        end: int | None = None,
        pad: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        beams: int | None = None,
        length_penalty: float = 0.0,
        callback: Callable[[Any], object] | None = None,
        backend: str = "auto",
        precision: str | None = None,
    ) -> Decoded:
        """Write a target for each source: greedily, unless arguments ask for drawn tokens or a beam search.

        The encoder runs once, and so do the keys and values of its memory; each token is one step that looks at these
        and at those of the tokens before. The first call of each kind compiles; other sources do not.

        Args:
            source: tokens, (batch, steps); 0 is padding.
            length: so many tokens are written, at most.
            start: the token that every target begins with; it is not part of the result.
            end: the token that ends a target; when all have ended, generation does.
            pad: what stands behind an end.
            temperature, top_k, top_p, seed: draw tokens: see :func:`graphc.generation.sample`.
            beams, length_penalty: search for the likeliest targets: see :func:`graphc.generation.beam_search`.
            callback: called with the tokens (batch,) of each step as soon as there are any.
            backend, precision: as for ``gx.compile``.

        Returns:
            the tokens that were written, (batch, length), or (batch, beams, length), their number and log probability.
        """
        if self._max_length is not None and length > self._max_length:
            raise ShapeError(
                f"{length} tokens reach beyond the {self._max_length} positions of the model",
                at=user_line(),
                remedy="write less, or make the model with a greater max_length",
            )
        arrays = {"source": np.asarray(source, np.int64)}
        decoder = self.writer(length, start, end, pad, backend, precision)
        return write(decoder, arrays, temperature, top_k, top_p, seed, beams, length_penalty, callback)

    def writer(
        self,
        length: int,
        start: int,
        end: int | None = None,
        pad: int = 0,
        backend: str = "auto",
        precision: str | None = None,
    ) -> Decoder:
        """What :meth:`generate` writes with: its input is ``source``, (batch, steps)."""
        key = (length, start, end, pad, backend, precision)
        if key not in self._decoders:
            source = gx.placeholder("source", ("batch", "steps"), "int64")
            cached = CachedDecoder(
                self.decoder,
                lambda tokens, positions: self.embedding(tokens, positions=positions),
                self._as_logits,
                length,
                mask_zero=True,
            )
            constants = cached.look_at(self.encode(source))
            first = gx.full((source.shape[0], 1), start, "int64")
            state, token = cached.begin(first, gx.full(first.shape, True, "bool"), constants)
            self._decoders[key] = Decoder(
                cached.step, [source], state, token, length, end, pad, constants, backend=backend, precision=precision
            )
        return self._decoders[key]
