"""Saving and loading models, and ``register`` for classes and functions of your own."""

from __future__ import annotations

from graphc.frontend.saving import *
