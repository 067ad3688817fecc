"""Scaled dot-product attention, with memory that grows with the length and not with its square."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from graphc.errors import AxisError, DTypeError, ShapeError
from graphc.ir.node import Node, apply
from graphc.ir.sweep import pull, push
from graphc.ir.types import DType, Shape, TensorType
from graphc.ops.attending import BLOCK, Attending, over_blocks, over_leading, weights, with_all_axes
from graphc.ops.attention_gradients import AttentionGradients
from graphc.ops.base import (
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    as_operands,
    explaining,
    op_class,
    sum_to,
)
from graphc.ops.compare import equal
from graphc.ops.create import iota
from graphc.ops.linear import matmul
from graphc.ops.logic import logical_and
from graphc.ops.movement import reshape

T = TypeVar("T")
f32 = DType.float32


@op_class
class ScaledDotProductAttention(Attending):
    """``dropout(softmax(query @ key^T * scale)) @ value`` over the last axis of the scores, where the mask allows it.

    A bool mask says which keys a query may see; a floating one is added to the scores. ``causal`` lets query i see the
    keys 0 to i. A query that may see no key gives zeros. The weights that fall are those of ``dropout(weights, rate,
    seed, step, stream)``, of all weights in row-major order.

    A backend that takes it whole computes it block by block, and so its derivative, which computes the weights and
    the random bits again: nothing of the size of all scores is ever in memory, unless a mask of that size is given.
    Others do so for a block of queries at a time, but not where weights fall.

    Shapes: query (..., n, d), key (..., m, d), value (..., m, v), mask (..., n, m) with sizes of 1 where it repeats;
        leading axes broadcast; where rate is not 0, scalars seed and step follow; the result is (..., n, v).
    Raises: ShapeError; DTypeError for operands that are not floating, or a mask of another type; AxisError for a rate
        outside [0, 1).
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1; Rabe and Staats 2021,
        https://arxiv.org/abs/2112.05682; Dao et al. 2022, https://arxiv.org/abs/2205.14135
    """

    operands = ("query", "key", "value", "mask", "seed", "step")
    factors = ("query", "key", "value")

    def infer(self, *types: TensorType) -> TensorType:
        operands, masks, seeds = self.parts(types)
        return self.result(operands, masks, seeds)

    def parts(self, args: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """Query, key and value; perhaps a mask; perhaps seed and step."""
        end = len(args) - (2 if self.rate else 0)
        return args[:3], args[3:end], args[end:]

    def in_parts(self, *args: Node) -> bool:
        """One query is a row of scores; more leading axes than three are taken apart."""
        return (args[0].shape[-2] == 1 and not self.rate) or builtins.max(arg.ndim for arg in args) > 5

    def reference(self, *args: Array) -> Array:
        (q, k, v), masks, seeds = self.parts(args)
        scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(self.scale)
        allowed = np.ones(scores.shape[-2:], bool)
        if self.causal:
            allowed = np.tril(allowed)
        for mask in masks:
            if mask.dtype == np.bool_:
                allowed = np.logical_and(allowed, mask)
            else:
                scores = scores + mask
        scores = np.where(allowed, scores, -np.inf)
        if scores.shape[-1] == 0:
            return np.zeros((*scores.shape[:-1], v.shape[-1]), q.dtype)
        largest = scores.max(axis=-1, keepdims=True)
        found = np.exp(scores - np.where(np.isfinite(largest), largest, 0)).astype(q.dtype)
        total = found.sum(axis=-1, keepdims=True)
        found = found / np.where(total > 0, total, 1)
        if seeds:
            leading = np.broadcast_shapes(found.shape[:-2], v.shape[:-2])
            found = self.dropout.reference(np.broadcast_to(found, (*leading, *found.shape[-2:])), *seeds)
        return np.matmul(found, v).astype(q.dtype)

    def decompose(self, *args: Node) -> Node:
        given, masks, seeds = self.parts(args)
        shape = self.infer(*(arg.type for arg in args)).shape
        if seeds:
            return reshape(self.plain(*args), shape)
        operands = with_all_axes((*given, *masks))
        if given[0].shape[-2] == 1:
            return reshape(self._one_row(*operands), shape)
        (result,) = over_leading(self._rows, operands)
        return reshape(result, shape)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        given, masks, seeds = self.parts(node.args)
        op = AttentionGradients(self.scale, self.causal, self.rate, self.stream)
        whole = apply(op, *given, cotangent, *masks, *seeds)
        found: list[Node | None] = []
        leading = node.shape[:-2]
        for part, arg in zip(op.pieces(whole, leading, given), given, strict=True):
            found.append(reshape(sum_to(part, (*(1,) * (part.ndim - arg.ndim), *arg.shape)), arg.shape))
        return [*found, *(self._pull_mask(node, mask, cotangent) for mask in masks), *(None for _ in seeds)]

    def _pull_mask(self, node: Node, mask: Node, cotangent: Node) -> Node | None:
        """The cotangent of a mask: as large as the mask, if that is of all scores."""
        if not mask.dtype.is_float:
            return None
        given, masks, seeds = self.parts(node.args)
        if seeds:
            return pull((self.plain(*node.args),), (cotangent,), [mask])[mask]
        operands = with_all_axes((*given, *masks, cotangent))
        found = over_leading(self.gradients, operands)[-1]
        return reshape(sum_to(found, operands[3].shape), mask.shape)

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        plain = self.plain(*node.args)
        given = {arg: tangent for arg, tangent in zip(node.args, tangents, strict=True) if tangent is not None}
        return push((plain,), given).get(plain)

    def plain(self, *args: Node) -> Node:
        """The formula itself, with all scores at once."""
        (q, k, v), masks, seeds = self.parts(args)
        if not seeds:
            found, total = weights(*self.scores(q, k, 0, masks))
            return matmul(found, v) / total
        return matmul(apply(self.dropout, self.normalized(q, k, v, masks), *seeds), v)

    def _one_row(self, q: Node, k: Node, v: Node, *masks: Node) -> Node:
        """Each head has one query, as a token that is being written: all scores fit into one row.

        Queries that share their keys are the rows of one product.
        """
        shared = [x.shape[-3] == 1 for x in (k, v)] if q.ndim > 2 else []
        together = bool(shared) and all(shared) and q.shape[-3] != 1
        if together:
            q = reshape(q, (*q.shape[:-3], q.shape[-3], q.shape[-1]))
            k, v = (reshape(x, (*x.shape[:-3], *x.shape[-2:])) for x in (k, v))
            masks = tuple(reshape(mask, (*mask.shape[:-2], mask.shape[-1])) for mask in masks)
        rows = ScaledDotProductAttention(self.scale)
        scores, allowed = rows.scores(q, k, 0, masks)
        if self.causal:  # the only query is the first
            first = equal(iota((k.shape[-2],), 0, "int64"), 0)
            allowed = first if allowed is None else logical_and(allowed, first)
        found, total = weights(scores, allowed)
        return matmul(found / total, v)

    def _rows(self, q: Node, k: Node, v: Node, *masks: Node) -> list[Node]:
        def block(first: Node | int, queries: Node, *mask: Node) -> list[Node]:
            found, total = weights(*self.scores(queries, k, first, mask))
            return [matmul(found, v) / total]

        return over_blocks(block, q.shape[-2], [q, *masks], [])[1]

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Leading axes that repeat, masks of both kinds, one key, none, more queries than a block, dropout."""

        def of(*shapes: Shape, causal: bool = False, mask: Array | None = None, rate: float = 0.0) -> Case:
            operands = tuple(TensorType(f32, shape) for shape in shapes)
            extra = (*(() if mask is None else (mask,)), *((seed, seed) if rate else ()))
            return Case(cls(1 / math.sqrt(int(shapes[0][-1])), causal, rate, 2), (*operands, *extra))  # pyright: ignore[reportArgumentType]

        seen = np.array([[True, False, True], [False, False, False]])
        bias = np.array([[[0.0, -1.0, 2.0]], [[-np.inf, 0.5, 0.0]]], np.float32)
        seed = TensorType(DType.uint32, ())
        return (
            of((2, 3, 4), (2, 5, 4), (2, 5, 6)),
            of((2, 2, 3, 4), (2, 1, 5, 4), (1, 2, 5, 6), causal=True),
            of((2, 4), (3, 4), (3, 4), mask=seen),
            of((2, 2, 4), (2, 3, 4), (2, 3, 1), mask=bias),
            of((1, 4), (1, 4), (1, 2), causal=True),
            of((2, 3, 1, 4), (2, 1, 5, 4), (2, 1, 5, 6), mask=np.array([[[[True, False, True, True, False]]]] * 2)),
            of((2, 1, 4), (2, 3, 4), (1, 3, 4), causal=True),
            of((2, 0, 4), (2, 3, 4), (2, 3, 4)),
            of((3, 4), (0, 4), (0, 2)),
            of((BLOCK + 3, 2), (5, 2), (5, 3), causal=True),
            of((2, 3, 4), (2, 5, 4), (1, 5, 6), rate=0.3),
            of((2, 2, 4), (3, 4), (3, 4), mask=seen, rate=0.3),
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Widths and lengths that differ, masks that do not fit, integers, a rate and a step that cannot be."""
        q, k = TensorType(f32, (3, 4)), TensorType(f32, (5, 4))
        seed = TensorType(DType.uint32, ())
        return (
            BadCase(cls(1.0), (q, TensorType(f32, (5, 3)), k), ShapeError, ("4 features, a key 3", "one width")),
            BadCase(cls(1.0), (q, k, TensorType(f32, (4, 4))), ShapeError, ("5 keys and 4 values",)),
            BadCase(cls(1.0), (q, k, k, TensorType(DType.bool, (5, 3))), ShapeError, ("the mask", "[3, 5]")),
            BadCase(cls(1.0), (q, k, k, TensorType(DType.int32, (3, 5))), DTypeError, ("the mask", "bool")),
            BadCase(cls(1.0), (TensorType(DType.int32, (3, 4)), k, k), DTypeError, ("int32",)),
            BadCase(cls(1.0), (TensorType(f32, (4,)), k, k), ShapeError, ("no axes of length and width",)),
            BadCase(cls(1.0, rate=1.0), (q, k, k, seed, seed), AxisError, ("rate 1.0", "[0, 1)")),
            BadCase(cls(1.0, rate=0.1), (q, k, k, seed, q), DTypeError, ("step", "float32")),
        )


def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    mask: Operand | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: Operand = 0,
    step: Operand = 0,
    stream: int = 0,
) -> Node:
    """Attention: for each query the mean of the values, weighted by how well their keys fit.

    Args:
        query, key, value: floating, of one element type.
        mask: bool, True where a query may see a key, or floating, added to the scores.
        causal: whether query i sees the keys 0 to i only.
        scale: what scores are multiplied by; 1 / sqrt(d) by default.
        dropout: the part of the weights that falls; the others are divided by what is left.
        seed, step, stream: which weights fall: as of ``gx.dropout`` of all weights (..., n, m).

    Shapes: query (..., n, d), key (..., m, d), value (..., m, v), mask (..., n, m); leading axes broadcast; the result
        is (..., n, v). With fewer heads of keys than of queries (axis -3), each serves several heads in a row.
    Raises: ShapeError; DTypeError; AxisError for a rate outside [0, 1).
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1; grouped heads: Ainslie et al. 2023,
        https://arxiv.org/abs/2305.13245

    >>> import graphc as gx
    >>> q, k = gx.placeholder("q", ("batch", 8, "n", 64)), gx.placeholder("k", ("batch", 8, "m", 64))
    >>> gx.scaled_dot_product_attention(q, k, k)
    <scaled_dot_product_attention: f32[batch, 8, n, 64]>
    """
    with explaining("scaled_dot_product_attention"):
        q, k, v = as_operands(query, key, value)
        given = [] if mask is None else [as_node(mask)]
        op = ScaledDotProductAttention(_scale(q, scale), bool(causal), float(dropout), stream if dropout else 0)
        seeds = [as_node(seed, DType.uint32), as_node(step, DType.uint32)] if dropout else []
        heads = _groups(q, k, v)
        if heads is None:
            return apply(op, q, k, v, *given, *seeds)
        groups, each = heads
        q = reshape(q, (*q.shape[:-3], groups, each, *q.shape[-2:]))
        k, v = (reshape(x, (*x.shape[:-2], 1, *x.shape[-2:])) for x in (k, v))
        given = [_grouped_mask(m, groups, each) for m in given]
        result = apply(op, q, k, v, *given, *seeds)
        return reshape(result, (*result.shape[:-4], groups * each, *result.shape[-2:]))


def _scale(q: Node, scale: float | None) -> float:
    if scale is not None:
        return float(scale)
    width = q.shape[-1] if q.shape else 1
    if not isinstance(width, int):
        raise ShapeError(f"the width {width} is not known", remedy="give scale=")
    return 1 / math.sqrt(builtins.max(width, 1))


def _groups(q: Node, k: Node, v: Node) -> tuple[int, int] | None:
    """The number of heads of keys, and how many heads of queries each serves, where they differ."""
    if builtins.min(q.ndim, k.ndim, v.ndim) < 3 or k.shape[-3] != v.shape[-3]:
        return None
    heads, groups = q.shape[-3], k.shape[-3]
    if not isinstance(heads, int) or not isinstance(groups, int) or groups in (1, heads) or heads == 1:
        return None
    if heads % groups:
        raise ShapeError(f"{heads} heads of queries and {groups} of keys", remedy="make one a multiple of the other")
    return groups, heads // groups


def _grouped_mask(mask: Node, groups: int, each: int) -> Node:
    if mask.ndim < 3 or mask.shape[-3] == 1:
        return mask if mask.ndim < 3 else reshape(mask, (*mask.shape[:-2], 1, *mask.shape[-2:]))
    return reshape(mask, (*mask.shape[:-3], groups, each, *mask.shape[-2:]))


__all__ = ["ScaledDotProductAttention", "scaled_dot_product_attention"]
