"""Images changed at random as a source of data: what is drawn, what becomes of images, folders of classes, mistakes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import ndimage, stats

import graphc as gx
from graphc import Input, Sequential, layers
from graphc.data import ImageDataGenerator, load_image, prefetch, show_images
from graphc.frontend.data import image_transforms
from graphc.frontend.data.image_transforms import Ranges
from tests.frontend.running import f32

rng = np.random.default_rng(0)
SCIPY = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}
EVERYTHING = {
    "rotation_range": 30, "width_shift_range": 0.2, "height_shift_range": 0.1, "shear_range": 10.0, "zoom_range": 0.2,
    "horizontal_flip": True, "vertical_flip": True, "brightness_range": (0.5, 1.5), "channel_shift_range": 20.0,
}  # fmt: skip


def images(count=10, size=(8, 7), channels=2):
    return rng.integers(0, 256, (count, *size, channels)).astype(np.uint8)


def epoch_of(batches, epoch, workers=1):
    """The batches of an epoch as one array each of images and of targets."""
    batch = batches.of_epoch(epoch)
    made = [batch(index) for index in range(len(batches))]
    return [np.concatenate(parts) for parts in zip(*made, strict=True)]


def by_number(batches, epoch):
    x, numbers = epoch_of(batches, epoch)
    return x[np.argsort(numbers)]


def chained(theta, tx, ty, shear, zx, zy, height, width):
    """The map of an image as products of matrices of x and y, from (row, column) of the result to that of the image."""
    angle, slant = np.deg2rad([theta, shear])
    steps = [
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]],
        [[1, 0, tx], [0, 1, ty], [0, 0, 1]],
        [[1, -np.sin(slant), 0], [0, np.cos(slant), 0], [0, 0, 1]],
        [[zx, 0, 0], [0, zy, 0], [0, 0, 1]],
    ]
    middle = np.array([[1, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
    swap = np.eye(3)[[1, 0, 2]]
    return np.linalg.multi_dot([swap, middle, *map(np.array, steps), np.linalg.inv(middle), swap])


@pytest.mark.parametrize(("mode", "order"), [("constant", 1), ("nearest", 1), ("reflect", 0), ("wrap", 1)])
def test_all_changes_of_place_are_one_affine_map_and_what_scipy_makes_of_it(mode, order):
    x = f32(rng, 9, 8, 2)
    said = {"theta": 25.0, "tx": 1.3, "ty": -2.1, "shear": 12.0, "zx": 0.8, "zy": 1.3}
    made = ImageDataGenerator(fill_mode=mode, cval=0.3, interpolation_order=order)
    found = made.apply_transform(x, {**said, "flip_horizontal": True})[:, ::-1]
    whole = chained(**said, height=9, width=8)
    for channel in range(2):
        wanted = ndimage.affine_transform(
            x[..., channel], whole[:2, :2], whole[:2, 2], order=order, mode=SCIPY[mode], cval=0.3
        )
        np.testing.assert_allclose(found[..., channel], wanted, atol=2e-5)


def test_where_there_are_no_native_kernels_the_reference_reads_images(monkeypatch):
    compiled, asked = gx.compile, []

    def refuse(*args, backend, **kwargs):
        asked.append(backend)
        if backend == "numba":
            raise gx.BackendError("not here")
        return compiled(*args, backend=backend, **kwargs)

    monkeypatch.setattr(gx, "compile", refuse)
    monkeypatch.setattr(image_transforms, "_reader", image_transforms._reader.__wrapped__)
    x = f32(rng, 4, 3, 1)
    found = ImageDataGenerator(cval=0.123, fill_mode="constant").apply_transform(x, {"ty": 3})
    assert asked == ["numba", "reference"]
    np.testing.assert_allclose(found[:1], x[3:])
    np.testing.assert_allclose(found[1:], 0.123)


def test_flips_and_whole_shifts_move_pixels_to_the_last_bit():
    x, made = f32(rng, 6, 5, 3), ImageDataGenerator()
    np.testing.assert_array_equal(made.apply_transform(x, {"flip_horizontal": True}), x[:, ::-1])
    np.testing.assert_array_equal(made.apply_transform(x, {"flip_vertical": True}), x[::-1])
    np.testing.assert_array_equal(made.apply_transform(x, {"tx": -1, "ty": 2})[:-2, 1:], x[2:, :-1])
    np.testing.assert_array_equal(made.apply_transform(x, {}), x)


def test_values_are_shifted_and_brightened_within_their_ranges():
    x = images(1)[0].astype(np.float32)
    made = ImageDataGenerator()
    shifted = made.apply_transform(x, {"channel_shift_intensity": 50})
    np.testing.assert_array_equal(shifted, np.clip(x + 50, x.min(), x.max()))
    np.testing.assert_allclose(made.apply_transform(x, {"brightness": 1.5}), np.minimum(x * 1.5, 255))
    small = ImageDataGenerator(value_range=(0, 1)).apply_transform(x / 255, {"brightness": 1.5})
    np.testing.assert_allclose(small, np.minimum(x / 255 * 1.5, 1), rtol=1e-6)


def even(values, low, high):
    return low <= values.min() and values.max() <= high and (
        stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    )  # fmt: skip


def test_each_number_is_drawn_evenly_and_on_its_own():
    ranges = Ranges(30.0, 0.1, 2.5, 12.0, (0.7, 1.1), (True, True), 20.0, (0.5, 1.5), (4, 3))
    drawn = ranges.draw(3, 0, np.arange(4000), (8, 10))
    assert even(drawn.theta, -30, 30)
    assert even(drawn.ty, -0.8, 0.8)
    assert even(drawn.tx, -2.5, 2.5)
    assert even(drawn.shear, -12, 12)
    assert even(drawn.zx, 0.7, 1.1)
    assert even(drawn.zy, 0.7, 1.1)
    assert even(drawn.channel_shift, -20, 20)
    assert even(drawn.brightness, 0.5, 1.5)
    for values, count in ((drawn.flip_vertical, 2), (drawn.flip_horizontal, 2), (drawn.top, 5), (drawn.left, 8)):
        assert stats.chisquare(np.bincount(values.astype(int), minlength=count)).pvalue > 1e-3
    columns = [drawn.theta, drawn.tx, drawn.ty, drawn.shear, drawn.zx, drawn.zy, drawn.flip_vertical,
               drawn.flip_horizontal, drawn.channel_shift, drawn.brightness, drawn.top, drawn.left]  # fmt: skip
    related = np.corrcoef(np.array(columns, np.float64)) - np.eye(len(columns))
    assert np.abs(related).max() < 0.07
    again = ranges.draw(3, 1, np.arange(4000), (8, 10))
    assert abs(np.corrcoef(drawn.theta, again.theta)[0, 1]) < 0.07


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (3, {-2, -1, 0, 1, 2}),
        ([1.5, 4], {-4, -1.5, 1.5, 4}),
        ([0.5], {-4, 4}),
        (0, {0}),
        (0.0, {0}),
        (np.int64(2), {-1, 0, 1}),
    ],
)
def test_shifts_by_whole_pixels_and_by_choices(given, allowed):
    drawn = Ranges(height_shift=given).draw(0, 0, np.arange(300), (8, 10))
    assert set(drawn.ty.tolist()) == allowed
    single = Ranges(height_shift=np.float32(0.25)).draw(0, 0, np.arange(300), (8, 10)).ty
    assert even(single, -2, 2)


def test_an_image_depends_on_seed_epoch_and_number_alone():
    x, made = images(11), ImageDataGenerator(**EVERYTHING)
    numbers = np.arange(11)
    first = by_number(made.flow(x, numbers, batch_size=4, seed=1), 2)
    for said in ({"batch_size": 3}, {"batch_size": 11, "shuffle": False}, {"batch_size": 1, "workers": 1}):
        np.testing.assert_allclose(by_number(made.flow(x, numbers, seed=1, **said), 2), first, rtol=1e-5)
    for seed, epoch in ((1, 3), (2, 2)):
        other = by_number(made.flow(x, numbers, batch_size=4, seed=seed), epoch)
        assert (np.abs(other - first).max((1, 2, 3)) > 1).all()
    orders = [epoch_of(made.flow(x, numbers, seed=1), epoch)[1].tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    gx.set_seed(5)
    unsaid = made.flow(x).seed
    gx.set_seed(5)
    assert made.flow(x).seed == unsaid


def test_training_is_the_same_whoever_makes_batches_and_whenever():
    x, y = images(20), rng.integers(0, 2, 20)
    made = ImageDataGenerator(**EVERYTHING, rescale=1 / 255)

    def trained(source):
        gx.set_seed(0)
        model = Sequential([Input((8, 7, 2)), layers.Flatten(), layers.Dense(2, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", backend="reference")
        history = model.fit(source, epochs=3, verbose=0, shuffle=False)
        return history.history["loss"], model.evaluate(source, verbose=0), model.predict(source, verbose=0)

    def lone(workers, **said):
        return made.flow(x, y, batch_size=6, seed=4, workers=workers, **said)

    wanted = trained(lone(1))
    assert len(set(wanted[0])) == 3
    for workers, depth in ((2, 10), (4, 1)):
        found = trained(lone(workers, max_queue_size=depth))
        assert found[:2] == wanted[:2]
        np.testing.assert_array_equal(found[2], wanted[2])
    ahead = [list(prefetch([lone(1)[i] for i in range(4)])), [lone(1)[i] for i in range(4)]]
    for one, other in zip(*ahead, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_epochs_of_fit_have_numbers_that_survive_saving(tmp_path):
    asked = []

    class Numbered(gx.data.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.full((2, 3), index, np.float32), np.zeros((2, 1), np.float32)

        def of_epoch(self, epoch):
            asked.append(epoch)
            return self.__getitem__

    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", backend="reference")
    model.fit(Numbered(), epochs=2, verbose=0)
    model.evaluate(Numbered(), verbose=0)
    model.save(tmp_path / "model")
    gx.load_model(tmp_path / "model").fit(Numbered(), epochs=1, verbose=0)
    assert asked == [0, 1, 0, 2]


@pytest.mark.parametrize("steps", [None, 3])
def test_a_training_that_was_killed_goes_on_with_the_same_images(tmp_path, steps):
    """With steps an epoch of ``fit`` ends in the middle of the data, and the next one goes on there."""
    x, y = images(21), rng.integers(0, 2, 21)

    class Killed(Exception):
        pass

    def trained(folder, last):
        seen = []

        def count(batch, logs):
            seen.append(batch)
            if len(seen) == last:
                raise Killed

        gx.set_seed(0)
        batches = ImageDataGenerator(**EVERYTHING, rescale=1 / 255).flow(x, y, batch_size=5, seed=4, workers=3)
        model = Sequential([Input((8, 7, 2)), layers.Flatten(), layers.Dense(2, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", backend="reference")
        backup = gx.callbacks.BackupAndRestore(folder, save_freq=1)
        counter = gx.callbacks.LambdaCallback(on_train_batch_end=count)
        return model.fit(batches, epochs=4, steps_per_epoch=steps, verbose=0, callbacks=[backup, counter]).history[
            "loss"
        ]

    wanted = trained(tmp_path / "whole", None)
    for last in (5, 8):
        with pytest.raises(Killed):
            trained(tmp_path / f"killed{last}", last)
        assert trained(tmp_path / f"killed{last}", None) == wanted


def test_scales_means_and_deviations():
    x = images(12) + np.array([0, 300], np.float32)
    by_sample = ImageDataGenerator(samplewise_std_normalization=True).flow(x, shuffle=False)[0]
    np.testing.assert_allclose(by_sample.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(by_sample.std((1, 2, 3)), 1, rtol=1e-4)
    made = ImageDataGenerator(featurewise_std_normalization=True, rescale=0.5)
    with pytest.raises(gx.GraphError, match="call fit"):
        made.flow(x)[0]
    made.fit(x)
    found = made.flow(x, shuffle=False)[0]
    np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(found.std((0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(made.standardize(x[3]), found[3], rtol=1e-5, atol=1e-5)
    made.fit(x, augment=True, rounds=2)
    np.testing.assert_allclose(made.mean, x.mean((0, 1, 2)) * 0.5, rtol=1e-5)
    doubled = ImageDataGenerator(preprocessing_function=lambda image: image * 2, rescale=0.1, dtype="float64")
    assert doubled.flow(x)[0].dtype == np.float64
    np.testing.assert_allclose(doubled.flow(x, shuffle=False)[0], x * 0.2, rtol=1e-6)


def test_both_layouts_are_the_same_images():
    x = images(6)
    last = ImageDataGenerator(**EVERYTHING).flow(x, seed=1, shuffle=False)[0]
    first = ImageDataGenerator(**EVERYTHING, data_format="channels_first")
    found = first.flow(x.transpose(0, 3, 1, 2), seed=1, shuffle=False)[0]
    np.testing.assert_array_equal(found.transpose(0, 2, 3, 1), last)
    assert first.random_transform(x[0].transpose(2, 0, 1), seed=3).shape == (2, 8, 7)


def test_crops_are_parts_of_the_image():
    x = np.arange(6 * 5, dtype=np.float32).reshape(1, 6, 5, 1).repeat(40, 0)
    found = ImageDataGenerator(random_crop=(4, 3)).flow(x, batch_size=40, seed=2)[0]
    places = {tuple(divmod(int(image[0, 0, 0]), 5)) for image in found}
    for image in found:
        top, left = divmod(int(image[0, 0, 0]), 5)
        np.testing.assert_array_equal(image, x[0, top : top + 4, left : left + 3])
    assert len(places) > 5


def test_parts_for_training_and_validation_have_nothing_in_common():
    x, numbers, weights = images(10), np.arange(10), np.linspace(0, 1, 10)
    made = ImageDataGenerator(validation_split=0.3)
    parts = {name: made.flow(x, numbers, sample_weight=weights, subset=name) for name in ("training", "validation")}
    assert sorted(parts["validation"][0][1]) == [0, 1, 2]
    assert sorted(parts["training"][0][1]) == list(range(3, 10))
    images_, labels, factors = parts["training"][0]
    np.testing.assert_array_equal(factors, weights[labels])
    np.testing.assert_array_equal(images_, x[labels])


@pytest.fixture
def folder(tmp_path):
    """Two classes of pictures, of which the first pixel is the picture's number."""
    pillow = pytest.importorskip("PIL.Image")
    number = 0
    for name, count in (("cats", 3), ("dogs", 4)):
        (tmp_path / "pets" / name / "more").mkdir(parents=True)
        for place in range(count):
            pixels = np.full((6, 8, 3), 40, np.uint8)
            pixels[:3] = number
            inner = "more/" if place == 2 else ""
            pillow.fromarray(pixels).save(tmp_path / "pets" / name / f"{inner}{place}.png")
            number += 1
        (tmp_path / "pets" / name / "notes.txt").write_text("not a picture")
    return tmp_path / "pets"


