"""Random inputs that a graph accepts: integers that serve as indices stay within the axis they index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.onnx.rules import decomposed
from graphc.ir.dims import Size, evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.cast import Cast
from graphc.ops.checked import InRange
from graphc.ops.indexing import Take, TakeAlong
from graphc.ops.movement import BroadcastTo, Concatenate, Flip, Reshape, Transpose
from graphc.ops.scatter import ScatterAlong, TakeAdd
from graphc.ops.slicing import Slice

_MOVES = (Cast, InRange, BroadcastTo, Concatenate, Flip, Reshape, Transpose, Slice)
_UNBOUNDED = 8
"""Integers that index nothing are drawn below this."""


class InputDraws:
    """Draws inputs for a graph: floats from a normal distribution, bools by coin, integers within their bounds."""

    def __init__(self, graph: Graph, dims: Mapping[str, int], seed: int) -> None:
        self._graph = graph
        self._dims = dims
        self._random = np.random.default_rng(seed)
        self._bounds = index_bounds(graph)

    def __call__(self) -> dict[str, NDArray[Any]]:
        """The next inputs, by the user's names."""
        return {node.name or "": self._draw(node) for node in self._graph.inputs}

    def _draw(self, node: Node) -> NDArray[Any]:
        shape = tuple(evaluate(size, self._dims) for size in node.shape)
        bounds = self._bounds.get(id(node))
        if bounds is None and node.dtype.is_float:
            return self._random.standard_normal(shape).astype(node.dtype.numpy)
        if bounds is None and node.dtype is DType.bool:
            return self._random.integers(0, 2, shape).astype(bool)
        limit = min((evaluate(bound, self._dims) for bound in bounds or ()), default=_UNBOUNDED)
        return self._random.integers(0, max(limit, 1), shape).astype(node.dtype.numpy)


def index_bounds(graph: Graph) -> dict[int, list[Size]]:
    """For each input that reaches an index, by ``id``: the sizes of the axes that it indexes."""
    graph = decomposed(graph, lambda node: False)
    found: dict[int, list[Size]] = {}
    origins: dict[int, set[int]] = {id(node): {id(node)} for node in graph.inputs}
    for node in graph.nodes:
        bound = _bound_of_index(node)
        if bound is not None:
            index = node.args[0] if isinstance(node.op, InRange) else node.args[1]
            for origin in origins.get(id(index), ()):
                found.setdefault(origin, []).append(bound)
        if isinstance(node.op, _MOVES):
            origins[id(node)] = set[int]().union(*(origins.get(id(arg), ()) for arg in node.args))
    return found


def _bound_of_index(node: Node) -> Size | None:
    if isinstance(node.op, InRange | TakeAdd | ScatterAlong):
        return node.op.size
    if isinstance(node.op, Take | TakeAlong):
        return node.args[0].shape[node.op.axis]
    return None
