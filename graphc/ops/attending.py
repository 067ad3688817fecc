"""How attention is computed where no backend takes it whole: blocks of queries, a few or many heads at a time."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Size, ceildiv
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import DType, TensorType, broadcast_shapes
from graphc.ops.base import FLOATS, require_dtype, zeros_like
from graphc.ops.compare import greater_equal, isfinite, where
from graphc.ops.create import iota
from graphc.ops.exponential import exp
from graphc.ops.linear import matmul
from graphc.ops.logic import logical_and
from graphc.ops.movement import broadcast_to, reshape, transpose
from graphc.ops.padding import pad
from graphc.ops.random import Dropout
from graphc.ops.reduction import max, sum
from graphc.ops.scan import scan
from graphc.ops.slicing import take_range

BLOCK = 128
"""Rows of the query that are computed together: their scores stay in the cache."""
AT_ONCE_BYTES = 4 << 20
"""Scores of several heads or samples that are computed together: few and large products instead of many small ones."""


@dataclass(frozen=True, eq=False, repr=False)
class Attending(Op):
    """What attention and its gradients have in common.

    Attributes:
        scale: what products of queries and keys are multiplied by.
        causal: whether query i sees the keys 0 to i only.
        rate: the part of the weights that falls; where it is not 0, a seed and a step follow the other operands.
        stream: of the random bits that say which weights fall.
    """

    scale: float
    causal: bool = False
    rate: float = 0.0
    stream: int = 0

    composite = True

    @property
    def dropout(self) -> Dropout:
        """Which weights fall: numbered in row-major order, those of all heads."""
        return Dropout(self.rate, self.stream)

    def result(
        self, types: Sequence[TensorType], masks: Sequence[TensorType], seeds: Sequence[TensorType]
    ) -> TensorType:
        """The type of attention's result."""
        q, k, v = types
        for given in (q, k, v):
            require_dtype(given, FLOATS)
            if given.rank < 2:
                raise ShapeError(f"{given} has no axes of length and width", remedy="give (..., length, width)")
        if not q.dtype is k.dtype is v.dtype:
            raise DTypeError(f"query, key and value are {q}, {k} and {v}", remedy="convert them with gx.cast")
        if q.shape[-1] != k.shape[-1]:
            raise ShapeError(
                f"a query has {q.shape[-1]} features, a key {k.shape[-1]}", remedy="project both to one width"
            )
        if k.shape[-2] != v.shape[-2]:
            raise ShapeError(
                f"there are {k.shape[-2]} keys and {v.shape[-2]} values", remedy="give a value for each key"
            )
        leading = broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        for mask in masks:
            if mask.dtype is not DType.bool and mask.dtype is not q.dtype:
                raise DTypeError(f"the mask is {mask}", remedy=f"make it bool, or {q.dtype} to be added to the scores")
            scores = (*leading, q.shape[-2], k.shape[-2])
            tail = scores[len(scores) - mask.rank :]
            fits = mask.rank <= len(scores) and all(
                size in (1, full) for size, full in zip(mask.shape, tail, strict=True)
            )
            if not fits:
                raise ShapeError(
                    f"the mask {mask} does not fit scores of shape {list(scores)}",
                    remedy="give a mask (..., queries, keys), with sizes of 1 where it repeats",
                )
        if self.rate or seeds:
            self.dropout.infer(q, *seeds)
        return TensorType(q.dtype, (*leading, q.shape[-2], v.shape[-1]))

    def scores(self, q: Node, k: Node, first: Node | int, masks: Sequence[Node]) -> tuple[Node, Node | None]:
        """The scores of queries, of which the first is number ``first``, and where they count."""
        scores = matmul(q, turned(k)) * self.scale
        allowed: Node | None = None
        if self.causal:
            shape = scores.shape[-2:]
            rows = iota(shape, 0, "int64") + first
            allowed = greater_equal(rows, iota(shape, 1, "int64"))
        for mask in masks:
            if mask.dtype is DType.bool:
                allowed = mask if allowed is None else logical_and(allowed, mask)
            else:
                scores = scores + mask
        return scores, allowed

    def normalized(self, q: Node, k: Node, v: Node, masks: Sequence[Node]) -> Node:
        """All weights at once, also those of heads that differ in their values only."""
        scores, allowed = self.scores(q, k, 0, masks)
        values, total = weights(scores, allowed)
        leading = broadcast_shapes(values.shape[:-2], v.shape[:-2])
        return broadcast_to(values / total, (*leading, *values.shape[-2:]))

    def gradients(self, q: Node, k: Node, v: Node, *rest: Node) -> list[Node]:
        """Cotangents of q, k, v and a floating mask, in the matrices of a few heads."""
        *masks, g = rest

        def block(first: Node | int, dk: Node, dv: Node, queries: Node, gradient: Node, *mask: Node) -> list[Node]:
            values, total = weights(*self.scores(queries, k, first, mask))
            p = values / total
            dp = matmul(gradient, turned(v))
            ds = p * (dp - sum(p * dp, axis=-1, keepdims=True))
            dq = matmul(ds, k) * self.scale
            dk = dk + matmul(turned(ds), queries) * self.scale
            dv = dv + matmul(turned(p), gradient)
            biases = [ds for m in mask if m.dtype.is_float]
            return [dk, dv, dq, *biases]

        carried, (dq, *biases) = over_blocks(block, q.shape[-2], [q, g, *masks], [zeros_like(k), zeros_like(v)])
        return [dq, *carried, *biases]

    def gradients_at_once(self, operands: Sequence[Node], masks: Sequence[Node], g: Node, *seeds: Node) -> list[Node]:
        """Cotangents of q, k, v and a floating mask, with all weights and those that fell."""
        q, k, v = operands
        p = self.normalized(q, k, v, masks)
        dv = matmul(turned(apply(self.dropout, p, *seeds)), g)
        dp = apply(self.dropout, matmul(g, turned(v)), *seeds)
        ds = p * (dp - sum(p * dp, axis=-1, keepdims=True))
        biases = [ds for m in masks if m.dtype.is_float]
        return [matmul(ds, k) * self.scale, matmul(turned(ds), q) * self.scale, dv, *biases]


