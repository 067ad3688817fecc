"""The workloads made of attention: an encoder-decoder in training, an encoder, and one row of a fused kernel.

Layouts are those of ``graphc_peer.load``: weights of products [in, out], tables as they are. Sizes are fixed, as the
other columns' compilers have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import spec

import graphc as gx

Parameters = Mapping[str, gx.Parameter]
Drop = Callable[[gx.Node], gx.Node]
TABLES = ("src_emb.weight", "tgt_emb.weight", "tok.weight", "pos.weight")
"""Parameters whose rows are looked up, or added to others: their layout is that of ``spec``."""


def dense(p: Parameters, name: str, x: gx.Node) -> gx.Node:
    """A layer of ``spec.Build.dense``."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def normalized(x: gx.Node, epsilon: float = 1e-5) -> gx.Node:
    """Rows with mean 0 and variance 1."""
    centred = x - gx.mean(x, axis=-1, keepdims=True)
    return centred * gx.rsqrt(gx.mean(gx.square(centred), axis=-1, keepdims=True) + epsilon)


def layer_norm(p: Parameters, name: str, x: gx.Node) -> gx.Node:
    """A layer of ``spec.Build.ln``."""
    return normalized(x) * p[f"{name}.weight"] + p[f"{name}.bias"]


def split_heads(x: gx.Node, heads: int) -> gx.Node:
    """(batch, time, width) as (batch, heads, time, width of a head)."""
    batch, time, width = x.shape
    return gx.transpose(gx.reshape(x, (batch, time, heads, width // heads)), (0, 2, 1, 3))


def attend(q: gx.Node, k: gx.Node, v: gx.Node, heads: int, causal: bool = False) -> gx.Node:
    """Attention of several heads, of which each has a part of the width."""
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    seen = gx.transpose(gx.scaled_dot_product_attention(q, k, v, causal=causal), (0, 2, 1, 3))
    return gx.reshape(seen, (*seen.shape[:2], seen.shape[2] * seen.shape[3]))


def layer(
    p: Parameters,
    name: str,
    x: gx.Node,
    heads: int,
    activation: Callable[[gx.Node], gx.Node],
    drop: Drop,
    memory: gx.Node | None = None,
) -> gx.Node:
    """A layer of an encoder, or, with a memory, of a decoder; normalization comes last in each block."""
    q, k, v = gx.split(dense(p, f"{name}.qkv", x), 3, axis=-1)
    seen = attend(q, k, v, heads, causal=memory is not None)
    x = layer_norm(p, f"{name}.ln1", x + drop(dense(p, f"{name}.proj", seen)))
    last = "ln2"
    if memory is not None:
        k, v = gx.split(dense(p, f"{name}.kv", memory), 2, axis=-1)
        seen = attend(dense(p, f"{name}.q", x), k, v, heads)
        x = layer_norm(p, f"{name}.ln2", x + drop(dense(p, f"{name}.xproj", seen)))
        last = "ln3"
    inner = activation(dense(p, f"{name}.fc1", x))
    return layer_norm(p, f"{name}.{last}", x + drop(dense(p, f"{name}.fc2", inner)))


def sinusoid(time: int, width: int) -> np.ndarray:
    """Positions as sines and cosines."""
    angles = np.arange(time)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack((np.sin(angles), np.cos(angles)), -1).reshape(time, width).astype(np.float32)


def transformer(p: Parameters, source: gx.Node, target: gx.Node, count: gx.Node) -> gx.Node:
    """Three layers of encoder and decoder, 256 wide, with dropout 0.1 behind each block and each embedding."""
    seed, step, streams = gx.constant(np.uint32(0)), gx.cast(count, "uint32"), iter(range(1, 100))

    def drop(x: gx.Node) -> gx.Node:
        return gx.dropout(x, 0.1, seed, step, stream=next(streams))

    time = source.shape[1]
    assert isinstance(time, int)
    positions = gx.constant(sinusoid(time, 256))
    x = drop(gx.take(p["src_emb.weight"], source, axis=0) * 16.0 + positions)
    for k in range(3):
        x = layer(p, f"enc.{k}", x, 4, gx.relu, drop)
    y = drop(gx.take(p["tgt_emb.weight"], target, axis=0) * 16.0 + positions)
    for k in range(3):
        y = layer(p, f"dec.{k}", y, 4, gx.relu, drop, x)
    return dense(p, "out", y)


def encoder(p: Parameters, ids: gx.Node) -> gx.Node:
    """Six layers, 512 wide, over learned positions."""
    x = gx.take(p["tok.weight"], ids, axis=0) + p["pos.weight"][: ids.shape[1]]
    x = layer_norm(p, "ln", x)
    for k in range(6):
        x = layer(p, f"enc.{k}", x, 8, gx.gelu, lambda node: node)
    return x


def fused(p: Parameters, x: gx.Node, residual: gx.Node) -> gx.Node:
    """Scale, bias, gelu, residual and normalization of rows."""
    return normalized(gx.gelu(x * p["w"] + p["b"]) + residual)


def by_rows(p: Parameters, name: str, x: gx.Node) -> gx.Node:
    """A layer of ``spec.Build.dense`` whose weights lie as [out, in]: a row of outputs is read from end to end."""
    return x @ gx.transpose(p[f"{name}.weight"]) + p[f"{name}.bias"]


def gpt_layer(
    p: Parameters, name: str, x: gx.Node, attention: Callable[[gx.Node, gx.Node, gx.Node], gx.Node]
) -> gx.Node:
    """A layer of the decoder, normalization first; ``attention`` takes queries, keys and values in heads."""
    whole = by_rows(p, f"{name}.qkv", layer_norm(p, f"{name}.ln1", x))
    q, k, v = (split_heads(y, 4) for y in gx.split(whole, 3, axis=-1))
    seen = gx.transpose(attention(q, k, v), (0, 2, 1, 3))
    x = x + by_rows(p, f"{name}.proj", gx.reshape(seen, x.shape))
    inner = gx.gelu(by_rows(p, f"{name}.fc1", layer_norm(p, f"{name}.ln2", x)), approximate="tanh")
    return x + by_rows(p, f"{name}.fc2", inner)


def gpt(p: Parameters, prompt: gx.Node) -> gx.Node:
    """The 64 likeliest tokens behind a prompt: one pass over it, then a loop whose keys and values grow in place."""
    time = prompt.shape[1]
    assert isinstance(time, int)
    room = spec.GPT["maxlen"]

    def likeliest(x: gx.Node) -> gx.Node:
        return gx.argmax(layer_norm(p, "lnf", x[:, -1]) @ gx.transpose(p["head.weight"]), axis=-1)

    held: list[tuple[gx.Node, gx.Node]] = []
    x = gx.take(p["tok.weight"], prompt, axis=0) + p["pos.weight"][:time]
    for k in range(spec.GPT["layers"]):

        def over_prompt(q: gx.Node, k: gx.Node, v: gx.Node) -> gx.Node:
            held.append(tuple(gx.pad(y, (0, 0, 0, 0), (0, 0, room - time, 0)) for y in (k, v)))
            return gx.scaled_dot_product_attention(q, k, v, causal=True)

        x = gpt_layer(p, f"h.{k}", x, over_prompt)

    def step(carry: tuple[gx.Node, gx.Node, list[tuple[gx.Node, gx.Node]]], _: None) -> tuple[object, gx.Node]:
        token, at, held = carry
        grown: list[tuple[gx.Node, gx.Node]] = []

        def over_all(q: gx.Node, k: gx.Node, v: gx.Node) -> gx.Node:
            pair = held[len(grown)]
            grown.append(tuple(gx.update_slice(old, new, at, axis=2) for old, new in zip(pair, (k, v), strict=True)))
            return gx.scaled_dot_product_attention(q, *grown[-1], mask=gx.expand_dims(gx.arange(room) <= at, 0))

        x = gx.take(p["tok.weight"], token, axis=0) + gx.take(p["pos.weight"], at, axis=0)
        x = gx.expand_dims(x, 1)
        for k in range(spec.GPT["layers"]):
            x = gpt_layer(p, f"h.{k}", x, over_all)
        return (likeliest(x), at + 1, grown), token

    first = (likeliest(x), gx.constant(np.int64(time)), held)
    (last, _, _), tokens = gx.scan(step, first, length=spec.GPT["new"] - 1)
    return gx.concatenate([tokens, gx.expand_dims(last, 0)], axis=0)


def infer(p: Parameters, data: spec.Data) -> tuple[gx.Node, list[gx.Node]]:
    """The result of an inference workload over placeholders of the data's shapes."""
    inputs = [gx.placeholder(f"x{number}", array.shape, str(array.dtype)) for number, array in enumerate(data.xs[0])]
    made = {"encoder_infer": encoder, "fused_elementwise": fused, "gpt_decode": gpt}[data.name]
    return made(p, *inputs), inputs


def train(p: Parameters, data: spec.Data, count: gx.Node) -> tuple[gx.Node, list[gx.Node]]:
    """The loss of ``transformer_train`` over placeholders for a source, a target and its labels."""
    shape = data.xs[0][0].shape
    source, target, y = (gx.placeholder(name, shape, "int64") for name in ("x", "target", "y"))
    return gx.mean(gx.sparse_softmax_cross_entropy(y, transformer(p, source, target, count))), [source, target, y]
