"""The order of passes: tuples, from what the user built to what a backend lowers.

::

    prepare       resolve_phase, drop_markers, [check_roots]     what the user left open is settled
    simplify      simplify, improve_branches, improve_scans      fewer, faster, more stable operations
    [mixed]       mixed_precision, improve_scans                 what products read is rounded, if the user asks for it
    decompose     [fold_scales], select_branches,                only what the backend takes, in its cheapest form
                  update_touched_rows, widen_halves,
                  decompose, [mixed_precision], specialize,
                  select_early, pack_weights, [use_winograd]

Dead code needs no pass: a graph holds only what its roots need. Equal expressions need none either: they are one node.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import Op
from graphc.ir.types import DType
from graphc.passes.base import Pass, Record, RewritePass, run_passes
from graphc.passes.branches import ImproveBranches, SelectBranches
from graphc.passes.fold import FOLD
from graphc.passes.panels import PackWeights
from graphc.passes.precision import MixedPrecision
from graphc.passes.scales import FoldScales
from graphc.passes.selection import SelectEarly
from graphc.passes.simplify import CANONICAL, SIMPLIFY, ImproveScans
from graphc.passes.specialize import SPECIAL
from graphc.passes.structure import CheckRoots, Decompose, DropMarkers, ResolvePhase, always
from graphc.passes.touched import UpdateTouchedRows
from graphc.passes.widen import WidenHalves
from graphc.passes.winograd import UseWinograd
from graphc.rewrite import RewriteLog

CANONICALIZE = RewritePass("canonicalize", FOLD + CANONICAL)
SPECIALIZE = RewritePass("specialize", FOLD + CANONICAL + SPECIAL)
SIMPLIFY_PASSES: tuple[Pass, ...] = (RewritePass("simplify", SIMPLIFY), ImproveBranches(), ImproveScans())


def prepare_passes(training: bool, check_finite: bool = False) -> tuple[Pass, ...]:
    """The passes before simplification."""
    return (ResolvePhase(training), DropMarkers(), *((CheckRoots(),) if check_finite else ()))


def mixed_passes(factors: DType) -> tuple[Pass, ...]:
    """The passes after simplification, where products read 16-bit floats."""
    return (MixedPrecision(factors), ImproveScans())


def decompose_passes(
    takes: Callable[[Op], bool],
    factors: DType | None = None,
    prepares: bool = False,
    fits: Callable[[Node], bool] = always,
) -> tuple[Pass, ...]:
    """The passes after simplification, for a backend that takes these composites whole.

    What is decomposed gets its canonical form, but is not recognized again.

    Args:
        takes, fits: say of a composite op whether the backend executes it whole, and of a node whether it fits that.
        factors: the 16-bit floats that products in what is decomposed read, too.
        prepares: whether values of parameters alone are computed once for many calls.
    """
    first, last = ((FoldScales(),), (UseWinograd(takes),)) if prepares else ((), ())
    inside = () if factors is None else (MixedPrecision(factors, results=False),)
    return (
        *first, SelectBranches(takes), UpdateTouchedRows(takes), WidenHalves(), Decompose(takes, fits), *inside,
        SPECIALIZE, SelectEarly(), PackWeights(takes), *last,
    )  # fmt: skip


def prepare(graph: Graph, training: bool = False, check_finite: bool = False, record: Record | None = None) -> Graph:
    """The graph of one phase, with nothing left that only differentiation needs."""
    return run_passes(graph, prepare_passes(training, check_finite), record=record)


def simplify_graph(graph: Graph, fuel: int | None = None, record: Record | None = None) -> tuple[Graph, RewriteLog]:
    """The simplified graph, and which rules fired.

    Args:
        graph: to be simplified.
        fuel: no more firings than this.
        record: called after each pass with its name and the graph.
    """
    log = RewriteLog(fuel)
    return run_passes(graph, SIMPLIFY_PASSES, log, record), log


def use_factors(graph: Graph, factors: DType | None, record: Record | None = None) -> Graph:
    """The simplified graph with products of these 16-bit floats, or as it is."""
    return graph if factors is None else run_passes(graph, mixed_passes(factors), record=record)


def decompose_for(
    graph: Graph,
    takes: Callable[[Op], bool],
    record: Record | None = None,
    factors: DType | None = None,
    prepares: bool = False,
    fits: Callable[[Node], bool] = always,
) -> Graph:
    """The graph without the composite ops that ``takes`` refuses; see :func:`decompose_passes`."""
    return run_passes(graph, decompose_passes(takes, factors, prepares, fits), record=record)
