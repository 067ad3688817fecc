"""Which values of a graph stay the same from call to call, as long as nobody changes a parameter."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.ir.graph import Graph
from graphc.ir.node import Input, Node, Parameter, ParameterLeaf
from graphc.ir.op import Op
from graphc.ir.types import TupleType, shape_names
from graphc.ops.checked import Checked
from graphc.ops.control import WhenTraining
from graphc.ops.random import RandomBits
from graphc.passes.fold import is_symbolic


class FixedValues:
    """The values that depend on parameters and constants alone, of parameters that the program does not update.

    What may fail is not among them, since it must fail at each call; nor are random bits, of which there are many; nor
    is anything with a size that is known only at a call.

    Args:
        updated: the parameters that the program updates.

    >>> import graphc as gx
    >>> x, w = gx.placeholder("x", (3,)), gx.parameter("w", [1.0, 2.0, 3.0])
    >>> FixedValues([]).holds(gx.exp(w)), FixedValues([]).holds(gx.exp(w) * x), FixedValues([w]).holds(gx.exp(w))
    (True, False, False)
    """

    def __init__(self, updated: Iterable[Parameter] = ()) -> None:
        self._known: dict[Node, bool] = {parameter: False for parameter in updated}

    def holds(self, node: Node) -> bool:
        """Is it one of these values?"""
        known = self._known
        stack = [node]
        while stack:
            current = stack[-1]
            unknown = () if current in known else [arg for arg in current.args if arg not in known]
            if unknown:
                stack.extend(unknown)
                continue
            stack.pop()
            if current not in known:
                known[current] = all(known[arg] for arg in current.args) and _passes_on(current)
        return known[node]


def _passes_on(node: Node) -> bool:
    """Is the value fixed if the operands are?"""
    if isinstance(node.op, ParameterLeaf):
        return True
    types = node.type.parts if isinstance(node.type, TupleType) else (node.type,)
    if any(shape_names(type.shape) for type in types):
        return False
    return not _varies(node.op) and not any(map(_varies_within, node.op.bodies))


def _varies(op: Op) -> bool:
    return isinstance(op, Input | Checked | RandomBits | WhenTraining) or is_symbolic(op)


def _varies_within(body: Graph) -> bool:
    """Does a step or a branch hold what is never fixed, its operands aside?"""
    inner = [node.op for node in body.nodes if not isinstance(node.op, Input)]
    return any(_varies(op) or any(map(_varies_within, op.bodies)) for op in inner)
