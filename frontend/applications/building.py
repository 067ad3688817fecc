"""What the networks share: their input, their top, and layers that know where channels stand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from graphc.errors import FileError, GraphError, ShapeError
from graphc.frontend import layers, tracing
from graphc.frontend.arguments import shown
from graphc.frontend.config import user_line
from graphc.frontend.layers.core import Input
from graphc.frontend.layers.spatial import format_of
from graphc.frontend.model import Model
from graphc.frontend.tracing import Symbol

POOLINGS = (None, "avg", "max")


class Build:
    """A network that is being built: its input, and layers in its layout.

    Args:
        include_top: with the classifier.
        weights: None for random ones, or a file of weights.
        input_tensor: a symbol to build on.
        input_shape: of an image; default the one that the network was made for.
        pooling: without the top: "avg" or "max" over all places, or None for the places themselves.
        classes: how many the classifier tells apart.
        classifier_activation: of the classifier; None for logits.
        name: of the model.
        data_format: where channels stand.
        usual_shape: the shape that the network was made for, channels last.
        least: the smallest height and width.

    Raises:
        ShapeError: the shape has not three axes, or is too small.
        GraphError: there is no such pooling.
        FileError: there is no such file of weights.
    """

    def __init__(
        self,
        include_top: bool,
        weights: str | Path | None,
        input_tensor: Symbol | None,
        input_shape: Sequence[int | None] | None,
        pooling: str | None,
        classes: int,
        classifier_activation: Any,
        name: str,
        data_format: str | None,
        usual_shape: tuple[int, int, int] = (224, 224, 3),
        least: int = 32,
    ) -> None:
        if pooling not in POOLINGS:
            raise GraphError(f"there is no pooling {pooling!r}", at=user_line(), remedy="use 'avg', 'max' or None")
        self.include_top, self.pooling, self.classes, self.name = include_top, pooling, classes, name
        self.classifier_activation = classifier_activation
        self.weights = _checked_weights(weights)
        self.data_format = format_of(data_format)
        self.last = self.data_format == "channels_last"
        self.given = input_tensor
        if input_tensor is not None and not isinstance(input_tensor, Symbol):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(
                f"input_tensor is {shown(input_tensor)}", at=user_line(), remedy="give what gx.Input returned"
            )
        if input_tensor is not None:
            shape = tuple(size if isinstance(size, int) else None for size in input_tensor.shape[1:])
        elif input_shape is None:
            height, width, channels = usual_shape
            shape = (height, width, channels) if self.last else (channels, height, width)
        else:
            shape = tuple(input_shape)
        self.shape = _checked_shape(name, shape, self.last, least, include_top)

    def model(self, body: Any, top: Any = None) -> Model:
        """The model of a function from a symbol to a symbol, with the top behind it.

        Args:
            body: makes the features.
            top: makes what the classifier reads of them; default their mean over all places.
        """
        with tracing.new_scope() if self.given is None else nullcontext():
            inputs = Input(self.shape) if self.given is None else self.given
            x = body(inputs)
            if self.include_top:
                x = (top or self.average)(x)
                x = layers.Dense(self.classes, activation=self.classifier_activation, name="predictions")(x)
            elif self.pooling == "avg":
                x = self.average(x)
            elif self.pooling == "max":
                x = layers.GlobalMaxPooling2D(data_format=self.data_format, name="max_pool")(x)
            made = Model(inputs, x, name=self.name)
        if self.weights is not None:
            made.load_weights(self.weights)
        return made

    def average(self, x: Any) -> Any:
        """The mean over all places."""
        return layers.GlobalAveragePooling2D(data_format=self.data_format, name="avg_pool")(x)

    def conv(self, x: Any, filters: int, size: int, name: str, **said: Any) -> Any:
        """A convolution."""
        return layers.Conv2D(filters, size, data_format=self.data_format, name=name, **said)(x)

    def norm(self, x: Any, name: str, **said: Any) -> Any:
        """Batch normalization."""
        return layers.BatchNormalization(axis=-1 if self.last else 1, name=name, **said)(x)

    def pad(self, x: Any, padding: Any, name: str) -> Any:
        """Zeros around."""
        return layers.ZeroPadding2D(padding, data_format=self.data_format, name=name)(x)

    def channels(self, x: Any) -> int:
        """The number of channels of a symbol."""
        return x.shape[-1 if self.last else 1]

    def places(self, x: Any) -> tuple[Any, Any]:
        """The height and width of a symbol."""
        return x.shape[1:3] if self.last else x.shape[2:4]


def _checked_weights(weights: str | Path | None) -> Path | None:
    if weights is None or Path(weights).exists():
        return None if weights is None else Path(weights)
    raise FileError(
        f"there is no file of weights {str(weights)!r}",
        at=user_line(),
        remedy="give a file that save_weights wrote, or None for random weights: none are bundled or downloaded. "
        "Those of a Keras model: model.set_weights(theirs.get_weights())",
    )


def _checked_shape(
    name: str, shape: tuple[int | None, ...], last: bool, least: int, include_top: bool
) -> tuple[int | None, ...]:
    if len(shape) != 3:
        raise ShapeError(
            f"{name} takes images of three axes, not {shape}", at=user_line(), remedy="give (height, width, channels)"
        )
    sizes = shape[:2] if last else shape[1:]
    if shape[-1 if last else 0] is None or any(size is not None and size < least for size in sizes):
        raise ShapeError(
            f"{name} takes images of at least {least} x {least} with a known number of channels, not {shape}",
            at=user_line(),
            remedy=f"give input_shape=({least}, {least}, 3) or more" + ("" if last else "; channels come first here"),
        )
    return shape
