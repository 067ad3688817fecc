"""Layers that change images, with bounds that leave nothing to chance, against those of Keras in training."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import graphc as gx
from tests.frontend.running import f32, run_layer

pytestmark = pytest.mark.keras
IMAGE = (2, 9, 8, 3)
MODES = ("constant", "nearest", "reflect", "wrap")
ROWS = [
    *(("RandomRotation", {"factor": (0.07, 0.07), "fill_mode": mode, "fill_value": 0.5}) for mode in MODES),
    *(("RandomZoom", {"height_factor": (0.3, 0.3), "width_factor": (0.1, 0.1), "fill_mode": mode}) for mode in MODES),
    ("RandomZoom", {"height_factor": (-0.3, -0.3)}),
    *(
        ("RandomTranslation", {"height_factor": (0.15, 0.15), "width_factor": (-0.3, -0.3), "fill_mode": mode})
        for mode in MODES
    ),
    ("RandomBrightness", {"factor": (0.2, 0.2), "value_range": (-1, 1)}),
    ("Rescaling", {"scale": 0.3, "offset": -1.0}),
    ("CenterCrop", {"height": 5, "width": 4}),
    ("CenterCrop", {"height": 12, "width": 4}),
]


@pytest.mark.parametrize(("kind", "said"), ROWS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_images(kind, said, data_format):
    x = f32(np.random.default_rng(1), *IMAGE)
    if data_format == "channels_first":
        x = x.transpose(0, 3, 1, 2)
    if kind not in ("Rescaling", "RandomBrightness"):
        said = {**said, "data_format": data_format}
    theirs = np.asarray(getattr(keras.layers, kind)(**said)(x, **({"training": True} if "Random" in kind else {})))
    np.testing.assert_allclose(run_layer(getattr(gx.layers, kind)(**said), x, training=True), theirs, atol=2e-5)


def test_flips_and_contrast_do_to_an_image_what_keras_does_to_one():
    """Which images are chosen, and how strongly, is drawn: each result of Keras is one that there may be here."""
    x = np.abs(f32(np.random.default_rng(2), *IMAGE))
    for axis, mode in ((2, "horizontal"), (1, "vertical")):
        for module_result in (
            np.asarray(keras.layers.RandomFlip(mode, seed=1)(x, training=True)),
            run_layer(gx.layers.RandomFlip(mode), x, training=True),
        ):
            for image, result in zip(x, module_result, strict=True):
                assert np.array_equal(result, image) or np.array_equal(result, np.flip(image, axis - 1))
    theirs = np.asarray(keras.layers.RandomContrast((0.2, 0.4), value_range=(-9, 9), seed=1)(x, training=True))
    ours = run_layer(gx.layers.RandomContrast((0.2, 0.4), value_range=(-9, 9)), x, training=True)
    mean = x.mean((1, 2), keepdims=True)
    for found in (theirs, ours):
        factors = (found - mean) / (x - mean)
        np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1], x.shape), atol=1e-2)
        assert 0.8 <= factors[0, 0, 0, 0] <= 1.4


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
@pytest.mark.parametrize("mode", ["nearest", "reflect"])
@pytest.mark.parametrize("order", [0, 1])
def test_maps_of_the_generator_of_batches(mode, order):
    """In Keras the other fill modes do not interpolate across the edge, and the middle is that of a square."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    x = f32(np.random.default_rng(3), 9, 9, 3)
    said = {"theta": 25.0, "tx": 1.3, "ty": -2.1, "shear": 12.0, "zx": 0.8, "zy": 1.3, "flip_horizontal": True}
    ours, theirs = (
        kind(fill_mode=mode, interpolation_order=order).apply_transform(x, said)
        for kind in (gx.data.ImageDataGenerator, ImageDataGenerator)
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    shifted = {"channel_shift_intensity": 0.4, "flip_vertical": True}
    ours, theirs = (kind().apply_transform(x, shifted) for kind in (gx.data.ImageDataGenerator, ImageDataGenerator))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_random_crops_are_parts_of_the_image_in_both():
    x = np.arange(np.prod(IMAGE), dtype=np.float32).reshape(IMAGE)
    for found in (
        np.asarray(keras.layers.RandomCrop(4, 5, seed=1)(x, training=True)),
        run_layer(gx.layers.RandomCrop(4, 5), x, training=True),
    ):
        for image, part in zip(x, found, strict=True):
            top, left = np.argwhere(image[..., 0] == part[0, 0, 0])[0]
            np.testing.assert_array_equal(part, image[top : top + 4, left : left + 5])
