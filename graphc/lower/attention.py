"""Attention as one item of a plan: where the matrices of its heads lie.

Heads are rarely an axis of their own in memory: they are parts of the rows that a projection made. So operands are read
as they lie, 16-bit floats too; where results lie stands in :mod:`graphc.lower.heads`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.dims import Size, least
from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.lower.heads import HeadsInside, distances_of
from graphc.lower.index import strides_of
from graphc.lower.plan import AttentionItem, Lying
from graphc.lower.views import distances, is_most_of, is_view
from graphc.ops.attention_gradients import AttentionGradients

LEADING = 3
"""So many axes before those of matrices an item has."""


Find = Callable[[Node], Node]


def attention_item(
    node: Node, dense: Find, free: Callable[[Node], bool], key_of: Find, in_float32: Find
) -> tuple[AttentionItem, list[Node]]:
    """The item, whose buffers are positions in a list of keys, and that list; the last one is the result's.

    Args:
        node: the attention or the gradients.
        dense: gives the key of a dense copy of an operand.
        free: whether a node has no buffer.
        key_of: gives the key of a node's buffer.
        in_float32: gives the key of a copy of a node of 16-bit floats as they lie.
    """
    assert isinstance(node.op, HeadsInside)
    op = node.op.op
    if isinstance(op, AttentionGradients):
        operands, masks, cotangent, seeds = op.parts(node.args)
    else:
        (operands, masks, seeds), cotangent = op.parts(node.args), None
    q, k, v = operands
    leading = _leading(node) if cotangent is None else cotangent.shape[:-2]
    keys: list[Node] = []

    def numbered(key: Node) -> int:
        keys.append(key)
        return len(keys) - 1

    def lying(x: Node, is_mask: bool = False) -> Lying:
        found = None if free(x) else _strides(x, is_mask)
        if found is None or free(found[0]):
            return _lying(numbered(dense(x)), x, strides_of(x.shape), 0)
        source, strides, offset = found
        key = key_of(source) if source.dtype is x.dtype else in_float32(source)
        return _lying(numbered(key), x, strides, offset)

    query, key, value = (lying(x) for x in operands)
    mask = lying(masks[0], True) if masks else None
    pulled = None if cotangent is None else lying(cotangent)
    seed, step = [numbered(dense(x) if free(x) or is_view(x) else key_of(x)) for x in seeds] or (None, None)
    c = numbered(key_of(node))
    width = node.dtype.itemsize
    if isinstance(op, AttentionGradients):
        gradients = node.op.gradients(node.args)
        places = [gradients.place(number) for number in range(len(gradients.shapes))]
    else:
        places = [(0, distances_of(node.shape, True))]
    results = tuple(Lying(c, start, (*_padded(strides[:-2], 0), *strides[-2:]), width) for start, strides in places)
    adds = bool(masks) and masks[0].dtype.is_float
    item = AttentionItem(
        op, node.dtype, _padded(leading, 1), q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1],
        query, key, value, mask, pulled, seed, step, c, results, op.scale, op.causal, adds, op.rate, op.stream,
    )  # fmt: skip
    return item, keys


def _leading(node: Node) -> Shape:
    """The axes before matrices, of a result with its heads inside."""
    return node.shape[:-2] if node.ndim < 3 else (*node.shape[:-3], node.shape[-2])


def _padded(sizes: Sequence[Size], filler: Size) -> tuple[Size, Size, Size]:
    first, second, third = (*(filler,) * (LEADING - len(sizes)), *sizes)
    return first, second, third


def _lying(buffer: int, x: Node, strides: Sequence[Size], offset: Size) -> Lying:
    """Of an operand, which repeats along axes of size 1."""
    moving = [0 if size == 1 else stride for size, stride in zip(x.shape, strides, strict=True)]
    return Lying(buffer, offset, (*(0,) * (LEADING + 2 - x.ndim), *moving), x.dtype.itemsize)


def _strides(node: Node, is_mask: bool) -> tuple[Node, list[Size], Size] | None:
    """The node with the buffer, the distances along each axis and the offset; None where it must be copied.

    What is converted on the way is converted as a whole, unless that is much more than is read of it.
    """
    lying = distances(node, through_conversions=not is_mask)
    if lying is None or any(least(distance) < 0 for distance in lying[1]):
        return None
    scattered = not is_mask and lying[1][-1] != 1 and node.shape[-1] != 1
    return lying if not scattered and (lying[0].dtype is node.dtype or is_most_of(node, lying[0])) else None
