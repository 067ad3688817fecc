"""Recognition: what was written out in primitives becomes the composite that it is.

The composite has a stable derivative in closed form, and a backend or exporter may take it whole. Where a composite
cuts off its logarithms (``binary_cross_entropy`` of a probability), the recognized form on logits does not need to.
"""

from __future__ import annotations

from graphc.ir.node import Node, apply
from graphc.ir.op import Op
from graphc.ir.types import broadcast_shapes
from graphc.ops.activation import LogSoftmax, Softmax, log_softmax, relu, softmax
from graphc.ops.arithmetic import Add, Divide, Multiply, maximum, negative
from graphc.ops.attention import ScaledDotProductAttention
from graphc.ops.base import scalar_value
from graphc.ops.crossentropy import (
    CategoricalCrossEntropy,
    SoftmaxCrossEntropy,
    SparseCategoricalCrossEntropy,
    SparseSoftmaxCrossEntropy,
)
from graphc.ops.exponential import Sigmoid, sigmoid, softplus
from graphc.ops.indexing import TakeAlong, take_along
from graphc.ops.linear import MatMul
from graphc.ops.loss import BinaryCrossEntropy, BinaryCrossEntropyWithLogits
from graphc.ops.movement import BroadcastTo, Flip, Reshape, Transpose, broadcast_to, reshape, transpose
from graphc.ops.reduction import Sum
from graphc.ops.reduction import sum as sum_of
from graphc.ops.slicing import Slice
from graphc.rewrite import Rule, RuleSet, rule


def _with_logits(labels: Node, logits: Node) -> Node:
    shape = broadcast_shapes(labels.shape, logits.shape)
    return apply(BinaryCrossEntropyWithLogits(), broadcast_to(labels, shape), broadcast_to(logits, shape))


_MOVES = (BroadcastTo, Flip, Reshape, Slice, Transpose)
"""Movements of single elements: what is computed for each element may as well be computed before."""


BINARY = (
    Rule("recognize_binary_cross_entropy",
         "y * softplus(-z) + (1 - y) * softplus(z), which -(y log p + (1 - y) log(1 - p)) of p = sigmoid(z) is by now.",
         lambda y, z: y * softplus(-z) + (1.0 - y) * softplus(z), _with_logits, specials=False),
    Rule("recognize_binary_cross_entropy_of_difference", "y * softplus(-z) - (y - 1) * softplus(z), the same.",
         lambda y, z: y * softplus(-z) - (y - 1.0) * softplus(z), _with_logits, specials=False),
)  # fmt: skip


ACTIVATIONS = (
    Rule("recognize_relu", "max(x, 0) = relu(x), whose derivative at 0 is 0.",
         lambda x: maximum(x, 0.0), lambda x: relu(x), integers=True),
)  # fmt: skip


@rule(
    Sum,
    example=(
        lambda leaf: sum_of(leaf(4, 3) * log_softmax(leaf(4, 3)), axis=1),
        lambda leaf: sum_of(log_softmax(leaf(4, 3)) * leaf(4, 3), axis=-1, keepdims=True),
        lambda leaf: sum_of(leaf(3) * log_softmax(leaf("n", 3)), axis=-1),
    ),
    specials=False,
)
def recognize_softmax_cross_entropy(node: Node) -> Node | None:
    """``sum(t * log_softmax(z))`` over the classes in the last axis is ``-softmax_cross_entropy(t, z)``."""
    (product,) = node.args
    if not isinstance(node.op, Sum) or not isinstance(product.op, Multiply) or node.op.axes != (product.ndim - 1,):
        return None
    for labels, log_p in (product.args, product.args[::-1]):
        if isinstance(log_p.op, LogSoftmax) and log_p.op.axis == log_p.ndim - 1 and log_p.shape == product.shape:
            (logits,) = log_p.args
            loss = apply(SoftmaxCrossEntropy(), broadcast_to(labels, logits.shape), logits)
            return negative(reshape(loss, node.shape))
    return None


@rule(
    TakeAlong,
    example=(
        lambda leaf: take_along(log_softmax(leaf(4, 6)), leaf(4, 1, dtype="uint32"), axis=1),
        lambda leaf: take_along(log_softmax(leaf("n", 3, 6)), leaf("n", 3, 1, dtype="uint32"), axis=2),
    ),
    specials=False,
)
def recognize_sparse_softmax_cross_entropy(node: Node) -> Node | None:
    """``log_softmax(z)`` at the label of each row is ``-sparse_softmax_cross_entropy(labels, z)``."""
    log_p, indices = node.args
    last = log_p.ndim - 1
    if not isinstance(log_p.op, LogSoftmax) or log_p.op.axis != last or node.op != TakeAlong(last):
        return None
    (logits,) = log_p.args
    if indices.shape != (*logits.shape[:-1], 1):
        return None
    loss = apply(SparseSoftmaxCrossEntropy(), reshape(indices, logits.shape[:-1]), logits)
    return negative(reshape(loss, node.shape))


