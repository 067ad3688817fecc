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
import sys
from types import ModuleType
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
    "graphc.autodiff": ("grad", "hessian_vector_product", "jvp", "value_and_grad", "vjp"),
    "graphc.passes": ("simplify",),
    "graphc.report": ("explain_gradient", "formula"),
    "graphc.driver": ("compile",),
    "graphc.program": ("Program",),
    "graphc.frontend": ("Input", "Model", "Perceptron", "Sequential", "load_model", "set_seed"),
}  # fmt: skip

_SUBMODULES = (
    "activations", "applications", "backends", "callbacks", "constraints", "data", "generation", "initializers",
    "layers", "losses", "metrics", "models", "onnx", "optimizers", "regularizers", "saving",
)  # fmt: skip

_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        value = ["__version__", *sorted({*_WHERE, *_SUBMODULES, *_ops().__all__})]
    elif name in _SUBMODULES:
        value = importlib.import_module(f"graphc.{name}")
    elif name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        if _WHERE[name] == "graphc.ir.node":
            _ops()  # nodes get Python's operators from there
    elif not name.startswith("_") and name in _ops().__all__:
        value = getattr(_ops(), name)
    else:
        # name and object let the interpreter suggest what was meant
        raise AttributeError(f"graphc has no name {name!r}", name=name, obj=sys.modules[__name__])
    globals()[name] = value
    return value


def _ops() -> ModuleType:
    """All other names are functions over ops, which the modules of ``graphc.ops`` list."""
    return importlib.import_module("graphc.ops")


def __dir__() -> list[str]:
    return sorted(__getattr__("__all__"))


if TYPE_CHECKING:
    from graphc import backends as backends
    from graphc.autodiff import grad as grad
    from graphc.driver import compile as compile
    from graphc.ir.node import Node as Node
    from graphc.ir.node import Parameter as Parameter
    from graphc.ir.node import constant as constant
    from graphc.ir.node import parameter as parameter
    from graphc.ir.node import placeholder as placeholder
