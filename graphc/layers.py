"""Layers, and the base of your own."""

from __future__ import annotations

from graphc.frontend.layers import *
