"""What a user writes between layers with operators and functions (``a * 2 + b``), as a layer of the model."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np

from graphc.frontend.layers.base import Layer
from graphc.frontend.tracing import Symbol
from graphc.ir.dims import Dim, Size, substitute
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Constant, Node, Parameter, apply, topological
from graphc.ir.op import registry
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.types import TensorType


class Expression(Layer):
    """A piece of graph between the symbols of a model. ``Model`` makes these; nobody else needs to.

    Args:
        inputs: the leaves that stand for the arguments of a call.
        output: the value.
    """

    supports_masking = False

    def __init__(self, inputs: Sequence[Node], output: Node, name: str | None = None) -> None:
        super().__init__(name=name)
        self._leaves = tuple(inputs)
        self._output = output
        self.built = True
        self._weights = [(node.label, node) for node in topological([output]) if isinstance(node, Parameter)]

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The leaves that stand for the arguments of a call."""
        return self._leaves

    @property
    def output_node(self) -> Node:
        """The value, over the leaves."""
        return self._output

    def call(self, *args: Node) -> Node:
        sizes = _sizes([leaf.type for leaf in self._leaves], [arg.type for arg in args])
        values = {id(leaf): arg for leaf, arg in zip(self._leaves, args, strict=True)}

        def replace(node: Node, new: tuple[Node, ...]) -> Node | None:
            if id(node) in values:
                return values[id(node)]
            if not sizes or (not node.args and not node.op.attributes):
                return None
            op = node.op.with_sizes(lambda size: substitute(size, sizes) if isinstance(size, Dim) else size)
            if op == node.op:
                return None
            return apply(op, *new)

        (result,) = rebuild([self._output], replace)
        return result

    def get_config(self) -> dict[str, Any]:
        graph = Graph(self._leaves, (("output", self._output),))
        held = [node.op for node in graph.nodes if isinstance(node.op, Constant)]
        constants = {
            op.digest: [op.type.dtype.value, list(op.array.shape), base64.b64encode(op.data).decode()] for op in held
        }
        weights = [[label, weight.label, weight.trainable] for label, weight in self._weights]
        text = print_graph(graph, lines=False)
        return {"text": text.splitlines(), "constants": constants, "weights": weights}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        constants = {
            digest: np.frombuffer(base64.b64decode(data), dtype).reshape(cast("list[int]", shape))
            for digest, (dtype, shape, data) in config["constants"].items()
        }
        graph = parse_graph("\n".join(config["text"]), registry, constants=constants)
        made = cls(graph.inputs, graph.outputs[0][1])
        names: Mapping[str, tuple[str, bool]] = {printed: (label, on) for label, printed, on in config["weights"]}
        made._weights = [(names[weight.label][0], weight) for _, weight in made._weights]
        for _, weight in made._weights:
            weight.trainable = names[weight.label][1]
        return made


def expression_for(node: Node, symbols: Sequence[Symbol]) -> Expression:
    """The layer that computes a value from these symbols."""
    made = Expression(symbols, node)
    made.loc = node.loc
    return made


def _sizes(formal: Sequence[TensorType], actual: Sequence[TensorType]) -> dict[str, Size]:
    """Named sizes of the leaves that are other sizes in the arguments."""
    found: dict[str, Size] = {}
    for a, b in zip(formal, actual, strict=True):
        for old, new in zip(a.shape, b.shape, strict=False):
            if isinstance(old, Dim) and old != new and str(old).isidentifier():
                found[str(old)] = new
    return found
