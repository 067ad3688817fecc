"""Models of the GPU benchmark that are made of attention, with PyTorch's sizes, dropout, shared tables and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import TINY

import graphc as gx

rng = np.random.default_rng(1)
Linear = Callable[[gx.Node], gx.Node]
Attention = Callable[[gx.Node, gx.Node, gx.Node], gx.Node]


class Weights:
    """Parameters as they are made, all of one type."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.made: list[gx.Parameter] = []

    def add(self, value: np.ndarray) -> gx.Parameter:
        """One more."""
        element = gx.placeholder("like", (), self.dtype).dtype.numpy
        self.made.append(gx.parameter(f"w{len(self.made)}", value.astype(element)))
        return self.made[-1]

    def linear(self, inputs: int, outputs: int) -> Linear:
        """A layer with weights [in, out] and bias, drawn as PyTorch draws them."""
        bound = inputs**-0.5
        weight = self.add(rng.uniform(-bound, bound, (inputs, outputs)))
        bias = self.add(rng.uniform(-bound, bound, outputs))
        return lambda x: x @ weight + bias

    def layer_norm(self, width: int) -> Linear:
        """Rows with mean 0 and variance 1, scaled and moved; computed in float32."""
        scale, shift = self.add(np.ones(width)), self.add(np.zeros(width))

        def normalize(x: gx.Node) -> gx.Node:
            wide = gx.cast(x, "float32")
            centred = wide - gx.mean(wide, axis=-1, keepdims=True)
            normal = centred * gx.rsqrt(gx.mean(gx.square(centred), axis=-1, keepdims=True) + 1e-5)
            return gx.cast(normal * gx.cast(scale, "float32") + gx.cast(shift, "float32"), self.dtype)

        return normalize


