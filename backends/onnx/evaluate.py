"""A graph by NumPy, node by node, each value kept: what the values in a file are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.onnx.sizes import find_sizes
from graphc.ir.dims import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Constant, Parameter
from graphc.ir.types import TupleType

Array = NDArray[Any]


def bind_sizes(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, int]:
    """The values of all named sizes, given an array for each input by the user's name."""
    shapes = [inputs[node.name or ""].shape for node in graph.inputs]
    return {name: shapes[position][axis] for name, (position, axis) in find_sizes(graph.inputs).items()}


def evaluate_nodes(graph: Graph, inputs: Mapping[str, Array], state: Mapping[Parameter, Array]) -> dict[int, Array]:
    """The value of each node, by ``id``."""
    dims = bind_sizes(graph, inputs)
    values: dict[int, Array] = {id(node): inputs[node.name or ""] for node in graph.inputs}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if id(node) in values:
                continue
            if isinstance(node, Parameter):
                values[id(node)] = state[node]
            elif isinstance(node.op, Constant):
                values[id(node)] = node.op.array
            else:
                op = node.op.with_sizes(lambda size: evaluate(size, dims))
                result = op.reference(*(values[id(arg)] for arg in node.args))
                whole = isinstance(node.type, TupleType)  # an op with several results gives a list of them
                values[id(node)] = result if whole else np.asarray(result, node.dtype.numpy)
    return values
