"""graphc on the workloads of the GPU benchmark. Usage: graphc_peer.py WORKLOAD...; results go where common.py says.

A step's time is the median over blocks of steps, each ended by waiting for the device, so that the host's share counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from common import TINY, record, spread
from graphc_models import decoder, gpt2, transformer
from graphc_resnet import ResNet

import graphc as gx
from graphc.backends.cupy import CupyBackend, cudnn, first_gpu
from graphc.errors import BackendError

rng = np.random.default_rng(0)
FP32, TF32 = CupyBackend(), CupyBackend(tf32=True)
MIXED = "mixed_bfloat16"
CUDNN = "graphc with cuDNN"
Step = Callable[[], Any]
Build = Callable[[], tuple[Step, dict[str, Any]]]


def on_device(array: np.ndarray) -> Any:
    """A copy on the device that programs take as it is."""
    device = first_gpu()
    made = device.empty(array.shape, array.dtype)
    device.upload(device.address_of(made), np.ascontiguousarray(array))
    device.synchronize()
    return made


def linear(rows: int, columns: int, name: str) -> tuple[gx.Parameter, ...]:
    """Weight [in, out] and bias, as PyTorch draws them."""
    bound = rows**-0.5
    weight, bias = rng.uniform(-bound, bound, (rows, columns)), rng.uniform(-bound, bound, columns)
    made = {"weight": weight, "bias": bias}
    return tuple(gx.parameter(f"{name}.{part}", value.astype(np.float32)) for part, value in made.items())


def adam(loss: gx.Node, parameters: list[gx.Parameter], rate: float = 1e-4) -> dict[gx.Parameter, gx.Node]:
    """Adam with its moments corrected for their start at zero."""
    count = gx.parameter("count", np.float32(0))
    step = count + 1
    updates: dict[gx.Parameter, gx.Node] = {count: step}
    for p, gradient in zip(parameters, gx.grad(loss, parameters), strict=True):
        m, v = (gx.parameter(f"{p.name}.{moment}", np.zeros_like(p.value)) for moment in "mv")
        updates[m] = 0.9 * m + 0.1 * gradient
        updates[v] = 0.999 * v + 0.001 * gradient**2
        corrected = updates[m] / (1 - 0.9**step), updates[v] / (1 - 0.999**step)
        updates[p] = p - rate * corrected[0] / (gx.sqrt(corrected[1]) + 1e-8)
    return updates


def mlp(backend: CupyBackend) -> tuple[Step, dict[str, Any]]:
    """784-512-256-10 on a fixed batch of 128: forward, loss, backward, Adam."""
    x, y = gx.placeholder("x", ("batch", 784)), gx.placeholder("y", ("batch",), "int64")
    parameters: list[gx.Parameter] = []
    h: gx.Node = x
    for number, sizes in enumerate(((784, 512), (512, 256), (256, 10))):
        pair = linear(*sizes, f"layer{number}")
        parameters += pair
        h = (gx.relu(h) if number else h) @ pair[0] + pair[1]
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, h))
    program = gx.compile({"loss": loss}, [x, y], adam(loss, parameters), backend=backend, training=True)
    data = [on_device(rng.standard_normal((128, 784)).astype(np.float32)), on_device(rng.integers(0, 10, 128))]
    return lambda: program.start(data), {"program": program}


def elementwise(backend: CupyBackend, dtype: str) -> tuple[Step, dict[str, Any]]:
    """layernorm(gelu(x * w + b) + r) on 16384 x 8192, computed in float32; the bytes of x, r and the result."""
    rows, columns = (16, 64) if TINY else (16384, 8192)
    x, r = (gx.placeholder(name, ("rows", columns), dtype) for name in "xr")
    element = x.dtype.numpy
    given = (gx.parameter(name, rng.standard_normal(columns).astype(element)) for name in "wbge")
    w, b, g, e = (gx.cast(parameter, "float32") for parameter in given)
    z = gx.gelu(gx.cast(x, "float32") * w + b, approximate="tanh") + gx.cast(r, "float32")
    centred = z - gx.mean(z, axis=-1, keepdims=True)
    normal = centred * gx.rsqrt(gx.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    program = gx.compile({"out": gx.cast(normal * g + e, dtype)}, [x, r], backend=backend)
    data = rng.standard_normal((rows, columns), np.float32).astype(element)
    arrays, result = [on_device(data), on_device(data)], on_device(data)
    return lambda: program.call(arrays, [result]), {"program": program, "bytes": 3 * data.nbytes}


def lstm(backend: CupyBackend, precision: str | None = None) -> tuple[Step, dict[str, Any]]:
    """Two layers of 512 on sequences of 128 words of 10000, batch 64, and the next word of each."""
    steps, batch, words, size, hidden = (4, 2, 50, 8, 16) if TINY else (128, 64, 10000, 256, 512)
    x, y = (gx.placeholder(name, ("time", "batch"), "int64") for name in "xy")
    table = gx.parameter("table", rng.standard_normal((words, size)).astype(np.float32))
    parameters = [table]
    h = gx.take(table, x, axis=0)
    for number, inputs in enumerate((size, hidden)):
        into, bias = linear(inputs, 4 * hidden, f"layer{number}")
        within, _ = linear(hidden, 4 * hidden, f"layer{number}.hidden")
        parameters += [into, bias, within]

        def cell(carry: Any, now: gx.Node, within: gx.Node = within) -> tuple[Any, gx.Node]:
            before, memory = carry
            z = now + before @ within
            i, f, g, o = (z[:, k * hidden : (k + 1) * hidden] for k in range(4))
            memory = gx.sigmoid(f) * memory + gx.sigmoid(i) * gx.tanh(g)
            after = gx.sigmoid(o) * gx.tanh(memory)
            return (after, memory), after

        zeros = gx.zeros_like(h[0, :, :1] + gx.zeros((hidden,)))
        _, h = gx.scan(cell, (zeros, zeros), h @ into + bias)
    out, bias = linear(hidden, words, "out")
    parameters += [out, bias]
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, h @ out + bias))
    updates = adam(loss, parameters)
    program = gx.compile({"loss": loss}, [x, y], updates, backend=backend, training=True, precision=precision)
    data = [on_device(rng.integers(0, words, (steps, batch))) for _ in range(2)]
    return lambda: program.start(data), {"program": program, "slow": True}


def attention_model(backend: CupyBackend, precision: str | None = None) -> tuple[Step, dict[str, Any]]:
    """The base Transformer, trained on a fixed batch."""
    count = gx.parameter("dropped", np.float32(0))
    loss, inputs, weights, arrays = transformer(count)
    updates = adam(loss, weights) | {count: count + 1}
    program = gx.compile({"loss": loss}, inputs, updates, backend=backend, training=True, precision=precision)
    data = [on_device(array) for array in arrays]
    return lambda: program.start(data), {"program": program, "slow": True, "tgt_tokens_per_s": arrays[0].size}


def language_model(backend: CupyBackend, precision: str) -> tuple[Step, dict[str, Any]]:
    """GPT-2 small, trained on a fixed batch."""
    loss, inputs, weights, arrays = gpt2()
    program = gx.compile(
        {"loss": loss}, inputs, adam(loss, weights), backend=backend, training=True, precision=precision
    )
    data = [on_device(array) for array in arrays]
    return lambda: program.start(data), {"program": program, "slow": True, "tokens_per_s": arrays[0].size}


def image_model(dtype: str, convolution: str) -> tuple[Step, dict[str, Any]]:
    """ResNet-50, trained on a fixed batch; ``convolution`` says who may convolve."""
    if convolution != "graphc" and not cudnn.installed():
        raise BackendError("cuDNN is not installed", remedy=cudnn.REMEDY)
    backend = CupyBackend(tf32=True, convolution=convolution)
    model = ResNet(dtype)
    loss, inputs, arrays = model.loss()
    updates = adam(loss, model.weights) | model.running
    program = gx.compile({"loss": loss}, inputs, updates, backend=backend, training=True)
    data = [on_device(array) for array in arrays]
    return lambda: program.start(data), {"program": program, "slow": True, "images_per_s": len(arrays[0])}


def decode(backend: CupyBackend) -> tuple[Step, dict[str, Any]]:
    """GPT-2 small, one greedy token after another; the time is that of one token."""
    tokens, inputs, arrays, count = decoder()
    program = gx.compile({"tokens": tokens}, inputs, backend=backend)
    data = [on_device(array) for array in arrays]
    return lambda: program.start(data), {"program": program, "slow": True, "calls": count}


def attention(backward: bool) -> tuple[Step, dict[str, Any]]:
    """Causal attention of 12 heads on 2,048 tokens, batch 8, in bfloat16; backward, the result and all three gradients.

    As many operations are counted as the products would have without what causality hides; three and a half times as
    many with gradients, whichever are computed again.
    """
    shape = (1, 2, 16, 8) if TINY else (8, 12, 2048, 64)
    batch, heads, time_, width = shape
    q, k, v, g = (gx.placeholder(name, shape, "bfloat16") for name in "qkvg")
    y = gx.scaled_dot_product_attention(q, k, v, causal=True)
    outputs, inputs = {"y": y}, [q, k, v]
    if backward:
        outputs |= dict(zip(("dq", "dk", "dv"), gx.vjp([y], [q, k, v], [g]), strict=True))
        inputs.append(g)
    program = gx.compile(outputs, inputs, backend=FP32)
    arrays = [on_device(rng.standard_normal(shape).astype(q.dtype.numpy)) for _ in inputs]
    results = [on_device(np.zeros(shape, q.dtype.numpy)) for _ in outputs]
    flops = 2 * batch * heads * time_ * time_ * width * (3.5 if backward else 1)
    return lambda: program.call(arrays, results), {"program": program, "flops": flops}


Row = tuple[str, str, Build] | tuple[str, str, Build, str]
"""A workload, its types, what makes it, and by whom it is computed."""
WORKLOADS: dict[str, list[Row]] = {
    "mlp": [("mlp_train", "tf32", lambda: mlp(TF32)), ("mlp_train", "fp32", lambda: mlp(FP32))],
    "elementwise": [
        ("fused_elementwise", "fp32", lambda: elementwise(FP32, "float32")),
        ("fused_elementwise", "bf16", lambda: elementwise(FP32, "bfloat16")),
    ],
    "lstm_fp32": [("lstm_train", "fp32", lambda: lstm(FP32))],
    "lstm_tf32": [("lstm_train", "tf32", lambda: lstm(TF32))],
    "lstm_bf16": [("lstm_train", "bf16", lambda: lstm(TF32, MIXED))],
    "transformer_tf32": [("transformer_base_train", "tf32", lambda: attention_model(TF32))],
    "transformer_bf16": [("transformer_base_train", "bf16", lambda: attention_model(TF32, MIXED))],
    "gpt2": [("gpt2_small_train", "bf16", lambda: language_model(TF32, MIXED))],
    "resnet_bf16": [
        ("resnet50_train", "bf16", lambda: image_model("bfloat16", "graphc")),
        ("resnet50_train", "bf16", lambda: image_model("bfloat16", "measured"), CUDNN),
    ],
    "resnet_tf32": [
        ("resnet50_train", "tf32", lambda: image_model("float32", "graphc")),
        ("resnet50_train", "tf32", lambda: image_model("float32", "measured"), CUDNN),
    ],
    "decode": [("gpt_decode", "bf16", lambda: decode(FP32))],
    "attention": [
        ("attention_fwd", "bf16", lambda: attention(backward=False)),
        ("attention_fwd_bwd", "bf16", lambda: attention(backward=True)),
    ],
}


def measure(step: Step, slow: bool) -> Iterator[float]:
    """Seconds of one step, block by block."""
    device = first_gpu()
    count = 2 if TINY else 10 if slow else 200
    for _ in range(3 + 5):
        device.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        device.synchronize()
        yield (time.perf_counter() - start) / count


def run(row: Row) -> None:
    """Measure one row and record it."""
    name, dtype, build = row[:3]
    impl = row[3] if len(row) > 3 else "graphc"
    start = time.perf_counter()
    step, facts = build()
    step()
    first_gpu().synchronize()
    first_s = time.perf_counter() - start
    times = [seconds / facts.get("calls", 1) for seconds in measure(step, facts.get("slow", False))][3:]
    middle, low, high = spread(times)
    more: dict[str, Any] = {"steps_per_s": round(1 / middle), "first_call_s": round(first_s, 2)}
    for figure in ("tgt_tokens_per_s", "tokens_per_s", "images_per_s"):
        if figure in facts:
            more[figure] = round(facts[figure] / middle)
    if "calls" in facts:
        more = {"tokens_per_s": round(1 / middle), "first_call_s": round(first_s, 2)}
    if "flops" in facts:
        more = {"tflops": round(facts["flops"] / middle / 1e12, 1), "first_call_s": round(first_s, 2)}
    if "bytes" in facts:
        more = {"gbs": round(facts["bytes"] / middle / 1e9), "first_call_s": round(first_s, 2)}
    record(
        "peer", name, impl=impl, dtype=dtype, ok=True, ms=round(1e3 * middle, 4), p10=round(1e3 * low, 4),
        p90=round(1e3 * high, 4), **more,
    )  # fmt: skip


def main(names: list[str]) -> None:
    """Measure the workloads that are named, all by default."""
    reason = FP32.available()
    for name in names or WORKLOADS:
        for row in WORKLOADS[name]:
            try:
                if reason is not None:
                    raise BackendError(reason)
                run(row)
            except gx.GraphcError as error:
                impl = row[3] if len(row) > 3 else "graphc"
                record("peer", row[0], impl=impl, dtype=row[1], ok=False, error=str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
