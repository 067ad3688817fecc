"""Layers that change images at random: each image by itself, distributed as said, the same on every backend."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from scipy import ndimage, stats

import graphc as gx
from graphc import Input, Sequential, layers
from tests.frontend.running import f32, run_layer

rng = np.random.default_rng(0)
RAMP = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0), indexing="ij"), -1).astype(np.float32)
"""An image whose channels are the row and the column: from it one sees where each pixel was read."""
TURNS = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}


def changed(layer, x, seed=0):
    gx.set_seed(seed)
    return run_layer(layer, x, training=True)


def maps_of(images):
    """The affine map that each ramp was read by, seen from the middle: (images, 2, 3)."""
    inner = images[:, 3:6, 3:6].reshape(len(images), 9, 2).astype(np.float64) - 4
    at = np.concatenate([RAMP[3:6, 3:6].reshape(9, 2) - 4, np.ones((9, 1))], 1)
    return np.stack([np.linalg.lstsq(at, image, rcond=None)[0].T for image in inner])


def ramps(count):
    return np.repeat(RAMP[None], count, 0)


def uniform(values, low, high):
    """Do these look like numbers drawn evenly between two bounds?"""
    return values.min() >= low - 1e-4 and values.max() <= high + 1e-4 and (
        stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    )  # fmt: skip


def test_flips_are_independent_fair_coins_for_each_image():
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1).repeat(4000, 0)
    kinds = {"horizontal": [(1, 0)], "vertical": [(0, 1)], "horizontal_and_vertical": [(1, 0), (0, 1), (1, 1)]}
    for mode, mirrored in kinds.items():
        y = changed(layers.RandomFlip(mode), x)
        counts = []
        for across, upside in [(0, 0), *mirrored]:
            wanted = x[0, :: -1 if upside else 1, :: -1 if across else 1]
            counts.append((y == wanted).all((1, 2, 3)).sum())
        assert sum(counts) == 4000
        assert stats.chisquare(counts).pvalue > 1e-3


def test_a_quarter_turn_is_counter_clockwise():
    x = f32(rng, 3, 6, 6, 2)
    for turns in (1, 2, -1):
        found = changed(layers.RandomRotation((turns / 4, turns / 4)), x)
        np.testing.assert_allclose(found, np.rot90(x, turns, (1, 2)), atol=1e-5)


@pytest.mark.parametrize("mode", TURNS)
def test_rotation_is_what_scipy_makes_of_the_same_angle(mode):
    x, angle = f32(rng, 2, 7, 6, 3), 0.13
    turned = [
        [np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)],
        [-np.sin(2 * np.pi * angle), np.cos(2 * np.pi * angle)],
    ]
    middle = np.array([3, 2.5])
    for how, order in (("bilinear", 1), ("nearest", 0)):
        found = changed(layers.RandomRotation((angle, angle), mode, how, fill_value=0.4), x)
        for image, result in zip(x, found, strict=True):
            for channel in range(3):
                wanted = ndimage.affine_transform(
                    image[..., channel], turned, middle - turned @ middle, order=order, mode=TURNS[mode], cval=0.4
                )
                np.testing.assert_allclose(result[..., channel], wanted, atol=2e-5)


def test_angles_zooms_and_ways_are_drawn_evenly_for_each_image():
    count = 600
    turned = maps_of(changed(layers.RandomRotation((-0.05, 0.1)), ramps(count)))
    assert uniform(np.arctan2(turned[:, 0, 1], turned[:, 0, 0]) / (2 * np.pi), -0.05, 0.1)
    np.testing.assert_allclose(turned[..., 2], 0, atol=1e-4)
    apart = maps_of(changed(layers.RandomZoom((0.1, 0.3), (-0.2, 0.1)), ramps(count)))
    assert uniform(apart[:, 0, 0], 1.1, 1.3)
    assert uniform(apart[:, 1, 1], 0.8, 1.1)
    assert abs(np.corrcoef(apart[:, 0, 0], apart[:, 1, 1])[0, 1]) < 0.15
    alike = maps_of(changed(layers.RandomZoom(0.2), ramps(count)))
    assert uniform(alike[:, 0, 0], 0.8, 1.2)
    np.testing.assert_allclose(alike[:, 0, 0], alike[:, 1, 1], atol=1e-4)
    moved = maps_of(changed(layers.RandomTranslation(0.2, (0.1, 0.3)), ramps(count)))
    assert uniform(-moved[:, 0, 2] / 9, -0.2, 0.2)
    assert uniform(-moved[:, 1, 2] / 9, 0.1, 0.3)


def test_translation_by_whole_pixels_moves_down_and_right():
    x = f32(rng, 2, 5, 4, 1)
    found = changed(layers.RandomTranslation((0.4, 0.4), (-0.25, -0.25), "constant", fill_value=9), x)
    wanted = np.full_like(x, 9)
    wanted[:, 2:, :-1] = x[:, :-2, 1:]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_crops_are_parts_of_the_image_at_any_place_and_resized_from_the_middle_elsewhere():
    x = np.arange(6 * 5, dtype=np.float32).reshape(1, 6, 5, 1).repeat(1200, 0)
    layer = layers.RandomCrop(4, 3)
    found = changed(layer, x)
    tops, lefts = np.divmod(found[:, 0, 0, 0].astype(int), 5)
    for image, top, left in zip(found, tops, lefts, strict=True):
        np.testing.assert_array_equal(image, x[0, top : top + 4, left : left + 3])
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (tops, lefts), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    half = np.arange(8 * 4, dtype=np.float32).reshape(1, 8, 4, 1)
    middle = half[:, 2:6].reshape(1, 2, 2, 2, 2, 1).mean((2, 4))
    np.testing.assert_allclose(run_layer(layers.RandomCrop(2, 2), half), middle, rtol=1e-6)


def test_the_middle_of_images_by_the_numbers_of_keras():
    x = np.arange(20 * 6, dtype=np.float32).reshape(1, 20, 6, 1)
    np.testing.assert_array_equal(run_layer(layers.CenterCrop(4, 3), x)[0, ..., 0], x[0, 8:12, 1:4, 0])
    for layer in (layers.CenterCrop(8, 8), layers.RandomCrop(8, 8)):
        first = run_layer(layer, x, training=True)[0, 0, :, 0]
        np.testing.assert_allclose(first, [42, 42.625, 43.375, 44.125, 44.875, 45.625, 46.375, 47])


def test_contrast_is_about_the_mean_of_each_channel_and_held_in_range():
    x = rng.uniform(0.3, 0.7, (500, 4, 5, 2)).astype(np.float32)
    found = changed(layers.RandomContrast((0.5, 0.2), value_range=(0, 1)), x)
    mean = x.mean((1, 2), keepdims=True)
    drawn = ((found - mean) * (x - mean)).sum((1, 2, 3)) / ((x - mean) ** 2).sum((1, 2, 3))
    assert uniform(drawn, 0.5, 1.2)
    np.testing.assert_allclose(found, (x - mean) * drawn.reshape(-1, 1, 1, 1) + mean, atol=1e-4)
    strong = changed(layers.RandomContrast(1.0, value_range=(0.4, 0.6)), x)
    assert (strong.min(), strong.max()) == (np.float32(0.4), np.float32(0.6))


def test_brightness_adds_one_number_to_an_image_and_holds_it_in_range():
    x = np.full((500, 3, 3, 2), 100, np.float32)
    found = changed(layers.RandomBrightness((-0.2, 0.3)), x)
    assert uniform(found[:, 0, 0, 0], 100 - 51, 100 + 76.5)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1, :1], x.shape))
    assert changed(layers.RandomBrightness((1, 1)), x).min() == 255


def test_rescaling_by_a_number_and_by_channel():
    x = rng.integers(0, 256, (2, 3, 3, 2))
    np.testing.assert_allclose(run_layer(layers.Rescaling(1 / 127.5, -1), x), x / 127.5 - 1, rtol=1e-5, atol=1e-6)
    found = run_layer(layers.Rescaling([2.0, 3.0], offset=(1.0, 0.0)), x.astype(np.float32))
    np.testing.assert_allclose(found, x * np.array([2, 3]) + [1, 0])


ALL = {
    "flip": lambda **said: layers.RandomFlip(**said),
    "rotation": lambda **said: layers.RandomRotation(0.1, **said),
    "zoom": lambda **said: layers.RandomZoom(0.2, (0.0, 0.1), fill_mode="nearest", **said),
    "translation": lambda **said: layers.RandomTranslation(0.2, 0.2, fill_mode="wrap", **said),
    "contrast": lambda **said: layers.RandomContrast(0.3, value_range=(-3, 3), **said),
    "brightness": lambda **said: layers.RandomBrightness(0.1, value_range=(-3, 3), **said),
    "crop": lambda **said: layers.RandomCrop(6, 7, **said),
}


def network(data_format="channels_last"):
    gx.set_seed(5)
    first = data_format == "channels_first"
    return Sequential(
        [
            Input((2, 8, 8) if first else (8, 8, 2)),
            *(make(data_format=data_format, name=name) for name, make in ALL.items()),
            layers.Conv2D(2, 3, data_format=data_format),
            layers.GlobalAveragePooling2D(data_format=data_format),
        ]
    )


@pytest.mark.parametrize("name", ALL)
def test_integers_and_both_layouts_are_the_same_images_and_nothing_happens_elsewhere(name):
    x = rng.integers(-2, 3, (4, 8, 8, 2))
    last = changed(ALL[name](seed=3), x.astype(np.float32))
    np.testing.assert_array_equal(changed(ALL[name](seed=3), x), last)
    first = changed(ALL[name](seed=3, data_format="channels_first"), x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(first.transpose(0, 2, 3, 1), last, atol=1e-5)
    if name != "crop":
        assert np.abs(last - x).max() > 0.1
        np.testing.assert_array_equal(run_layer(ALL[name](), x.astype(np.float32)), x)


def test_a_fixed_seed_gives_the_same_images_in_each_step_of_its_own():
    x = ramps(6)
    again = [changed(layers.RandomRotation(0.2, seed=seed), x, seed=n) for n, seed in enumerate((1, 1, 2))]
    np.testing.assert_array_equal(again[0], again[1])
    assert np.abs(again[0] - again[2]).max() > 0.1
    layer, image = layers.RandomRotation(0.2), gx.placeholder("x", ("n", 9, 9, 2))
    step = gx.compile({"y": layer(image)}, inputs=[image], updates=layer.updates, training=True, backend="reference")
    steps = [step(x=x)["y"] for _ in range(2)]
    assert np.abs(steps[0] - steps[1]).max() > 0.1
    assert np.abs(steps[0][0] - steps[0][1]).max() > 0.1


@pytest.mark.parametrize(
    ("data_format", "backends"), [("channels_last", ("reference", "numba")), ("channels_first", ("reference",))]
)
def test_training_is_the_same_on_every_backend_in_files_and_after_loading(tmp_path, data_format, backends):
    x, y = f32(rng, 12, 8, 8, 2), f32(rng, 12, 2)
    x = x.transpose(0, 3, 1, 2) if data_format == "channels_first" else x
    losses, models = [], []
    for backend in backends:
        model = network(data_format)
        model.compile(gx.optimizers.SGD(0.1), "mse", backend=backend)
        losses.append(model.fit(x, y, batch_size=6, epochs=2, verbose=0).history["loss"])
        models.append(model)
    np.testing.assert_allclose(losses[-1], losses[0], rtol=1e-4)
    for training in (False, True):
        path = tmp_path / f"{training}.onnx"
        models[-1].export(path, training=training)
        program = models[-1].programs["train" if training else "predict"]
        report = gx.onnx.verify(path, program, steps=4 if training else 1)
        assert report.ok, str(report)
    model = models[0]
    model.save(tmp_path / "model")
    again = gx.load_model(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    further = [one.fit(x, y, batch_size=6, epochs=1, verbose=0).history["loss"] for one in (model, again)]
    assert further[0] == further[1]


@pytest.mark.parametrize("opset", [17, 21])
def test_sizes_that_are_symbolic_and_older_files(tmp_path, opset):
    image = gx.placeholder("x", ("n", "height", "width", 2))
    rotated = {mode: layers.RandomRotation((0.25, 0.25), mode)(image) for mode in ("reflect", "wrap", "constant")}
    step = gx.compile(rotated, inputs=[image], training=True, backend="reference")
    x = f32(rng, 2, 5, 5, 2)
    for found in step(x=x).values():
        np.testing.assert_allclose(found, np.rot90(x, 1, (1, 2)), atol=1e-5)
    gx.onnx.export(step, tmp_path / "rotated.onnx", opset=opset)
    report = gx.onnx.verify(tmp_path / "rotated.onnx", step, inputs={"x": f32(rng, 3, 6, 4, 2)})
    assert report.ok, str(report)
    kinds = [node.op_type for node in onnx.load(tmp_path / "rotated.onnx").graph.node]
    assert kinds.count("GridSample") == 2


def test_gradients_pass_through_to_what_comes_before():
    gx.set_seed(1)
    x = gx.placeholder("x", (3, 8, 8, 2))
    moved = layers.RandomRotation(0.1, "constant", seed=4)(layers.RandomFlip(seed=4)(x))
    weight = gx.constant(f32(rng, 3, 8, 8, 2))
    (slope,) = gx.grad(gx.sum(moved * weight), [x])
    step = gx.compile({"y": gx.sum(moved * weight), "g": slope}, inputs=[x], training=True, backend="reference")
    image = f32(rng, 3, 8, 8, 2)
    found = step(x=image)
    np.testing.assert_allclose((found["g"] * image).sum(), found["y"], rtol=1e-4, atol=1e-3)  # the layers are linear


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: layers.RandomFlip("sideways")(x), "no mode 'sideways'"),
        (lambda x: layers.RandomRotation((0.2, 0.1))(x), "factor is .0.2, 0.1."),
        (lambda x: layers.RandomRotation(0.1, "mirror")(x), "no fill_mode 'mirror'"),
        (lambda x: layers.RandomRotation(0.1, interpolation="cubic")(x), "no interpolation 'cubic'"),
        (lambda x: layers.RandomZoom(1.5)(x), "height_factor is 1.5"),
        (lambda x: layers.RandomTranslation(0.1, (0, 2))(x), "width_factor is .0, 2."),
        (lambda x: layers.RandomContrast((0.1, 2))(x), "factor is .0, 2."),
        (lambda x: layers.RandomBrightness(0.1, (255, 0))(x), "value_range is .255, 0."),
        (lambda x: layers.RandomCrop(0, 4)(x), "height and width is .0, 4."),
        (lambda x: layers.RandomCrop(4, 4)(gx.placeholder("z", (2, "h", 8, 3))), "sizes that must be known"),
        (lambda x: layers.CenterCrop(4, 4)(gx.placeholder("z", (2, 8, 3))), "takes 4 axes"),
    ],
)
def test_mistakes_are_told(make, says):
    with pytest.raises(gx.GraphcError, match=says):
        make(gx.placeholder("x", (2, 8, 8, 3)))
