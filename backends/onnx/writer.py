"""Builds the body of an ONNX graph: nodes, constants, unique names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphc.errors import ExportError
from graphc.ir.node import Node
from graphc.ir.types import DType

if TYPE_CHECKING:
    from graphc.backends.onnx.sizes import Sizes

ONNX_TYPE: Mapping[DType, int] = {
    DType.bool: TensorProto.BOOL,
    DType.uint32: TensorProto.UINT32,
    DType.int32: TensorProto.INT32,
    DType.int64: TensorProto.INT64,
    DType.float16: TensorProto.FLOAT16,
    DType.bfloat16: TensorProto.BFLOAT16,
    DType.float32: TensorProto.FLOAT,
    DType.float64: TensorProto.DOUBLE,
}


class Names:
    """Value names of one ONNX graph: letters, digits and ``_ . / -`` of the user's text, each given once.

    >>> names = Names()
    >>> names.unique('héad "1"'), names.unique("h_ad_1_"), names.unique("")
    ('h_ad_1_', 'h_ad_1__2', 'value')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, text: str) -> str:
        """A new name as close to the text as ONNX and its runtimes allow."""
        base = name = re.sub(r"[^A-Za-z0-9_./-]+", "_", text) or "value"
        while name in self._taken:
            self._next[base] = self._next.get(base, 1) + 1
            name = f"{base}_{self._next[base]}"
        self._taken.add(name)
        return name


class Writer:
    """What the rules of single ops write to.

    A value is known by its name, a ``str``. Nodes that one node of the user's graph becomes are named after it:
    the last one ``dense_3``, those before it ``dense_3/MatMul``; their doc_string is the user's line.

    Attributes:
        opset: the version of the ``ai.onnx`` operators that may be used.
        sizes: the symbolic sizes as values; set once the inputs have names.
        nodes: what was emitted, operands first.
        initializers: constant tensors.
    """

    sizes: Sizes

    def __init__(self, opset: int, names: Names) -> None:
        self.opset = opset
        self.names = names
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._prefix = ""
        self._doc = ""

    @property
    def doc(self) -> str:
        """The user's line of what is being written."""
        return self._doc

    def within(self) -> Writer:
        """A writer for a graph inside this one, which sees its names, constants and sizes."""
        inner = Writer(self.opset, self.names)
        inner.sizes, inner.initializers = self.sizes, self.initializers
        inner._constants, inner._doc = self._constants, self._doc
        return inner

    @contextmanager
    def scope(self, prefix: str, doc: str = "") -> Iterator[None]:
        """Name and document what is emitted inside."""
        before = self._prefix, self._doc
        self._prefix, self._doc = prefix, doc
        try:
            yield
        finally:
            self._prefix, self._doc = before

    def emit(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name. An empty input name leaves that input out."""
        return self.emit_named(self.names.unique(f"{self._prefix}/{op_type}"), op_type, *inputs, **attributes)

    def emit_named(self, name: str, op_type: str, *inputs: str, **attributes: Any) -> str:
        """:meth:`emit` with a name that was taken from :attr:`names` before."""
        node = helper.make_node(op_type, list(inputs), [name], name=name, doc_string=self._doc or None, **attributes)
        self.nodes.append(node)
        return name

    def emit_second(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """:meth:`emit` for a node whose second output is wanted; the first one gets a name that nothing reads."""
        name, unread = (self.names.unique(f"{self._prefix}/{op_type}") for _ in range(2))
        self.emit_named(name, op_type, *inputs, **attributes)
        self.nodes[-1].output.insert(0, unread)
        return name

    def rename(self, old: str, new: str, since: int) -> None:
        """Give a value another name; only nodes from position ``since`` on may mention it."""
        for node in self.nodes[since:]:
            if node.name == old:
                node.name = new
            for values in (node.input, node.output):
                for position, value in enumerate(values):
                    if value == old:
                        values[position] = new

    def constant(self, value: Any, dtype: DType | None = None) -> str:
        """The name of a constant tensor; equal constants (by bytes) are stored once."""
        array: NDArray[Any] = np.asarray(value, None if dtype is None else dtype.numpy, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = "constant" if array.ndim else f"constant/{array.item()}"
            self._constants[key] = self.initializer(self.names.unique(name), array)
        return self._constants[key]

    def initializer(self, name: str, array: NDArray[Any], doc: str = "") -> str:
        """Store an array under a name that was taken from :attr:`names` before."""
        if array.dtype.kind == "V":  # bfloat16, which older releases of onnx do not know as a NumPy type
            tensor = helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.tobytes(), raw=True)
        else:
            tensor = numpy_helper.from_array(array, name)
        if doc:
            tensor.doc_string = doc
        self.initializers.append(tensor)
        return name

    def ints(self, values: Sequence[int]) -> str:
        """A constant vector of int64, as shapes, axes and pads are given."""
        return self.constant(list(values), DType.int64)

    def cast(self, x: str, dtype: DType) -> str:
        """A value in another element type."""
        return self.emit("Cast", x, to=ONNX_TYPE[dtype])

    def require(self, opset: int, node: Node, why: str) -> None:
        """Refuse a node whose operators are newer than the file's opset.

        Raises:
            ExportError: says which opset is needed.
        """
        if self.opset < opset:
            raise ExportError(
                f"{node.op.name} needs ONNX opset {opset} ({why}), the file is to be of opset {self.opset}",
                at=node.user_line,
                remedy=f"export with opset={opset} or later",
            )
