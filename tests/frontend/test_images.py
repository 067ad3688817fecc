"""Layers over images in models: training, statistics of batches, both layouts, files, ONNX, and what mistakes say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphc as gx
from graphc import layers
from tests.frontend.running import evaluate, f32, placeholder_for, run_layer

rng = np.random.default_rng(0)


def small_network(data_format="channels_last"):
    """A convolution, batch normalization, a depthwise convolution, both poolings, dropout, dense layers."""
    said = {"data_format": data_format}
    axis = -1 if data_format == "channels_last" else 1
    gx.set_seed(3)
    return gx.Sequential(
        [
            gx.Input((8, 8, 2) if axis == -1 else (2, 8, 8)),
            layers.Conv2D(4, 3, padding="same", use_bias=False, **said),
            layers.BatchNormalization(axis, momentum=0.8),
            layers.ReLU(),
            layers.MaxPooling2D(**said),
            layers.DepthwiseConv2D(3, padding="same", activation="relu", **said),
            layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", **said),
            layers.Flatten(**said),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax"),
        ]
    )


def images(count):
    """Which third of an image is bright."""
    y = rng.integers(0, 3, count)
    x = 0.3 * rng.standard_normal((count, 8, 8, 2))
    for image, label in zip(x, y, strict=True):
        image[2 * label : 2 * label + 3] += 1
    return x.astype(np.float32), y


def test_a_small_network_learns_is_saved_and_gives_the_same_in_both_layouts(tmp_path):
    x, y = images(120)
    model = small_network()
    model.compile(gx.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=8, batch_size=32, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.9
    first = small_network("channels_first")
    first.set_weights(model.get_weights())
    found = first.predict(x.transpose(0, 3, 1, 2), verbose=0)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model")
    again = gx.load_model(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("training", [False, True])
def test_the_network_and_its_file_agree(tmp_path, training):
    x, y = images(64)
    model = small_network()
    model.compile(gx.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, batch_size=16, verbose=0)
    path = tmp_path / "network.onnx"
    model.export(path, training=training)
    program = model.programs["train" if training else "predict"]
    report = gx.onnx.verify(path, program, steps=10 if training else 1)
    assert report.ok, str(report)
    assert all(found.error < (1e-3 if training else 1e-4) for found in (*report.outputs, *report.states))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert {"Conv", "MaxPool"} <= set(kinds)
    assert "Scan" not in kinds
    assert kinds.count("Conv") == 3 if not training else kinds.count("ConvTranspose") == 2


def statistics(x, layer):
    node = placeholder_for("x", x)
    evaluate([layer(node)], [(node, x)], training=True, updates=layer.updates)
    return [weight.value for weight in layer.non_trainable_weights]


def test_batch_normalization_in_training_and_elsewhere():
    x = f32(rng, 6, 4, 3) * 2 + 1
    layer = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    found = run_layer(layer, x, training=True)
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean.value, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.value, 0.9 + 0.1 * variance, rtol=1e-5)
    wanted = (x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-3)
    np.testing.assert_allclose(run_layer(layer, x), wanted, rtol=1e-4, atol=1e-5)


def test_batch_normalization_called_twice_chains_its_updates():
    x, z = f32(rng, 6, 3), f32(rng, 6, 3) + 2
    layer = layers.BatchNormalization(momentum=0.5)
    nodes = [placeholder_for("x", x), placeholder_for("z", z)]
    outputs = [layer(node) for node in nodes]
    evaluate(outputs, list(zip(nodes, (x, z), strict=True)), training=True, updates=layer.updates)
    np.testing.assert_allclose(layer.moving_mean.value, 0.25 * x.mean(0) + 0.5 * z.mean(0), rtol=1e-4, atol=1e-6)


def test_frozen_batch_normalization_uses_and_leaves_the_moving_statistics():
    x, y = images(16)
    model = small_network()
    model.layers[1].trainable = False
    model.compile(gx.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = model.layers[1].get_weights()
    model.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(before, model.layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    layer = layers.BatchNormalization(trainable=False)
    image = f32(rng, 4, 3)
    np.testing.assert_allclose(run_layer(layer, image, training=True), image / np.sqrt(1.001), rtol=1e-5)
    assert layer.updates == {}


def test_groups_of_channels_are_normalized_alone():
    x = f32(rng, 2, 5, 4) * 3 + 1
    for groups in (1, 2, 4):
        apart = x.reshape(2, 5, groups, 4 // groups)
        wanted = (apart - apart.mean((1, 3), keepdims=True)) / np.sqrt(apart.var((1, 3), keepdims=True) + 1e-3)
        for given in {groups, -1 if groups == 4 else groups}:
            found = run_layer(layers.GroupNormalization(given), x)
            np.testing.assert_allclose(found, wanted.reshape(x.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: layers.Conv1D(4, 3)(x), "takes 3 axes .batch, length, channels., its input has 4"),
        (lambda x: layers.Conv2D(4, 3, groups=2)(x), "3 channels do not divide by 2 groups"),
        (lambda x: layers.Conv2D(0, 3)(x), "positive whole number of filters"),
        (lambda x: layers.Conv2D(4, 3, padding="causal")(x), "no padding 'causal' here"),
        (lambda x: layers.Conv2D(4, (3, 3, 3))(x), "kernel_size is"),
        (lambda x: layers.Conv2D(4, 9)(x), "over 9 elements does not fit into 8"),
        (lambda x: layers.MaxPooling2D(padding="full")(x), "no padding 'full' here"),
        (lambda x: layers.GroupNormalization(2)(x), "3 channels do not divide by 2 groups"),
        (lambda x: layers.UpSampling2D(interpolation="cubic")(x), "no interpolation 'cubic'"),
        (lambda x: layers.Cropping2D(4)(x), "cuts 4 and 4 off 8"),
        (lambda x: layers.Conv2D(4, 3, data_format="last")(x), "no data_format is called 'last'"),
        (lambda x: layers.BatchNormalization(momentum=2)(x), "momentum is 2"),
        (lambda x: layers.AdaptiveMaxPooling2D(2)(gx.placeholder("z", (2, "h", 8, 3))), "sizes that must be known"),
    ],
)
def test_mistakes_are_told(make, says):
    with pytest.raises(gx.GraphcError, match=says):
        make(gx.placeholder("x", (2, 8, 8, 3)))


def transposes(path):
    return [list(node.attribute[0].ints) for node in onnx.load(path).graph.node if node.op_type == "Transpose"]


def residual_network(data_format):
    """Convolutions with batch normalization around a shortcut, an image as the result."""
    said = {"data_format": data_format, "padding": "same"}
    axis = -1 if data_format == "channels_last" else 1
    x = gx.Input((6, 6, 3) if axis == -1 else (3, 6, 6))
    start = layers.Conv2D(4, 3, **said)(x)
    y = layers.ReLU()(layers.BatchNormalization(axis)(layers.Conv2D(4, 3, **said)(start)))
    y = layers.Add()([start, layers.DepthwiseConv2D(3, **said)(y)])
    y = layers.AveragePooling2D(**said)(y)
    return gx.Model(x, layers.Conv2DTranspose(2, 3, strides=2, activation="sigmoid", **said)(y))


@pytest.mark.parametrize(("data_format", "count"), [("channels_last", 2), ("channels_first", 0)])
def test_files_hold_a_transpose_at_most_for_each_input_and_output(tmp_path, data_format, count):
    model = residual_network(data_format)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.2, 1, w.shape) for w in layer.get_weights()])
    path = tmp_path / "image.onnx"
    model.export(path)
    assert len(transposes(path)) == count
    report = gx.onnx.verify(path, model.programs["predict"])
    assert report.ok, str(report)
    small_network(data_format).export(path)
    assert len(transposes(path)) == count // 2
