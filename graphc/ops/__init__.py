"""The operations of graphc. Importing this package fills the op registry and Python's operators on nodes.

Each file holds one family: the op classes, and beneath each the function that builds it. The functions that
``import graphc as gx`` offers as ``gx.add`` and so on are those in ``__all__``; ``random`` is offered as a module.
"""

from graphc.ops import random
from graphc.ops.activation import gelu, log_softmax, logsumexp, relu, softmax
from graphc.ops.arithmetic import (
    abs,
    add,
    divide,
    floor_divide,
    maximum,
    minimum,
    multiply,
    negative,
    pow,
    remainder,
    sign,
    square,
    subtract,
)
from graphc.ops.cast import cast
from graphc.ops.checked import check_finite, in_range
from graphc.ops.compare import equal, greater, greater_equal, isfinite, isnan, less, less_equal, not_equal, where
from graphc.ops.control import custom_vjp, stop_gradient, when_training
from graphc.ops.create import arange, full, iota, ones, ones_like, size_of, zeros, zeros_like
from graphc.ops.crossentropy import (
    categorical_cross_entropy,
    softmax_cross_entropy,
    sparse_categorical_cross_entropy,
    sparse_softmax_cross_entropy,
)
from graphc.ops.exponential import cos, erf, exp, expm1, log, log1p, rsqrt, sigmoid, sin, softplus, sqrt, tanh
from graphc.ops.indexing import one_hot, take, take_along
from graphc.ops.linear import dot, matmul
from graphc.ops.logic import (
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    left_shift,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    right_shift,
)
from graphc.ops.loss import binary_cross_entropy, binary_cross_entropy_with_logits, squared_error
from graphc.ops.movement import broadcast_to, concatenate, flip, pad, reshape, transpose
from graphc.ops.random import bernoulli, dropout, uniform
from graphc.ops.reduction import all, any, argmax, argmin, max, min, prod, sum
from graphc.ops.rounding import ceil, floor, round
from graphc.ops.slicing import expand_dims, flatten, squeeze, stack
from graphc.ops.statistics import mean, var

__all__ = [
    "abs", "add", "all", "any", "arange", "argmax", "argmin", "bernoulli", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "broadcast_to",
    "cast", "categorical_cross_entropy", "ceil", "check_finite", "concatenate", "cos", "custom_vjp", "divide",
    "dot", "dropout", "equal", "erf", "exp", "expand_dims", "expm1", "flatten", "flip", "floor", "floor_divide",
    "full", "gelu", "greater", "greater_equal", "in_range", "iota", "isfinite", "isnan", "left_shift", "less",
    "less_equal", "log", "log1p", "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logsumexp", "matmul", "max", "maximum", "mean", "min", "minimum", "multiply", "negative", "not_equal",
    "one_hot", "ones", "ones_like", "pad", "pow", "prod", "random", "relu", "remainder", "reshape", "right_shift",
    "round", "rsqrt", "sigmoid", "sign", "sin", "size_of", "softmax", "softmax_cross_entropy", "softplus",
    "sparse_categorical_cross_entropy", "sparse_softmax_cross_entropy", "sqrt", "square", "squared_error",
    "squeeze", "stack", "stop_gradient", "subtract", "sum", "take", "take_along", "tanh", "transpose", "uniform",
    "var", "when_training", "where", "zeros", "zeros_like",
]  # fmt: skip
