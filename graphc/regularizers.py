"""Regularizers: penalties on weights."""

from __future__ import annotations

from graphc.frontend.regularizers import *
