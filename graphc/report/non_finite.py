"""Where NaN or infinity begins: a step computed again, node by node, on the batch that it was refused for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import NonFiniteError
from graphc.ir.dims import Dim, evaluate
from graphc.ir.node import Input, Node, Parameter, describe_operands
from graphc.ops.checked import CheckFinite

if TYPE_CHECKING:
    from graphc.ir.dims import Size
    from graphc.ir.graph import Graph
    from graphc.program import Program

Values = Mapping[int, Any]


def find_non_finite(program: Program, arrays: Sequence[Any]) -> NonFiniteError | None:
    """The first node whose result is not finite although its operands are, on the way to a result that is not.

    Infinities that are meant, such as those of a mask, do not count: only what a failing result was computed from is
    looked at.

    Args:
        program: a step that was refused; its state is as it was before.
        arrays: the inputs, in the order of ``program.input_names``.

    Returns:
        An error that names node, value and line, or None if everything is finite when it is computed so.

    >>> import graphc as gx
    >>> x = gx.placeholder("x", (2,))
    >>> step = gx.compile({"loss": gx.sum(gx.log(x))}, inputs=[x])
    >>> print(find_non_finite(step, [np.float32([1, 0])]).message)
    log makes -inf, first at flat position 1, from operands that are finite
    """
    sizes = {
        name: value
        for node, array in zip(program.graph.inputs, arrays, strict=True)
        for size, value in zip(node.shape, array.shape, strict=True)
        if isinstance(size, Dim) and (name := str(size)).isidentifier()
    }
    for graph in (program.simplified, program.graph):
        values = _evaluate(graph, arrays, sizes)
        for root in graph.roots:
            if not _is_finite(root, values):
                return _explain(_origin(root, values, graph), values)
    return None


def _evaluate(graph: Graph, arrays: Sequence[Any], sizes: Mapping[str, int]) -> Values:
    """The value of every node by the ops' references, checks of finiteness passed over."""

    def bind(size: Size) -> Size:
        return evaluate(size, sizes) if isinstance(size, Dim) else size

    values: dict[int, Any] = {id(node): array for node, array in zip(graph.inputs, arrays, strict=True)}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if isinstance(node, Parameter):
                values[id(node)] = node.array
            elif isinstance(node.op, CheckFinite):
                values[id(node)] = values[id(node.args[0])]
            elif id(node) not in values:
                values[id(node)] = node.op.with_sizes(bind).reference(*(values[id(arg)] for arg in node.args))
    return values


def _is_finite(node: Node, values: Values) -> bool:
    value = values[id(node)]
    if isinstance(value, tuple):
        return True  # its parts are looked at where they are taken
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _origin(root: Node, values: Values, graph: Graph) -> Node:
    """Back from a failing result to where it begins, over the earliest failing operands."""
    place = {id(node): index for index, node in enumerate(graph.nodes)}
    node = root
    while failing := [arg for arg in node.args if not _is_finite(arg, values)]:
        node = min(failing, key=lambda arg: place[id(arg)])
    return node


def _explain(node: Node, values: Values) -> NonFiniteError:
    array = np.asarray(values[id(node)])
    position = int(np.flatnonzero(~np.isfinite(array))[0])
    value = f"{array.flat[position]}"
    at = node.user_line
    where = f"first at flat position {position}"
    if isinstance(node, Parameter):
        return NonFiniteError(
            f"parameter {node.label!r} already holds {value}, {where}",
            at=at,
            remedy="look at the step before, or at what set its value",
        )
    if isinstance(node.op, Input):
        return NonFiniteError(
            f"input {node.name!r} holds {value}, {where}", at=at, remedy="look at the data: clean it, or mask it out"
        )
    ranges = [f"operand {number} is {_range(values[id(arg)])}" for number, arg in enumerate(node.args)]
    return NonFiniteError(
        f"{node.op.name} makes {value}, {where}, from operands that are finite",
        details=(*describe_operands(node.op, node.args), *ranges),
        at=at,
        remedy="lower the learning rate, clip gradients, or keep operands away from log(0) and divisions by zero",
    )


def _range(value: Any) -> str:
    array = np.asarray(value)
    return f"from {array.min():.6g} to {array.max():.6g}" if array.size else "empty"
