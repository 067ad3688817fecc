"""Stable forms: what is equal in mathematics but does not overflow, underflow or cancel in floats.

These rules change values on purpose where the left side loses them: ``log(softmax(x))`` is minus infinity where the
probability underflows, ``log_softmax(x)`` is not. Elsewhere both sides agree to rounding.
"""

from __future__ import annotations

import numpy as np

from graphc.ir.node import Node, apply
from graphc.ops.activation import LogSoftmax, LogSumExp, Softmax, log_softmax, logsumexp, softmax
from graphc.ops.arithmetic import Add, Divide, Subtract
from graphc.ops.exponential import Exp, Log, Sigmoid, exp, expm1, log, log1p, sigmoid, softplus
from graphc.ops.indexing import Take, TakeAlong, take, take_along
from graphc.ops.reduction import Max, Sum
from graphc.ops.reduction import max as max_of
from graphc.ops.reduction import sum as sum_of
from graphc.ops.slicing import Slice
from graphc.rewrite import Rule, RuleSet, rule

LOGARITHMS = (
    Rule("log_of_exp", "log(exp(x)) = x; exp overflows.", lambda x: log(exp(x)), lambda x: x, specials=False),
    Rule("log_of_sigmoid", "log(sigmoid(x)) = -softplus(-x); sigmoid underflows.",
         lambda x: log(sigmoid(x)), lambda x: -softplus(-x), specials=False),
    Rule("log_of_one_minus_sigmoid", "log(1 - sigmoid(x)) = -softplus(x); 1 - sigmoid cancels.",
         lambda x: log(1.0 - sigmoid(x)), lambda x: -softplus(x), specials=False),
    Rule("log1p_of_negative_sigmoid", "log1p(-sigmoid(x)) = -softplus(x); sigmoid saturates at 1.",
         lambda x: log1p(-sigmoid(x)), lambda x: -softplus(x), specials=False),
    Rule("log_of_one_plus", "log(x + 1) = log1p(x); a small x is lost in 1 + x.",
         lambda x: log(x + 1.0), lambda x: log1p(x), domain=(-0.5, 2.0)),
    Rule("log_of_one_minus", "log(1 - x) = log1p(-x); a small x is lost in 1 - x.",
         lambda x: log(1.0 - x), lambda x: log1p(-x), domain=(-2.0, 0.5)),
    Rule("exp_minus_one", "exp(x) - 1 = expm1(x); close to zero the difference cancels.",
         lambda x: exp(x) - 1.0, lambda x: expm1(x)),
    Rule("softplus_from_exp", "log1p(exp(x)) = softplus(x); exp overflows.",
         lambda x: log1p(exp(x)), lambda x: softplus(x), specials=False),
    Rule("sigmoid_from_exp", "1 / (exp(-x) + 1) = sigmoid(x).", lambda x: 1.0 / (exp(-x) + 1.0), lambda x: sigmoid(x)),
    Rule("sigmoid_from_ratio", "exp(x) / (exp(x) + 1) = sigmoid(x); the ratio of infinities is NaN.",
         lambda x: exp(x) / (exp(x) + 1.0), lambda x: sigmoid(x), specials=False),
)  # fmt: skip


@rule(
    Log, example=(lambda leaf: log(softmax(leaf(2, 3))), lambda leaf: log(softmax(leaf(2, 3), axis=0))), specials=False
)
def log_of_softmax(node: Node) -> Node | None:
    """``log(softmax(x)) = log_softmax(x)``: a probability may underflow."""
    (inner,) = node.args
    return apply(LogSoftmax(inner.op.axis), *inner.args) if isinstance(inner.op, Softmax) else None


@rule(Exp, example=lambda leaf: exp(log_softmax(leaf(2, 3))), specials=False)
def exp_of_log_softmax(node: Node) -> Node | None:
    """``exp(log_softmax(x)) = softmax(x)``."""
    (inner,) = node.args
    return apply(Softmax(inner.op.axis), *inner.args) if isinstance(inner.op, LogSoftmax) else None


@rule(
    Log,
    example=(
        lambda leaf: log(take_along(softmax(leaf(4, 6)), leaf(4, 1, dtype="uint32"))),
        lambda leaf: log(take(sigmoid(leaf(6)), np.array([0, 3]))),
        lambda leaf: log(softmax(leaf(4, 6))[1:]),
    ),
    specials=False,
)
def take_log_before_choosing(node: Node) -> Node | None:
    """The logarithm of a chosen probability is the chosen logarithm, which has a stable form."""
    (chosen,) = node.args
    if not isinstance(chosen.op, TakeAlong | Take | Slice):
        return None
    x, *rest = chosen.args
    return apply(chosen.op, log(x), *rest) if isinstance(x.op, Softmax | Sigmoid) else None


