"""GPT: a decoder that stands alone, and writes a text token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend import tracing
from graphc.frontend.checked import Count, Part
from graphc.frontend.config import user_line
from graphc.frontend.decoder import Decoded, Decoder
from graphc.frontend.initializers import RandomNormal
from graphc.frontend.layers.core import Input
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.token_embedding import TokenAndPositionEmbedding
from graphc.frontend.layers.transformer import TransformerDecoder
from graphc.frontend.model import Model
from graphc.frontend.models.writing import CachedDecoder, as_prompts, write
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
        vocabulary_size: Count,
        num_layers: Count = 12,
        d_model: Count = 768,
        num_heads: Count = 12,
        d_ff: Count | None = None,
        max_length: Count | None = 1024,
        positions: str | None = "learned",
        dropout: Part = 0.1,
        tie_weights: bool = True,
        mask_zero: bool = False,
        name: str | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        if positions not in _POSITIONS:
            known = ", ".join(str(one) for one in _POSITIONS)
            raise AxisError(f"no positions are called {positions!r}", at=user_line(), remedy=f"use one of {known}")
        self._mask_zero = mask_zero
        self._max_length = max_length if positions == "learned" else None
        self._decoders: dict[Any, Decoder] = {}
        first = RandomNormal(stddev=0.02)
        added = positions if positions in ("learned", "sinusoidal") else None
        self.embedding = TokenAndPositionEmbedding(
            vocabulary_size, max_length, d_model, tie_weights, first, mask_zero, added, name="embedding"
        )
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        said: dict[str, Any] = {
            "activation": "gelu", "normalize_first": True, "dropout": dropout, "kernel_initializer": first,
            "rotary": positions == "rotary", **options,
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

    def generate(
        self,
        prompts: Any,
        length: int,
        end: int | None = None,
        pad: int = 0,
        mask: Any = None,
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
        """Go on with texts: greedily, unless arguments ask for drawn tokens or a beam search.

        A prompt is read in one pass; then each token is one step that looks at the keys and values of those before.
        Rows do not depend on each other. The first call of each kind compiles; other prompts do not.

        Args:
            prompts: the first tokens of each text: (batch, time), or rows of different lengths.
            length: so many tokens are written, at most.
            end: the token that ends a text; when all have ended, generation does.
            pad: what stands behind an end.
            mask: (batch, time), which tokens of prompts count, where they are padded on any side.
            temperature, top_k, top_p, seed: draw tokens: see :func:`graphc.generation.sample`.
            beams, length_penalty: search for the likeliest texts: see :func:`graphc.generation.beam_search`.
            callback: called with the tokens (batch,) of each step as soon as there are any.
            backend, precision: as for ``gx.compile``.

        Returns:
            the tokens that were written, (batch, length), or (batch, beams, length), their number and log probability.
        """
        array, counted = as_prompts(prompts, mask, pad)
        if self._max_length is not None and array.shape[1] + length - 1 > self._max_length:
            raise ShapeError(
                f"{array.shape[1]} tokens and {length} more reach beyond the {self._max_length} positions of the model",
                at=user_line(),
                remedy="write less, or make the model with a greater max_length",
            )
        arrays = {"prompt": array} if counted is None else {"prompt": array, "mask": counted}
        decoder = self.writer(length, end, pad, counted is not None, backend, precision)
        return write(decoder, arrays, temperature, top_k, top_p, seed, beams, length_penalty, callback)

    def writer(
        self,
        length: int,
        end: int | None = None,
        pad: int = 0,
        masked: bool = False,
        backend: str = "auto",
        precision: str | None = None,
    ) -> Decoder:
        """What :meth:`generate` writes with: its inputs are ``prompt``, (batch, time), and with ``masked`` ``mask``."""
        key = (length, end, pad, masked, backend, precision)
        if key not in self._decoders:
            prompt = gx.placeholder("prompt", ("batch", "time"), "int64")
            mask = gx.placeholder("mask", ("batch", "time"), "bool") if masked else None
            cached = CachedDecoder(
                self.decoder,
                lambda tokens, positions: self.embedding(tokens, positions=positions),
                lambda x: self.embedding(x, reverse=True),
                length,
                self._mask_zero,
            )
            state, start = cached.begin(prompt, mask)
            inputs = [prompt] if mask is None else [prompt, mask]
            self._decoders[key] = Decoder(
                cached.step, inputs, state, start, length, end, pad, backend=backend, precision=precision
            )
        return self._decoders[key]
