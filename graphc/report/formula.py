"""A node as infix mathematics, for people: ``(sigmoid(sum(w * x)) - y) * x``.

Broadcasting and axes of size 1 are left unsaid; for a form that parses back see :mod:`graphc.ir.text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.dims import Dim
from graphc.ir.node import Constant, Node, topological
from graphc.ir.op import Array
from graphc.ir.text import print_attribute, print_sizes
from graphc.ir.types import DType, Shape
from graphc.ops.base import Elementwise, user_line
from graphc.ops.cast import Cast
from graphc.ops.create import SizeOf
from graphc.ops.movement import BroadcastTo, Reshape, Transpose
from graphc.ops.slicing import Slice
from graphc.rewrite.pattern import uniform_value

# Binding strengths, weakest first.
_COMPARED, _ADDED, _MULTIPLIED, _SIGNED, _RAISED, _ATOM = range(6)

_INFIX = {
    "add": (" + ", _ADDED),
    "subtract": (" - ", _ADDED),
    "multiply": (" * ", _MULTIPLIED),
    "divide": (" / ", _MULTIPLIED),
    "floor_divide": (" // ", _MULTIPLIED),
    "remainder": (" % ", _MULTIPLIED),
    "matmul": (" @ ", _MULTIPLIED),
    "equal": (" == ", _COMPARED),
    "not_equal": (" != ", _COMPARED),
    "less": (" < ", _COMPARED),
    "less_equal": (" <= ", _COMPARED),
    "greater": (" > ", _COMPARED),
    "greater_equal": (" >= ", _COMPARED),
}  # fmt: skip
_OPPOSITE = {"add": " - ", "subtract": " + "}
_SHOWN_ELEMENTS = 8


@dataclass(frozen=True)
class _Text:
    text: str
    strength: int

    def within(self, strength: int) -> str:
        """The text as an operand of something that binds with ``strength``: in parentheses if it binds less."""
        return self.text if self.strength >= strength else f"({self.text})"


def formula(node: Node, let: int | None = 40, names: Mapping[Node, str] | None = None) -> str:
    """Write a node as infix mathematics with as few parentheses as possible.

    Leaves print by the user's names, in quotes where a name is no identifier; a second leaf of one name gets a number.

    Args:
        node: what to write.
        let: a value that is used several times and takes more characters than this gets a name, in a line of its own
            before the result (``t1 = ...``). None: repeat it each time, which may grow without bound.
        names: nodes, other than this one, that print as a name of their own.

    >>> import graphc as gx
    >>> x, w = gx.placeholder("x", (3,)), gx.parameter("dense/w", [1.0, 2.0, 3.0])
    >>> print(gx.formula(gx.sigmoid(gx.sum(w * x)) * 2 - (x + 1) ** 2))
    2 * sigmoid(sum('dense/w' * x)) - (x + 1)**2
    """
    if not isinstance(node, Node):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DTypeError(f"{type(node).__name__} is no node", at=user_line(), remedy="give what a gx function returned")
    given = names or {}
    order = _reached(node, given)
    used = _uses(order, given)
    taken = set(given.values())
    texts: dict[Node, _Text] = {}
    lines: list[str] = []
    for item in order:
        if item in given and (item is not node or not item.args):
            texts[item] = _Text(given[item], _ATOM)
            continue
        if item.name is not None and not item.args:
            texts[item] = _Text(leaf_name(item, taken), _ATOM)
            continue
        text = _written(item, texts, given, item is node)
        if let is not None and used[item] > 1 and len(text.text) > let and item is not node:
            name = unused_name(f"t{len(lines) + 1}", taken)
            lines.append(f"{name} = {text.text}")
            text = _Text(name, _ATOM)
        texts[item] = text
    return "\n".join([*lines, texts[node].text])


def _reached(root: Node, names: Mapping[Node, str]) -> list[Node]:
    """Nodes in topological order, without what lies behind a named one."""
    if not names:
        return topological([root])
    order: list[Node] = []
    done: set[Node] = set()
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            if node is root or node not in names:
                stack.extend((arg, False) for arg in reversed(node.args))
    return order


def _uses(order: list[Node], names: Mapping[Node, str]) -> dict[Node, int]:
    used = dict.fromkeys(order, 0)
    for node in order:
        if node is order[-1] or node not in names:
            for arg in node.args:
                used[arg] += 1
    return used


def leaf_name(leaf: Node, taken: set[str]) -> str:
    """The user's name of a leaf, in quotes if it is no identifier, with a number if it is taken; ``taken`` gets it."""
    name = leaf.name or "leaf"
    return unused_name(name if re.fullmatch(r"[^\W\d]\w*(\.\w+)*", name) else repr(name), taken)


