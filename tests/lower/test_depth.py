"""Deep models: equal layers share their kernels, and attention's memory grows with the length, not with its square."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.ir.graph import make_graph
from graphc.lower import recall
from graphc.lower.lowering import lower
from graphc.lower.memory import layout
from graphc.lower.plan import KernelItem, Plan
from graphc.passes import decompose_for, prepare, simplify_graph


def plan_of(outputs: dict, inputs: list, updates: dict | None = None) -> Plan:
    graph, _ = simplify_graph(prepare(make_graph(outputs, inputs, updates), training=True))
    return lower(decompose_for(graph, lambda op: False))


def stack(depth: int) -> Plan:
    """A step of training of as many Transformer layers, with dropout and Adam."""
    x = gx.placeholder("x", (2, 6, 16))
    h, weights = x, []
    for number in range(depth):
        layer = gx.layers.TransformerEncoderLayer(32, 2, dropout=0.1, name=f"layer{number}")
        h = layer(h, training=True)
        weights += layer.trainable_weights
    loss = gx.mean(gx.square(h - 1.0))
    adam = gx.optimizers.Adam(1e-3)
    return plan_of({"loss": loss}, [x], adam.updates(weights, gx.grad(loss, weights)))


def kernels(plan: Plan) -> set:
    return {item.kernel for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)}


def test_the_number_of_kernels_does_not_grow_with_depth():
    three, six = stack(3), stack(6)
    assert len(six.launches) > 1.7 * len(three.launches)
    assert kernels(six) == kernels(three)


def test_a_kernel_that_is_remembered_is_the_one_that_would_be_built():
    recall._known.clear()
    fresh = stack(2)
    assert recall._known
    remembered = stack(2)
    for a, b in zip(fresh.launches, remembered.launches, strict=True):
        assert a.items == b.items
        assert [node.op for node in a.nodes] == [node.op for node in b.nodes]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("way", ["layer", "by hand"])
def test_the_memory_of_attention_grows_with_the_length(way, training):
    def arena(length: int) -> int:
        q, k, v = (gx.placeholder(name, (1, 2, length, 16)) for name in "qkv")
        if way == "layer":
            layer = gx.layers.MultiHeadAttention(2, 16)
            inputs = [gx.placeholder("x", (1, length, 32))]
            y = layer(inputs[0], inputs[0])
            wanted = layer.trainable_weights
        else:
            inputs = wanted = [q, k, v]
            y = gx.softmax(q @ gx.transpose(k, (0, 1, 3, 2)) / np.float32(4.0)) @ v
        outputs = {"y": y}
        if training:
            found = gx.grad(gx.sum(gx.square(y)), wanted)
            outputs = {f"d{number}": gradient for number, gradient in enumerate(found)}
        return layout(plan_of(outputs, inputs), {}).peak_bytes

    assert arena(8192) <= 2.2 * arena(4096)
    assert arena(8192) < 8192 * 8192  # not a byte for each pair
