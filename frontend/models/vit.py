"""ViT: an encoder that reads images as sequences of patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend import tracing
from graphc.frontend.checked import Count, Part
from graphc.frontend.layers.core import Dense, Input
from graphc.frontend.layers.regularization import Dropout
from graphc.frontend.layers.token_embedding import PatchEmbedding
from graphc.frontend.layers.transformer import TransformerEncoder
from graphc.frontend.model import Model
from graphc.frontend.models.pooling import SequencePooling


class ViT(Model):
    """A Transformer for images: from pixels to a logit for each class; its defaults are ViT-B/16.

    Args:
        image_shape: height, width and channels.
        num_classes: the number of logits.
        patch_size: the height and width of the patches that an image is cut into.
        num_layers, d_model, num_heads, d_ff: of the encoder.
        dropout: the part of the embeddings and of each part's results that falls in training.
        pooling: what the logits are made of: ``"first"``, the vector of a token put before the patches, or ``"mean"``,
            the mean over the patches.
        options: further arguments of the layers: see :class:`~graphc.layers.TransformerEncoderLayer`.

    Shapes: images: (batch, height, width, channels); logits: (batch, num_classes).
    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929

    >>> import graphc as gx
    >>> gx.models.ViT((8, 8, 1), 10, patch_size=2, num_layers=1, d_model=16, num_heads=2, d_ff=32).outputs
    [<input 'logits': f32[batch, 10]>]
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_classes: Count,
        patch_size: Count = 16,
        num_layers: Count = 12,
        d_model: Count = 768,
        num_heads: Count = 12,
        d_ff: Count = 3072,
        dropout: Part = 0.1,
        pooling: str = "first",
        name: str | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        said: dict[str, Any] = {"activation": "gelu", "layer_norm_epsilon": 1e-6, "normalize_first": True, **options}
        self.embedding = PatchEmbedding(patch_size, d_model, class_token=pooling == "first", name="embedding")
        self.embedding_dropout = Dropout(dropout, name="embedding_dropout")
        self.encoder = TransformerEncoder(num_layers, d_ff, num_heads, dropout=dropout, name="encoder", **said)
        self.pooling = SequencePooling(pooling, name="pooling")
        self.logits = Dense(num_classes, name="logits")
        with tracing.new_scope():
            images = Input(tuple(image_shape), name="images")
            found = self.encoder(self.embedding_dropout(self.embedding(images)))
            super().__init__(images, self.logits(self.pooling(found)), name, trainable)
