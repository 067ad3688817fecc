"""Layers, by their Keras 3 names, arguments and defaults. Subclass :class:`Layer` for your own."""

from __future__ import annotations

from graphc.frontend.layers.activation import ELU as ELU
from graphc.frontend.layers.activation import LeakyReLU as LeakyReLU
from graphc.frontend.layers.activation import PReLU as PReLU
from graphc.frontend.layers.activation import ReLU as ReLU
from graphc.frontend.layers.activation import Sigmoid as Sigmoid
from graphc.frontend.layers.activation import Softmax as Softmax
from graphc.frontend.layers.activation import Tanh as Tanh
from graphc.frontend.layers.base import Layer as Layer
from graphc.frontend.layers.core import Activation as Activation
from graphc.frontend.layers.core import Dense as Dense
from graphc.frontend.layers.core import Identity as Identity
from graphc.frontend.layers.core import Input as Input
from graphc.frontend.layers.core import InputLayer as InputLayer
from graphc.frontend.layers.core import Lambda as Lambda
from graphc.frontend.layers.merging import Add as Add
from graphc.frontend.layers.merging import Average as Average
from graphc.frontend.layers.merging import Concatenate as Concatenate
from graphc.frontend.layers.merging import Maximum as Maximum
from graphc.frontend.layers.merging import Minimum as Minimum
from graphc.frontend.layers.merging import Multiply as Multiply
from graphc.frontend.layers.merging import Subtract as Subtract
from graphc.frontend.layers.regularization import ActivityRegularization as ActivityRegularization
from graphc.frontend.layers.regularization import AlphaDropout as AlphaDropout
from graphc.frontend.layers.regularization import Dropout as Dropout
from graphc.frontend.layers.regularization import GaussianDropout as GaussianDropout
from graphc.frontend.layers.regularization import GaussianNoise as GaussianNoise
from graphc.frontend.layers.regularization import SpatialDropout1D as SpatialDropout1D
from graphc.frontend.layers.regularization import SpatialDropout2D as SpatialDropout2D
from graphc.frontend.layers.regularization import SpatialDropout3D as SpatialDropout3D
from graphc.frontend.layers.reshaping import Flatten as Flatten
from graphc.frontend.layers.reshaping import Permute as Permute
from graphc.frontend.layers.reshaping import Reshape as Reshape
