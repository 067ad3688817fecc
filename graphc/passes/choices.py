"""Canonical comparisons, choices, extremes and conversions."""

from __future__ import annotations

from graphc.ir.node import Node, apply
from graphc.ir.types import DType, Kind
from graphc.ops.arithmetic import Maximum, Minimum, maximum, minimum
from graphc.ops.base import cast_to, full
from graphc.ops.cast import Cast
from graphc.ops.compare import Where, equal, not_equal, where
from graphc.ops.logic import Not, logical_not
from graphc.rewrite import Rule, RuleSet, rule
from graphc.rewrite.pattern import uniform_value

COMPARISONS = (
    Rule("decide_not_equal", "not (x == y) is x != y, for NaN too. Other comparisons have no opposite under NaN.",
         lambda x, y: logical_not(equal(x, y)), lambda x, y: not_equal(x, y), integers=True),
    Rule("decide_equal", "not (x != y) is x == y, for NaN too.",
         lambda x, y: logical_not(not_equal(x, y)), lambda x, y: equal(x, y), integers=True),
    Rule("maximum_of_itself", "max(x, x) = x.", lambda x: maximum(x, x), lambda x: x, integers=True),
    Rule("minimum_of_itself", "min(x, x) = x.", lambda x: minimum(x, x), lambda x: x, integers=True),
)  # fmt: skip


@rule(Not, example=lambda leaf: ~~leaf(3, dtype="bool"))
def cancel_nots(node: Node) -> Node | None:
    """``not not x`` is x; so it is for the bits of an integer."""
    (inner,) = node.args
    return inner.args[0] if isinstance(inner.op, Not) else None


@rule(
    Where,
    example=(
        lambda leaf: where(full((), True, DType.bool), leaf(3), leaf(3)),
        lambda leaf: _choose_either(leaf(3, dtype="bool"), leaf(3)),
        lambda leaf: where(~leaf(3, dtype="bool"), leaf(3), leaf(3)),
    ),
)
def decide_choice(node: Node) -> Node | None:
    """A choice whose condition is known, whose branches are one node, or whose condition is negated."""
    condition, a, b = node.args
    known = uniform_value(condition)
    if known is not None:
        return a if known else b
    if a is b:
        return a
    return where(condition.args[0], b, a) if isinstance(condition.op, Not) else None


def _choose_either(condition: Node, x: Node) -> Node:
    return where(condition, x, x)


@rule(
    Cast,
    example=(
        lambda leaf: cast_to(cast_to(leaf(3), DType.float64), DType.float32),
        lambda leaf: cast_to(cast_to(leaf(3, dtype="int32"), DType.int64), DType.float32),
        lambda leaf: cast_to(cast_to(leaf(3, dtype="bool"), DType.float32), DType.float64),
    ),
)
def merge_casts(node: Node) -> Node | None:
    """A conversion that loses nothing, followed by another one, is the second alone."""
    (inner,) = node.args
    if not isinstance(inner.op, Cast):
        return None
    (x,) = inner.args
    ends = (x.dtype, node.dtype)
    if any(dtype.is_half for dtype in ends) and ends[0] is not ends[1] and DType.float32 not in ends:
        return None  # halves go by way of float32
    return cast_to(x, node.dtype) if _holds_all_of(inner.dtype, x.dtype) else None


def _holds_all_of(wide: DType, narrow: DType) -> bool:
    if narrow is DType.bool:
        return True
    if narrow.is_half and wide.is_half:
        return narrow is wide
    if narrow.kind is wide.kind:
        return wide.itemsize >= narrow.itemsize
    if wide.is_float and narrow.is_integer:
        return wide is DType.float64 and narrow.itemsize == 4
    return wide is DType.int64 and narrow.kind is Kind.UINT


@rule(Maximum, Minimum, example=lambda leaf: maximum(maximum(leaf(3), 0.5), 0.25))
def combine_bounds(node: Node) -> Node | None:
    """``max(max(x, c), d) = max(x, max(c, d))``, and likewise for the minimum; NaN stays NaN."""
    inner, right = node.args
    if type(inner.op) is not type(node.op):
        return None
    x, bound = inner.args
    c, d = uniform_value(bound), uniform_value(right)
    if c is None or d is None:
        return None
    return apply(node.op, x, full((), max(c, d) if isinstance(node.op, Maximum) else min(c, d), node.dtype))


CHOICES = RuleSet((*COMPARISONS, cancel_nots, decide_choice, merge_casts, combine_bounds))
