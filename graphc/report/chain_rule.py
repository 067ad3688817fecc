"""The chain rule of one gradient, step by step, as text that reads and parses back."""

from __future__ import annotations

import re

from graphc.autodiff import Sweep, gradient_sweep
from graphc.errors import ParseError
from graphc.ir.graph import substitute_nodes
from graphc.ir.node import Constant, Input, Node, Parameter, topological
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_node
from graphc.report.formula import formula, leaf_name, unused_name
from graphc.rewrite import RewriteLog

_EXACT = "    | "
_RESULT = "gradient: "


def explain_gradient(loss: Node, wrt: Node) -> str:
    """Say how a gradient comes about: the chain rule, one step for each value between ``wrt`` and the loss.

    Each step gives a value, the user's line that made it, and its derivative in terms of those of its users
    (``d_v`` stands for the derivative of the loss by ``v``). The lines after a bar say the same as graph text;
    :func:`parse_explained_gradient` reads them back.

    Raises:
        ShapeError, DTypeError: as :func:`graphc.grad`.

    >>> import graphc as gx
    >>> x, w = gx.placeholder("x", (), "float32"), gx.parameter("w", 3.0)
    >>> text = gx.explain_gradient(gx.sigmoid(w * x), w)
    >>> print([line for line in text.splitlines() if line.startswith("  d_")])
    ['  d_loss = 1', '  d_v1 = 1 * loss * (1 - loss)', '  d_w = d_v1 * x']
    """
    log = RewriteLog()
    sweep = gradient_sweep(loss, [wrt], log)
    writer = _Writer(loss, wrt, sweep)
    rows = [
        f"The gradient of the loss with respect to {writer.names.get(wrt, 'v')}, by the chain rule, from the loss back."
    ]
    rows.append("d_v stands for the derivative of the loss by v.")
    if log.firings:
        counts = (f"{name} ({count})" if count > 1 else name for name, count in log.counts.items())
        rows.append(f"The loss was simplified first: {', '.join(counts)}.")
    rows += ["", "leaves", *writer.leaves()]
    for node in sweep.cotangents:
        rows += ["", *writer.step(node)]
    (gradient,) = sweep.gradients
    if wrt not in sweep.cotangents:
        rows += ["", "The loss does not depend on it.", *writer.exactly(gradient)]
    rows += ["", f"{_RESULT}{writer.labels[id(gradient)]}"]
    return "\n".join(rows) + "\n"


class _Writer:
    """Names for values, for derivatives and for lines of graph text."""

    def __init__(self, loss: Node, wrt: Node, sweep: Sweep) -> None:
        self.sweep = sweep
        self.wrt = wrt
        self.all_leaves = _leaves(loss, wrt)
        self.labels: dict[int, str] = {}
        self.names: dict[Node, str] = {}
        taken: set[str] = set()
        for leaf in self.all_leaves:
            self.names[leaf] = leaf_name(leaf, taken)
        for node in reversed(sweep.cotangents):
            if node not in self.names:
                wanted = "loss" if node is sweep.outputs[0] else f"v{len(self.names) - len(self.all_leaves) + 1}"
                self.names[node] = unused_name(wanted, taken)
        self.shown = dict(self.names)  # and the derivatives, as they come

    def leaves(self) -> list[str]:
        rows: list[str] = []
        for number, leaf in enumerate(self.all_leaves):
            self.labels[id(leaf)] = f"%{number}"
            rows.append(f"{_EXACT}%{number} = {self.names[leaf]} : {leaf.type}")
        return rows

    def step(self, node: Node) -> list[str]:
        name, cotangent = self.names[node], self.sweep.cotangents[node]
        head = f"{name} = {formula(node, None, self.names)}" if node.args else name
        known = self.shown.get(cotangent)
        *bound, result = (known or formula(cotangent, names=self.shown)).split("\n")
        if cotangent.args:
            self.shown.setdefault(cotangent, f"d_{name}")
        where = f"   # {node.loc}" if node.loc else ""
        return [head + where, *(f"  {line}" for line in bound), f"  d_{name} = {result}", *self.exactly(cotangent)]

    def exactly(self, root: Node) -> list[str]:
        """Graph text of what ``root`` needs and no earlier step has written."""
        rows: list[str] = []
        for node in topological([root]):
            if id(node) not in self.labels:
                self.labels[id(node)] = f"%{len(self.labels)}"
                rows.append(_EXACT + print_node(node, self.labels, lines=False))
        return rows


def parse_explained_gradient(text: str, loss: Node, wrt: Node) -> Node:
    """The gradient that a text of :func:`explain_gradient` describes, on the leaves of ``loss``.

    Raises:
        ParseError: the text is not one, or belongs to another loss.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (3,))
    >>> loss = gx.sum(gx.exp(x))
    >>> parse_explained_gradient(explain_gradient(loss, x), loss, x) is gx.grad(loss, [x])[0]
    True
    """
    leaves = _leaves(loss, wrt)
    rows: list[str] = []
    result = ""
    for line in text.splitlines():
        if line.startswith(_EXACT):
            rows.append(line.removeprefix(_EXACT))
        elif line.startswith(_RESULT):
            result = line.removeprefix(_RESULT)
    for number, leaf in enumerate(leaves):
        found = re.fullmatch(rf"%{number} = .* : (\w+\[.*\])", rows[number]) if number < len(rows) else None
        if found is None or found[1] != str(leaf.type):
            raise ParseError(
                f"the text does not name {leaf!r} as leaf {number}", remedy="give the loss that the text explains"
            )
        rows[number] = f"%{number} = input{{label='leaf_{number}'}}() : {leaf.type}"
    sweep = gradient_sweep(loss, [wrt])
    constants = {
        node.op.digest: node.op.array for node in topological((loss, *sweep.gradients)) if isinstance(node.op, Constant)
    }
    graph = parse_graph("\n".join([*rows, f"return 'gradient' = {result}"]), registry, constants=constants)
    ((_, gradient),) = graph.outputs
    return substitute_nodes((gradient,), dict(zip(graph.inputs, leaves, strict=True)))[0]


def _leaves(loss: Node, wrt: Node) -> list[Node]:
    return [node for node in topological((loss, wrt)) if isinstance(node, Parameter) or isinstance(node.op, Input)]
