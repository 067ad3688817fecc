"""graphc: the step as a user of the graph writes it, compiled for the numba backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import spec

import graphc as gx

VARIANTS = ("graphc",)
WORKLOADS = ["mlp_tiny_train", "mlp_train"]
Parameters = dict[str, gx.Parameter]


def versions() -> dict[str, str]:
    """The releases that the figures belong to."""
    import numba

    return {"graphc": gx.__version__, "numba": numba.__version__}


def dense(p: Parameters, name: str, x: gx.Node) -> gx.Node:
    """A layer of ``spec.Build.dense``."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def mlp_tiny(p: Parameters, x: gx.Node, count: gx.Node) -> gx.Node:
    """4-16-3 with tanh."""
    return dense(p, "fc2", gx.tanh(dense(p, "fc1", x)))


def mlp(p: Parameters, x: gx.Node, count: gx.Node) -> gx.Node:
    """784-512-256-10 with relu and dropout 0.2."""
    seed, step = gx.constant(np.uint32(0)), gx.cast(count, "uint32")
    x = gx.dropout(gx.relu(dense(p, "fc1", x)), 0.2, seed, step, stream=1)
    x = gx.dropout(gx.relu(dense(p, "fc2", x)), 0.2, seed, step, stream=2)
    return dense(p, "fc3", x)


FORWARD = {"mlp_tiny_train": mlp_tiny, "mlp_train": mlp}


def load(data: spec.Data) -> Parameters:
    """The given initial values; dense weights as [in, out]."""
    return {
        name: gx.parameter(name, np.ascontiguousarray(value.T) if value.ndim == 2 else value)
        for name, value in data.params.items()
    }


def adam(
    loss: gx.Node, parameters: list[gx.Parameter], count: gx.Parameter, b1: float = 0.9, b2: float = 0.999
) -> dict[gx.Parameter, gx.Node]:
    """Adam as the peers have it: the moments corrected for their start at zero."""
    eps = 1e-8
    step = count + 1
    updates: dict[gx.Parameter, gx.Node] = {count: step}
    for p, gradient in zip(parameters, gx.grad(loss, parameters), strict=True):
        m, v = (gx.parameter(f"adam.{p.name}.{k}", np.zeros(p.value.shape, np.float32)) for k in ("m", "v"))
        updates[m] = b1 * m + (1 - b1) * gradient
        updates[v] = b2 * v + (1 - b2) * gradient**2
        m_hat, v_hat = updates[m] / (1 - b1**step), updates[v] / (1 - b2**step)
        updates[p] = p - spec.LR * m_hat / (gx.sqrt(v_hat) + eps)
    return updates


def build(variant: str, data: spec.Data, workdir: str) -> Callable[[], float]:
    """One training step on the next batch."""
    p = load(data)
    x = gx.placeholder("x", ("batch", *data.xs[0][0].shape[1:]), "float32")
    y = gx.placeholder("y", ("batch",), "int64")
    count = gx.parameter("adam.count", np.float32(0))
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, FORWARD[data.name](p, x, count)))
    step = gx.compile(
        {"loss": loss}, inputs=[x, y], updates=adam(loss, list(p.values()), count), backend="numba", training=True
    )
    xs, ys, i = [x for (x,) in data.xs], [y.reshape(-1) for y in data.ys], 0

    def run() -> float:
        nonlocal i
        out = step(x=xs[i % len(xs)], y=ys[i % len(ys)])
        i += 1
        return float(out["loss"])

    return run
