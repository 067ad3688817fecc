"""Connectionist temporal classification: the loss of label sequences that are shorter than the input, unaligned.

All ways to spread the labels over the time steps, with blanks between them, are summed by the forward recursion in
logarithms. The gradient is the closed form, from the backward recursion: minus the probability of being at a label at
a time, given all that is seen. Both recursions are scans.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import AxisError, ShapeError
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.ops.activation import log_softmax
from graphc.ops.arithmetic import maximum, multiply, negative, subtract
from graphc.ops.base import FLOATS, INTEGERS, Operand, as_int, as_node, cast_to, explaining, full, require_dtype
from graphc.ops.compare import equal, less, not_equal, where
from graphc.ops.control import custom_vjp
from graphc.ops.create import iota
from graphc.ops.exponential import exp, log
from graphc.ops.indexing import take_along
from graphc.ops.logic import logical_and, logical_or
from graphc.ops.movement import broadcast_to, concatenate, reshape, transpose
from graphc.ops.padding import pad
from graphc.ops.rearrange import stack
from graphc.ops.reduction import max, sum
from graphc.ops.scan import scan
from graphc.ops.slicing import expand_dims

IMPOSSIBLE = -1e30
"""The logarithm of 0, finite, so that differences of two are numbers."""


def ctc_loss(
    labels: Operand,
    logits: Operand,
    label_lengths: Operand | None = None,
    input_lengths: Operand | None = None,
    blank: int = 0,
) -> Node:
    """Minus the logarithm of the probability of a sequence of labels, summed over all alignments with the input.

    An alignment says a label or nothing (blank) at each time step; equal labels in a row count once unless a blank
    stands between them. Where the input is too short for its labels the loss is infinite and its gradient 0.

    Args:
        labels: class numbers, padded at the end with anything.
        logits: scores of the classes at each time step.
        label_lengths: how many labels count; default: those that are not blank.
        input_lengths: how many time steps count; default: all.
        blank: the class that says nothing.

    Shapes: labels (batch, n), logits (batch, time, classes), lengths (batch,) -> (batch,).
    Raises: AxisError; ShapeError; DTypeError; at run time IndexRangeError for a label that is no class.
    Source: Graves et al. 2006, https://doi.org/10.1145/1143844.1143891, equations 5 to 8 and 10 to 16

    >>> import graphc as gx
    >>> y, z = gx.placeholder("y", ("batch", 5), "int64"), gx.placeholder("z", ("batch", "time", 30))
    >>> loss = gx.ctc_loss(y, z)
    >>> loss.type
    f32[batch]
    """
    y, z = as_node(labels), as_node(logits)
    with explaining("ctc_loss", y, z):
        _check(y, z, blank)
        y = cast_to(y, DType.int64)
        count = y.shape[1]
        if label_lengths is None:
            lengths = sum(cast_to(not_equal(y, blank), y.dtype), axis=-1)
        else:
            lengths = cast_to(as_node(label_lengths), y.dtype)
        y = where(less(iota((count,), 0, y.dtype), expand_dims(lengths, 1)), y, blank)
        return _loss(y, log_softmax(z, axis=-1), lengths, input_lengths, blank)


def _check(y: Node, z: Node, blank: int) -> None:
    require_dtype(z.type, FLOATS, "logits")
    require_dtype(y.type, INTEGERS, "labels")
    if z.ndim != 3 or y.ndim != 2 or y.shape[0] != z.shape[0]:
        raise ShapeError(
            f"labels have shape {y.shape}, logits {z.shape}",
            remedy="give labels (batch, n) and logits (batch, time, classes)",
        )
    classes = z.shape[2]
    if as_int(blank) is None or blank < 0 or (isinstance(classes, int) and blank >= classes):
        raise AxisError(f"the blank is class {blank!r} of {classes}", remedy="give the number of a class")


def _loss(y: Node, log_p: Node, lengths: Node, input_lengths: Operand | None, blank: int) -> Node:
    batch, time, _ = log_p.shape
    states = 2 * y.shape[1] + 1
    # blank, label, blank, label, ..., blank
    pairs = stack([full(y.shape, blank, y.dtype), y], axis=2)
    path = concatenate([reshape(pairs, (batch, states - 1)), full((batch, 1), blank, y.dtype)], 1)
    # From label to label only if they differ; from blank to blank they are equal.
    before = pad(path, (0, 2), (0, -2), value=blank)
    skips = not_equal(path, before)
    place = iota((states,), 0, y.dtype)
    last = expand_dims(multiply(lengths, 2), 1)
    ends = logical_or(equal(place, last), equal(place, subtract(last, 1)))
    steps = iota((time,), 0, y.dtype)
    if input_lengths is None:
        active = full((time, batch), True, ends.dtype)
    else:
        active = less(expand_dims(steps, 1), expand_dims(cast_to(as_node(input_lengths), y.dtype), 0))
    chosen = take_along(log_p, broadcast_to(expand_dims(path, 1), (batch, time, states)), axis=2)
    said = transpose(chosen, (1, 0, 2))
    first = broadcast_to(where(equal(place, 0), _number(0.0, said), _number(IMPOSSIBLE, said)), (batch, states))
    final, reached = scan(lambda c, x: _forward(c, x, skips), first, (said, active))
    return _total(said, reached, final, ends, skips, active)


def _number(value: float, like: Node) -> Node:
    return full((), value, like.dtype)


def _forward(reached: Node, x: tuple[Node, Node], skips: Node) -> tuple[Node, Node]:
    """The logarithm of the probability of all beginnings that are in a state after this step."""
    said, active = x
    one, two = _moved(reached, 1), where(skips, _moved(reached, 2), IMPOSSIBLE)
    following = said + _log_add(reached, one, two)
    following = where(expand_dims(active, 1), following, reached)
    return following, following


def _backward(ahead: Node, x: tuple[Node, Node], jumps: Node) -> tuple[Node, Node]:
    """The logarithm of the probability of all endings that follow after a state at this step."""
    said, active = x
    here = ahead + said
    one, two = _moved(here, -1), where(jumps, _moved(here, -2), IMPOSSIBLE)
    before = where(expand_dims(active, 1), _log_add(here, one, two), ahead)
    return before, ahead


def _moved(x: Node, by: int) -> Node:
    """States moved up (or down), from nowhere at the ends."""
    return pad(x, (0, by), (0, -by), value=IMPOSSIBLE)


def _log_add(a: Node, b: Node, c: Node) -> Node:
    largest = maximum(maximum(a, b), c)
    return largest + log(exp(subtract(a, largest)) + exp(subtract(b, largest)) + exp(subtract(c, largest)))


def _log_likelihood(final: Node, ends: Node) -> Node:
    at_end = where(ends, final, IMPOSSIBLE)
    largest = max(at_end, axis=1, keepdims=True)
    return reshape(largest, final.shape[:1]) + log(sum(exp(subtract(at_end, largest)), axis=1))


def _minus_log(said: Node, reached: Node, final: Node, ends: Node, skips: Node, active: Node) -> Node:
    total = _log_likelihood(final, ends)
    return where(less(total, 0.1 * IMPOSSIBLE), np.inf, negative(total))


def _posterior(inputs: tuple[Node, ...], output: Node, cotangent: Node) -> list[Node | None]:
    """Minus the probability of each state at each step, given the labels and the input."""
    said, reached, final, ends, skips, active = inputs
    jumps = pad(skips, (0, -2), (0, 2), value=False)
    none = full(final.shape, IMPOSSIBLE, said.dtype)
    start = where(ends, _number(0.0, said), none)
    _, ahead = scan(lambda c, x: _backward(c, x, jumps), start, (said, active), reverse=True)
    total = reshape(_log_likelihood(final, ends), (1, final.shape[0], 1))
    there = exp(subtract(reached + ahead, total))
    counted = logical_and(expand_dims(active, 2), less(0.1 * IMPOSSIBLE, total))
    weighed = multiply(negative(there), reshape(cotangent, (1, final.shape[0], 1)))
    return [where(counted, weighed, 0.0), None, None, None, None, None]


_total = custom_vjp(_minus_log, _posterior)


__all__ = ["ctc_loss"]
