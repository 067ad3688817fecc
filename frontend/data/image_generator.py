"""Images changed at random while a model trains, by the names that users of Keras know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, GraphError, ShapeError
from graphc.frontend.arguments import numpy_type
from graphc.frontend.checked import Count, LessThanAll, Natural, NonNegative, checked
from graphc.frontend.config import user_line
from graphc.frontend.data.image_batches import ImageBatches, Pictures
from graphc.frontend.data.image_files import ArrayPictures, ClassFolders, FilePictures, Reading, list_classes
from graphc.frontend.data.image_transforms import Filling, Ranges, Transforms

Array = NDArray[Any]
FORMATS = ("channels_last", "channels_first")
FILL_MODES = ("constant", "nearest", "reflect", "wrap")
CLASS_MODES = ("categorical", "binary", "sparse", "input", None)
_SMALL = 1e-6
"""Keeps an image of one value from being divided by nothing."""


class ImageDataGenerator:
    """Makes batches of images for ``fit``, each image changed at random, in another way in each epoch.

    An image is turned, sheared, zoomed, moved, mirrored and cut in one step, by one map that says where each of its
    pixels is read; then its values are changed, ``preprocessing_function`` is called with it, and it is scaled.

    Args:
        featurewise_center: subtract the mean of each channel, which :meth:`fit` finds.
        samplewise_center: subtract the image's own mean.
        featurewise_std_normalization: divide by the deviation of each channel, which :meth:`fit` finds.
        samplewise_std_normalization: divide by the image's own deviation.
        rotation_range: degrees, to both sides.
        width_shift_range: to both sides; below 1 a part of the width, else pixels; a whole number: whole pixels below
            it; a list: one of these numbers.
        height_shift_range: likewise, of the height.
        brightness_range: bounds of a factor for all values, which are then held within ``value_range``.
        shear_range: degrees, to both sides.
        zoom_range: bounds of factors, one for the rows and one for the columns; a number z: from 1 - z to 1 + z. Above
            1 the image becomes smaller.
        channel_shift_range: bounds, to both sides, of a number added to all values, which are then held within those
            that the image had.
        fill_mode: what comes in from beyond the edges of ``a b c d``: "nearest" ``a a | d d``, "reflect" ``b a | d c``,
            "wrap" ``c d | a b``, or "constant".
        cval: of the fill mode "constant".
        horizontal_flip: mirror half of the images, left and right.
        vertical_flip: turn half of them upside down.
        rescale: a factor for all values, at the end; None: 1.
        preprocessing_function: called with each image, (height, width, channels), before it is scaled; it returns an
            image of the same shape.
        data_format: "channels_last" (the default) or "channels_first".
        validation_split: the part that ``flow(subset="validation")`` gives: the first images, of folders the first of
            each class; ``subset="training"`` gives the others.
        interpolation_order: 1: between four pixels; 0: the nearest one.
        dtype: the element type of batches.
        random_crop: (height, width) of a part that is cut out of each image at a random place; None: all.
        value_range: the lowest and the highest value of images, for ``brightness_range``.

    Raises:
        AxisError: an argument is none of these.

    Source:
        ``keras.preprocessing.image.ImageDataGenerator``; ``zca_whitening`` and ``flow_from_dataframe`` are not there,
        ``random_crop`` and ``value_range`` are new. In Keras 3 the ranges of the two shifts are interchanged.

    >>> import numpy as np
    >>> images = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4, 1)
    >>> batches = ImageDataGenerator(horizontal_flip=True, rescale=1 / 31).flow(images, np.array([0, 1]), seed=1)
    >>> x, y = batches[0]
    >>> len(batches), x.shape, float(x.max())
    (1, (2, 4, 4, 1), 1.0)
    """

    @checked
    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        rotation_range: NonNegative = 0,
        width_shift_range: float | Sequence[float] = 0.0,
        height_shift_range: float | Sequence[float] = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: float | Sequence[float] = 0.0,
        channel_shift_range: NonNegative = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Array], Array] | None = None,
        data_format: str | None = None,
        validation_split: LessThanAll = 0.0,
        interpolation_order: int = 1,
        dtype: Any = "float32",
        random_crop: Sequence[Count] | None = None,
        value_range: Sequence[float] = (0, 255),
    ) -> None:
        for name, given, known in (
            ("fill_mode", fill_mode, FILL_MODES),
            ("data_format", data_format or FORMATS[0], FORMATS),
            ("interpolation_order", interpolation_order, (0, 1)),
        ):
            if given not in known:
                raise AxisError(
                    f"there is no {name} {given!r}", at=user_line(), remedy=f"use one of {', '.join(map(str, known))}"
                )
        zoom = (1 - zoom_range, 1 + zoom_range) if isinstance(zoom_range, int | float) else zoom_range
        self._ranges = Ranges(
            rotation=rotation_range,
            height_shift=height_shift_range,
            width_shift=width_shift_range,
            shear=shear_range,
            zoom=_pair("zoom_range", zoom),
            flips=(vertical_flip, horizontal_flip),
            channel_shift=channel_shift_range,
            brightness=None if brightness_range is None else _pair("brightness_range", brightness_range),
            crop=None if random_crop is None else _size("random_crop", random_crop),
        )
        self._filling = Filling(("nearest", "bilinear")[interpolation_order], fill_mode, float(cval))
        self._value_range = _pair("value_range", value_range)
        self.featurewise_center = featurewise_center or featurewise_std_normalization
        self.samplewise_center = samplewise_center or samplewise_std_normalization
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.data_format = data_format or FORMATS[0]
        self.validation_split = validation_split
        self.dtype = numpy_type("ImageDataGenerator", dtype)
        self.mean: Array | None = None
        self.std: Array | None = None

    # Batches.

    @checked
    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: Count = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        subset: str | None = None,
        workers: Natural = 2,
        max_queue_size: Count = 10,
    ) -> ImageBatches:
        """Batches of images in memory.

        Args:
            x: the images.
            y: targets, one for each; None: batches are images alone.
            batch_size: images in a batch.
            shuffle: in another order in each epoch; False for ``predict``, whose results then stand in the order of x.
            sample_weight: one for each image.
            seed: decides order and changes; None: ``gx.set_seed`` does.
            subset: "training" or "validation": the part that ``validation_split`` says.
            workers: threads that make batches ahead; with 1 a batch is made when it is needed.
            max_queue_size: at most so many batches are made ahead.

        Shapes:
            x: (images, height, width, channels), or with channels first. Batches are likewise.

        Raises:
            ShapeError: x is no images, or there is another number of targets or weights.
        """
        array = np.asarray(x)
        if array.ndim != 4 or array.dtype.kind not in "biuf":
            raise ShapeError(
                f"x is {array.dtype} of shape {array.shape}",
                at=user_line(),
                remedy="give numbers as (images, height, width, channels), such as x[..., None]",
            )
        columns = [np.atleast_1d(np.asarray(given)) for given in (y, sample_weight) if given is not None]
        if sample_weight is not None and y is None:
            raise GraphError("there are weights of samples and no targets", at=user_line(), remedy="give y")
        if any(len(column) != len(array) for column in columns):
            raise ShapeError(
                f"x has {len(array)} images, targets or weights are {' and '.join(str(len(one)) for one in columns)}",
                at=user_line(),
                remedy="give one for each image",
            )
        first, last = (int(part * len(array)) for part in self._part(subset))
        pictures = ArrayPictures(self._to_last(array[first:last]))
        columns = [column[first:last] for column in columns]
        self._check_crop(pictures.array.shape[1:3])
        return ImageBatches(pictures, self._change, columns, batch_size, shuffle, seed, workers, max_queue_size)

    @checked
    def flow_from_directory(
        self,
        directory: str | Path,
        target_size: Sequence[Count] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: Count = 32,
        shuffle: bool = True,
        seed: int | None = None,
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        workers: Natural = 2,
        max_queue_size: Count = 10,
    ) -> DirectoryBatches:
        """Batches of pictures in files, which Pillow reads when they are needed (``pip install "graphc[images]"``).

        Args:
            directory: it holds a folder for each class, in which pictures lie, in folders or not.
            target_size: (height, width) that every picture gets.
            color_mode: "grayscale", "rgb" or "rgba".
            classes: the classes' names in the order of their numbers; None: all folders, in alphabetical order.
            class_mode: targets: "categorical" one-hot rows, "sparse" numbers, "binary" 0.0 and 1.0, "input" the images
                themselves, or None: no targets.
            batch_size, shuffle, seed, subset, workers, max_queue_size: as for :meth:`flow`.
            follow_links: whether to go into folders that are links.
            interpolation: how pictures get their size: "nearest", "bilinear", "bicubic", "hamming", "box", "lanczos".
            keep_aspect_ratio: cut off what the size does not hold, instead of distorting pictures.

        Shapes:
            Batches of images are (images, height, width, channels), or with channels first.

        Raises:
            FileError: there is no such folder; while batches are made: a file is no picture, or damaged.
            ShapeError: there are no pictures.
        """
        if class_mode not in CLASS_MODES:
            raise AxisError(
                f"there is no class_mode {class_mode!r}",
                at=user_line(),
                remedy=f"use one of {', '.join(map(repr, CLASS_MODES))}",
            )
        size = _size("target_size", target_size)
        how = Reading(color_mode, size, interpolation, keep_aspect_ratio)
        found = list_classes(directory, classes, follow_links, self._part(subset))
        if class_mode == "binary" and len(found.names) != 2:
            raise ShapeError(
                f"there are {len(found.names)} classes, binary targets are for 2",
                at=user_line(),
                remedy='write class_mode="sparse"',
            )
        self._check_crop(size)
        return DirectoryBatches(
            found, Path(directory), class_mode, FilePictures(found.paths, how), self._change, batch_size, shuffle, seed,
            workers, max_queue_size,
        )  # fmt: skip

    def _part(self, subset: str | None) -> tuple[float, float]:
        if subset is None:
            return 0.0, 1.0
        if subset not in ("training", "validation") or not self.validation_split:
            raise AxisError(
                f"subset is {subset!r}, validation_split {self.validation_split}",
                at=user_line(),
                remedy='give "training" or "validation", and ImageDataGenerator(validation_split=...)',
            )
        return (0.0, self.validation_split) if subset == "validation" else (self.validation_split, 1.0)

    def _check_crop(self, size: Sequence[int]) -> None:
        crop = self._ranges.crop
        if crop is not None and (crop[0] > size[0] or crop[1] > size[1]):
            raise AxisError(
                f"random_crop is {crop}, images are {size[0]} x {size[1]}", at=user_line(), remedy="cut out less"
            )

    # Single images and statistics.

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Find the means and deviations of channels, for ``featurewise_center`` and ``featurewise_std_normalization``.

        Args:
            x: images.
            augment: of images changed at random.
            rounds: how often each is, then.
            seed: decides the changes; None: 0.
        """
        images = self._to_last(np.asarray(x)).astype(np.float32)
        if images.ndim != 4:
            raise ShapeError(
                f"x has shape {np.shape(x)}", at=user_line(), remedy="give (images, height, width, channels)"
            )
        if augment:
            numbers = np.arange(len(images))
            images = np.concatenate([self._augmented(images, numbers, seed or 0, epoch) for epoch in range(rounds)])
        wide = images.astype(np.float64) * (1 if self.rescale is None else self.rescale)
        self.mean = wide.mean((0, 1, 2)).astype(np.float32)
        self.std = wide.std((0, 1, 2)).astype(np.float32)

    def standardize(self, x: Array) -> Array:
        """What is done to an image at the end: the function of the user's, scale, means and deviations."""
        (image,) = self._to_last(x[np.newaxis])
        return self._from_last(self._standardized(image.astype(np.float32))[np.newaxis])[0]

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """An image changed at random, before it is scaled."""
        images = self._to_last(x[np.newaxis]).astype(np.float32)
        return self._from_last(self._augmented(images, np.zeros(1, np.int64), seed or 0, 0))[0]

    def apply_transform(self, x: Array, transform_parameters: Mapping[str, Any]) -> Array:
        """An image changed as is said, before it is scaled.

        Args:
            x: the image.
            transform_parameters: any of ``theta`` and ``shear`` in degrees, ``tx`` (columns) and ``ty`` (rows) in
                pixels, the factors ``zx`` and ``zy``, ``flip_horizontal``, ``flip_vertical``,
                ``channel_shift_intensity``, ``brightness``. They mean what they do in Keras; but there the middle of an
                image that is not square lies elsewhere.
        """
        known = {"theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1, "flip_vertical": False,
                 "flip_horizontal": False, "channel_shift_intensity": None, "brightness": None}  # fmt: skip
        unknown = set(transform_parameters) - set(known)
        if unknown:
            raise AxisError(
                f"there is no parameter {min(unknown)!r}", at=user_line(), remedy=f"give {', '.join(known)}"
            )
        values = {**known, **transform_parameters}
        arrays = {key: None if value is None else np.array([value], np.float64) for key, value in values.items()}
        shift = arrays.pop("channel_shift_intensity")
        flips = {key: np.array([bool(values[key])]) for key in ("flip_vertical", "flip_horizontal")}
        none = np.zeros(1)
        done = Transforms(**{**arrays, **flips}, channel_shift=shift, top=none, left=none, crop=None)  # pyright: ignore[reportArgumentType]
        images = self._to_last(x[np.newaxis]).astype(np.float32)
        return self._from_last(done.apply(images, self._filling, self._value_range))[0]

    def _change(self, images: Array, numbers: NDArray[np.int64], seed: int, epoch: int) -> Array:
        changed = self._augmented(images, numbers, seed, epoch)
        if self.preprocessing_function is None and not self.samplewise_center:
            changed = self._standardized(changed)
        else:
            changed = np.stack([self._standardized(image) for image in changed])
        return np.ascontiguousarray(self._from_last(changed), self.dtype)

    def _augmented(self, images: Array, numbers: NDArray[np.int64], seed: int, epoch: int) -> Array:
        height, width = images.shape[1:3]
        return self._ranges.draw(seed, epoch, numbers, (height, width)).apply(images, self._filling, self._value_range)

    def _standardized(self, x: Array) -> Array:
        """An image, or several where nothing is done that regards each by itself."""
        if self.preprocessing_function is not None:
            made = np.asarray(self.preprocessing_function(x), np.float32)
            if made.shape != x.shape:
                raise ShapeError(
                    f"preprocessing_function made {made.shape} of {x.shape}",
                    at=user_line(),
                    remedy="let it return an image of the same shape",
                )
            x = made
        if self.rescale is not None:
            x = x * np.float32(self.rescale)
        if self.samplewise_center:
            x = x - x.mean(dtype=np.float32)
        if self.samplewise_std_normalization:
            x = x / (x.std(dtype=np.float32) + np.float32(_SMALL))
        if self.featurewise_center:
            if self.mean is None or self.std is None:
                raise GraphError("the means of channels are not known", at=user_line(), remedy="call fit(x) first")
            x = x - self.mean
            if self.featurewise_std_normalization:
                x = x / (self.std + np.float32(_SMALL))
        return x

    def _to_last(self, images: Array) -> Array:
        return images if self.data_format == FORMATS[0] else images.transpose(0, 2, 3, 1)

    def _from_last(self, images: Array) -> Array:
        return images if self.data_format == FORMATS[0] else images.transpose(0, 3, 1, 2)


