"""Whole models: Transformers of all kinds."""

from __future__ import annotations

from graphc.frontend.models import *
