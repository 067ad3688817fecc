"""Whole models by name: :class:`Transformer`, :class:`Bert`, :class:`Gpt`, :class:`ViT`."""

from __future__ import annotations

from graphc.frontend.models.bert import Bert as Bert
from graphc.frontend.models.gpt import Gpt as Gpt
from graphc.frontend.models.transformer import Transformer as Transformer
from graphc.frontend.models.vit import ViT as ViT
