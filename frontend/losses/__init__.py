"""Losses by their Keras 3 names, arguments and defaults: from targets and predictions to one number."""

from __future__ import annotations

from graphc.frontend.losses.base import Loss as Loss
from graphc.frontend.losses.base import LossFunctionWrapper as LossFunctionWrapper
from graphc.frontend.losses.crossentropy import BinaryCrossentropy as BinaryCrossentropy
from graphc.frontend.losses.crossentropy import CategoricalCrossentropy as CategoricalCrossentropy
from graphc.frontend.losses.crossentropy import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from graphc.frontend.losses.crossentropy import binary_crossentropy as binary_crossentropy
from graphc.frontend.losses.crossentropy import categorical_crossentropy as categorical_crossentropy
from graphc.frontend.losses.crossentropy import sparse_categorical_crossentropy as sparse_categorical_crossentropy
from graphc.frontend.losses.divergence import CategoricalGeneralizedCrossEntropy as CategoricalGeneralizedCrossEntropy
from graphc.frontend.losses.divergence import KLDivergence as KLDivergence
from graphc.frontend.losses.divergence import Poisson as Poisson
from graphc.frontend.losses.divergence import (
    categorical_generalized_cross_entropy as categorical_generalized_cross_entropy,
)
from graphc.frontend.losses.divergence import kl_divergence as kl_divergence
from graphc.frontend.losses.divergence import poisson as poisson
from graphc.frontend.losses.focal import BinaryFocalCrossentropy as BinaryFocalCrossentropy
from graphc.frontend.losses.focal import CategoricalFocalCrossentropy as CategoricalFocalCrossentropy
from graphc.frontend.losses.focal import binary_focal_crossentropy as binary_focal_crossentropy
from graphc.frontend.losses.focal import categorical_focal_crossentropy as categorical_focal_crossentropy
from graphc.frontend.losses.margins import CategoricalHinge as CategoricalHinge
from graphc.frontend.losses.margins import Hinge as Hinge
from graphc.frontend.losses.margins import SquaredHinge as SquaredHinge
from graphc.frontend.losses.margins import categorical_hinge as categorical_hinge
from graphc.frontend.losses.margins import hinge as hinge
from graphc.frontend.losses.margins import squared_hinge as squared_hinge
from graphc.frontend.losses.names import get as get
from graphc.frontend.losses.overlap import Dice as Dice
from graphc.frontend.losses.overlap import Tversky as Tversky
from graphc.frontend.losses.overlap import dice as dice
from graphc.frontend.losses.overlap import tversky as tversky
from graphc.frontend.losses.regression import CosineSimilarity as CosineSimilarity
from graphc.frontend.losses.regression import Huber as Huber
from graphc.frontend.losses.regression import LogCosh as LogCosh
from graphc.frontend.losses.regression import MeanAbsoluteError as MeanAbsoluteError
from graphc.frontend.losses.regression import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from graphc.frontend.losses.regression import MeanSquaredError as MeanSquaredError
from graphc.frontend.losses.regression import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from graphc.frontend.losses.regression import cosine_similarity as cosine_similarity
from graphc.frontend.losses.regression import huber as huber
from graphc.frontend.losses.regression import log_cosh as log_cosh
from graphc.frontend.losses.regression import mean_absolute_error as mean_absolute_error
from graphc.frontend.losses.regression import mean_absolute_percentage_error as mean_absolute_percentage_error
from graphc.frontend.losses.regression import mean_squared_error as mean_squared_error
from graphc.frontend.losses.regression import mean_squared_logarithmic_error as mean_squared_logarithmic_error
from graphc.frontend.losses.sequence import CTC as CTC
from graphc.frontend.losses.sequence import ctc as ctc
from graphc.frontend.losses.triplets import TripletLoss as TripletLoss
from graphc.frontend.losses.triplets import TripletSemiHardLoss as TripletSemiHardLoss
from graphc.frontend.losses.triplets import triplet as triplet
from graphc.frontend.losses.triplets import triplet_semi_hard as triplet_semi_hard
