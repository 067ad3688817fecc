"""BERT: an encoder that reads text in both directions, and learns by filling in what is hidden."""

from __future__ import annotations

from typing import Any

from graphc.frontend import tracing
from graphc.frontend.checked import Count, Natural, Part
from graphc.frontend.initializers import TruncatedNormal
from graphc.frontend.layers.base import Layer
from graphc.frontend.layers.core import Dense, Input
from graphc.frontend.layers.layer_normalization import LayerNormalization
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.token_embedding import TokenAndPositionEmbedding
from graphc.frontend.layers.transformer import TransformerEncoder
from graphc.frontend.model import Model
from graphc.frontend.models.pooling import SequencePooling
from graphc.ir.node import Node, Parameter


class Bert(Model):
    """An encoder of tokens, with a vector for each token and one for the whole; its defaults are BERT base.

    The outputs are a dict: ``"sequence"``, (batch, time, d_model); ``"pooled"``, (batch, d_model), a layer over the
    first token's vector; and with ``masked_lm`` the logits ``"masked_lm"``, (batch, time, vocabulary_size), of the
    token at each place. Token 0 is padding and does not count. To use it for a task of your own, train a model on it:
    ``gx.Model(bert.inputs, layers.Dense(2)(bert.output["pooled"]))``.

    Args:
        vocabulary_size: the number of tokens.
        num_layers, d_model, num_heads, d_ff: of the encoder.
        max_length: the greatest length.
        num_segments: how many kinds of text there are; with 0 the model takes no segments.
        dropout: the part of the embeddings, of the attention's weights and of each part's results that falls in
            training.
        masked_lm: with the head that says which token stands at each place; it goes back by the tokens' table.
        options: further arguments of the layers: see :class:`~graphc.layers.TransformerEncoderLayer`.

    Shapes: tokens, segments: (batch, time), int64.
    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805

    >>> import graphc as gx
    >>> model = gx.models.Bert(50, num_layers=1, d_model=16, num_heads=2, d_ff=32, max_length=8, masked_lm=True)
    >>> sorted(model.output)
    ['masked_lm', 'pooled', 'sequence']
    """

    def __init__(
        self,
        vocabulary_size: Count,
        num_layers: Count = 12,
        d_model: Count = 768,
        num_heads: Count = 12,
        d_ff: Count = 3072,
        max_length: Count = 512,
        num_segments: Natural = 2,
        dropout: Part = 0.1,
        masked_lm: bool = False,
        name: str | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        first = TruncatedNormal(stddev=0.02)
        said: dict[str, Any] = {
            "activation": "gelu",
            "layer_norm_epsilon": 1e-12,
            "kernel_initializer": first,
            **options,
        }
        epsilon = said["layer_norm_epsilon"]
        self.embedding = TokenAndPositionEmbedding(
            vocabulary_size, max_length, d_model, embeddings_initializer=first, mask_zero=True,
            num_segments=num_segments, name="embedding",
        )  # fmt: skip
        self.embedding_norm = LayerNormalization(epsilon=epsilon, name="embedding_norm")
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        self.encoder = TransformerEncoder(
            num_layers, d_ff, num_heads, dropout=dropout, attention_dropout=dropout, name="encoder", **said
        )
        self.first_token = SequencePooling("first", name="first_token")
        self.pooler = Dense(d_model, activation="tanh", kernel_initializer=first, name="pooler")
        with tracing.new_scope():
            inputs = [Input(("time",), dtype="int64", name="tokens")]
            if num_segments:
                inputs.append(Input(("time",), dtype="int64", name="segments"))
            sequence = self.encoder(self.embedding_dropout(self.embedding_norm(self.embedding(*inputs))))
            outputs = {"sequence": sequence, "pooled": self.pooler(self.first_token(sequence))}
            if masked_lm:
                self.hidden = Dense(d_model, activation="gelu", kernel_initializer=first, name="masked_lm_hidden")
                self.hidden_norm = LayerNormalization(epsilon=epsilon, name="masked_lm_norm")
                self.masked_lm = PerTokenBias(name="masked_lm")
                guess = self.hidden_norm(self.hidden(sequence))
                outputs["masked_lm"] = self.masked_lm(self.embedding(guess, reverse=True))
            super().__init__(inputs if num_segments else inputs[0], outputs, name, trainable)


class PerTokenBias(Layer):
    """A bias for each token of the vocabulary, added to its logit."""

    supports_masking = True
    bias: Parameter

    def build(self, input_shape: Any) -> None:
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs: Node) -> Node:
        return inputs + self.bias
