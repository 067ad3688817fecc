"""Losses by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from graphc.errors import GraphError
from graphc.frontend.config import lookup, register_function, user_line
from graphc.frontend.losses import crossentropy, divergence, focal, margins, overlap, regression, sequence, triplets
from graphc.frontend.losses.base import Loss, LossFunctionWrapper
from graphc.frontend.losses.crossentropy import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
from graphc.frontend.losses.divergence import CategoricalGeneralizedCrossEntropy, KLDivergence, Poisson
from graphc.frontend.losses.focal import BinaryFocalCrossentropy, CategoricalFocalCrossentropy
from graphc.frontend.losses.margins import CategoricalHinge, Hinge, SquaredHinge
from graphc.frontend.losses.overlap import Dice, Tversky
from graphc.frontend.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
)
from graphc.frontend.losses.sequence import CTC
from graphc.frontend.losses.triplets import TripletLoss, TripletSemiHardLoss

if TYPE_CHECKING:
    from graphc.ir.node import Node

_CLASSES: tuple[type[Loss], ...] = (
    MeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Huber,
    LogCosh,
    CosineSimilarity,
    Hinge,
    SquaredHinge,
    CategoricalHinge,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    KLDivergence,
    Poisson,
    CategoricalGeneralizedCrossEntropy,
    BinaryFocalCrossentropy,
    CategoricalFocalCrossentropy,
    CTC,
    Dice,
    Tversky,
    TripletLoss,
    TripletSemiHardLoss,
)

_SHORT: dict[str, type[Loss]] = {
    "bce": BinaryCrossentropy, "kld": KLDivergence, "mae": MeanAbsoluteError, "mape": MeanAbsolutePercentageError,
    "mse": MeanSquaredError, "msle": MeanSquaredLogarithmicError, "logcosh": LogCosh,
}  # fmt: skip


def snake_case(name: str) -> str:
    """The name of a class as a name of a function, as Keras makes it.

    >>> snake_case("KLDivergence")
    'kl_divergence'
    """
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


_FUNCTIONS: tuple[Callable[..., Node], ...] = (
    regression.mean_squared_error,
    regression.mean_absolute_error,
    regression.mean_absolute_percentage_error,
    regression.mean_squared_logarithmic_error,
    regression.huber,
    regression.log_cosh,
    regression.cosine_similarity,
    margins.hinge,
    margins.squared_hinge,
    margins.categorical_hinge,
    crossentropy.binary_crossentropy,
    crossentropy.categorical_crossentropy,
    crossentropy.sparse_categorical_crossentropy,
    divergence.kl_divergence,
    divergence.poisson,
    divergence.categorical_generalized_cross_entropy,
    focal.binary_focal_crossentropy,
    focal.categorical_focal_crossentropy,
    overlap.dice,
    sequence.ctc,
    overlap.tversky,
    triplets.triplet_semi_hard,
)

for _function in _FUNCTIONS:
    register_function("losses", _function)

_BY_NAME = {**{snake_case(cls.__name__): cls for cls in _CLASSES}, **_SHORT}
_TABLE: dict[str, Any] = {**_BY_NAME, **{cls.__name__: cls for cls in _CLASSES}}


def get(value: Any) -> Any:
    """A loss from a name, a loss, its class, or a function of targets and predictions; None stays None.

    >>> get("mse").name
    'mean_squared_error'
    """
    found = lookup(value, _TABLE, "loss")
    if isinstance(found, type):
        return found()
    if found is None or isinstance(found, Loss):
        return found
    if not callable(found):
        raise GraphError(
            f"{value!r} is not a loss", at=user_line(), remedy="give a name such as 'mse', a loss, or a function"
        )
    return LossFunctionWrapper(cast("Callable[..., Node]", found))