def unused_name(name: str, taken: set[str]) -> str:
    """``name``, with a number if it is taken; ``taken`` gets it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name[:-1]}_{number}'" if name.endswith("'") else f"{name}_{number}"
    taken.add(free)
    return free


def _written(node: Node, texts: Mapping[Node, _Text], given: Mapping[Node, str], whole: bool) -> _Text:
    """A node in terms of the texts of its operands."""
    if isinstance(node.op, Constant):
        return _constant(node.op)
    args = [texts[_without_repetition(arg, given) if isinstance(node.op, Elementwise) else arg] for arg in node.args]
    name = node.op.name
    if name in _INFIX:
        return _infix(node, args)
    if name == "negative":
        return _Text(f"-{args[0].within(_RAISED)}", _SIGNED)
    if name == "pow":
        return _Text(f"{args[0].within(_ATOM)}**{args[1].within(_SIGNED)}", _RAISED)
    match node.op:
        case SizeOf(size=size):
            compound = isinstance(size, Dim) and not str(size).isidentifier()
            return _Text(f"({size})" if compound else str(size), _ATOM)
        case Cast(dtype=dtype):
            return _Text(f"{dtype}({args[0].text})", _ATOM)
        case Transpose(axes=(1, 0)):
            return _Text(f"{args[0].within(_ATOM)}.T", _ATOM)
        case Reshape(shape=shape) if not whole and _without_ones(shape) == _without_ones(node.args[0].shape):
            return args[0]
        case Reshape(shape=shape) | BroadcastTo(shape=shape):
            called = "reshape" if isinstance(node.op, Reshape) else "broadcast"
            return _Text(f"{called}({args[0].text}, {print_sizes(shape)})", _ATOM)
        case Slice():
            return _Text(f"{args[0].within(_ATOM)}[{_slices(node.op, node.args[0])}]", _ATOM)
        case _:
            return _Text(f"{name}({', '.join([*(arg.text for arg in args), *_shown_attributes(node)])})", _ATOM)


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _without_repetition(node: Node, given: Mapping[Node, str]) -> Node:
    while isinstance(node.op, BroadcastTo) and node not in given:
        (node,) = node.args
    return node


def _infix(node: Node, args: list[_Text]) -> _Text:
    sign, strength = _INFIX[node.op.name]
    operands, (left, right) = node.args, args
    if node.op.name == "multiply" and uniform_value(operands[1]) is not None:
        operands, left, right = operands[::-1], right, left
    if node.op.name in _OPPOSITE and _is_signed(operands[1], right):
        sign, right = _OPPOSITE[node.op.name], _Text(right.text[1:], right.strength)
    chained = node.op.name in ("add", "multiply") and operands[1].op.name == node.op.name
    return _Text(f"{left.within(strength)}{sign}{right.within(strength if chained else strength + 1)}", strength)


def _is_signed(node: Node, text: _Text) -> bool:
    """Does the text begin with a sign that may as well stand before all of it?"""
    if not text.text.startswith("-"):
        return False
    factor = uniform_value(node.args[1]) if node.op.name == "multiply" else None
    return text.strength == _SIGNED or (factor is not None and text.strength == _MULTIPLIED)


def _constant(op: Constant) -> _Text:
    array = op.array
    if array.size and not (array != array.flat[0]).any():
        return _number(array.flat[0])
    if array.size <= _SHOWN_ELEMENTS:
        return _Text(_nested(array), _ATOM)
    return _Text(f"constant({op.type})", _ATOM)


def _number(value: np.generic) -> _Text:
    text = str(value)
    text = text.removesuffix(".0")
    return _Text(text, _SIGNED if text.startswith("-") else _ATOM)


def _nested(array: Array) -> str:
    return f"[{', '.join(_nested(row) if row.ndim else _number(row[()]).text for row in array)}]"


def _slices(op: Slice, x: Node) -> str:
    parts: list[str] = []
    for start, stop, step, size in zip(op.starts, op.stops, op.steps, x.shape, strict=True):
        text = f"{'' if start == 0 else start}:{'' if stop == size else stop}"
        parts.append(text if step == 1 else f"{text}:{step}")
    return ", ".join(parts)


def _shown_attributes(node: Node) -> list[str]:
    """Attributes that a reader needs: the axes of a reduction unless they are all there are, never keepdims."""
    shown: list[str] = []
    for key in node.op.attributes:
        value = getattr(node.op, key)
        if key in ("keepdims", "stream"):
            continue
        if key == "axes" and not isinstance(node.op, Transpose):
            if len(value) == node.args[0].ndim:
                continue
            key, value = "axis", value[0] if len(value) == 1 else value
        if isinstance(value, DType):
            shown.append(str(value))
        elif isinstance(value, tuple):
            items: tuple[object, ...] = value  # pyright: ignore[reportUnknownVariableType]
            shown.append(f"{key}=({', '.join(map(str, items))})")
        else:
            shown.append(f"{key}={print_attribute(value)}")
    return shown