def weights(values: Node, allowed: Node | None) -> tuple[Node, Node]:
    """Weights that are not yet divided by their sums, and these sums, 1 where no key counts."""
    if allowed is not None:
        values = where(allowed, values, -math.inf)
    largest = max(values, axis=-1, keepdims=True)
    unscaled = exp(values - where(isfinite(largest), largest, 0.0))
    total = sum(unscaled, axis=-1, keepdims=True)
    return unscaled, where(total > 0, total, 1.0)


def with_all_axes(args: Sequence[Node]) -> list[Node]:
    """All with as many axes."""
    rank = builtins.max(arg.ndim for arg in args)
    return [reshape(arg, (*[1] * (rank - arg.ndim), *arg.shape)) for arg in args]


def over_leading(fn: Callable[..., list[Node]], operands: Sequence[Node]) -> list[Node]:
    """``fn`` of the matrices in the last two axes, in a loop over each axis before them.

    An operand whose size there is 1 is the same for all steps. The innermost axes whose scores are small together are
    left to ``fn``, which takes them as a batch of matrices.
    """
    if operands[0].ndim == 2 or _at_once(operands):
        return fn(*operands)
    sizes = [x.shape[0] for x in operands]
    length = next((size for size in sizes if size != 1), 1)
    inner = [reshape(x, x.shape[1:]) if size == 1 else x for x, size in zip(operands, sizes, strict=True)]
    if length == 1:
        return [reshape(y, (1, *y.shape)) for y in over_leading(fn, inner)]
    moving = [x for x, size in zip(operands, sizes, strict=True) if size != 1]

    def step(carry: object, elements: tuple[Node, ...]) -> tuple[object, tuple[Node, ...]]:
        found = iter(elements)
        mine = [x if size == 1 else next(found) for x, size in zip(inner, sizes, strict=True)]
        return carry, tuple(over_leading(fn, mine))

    return list(scan(step, (), tuple(moving), length=length, whole=True)[1])


def _at_once(operands: Sequence[Node]) -> bool:
    """Are the scores of one block of rows, and small?"""
    q, k, *_ = operands
    leading = zip(*(x.shape[:-2] for x in operands), strict=True)
    largest: list[Size] = [builtins.max(sizes, key=_known) for sizes in leading]
    sizes = (*largest, q.shape[-2], k.shape[-2])
    if not all(isinstance(size, int) for size in sizes) or _known(q.shape[-2]) > BLOCK:
        return False
    return math.prod(map(_known, sizes)) * q.dtype.itemsize <= AT_ONCE_BYTES


def _known(size: Size) -> int:
    """A size that may be compared; one that is not known is large."""
    return size if isinstance(size, int) else AT_ONCE_BYTES


def turned(x: Node) -> Node:
    """The transposes of the matrices in the last two axes."""
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def over_blocks(
    fn: Callable[..., list[Node]], rows: Size, sequences: Sequence[Node], carries: Sequence[Node]
) -> tuple[list[Node], list[Node]]:
    """``fn(first row, *carries, *blocks)`` over blocks of rows: the last carries and the rows of the results.

    A sequence with one row is the same for all blocks. What is missing in the last block is zeros, which count for
    nothing in a carry as long as cotangents are among the sequences.
    """
    count = len(carries)
    if isinstance(rows, int) and rows <= BLOCK:
        out = fn(0, *carries, *sequences)
        return out[:count], out[count:]
    blocks = ceildiv(rows, BLOCK)
    whole = [x.shape[0] == rows for x in sequences]
    given = [_in_blocks(x, blocks) for x, is_whole in zip(sequences, whole, strict=True) if is_whole]
    firsts = iota((blocks,), 0, "int64") * BLOCK

    def step(carry: tuple[Node, ...], elements: tuple[Node, ...]) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        first, *mine = elements
        found = iter(mine)
        out = fn(first, *carry, *(next(found) if w else x for x, w in zip(sequences, whole, strict=True)))
        return tuple(out[:count]), tuple(out[count:])

    last, results = scan(step, tuple(carries), (firsts, *given), whole=True)
    joined = [reshape(y, (blocks * BLOCK, *y.shape[2:])) for y in results]
    return list(last), [take_range(y, 0, 0, rows) for y in joined]


def _in_blocks(x: Node, blocks: Size) -> Node:
    missing = blocks * BLOCK - x.shape[0]
    if missing != 0:
        x = pad(x, (0, 0), (missing, 0))
    return reshape(x, (blocks, BLOCK, *x.shape[1:]))


__all__: list[str] = []
