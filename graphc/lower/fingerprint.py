"""What a graph computes, as a key: equal in every process for graphs that compile to the same plan.

Names of leaves, the values of parameters and source lines are not part of it, since no pass looks at them; nor is the
order in which nodes were made. Operations with their attributes, types and constants are, and so is the compiler: the
text of its modules. An operation that they do not define has no key: its name and attributes do not say what it does.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from graphc.cache import digest
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph
from graphc.ir.location import LOADED_NS
from graphc.ir.node import Input, Node, Parameter
from graphc.ir.op import Op
from graphc.ir.types import TensorType

ROOMS = ("", "ir", "loops", "ops", "rewrite", "passes", "lower")
"""The folders whose modules decide what a graph compiles to."""


class UnknownPartError(Exception):
    """Something of which its text does not say what it will mean in another process."""


@dataclass(frozen=True)
class Compiler:
    """The compiler of this process: the names of its modules, and a digest of their text."""

    modules: frozenset[str]
    digest: str


@cache
def compiler() -> Compiler | None:
    """This process's compiler; None where its text has changed after it was loaded, or cannot be read."""
    package = Path(__file__).resolve().parents[1]
    parts: list[str | bytes] = [sys.version, np.__version__, sys.byteorder]
    modules: set[str] = set()
    for room in ROOMS:
        for path in sorted((package / room).glob("*.py")):
            try:
                with path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    text = file.read()
            except OSError:  # removed meanwhile
                return None
            if max(status.st_mtime_ns, status.st_ctime_ns) > LOADED_NS:
                return None
            name = ".".join(filter(None, ("graphc", room, path.stem)))
            modules.add(name)
            parts += [name, text]
    return Compiler(frozenset(modules), digest(*parts))


def fingerprint(graph: Graph) -> str | None:
    """The key of a graph and of the compiler; None for a graph with a part that only this process knows."""
    known = compiler()
    if known is None:
        return None
    try:
        return digest(known.digest, repr(_Description(graph, known.modules).graph(graph)))
    except UnknownPartError:
        return None


@dataclass
class _Description:
    """Nested tuples of names and numbers that say all about a graph; operations and types stand in it once."""

    whole: Graph
    modules: Collection[str]
    parameters: dict[int, int] = field(init=False)
    seen: dict[object, int] = field(default_factory=dict[object, int])

    def __post_init__(self) -> None:
        self.parameters = {id(p): number for number, p in enumerate(self.whole.parameters)}

    def graph(self, graph: Graph) -> tuple[Any, ...]:
        """Inputs, nodes, outputs and updates."""
        inputs = {id(node): number for number, node in enumerate(graph.inputs)}
        numbers: dict[int, int] = {}
        rows: list[object] = []
        for node in graph.nodes:
            numbers[id(node)] = len(numbers)
            rows.append((self._op(node, inputs), self._once(node.type), *[numbers[id(arg)] for arg in node.args]))
        return (
            tuple(self._once(node.type) for node in graph.inputs),
            tuple(rows),
            tuple(numbers[id(node)] for _, node in graph.outputs),
            tuple((self._parameter(target), numbers[id(node)]) for target, node in graph.updates),
        )

    def _op(self, node: Node, inputs: dict[int, int]) -> object:
        if isinstance(node, Parameter):
            return ("parameter", self._parameter(node))
        if isinstance(node.op, Input):
            if id(node) not in inputs:
                raise UnknownPartError(f"{node!r} is no input")
            return ("input", inputs[id(node)])
        return self._once(node.op)

    def _parameter(self, node: Parameter) -> int:
        number = self.parameters.get(id(node))
        if number is None:
            raise UnknownPartError(f"{node!r} is hidden")
        return number

    def _once(self, value: Op | TensorType) -> object:
        """A number, and with it, when an equal value is met first, what it is."""
        number = self.seen.get(value)
        if number is not None:
            return number
        self.seen[value] = number = len(self.seen)
        return (number, self._value(value))

    def _value(self, value: Any) -> object:
        kind = cast("type[Any]", type(value))
        if kind in (bool, int, float, str) or value is None:
            return value
        if kind is bytes:
            return ("bytes", len(value), hashlib.sha256(value).hexdigest())
        if kind is tuple:
            return ("tuple", *[self._value(part) for part in value])
        if kind is Dim:
            return ("size", self._value(value.terms))
        if kind is Graph:
            return ("graph", self.graph(value))
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__ not in self.modules:
            raise UnknownPartError(name)
        if isinstance(value, Enum):
            return (name, value.name)
        if isinstance(value, Op):
            return (name, *[(attribute, self._value(getattr(value, attribute))) for attribute in value.attributes])
        if is_dataclass(value):
            return (name, *[self._value(getattr(value, part.name)) for part in fields(value)])
        raise UnknownPartError(name)
