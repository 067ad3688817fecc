"""Bundled data."""

from __future__ import annotations

from graphc.frontend.data import *
