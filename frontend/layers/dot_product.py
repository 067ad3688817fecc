"""Attention with its weights at hand, and the masks that say who attends to whom."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

import graphc as gx
from graphc.errors import DTypeError
from graphc.frontend.config import user_line
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import DType


def attention_weights(
    q: Node, k: Node, mask: Node | None = None, bias: Node | None = None, causal: bool = False, scale: float = 1.0
) -> Node:
    """``softmax(q k^T * scale + bias)`` over the steps that count; heads of k are shared by equally many of q's.

    Args:
        q, k: queries and keys.
        mask: true where a query may attend to a step.
        bias: added to the scores.
        causal: no query attends to a later step.
        scale: what products are multiplied by.

    Shapes:
        q: (..., heads, time, n), k: (..., shared, steps, n), mask and bias broadcast to (..., heads, time, steps),
        which is the shape of the result. Rows of which no step counts are zeros.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1; Ainslie et al. 2023,
        https://arxiv.org/abs/2305.13245

    >>> import graphc as gx
    >>> q, k = gx.placeholder("q", ("batch", 8, "time", 4)), gx.placeholder("k", ("batch", 2, "steps", 4))
    >>> attention_weights(q, k, causal=True)
    <where: f32[batch, 8, time, steps]>
    """
    heads, shared = q.shape[-3], k.shape[-3]
    keys = gx.swapaxes(k, -1, -2)
    if heads == shared:
        scores = gx.matmul(q * scale, keys)
    else:
        scores = gx.matmul(_grouped(q * scale, shared), gx.expand_dims(keys, -3))
        scores = gx.reshape(scores, (*q.shape[:-1], k.shape[-2]))
    if bias is not None:
        scores = scores + gx.cast(bias, scores.dtype)
    if causal:
        mask = both(mask, causal_mask(q.shape[-2], k.shape[-2]))
    if mask is None:
        return gx.softmax(scores, axis=-1)
    return gx.where(mask, gx.softmax(gx.where(mask, scores, _lowest(scores)), axis=-1), 0.0)


def weighted(weights: Node, v: Node) -> Node:
    """The sums of values with these weights."""
    shared = v.shape[-3]
    if weights.shape[-3] == shared:
        return gx.matmul(weights, v)
    summed = gx.matmul(_grouped(weights, shared), gx.expand_dims(v, -3))
    return gx.reshape(summed, (*weights.shape[:-1], v.shape[-1]))


def _grouped(x: Node, groups: Size) -> Node:
    """(..., heads, time, n) with the heads as (groups, heads / groups)."""
    heads = x.shape[-3]
    return gx.reshape(x, (*x.shape[:-3], groups, heads // groups, *x.shape[-2:]))


def causal_mask(time: Size, steps: Size | None = None) -> Node:
    """True where a step is not later than the query: a lower triangle.

    Args:
        time: the number of queries.
        steps: the number of keys; default as many.

    Shapes: the result: (time, steps), bool.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.3

    >>> import graphc as gx
    >>> print(gx.compile({"mask": causal_mask(3)}, inputs=[], backend="reference")()["mask"].astype(int))
    [[1 0 0]
     [1 1 0]
     [1 1 1]]
    """
    rows, columns = gx.arange(time, "int32"), gx.arange(time if steps is None else steps, "int32")
    return gx.greater_equal(gx.expand_dims(rows, 1), gx.expand_dims(columns, 0))


def as_mask(given: Any) -> Node:
    """A user's mask as bools; numbers count where they are not 0.

    Args:
        given: a node or an array.

    Raises:
        DTypeError: an array of other numbers than 0 and 1, such as one to be added to scores.
    """
    if isinstance(given, np.ndarray):
        array = cast("np.ndarray[Any, Any]", given)
        if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
            raise DTypeError(
                f"a mask says where there is attention, this one holds {array.dtype} other than 0 and 1",
                at=user_line(),
                remedy="give bools, such as mask == 0 of one that is added; numbers to add are attention_bias",
            )
        return gx.constant(array != 0)
    return given if given.dtype is DType.bool else gx.not_equal(given, 0)


def near(time: Size, steps: Size, window: int) -> Node:
    """True where query and step are less than ``window`` apart, as (time, steps)."""
    rows, columns = gx.arange(time, "int32"), gx.arange(steps, "int32")
    return gx.abs(gx.expand_dims(rows, 1) - gx.expand_dims(columns, 0)) < window


def near_positions(q: Node, k: Node, at: Node | None, seen: Node | None, window: int) -> Node:
    """True where the positions of queries and keys are less than ``window`` apart, as (batch or 1, time, steps).

    Positions are (time,) or (batch, time), those of q and k where they are None.
    """
    rows, columns = (
        gx.arange(x.shape[-2]) if places is None else gx.cast(places, "int64") for x, places in ((q, at), (k, seen))
    )
    apart = gx.abs(gx.expand_dims(rows, -1) - gx.expand_dims(columns, -2)) < window
    return apart if apart.ndim == 3 else gx.expand_dims(apart, 0)


def both(a: Node | None, b: Node | None) -> Node | None:
    """True where both masks are; None says that all counts."""
    return b if a is None else a if b is None else gx.logical_and(a, b)


def joined(allowed: Node | None, bias: Node | None) -> Node | None:
    """One mask of both: the bias, and minus infinity where a query may not attend."""
    if allowed is None or bias is None:
        return allowed if bias is None else bias
    return gx.where(allowed, bias, -math.inf)


def _lowest(x: Node) -> float:
    """So low that nothing is left of it after softmax, but finite: a row of nothing else has no NaN."""
    return -0.7 * float(np.finfo(x.dtype.numpy).max)
