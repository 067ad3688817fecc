"""A graph: named inputs, named outputs, and the updates of parameters. Pure, frozen, valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from graphc.errors import GraphError, NameClashError
from graphc.ir import location
from graphc.ir.dims import names
from graphc.ir.location import user_line
from graphc.ir.node import Input, Node, Parameter, intern, topological
from graphc.ir.op import Op
from graphc.ir.types import shape_names

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class Graph:
    """What a program computes: ``outputs`` from ``inputs`` and parameters, and the parameters' next values.

    All updates read old values and take effect together, after every read.

    Attributes:
        inputs: the placeholders, in the order of the program's arguments.
        outputs: results by name, in order.
        updates: next values of parameters.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[tuple[str, Node], ...]
    updates: tuple[tuple[Parameter, Node], ...] = ()

    @property
    def roots(self) -> tuple[Node, ...]:
        """Output nodes, then the nodes of the updates."""
        return (*(node for _, node in self.outputs), *(node for _, node in self.updates))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that outputs and updates need, operands before users."""
        return tuple(topological(self.roots))

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters read or written, in order of first use."""
        found = {id(node): node for node in self.nodes if isinstance(node, Parameter)}
        found.update({id(p): p for p, _ in self.updates if id(p) not in found})
        return tuple(found.values())

    @cached_property
    def users(self) -> Mapping[int, tuple[Node, ...]]:
        """The users of each node, by ``id``; a node that uses a value twice stands twice."""
        found: dict[int, list[Node]] = {id(node): [] for node in self.nodes}
        for node in self.nodes:
            for arg in node.args:
                found[id(arg)].append(node)
        return {key: tuple(value) for key, value in found.items()}

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """The names of all symbolic sizes of the inputs, in order of appearance."""
        found: dict[str, None] = {}
        for node in self.inputs:
            for size in node.shape:
                found.update(dict.fromkeys(sorted(names(size))))
        return tuple(found)

    def with_roots(self, roots: Iterable[Node]) -> Graph:
        """The same signature with other nodes for outputs and updates, in the order of :attr:`roots`."""
        new = tuple(roots)
        count = len(self.outputs)
        return Graph(
            self.inputs,
            tuple((name, node) for (name, _), node in zip(self.outputs, new[:count], strict=True)),
            tuple((p, node) for (p, _), node in zip(self.updates, new[count:], strict=True)),
        )

    def rebuild(self, replace: Callable[[Node, tuple[Node, ...]], Node | None]) -> Graph:
        """Rewrite bottom up; see :func:`rebuild`."""
        return self.with_roots(rebuild(self.roots, replace))

    def to_networkx(self) -> nx.DiGraph[int]:
        """A directed graph of node uids, with the nodes as attribute ``node``; edges run from operand to user."""
        import networkx

        drawn: nx.DiGraph[int] = networkx.DiGraph()
        for node in self.nodes:
            drawn.add_node(node.uid, node=node)
            drawn.add_edges_from((arg.uid, node.uid) for arg in node.args)
        return drawn


def make_graph(
    outputs: Mapping[str, Node], inputs: Iterable[Node], updates: Mapping[Parameter, Node] | None = None
) -> Graph:
    """A checked graph.

    Raises:
        GraphError: an input that is no placeholder, a placeholder that is used but not listed, an update that is
            not of the parameter's type, an unknown size in an input's shape.
        NameClashError: two inputs of one name.
    """
    at = user_line()
    _check_signature(outputs, inputs, updates, at)
    input_nodes = tuple(inputs)
    graph = Graph(input_nodes, tuple(outputs.items()), tuple((updates or {}).items()))
    seen: dict[str, Node] = {}
    for node in input_nodes:
        if not isinstance(node, Node) or not isinstance(node.op, Input):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(f"{node!r} is not a placeholder", at=at, remedy="list what gx.placeholder(...) returned")
        if node.op.label in seen:
            raise NameClashError(
                f"two inputs are called {node.op.label!r}",
                details=(seen[node.op.label].user_line, node.user_line),
                at=at,
                remedy="give each placeholder its own name",
            )
        seen[node.op.label] = node
    for name, node in graph.outputs:
        if not isinstance(name, str) or not isinstance(node, Node):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(f"output {name!r} is not a node", at=at, remedy="give outputs as {'name': node}")
    for target, node in graph.updates:
        _check_update(target, node, at)
    listed = {id(node) for node in input_nodes}
    known = set(graph.dims)
    for node in graph.nodes:
        if isinstance(node.op, Input) and id(node) not in listed:
            raise GraphError(
                f"input {node.op.label!r} is used but not listed",
                details=(node.user_line,),
                at=at,
                remedy=f"add it to inputs=[...] ({node.op.label})",
            )
        unknown = shape_names(node.shape) - known
        if unknown:
            raise GraphError(
                f"the size {sorted(unknown)[0]!r} of {node!r} is not a size of any input",
                at=node.user_line or at,
                remedy="use a Dim that some placeholder's shape holds",
            )
    return graph


