"""graphc: a compute-graph compiler for deep learning.

Declare a model, and graphc makes it a static graph: shape-inferred, differentiated symbolically, optimized, lowered to
native kernels, exported to ONNX. The names below are the public ones; they are imported when first used.

>>> import graphc as gx
>>> x = gx.placeholder("x", ("batch", 3))
>>> (dx,) = gx.grad(gx.sum(x * x), [x])
>>> print(gx.formula(gx.simplify(dx)))
2 * x
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES: dict[str, tuple[str, ...]] = {
    "graphc.errors": (
        "AxisError", "BackendError", "DTypeError", "ExportError", "FileError", "GraphError", "GraphcError",
        "IndexRangeError", "NameClashError", "NonFiniteError", "ParseError", "ShapeError", "VerifyError",
    ),
    "graphc.ir.dims": ("Dim",),
    "graphc.ir.types": ("DType", "TensorType"),
    "graphc.ir.node": ("Node", "Parameter", "constant", "parameter", "placeholder"),
    "graphc.ir.graph": ("Graph",),
    "graphc.ops": (
        "abs", "add", "all", "any", "arange", "argmax", "argmin", "bernoulli", "binary_cross_entropy",
        "binary_cross_entropy_with_logits", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "broadcast_to",
        "cast", "categorical_cross_entropy", "ceil", "check_finite", "concatenate", "cos", "custom_vjp", "divide", "dot",
        "dropout", "equal", "erf", "exp", "expand_dims", "expm1", "flatten", "flip", "floor", "floor_divide", "full",
        "gelu", "greater", "greater_equal", "in_range", "iota", "isfinite", "isnan", "left_shift", "less", "less_equal",
        "log", "log1p", "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul",
        "max", "maximum", "mean", "min", "minimum", "multiply", "negative", "not_equal", "one_hot", "ones", "ones_like",
        "pad", "pow", "prod", "random", "relu", "remainder", "reshape", "right_shift", "round", "rsqrt", "sigmoid",
        "sign", "sin", "size_of", "softmax", "softmax_cross_entropy", "softplus", "sparse_categorical_cross_entropy",
        "sparse_softmax_cross_entropy", "sqrt", "square", "squared_error", "squeeze", "stack", "stop_gradient",
        "subtract", "sum", "take", "take_along", "tanh", "transpose", "uniform", "var", "when_training", "where",
        "zeros", "zeros_like",
    ),
    "graphc.autodiff": ("grad", "hessian_vector_product", "jvp", "value_and_grad", "vjp"),
    "graphc.passes": ("simplify",),
    "graphc.report": ("explain_gradient", "formula"),
    "graphc.driver": ("compile",),
    "graphc.program": ("Program",),
    "graphc.frontend": ("Input", "Model", "Sequential", "load_model", "set_seed"),
}  # fmt: skip

_SUBMODULES = {
    "backends": "graphc.backends",
    "onnx": "graphc.backends.onnx",
    **{
        name: f"graphc.frontend.{name}"
        for name in (
            "activations", "callbacks", "data", "initializers", "layers", "losses", "metrics", "optimizers",
            "regularizers", "saving",
        )
    },
}  # fmt: skip

_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_WHERE), *sorted(_SUBMODULES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        value = importlib.import_module(_SUBMODULES[name])
    elif name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        if _WHERE[name] == "graphc.ir.node":
            importlib.import_module("graphc.ops")  # nodes get Python's operators from there
    else:
        raise AttributeError(f"graphc has no name {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from graphc import backends as backends
    from graphc.autodiff import grad as grad
    from graphc.driver import compile as compile
    from graphc.ir.node import Node as Node
    from graphc.ir.node import Parameter as Parameter
    from graphc.ir.node import constant as constant
    from graphc.ir.node import parameter as parameter
    from graphc.ir.node import placeholder as placeholder
