"""Passes: from graph to graph, each with a name, in an order that can be read in :mod:`graphc.passes.pipeline`."""

from __future__ import annotations

from graphc.passes.base import Pass, Record, RewritePass, run_passes
from graphc.passes.simplify import simplify, simplify_primal

__all__ = ["Pass", "Record", "RewritePass", "run_passes", "simplify", "simplify_primal"]
