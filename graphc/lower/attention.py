"""Attention as one item of a plan: where the matrices of its heads lie.

Heads are rarely an axis of their own in memory: they are parts of the rows that a projection made, and their results
are put side by side again. So operands are read as they lie, and results are written with the queries' axis in front
of the heads', which makes the transposition behind them a view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir.dims import Size, least, product
from graphc.ir.graph import Graph
from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import Shape, TensorType
from graphc.lower.index import strides_of
from graphc.lower.plan import AttentionItem, Lying
from graphc.lower.views import distances, is_view
from graphc.ops.attention import ScaledDotProductAttention
from graphc.ops.attention_gradients import AttentionGradients
from graphc.ops.movement import Reshape, reshape, transpose
from graphc.ops.slicing import Slice

LEADING = 3
"""So many axes before those of matrices an item has."""


class HeadsInside(Op):
    """Attention or its gradients, with the axis before the last two of each result inside that of its rows.

    Attributes:
        op: what is computed.
        inside: whether gradients are so, too; not where somebody reads all of them as one row.
    """

    name = "heads_inside"
    attributes = ("op", "inside")
    op: ScaledDotProductAttention | AttentionGradients
    inside: bool

    def __init__(self, op: ScaledDotProductAttention | AttentionGradients, inside: bool = True) -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "inside", inside)

    @property
    def key(self) -> tuple[Any, ...]:
        return (HeadsInside, self.op.key, self.inside)

    def infer(self, *types: TensorType) -> TensorType:
        found = self.op.infer(*types)
        if isinstance(self.op, AttentionGradients):
            return found
        return TensorType(found.dtype, _inside(found.shape))


def _inside(shape: Shape) -> Shape:
    """With the heads inside the rows."""
    return shape if len(shape) < 3 else (*shape[:-3], shape[-2], shape[-3], shape[-1])


def _outside(x: Node) -> Node:
    """With the heads in front of the rows again."""
    last = x.ndim - 1
    return x if x.ndim < 3 else transpose(x, (*range(last - 2), last - 1, last - 2, last))


def put_heads_inside(graph: Graph) -> Graph:
    """The graph with attention as items compute it."""
    if not any(isinstance(node.op, ScaledDotProductAttention | AttentionGradients) for node in graph.nodes):
        return graph
    roots = set(graph.roots)
    turned: dict[Node, Node] = {}  # of a row of elements that was sliced out: the same with its axes

    def replace(node: Node, args: tuple[Node, ...]) -> Node | None:
        op = node.op
        if isinstance(op, ScaledDotProductAttention):
            return _outside(apply(HeadsInside(op), *args))
        if isinstance(op, AttentionGradients):
            users = graph.users[id(node)]
            apart = all(isinstance(user.op, Slice) and _piece_of(user.op, node) is not None for user in users)
            return apply(HeadsInside(op, apart and node not in roots), *args)
        if isinstance(op, Slice) and isinstance(args[0].op, HeadsInside) and args[0].op.inside:
            return _piece(op, node.args[0], args[0], turned)
        if isinstance(op, Reshape) and args[0] in turned:
            return reshape(turned[args[0]], node.shape)
        return None

    return graph.rebuild(replace)


def _piece_of(op: Slice, whole: Node) -> Shape | None:
    """The shape of the gradient that a slice takes out of a row of all three, if it takes one."""
    assert isinstance(whole.op, AttentionGradients)
    operands, _, g, _ = whole.op.parts(whole.args)
    start: Size = 0
    for shape in whole.op.shapes(g.shape[:-2], [x.shape for x in operands]):
        if op.starts[0] == start and op.stops[0] == start + product(shape) and op.steps[0] == 1:
            return shape
        start = start + product(shape)
    return None


def _piece(op: Slice, before: Node, whole: Node, turned: dict[Node, Node]) -> Node:
    """One of the three gradients, as a row of elements."""
    shape = _piece_of(op, before)
    assert shape is not None
    found = _outside(reshape(apply(op, whole), _inside(shape)))
    flat = reshape(found, (product(shape),))
    if flat is not found:
        turned[flat] = found
    return flat


Find = Callable[[Node], Node]


def attention_item(
    node: Node, dense: Find, free: Callable[[Node], bool], key_of: Find
) -> tuple[AttentionItem, list[Node]]:
    """The item, whose buffers are positions in a list of keys, and that list; the last one is the result's.

    Args:
        node: the attention or the gradients.
        dense: gives the key of a dense copy of an operand.
        free: whether a node has no buffer.
        key_of: gives the key of a node's buffer.
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
        return _lying(numbered(key_of(source)), x, strides, offset)

    query, key, value = (lying(x) for x in operands)
    mask = lying(masks[0], True) if masks else None
    pulled = None if cotangent is None else lying(cotangent)
    seed, step = [numbered(dense(x) if free(x) or is_view(x) else key_of(x)) for x in seeds] or (None, None)
    c = numbered(key_of(node))
    width = node.dtype.itemsize
    if isinstance(op, AttentionGradients):
        shapes = op.shapes(leading, [x.shape for x in operands])
        results = _pieces(shapes, c, width, node.op.inside)
    else:
        results = (_result(node.shape, 0, c, width, True),)
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


def _result(shape: Shape, offset: Size, buffer: int, width: int, inside: bool) -> Lying:
    """Of a result that lies in this shape, perhaps with its heads inside."""
    *leading, row, column = strides_of(shape)
    if len(shape) > 2 and inside:  # the heads' axis and that of rows have changed places
        *leading, row, head = (*leading, row)
        leading = [*leading, head]
    return Lying(buffer, offset, (*_padded(leading, 0), row, column), width)


def _pieces(shapes: Sequence[Shape], buffer: int, width: int, inside: bool) -> tuple[Lying, ...]:
    found: list[Lying] = []
    start: Size = 0
    for shape in shapes:
        found.append(_result(_inside(shape) if inside else shape, start, buffer, width, inside))
        start = start + product(shape)
    return tuple(found)


def _strides(node: Node, is_mask: bool) -> tuple[Node, list[Size], Size] | None:
    """The node with the buffer, the distances along each axis and the offset; None where it must be copied."""
    lying = distances(node)
    if lying is None or any(least(distance) < 0 for distance in lying[1]):
        return None
    scattered = not is_mask and lying[1][-1] != 1 and node.shape[-1] != 1
    return None if scattered else lying