def split_heads(x: gx.Node, heads: int) -> gx.Node:
    """(batch, time, width) as (batch, heads, time, width of a head)."""
    batch, time, width = x.shape
    return gx.transpose(gx.reshape(x, (batch, time, heads, width // heads)), (0, 2, 1, 3))


def join_heads(x: gx.Node) -> gx.Node:
    """The other way round."""
    batch, heads, time, width = x.shape
    return gx.reshape(gx.transpose(x, (0, 2, 1, 3)), (batch, time, heads * width))


def attend(q: gx.Node, k: gx.Node, v: gx.Node, heads: int, causal: bool = False) -> gx.Node:
    """Attention of several heads."""
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    return join_heads(gx.scaled_dot_product_attention(q, k, v, causal=causal))


def sinusoid(time: int, width: int) -> np.ndarray:
    """Positions as sines and cosines."""
    angles = np.arange(time)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack((np.sin(angles), np.cos(angles)), -1).reshape(time, width).astype(np.float32)


def transformer(count: gx.Node) -> tuple[gx.Node, list[gx.Node], list[gx.Parameter], list[np.ndarray]]:
    """The base model of "Attention Is All You Need": its loss, inputs, weights and a batch.

    Post-norm, one table for both languages and the output, dropout 0.1 behind blocks and embeddings, labels smoothed by
    0.1.
    """
    batch, time = (2, 8) if TINY else (64, 128)
    width, heads, layers, inner, words = (32, 4, 1, 64, 100) if TINY else (512, 8, 6, 2048, 32000)
    w = Weights("float32")
    table = w.add(rng.standard_normal((words, width)) * width**-0.5)
    seed, step, streams = gx.constant(np.uint32(0)), gx.cast(count, "uint32"), iter(range(1, 100))

    def drop(x: gx.Node) -> gx.Node:
        return gx.dropout(x, 0.1, seed, step, stream=next(streams))

    def embed(ids: gx.Node) -> gx.Node:
        return drop(gx.take(table, ids, axis=0) * width**0.5 + gx.constant(sinusoid(time, width)))

    def block(x: gx.Node, behind: gx.Node) -> gx.Node:
        return w.layer_norm(width)(x + drop(behind))

    def attention(x: gx.Node, causal: bool) -> gx.Node:
        q, k, v = gx.split(w.linear(width, 3 * width)(x), 3, axis=-1)
        return w.linear(width, width)(attend(q, k, v, heads, causal))

    def across(y: gx.Node, memory: gx.Node) -> gx.Node:
        q = w.linear(width, width)(y)
        k, v = gx.split(w.linear(width, 2 * width)(memory), 2, axis=-1)
        return w.linear(width, width)(attend(q, k, v, heads))

    def forward(x: gx.Node) -> gx.Node:
        hidden = gx.relu(w.linear(width, inner)(x))
        return w.linear(inner, width)(hidden)

    source, target, labels = (gx.placeholder(name, (batch, time), "int64") for name in ("source", "target", "labels"))
    x = embed(source)
    for _ in range(layers):
        x = block(x, attention(x, causal=False))
        x = block(x, forward(x))
    y = embed(target)
    for _ in range(layers):
        y = block(y, attention(y, causal=True))
        y = block(y, across(y, x))
        y = block(y, forward(y))
    logs = gx.log_softmax(y @ gx.transpose(table), axis=-1)
    true = gx.squeeze(gx.take_along_axis(logs, gx.expand_dims(labels, 2), axis=2), 2)
    loss = -(0.9 * gx.mean(true) + 0.1 * gx.mean(logs))
    data = [rng.integers(0, words, (batch, time)) for _ in range(3)]
    return loss, [source, target, labels], w.made, data


def gpt2() -> tuple[gx.Node, list[gx.Node], list[gx.Parameter], list[np.ndarray]]:
    """GPT-2 small, trained on a fixed batch: its loss, inputs, weights and that batch.

    The table has rows that no token has, up to a multiple of 64, and their scores are so low that they have no share:
    products of odd sizes are slow.
    """
    batch, time = (2, 16) if TINY else (8, 1024)
    width, heads, layers, words = (32, 4, 2, 100) if TINY else (768, 12, 12, 50257)
    rows = -(-words // 64) * 64
    w = Weights("float32")
    table, positions = w.add(rng.standard_normal((rows, width)) * 0.02), w.add(rng.standard_normal((time, width)))
    no_token = gx.constant(np.where(np.arange(rows) < words, 0.0, -1e9).astype(np.float32))
    x, labels = (gx.placeholder(name, (batch, time), "int64") for name in ("tokens", "labels"))
    y = gx.take(table, x, axis=0) + positions
    for _ in range(layers):
        q, k, v = gx.split(w.linear(width, 3 * width)(w.layer_norm(width)(y)), 3, axis=-1)
        y = y + w.linear(width, width)(attend(q, k, v, heads, causal=True))
        inner = gx.gelu(w.linear(width, 4 * width)(w.layer_norm(width)(y)), approximate="tanh")
        y = y + w.linear(4 * width, width)(inner)
    logits = w.layer_norm(width)(y) @ gx.transpose(table) + no_token
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, logits))
    return loss, [x, labels], w.made, [rng.integers(0, words, (batch, time)) for _ in range(2)]


def decoder() -> tuple[gx.Node, list[gx.Node], list[np.ndarray], int]:
    """GPT-2 small in bfloat16 behind a prompt whose keys and values are there: all tokens in one call.

    Returns:
        The tokens, the inputs, the arrays for them, and how many tokens there are.
    """
    room, prompt, new = (16, 4, 4) if TINY else (256, 128, 128)
    width, heads, layers, words, places = (32, 4, 2, 100, 16) if TINY else (768, 12, 12, 50257, 1024)
    dtype = "float32" if TINY else "bfloat16"
    w = Weights(dtype)
    table, positions = w.add(rng.standard_normal((words, width)) * 0.02), w.add(rng.standard_normal((places, width)))
    parts: list[dict[str, Linear]] = [
        {
            "ln1": w.layer_norm(width), "qkv": w.linear(width, 3 * width), "out": w.linear(width, width),
            "ln2": w.layer_norm(width), "in": w.linear(width, 4 * width), "back": w.linear(4 * width, width),
        }
        for _ in range(layers)
    ]  # fmt: skip
    last = w.layer_norm(width)

    def step(carry: Any, _: None) -> tuple[Any, gx.Node]:
        token, at, held = carry
        x = gx.expand_dims(gx.take(table, token, axis=0) + gx.take(positions, at, axis=0), 1)
        seen = gx.expand_dims(gx.arange(room) <= at, 0)
        grown: list[list[gx.Node]] = []
        for part, pair in zip(parts, held, strict=True):
            q, k, v = (split_heads(y, heads) for y in gx.split(part["qkv"](part["ln1"](x)), 3, axis=-1))
            grown.append([gx.update_slice(old, y, at, axis=2) for old, y in zip(pair, (k, v), strict=True)])
            x = x + part["out"](join_heads(gx.scaled_dot_product_attention(q, *grown[-1], mask=seen)))
            x = x + part["back"](gx.gelu(part["in"](part["ln2"](x)), approximate="tanh"))
        token = gx.argmax(last(x)[:, 0] @ gx.transpose(table), axis=-1)
        return (token, at + 1, grown), token

    element = table.dtype.numpy
    shape = (1, heads, room, width // heads)
    inputs = [gx.placeholder(f"held{number}", shape, dtype) for number in range(2 * layers)]
    pairs = [inputs[2 * k : 2 * k + 2] for k in range(layers)]
    _, tokens = gx.scan(step, (gx.zeros((1,), "int64"), gx.constant(np.int64(prompt)), pairs), length=new)
    arrays = [(rng.standard_normal(shape) * 0.5).astype(element) for _ in inputs]
    return tokens, inputs, arrays, new
