"""Patterns: ordinary graphs in which some leaves are wildcards, and how they match.

A pattern is built by calling a Python function on wildcards, so it is written with the same functions and operators
as a model. Matching compares ops with their attributes, numbers by value (a number matches a constant array that is
that number everywhere), tries both orders of commutative ops, and ignores element types and shapes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import numpy as np

from graphc.ir.node import Constant, Input, Node
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType
from graphc.ops.movement import BroadcastTo

COMMUTATIVE = frozenset({"add", "multiply", "minimum", "maximum", "equal", "not_equal", "and", "or", "xor"})
"""Names of the ops of two operands whose order does not matter."""

_LARGEST_INSPECTED = 4096


def wildcards(fn: Callable[..., object], types: Mapping[str, DType]) -> dict[str, Node]:
    """A wildcard for each parameter of ``fn``: a scalar leaf, float32 unless ``types`` says else."""
    found: dict[str, Node] = {}
    for name in inspect.signature(fn).parameters:
        type = TensorType(types.get(name, DType.float32), ())
        found[name] = Node(Input(name, type), (), type, None)
    return found


def match(pattern: Node, node: Node, names: Mapping[Node, str]) -> dict[str, Node] | None:
    """What each wildcard stands for when ``node`` has the form of ``pattern``, else None.

    A wildcard that stands twice matches only the same node (by ``is``) twice.
    """
    return _match([(pattern, node)], {}, names)


def classes_of(pattern: Node) -> tuple[type[Op], ...]:
    """The classes of op that a node has which matches this part of a pattern, a wildcard aside."""
    return (Constant, BroadcastTo) if isinstance(pattern.op, Constant) else (type(pattern.op),)


def _match(
    agenda: list[tuple[Node, Node]], bindings: dict[str, Node], names: Mapping[Node, str]
) -> dict[str, Node] | None:
    while agenda:
        pattern, node = agenda.pop()
        if pattern in names:
            if bindings.setdefault(names[pattern], node) is not node:
                return None
            continue
        if isinstance(pattern.op, Constant):
            number = pattern.op.array.item()  # Python's: a NumPy scalar would compare in its own precision
            if uniform_value(node) != number:
                return None
            continue
        if type(pattern.op) is not type(node.op) or pattern.op != node.op:
            return None
        pairs = list(zip(pattern.args, node.args, strict=True))
        if pattern.op.name in COMMUTATIVE:
            swapped = [(pattern.args[0], node.args[1]), (pattern.args[1], node.args[0])]
            found = _match([*agenda, *pairs], dict(bindings), names)
            return found if found is not None else _match([*agenda, *swapped], bindings, names)
        agenda = [*agenda, *pairs]
    return bindings


def uniform_value(node: Node) -> bool | int | float | None:
    """The one number that a constant (or a constant repeated along axes) holds everywhere, else None; None for NaN.

    >>> import numpy as np, graphc as gx
    >>> uniform_value(gx.constant(np.full((2, 3), 0.5))), uniform_value(gx.constant([1, 2]))
    (0.5, None)
    """
    while isinstance(node.op, BroadcastTo):
        (node,) = node.args
    if not isinstance(node.op, Constant):
        return None
    known = vars(node.op)
    if "_uniform" not in known:
        array = node.op.array
        uniform = 0 < array.size <= _LARGEST_INSPECTED and bool(np.all(array == array.flat[0]))
        known["_uniform"] = array.flat[0].item() if uniform else None
    return known["_uniform"]
