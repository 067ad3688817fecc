"""What the sizes of a run must fulfil beyond fitting the inputs: slices lie within their axes, no size is negative.

Sizes are simplified under the assumption that a named size is at least 1, and ``x[3]`` of an axis of named size
promises that there are four elements. Where a run breaks such a promise it is refused before anything is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from graphc.errors import ShapeError
from graphc.ir.dims import Dim, Function, Size, evaluate, names
from graphc.ir.node import Node, describe_operands
from graphc.ops.padding import Pad
from graphc.ops.slicing import Slice


@dataclass(frozen=True)
class SizeRule:
    """``least`` must not be below 0 when the program runs.

    Attributes:
        says: what is wrong where it is, to be completed with the sizes of the run.
        shown: sizes whose values the message ends with.
    """

    node: Node
    least: Size
    says: str
    shown: Size

    def check(self, dims: Mapping[str, int]) -> None:
        """Refuse sizes that break the rule.

        Raises:
            ShapeError: names the operation, its operands and the user's line.
        """
        if evaluate(self.least, dims) >= 0:
            return
        given = ", ".join(f"{name} = {dims[name]}" for name in sorted(names(self.least)))
        raise ShapeError(
            f"{self.node.op.name}: {self.says} {evaluate(self.shown, dims)}, with {given}",
            details=describe_operands(self.node.op, self.node.args),
            at=self.node.user_line,
            remedy="run it on arrays that are long enough, or change this line",
        )


def find_size_rules(nodes: Iterable[Node]) -> tuple[SizeRule, ...]:
    """The rules of a graph's nodes that a run may break."""
    found: dict[Size, SizeRule] = {}
    for node in nodes:
        for rule in _rules(node):
            if not _never_negative(rule.least):
                found.setdefault(rule.least, rule)
    return tuple(found.values())


def _rules(node: Node) -> Iterator[SizeRule]:
    if isinstance(node.op, Slice):
        rows = zip(node.op.starts, node.op.stops, node.args[0].shape, strict=True)
        for axis, (start, stop, size) in enumerate(rows):
            place = f"{start}:{stop} does not lie in axis {axis}, whose size is"
            for least in (size - stop, start, stop - start):
                yield SizeRule(node, least, place, size)
    elif isinstance(node.op, Pad):
        rows = zip(node.args[0].shape, node.op.low, node.op.high, node.op.interior, strict=True)
        for axis, (size, low, high, interior) in enumerate(rows):
            if interior and isinstance(size, Dim):
                between = f"nothing can be put between the elements of axis {axis}, whose size is"
                yield SizeRule(node, size - 1, between, size)
            for least in (low, high):
                yield SizeRule(node, least, f"the padding of axis {axis} is", least)
    for axis, size in enumerate(node.shape):
        yield SizeRule(node, size, f"the size of axis {axis} is", size)


def _never_negative(size: Size) -> bool:
    if not isinstance(size, Dim):
        return size >= 0
    return all(
        factor >= 0 and all(isinstance(atom, str) or _function_never_negative(atom) for atom, _ in monomial)
        for monomial, factor in size.terms
    )


def _function_never_negative(atom: Function) -> bool:
    left, right = _never_negative(atom.left), _never_negative(atom.right)
    return left or right if atom.fn == "max" else left and right