@rule(
    Log,
    example=(
        lambda leaf: log(sum_of(exp(leaf(2, 3)), axis=1)),
        lambda leaf: log(sum_of(exp(leaf(2, 3)), axis=(0, 1), keepdims=True)),
    ),
    specials=False,
)
def log_of_sum_of_exp(node: Node) -> Node | None:
    """``log(sum(exp(x))) = logsumexp(x)``: exp overflows, or all of it underflows."""
    (total,) = node.args
    if not isinstance(total.op, Sum) or not isinstance(total.args[0].op, Exp):
        return None
    return apply(LogSumExp(total.op.axes, total.op.keepdims), *total.args[0].args)


@rule(
    Divide,
    example=(
        lambda leaf: _normalized(exp(leaf(2, 3))),
        lambda leaf: _softmax_by_hand(leaf(2, 3)),
    ),
    specials=False,
)
def softmax_from_exp(node: Node) -> Node | None:
    """``exp(x) / sum(exp(x)) = softmax(x)``, also where a maximum was subtracted from x by hand."""
    top, total = node.args
    if not isinstance(top.op, Exp) or not isinstance(total.op, Sum) or total.args[0] is not top:
        return None
    if not total.op.keepdims or len(total.op.axes) != 1:
        return None
    (axis,) = total.op.axes
    return apply(Softmax(axis), _without_shift(top.args[0], axis))


def _without_shift(x: Node, axis: int) -> Node:
    """``x`` of ``x - max(x)``: softmax takes no notice of what is the same along its axis."""
    if not isinstance(x.op, Subtract):
        return x
    inner, shift = x.args
    largest = shift.args[0] if shift.op.name == "stop_gradient" else shift
    same = isinstance(largest.op, Max) and largest.op.keepdims and largest.op.axes == (axis,)
    return inner if same and largest.args[0] is inner else x


def _softmax_by_hand(x: Node) -> Node:
    return _normalized(exp(x - max_of(x, axis=1, keepdims=True)))


def _normalized(x: Node) -> Node:
    return x / sum_of(x, axis=1, keepdims=True)


@rule(Add, example=lambda leaf: _logsumexp_by_hand(leaf(2, 3)), specials=False)
def logsumexp_from_shifted(node: Node) -> Node | None:
    """``max(x) + logsumexp(x - max(x)) = logsumexp(x)``: the shift by hand is not needed, the op shifts itself."""
    for total, shift in (node.args, node.args[::-1]):
        if not isinstance(total.op, LogSumExp) or len(total.op.axes) != 1 or not isinstance(shift.op, Max):
            continue
        (axis,) = total.op.axes
        (shifted,) = total.args
        x = _without_shift(shifted, axis)
        if x is not shifted and shift.op == Max(total.op.axes, total.op.keepdims) and shift.args[0] is x:
            return apply(total.op, x)
    return None


def _logsumexp_by_hand(x: Node) -> Node:
    shift = max_of(x, axis=1, keepdims=True)
    return shift + logsumexp(x - shift, axis=1, keepdims=True)


@rule(Subtract, example=lambda leaf: _log_softmax_by_hand(leaf(2, 3)), specials=False)
def log_softmax_from_logsumexp(node: Node) -> Node | None:
    """``x - logsumexp(x) = log_softmax(x)``, also where a maximum was subtracted from x by hand."""
    x, total = node.args
    if not isinstance(total.op, LogSumExp) or not total.op.keepdims or len(total.op.axes) != 1:
        return None
    if total.args[0] is not x:
        return None
    (axis,) = total.op.axes
    return apply(LogSoftmax(axis), _without_shift(x, axis))


def _log_softmax_by_hand(x: Node) -> Node:
    return x - logsumexp(x, axis=1, keepdims=True)


STABLE = RuleSet(
    (
        *LOGARITHMS,
        log_of_softmax,
        take_log_before_choosing,
        exp_of_log_softmax,
        log_of_sum_of_exp,
        softmax_from_exp,
        log_softmax_from_logsumexp,
        logsumexp_from_shifted,
    )
)
