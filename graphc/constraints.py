"""Constraints: what a weight's new value goes through in every step."""

from __future__ import annotations

from graphc.frontend.constraints import *
