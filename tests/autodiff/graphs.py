"""Random differentiable graphs, in float64 so that numeric derivatives are sharp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import graphc as gx
from graphc.ir.node import Node, Parameter

Values = dict[Node, np.ndarray]

UNARY: tuple[Callable[[Node], Node], ...] = (
    gx.tanh, gx.sigmoid, gx.sin, gx.cos, gx.softplus, gx.erf, gx.gelu, gx.relu, gx.abs,
    lambda x: gx.exp(gx.tanh(x)), lambda x: gx.log(x * x + 1.0), lambda x: gx.sqrt(x * x + 0.5), lambda x: x**3,
    lambda x: -x, lambda x: x * 2.0 + 1.0, lambda x: 1.0 / (1.0 + gx.exp(-x)), lambda x: (x * x + 1.0) ** 0.5,
    lambda x: gx.when_training(gx.sin(x), x), lambda x: gx.expm1(gx.sin(x)), lambda x: gx.rsqrt(x * x + 1.0),
)  # fmt: skip
BINARY: tuple[Callable[[Node, Node], Node], ...] = (
    gx.add, gx.subtract, gx.multiply, gx.maximum, gx.minimum, lambda x, y: x / (y * y + 1.0),
    lambda x, y: gx.where(x > y, x * 2.0, gx.sin(y)), lambda x, y: (x * x + 0.5) ** gx.tanh(y),
)  # fmt: skip


def whole(x: Node, rng: np.random.Generator) -> Node:
    """An op that looks at a whole axis or moves elements."""
    if x.ndim == 0:
        return gx.broadcast_to(x, (3,))
    axis = int(rng.integers(x.ndim))
    choices: list[Callable[[], Node]] = [
        lambda: gx.softmax(x, axis), lambda: gx.log_softmax(x, axis), lambda: gx.logsumexp(x, axis),
        lambda: gx.log(gx.softmax(x, axis)), lambda: gx.sum(x, axis), lambda: gx.mean(x, axis, keepdims=True),
        lambda: gx.max(x, axis), lambda: gx.var(x, axis), lambda: gx.prod(gx.tanh(x) + 0.5, axis),
        lambda: gx.transpose(x), lambda: gx.flatten(x), lambda: gx.flip(x, axis), lambda: gx.concatenate([x, x * 2.0], axis),
        lambda: gx.expand_dims(x, 0), lambda: x[1:] if isinstance(x.shape[0], int) and x.shape[0] > 1 else x[::2],
        lambda: gx.take(x, np.array([0, 0]), axis), lambda: gx.pad(x, (1,) * x.ndim, (0,) * x.ndim), lambda: gx.stack([x, gx.sin(x)], axis),
        lambda: gx.exp(x - gx.max(x, axis, keepdims=True)) / gx.sum(gx.exp(x - gx.max(x, axis, keepdims=True)), axis, keepdims=True),
    ]  # fmt: skip
    return choices[int(rng.integers(len(choices)))]()


def random_graph(seed: int, steps: int = 10) -> tuple[Node, list[Node], Values]:
    """A scalar, the leaves it may depend on, and their values."""
    rng = np.random.default_rng(seed)
    leaves: list[Node] = [
        gx.placeholder("a", (2, 3), "float64"), gx.placeholder("b", (3,), "float64"),
        gx.parameter("layer/w", rng.uniform(-1, 1, (3, 3))), gx.placeholder("c", (), "float64"),
    ]  # fmt: skip
    values = {x: np.asarray(x.array if isinstance(x, Parameter) else rng.uniform(-1, 1, x.shape)) for x in leaves}
    pool = list(leaves)
    for _ in range(steps):
        kind = rng.integers(10)
        x, y = (pool[int(i)] for i in rng.integers(len(pool), size=2))
        if kind < 4:
            new = UNARY[int(rng.integers(len(UNARY)))](x)
        elif kind < 7:
            try:
                new = BINARY[int(rng.integers(len(BINARY)))](x, y)
            except gx.ShapeError:
                continue
        elif kind < 9:
            new = whole(x, rng)
        elif x.ndim == 2 and x.shape[1] == 3:
            new = gx.matmul(x, leaves[2])
        else:
            continue
        if new.type.nbytes() <= 2000:
            pool.append(new)
    used = {id(arg) for node in pool for arg in node.args}
    sinks = [node for node in pool if id(node) not in used]
    loss = sum((gx.mean(gx.sin(node) * node) for node in sinks), start=gx.constant(np.float64(0)))
    return loss, leaves, values
