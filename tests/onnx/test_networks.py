"""Whole networks for images in onnxruntime: predictions, ten steps of training, and how few transposes are left."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

import graphc as gx
from graphc import applications, layers


def lenet(**said):
    """With dropout before its last layer."""
    body = applications.LeNet5(include_top=False, **said)
    x = layers.Flatten(data_format=said.get("data_format"))(body.output)
    x = layers.Dropout(0.4)(layers.Dense(84, activation="tanh")(layers.Dense(120, activation="tanh")(x)))
    return gx.Model(body.input, layers.Dense(4, activation="softmax")(x))


NETWORKS = {
    "LeNet5": (lenet, (16, 16, 1), 0.05, 9),
    "ResNet20": (lambda **said: applications.CifarResNet(20, classes=4, **said), (8, 8, 3), 0.01, 77),
    "MobileNetV2": (lambda **said: applications.MobileNetV2(alpha=0.1, classes=4, **said), (32, 32, 3), 2e-6, 175),
}
"""Network, shape of its images, learning rate, and how many transposes a step of training has.

Gradients of MobileNetV2 with random weights are large: a rate that makes the loss fall evenly is small.
"""


def build(name, first=False):
    gx.set_seed(0)
    make, (height, width, channels), rate, _ = NETWORKS[name]
    shape = (channels, height, width) if first else (height, width, channels)
    model = make(input_shape=shape, data_format="channels_first" if first else "channels_last")
    optimizer = gx.optimizers.SGD(rate, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", backend="reference")
    x = np.random.default_rng(1).standard_normal((8, height, width, channels)).astype(np.float32)
    return model, np.ascontiguousarray(np.moveaxis(x, 3, 1)) if first else x, np.arange(8) % 4


def widen(model, factor):
    """Make kernels larger: what batch normalization divides by is not near 0, and without it signals reach the end."""
    for weight in model.weights:
        if weight.label.endswith("kernel") and not weight.label.startswith("predictions"):
            weight.value = weight.value * factor


def kinds(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("first", [False, True], ids=["channels_last", "channels_first"])
@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_agree_with_one_transpose(tmp_path, name, first):
    model, x, _ = build(name, first)
    if name == "MobileNetV2":
        widen(model, 3)
    path = tmp_path / "network.onnx"
    model.export(path)
    program = model.programs["predict"]
    report = gx.onnx.verify(path, program, inputs={program.input_names[0]: x})
    assert report.ok, str(report)
    assert max(found.error for found in report.outputs) < 1e-4
    assert np.ptp(program.call([x])[0], axis=0).max() > 1e-3  # images differ in what comes of them
    assert kinds(path)["Transpose"] == (0 if first or name == "LeNet5" else 1)  # one channel is only reshaped


@pytest.mark.parametrize("name", NETWORKS)
def test_ten_steps_of_training_agree(tmp_path, name):
    model, x, y = build(name)
    if name == "MobileNetV2":
        widen(model, 6)
    path = tmp_path / "network.onnx"
    model.export(path, training=True)
    program = model.programs["train"]
    report = gx.onnx.verify(path, program, steps=10, inputs={program.input_names[0]: x, "target": y})
    assert report.problem is None
    assert max(found.error for found in report.outputs) < 1e-4, str(report)
    assert max(found.error for found in report.states) < 1e-3, str(report)
    losses = [float(program.call([x, y])[0]) for _ in range(3)]
    assert losses[-1] < 0.97 * losses[0] or name == "LeNet5"  # which has dropout
    convolutions = sum("Conv" in type(layer).__name__ for layer in model.layers)
    # At most one for each input and output that is an image or a kernel, or a kernel's state, and one before Flatten.
    # Each kernel comes in once and its gradient goes out; that gradient is a convolution of the images and what comes
    # back to them, which both have their samples in the place of channels.
    transposes = kinds(path)["Transpose"]
    graph = onnx.load(path).graph
    turned = sum(len(value.type.tensor_type.shape.dim) > 2 for value in (*graph.input, *graph.output))
    assert transposes <= turned + (name == "LeNet5")
    assert transposes <= 4 * convolutions + 1
    assert transposes == NETWORKS[name][3]
