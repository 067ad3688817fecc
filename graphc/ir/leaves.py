"""The operations of leaves, which stand for a value from outside of the graph: an input, a parameter, a constant."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.ir.op import Absent, Op, op_class
from graphc.ir.types import TensorType


class Leaf(Op):
    """Base: no operands, and a type that is said and not inferred."""

    type: TensorType

    operands = ()
    no_vjp = Absent.LEAF
    no_jvp = Absent.LEAF

    def infer(self, *types: TensorType) -> TensorType:
        return self.type


class Named(Leaf):
    """Base of leaves that are themselves and not their name: two of one name are two."""

    onnx = Absent.NO_ONNX_FORM
    no_reference = Absent.LEAF

    @property
    def key(self) -> tuple[Any, ...]:
        return (id(self),)


@op_class
class Input(Named):
    """A leaf whose value the caller gives at each run."""

    label: str
    type: TensorType


@op_class
class ParameterLeaf(Named):
    """The leaf that stands for a parameter's current value. Its identity is the parameter's own."""

    label: str
    type: TensorType

    name = "parameter"


@op_class
class Constant(Leaf):
    """A fixed array, keyed by element type, shape and bytes."""

    data: bytes
    type: TensorType

    onnx = "Constant"

    @property
    def array(self) -> NDArray[np.generic]:
        """The value, read only."""
        shape = tuple(int(size) for size in self.type.shape)  # pyright: ignore[reportArgumentType]
        return np.frombuffer(self.data, self.type.dtype.numpy).reshape(shape)

    def reference(self) -> NDArray[np.generic]:
        return self.array

    @property
    def digest(self) -> str:
        """A short name for the bytes."""
        return hashlib.sha256(self.data).hexdigest()[:16]
