"""Graphs that several tests of the spine share: perceptrons with their training steps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

import graphc as gx


def dense_parameters(sizes: Sequence[int], seed: int = 0, dtype: str = "float32") -> list[gx.Parameter]:
    """Weight and bias of each layer."""
    rng = np.random.default_rng(seed)
    found: list[gx.Parameter] = []
    for number, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((rows, columns)) * rows**-0.5
        found.append(gx.parameter(f"w{number}", weight.astype(dtype)))
        found.append(gx.parameter(f"b{number}", np.zeros(columns, dtype)))
    return found


def perceptron(x: gx.Node, parameters: Sequence[gx.Parameter], rate: float = 0.0, step: Any = 0) -> gx.Node:
    """Dense layers with relu, and dropout after each, between them."""
    for number in range(0, len(parameters), 2):
        if number:
            x = gx.relu(x)
            if rate:
                x = gx.dropout(x, rate, np.uint32(7), step, stream=number)
        x = x @ parameters[number] + parameters[number + 1]
    return x


def adam(loss: gx.Node, parameters: Sequence[gx.Parameter], count: gx.Parameter) -> dict[gx.Parameter, gx.Node]:
    """The updates of Adam with its moments corrected for their start at zero."""
    step = count + 1
    updates: dict[gx.Parameter, gx.Node] = {count: step}
    for p, gradient in zip(parameters, gx.grad(loss, parameters), strict=True):
        m, v = (gx.parameter(f"{p.name}.{moment}", np.zeros(p.value.shape, np.float32)) for moment in "mv")
        updates[m] = 0.9 * m + 0.1 * gradient
        updates[v] = 0.999 * v + 0.001 * gradient**2
        corrected = updates[m] / (1 - 0.9**step), updates[v] / (1 - 0.999**step)
        updates[p] = p - 1e-3 * corrected[0] / (gx.sqrt(corrected[1]) + 1e-8)
    return updates


def classifier_step(sizes: Sequence[int], rate: float = 0.0, backend: str = "numba", seed: int = 0) -> gx.Program:
    """A step of Adam on labels, batch symbolic: inputs ``x`` and ``labels``, output ``loss``."""
    x = gx.placeholder("x", ("batch", sizes[0]))
    labels = gx.placeholder("labels", ("batch",), "int64")
    parameters, count = dense_parameters(sizes, seed), gx.parameter("count", np.float32(0))
    logits = perceptron(x, parameters, rate, gx.cast(count, "uint32"))
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, logits))
    updates = adam(loss, parameters, count)
    return gx.compile({"loss": loss}, inputs=[x, labels], updates=updates, backend=backend, training=True)


def classifier_model(sizes: Sequence[int], rate: float = 0.0, backend: str = "numba") -> gx.Sequential:
    """The same, of layers."""
    gx.set_seed(0)
    chain: list[Any] = [gx.Input((sizes[0],))]
    for units in sizes[1:-1]:
        chain += [gx.layers.Dense(units, activation="relu"), gx.layers.Dropout(rate)]
    made = gx.Sequential([*chain, gx.layers.Dense(sizes[-1])])
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(gx.optimizers.Adam(1e-3), loss, backend=backend)
    return made


def batch(size: int, features: int, classes: int, seed: int = 0) -> dict[str, Any]:
    """Random inputs of a classifier."""
    rng = np.random.default_rng([seed, size])
    return {
        "x": rng.standard_normal((size, features)).astype(np.float32),
        "labels": rng.integers(0, classes, size),
    }