@rule(
    BinaryCrossEntropy,
    example=(
        lambda leaf: apply(BinaryCrossEntropy(), leaf(4, 6, low=0.0), sigmoid(leaf(4, 6))),
        lambda leaf: apply(BinaryCrossEntropy(), leaf(4, 6, low=0.0), broadcast_to(sigmoid(leaf(6)), (4, 6))),
        lambda leaf: apply(BinaryCrossEntropy(), leaf("n", low=0.0), reshape(sigmoid(leaf("n", 1)), ("n",))),
        lambda leaf: apply(BinaryCrossEntropy(), leaf(6, 2, low=0.0), sigmoid(transpose(leaf(4, 6)))[:, 1:3]),
    ),
    specials=False,
)
def use_logits_of_sigmoid(node: Node) -> Node | None:
    """Binary cross entropy of ``sigmoid(z)``, or of a part or another arrangement of it, is that of the logits z."""
    labels, p = node.args
    moves: list[Op] = []
    while isinstance(p.op, _MOVES):
        moves.append(p.op)
        (p,) = p.args
    if not isinstance(p.op, Sigmoid):
        return None
    (logits,) = p.args
    for move in reversed(moves):
        logits = apply(move, logits)
    return _with_logits(labels, logits)


@rule(
    CategoricalCrossEntropy,
    SparseCategoricalCrossEntropy,
    example=(
        lambda leaf: apply(CategoricalCrossEntropy(), leaf(4, 6), softmax(leaf(4, 6))),
        lambda leaf: apply(SparseCategoricalCrossEntropy(), leaf(4, dtype="uint32"), softmax(leaf(4, 6))),
    ),
    specials=False,
)
def use_logits_of_softmax(node: Node) -> Node | None:
    """Cross entropy of ``softmax(z)`` is that of the logits z."""
    labels, p = node.args
    if not isinstance(p.op, Softmax) or p.op.axis != p.ndim - 1:
        return None
    dense = isinstance(node.op, CategoricalCrossEntropy)
    return apply(SoftmaxCrossEntropy() if dense else SparseSoftmaxCrossEntropy(), labels, *p.args)


@rule(
    MatMul,
    example=(
        lambda leaf: softmax(leaf(4, 3) @ transpose(leaf(5, 3)) * 0.5) @ leaf(5, 2),
        lambda leaf: softmax(leaf(2, 4, 3) @ transpose(leaf(2, 5, 3), (0, 2, 1)) / 1.7) @ leaf(2, 5, 6),
        lambda leaf: softmax(leaf("n", 3) @ transpose(leaf(5, 3)) + leaf("n", 5)) @ leaf(5, 6),
        lambda leaf: softmax(leaf(4, 3) @ transpose(leaf(5, 3)) * 0.5 + leaf(4, 5)) @ leaf(5, 2),
    ),
    specials=False,
)
def recognize_attention(node: Node) -> Node | None:
    """``softmax(q k^T * scale + mask) v`` is attention: its scores need not all be in memory at once."""
    weights, v = node.args
    if not isinstance(weights.op, Softmax) or weights.op.axis != weights.ndim - 1:
        return None
    (scores,) = weights.args
    masks: list[Node] = []
    found = _scaled_product(scores)
    if found is None and isinstance(scores.op, Add):
        for scaled, mask in (scores.args, scores.args[::-1]):
            found = _scaled_product(scaled) if scaled.shape == scores.shape else None
            if found is not None:
                masks = [mask]
                break
    if found is None:
        return None
    q, k, scale = found
    return apply(ScaledDotProductAttention(scale), q, k, v, *masks)


def _scaled_product(node: Node) -> tuple[Node, Node, float] | None:
    """The parts of ``q @ k^T * scale``, where the transposition is written out."""
    scale = 1.0
    if isinstance(node.op, Multiply | Divide):
        for product, factor in (node.args, node.args[::-1]) if isinstance(node.op, Multiply) else (node.args,):
            value = scalar_value(factor)
            if value is not None and isinstance(product.op, MatMul) and product.shape == node.shape:
                node, scale = product, 1.0 / float(value) if isinstance(node.op, Divide) else float(value)
                break
        else:
            return None
    if not isinstance(node.op, MatMul):
        return None
    q, kt = node.args
    last = kt.ndim - 1
    if not isinstance(kt.op, Transpose) or kt.op.axes != (*range(last - 1), last, last - 1):
        return None
    return q, kt.args[0], scale


COMPOSITES = RuleSet(
    (
        recognize_attention,
        *BINARY,
        *ACTIVATIONS,
        recognize_softmax_cross_entropy,
        recognize_sparse_softmax_cross_entropy,
        use_logits_of_sigmoid,
        use_logits_of_softmax,
    )
)
