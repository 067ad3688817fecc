"""Scaled dot-product attention, with memory that grows with the length and not with its square."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.dims import Size, ceildiv
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.sweep import push
from graphc.ir.types import DType, Shape, TensorType, broadcast_shapes
from graphc.ops.base import (
    FLOATS,
    Array,
    BadCase,
    Case,
    Operand,
    Tangents,
    as_node,
    as_operands,
    explaining,
    op_class,
    require_dtype,
    sum_to,
    zeros_like,
)
from graphc.ops.compare import equal, greater_equal, isfinite, where
from graphc.ops.create import iota
from graphc.ops.exponential import exp
from graphc.ops.linear import matmul
from graphc.ops.logic import logical_and
from graphc.ops.movement import reshape, transpose
from graphc.ops.padding import pad
from graphc.ops.reduction import max, sum
from graphc.ops.scan import scan
from graphc.ops.slicing import take_range

f32 = DType.float32
BLOCK = 128
"""Rows of the query that are computed together: their scores stay in the cache."""
AT_ONCE_BYTES = 4 << 20
"""Scores of several heads or samples that are computed together: few and large products instead of many small ones."""


@op_class
class ScaledDotProductAttention(Op):
    """``softmax(query @ key^T * scale) @ value`` over the last axis of the scores, where the mask allows it.

    A bool mask says which keys a query may see; a floating one is added to the scores. ``causal`` lets query i see the
    keys 0 to i. A query that may see no key gives zeros.

    It is computed for a block of queries at a time, and so is its derivative, which computes the weights again:
    nothing of the size of all scores is ever in memory, unless a mask of that size is given.

    Shapes: query (..., n, d), key (..., m, d), value (..., m, v), mask (..., n, m) with sizes of 1 where it repeats;
        leading axes broadcast; the result is (..., n, v).
    Raises: ShapeError; DTypeError for operands that are not floating, or a mask of another type.
    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1; Rabe and Staats 2021,
        https://arxiv.org/abs/2112.05682
    """

    scale: float
    causal: bool = False

    operands = ("query", "key", "value", "mask")
    factors = ("query", "key", "value")
    composite = True

    def infer(self, *types: TensorType) -> TensorType:
        q, k, v, *masks = types
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
                raise ShapeError(f"the mask {mask} does not fit scores of shape {list(scores)}", remedy="reshape it")
        return TensorType(q.dtype, (*leading, q.shape[-2], v.shape[-1]))

    def reference(self, *args: Array) -> Array:
        q, k, v, *masks = args
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
        weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0)).astype(q.dtype)
        total = weights.sum(axis=-1, keepdims=True)
        return np.matmul(weights / np.where(total > 0, total, 1), v).astype(q.dtype)

    def decompose(self, *args: Node) -> Node:
        operands = _with_all_axes(args)
        if args[0].shape[-2] == 1:
            return reshape(self._one_row(*operands), self.infer(*(arg.type for arg in args)).shape)
        (result,) = _over_leading(self._rows, operands)
        return reshape(result, self.infer(*(arg.type for arg in args)).shape)

    def vjp(self, node: Node, cotangent: Node) -> Sequence[Node | None]:
        operands = _with_all_axes((*node.args, cotangent))
        found = iter(_over_leading(self._gradients, operands))
        return [
            reshape(sum_to(next(found), x.shape), arg.shape) if arg.dtype.is_float else None
            for x, arg in zip(operands, node.args, strict=False)
        ]

    def jvp(self, node: Node, tangents: Tangents) -> Node | None:
        plain = self.plain(*node.args)
        given = {arg: tangent for arg, tangent in zip(node.args, tangents, strict=True) if tangent is not None}
        return push((plain,), given).get(plain)

    def plain(self, *args: Node) -> Node:
        """The formula itself, with all scores at once."""
        q, k, v, *masks = args
        weights, total = _weights(*self._scores(q, k, 0, masks))
        return matmul(weights, v) / total

    def _scores(self, q: Node, k: Node, first: Node | int, masks: Sequence[Node]) -> tuple[Node, Node | None]:
        """The scores of queries, of which the first is number ``first``, and where they count."""
        scores = matmul(q, _turned(k)) * self.scale
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
        scores, allowed = rows._scores(q, k, 0, masks)
        if self.causal:  # the only query is the first
            first = equal(iota((k.shape[-2],), 0, "int64"), 0)
            allowed = first if allowed is None else logical_and(allowed, first)
        weights, total = _weights(scores, allowed)
        return matmul(weights / total, v)

    # one matrix of queries, keys and values

    def _rows(self, q: Node, k: Node, v: Node, *masks: Node) -> list[Node]:
        def block(first: Node | int, queries: Node, *mask: Node) -> list[Node]:
            weights, total = _weights(*self._scores(queries, k, first, mask))
            return [matmul(weights, v) / total]

        return _over_blocks(block, q.shape[-2], [q, *masks], [])[1]

    def _gradients(self, q: Node, k: Node, v: Node, *rest: Node) -> list[Node]:
        """Cotangents of q, k, v and a floating mask."""
        *masks, g = rest

        def block(first: Node | int, dk: Node, dv: Node, queries: Node, gradient: Node, *mask: Node) -> list[Node]:
            weights, total = _weights(*self._scores(queries, k, first, mask))
            p = weights / total
            dp = matmul(gradient, _turned(v))
            ds = p * (dp - sum(p * dp, axis=-1, keepdims=True))
            dq = matmul(ds, k) * self.scale
            dk = dk + matmul(_turned(ds), queries) * self.scale
            dv = dv + matmul(_turned(p), gradient)
            biases = [ds for m in mask if m.dtype.is_float]
            return [dk, dv, dq, *biases]

        carried, (dq, *biases) = _over_blocks(block, q.shape[-2], [q, g, *masks], [zeros_like(k), zeros_like(v)])
        return [dq, *carried, *biases]

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Leading axes that repeat, masks of both kinds, one key, none, more queries than a block."""

        def of(*shapes: Shape, causal: bool = False, mask: Array | None = None) -> Case:
            operands = tuple(TensorType(f32, shape) for shape in shapes)
            extra = () if mask is None else (mask,)
            return Case(cls(1 / math.sqrt(int(shapes[0][-1])), causal), (*operands, *extra))  # pyright: ignore[reportArgumentType]

        seen = np.array([[True, False, True], [False, False, False]])
        bias = np.array([[[0.0, -1.0, 2.0]], [[-np.inf, 0.5, 0.0]]], np.float32)
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
        )

    @classmethod
    def bad_cases(cls) -> Sequence[BadCase]:
        """Widths and lengths that differ, masks that do not fit, integers."""
        q, k = TensorType(f32, (3, 4)), TensorType(f32, (5, 4))
        return (
            BadCase(cls(1.0), (q, TensorType(f32, (5, 3)), k), ShapeError, ("4 features, a key 3", "one width")),
            BadCase(cls(1.0), (q, k, TensorType(f32, (4, 4))), ShapeError, ("5 keys and 4 values",)),
            BadCase(cls(1.0), (q, k, k, TensorType(DType.bool, (5, 3))), ShapeError, ("the mask", "[3, 5]")),
            BadCase(cls(1.0), (q, k, k, TensorType(DType.int32, (3, 5))), DTypeError, ("the mask", "bool")),
            BadCase(cls(1.0), (TensorType(DType.int32, (3, 4)), k, k), DTypeError, ("int32",)),
            BadCase(cls(1.0), (TensorType(f32, (4,)), k, k), ShapeError, ("no axes of length and width",)),
        )