def test_folders_of_classes(folder):
    batches = ImageDataGenerator().flow_from_directory(folder, target_size=(6, 8), shuffle=False, batch_size=5)
    assert (batches.n, batches.samples, batches.num_classes, len(batches)) == (7, 7, 2, 2)
    assert batches.class_indices == {"cats": 0, "dogs": 1}
    assert batches.filenames == [f"cats/{n}.png" for n in (0, 1)] + ["cats/more/2.png"] + [
        f"dogs/{n}.png" for n in (0, 1, 3)
    ] + ["dogs/more/2.png"]
    x, y = epoch_of(batches, 0)
    assert x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 6, 5]
    assert (x[:, 4] == 40).all()
    np.testing.assert_array_equal(y, np.eye(2)[batches.classes])


@pytest.mark.parametrize(
    ("said", "shape", "targets"),
    [
        ({"class_mode": "sparse", "color_mode": "grayscale"}, (4, 4, 1), [0, 0, 0, 1, 1, 1, 1]),
        ({"class_mode": "binary", "color_mode": "rgba", "interpolation": "bilinear"}, (4, 4, 4), [0.0] * 3 + [1.0] * 4),
        (
            {"class_mode": "sparse", "classes": ["dogs", "cats"], "keep_aspect_ratio": True},
            (4, 4, 3),
            [0] * 4 + [1] * 3,
        ),
    ],
)
def test_ways_to_read_folders(folder, said, shape, targets):
    batches = ImageDataGenerator().flow_from_directory(folder, (4, 4), shuffle=False, **said)
    x, y = batches[0]
    assert x.shape == (7, *shape)
    np.testing.assert_array_equal(y, targets)


