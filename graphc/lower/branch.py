"""Conds on their way to a plan: each branch is a loop of at most one step, which begins if it is taken.

Both write the same buffers. What runs a loop that ends by itself runs a branch, at no further cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import TensorType, TupleType
from graphc.ops.cond import Cond
from graphc.ops.logic import logical_not


class BranchOp(Op):
    """A cond whose operands are the predicate, its opposite, and what the branches take.

    Attributes:
        cond: what it was.
        prepared: the branches as lowering takes them.
    """

    name = "branch"
    attributes = ("cond",)
    cond: Cond
    prepared: tuple[Graph, ...]

    def __init__(self, cond: Cond, prepared: Sequence[Graph]) -> None:
        object.__setattr__(self, "cond", cond)
        object.__setattr__(self, "prepared", tuple(prepared))

    @property
    def key(self) -> tuple[Any, ...]:
        return (BranchOp, self.cond.key)

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return self.cond.bodies

    def infer(self, *types: TensorType) -> TensorType:
        whole = self.cond.infer(types[0], *types[2:])
        assert isinstance(whole, TupleType)
        return whole


def branch(cond: Cond, prepared: Sequence[Graph], args: Sequence[Node]) -> Node:
    """The cond as lowering takes it."""
    predicate, *operands = args
    return apply(BranchOp(cond, prepared), predicate, logical_not(predicate), *operands)
