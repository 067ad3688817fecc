"""Run layers and expressions on arrays, by the reference backend."""

from __future__ import annotations

import numpy as np

import graphc as gx


def placeholder_for(name, array):
    """A placeholder of the array's type with a symbolic batch axis."""
    return gx.placeholder(name, ("batch", *array.shape[1:]), array.dtype)


def evaluate(outputs, feeds, training=False, updates=None):
    """Arrays for nodes; ``feeds`` are pairs of placeholder and array."""
    names = [f"out{i}" for i in range(len(outputs))]
    program = gx.compile(
        dict(zip(names, outputs, strict=True)),
        inputs=[node for node, _ in feeds],
        updates=updates or {},
        backend="reference",
        training=training,
    )
    return program.call([np.asarray(array) for _, array in feeds])


def run_layer(layer, *arrays, training=False, **kwargs):
    """The output of a layer for one array, or for a list of them."""
    nodes = [placeholder_for(f"x{i}", array) for i, array in enumerate(arrays)]
    output = layer(nodes[0] if len(nodes) == 1 else nodes, **kwargs)
    (result,) = evaluate([output], list(zip(nodes, arrays, strict=True)), training, layer.updates if training else None)
    return result


def f32(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)
