"""What a pass is, and how a sequence of passes runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from graphc.rewrite import RewriteLog, RuleSet, rewrite


class Pass(Protocol):
    """A step from graph to graph: a frozen dataclass with a name."""

    @property
    def name(self) -> str:
        """What reports call it; unique within a pipeline."""
        ...

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        """The new graph: same inputs, outputs of the same names and types."""
        ...


@dataclass(frozen=True)
class RewritePass:
    """A pass that applies a table of rules to a fixpoint."""

    name: str
    rules: RuleSet

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        return graph.with_roots(rewrite(graph.roots, self.rules, log))


Record = Callable[[str, Graph], None]
"""Called with the name of each pass and the graph that it left."""


def run_passes(
    graph: Graph, passes: Iterable[Pass], log: RewriteLog | None = None, record: Record | None = None
) -> Graph:
    """Run passes in order, and verify the graph after each.

    Args:
        graph: where to start.
        passes: in the order in which they run.
        log: gets every firing of a rule.
        record: called after each pass that made another graph, with its name and the graph.

    Raises:
        VerifyError: a pass left an invalid graph; the message names it.

    >>> import graphc as gx
    >>> from graphc.ir.graph import make_graph
    >>> from graphc.ir.text import print_graph
    >>> from graphc.passes import CANONICALIZE
    >>> x = gx.placeholder("x", (3,))
    >>> graph = run_passes(make_graph({"y": (x + 0) * 1}, [x]), [CANONICALIZE])
    >>> print(print_graph(graph, lines=False))
    graph {
      %0 = input{label='x'}() : f32[3]
      return 'y' = %0
    }
    <BLANKLINE>
    """
    for step in passes:
        before = graph
        graph = step.run(graph, log)
        if graph is before:  # it does not concern this graph
            continue
        verify(graph, step.name)
        if record is not None:
            record(step.name, graph)
    return graph
