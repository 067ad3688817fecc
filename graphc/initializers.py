"""Initializers: first values of weights."""

from __future__ import annotations

from graphc.frontend.initializers import *
