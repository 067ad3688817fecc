"""The image models of the benchmark, channels last, through public names of graphc alone.

Data and weights come in torch's layouts. Weights are turned once, while they are loaded; images in the graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import spec

import graphc as gx

Parameters = dict[str, gx.Parameter]
EPSILON, MOMENTUM = 1e-5, 0.1


class State:
    """Running statistics of batch normalization, and what a step of training makes of them.

    Attributes:
        values: the parameters that hold them.
        updates: their next values; empty unless ``training``.
    """

    def __init__(self, data: spec.Data, training: bool) -> None:
        self.values = {name: gx.parameter(name, value) for name, value in data.state.items()}
        self.updates: dict[gx.Parameter, gx.Node] = {}
        self.training = training


def layout(name: str, value: np.ndarray) -> np.ndarray:
    """Convolutions as (*window, channels, filters), dense weights as [in, out]; the first reads channels last."""
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0))
    if name == "fc1.weight" and value.shape[1] in FLAT:
        channels, side = FLAT[value.shape[1]]
        value = value.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(value.shape)
    return np.ascontiguousarray(value.T) if value.ndim == 2 else value


FLAT = {400: (16, 5), 25088: (512, 7)}
"""Of a dense layer behind images, by its inputs: channels and height."""


def load(data: spec.Data) -> Parameters:
    """The given initial values."""
    return {name: gx.parameter(name, layout(name, value)) for name, value in data.params.items()}


def images(x: gx.Node) -> gx.Node:
    """From channels first."""
    return gx.transpose(x, (0, 2, 3, 1))


def dense(p: Parameters, name: str, x: gx.Node) -> gx.Node:
    """A layer of ``spec.Build.dense``."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def flat(x: gx.Node) -> gx.Node:
    """All of an image in one row."""
    return gx.reshape(x, (x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]))


def lenet(p: Parameters, s: State, x: gx.Node) -> gx.Node:
    """LeNet-5 with relu and the largest of each window."""
    x = images(x)
    for name, padding in (("conv1", 2), ("conv2", 0)):
        x = gx.relu(gx.conv(x, p[f"{name}.weight"], padding=(padding, padding)) + p[f"{name}.bias"])
        x = gx.max_pool(x, 2)
    x = gx.relu(dense(p, "fc1", flat(x)))
    return dense(p, "fc3", gx.relu(dense(p, "fc2", x)))


def batch_norm(p: Parameters, s: State, name: str, x: gx.Node) -> gx.Node:
    """Statistics of the batch in training, running ones otherwise."""
    scale, shift = p[f"{name}.weight"], p[f"{name}.bias"]
    mean, variance = s.values[f"{name}.running_mean"], s.values[f"{name}.running_var"]
    if s.training:
        running = mean, variance
        mean, variance = gx.mean(x, axis=(0, 1, 2)), gx.var(x, axis=(0, 1, 2))
        count = gx.size_of(x.shape[0] * x.shape[1] * x.shape[2], "float32")
        for old, new in zip(running, (mean, variance * (count / (count - 1))), strict=True):
            s.updates[old] = (1 - MOMENTUM) * old + MOMENTUM * gx.stop_gradient(new)
    return (x - mean) * (gx.rsqrt(variance + EPSILON) * scale) + shift


def block(p: Parameters, s: State, name: str, x: gx.Node, stride: int) -> gx.Node:
    """Two convolutions and a shortcut."""
    y = gx.conv(x, p[f"{name}.conv1.weight"], stride, padding=(1, 1))
    y = gx.relu(batch_norm(p, s, f"{name}.bn1", y))
    y = batch_norm(p, s, f"{name}.bn2", gx.conv(y, p[f"{name}.conv2.weight"], padding=(1, 1)))
    if f"{name}.down.0.weight" in p:
        x = batch_norm(p, s, f"{name}.down.1", gx.conv(x, p[f"{name}.down.0.weight"], stride))
    return gx.relu(y + x)


def resnet(p: Parameters, s: State, x: gx.Node) -> gx.Node:
    """ResNet-20 for small images, ResNet-18 for large ones, by their first kernel."""
    large = p["conv1.weight"].shape[0] == 7
    stages, blocks, _, _ = spec.RESNET18 if large else spec.RESNET20
    x = gx.conv(images(x), p["conv1.weight"], 2 if large else 1, padding=(3, 3) if large else (1, 1))
    x = gx.relu(batch_norm(p, s, "bn1", x))
    if large:
        x = gx.max_pool(x, 3, 2, padding=(1, 1))
    for k, (_, stride, _) in enumerate(stages, 1):
        for j in range(blocks):
            x = block(p, s, f"layer{k}.{j}", x, stride if j == 0 else 1)
    return dense(p, "fc", gx.mean(x, axis=(1, 2)))


def vgg(p: Parameters, s: State, x: gx.Node) -> gx.Node:
    """VGG-16."""
    x, k = images(x), 0
    for layer in spec.VGG:
        if layer == "M":
            x = gx.max_pool(x, 2)
        else:
            x = gx.relu(gx.conv(x, p[f"conv{k}.weight"], padding=(1, 1)) + p[f"conv{k}.bias"])
            k += 1
    x = gx.relu(dense(p, "fc1", flat(x)))
    return dense(p, "fc3", gx.relu(dense(p, "fc2", x)))


FORWARD = {"lenet_train": lenet, "cifar_resnet_train": resnet, "resnet18_infer": resnet, "vgg16_infer": vgg}


Adam = Callable[[gx.Node, list[gx.Parameter], gx.Parameter], dict[gx.Parameter, gx.Node]]


def build(data: spec.Data, adam: Adam) -> Callable[[], float | np.ndarray]:
    """One training step on the next batch, or one inference."""
    training = spec.is_train(data.name)
    p, state = load(data), State(data, training)
    x, y = gx.placeholder("x", ("batch", *data.xs[0][0].shape[1:])), gx.placeholder("y", ("batch",), "int64")
    outputs = FORWARD[data.name](p, state, x)
    if not training:
        infer = gx.compile({"y": outputs}, inputs=[x], backend="numba")
        return lambda: infer(x=data.xs[0][0])["y"]
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, outputs))
    updates = state.updates | adam(loss, list(p.values()), gx.parameter("adam.count", np.float32(0)))
    step = gx.compile({"loss": loss}, inputs=[x, y], updates=updates, backend="numba", training=True)
    i = 0

    def run() -> float:
        nonlocal i
        out = step(x=data.xs[i % len(data.xs)][0], y=data.ys[i % len(data.ys)])
        i += 1
        return float(out["loss"])

    return run