def _weights(values: Node, allowed: Node | None) -> tuple[Node, Node]:
    """Weights that are not yet divided by their sums, and these sums, 1 where no key counts."""
    if allowed is not None:
        values = where(allowed, values, -math.inf)
    largest = max(values, axis=-1, keepdims=True)
    weights = exp(values - where(isfinite(largest), largest, 0.0))
    total = sum(weights, axis=-1, keepdims=True)
    return weights, where(total > 0, total, 1.0)


def _with_all_axes(args: Sequence[Node]) -> list[Node]:
    rank = builtins.max(arg.ndim for arg in args)
    return [reshape(arg, (*[1] * (rank - arg.ndim), *arg.shape)) for arg in args]


def _over_leading(fn: Callable[..., list[Node]], operands: Sequence[Node]) -> list[Node]:
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
        return [reshape(y, (1, *y.shape)) for y in _over_leading(fn, inner)]
    moving = [x for x, size in zip(operands, sizes, strict=True) if size != 1]

    def step(carry: object, elements: tuple[Node, ...]) -> tuple[object, tuple[Node, ...]]:
        found = iter(elements)
        mine = [x if size == 1 else next(found) for x, size in zip(inner, sizes, strict=True)]
        return carry, tuple(_over_leading(fn, mine))

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


def _turned(x: Node) -> Node:
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _over_blocks(
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


def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    mask: Operand | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Node:
    """Attention: for each query the mean of the values, weighted by how well their keys fit.

    Args:
        query, key, value: floating, of one element type.
        mask: bool, True where a query may see a key, or floating, added to the scores.
        causal: whether query i sees the keys 0 to i only.
        scale: what scores are multiplied by; 1 / sqrt(d) by default.

    Shapes: query (..., n, d), key (..., m, d), value (..., m, v), mask (..., n, m); leading axes broadcast; the result
        is (..., n, v). With fewer heads of keys than of queries (axis -3), each serves several heads in a row.
    Raises: ShapeError; DTypeError.
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
        op = ScaledDotProductAttention(_scale(q, scale), bool(causal))
        heads = _groups(q, k, v)
        if heads is None:
            return apply(op, q, k, v, *given)
        groups, each = heads
        q = reshape(q, (*q.shape[:-3], groups, each, *q.shape[-2:]))
        k, v = (reshape(x, (*x.shape[:-2], 1, *x.shape[-2:])) for x in (k, v))
        given = [_grouped_mask(m, groups, each) for m in given]
        result = apply(op, q, k, v, *given)
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
