"""Arithmetic on float16 and bfloat16 as arithmetic in float32 between conversions."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import Graph
from graphc.ops.halves import widen_halves
from graphc.rewrite import RewriteLog


@dataclass(frozen=True)
class WidenHalves:
    """Put conversions around every op that computes on float16 or bfloat16; after this, only what moves sees them.

    It runs before composites are taken apart, so that nothing is rounded inside them.
    """

    name: str = "widen_halves"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        return graph.rebuild(widen_halves)
