"""What is done to conds: a known predicate chooses, equal ones become one, and what nobody reads goes.

A backend that cannot branch computes both branches and selects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from graphc.errors import BackendError
from graphc.ir.graph import Graph, rebuild, structurally_equal, substitute_nodes
from graphc.ir.node import Constant, Node, apply, topological
from graphc.ir.op import Op
from graphc.ir.sweep import Part
from graphc.ops.checked import Checked
from graphc.ops.compare import where
from graphc.ops.cond import Cond, make_cond
from graphc.rewrite import RewriteLog


@dataclass(frozen=True)
class ImproveBranches:
    """Choose where the predicate is known, compute equal conds once, and drop results and operands without readers."""

    name: str = "improve_branches"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        return _with_roots(graph, improve_branches(graph.roots))


@dataclass(frozen=True)
class SelectBranches:
    """Compute both branches of each cond and select, for a backend that cannot branch.

    Attributes:
        takes: says of a cond whether the backend runs only the branch that is taken.
    """

    takes: Callable[[Op], bool]
    name: str = "select_branches"

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        return _with_roots(graph, self._selected(graph.roots))

    def _selected(self, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        made: dict[Node, list[Node]] = {}

        def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
            if isinstance(node.op, Cond) and not self.takes(node.op):
                _refuse_checks(node, node.op)
                branches = [self._selected(_inlined(body, args[1:])) for body in node.op.bodies]
                made[node] = [where(args[0], one, other) for one, other in zip(*branches, strict=True)]
                return None
            if isinstance(node.op, Part) and node.args[0] in made:
                return made[node.args[0]][node.op.index]
            if node.op.bodies:
                return apply(
                    node.op.with_bodies([_with_roots(b, self._selected(b.roots)) for b in node.op.bodies]), *args
                )
            return None

        return rebuild(roots, replace) if any(node.op.bodies for node in topological(roots)) else roots


def _refuse_checks(node: Node, op: Cond) -> None:
    checks = [inner for body in op.bodies for inner in body.nodes if isinstance(inner.op, Checked)]
    if checks:
        raise BackendError(
            f"this backend computes both branches of a cond, and {checks[0].op.name} in one of them may fail",
            at=node.user_line,
            remedy="use backend='numba', or move what is checked out of the branch",
        )


def improve_branches(roots: Iterable[Node]) -> tuple[Node, ...]:
    """The roots with every cond they need in its best form, those in bodies too."""
    roots = tuple(roots)
    order = topological(roots)
    if not any(node.op.bodies for node in order):
        return roots
    used: dict[Node, set[int]] = {}
    for node in order:
        if isinstance(node.op, Part):
            used.setdefault(node.args[0], set()).add(node.op.index)
    made: dict[Node, dict[int, Node]] = {}
    known: dict[tuple[int, ...], list[Node]] = {}

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        if isinstance(node.op, Cond):
            made[node] = _improved(node.op, args, sorted(used.get(node, ())), known)
            return None
        if isinstance(node.op, Part) and node.args[0] in made:
            return made[node.args[0]][node.op.index]
        if node.op.bodies:
            return apply(
                node.op.with_bodies([_with_roots(b, improve_branches(b.roots)) for b in node.op.bodies]), *args
            )
        return None

    return rebuild(roots, replace)


def _improved(
    op: Cond, args: tuple[Node, ...], used: list[int], known: dict[tuple[int, ...], list[Node]]
) -> dict[int, Node]:
    """What stands for each result that is used."""
    predicate, *operands = args
    if isinstance(predicate.op, Constant):
        taken = _inlined(op.true if predicate.op.array else op.false, operands)
        improved = improve_branches(taken[i] for i in used)
        return dict(zip(used, improved, strict=True))
    branches = [(body.inputs, improve_branches(body.roots[i] for i in used)) for body in op.bodies]
    cond = make_cond(predicate, branches, operands)
    alike = known.setdefault(tuple(map(id, cond.args)), [])
    same = next((other for other in alike if _are_equal(other.op, cond.op)), None)
    if same is None:
        same = cond
        alike.append(cond)
    return {i: apply(Part(position), same) for position, i in enumerate(used)}


def _are_equal(one: Op, other: Op) -> bool:
    """Do conds on the same operands compute the same?"""
    pairs = list(zip(one.bodies, other.bodies, strict=True))
    named = all([node.name for node in a.inputs] == [node.name for node in b.inputs] for a, b in pairs)
    return named and all(structurally_equal(a, b) for a, b in pairs)


def _inlined(body: Graph, operands: Iterable[Node]) -> tuple[Node, ...]:
    """The results of a body on these operands."""
    return substitute_nodes(body.roots, dict(zip(body.inputs, operands, strict=True)))


def _with_roots(graph: Graph, roots: tuple[Node, ...]) -> Graph:
    same = all(a is b for a, b in zip(graph.roots, roots, strict=True))
    return graph if same else graph.with_roots(roots)
