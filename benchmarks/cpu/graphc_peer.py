"""graphc: the step as a user of the graph writes it, compiled for the numba backend."""

from __future__ import annotations

from collections.abc import Callable

import graphc_images
import graphc_transformers as transformers
import numpy as np
import spec

import graphc as gx

VARIANTS = ("graphc",)
WORKLOADS = [
    "mlp_tiny_train", "mlp_train", "lstm_train", "bigru_infer", "seq2seq_bahdanau_train", "transformer_train",
    "encoder_infer", "fused_elementwise", "gpt_decode",
]  # fmt: skip
WORKLOADS += graphc_images.FORWARD
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


def lstm_layer(p: Parameters, suffix: str, xs: gx.Node) -> gx.Node:
    """All outputs of a layer over sequences, time first; gates in the order i, f, g, o."""
    kernel, recurrent, one, two = (
        p[f"lstm.{kind}{suffix}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    size = recurrent.shape[0]

    def step(carry: tuple[gx.Node, gx.Node], x: gx.Node) -> tuple[tuple[gx.Node, gx.Node], gx.Node]:
        h, c = carry
        z = x @ kernel + h @ recurrent + (one + two)
        i, f, g, o = (z[:, k * size : (k + 1) * size] for k in range(4))
        c = gx.sigmoid(f) * c + gx.sigmoid(i) * gx.tanh(g)
        h = gx.sigmoid(o) * gx.tanh(c)
        return (h, c), h

    zeros = gx.zeros((xs.shape[1], size))
    return gx.scan(step, (zeros, zeros), xs)[1]


def lstm(p: Parameters, x: gx.Node, count: gx.Node) -> gx.Node:
    """Embedding, two layers, the last output."""
    xs = gx.take(p["emb.weight"], gx.transpose(x), axis=0)
    return dense(p, "fc", lstm_layer(p, "_l1", lstm_layer(p, "_l0", xs))[-1])


def gru_step(h: gx.Node, inner: gx.Node, recurrent: gx.Node, bias: gx.Node) -> gx.Node:
    """One step from the product of the inputs; gates in the order r, z, n."""
    size = h.shape[1]
    outer = h @ recurrent + bias
    r, z, n = (inner[:, k * size : (k + 1) * size] for k in range(3))
    hr, hz, hn = (outer[:, k * size : (k + 1) * size] for k in range(3))
    r, z = gx.sigmoid(r + hr), gx.sigmoid(z + hz)
    return (1 - z) * gx.tanh(n + r * hn) + z * h


def gru(p: Parameters, name: str, suffix: str, xs: gx.Node, reverse: bool = False) -> tuple[gx.Node, gx.Node]:
    """The last state and all outputs of a layer over sequences, time first."""
    kernel, recurrent, one, two = (
        p[f"{name}.{kind}{suffix}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )

    def step(h: gx.Node, x: gx.Node) -> tuple[gx.Node, gx.Node]:
        h = gru_step(h, x @ kernel + one, recurrent, two)
        return h, h

    return gx.scan(step, gx.zeros((xs.shape[1], recurrent.shape[0])), xs, reverse=reverse)


def bigru(p: Parameters, x: gx.Node) -> gx.Node:
    """Embedding, both directions, their last states."""
    xs = gx.take(p["emb.weight"], gx.transpose(x), axis=0)
    states = [gru(p, "gru", "_l0", xs)[0], gru(p, "gru", "_l0_reverse", xs, reverse=True)[0]]
    return dense(p, "fc", gx.concatenate(states, axis=-1))


def seq2seq(p: Parameters, source: gx.Node, target: gx.Node) -> gx.Node:
    """A GRU encoder, and a decoder whose context by additive attention enters its cell."""
    h, memory = gru(p, "enc", "_l0", gx.take(p["src_emb.weight"], gx.transpose(source), axis=0))
    memory = gx.transpose(memory, (1, 0, 2))
    keys = memory @ p["att_enc.weight"]
    w = {kind: p[f"dec.{kind}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}

    def step(h: gx.Node, x: gx.Node) -> tuple[gx.Node, gx.Node]:
        compared = gx.tanh(keys + gx.expand_dims(h @ p["att_dec.weight"], 1))
        attention = gx.softmax(gx.squeeze(compared @ p["att_v.weight"], 2))
        context = gx.squeeze(gx.expand_dims(attention, 1) @ memory, 1)
        inner = gx.concatenate([x, context], axis=-1) @ w["weight_ih"] + w["bias_ih"]
        h = gru_step(h, inner, w["weight_hh"], w["bias_hh"])
        return h, h

    _, states = gx.scan(step, h, gx.take(p["tgt_emb.weight"], gx.transpose(target), axis=0))
    return dense(p, "out", gx.transpose(states, (1, 0, 2)))


FORWARD = {"mlp_tiny_train": mlp_tiny, "mlp_train": mlp, "lstm_train": lstm}


def load(data: spec.Data) -> Parameters:
    """The given initial values; weights of products as [in, out], tables and what reads by rows as they are."""

    def layout(name: str, value: np.ndarray) -> np.ndarray:
        kept = value.ndim < 2 or "emb." in name or name in transformers.TABLES or data.name == "gpt_decode"
        return value if kept else np.ascontiguousarray(value.T)

    return {name: gx.parameter(name, layout(name, value)) for name, value in data.params.items()}


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


def loss_of(p: Parameters, data: spec.Data, count: gx.Node) -> tuple[gx.Node, list[gx.Node]]:
    """The loss over placeholders for a batch and its labels."""
    if data.name == "transformer_train":
        return transformers.train(p, data, count)
    kind = {"f": "float32", "i": "int64"}[data.xs[0][0].dtype.kind]
    names = ("batch", *data.xs[0][0].shape[1:]) if kind == "float32" else ("batch", "time")
    x = gx.placeholder("x", names, kind)
    if data.name == "seq2seq_bahdanau_train":
        target, y = (
            gx.placeholder("target", ("batch", "steps"), "int64"),
            gx.placeholder("y", ("batch", "steps"), "int64"),
        )
        return gx.mean(gx.sparse_softmax_cross_entropy(y, seq2seq(p, x, target))), [x, target, y]
    y = gx.placeholder("y", ("batch",), "int64")
    return gx.mean(gx.sparse_softmax_cross_entropy(y, FORWARD[data.name](p, x, count))), [x, y]


def build(variant: str, data: spec.Data, workdir: str) -> Callable[[], float | np.ndarray]:
    """One training step on the next batch, or one inference."""
    if data.name in graphc_images.FORWARD:
        return graphc_images.build(data, adam)
    p = load(data)
    if data.name == "bigru_infer":
        ids = gx.placeholder("x", ("batch", "time"), "int64")
        infer = gx.compile({"y": bigru(p, ids)}, inputs=[ids], backend="numba")
        (value,) = data.xs[0]
        return lambda: infer(x=value)["y"]
    if data.name in ("encoder_infer", "fused_elementwise", "gpt_decode"):
        y, inputs = transformers.infer(p, data)
        forward = gx.compile({"y": y}, inputs=inputs, backend="numba")
        feed = {node.name: value for node, value in zip(inputs, data.xs[0], strict=True)}
        return lambda: forward(**feed)["y"]
    count = gx.parameter("adam.count", np.float32(0))
    loss, inputs = loss_of(p, data, count)
    step = gx.compile(
        {"loss": loss}, inputs=inputs, updates=adam(loss, list(p.values()), count), backend="numba", training=True
    )
    whole = data.name in ("seq2seq_bahdanau_train", "transformer_train")
    ys = data.ys if whole else [y.reshape(-1) for y in data.ys]
    i = 0

    def run() -> float:
        nonlocal i
        batch = (*data.xs[i % len(data.xs)], ys[i % len(ys)])
        out = step(**{node.name: value for node, value in zip(inputs, batch, strict=True)})
        i += 1
        return float(out["loss"])

    return run
