"""Known networks: the weights of their papers, both layouts, tops, poolings, files."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import applications
from tests.frontend.running import evaluate, f32, placeholder_for

rng = np.random.default_rng(0)

COUNTS = {
    "LeNet5": (61_706, 61_706),
    "VGG16": (138_357_544, 138_357_544),
    "VGG19": (143_667_240, 143_667_240),
    "ResNet18": (11_689_512, 11_699_112),
    "ResNet34": (21_797_672, 21_814_696),
    "ResNet50": (25_583_592, 25_636_712),
    "MobileNetV2": (3_504_872, 3_538_984),
    "ResNet20": (269_722, 271_098),
    "ResNet32": (464_154, 466_426),
    "ResNet44": (658_586, 661_754),
    "ResNet56": (853_018, 857_082),
    "ResNet110": (1_727_962, 1_736_058),
}
"""Trained weights, and those with the statistics of batch normalization: published figures, He et al. in table 6 rounded
to 0.27, 0.46, 0.66, 0.85 and 1.7 million."""

SMALL = {
    "LeNet5": (16, 16, 1),
    "VGG16": (32, 32, 3),
    "ResNet18": (32, 32, 3),
    "ResNet50": (32, 32, 3),
    "MobileNetV2": (33, 32, 3),
    "ResNet20": (8, 9, 3),
}


def elements(weights):
    return sum(int(np.prod(weight.shape, dtype=np.int64)) for weight in weights)


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_the_weights_of_their_papers(name):
    """Nothing is drawn: the largest would take half a gigabyte."""
    model = getattr(applications, name)()
    assert (elements(model.trainable_weights), model.count_params()) == COUNTS[name]
    assert model.output_names == ["predictions"]
    classes = 1000 if model.inputs[0].shape[1] == 224 else 10
    assert model.outputs[0].shape[1] == classes


WIDTHS = {0.35: 1_691_208, 0.5: 1_987_224, 0.75: 2_663_064, 1.3: 5_431_048, 1.4: 6_156_712}
PUBLISHED = {0.35: 1.66, 0.5: 1.95, 0.75: 2.61, 1.3: 5.3, 1.4: 6.06}
"""Millions, with the weights that the paper's authors gave out."""


@pytest.mark.parametrize("alpha", WIDTHS)
def test_widths_of_mobilenet(alpha):
    model = applications.MobileNetV2(alpha=alpha)
    assert model.count_params() == WIDTHS[alpha]
    assert elements(model.trainable_weights) / 1e6 == pytest.approx(PUBLISHED[alpha], rel=0.02)


def outputs(model, x):
    """By the reference: a network has many kernels to compile."""
    node = placeholder_for("x", x)
    return evaluate([model(node)], [(node, x)])[0]


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("VGG16", "ResNet18", "ResNet50")])
def test_both_layouts_are_one_network(name):
    height, width, channels = SMALL[name]
    gx.set_seed(1)
    last = getattr(applications, name)(input_shape=(height, width, channels), classes=3, weights=None)
    first = getattr(applications, name)(input_shape=(channels, height, width), classes=3, data_format="channels_first")
    first.set_weights(last.get_weights())
    x = f32(rng, 2, height, width, channels)
    wanted = outputs(last, x)
    np.testing.assert_allclose(wanted.sum(1), 1, rtol=1e-5)
    found = outputs(first, np.ascontiguousarray(np.moveaxis(x, 3, 1)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_without_the_top(name):
    make, shape = getattr(applications, name), SMALL[name]
    places = make(include_top=False, input_shape=shape)
    assert len(places.outputs[0].shape) == 4
    channels = places.outputs[0].shape[-1]
    for pooling in ("avg", "max"):
        assert make(include_top=False, input_shape=shape, pooling=pooling).outputs[0].shape[1:] == (channels,)
    on_symbol = gx.Input(shape, name="photo")
    body = make(include_top=False, pooling="avg", input_tensor=on_symbol)
    model = gx.Model(on_symbol, gx.layers.Dense(2, name="mine")(body.output))
    assert model.inputs[0] is on_symbol
    assert model.count_params() == body.count_params() + 2 * (channels + 1)


def test_sizes_that_only_the_data_shows():
    body = applications.MobileNetV2((None, None, 3), 0.35, include_top=False, pooling="avg")
    for size in (32, 64):
        assert outputs(body, f32(rng, 1, size, size, 3)).shape == (1, 1280)


def test_a_network_learns_and_comes_back_from_files(tmp_path):
    gx.set_seed(0)
    x, y = f32(rng, 16, 8, 8, 3), np.arange(16) % 4
    x[np.arange(16), y * 2] += 2
    model = applications.CifarResNet(8, input_shape=(8, 8, 3), classes=4, weight_decay=1e-4)
    model.compile(gx.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", backend="reference")
    losses = model.fit(x, y, batch_size=8, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    model.save_weights(tmp_path / "w.safetensors")
    poured = applications.CifarResNet(8, input_shape=(8, 8, 3), classes=4, weights=tmp_path / "w.safetensors")
    for old, new in zip(model.get_weights(), poured.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.freeze("conv[12]*")[0] == "conv1_conv"
    assert {weight.label.replace("/", "_").partition("_")[0] for weight in model.trainable_weights} == {
        "conv3",
        "conv4",
        "predictions",
    }


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: applications.VGG16(input_shape=(31, 40, 3)), gx.ShapeError, "at least 32 x 32"),
        (lambda: applications.ResNet50(input_shape=(64, 64)), gx.ShapeError, "three axes"),
        (lambda: applications.ResNet18(input_shape=(64, 64, None)), gx.ShapeError, "known number of channels"),
        (lambda: applications.CifarResNet(21), gx.AxisError, r"6 n \+ 2 layers, not 21"),
        (lambda: applications.MobileNetV2(alpha=0), gx.AxisError, "alpha is 0"),
        (lambda: applications.VGG19(pooling="mean"), gx.GraphError, "no pooling 'mean'"),
        (
            lambda: applications.ResNet50(weights="imagenet"),
            gx.FileError,
            r"(?s)'imagenet'.*none are bundled.*set_weights",
        ),
        (lambda: applications.LeNet5(data_format="nchw"), gx.AxisError, "no data_format is called 'nchw'"),
    ],
)
def test_what_does_not_go_is_said(wrong, error, says):
    with pytest.raises(error, match=says) as caught:
        wrong()
    assert "to do: " in str(caught.value)
