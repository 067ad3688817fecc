"""The programs that docstrings show: the nodes that an example makes, on leaves of its own, and operands for them."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc as gx
from graphc.ir.dims import evaluate
from graphc.ir.node import Input, Node, topological
from graphc.ops import functions
from tests.ops.table import LEAVES

SIZES = {"n": 2, "m": 3, "batch": 2, "time": 4}


@dataclass(frozen=True)
class Shown:
    """What the example of a function makes.

    Attributes:
        inputs: its placeholders, whose names begin with the function's.
        outputs: its nodes that are no leaves.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    def feeds(self, draw: Callable[[Node, tuple[int, ...]], np.ndarray], sizes: Mapping[str, int]) -> dict[str, Any]:
        return {x.name: draw(x, tuple(evaluate(size, {**SIZES, **sizes}) for size in x.shape)) for x in self.inputs}


def shown_by(name: str, monkeypatch: Any, wide: bool = False, fixed: bool = False) -> Shown:
    """Run a public function's example.

    Args:
        name: the function's.
        monkeypatch: pytest's.
        wide: with float64 for float32.
        fixed: with numbers for the names of sizes.
    """
    original, function = gx.placeholder, functions[name]

    taken: dict[str, Node] = {}

    def placeholder(label: str, shape: Any, dtype: Any = "float32") -> Node:
        if fixed:
            shape = tuple(SIZES.get(size, size) for size in shape)
        if wide and dtype == "float32":
            dtype = "float64"
        node = original(f"{name}_{label}", shape, dtype)
        if taken.setdefault(label, node) is not node:
            return placeholder(f"{label}_{len(taken)}", shape, dtype)
        return node

    monkeypatch.setattr(gx, "placeholder", placeholder)
    names: dict[str, Any] = {}
    values: list[Any] = []
    for example in doctest.DocTestParser().get_examples(inspect.getdoc(function) or ""):
        try:
            code = compile(example.source, name, "eval")
        except SyntaxError:
            exec(example.source, names)
        else:
            values.append(eval(code, names))
    monkeypatch.undo()
    made = dict.fromkeys(node for node in _nodes([*values, *names.values()]) if not isinstance(node.op, LEAVES))
    leaves = [node for node in topological(list(made)) if isinstance(node.op, Input)]
    return Shown(name, tuple(leaves), tuple(made))


def _nodes(values: Iterable[Any]) -> Iterator[Node]:
    for value in values:
        if isinstance(value, Node):
            yield value
        elif isinstance(value, list | tuple):
            yield from _nodes(value)
