"""Callbacks: what happens beside training."""

from __future__ import annotations

from graphc.frontend.callbacks import *
