"""Rules: what to replace by what, with a name, a docstring and examples that the tests run.

Two forms. A declarative :class:`Rule` says both sides as Python functions of wildcards::

    Rule("log_of_sigmoid", "log(sigmoid(x)) underflows; softplus does not.",
         lambda x: log(sigmoid(x)), lambda x: -softplus(-x))

Where attributes have to be computed, a function under :func:`rule` looks at the node itself::

    @rule(Reshape, example=lambda leaf: reshape(reshape(leaf(2, 3), (6,)), (3, 2)))
    def merge_reshapes(node: Node) -> Node | None: ...

A rule never changes the type of a node; the engine checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from graphc.ir.node import Node
from graphc.ir.op import Op
from graphc.ir.types import DType
from graphc.rewrite.pattern import COMMUTATIVE, classes_of, match, wildcards

Side = (
    Callable[[Node], Node]
    | Callable[[Node, Node], Node]
    | Callable[[Node, Node, Node], Node]
    | Callable[[Node, Node, Node, Node], Node]
)
"""One side of a rule, as a function of its wildcards."""

Example = Callable[[Callable[..., Node]], Node]
"""Builds a node on which a rule must fire, from ``leaf(*shape, dtype="float32", low=-2.0, high=2.0)``."""


class RewriteRule(Protocol):
    """What the engine needs of a rule."""

    @property
    def name(self) -> str:
        """A verb phrase, unique in its table."""
        ...

    @property
    def doc(self) -> str:
        """What the rule does, and why the two sides are equal."""
        ...

    @property
    def heads(self) -> tuple[type[Op], ...]:
        """Classes of the ops on which the rule may fire."""
        ...

    def apply(self, node: Node) -> Node | None:
        """The replacement, or None where the rule does not fire."""
        ...


@dataclass(frozen=True, eq=False)
class Rule:
    """A declarative rule: ``lhs`` and ``rhs`` are functions of the same wildcards, in one order.

    Attributes:
        integers: whether it holds for integer operands too; else it fires only on floats.
        specials: whether both sides agree on NaN, infinities and zeros (the sign of zero aside). A rule that is there
            to avoid an overflow does not.
        domain: the tests draw operands from this interval.
        types: element types of wildcards that are not numbers.
    """

    name: str
    doc: str
    lhs: Side
    rhs: Side
    integers: bool = False
    specials: bool = True
    domain: tuple[float, float] = (-2.0, 2.0)
    types: Mapping[str, DType] = field(default_factory=dict[str, DType])

    @cached_property
    def _wildcards(self) -> dict[str, Node]:
        return wildcards(self.lhs, self.types)

    @cached_property
    def _names(self) -> dict[Node, str]:
        return {node: name for name, node in self._wildcards.items()}

    @cached_property
    def pattern(self) -> Node:
        """The left side on wildcards."""
        return _call(self.lhs, self._wildcards.values())

    @property
    def heads(self) -> tuple[type[Op], ...]:
        return (type(self.pattern.op),)

    @cached_property
    def _orders(self) -> tuple[tuple[tuple[type[Op], ...] | None, ...], ...]:
        """Classes that the operands' ops must have, in each order that the pattern may be met in; None: any."""
        wanted = tuple(None if arg in self._names else classes_of(arg) for arg in self.pattern.args)
        return (wanted, wanted[::-1]) if self.pattern.op.name in COMMUTATIVE else (wanted,)

    def _may_match(self, node: Node) -> bool:
        """Do the operands' ops allow it? Most nodes are told apart here."""
        for wanted in self._orders:
            for classes, arg in zip(wanted, node.args, strict=True):
                if classes is not None and type(arg.op) not in classes:
                    break
            else:
                return True
        return False

    def apply(self, node: Node) -> Node | None:
        if not self._may_match(node):
            return None
        found = match(self.pattern, node, self._names)
        if found is None:
            return None
        for name, operand in found.items():
            if name not in self.types and not (operand.dtype.is_float or (self.integers and operand.dtype.is_integer)):
                return None
        return _call(self.rhs, [found[name] for name in self._wildcards])


def _call(side: Callable[..., Node], operands: Iterable[Node]) -> Node:
    return side(*operands)


@dataclass(frozen=True, eq=False)
class FunctionRule:
    """A rule given by code; made with :func:`rule`."""

    heads: tuple[type[Op], ...]
    function: Callable[[Node], Node | None]
    examples: tuple[Example, ...]
    specials: bool = True

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def doc(self) -> str:
        return self.function.__doc__ or ""

    def apply(self, node: Node) -> Node | None:
        return self.function(node)


def rule(
    *heads: type[Op], example: Example | tuple[Example, ...], specials: bool = True
) -> Callable[[Callable[[Node], Node | None]], FunctionRule]:
    """Make a function a rule for nodes whose op is one of ``heads`` (subclasses included).

    Args:
        heads: op classes.
        example: builds a node on which the rule must fire, or several of them.
        specials: see :class:`Rule`.
    """
    examples = (example,) if callable(example) else example
    return lambda function: FunctionRule(heads, function, examples, specials)
