"""The same computation for all steps at once: what one step does, on operands stacked along a new first axis."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphc.ir.dims import Size
from graphc.ir.node import Constant, Node, apply
from graphc.ops.activation import LogSoftmax, LogSumExp, Softmax
from graphc.ops.base import Elementwise
from graphc.ops.checked import Checked
from graphc.ops.create import Iota, SizeOf
from graphc.ops.indexing import Take
from graphc.ops.linear import MatMul
from graphc.ops.movement import BroadcastTo, Concatenate, Flip, Reshape, Transpose, broadcast_to, reshape
from graphc.ops.reduction import Reduce
from graphc.ops.slicing import Slice
from graphc.ops.statistics import Mean, Var

MOVES = (Reshape, Transpose, BroadcastTo)
"""Ops that only name elements anew: reading through them costs nothing."""


def can_stack(node: Node, constants: Container[Node]) -> bool:
    """Is there a form of the node for stacked operands? A table must be among ``constants``, the same for all steps."""
    match node.op:
        case Checked():
            return False
        case Elementwise() | MatMul() | Reduce() | Mean() | Var() | Softmax() | LogSoftmax() | LogSumExp():
            return True
        case Reshape() | Transpose() | BroadcastTo() | Slice() | Flip() | Concatenate():
            return True
        case Take(axis=0):
            return node.args[0] in constants
        case _:
            return isinstance(node.op, Constant | Iota | SizeOf)


def stack(roots: Sequence[Node], known: Mapping[Node, tuple[Node, bool]], length: Size) -> list[Node]:
    """The values of the roots at all steps, stacked.

    Args:
        roots: nodes of a step whose every operand is known or can be stacked.
        known: for nodes of the step their values outside, and whether these are stacked.
        length: the number of steps.
    """
    found: dict[Node, tuple[Node, bool]] = dict(known)
    work = list(roots)
    while work:
        node = work[-1]
        missing = [arg for arg in node.args if arg not in found] if node not in found else []
        if missing:
            work.extend(missing)
            continue
        work.pop()
        if node not in found:
            found[node] = _stacked(node, [found[arg] for arg in node.args], length)
    values: list[Node] = []
    for root in roots:
        value, stacked = found[root]
        values.append(value if stacked else broadcast_to(value, (length, *value.shape)))
    return values


def _stacked(node: Node, given: Sequence[tuple[Node, bool]], length: Size) -> tuple[Node, bool]:
    args = [value for value, _ in given]
    if not any(stacked for _, stacked in given):
        return apply(node.op, *args), False
    op: Any = node.op
    match op:
        case Elementwise():
            args = [_aligned(value, stacked, node.ndim, length) for value, stacked in given]
        case MatMul():
            args = [_aligned(value, stacked, node.ndim, length) for value, stacked in given]
        case Reduce() | Mean() | Var() | LogSumExp():
            op = replace(op, axes=tuple(axis + 1 for axis in op.axes))
        case Softmax() | LogSoftmax():
            op = replace(op, axis=op.axis + 1)
        case Transpose(axes=axes):
            op = Transpose((0, *(axis + 1 for axis in axes)))
        case Reshape(shape=shape):
            op = Reshape((length, *shape))
        case BroadcastTo(shape=shape):
            args = [_aligned(args[0], True, node.ndim, length)]
            op = BroadcastTo((length, *shape))
        case Slice(starts=starts, stops=stops, steps=steps):
            op = Slice((0, *starts), (length, *stops), (1, *steps))
        case Flip(axes=axes):
            op = Flip(tuple(axis + 1 for axis in axes))
        case Concatenate(axis=axis):
            args = [v if stacked else broadcast_to(v, (length, *v.shape)) for v, stacked in given]
            op = Concatenate(axis + 1)
        case _:
            assert isinstance(op, Take), f"{node!r} has no form for stacked operands"
    return apply(op, *args), True


def _aligned(value: Node, stacked: bool, rank: int, length: Size) -> Node:
    """A stacked operand with axes of size 1 behind the first one, so that it broadcasts as one step's does."""
    missing = rank + 1 - value.ndim
    if not stacked or missing <= 0:
        return value
    return reshape(value, (value.shape[0], *[1] * missing, *value.shape[1:]))
