"""How a model gets into a graph: layers, models, training."""

from __future__ import annotations

from graphc import ops as ops  # nodes get Python's operators from there
from graphc.frontend import activations as activations
from graphc.frontend import callbacks as callbacks
from graphc.frontend import initializers as initializers
from graphc.frontend import layers as layers
from graphc.frontend import losses as losses
from graphc.frontend import metrics as metrics
from graphc.frontend import optimizers as optimizers
from graphc.frontend import regularizers as regularizers
from graphc.frontend import saving as saving
from graphc.frontend.layers.core import Input as Input
from graphc.frontend.model import Model as Model
from graphc.frontend.model import Sequential as Sequential
from graphc.frontend.perceptron import Perceptron as Perceptron
from graphc.frontend.saving import load_model as load_model
from graphc.frontend.seeds import set_seed as set_seed
