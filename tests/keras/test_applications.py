"""Networks whose layers are Keras's: its lists of weights fit whole, and the outputs are the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from graphc import applications
from tests.frontend.test_applications import COUNTS
from tests.keras.oracle import distance

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CASES = {
    "MobileNetV2": [
        {"input_shape": (64, 64, 3), "alpha": 1.0, "classes": 7, "classifier_activation": None},
        {"input_shape": (37, 45, 3), "alpha": 0.35, "include_top": False, "pooling": "max"},
    ],
    "ResNet50": [
        {"input_shape": (64, 64, 3), "classes": 7, "classifier_activation": None},
        {"input_shape": (33, 40, 3), "include_top": False},
    ],
    "VGG16": [{"input_shape": (32, 48, 3), "include_top": False, "pooling": "avg"}],
    "VGG19": [{"input_shape": (32, 32, 3), "include_top": False}],
}


@pytest.mark.parametrize(("name", "said"), [(name, said) for name, rows in CASES.items() for said in rows])
def test_a_list_of_weights_of_keras_gives_its_outputs(name, said, record_property):
    keras.utils.clear_session()
    theirs = getattr(keras.applications, name)(weights=None, **said)
    ours = getattr(applications, name)(**said)
    rng = np.random.default_rng(5)
    for weight in theirs.weights:  # statistics and biases that are not as at the beginning
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.uniform(-0.3, 0.3, weight.shape))
    assert [w.path.rsplit("/", 2)[-2:] for w in theirs.weights] == [w.label.rsplit("/", 2)[-2:] for w in ours.weights]
    ours.set_weights(theirs.get_weights())
    x = rng.uniform(-1, 1, (2, *said["input_shape"])).astype(np.float32)
    off = distance(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))
    record_property("outputs", off)
    assert off < 1e-4
    assert len(ours.trainable_weights) == len(theirs.trainable_weights)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_whole_networks_count_the_same(name):
    assert getattr(keras.applications, name)(weights=None).count_params() == COUNTS[name][1]


@pytest.mark.parametrize("alpha", [0.35, 0.5, 0.75, 1.3, 1.4])
def test_widths_of_mobilenet_are_those_of_keras(alpha):
    theirs = keras.applications.MobileNetV2(alpha=alpha, weights=None)
    ours = applications.MobileNetV2(alpha=alpha)
    assert [tuple(w.shape) for w in theirs.weights] == [w.shape for w in ours.weights]