def _check_signature(outputs: object, inputs: object, updates: object, at: str | None) -> None:
    for name, given in (("outputs", outputs), ("updates", updates)):
        if not isinstance(given, Mapping) and not (name == "updates" and given is None):
            example = "{'y': y}" if name == "outputs" else "{w: new_w}"
            raise GraphError(f"{name} is a {type(given).__name__}", at=at, remedy=f"give a dict: {name}={example}")
    if isinstance(inputs, Node | str) or not isinstance(inputs, Iterable):
        raise GraphError(f"inputs is a {type(inputs).__name__}", at=at, remedy="give a list of placeholders")


def _check_update(target: Parameter, node: Node, at: str | None) -> None:
    if not isinstance(target, Parameter):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise GraphError(
            f"{target!r} cannot be updated", at=at, remedy="only what gx.parameter(...) returned has state"
        )
    if not isinstance(node, Node) or node.type != target.type:  # pyright: ignore[reportUnnecessaryIsInstance]
        shown = getattr(node, "type", node)
        raise GraphError(
            f"the update of {target.label!r} is {shown}, the parameter is {target.type}",
            details=(target.user_line,),
            at=(node.user_line if isinstance(node, Node) else None) or at,  # pyright: ignore[reportUnnecessaryIsInstance]
            remedy="make the new value's shape and element type those of the parameter",
        )


def rebuild(roots: Iterable[Node], replace: Callable[[Node, tuple[Node, ...]], Node | None]) -> tuple[Node, ...]:
    """New roots, with every node passed through ``replace(node, new_args)``, operands first.

    ``replace`` returns the node to use instead, or None for the same op on the new operands (the very same node when
    no operand changed). Nodes made by ``replace`` take the location of the node they replace.
    """
    roots = tuple(roots)
    made: dict[int, Node] = {}
    for node in topological(roots):
        args = tuple(made[id(arg)] for arg in node.args)
        with location.at(node.loc):
            new = replace(node, args)
        if new is None:
            same = all(a is b for a, b in zip(args, node.args, strict=True))
            new = node if same else intern(node.op, args, node.op.infer(*[arg.type for arg in args]), node.loc)
        made[id(node)] = new
    return tuple(made[id(root)] for root in roots)


def substitute_nodes(roots: Iterable[Node], values: Mapping[Node, Node]) -> tuple[Node, ...]:
    """Roots with some nodes replaced by others."""
    table = {id(old): new for old, new in values.items()}
    return rebuild(roots, lambda node, _: table.get(id(node)))


def _same_op(a: Op, b: Op) -> bool:
    """Are two ops equal, their bodies but for the identity of these' leaves?"""
    if not a.bodies:
        return a == b
    values = [(getattr(a, name), getattr(b, name)) for name in a.attributes if not isinstance(getattr(a, name), Graph)]
    return all(x == y for x, y in values) and all(map(structurally_equal, a.bodies, b.bodies))


def structurally_equal(left: Graph, right: Graph) -> bool:
    """Are two graphs the same but for the identity of their leaves and their source lines?"""
    if [name for name, _ in left.outputs] != [name for name, _ in right.outputs]:
        return False
    if [node.type for node in left.inputs] != [node.type for node in right.inputs]:
        return False
    if len(left.updates) != len(right.updates) or len(left.nodes) != len(right.nodes):
        return False
    match: dict[int, Node] = {}
    for a, b in zip(left.nodes, right.nodes, strict=True):
        if a.type != b.type or len(a.args) != len(b.args):
            return False
        if any(match[id(x)] is not y for x, y in zip(a.args, b.args, strict=True)):
            return False
        if type(a.op) is not type(b.op) or a.name != b.name:
            return False
        if a.name is None and not _same_op(a.op, b.op):
            return False
        match[id(a)] = b
    return all(match[id(x)] is y for x, y in zip(left.roots, right.roots, strict=True)) and all(
        a.label == b.label for (a, _), (b, _) in zip(left.updates, right.updates, strict=True)
    )
