"""Passes: from graph to graph, each with a name, in an order that can be read in :mod:`graphc.passes.pipeline`."""

from graphc.passes.base import Pass, Record, RewritePass, run_passes
from graphc.passes.pipeline import (
    CANONICALIZE,
    SIMPLIFY_PASSES,
    decompose_for,
    decompose_passes,
    mixed_passes,
    prepare,
    prepare_passes,
    simplify_graph,
    use_factors,
)
from graphc.passes.precision import MixedPrecision
from graphc.passes.simplify import CANONICAL, SIMPLIFY, simplify, simplify_primal
from graphc.passes.structure import CheckRoots, Decompose, DropMarkers, ResolvePhase

__all__ = [
    "CANONICAL",
    "CANONICALIZE",
    "SIMPLIFY",
    "SIMPLIFY_PASSES",
    "CheckRoots",
    "Decompose",
    "DropMarkers",
    "MixedPrecision",
    "Pass",
    "Record",
    "ResolvePhase",
    "RewritePass",
    "decompose_for",
    "decompose_passes",
    "mixed_passes",
    "prepare",
    "prepare_passes",
    "run_passes",
    "simplify",
    "simplify_graph",
    "simplify_primal",
    "use_factors",
]
