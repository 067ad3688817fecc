"""Convolution, pooling, normalization and resizing beside Keras 3, in both layouts.

Weights with their names and order, outputs, and weights after twenty steps of training.
"""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import graphc as gx
from tests.frontend.running import evaluate
from tests.keras.oracle import BATCH, ROWS, STEPS, distance, flat, pour

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

LINE, IMAGE, SPACE = (7, 4), (6, 5, 4), (4, 3, 4, 2)
FIRST = {"data_format": "channels_first"}


def both(shape, **said):
    """The same layer in both layouts."""
    return [(shape, said), ((shape[-1], *shape[:-1]), {**said, **FIRST})]


LAYERS: dict[str, list[tuple[tuple[int, ...], dict]]] = {
    "Conv1D": [
        *both(LINE, filters=3, kernel_size=3),
        (LINE, {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "activation": "relu"}),
        (LINE, {"filters": 4, "kernel_size": 2, "strides": 2, "padding": "same", "groups": 2, "use_bias": False}),
    ],
    "Conv2D": [
        *both(IMAGE, filters=3, kernel_size=3, padding="same", strides=2),
        *both(IMAGE, filters=6, kernel_size=(2, 3), groups=2, activation="softmax"),
        (IMAGE, {"filters": 3, "kernel_size": 2, "dilation_rate": 2, "kernel_regularizer": "l2"}),
        (IMAGE, {"filters": 5, "kernel_size": 1}),
    ],
    "Conv3D": [*both(SPACE, filters=2, kernel_size=2), (SPACE, {"filters": 2, "kernel_size": 3, "padding": "same"})],
    "Conv1DTranspose": [*both(LINE, filters=3, kernel_size=3, strides=2)],
    "Conv2DTranspose": [
        *both(IMAGE, filters=3, kernel_size=3, strides=2, padding="same"),
        (IMAGE, {"filters": 2, "kernel_size": (2, 3), "strides": 3}),
        (IMAGE, {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1}),
        (IMAGE, {"filters": 2, "kernel_size": 4, "strides": 2, "padding": "same", "activation": "tanh"}),
    ],
    "Conv3DTranspose": [*both(SPACE, filters=2, kernel_size=2, strides=2)],
    "DepthwiseConv1D": [*both(LINE, kernel_size=3), (LINE, {"kernel_size": 2, "depth_multiplier": 2, "strides": 2})],
    "DepthwiseConv2D": [
        *both(IMAGE, kernel_size=3, padding="same"), (IMAGE, {"kernel_size": 2, "depth_multiplier": 3, "strides": 2}),
    ],
    "SeparableConv1D": [*both(LINE, filters=3, kernel_size=3)],
    "SeparableConv2D": [*both(IMAGE, filters=3, kernel_size=3, padding="same", depth_multiplier=2)],
    "MaxPooling1D": [*both(LINE), (LINE, {"pool_size": 3, "strides": 1, "padding": "same"})],
    "MaxPooling2D": [*both(IMAGE), *both(IMAGE, pool_size=3, strides=2, padding="same")],
    "MaxPooling3D": [*both(SPACE)],
    "AveragePooling1D": [*both(LINE, pool_size=2), (LINE, {"pool_size": 3, "strides": 1, "padding": "same"})],
    "AveragePooling2D": [*both(IMAGE, pool_size=2), *both(IMAGE, pool_size=3, strides=2, padding="same")],
    "AveragePooling3D": both(SPACE, pool_size=2),
    "GlobalMaxPooling1D": both(LINE),
    "GlobalMaxPooling2D": both(IMAGE, keepdims=True),
    "GlobalMaxPooling3D": both(SPACE),
    "GlobalAveragePooling1D": both(LINE),
    "GlobalAveragePooling2D": both(IMAGE, keepdims=True),
    "GlobalAveragePooling3D": both(SPACE),
    "AdaptiveMaxPooling1D": both(LINE, output_size=3),
    "AdaptiveMaxPooling2D": [*both(IMAGE, output_size=(3, 2)), (IMAGE, {"output_size": 2})],
    "AdaptiveMaxPooling3D": both(SPACE, output_size=2),
    "AdaptiveAveragePooling1D": both(LINE, output_size=3),
    "AdaptiveAveragePooling2D": [*both(IMAGE, output_size=(3, 2)), (IMAGE, {"output_size": (3, 5)})],
    "AdaptiveAveragePooling3D": both(SPACE, output_size=2),
    "BatchNormalization": [
        (IMAGE, {}), ((4, 6, 5), {"axis": 1}), (LINE, {"momentum": 0.8, "epsilon": 0.01, "scale": False}),
        ((5,), {"center": False, "gamma_regularizer": "l2"}), (IMAGE, {"trainable": False}),
    ],
    "GroupNormalization": [
        (IMAGE, {"groups": 2}), ((4, 6, 5), {"groups": -1, "axis": 1}), (LINE, {"groups": 1, "scale": False}),
        (IMAGE, {"groups": 4, "center": False, "epsilon": 0.1}),
    ],
    "UnitNormalization": [(IMAGE, {}), (LINE, {"axis": 1}), (IMAGE, {"axis": [1, 2]})],
    "UpSampling1D": [(LINE, {}), (LINE, {"size": 3})],
    "UpSampling2D": [*both(IMAGE, size=(2, 3)), *both(IMAGE, interpolation="bilinear")],
    "UpSampling3D": both(SPACE),
    "Resizing": [
        *both(IMAGE, height=9, width=7), (IMAGE, {"height": 3, "width": 4, "interpolation": "nearest"}),
        (IMAGE, {"height": 4, "width": 2}),
    ],
    "ZeroPadding1D": [*both(LINE), (LINE, {"padding": (0, 2)})],
    "ZeroPadding2D": [*both(IMAGE), *both(IMAGE, padding=((1, 0), (2, 1))), (IMAGE, {"padding": 2})],
    "ZeroPadding3D": both(SPACE, padding=((1, 0), (2, 1), (0, 0))),
    "Cropping1D": [(LINE, {}), (LINE, {"cropping": (0, 2)})],
    "Cropping2D": [*both(IMAGE, cropping=((1, 0), (2, 1))), (IMAGE, {"cropping": 1})],
    "Cropping3D": both((4, 3, 4, 2), cropping=((1, 0), (0, 1), (0, 0))),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_both_layouts_have_a_row(kind):
    if "data_format" in inspect.signature(getattr(keras.layers, kind)).parameters:
        formats = {said.get("data_format", "channels_last") for _, said in LAYERS[kind]}
        assert formats == {"channels_last", "channels_first"}


def build(module, kind):
    """A model with one branch for each row, behind a Dense layer, so that gradients must pass the layer."""
    inputs, outputs, layers = [], [], []
    for number, (shape, said) in enumerate(LAYERS[kind]):
        x = module.Input(shape, name=f"x{number}")
        hidden = module.layers.Dense(shape[-1], activation="tanh", name=f"dense{number}")(x)
        layers.append(getattr(module.layers, kind)(name=f"row{number}", **said))
        inputs.append(x)
        outputs.append(layers[-1](hidden))
    return module.Model(inputs, outputs), layers


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_outputs_and_twenty_steps(kind, record_property):
    rng = np.random.default_rng(len(kind))
    (theirs, their_layers), (ours, our_layers) = build(keras, kind), build(gx, kind)
    for a, b in zip(their_layers, our_layers, strict=True):
        assert [w.name for w in a.weights] == [w.label.rpartition("/")[2] for w in b.weights]
    pour(theirs, ours, seed=len(kind))
    for layer, mine in zip(their_layers, our_layers, strict=True):
        if kind == "BatchNormalization":  # a variance is not negative
            mine.moving_variance.value = np.abs(mine.moving_variance.value)
            layer.set_weights(mine.get_weights())
    x = [rng.standard_normal((ROWS, *shape)).astype(np.float32) for shape, _ in LAYERS[kind]]
    wanted = flat(theirs.predict(x, verbose=0))
    worst = max(distance(b, a) for a, b in zip(wanted, flat(ours.predict(x, verbose=0)), strict=True))
    nodes = [gx.placeholder(f"x{i}", ("batch", *value.shape[1:])) for i, value in enumerate(x)]
    made = ours(nodes, training=True)
    trained = evaluate(made if isinstance(made, list) else [made], list(zip(nodes, x, strict=True)), training=True)
    found = max(distance(b, a) for a, b in zip(flat(theirs(x, training=True)), trained, strict=True))
    record_property("outputs", max(worst, found))
    assert max(worst, found) < 5e-6
    targets = [np.cos(np.arange(value.size)).reshape(value.shape).astype(np.float32) for value in wanted]
    for module, model in ((keras, theirs), (gx, ours)):
        model.compile(module.optimizers.SGD(0.05, momentum=0.9), ["mse"] * len(x))
    before = ours.get_weights()
    theirs.set_weights(before)  # the call in training moved Keras's statistics
    for model in (theirs, ours):
        model.fit(x if len(x) > 1 else x[0], targets if len(targets) > 1 else targets[0], epochs=STEPS // 2,
                  batch_size=BATCH, shuffle=False, verbose=0)  # fmt: skip
    found = {
        weight.path: distance(b, a, first)
        for weight, a, b, first in zip(theirs.weights, theirs.get_weights(), ours.get_weights(), before, strict=True)
    }
    record_property("weights", max(found.values()))
    assert max(found.values()) < 2e-5, max(found, key=found.__getitem__)


def test_batch_normalization_of_places_that_count():
    """Masked statistics, and those of a mean over the places that count."""
    rng = np.random.default_rng(3)
    x, mask = rng.standard_normal((5, 6, 4)).astype(np.float32), rng.random((5, 6)) < 0.6
    mask[:, 0] = True
    node, given = gx.placeholder("x", ("batch", 6, 4)), gx.placeholder("m", ("batch", 6), "bool")
    for kind in ("BatchNormalization", "GlobalAveragePooling1D"):
        theirs, ours = getattr(keras.layers, kind)(), getattr(gx.layers, kind)()
        more = {"training": True} if kind == "BatchNormalization" else {}
        (found,) = evaluate([ours(node, mask=given, **more)], [(node, x), (given, mask)], training=True)
        np.testing.assert_allclose(found, np.asarray(theirs(x, mask=mask, **more)), rtol=2e-5, atol=2e-5)