class DirectoryBatches(ImageBatches):
    """Batches of pictures from folders of classes; made by ``ImageDataGenerator.flow_from_directory``.

    Attributes:
        class_indices: the number of each class by its name.
        classes: the number of the class of each picture.
        filenames: of the pictures, relative to the folder.
        filepaths: the same from the folder that was given on.
        samples, n: how many there are.
        num_classes: how many classes there are.
    """

    def __init__(
        self, found: ClassFolders, root: Path, class_mode: str | None, pictures: Pictures, change: Any, batch_size: int,
        shuffle: bool, seed: int | None, workers: int, max_queue_size: int,
    ) -> None:  # fmt: skip
        self.class_mode = class_mode
        self.classes = found.labels
        self.class_indices = {name: number for number, name in enumerate(found.names)}
        self.num_classes = len(found.names)
        self.filepaths = [str(path) for path in found.paths]
        self.filenames = [str(path.relative_to(root)) for path in found.paths]
        self.samples = len(found.paths)
        targets: list[Array] = []
        if class_mode == "categorical":
            targets = [np.eye(self.num_classes, dtype=np.float32)[found.labels]]
        elif class_mode in ("sparse", "binary"):
            targets = [found.labels if class_mode == "sparse" else found.labels.astype(np.float32)]
        super().__init__(pictures, change, targets, batch_size, shuffle, seed, workers, max_queue_size)

    def _batch(self, epoch: int, order: NDArray[np.intp], index: int) -> Any:
        made = super()._batch(epoch, order, index)
        return (made, made) if self.class_mode == "input" else made

    def label(self, value: Any) -> str:
        if self.class_mode not in ("categorical", "sparse", "binary"):
            return ""
        number = int(np.argmax(value)) if self.class_mode == "categorical" else int(value)
        return list(self.class_indices)[number]


def _pair(name: str, given: Sequence[float]) -> tuple[float, float]:
    values = [float(value) for value in given]
    if len(values) != 2 or not values[0] <= values[1]:
        raise AxisError(f"{name} is {given!r}", at=user_line(), remedy="give two numbers, the lower one first")
    return values[0], values[1]


def _size(name: str, given: Sequence[int]) -> tuple[int, int]:
    values = [int(value) for value in given]
    if len(values) != 2 or min(values) < 1:
        raise AxisError(f"{name} is {given!r}", at=user_line(), remedy="give (height, width)")
    return values[0], values[1]