def test_folders_split_each_class_and_may_have_no_targets_or_the_images(folder):
    made = ImageDataGenerator(validation_split=0.5, rescale=1 / 255)
    names = {
        part: made.flow_from_directory(folder, (4, 4), subset=part).filenames for part in ("training", "validation")
    }
    assert [name.split("/")[0] for name in names["validation"]] == ["cats", "dogs", "dogs"]
    assert not set(names["training"]) & set(names["validation"])
    assert len(names["training"]) == 4
    assert made.flow_from_directory(folder, (4, 4), class_mode=None)[0].shape == (7, 4, 4, 3)
    x, y = made.flow_from_directory(folder, (4, 4), class_mode="input")[0]
    np.testing.assert_array_equal(x, y)


def test_a_model_trains_on_folders(folder):
    gx.set_seed(0)
    made = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True)
    batches = made.flow_from_directory(folder, (6, 8), class_mode="sparse", batch_size=3, seed=1)
    model = Sequential([Input((6, 8, 3)), layers.Flatten(), layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", backend="reference")
    assert len(model.fit(batches, epochs=2, validation_data=batches, verbose=0).history["val_loss"]) == 2


def test_sixteen_bits_stay(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.array([[0, 300], [40000, 65535]], np.uint16)
    pillow.fromarray(pixels).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(load_image(tmp_path / "deep.png", "grayscale")[..., 0], pixels)


def test_broken_files_are_named_also_from_threads(folder):
    whole = (folder / "cats" / "0.png").read_bytes()
    for content in (b"no picture", whole[: len(whole) // 2], b""):
        (folder / "dogs" / "9.png").write_bytes(content)
        batches = ImageDataGenerator().flow_from_directory(folder, (4, 4), class_mode="sparse", batch_size=2)
        model = Sequential([Input((4, 4, 3)), layers.Flatten(), layers.Dense(2, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", backend="reference")
        with pytest.raises(gx.FileError, match=r"dogs.9\.png cannot be read as a picture") as caught:
            model.fit(batches, epochs=1, verbose=0)
        assert "replace or remove it" in str(caught.value)
    with pytest.raises(gx.FileError, match="there is no file"):
        load_image(folder / "none.png")


def test_without_pillow_the_message_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(gx.BackendError, match=r"graphc\[images\]"):
        load_image(folder / "cats" / "0.png")


def test_pictures_of_batches(tmp_path, folder):
    pytest.importorskip("matplotlib")
    batches = ImageDataGenerator(rotation_range=20).flow_from_directory(folder, (6, 8))
    figure = batches.show(count=5, columns=3, path=tmp_path / "batch.svg")
    assert (tmp_path / "batch.svg").stat().st_size > 1000
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 6
    assert set(titles[:5]) <= {"cats", "dogs"}
    assert titles[5] == ""
    grey = show_images(np.arange(32.0).reshape(2, 4, 4), labels=["a$b", 3])
    assert grey.axes[0].images[0].get_array().max() < 1
    assert grey.axes[1].images[0].get_array().max() == 1
    with pytest.raises(gx.ShapeError, match="images have shape"):
        show_images(np.zeros((2, 4)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ImageDataGenerator(fill_mode="mirror"), "no fill_mode 'mirror'"),
        (lambda: ImageDataGenerator(interpolation_order=3), "no interpolation_order 3"),
        (lambda: ImageDataGenerator(data_format="last"), "no data_format 'last'"),
        (lambda: ImageDataGenerator(zoom_range=(1.2, 0.8)), "zoom_range is"),
        (lambda: ImageDataGenerator(brightness_range=[1]), "brightness_range is"),
        (lambda: ImageDataGenerator(validation_split=1.5), "validation_split is 1.5"),
        (lambda: ImageDataGenerator().flow(images(), subset="training"), "subset is 'training', validation_split 0"),
        (lambda: ImageDataGenerator().flow(images()[..., 0]), "x is uint8 of shape"),
        (lambda: ImageDataGenerator().flow(images(10), np.arange(9)), "x has 10 images, targets or weights are 9"),
        (lambda: ImageDataGenerator().flow(images(), sample_weight=np.ones(10)), "weights of samples and no targets"),
        (lambda: ImageDataGenerator().flow(images(), batch_size=0), "batch_size is 0"),
        (lambda: ImageDataGenerator().flow(images()[:0]), "there are no images"),
        (lambda: ImageDataGenerator(random_crop=(9, 3)).flow(images()), "random_crop is .9, 3., images are 8 x 7"),
        (lambda: ImageDataGenerator().apply_transform(images(1)[0], {"angle": 3}), "no parameter 'angle'"),
        (lambda: ImageDataGenerator(preprocessing_function=lambda x: x[:2]).flow(images())[0], "made .2, 7, 2."),
        (lambda: ImageDataGenerator().flow_from_directory("nowhere"), "no folder nowhere"),
        (lambda: ImageDataGenerator().flow_from_directory(".", class_mode="one"), "no class_mode 'one'"),
        (lambda: ImageDataGenerator().flow_from_directory(".", (0, 3)), "target_size is"),
        (lambda: ImageDataGenerator().flow_from_directory(".", color_mode="cmyk"), "no color_mode 'cmyk'"),
    ],
)
def test_mistakes_are_told(make, says):
    with pytest.raises(gx.GraphcError, match=says):
        make()


def test_folders_that_do_not_fit_are_told(folder, tmp_path):
    (tmp_path / "empty" / "one").mkdir(parents=True)
    made = ImageDataGenerator()
    with pytest.raises(gx.ShapeError, match="no pictures in the folders"):
        made.flow_from_directory(tmp_path / "empty")
    with pytest.raises(gx.FileError, match="has no folder 'birds'"):
        made.flow_from_directory(folder, classes=["birds"])
    (folder / "birds").mkdir()
    with pytest.raises(gx.ShapeError, match="3 classes, binary targets are for 2"):
        made.flow_from_directory(folder, class_mode="binary")
    with pytest.raises(IndexError, match="there are 1 batches"):
        made.flow(images())[1]
