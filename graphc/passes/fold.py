"""Constant folding: what depends on constants alone is computed now, if the result is small."""

from __future__ import annotations

import numpy as np

from graphc.ir.dims import Dim, Size
from graphc.ir.node import Constant, Node, apply, constant
from graphc.ir.op import Op
from graphc.ir.types import TupleType, shape_names
from graphc.ops.checked import Checked
from graphc.ops.create import SizeOf
from graphc.ops.halves import reference_of
from graphc.ops.movement import BroadcastTo
from graphc.rewrite import RuleSet, rule

LARGEST_BYTES = 64 * 1024
"""Larger results stay computations: they would swell the program, and reading memory costs more than computing."""

_NEVER = frozenset({"random_bits", "stop_gradient", "when_training", "recompute", "custom_vjp", "kept"})
"""Random bits would swell the program; markers mean something to a later pass."""


@rule(
    Op,
    example=(
        lambda leaf: constant(2.0) * constant(np.arange(3, dtype=np.float32)),
        lambda leaf: constant(np.arange(4)) > 2,
    ),
)
def fold_constants(node: Node) -> Node | None:
    """The value of an op on constants, by the reference. A repeated constant stays: it is smaller so.

    A run-time check that holds for the constants is done with; one that fails stays, to fail where it is due.
    """
    operands = [arg.op for arg in node.args if isinstance(arg.op, Constant)]
    if not operands or len(operands) != len(node.args) or node.op.name in _NEVER or node.op.composite:
        return None
    if isinstance(node.type, TupleType):
        return None
    if isinstance(node.op, BroadcastTo) or shape_names(node.shape) or node.type.nbytes() > LARGEST_BYTES:
        return None
    arrays = [operand.array for operand in operands]
    if is_symbolic(node.op) or (isinstance(node.op, Checked) and node.op.fault(*arrays) is not None):
        return None
    with np.errstate(all="ignore"):
        value = reference_of(node.op, arrays, node.dtype)
    return constant(np.asarray(value, node.dtype.numpy))


def is_symbolic(op: Op) -> bool:
    """Do the attributes hold a size that is not known now?"""
    found: list[object] = []

    def note(size: Size) -> Size:
        found.append(size)
        return size

    op.with_sizes(note)
    return any(isinstance(size, Dim) for size in found)


@rule(SizeOf, example=lambda leaf: apply(SizeOf(3, leaf().dtype)))
def fold_sizes(node: Node) -> Node | None:
    """A size that is known is a number."""
    if not isinstance(node.op, SizeOf) or not isinstance(node.op.size, int):
        return None
    return constant(node.op.size, node.dtype)


FOLD = RuleSet((fold_sizes, fold_constants))
